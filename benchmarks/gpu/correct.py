"""Whether the kernels are right on this device: their tests with every error's size, the
comparison of fragment maps among them, and compute-sanitizer over a small shape of each.

What fails is switched off for the parts that follow (`SYNCFLOW_OFF`), and said in every result.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.evidence import ROOT
from benchmarks.gpu import small_shapes
from benchmarks.gpu.results import Results

TESTS = (
    "tests/ops/test_cuda.py",
    "tests/emulation/test_fragments.py",
    "tests/models/test_cuda_model.py",
    "tests/test_steps.py",
)


def check(results: Results, device: torch.device, tiny: bool) -> None:
    """The rows "tests", "errors" and one for each tool of the sanitizer."""
    with sanitizer("memcheck", tiny) as process:
        results.row("tests", lambda: tests(results, tiny), 20)
        _said_by("memcheck", process, results, 0)
    if tiny:
        results.row("sanitizer", lambda: small_shapes.run(device.type) or "not run: rehearsal")
    with sanitizer("racecheck", tiny) as process:
        _said_by("racecheck", process, results, 15)


def _said_by(tool: str, process: subprocess.Popen | None, results: Results, needs: float) -> None:
    if process is not None:
        results.row(f"sanitizer {tool}", lambda: finish(process, results.clock.left() - 5), needs)


def tests(results: Results, tiny: bool) -> dict[str, object]:
    """Runs the GPU tests on all cores; the errors that they measured become the row "errors"."""
    workers = max(1, min(12, (os.cpu_count() or 2) - 2))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "errors.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
        command += ["--collect-only"] if tiny else []
        seek = [sys.executable, "-c", "import xdist"]
        if not tiny and workers > 1 and not subprocess.run(seek, capture_output=True).returncode:
            command += ["-n", str(workers)]
        environment = {**os.environ, "SYNCFLOW_ERROR_LOG": str(log), "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                [*command, *TESTS],
                capture_output=True,
                text=True,
                cwd=ROOT,
                env=environment,
                timeout=max(20, results.clock.left() - 10),
            )
            out, code = done.stdout, done.returncode
        except subprocess.TimeoutExpired as stopped:
            out, code = (stopped.stdout or b"").decode(errors="replace"), -1
        (results.path.parent / "tests.log").write_text(out[-400_000:])
        rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    results.add("errors", by_test(rows))
    failures = re.findall(r"^(?:FAILED|ERROR) (\S+)", out, re.M)
    lines = out.strip().splitlines()
    off = switched_off(failures)
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "off").write_text(",".join(off))
    return {
        "exit": code,
        "summary": lines[-1] if lines else "",
        "failures": failures[:80],
        "switched_off": off,
    }


def by_test(rows: list[dict]) -> dict[str, dict]:
    """For every test function and dtype: the largest ratio of the kernel's error to eager's, with
    both errors, and how many results were compared."""
    found: dict[str, dict] = {}
    for row in rows:
        name = row["test"].rsplit("::", 1)[-1].split("[")[0]
        entry = found.setdefault(f"{name} {row['dtype']}", {"compared": 0, "worst": None})
        entry["compared"] += 1
        ratio = row["error"] / row["bound"] if row["bound"] else 0.0
        if entry["worst"] is None or ratio > entry["worst"]["of_bound"]:
            entry["worst"] = {
                "of_bound": ratio,
                "error": row["error"],
                "eager": row["eager"],
                "result": row["result"],
                "test": row["test"].rsplit("::", 1)[-1],
            }
    return found


#: Test function -> the operators that its failure switches off.
BLAMED = {
    "adaln": ["adaln", "gate_residual", "gate_residual_adaln", "residual_layernorm"],
    "temporal": ["temporal_attention"],
    "fragments": ["temporal_attention"],
    "qk_norm_rope": ["qk_norm_rope", "qk_norm_rope_"],
    "gelu": ["bias_gelu", "bias_gelu_"],
    "patches": ["patchify3d", "unpatchify3d"],
    "euler": ["euler_cfg"],
    "turned": ["rotate_"],
    "own_key": ["attend_own_"],
    "layernorm_of_sum": ["layernorm_of_sum"],
    "group_norm": ["group_norm_silu"],
}


def switched_off(failures: list[str]) -> list[str]:
    """The operators that failed tests speak of."""
    named = [failure.rsplit("::", 1)[-1] for failure in failures]  # its operator may be the id
    names = [op for part, ops in BLAMED.items() for op in ops if any(part in n for n in named)]
    return sorted(set(names))


@contextlib.contextmanager
def sanitizer(tool: str, tiny: bool) -> Iterator[subprocess.Popen | None]:
    """compute-sanitizer beside what runs within, where it is installed; ended with it."""
    command = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if tiny or not Path(command).exists():
        yield None
        return
    process = subprocess.Popen(
        [command, "--tool", tool, sys.executable, "-m", "benchmarks.gpu.small_shapes"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finish(process: subprocess.Popen, seconds: float) -> dict[str, object]:
    """What the sanitizer said, once it is done."""
    try:
        said, _ = process.communicate(timeout=max(1, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        return {"summary": "not run: out of time"}
    found = re.search(r"(ERROR|RACECHECK) SUMMARY: .*", said)
    return {"summary": found.group(0) if found else "not run", "output": said[-3000:]}
