"""The parts of a quarter hour on a GPU, rehearsed: real processes on a CPU, a real kill."""

import ast
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import counting
from benchmarks.evidence import ROOT
from benchmarks.gpu import collect, correct, tables
from benchmarks.gpu.results import Clock, Results

#: What a bare machine with a GPU does not have.
MISSING = ["av", "deepspeed", "diffusers", "tensorboard", "peft"]


def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine without those packages."""
    site = tmp_path / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name in {MISSING}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import importlib.util as u\n"
        "_found = u.find_spec\n"
        f"u.find_spec = lambda n, *r: None if n in {MISSING} else _found(n, *r)\n"
    )
    return {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONPATH": str(site),
        "OUT": str(tmp_path / "out"),
        "OMP_NUM_THREADS": "1",
    }


def tree(folder: Path) -> Path:
    """What would travel: the sources and what was built, no git."""
    for name in ("benchmarks", "configs", "csrc", "syncflow", "tests"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results")
        )
    for name in ("pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "build_tools", folder / "build_tools")
    (folder / "benchmarks" / "results").mkdir()
    return folder


def start(folder: Path, environment: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", "benchmarks/gpu_lease.sh", "rehearse"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_rehearsal_walks_every_part(tmp_path):
    """From a tree without git and without the packages that a bare machine lacks."""
    folder = tree(tmp_path / "tree")
    process = start(folder, bare(tmp_path))
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-4000:]
    out = tmp_path / "out"
    for part in ("correct", "fast", "train", "compare"):
        rows = json.loads((out / f"{part}.json").read_text())["rows"]
        assert rows and not [key for key, row in rows.items() if "error" in (row or {})], part
    assert len(list((out / "small").glob("*.safetensors"))) >= 1
    fast = json.loads((out / "fast.json").read_text())
    assert fast["rows"]["generate xl2 50 steps"] == {"not run": "diffusers is not installed"}
    assert fast["rows"]["step xl2 eager"]["ms"] > 0
    assert fast["environment"]["csrc_cuda"]
    assert not [p for p in out.rglob("*") if p.suffix == ".tmp"]


def test_a_kill_loses_no_row(tmp_path):
    """At any second what was measured is there, whole."""
    folder = tree(tmp_path / "tree")
    process = start(folder, bare(tmp_path))
    fast = tmp_path / "out" / "fast.json"
    try:
        ends = time.monotonic() + 300
        while not fast.exists():
            assert process.poll() is None and time.monotonic() < ends
            time.sleep(0.2)
        time.sleep(random.uniform(0, 5))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for path in (tmp_path / "out").glob("*.json"):
        assert json.loads(path.read_text())["rows"]


def test_a_part_goes_on_after_its_rows(tmp_path):
    made = []

    def measure(key: str, results: Results) -> None:
        results.row(key, lambda: made.append(key) or {"ms": 1.0}, needs=0)

    first = Results(tmp_path, "fast", Clock(60))
    measure("a", first)
    first.row("broken", lambda: 1 / 0)
    assert "ZeroDivisionError" in first.rows["broken"]["error"]
    second = Results(tmp_path, "fast", Clock(60))
    measure("a", second)
    measure("broken", second)
    measure("b", second)
    assert made == ["a", "broken", "b"]
    assert second.rows["broken"] == {"ms": 1.0}
    for seconds in (0, 3):  # and by default a row needs five
        late = Results(tmp_path, "fast", Clock(seconds))
        late.row("c", lambda: {"ms": 1.0})
        assert "c" not in late.rows
    chosen = Results(tmp_path, "fast", Clock(60), only="step")
    measure("d", chosen)
    assert "d" not in chosen.rows


def test_rows_of_other_kernels_are_measured_anew(tmp_path):
    first = Results(tmp_path, "fast", Clock(60))
    first.row("a", lambda: {"ms": 1.0}, needs=0)
    before = json.loads(first.path.read_text())
    before["environment"]["csrc_cuda"] = "of other kernels"
    first.path.write_text(json.dumps(before))
    second = Results(tmp_path, "fast", Clock(60))
    second.row("a", lambda: {"ms": 2.0}, needs=0)
    assert second.rows == {"a": {"ms": 2.0}}


def test_every_kernel_is_blamed_by_some_test():
    blamed = {name.removesuffix("_") for names in correct.BLAMED.values() for name in names}
    assert {name.removesuffix("_") for name in counting.KERNELS} <= blamed


#: Tests whose failure speaks of no one operator, and why.
BLAMES_NONE = {
    "every_op_has_a_kernel": "speaks of the build",
    "same_bits_again_and_on_another_stream": "the operator is the id in brackets",
    "captured_in_a_graph": "the operator is the id in brackets",
    "compiles_to_one_graph": "the operator is the id in brackets",
    "float64_uses_the_reference": "no kernel runs",
    "beyond_two_to_the_31": "several operators, and sizes alone",
}


def test_every_test_on_a_device_blames_some_operator():
    tree = ast.parse((ROOT / "tests" / "ops" / "test_cuda.py").read_text())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    names = [name for name in names if name.startswith("test_")]
    assert len(names) > 15
    unheard = [n for n in names if not correct.switched_off([f"tests/ops/test_cuda.py::{n}[0]"])]
    assert {name.removeprefix("test_") for name in unheard} == set(BLAMES_NONE)


def test_a_failed_test_switches_its_operator_off():
    failed = ["tests/ops/test_cuda.py::test_adaln_family[dtype0-shape1]"]
    assert correct.switched_off(failed) == [
        "adaln",
        "gate_residual",
        "gate_residual_adaln",
        "residual_layernorm",
    ]
    assert correct.switched_off(["tests/ops/test_cuda.py::test_test"]) == []
    captured = ["tests/ops/test_cuda.py::test_captured_in_a_graph[gelu]"]
    assert correct.switched_off(captured) == ["bias_gelu", "bias_gelu_"]


def test_errors_are_summed_up_by_test_and_dtype():
    def row(error: float, bound: float) -> dict:
        where = {"test": "tests/a.py::test_x[1]", "result": 0, "dtype": "bfloat16"}
        return where | {"error": error, "eager": 0.1, "bound": bound}

    found = correct.by_test([row(0.1, 0.4), row(0.3, 0.4), row(0.0, 0.0)])
    assert found["test_x bfloat16"]["compared"] == 3
    assert found["test_x bfloat16"]["worst"]["of_bound"] == pytest.approx(0.75)


def test_results_are_filed_by_device(tmp_path):
    """Rows of the same kernels are added to; those of others are replaced."""
    folder, results = tmp_path / "in", tmp_path / "results"
    folder.mkdir(), results.mkdir()

    def write(rows: dict, kernels: str) -> None:
        environment = {"device": "NVIDIA H100 80GB HBM3", "csrc_cuda": kernels}
        content = {"suite": "gpu", "part": "fast", "environment": environment, "rows": rows}
        (folder / "fast.json").write_text(json.dumps(content))

    write({"a": {"ms": 1}}, "one")
    (path,) = collect.file_parts(folder, results)
    assert path.name == "nvidia-h100-80gb-hbm3-fast.json"
    write({"b": {"ms": 2}}, "one")
    collect.file_parts(folder, results)
    assert set(json.loads(path.read_text())["rows"]) == {"a", "b"}
    write({"a": {"ms": 5}}, "one")
    collect.file_parts(folder, results)
    assert json.loads(path.read_text())["rows"] == {"a": {"ms": 5}, "b": {"ms": 2}}
    write({"c": {"ms": 3}}, "two")
    collect.file_parts(folder, results)
    assert set(json.loads(path.read_text())["rows"]) == {"c"}


def test_tables_are_those_of_the_kept_files():
    """`python -m benchmarks.gpu.collect` writes them."""
    for page, text in tables.pages().items():
        assert page.read_text() == text, f"{page.name} quotes other numbers"
