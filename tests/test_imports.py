"""Who may import whom, and what importing may not do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import syncflow
from tests import imports

PACKAGE = Path(syncflow.__file__).parent

# From the ground up: a room imports from lower levels alone, in functions too. "" is the package.
LEVELS = (
    {"json_types"},
    {
        "coupling",
        "durable",
        "extras",
        "faults",
        "noise_steps",
        "plain_text",
        "progress",
        "published",
        "ranges",
        "terminal",
    },
    {"clip", "flow", "ops", "sampling"},
    {"config", "detect", "impacts"},
    {"models"},
    {"data", "model_io"},
    {"generation", "interop"},
    {"training", "serving", "modular"},
    {""},
    {"evaluation", "info", "train"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
# The arrows upward, inside Clip's methods: clips are read and written where containers live.
UPWARD = [("clip", f"data.{name}") for name in ("export.files", "export.player", "media")]
# What a room may not import although it lies lower.
APART = {
    "detect": {"flow", "ops"},
    "flow": {"clip", "ops"},
    "models": {"flow", "detect", "impacts"},
    "data": {"flow", "detect", "ops"},
    "model_io": {"flow", "detect", "impacts", "ops"},
    "training": {"ops"},
}

# Folder or file that alone may import a package.
HOMES = {
    "tqdm": "progress.py",
    "av": "data/",
    "deepspeed": "training/distributed/",
    "gradio": "serving/demo.py",
}

SLOW_PACKAGES = ["torch", "transformers", "diffusers", "av", "rich", "scipy", "deepspeed"]


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def folders(package: Path) -> list[str]:
    return [
        ".".join(path.parent.relative_to(package).parts)
        for path in package.rglob("__init__.py")
        if path.parent != package
    ]


def room(module: str) -> str:
    """The folder or file of the package in which a module lies."""
    return module.partition(".")[0]


def test_no_circles_between_modules():
    assert imports.circles(imports.graph(PACKAGE, UPWARD)) == []


def test_no_circles_between_rooms():
    arrows = imports.graph(PACKAGE, UPWARD)
    assert imports.circles(imports.rooms(arrows, folders(PACKAGE))) == []


def test_imports_lead_downwards():
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    arrows = imports.graph(PACKAGE)
    assert {room(module) for module in arrows} == set(level)
    upward = [
        (source, target)
        for source, targets in arrows.items()
        for target in targets
        if room(source) != room(target)
        and (
            level[room(source)] <= level[room(target)]
            or room(target) in APART.get(room(source), ())
        )
    ]
    assert sorted(upward) == UPWARD


@pytest.mark.parametrize(("source", "target"), UPWARD)
def test_the_arrows_upward_are_lazy(source, target):
    known = imports.modules(PACKAGE)
    found = imports.imported(known[source], PACKAGE.name, known)
    assert {top for name, top in found if name == target} == {False}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ({"a.py": "import p.b", "b.py": "def f():\n    from p import a"}, [["a", "b"]]),
        ({"a.py": "from p.b import x", "b.py": "x = 1"}, []),
        ({"a.py": "import p.b", "b.py": "import p.c", "c.py": "import p.a"}, [["a", "b", "c"]]),
    ],
)
def test_circles_are_found(tmp_path, source, found):
    package = tmp_path / "p"
    package.mkdir()
    for name, text in {"__init__.py": "", **source}.items():
        (package / name).write_text(text)
    assert imports.circles(imports.graph(package)) == found


def test_circles_between_rooms_are_found(tmp_path):
    """Where no two modules import each other."""
    files = {
        "one/__init__.py": "", "one/a.py": "import p.two.a", "one/b.py": "",
        "two/__init__.py": "", "two/a.py": "", "two/b.py": "import p.one.b", "__init__.py": "",
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    arrows = imports.graph(tmp_path / "p")
    assert imports.circles(arrows) == []
    between = imports.rooms(arrows, folders(tmp_path / "p"))
    assert imports.circles(between) == [["one", "two"]]


def test_no_folder_is_crowded():
    for folder in {path.parent for path in files()}:
        assert len(list(folder.glob("*.py"))) <= 19, folder  # 18 and __init__


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_some_packages_have_one_home(path):
    here = str(path.relative_to(PACKAGE))
    for name, _ in imports.statements(path):
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
    assert callable(syncflow.prepare)
