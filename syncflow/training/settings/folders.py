"""Schemas of folders that a task reads several of."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Discriminator, Field, Tag, model_validator

from syncflow.config import Config


class FolderConfig(Config):
    """One of several folders; its name alone, where nothing else is said of it, is one."""

    data: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"data": value} if isinstance(value, str) else value


_Folder = TypeVar("_Folder", bound=FolderConfig)

#: A folder's name, or a list of what is said of each of several.
OneOrSeveral = Annotated[
    Annotated[str, Tag("folder")] | Annotated[list[_Folder], Field(min_length=1), Tag("folders")],
    Discriminator(lambda value: "folders" if isinstance(value, list) else "folder"),
]
