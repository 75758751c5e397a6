"""Who may import whom, and what importing may not do."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import syncflow

PACKAGE = Path(syncflow.__file__).parent

# module or folder of syncflow -> what of syncflow it may import. Absent: everything ("cli -> all").
ALLOWED = {
    "ops": {"ops"},
    "clip": set(),
    "flow": set(),
    "config": {"clip"},
    "coding": {"clip"},
    "noise": {"flow"},
    "models": {"models", "ops", "clip", "config"},
    "data": {"data", "models", "clip", "config", "coding"},
    "interop": {"interop", "models", "config", "clip", "flow", "hub", "model_folder", "model_card"},
    "sampler": {"models", "ops", "flow", "clip", "config"},
    "hub": set(),
    "model_card": {"config"},
    "text_cache": {"models", "config", "hub"},
    "model_folder": {"models", "clip", "config", "hub", "model_card"},
    "inputs": {"data.media", "clip", "flow", "config"},
    # Takes are ranked by detectors, which know no model.
    "pipeline": {"models", "flow", "data.media", "clip", "config", "sampler", "model_folder"}
    | {"inputs", "pipeline", "evaluation.takes", "text_cache", "hub", "coding", "noise"},
    # A model's folder is what training leaves behind; its detectors judge a decoder as it trains.
    "training": {"training", "models", "flow", "data", "clip", "config", "model_folder", "sampler"}
    | {"evaluation.contacts", "evaluation.onsets", "coding", "noise", "inputs"},
    "evaluation": {"evaluation", "models", "flow", "data", "clip", "config", "pipeline", "ops"},
}

# Inside Clip.save and Clip.load alone: a clip is written and read where containers live.
EXCEPTIONS = {("clip.py", "data.media")}

# Folder or file that alone may import a package.
HOMES = {"av": "data/", "deepspeed": "training/engine.py", "gradio": "demo.py"}

SLOW_PACKAGES = ["torch", "transformers", "diffusers", "av", "rich", "scipy", "deepspeed"]


def imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted name, whether at module level) of all that a file imports, submodules resolved."""
    tree = ast.parse(path.read_text())
    found = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                found.extend((f"{child.module}.{alias.name}", top) for alias in child.names)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            visit(child, top and not inside)

    visit(tree, True)
    return found


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    here = str(path.relative_to(PACKAGE))
    owner = here.split("/")[0].removesuffix(".py")
    for name, top in imports(path):
        parts = name.split(".")
        if parts[0] != "syncflow" or owner not in ALLOWED or len(parts) == 1:
            continue
        inner = parts[1:]
        prefixes = {".".join(inner[:n]) for n in range(1, len(inner) + 1)}
        excepted = any(here == file and what in prefixes for file, what in EXCEPTIONS) and not top
        assert excepted or prefixes & ALLOWED[owner], f"{here} may not import {name}"


def test_the_rules_name_what_exists():
    known = {p.name.removesuffix(".py") for p in PACKAGE.iterdir()}
    for owner, allowed in ALLOWED.items():
        assert owner in known or owner in {"interop"}, owner
        assert {a.split(".")[0] for a in allowed} <= known | {"interop"}


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_some_packages_have_one_home(path):
    here = str(path.relative_to(PACKAGE))
    for name, _ in imports(path):
        home = HOMES.get(name.split(".")[0])
        assert home is None or here.startswith(home), f"{name} belongs in {home}, not in {here}"


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_nothing():
    code = f"import sys, syncflow; print([m for m in {SLOW_PACKAGES} if m in sys.modules])"
    assert run(code) == "[]"


def test_importing_every_module_is_free(tmp_path):
    """No file written, no logging set up, no random state used, no CUDA, no slow package."""
    names = [
        ".".join(("syncflow", *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in files()
        if path.name not in ("__main__.py",)
    ]
    names = [name.removesuffix(".__init__") for name in names]
    code = f"""
import importlib, logging, random, sys, torch
before = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
for name in {names!r}:
    importlib.import_module(name)
after = torch.get_rng_state(), random.getstate(), torch.get_num_threads()
assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
assert not logging.getLogger().handlers
assert not torch.cuda.is_initialized()
print([m for m in ("deepspeed", "gradio", "xformers", "flash_attn") if m in sys.modules])
"""
    before = {p for p in PACKAGE.rglob("*") if "__pycache__" not in p.parts}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "HF_HOME": str(tmp_path)}
    assert run(code, **home) == "[]"
    assert {p for p in PACKAGE.rglob("*") if "__pycache__" not in p.parts} == before
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_public_names():
    assert syncflow.__version__ and dir(syncflow) == sorted(syncflow.__all__)
    with pytest.raises(AttributeError, match="no attribute 'generat'"):
        syncflow.generat  # noqa: B018
    assert syncflow.Clip is syncflow.Clip
    assert callable(syncflow.generate) and callable(syncflow.load)
