"""The installation itself, by plain pip in fresh environments (slow: `pytest -m slow`)."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import syncflow

ROOT = Path(syncflow.__file__).parent.parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="not a source tree"),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The source tree as it is in a clone, with no extension in it."""
    ignore = shutil.ignore_patterns("_C*", "__pycache__", "*.egg-info", "*.safetensors")
    for name in ("build_tools", "configs", "csrc", "syncflow"):
        shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    return tmp_path / "source"


def wheel(source: Path, **environment: str) -> dict[str, object]:
    """Build as pip does, in isolation; the record written beside the extension, or in its place."""
    out = source.parent / "wheels"
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(out),
    ]
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CXX")}
    subprocess.run([*command, str(source)], check=True, env={**inherited, **environment})
    (path,) = out.glob("syncflow-*.whl")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        record = json.loads(archive.read("syncflow/_C.json"))
    record["library"] = any(n.startswith("syncflow/_C.") and n.endswith(".so") for n in names)
    assert "syncflow/configs/stage1.json" in names
    assert "syncflow/py.typed" in names and not any(n.startswith(("tests", "csrc")) for n in names)
    return record


def test_builds_against_the_torch_of_the_environment(source):
    import torch

    record = wheel(source)
    assert record["torch"] == torch.__version__ and record["library"]


def test_installs_without_a_compiler(source, tmp_path):
    """A PATH with no compiler on it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "env", "uname"):
        (tools / name).symlink_to(shutil.which(name))
    record = wheel(source, PATH=str(tools))
    assert not record["library"] and "no C++ compiler" in record["reason"]


def test_installs_with_a_compiler_that_fails(source):
    record = wheel(source, CXX="false")
    assert not record["library"] and "compilation failed" in record["reason"]


def test_fresh_environment_without_torch(source, tmp_path):
    """One command: dependencies, build and all. Downloads (or copies) PyTorch, some 5 GB."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(python), "-m", "pip", "install", "--quiet", "-e", str(source)]
    subprocess.run(command, check=True, env=inherited)
    objects = {path: path.stat().st_mtime_ns for path in source.glob("build/*/*.o")}
    assert objects
    subprocess.run(command, check=True, env=inherited)  # now beside an installed PyTorch
    assert objects == {path: path.stat().st_mtime_ns for path in source.glob("build/*/*.o")}
    code = "import json; from syncflow.ops import native; print(json.dumps(native.status()))"
    # Python in the folder above a clone of the package's name imports the package, not the clone.
    clones = tmp_path / "clones"
    clones.mkdir()
    (clones / "syncflow").symlink_to(source)
    status = json.loads(
        subprocess.run(
            [str(python), "-c", code], check=True, capture_output=True, cwd=clones, env=inherited
        ).stdout
    )
    assert status["active"] and status["torch_built"] == status["torch_running"]
