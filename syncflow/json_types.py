"""The types of JSON data. The module is light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

#: A value of JSON, where it is written or passed on as it is.
Json: TypeAlias = "None | bool | int | float | str | Sequence[Json] | Mapping[str, Json]"

#: An object of JSON whose values are used, and whose shape a checker cannot know: what a file or a
#: person said, checked when it was read, and the rows of reports, whose columns depend on what was
#: measured. Objects of known keys have types of their own, and what is only passed on is ``Json``
#: or a ``Mapping[str, object]``.
JsonObject: TypeAlias = dict[str, Any]
