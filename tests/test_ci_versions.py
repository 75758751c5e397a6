"""The versions that continuous integration installs are ones that the package allows."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lock():
    spec = importlib.util.spec_from_file_location("ci_versions", ROOT / "tools" / "ci_versions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lock_file_has_what_is_asked_for():
    assert lock().outside() == []


def test_a_version_out_of_range_is_noticed(tmp_path, monkeypatch):
    made = lock()
    old = (ROOT / "requirements" / "ci.txt").read_text().splitlines()
    text = ["pydantic==1.10" if line.startswith("pydantic==") else line for line in old]
    monkeypatch.setattr(made, "FILE", tmp_path / "ci.txt")
    made.FILE.write_text("\n".join(line for line in text if not line.startswith("av==")))
    found = [line.partition(":")[0] for line in made.outside()]
    assert found == ["av<19,>=16", "pydantic<3,>=2.11"]


def test_it_is_used():
    assert "-c requirements/ci.txt" in (ROOT / ".ci" / "run").read_text()
