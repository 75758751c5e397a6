"""Encoders small enough to run in a test."""

from pathlib import Path

import pytest

from tests.data import toy


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory) -> Path:
    """The folder of an untrained model."""
    return toy.save(tmp_path_factory.mktemp("toy") / "model")


@pytest.fixture(scope="session")
def encoders(toy_model):
    from syncflow.data.encoders import Encoders
    from syncflow.model_io import model_folder

    return Encoders(**model_folder.load_encoders(toy_model)[1])


@pytest.fixture(scope="session")
def spec():
    from syncflow.config import ModelConfig

    return ModelConfig.parse(toy.TOY).geometry.spec
