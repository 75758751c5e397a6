"""A small model, and an empty folder to work in."""

from pathlib import Path

import pytest

from tests import small_model


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    return str(small_model.build().save(tmp_path_factory.mktemp("models") / "m"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path
