"""What lies beside the modules goes into a wheel: it is read at run time."""

import tomllib
from pathlib import Path

import syncflow
from syncflow.detect import settings
from syncflow.evaluation.report import page

PACKAGE = Path(syncflow.__file__).parent


def test_every_file_beside_the_modules_is_declared():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["syncflow"]
    declared = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    found = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and not path.name.startswith("_C")
    }
    assert found <= declared, sorted(map(str, found - declared))
    assert settings.PATH in declared and Path(page.__file__).with_name("page.css") in declared


def test_missing_settings_are_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "PATH", tmp_path / "detectors.json")
    settings.load.cache_clear()
    try:
        settings.load()
    except FileNotFoundError as error:
        assert "reinstall syncflow" in str(error)
    else:
        raise AssertionError("other settings were used in silence")
    finally:
        settings.load.cache_clear()
