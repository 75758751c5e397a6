"""What every config is: strict, frozen, and read from JSON with one clear line for a fault."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from syncflow import durable, plain_text

T = TypeVar("T", bound="Config")


def read(path: str | Path) -> object:
    """What a JSON config file says, unchecked.

    Raises:
        FileNotFoundError: there is none. ValueError: it is not JSON.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no config file {path}")
    return plain_text.read_json(path)


class Config(BaseModel):
    """Frozen data; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, data: object) -> object:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), cls.model_fields, n=1, cutoff=0.0)
                    raise ValueError(
                        f"unknown key {key!r} in {cls.__name__}; nearest is {near[0]!r}"
                    )
        return data

    @classmethod
    def load(cls: type[T], path: str | Path) -> T:
        """Reads and checks a JSON file; every fault is one ValueError that names file and key."""
        return cls.parse(read(path), str(path))

    @classmethod
    def parse(cls: type[T], data: object, where: str = "config") -> T:
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            reason = first["msg"].removeprefix("Value error, ")
            if first["type"] != "value_error" and isinstance(first["input"], (str, float, int)):
                reason += f", got {first['input']!r:.80}"
            raise ValueError(f"{where}{': ' + key if key else ''}: {reason}") from None

    def dump(self, path: str | Path) -> None:
        """Writes the JSON file that ``load`` reads; it is complete or absent."""
        durable.write_text(path, self.model_dump_json(indent=2) + "\n")
