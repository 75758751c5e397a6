"""What is said of a package that is missing or too old; and the ranges that are asked for."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from syncflow import cli, extras
from syncflow.cli import main

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]


def test_every_dependency_has_a_range():
    lists = [PROJECT["dependencies"], *OPTIONAL.values()]
    for requirement in (Requirement(text) for texts in lists for text in texts):
        operators = {part.operator for part in requirement.specifier}
        assert operators & {">=", "<"}, requirement
        assert "<" in operators or requirement.name == "packaging", requirement


def test_a_package_has_one_range():
    seen: dict[str, set[str]] = {}
    for text in (text for texts in [PROJECT["dependencies"], *OPTIONAL.values()] for text in texts):
        seen.setdefault(Requirement(text).name, set()).add(str(Requirement(text).specifier))
    assert {name: ranges for name, ranges in seen.items() if len(ranges) > 1} == {}


def test_every_extra_named_in_advice_exists():
    assert set(extras.EXTRAS.values()) <= set(OPTIONAL)
    for path in (ROOT / "syncflow").rglob("*.py"):
        for name in re.findall(r"'syncflow\[(\w+)\]'", path.read_text()):
            assert name in OPTIONAL, path


def test_advice_has_one_owner():
    for path in (ROOT / "syncflow").rglob("*.py"):
        if path.name != "extras.py":
            assert not re.search(r"pip install [^'\"]*syncflow\[", path.read_text()), path


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("gradio", "pip install 'syncflow[demo]'"),
        ("cv2", "pip install 'syncflow[metrics]'"),
        ("no_such_package", "pip install no_such_package"),
        ("no_such_package.part", "pip install no_such_package"),
        ("json.no_part", "pip install --upgrade json"),
    ],
)
def test_advice(module, said):
    assert extras.advice(module) == said


def test_a_part_that_an_old_package_lacks_names_the_extra(monkeypatch, capsys):
    """As gradio_client.serializing, for which pip would look in vain."""
    monkeypatch.setattr(extras, "_is_there", lambda name: True)

    def fail(*args):
        raise ModuleNotFoundError("No module named 'gradio_client.serializing'",
                                  name="gradio_client.serializing")  # fmt: skip

    monkeypatch.setattr(cli._COMMANDS["info"], "run", fail)
    assert main(["info"]) == 2
    assert "pip install --upgrade 'syncflow[demo]'" in capsys.readouterr().err


def test_a_version_out_of_range_is_told_before_it_is_imported(monkeypatch, capsys):
    required = ["gradio<7,>=6.31; extra == 'demo'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: required)
    monkeypatch.setattr(extras, "_is_there", lambda name: True)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.50.2")
    assert main(["demo"]) == 2
    err = capsys.readouterr().err
    assert "gradio<7,>=6.31 is wanted and 3.50.2 is installed" in err
    assert err.endswith("pip install --upgrade 'syncflow[demo]'\n") and err.count("\n") == 1
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "6.40.0")
    extras.need("gradio", "the demo needs Gradio")


def test_what_is_missing_is_told_with_its_extra():
    with pytest.raises(ModuleNotFoundError, match=r"not installed: pip install nowhere_to_be_had"):
        extras.need("nowhere_to_be_had", "this needs nothing")
