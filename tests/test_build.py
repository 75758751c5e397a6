"""The build of the operators: what is compiled when, counted with a stand-in for the compiler."""

import json
import os
import sysconfig
from pathlib import Path

import pytest

from build_tools import backend, ninja_file, operators, pytorch, toolchain

pytest.importorskip("ninja")

# Notes what it is asked for, and makes the output and the list of headers that ninja wants.
_COMPILER = """#!/bin/sh
[ "$1" = --version ] && echo "stand-in $(cat "{version}")" && exit 0
for word; do
    [ "$before" = -o ] && output=$word
    [ "$before" = -c ] && input=$word
    [ "$before" = -MF ] && list=$word
    before=$word
done
if [ -n "$input" ]; then
    echo "$output" >> "{log}"
    echo "$output: $input {header}" > "$list"
fi
echo "$@" > "$output"
"""
_LIBRARY = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"


class Place:
    """A miniature source tree, an environment's torch and a compiler that counts."""

    def __init__(self, folder: Path) -> None:
        self.root, self.package = folder / "source", folder / "source" / "syncflow"
        self.log, self.version = folder / "log", folder / "version"
        for name in ("bindings.cpp", "ops.h", "cpu/a.cpp", "cpu/simd/b.cpp", "cpu/simd/b.h"):
            path = self.root / "csrc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        self.version.write_text("1")
        self.compiler = folder / "c++"
        self.compiler.write_text(
            _COMPILER.format(
                log=self.log, version=self.version, header=self.root / "csrc" / "ops.h"
            )
        )
        self.compiler.chmod(0o755)

    def torch(self, name: str, version: str = "2.14.1+cpu") -> Path:
        folder = self.root.parent / name / "torch"
        (folder / "include").mkdir(parents=True, exist_ok=True)
        (folder / "version.py").write_text(f"__version__ = '{version}'\ncuda = None\n")
        return folder

    def build(self, package: Path | None = None) -> tuple[int, dict]:
        """(objects compiled, record)."""
        self.log.write_text("")
        record = operators.build(package or self.package, self.root)
        return len(self.log.read_text().splitlines()), record


@pytest.fixture
def place(tmp_path, monkeypatch):
    place = Place(tmp_path)
    monkeypatch.setenv("CXX", str(place.compiler))
    monkeypatch.setenv("SYNCFLOW_CUDA", "0")
    folder = place.torch("wheel")
    monkeypatch.setattr(pytorch, "installed_torch", lambda: place.now)
    place.now = folder
    return place


def test_second_installation_compiles_nothing(place):
    """The first reads the headers of an unpacked wheel, the second those of the environment."""
    count, first = place.build()
    assert count == 2 + len(first["cpu"]) and (place.package / _LIBRARY).exists()
    place.now = place.torch("site-packages")
    count, second = place.build()
    assert (count, second) == (0, first)
    assert json.loads((place.package / "_C.json").read_text()) == first


def test_a_wheel_takes_what_was_compiled_for_the_clone(place, tmp_path):
    _, first = place.build()
    count, second = place.build(tmp_path / "wheel" / "syncflow")
    assert (count, second) == (0, first)
    assert (tmp_path / "wheel" / "syncflow" / _LIBRARY).read_bytes() == (
        place.package / _LIBRARY
    ).read_bytes()


def test_whatever_decides_the_bytes_compiles_again(place, monkeypatch):
    everything, _ = place.build()
    for name, count in (("ops.h", everything), ("cpu/a.cpp", 1)):
        (place.root / "csrc" / name).write_text("changed")
        assert place.build()[0] == count, name
        assert place.build()[0] == 0, name
    place.now = place.torch("other", "2.15.0+cpu")
    assert place.build()[0] == everything
    assert place.build()[0] == 0
    before = place.build()[1]
    monkeypatch.setitem(ninja_file.CAPABILITIES, "DEFAULT", ["-DOTHER"])
    count, flagged = place.build()
    assert count == 1 and flagged["fingerprint"] != before["fingerprint"]
    assert place.build() == (0, flagged)
    before = flagged
    place.version.write_text("2")
    assert place.build()[1]["fingerprint"] != before["fingerprint"]


def test_a_damaged_library_is_not_kept(place):
    _, first = place.build()
    (place.package / _LIBRARY).write_text("half")
    count, second = place.build()
    assert (count, second) == (0, first)  # the good one is still in build/
    assert (place.package / _LIBRARY).read_text() != "half"
    for path in (place.package / _LIBRARY, *(place.root / "build").glob(f"*/{_LIBRARY}")):
        path.unlink()
    place.build()
    assert (place.package / _LIBRARY).exists()


def test_what_cannot_be_built_leaves_a_reason_and_no_library(place, monkeypatch):
    place.build()
    monkeypatch.setenv("CXX", "false")
    _, record = place.build()
    assert record["reason"].startswith("compilation failed: ")
    assert not (place.package / _LIBRARY).exists()
    assert json.loads((place.package / "_C.json").read_text()) == record


def test_ninja_is_asked_for_only_where_a_compiler_is(monkeypatch):
    monkeypatch.setattr(backend.build_meta, "get_requires_for_build_editable", lambda _: [])
    monkeypatch.setattr(toolchain, "compiler", lambda: "c++")
    assert backend.get_requires_for_build_editable() == ["ninja"]

    def none():
        raise toolchain.CannotBuildError("none")

    monkeypatch.setattr(toolchain, "compiler", none)
    assert backend.get_requires_for_build_editable() == []


def test_setup_py_names_what_it_needs_and_no_more():
    root = Path(__file__).resolve().parent.parent
    lines = [line for line in (root / "setup.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 20
    for path in (root / "build_tools").glob("*.py"):
        assert "import torch" not in path.read_text(), path.name
    assert os.access(root / "build_tools" / "backend.py", os.R_OK)
