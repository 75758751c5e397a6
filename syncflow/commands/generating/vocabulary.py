"""What ``generate`` says of the words and pictures that a model knows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from syncflow.generation.pipeline import SyncFlow


def print_vocabulary(model: str | None) -> None:
    """The words of a model folder or hub id, None = of the model in the package."""
    from syncflow.config import ModelConfig
    from syncflow.generation.remarks import vocabulary
    from syncflow.model_io import model_folder

    print(vocabulary.told(ModelConfig.load(model_folder.find(model) / model_folder.CONFIG)))


def remark(
    model: SyncFlow,
    prompts: Sequence[str],
    seconds: float | None,
    films: Sequence[str | Path],
    image: str | None,
) -> None:
    """One line on stderr for each way in which a call goes beyond what the model learned."""
    from syncflow.generation import foreign
    from syncflow.generation.remarks import vocabulary

    said = vocabulary.remarks(model.config, prompts, seconds)
    for line in [*said, *foreign.remarks(model, films, image)]:
        print(f"note: {line}", file=sys.stderr)
