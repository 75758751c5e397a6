"""Models of others in transformers' formats, read without running what code they bring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict


class _NoCode(TypedDict):
    trust_remote_code: bool


#: For every call that reads a model folder or hub id: never run its code, and never ask.
NO_CODE: _NoCode = {"trust_remote_code": False}


@contextmanager
def without_code(where: str | Path) -> Iterator[None]:
    """Around such a call: what transformers says of code in a model becomes one line.

    Raises:
        ValueError: the model at ``where`` is code in part; transformers' own message would advise
            to run it.
    """
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"'{where}' brings Python code of its own, which is not run; "
            "use a model that transformers knows by itself"
        ) from None
