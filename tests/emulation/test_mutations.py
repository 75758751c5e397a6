"""Planted bugs, each of which the emulated device's tests must catch: the checks have teeth."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from emulator import KERNELS, compiler

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler() is None, reason="no C++ compiler (set CXX)"),
]
HERE = Path(__file__).resolve().parent

# name: (file, what stands there, what is planted, the tests that must notice)
MUTATIONS = {
    "a shuffle step is missing": (
        "fragments.cuh",
        "  v += __shfl_xor_sync(kAllLanes, v, 1);\n  return v +",
        "  return v +",
        "temporal_attention.py::test_frames[20]",
    ),
    "the mask is off by one": (
        "temporal_attention.cuh",
        "+ (e & 1) >= end)",
        "+ (e & 1) > end)",
        "temporal_attention.py::test_frames[20]",
    ),
    "the rotation turns the wrong way": (
        "fragments.cuh",
        "x = {x.x * c - x.y * s, x.y * c + x.x * s};",
        "x = {x.x * c + x.y * s, x.y * c - x.x * s};",
        "temporal_attention.py::test_frames[20]",
    ),
    "rows beyond the end are stored": (
        "temporal_attention.cuh",
        "if (to < end) tile.store",
        "tile.store",
        "temporal_attention.py::test_frames[20]",
    ),
    "rows beyond the end are loaded": (
        "fragments.cuh",
        "    if (t < end) {\n      load(base + t * stride);",
        "    if (t <= end) {\n      load(base + t * stride);",
        "temporal_attention.py::test_frames[20]",
    ),
    "two registers of an operand are exchanged": (
        "fragments.cuh",
        "low.w[i + 1], high.w[i + 1], b.w[i], b.w[i + 1]);",
        "low.w[i + 1], high.w[i + 1], b.w[i + 1], b.w[i]);",
        "temporal_attention.py::test_frames[20]",
    ),
    "P is not transposed": (
        "temporal_attention_backward.cuh",
        ": transposed(keep.block(which, n + s, m + r));",
        ": keep.block(which, n + s, m + r);",
        "temporal_attention.py::test_frames[20]",
    ),
    "the norm's gradient loses its mean": (
        "temporal_attention_backward.cuh",
        "rstd * (dx.x - x.x * rstd * mean)",
        "rstd * dx.x",
        "temporal_attention.py::test_frames[20]",
    ),
    "a warp forgets to walk on": (
        "temporal_attention_backward.cuh",
        "index < a.B * a.S * a.H; index += a.transform.slots",
        "index < a.B * a.S * a.H; index += a.B * a.S * a.H",
        "temporal_attention.py::test_more_items_than_warps",
    ),
    "a lane leaves before a shuffle": (
        "temporal_attention.cuh",
        "  for (int t = 0; t < end; t += 16) {",
        "  for (int t = 0; t < end; t += 16) {\n    if (threadIdx.x % kWarp == 31) return;",
        "temporal_attention.py::test_frames[20]",
    ),
    "vectors start off their boundary": (
        "fragments.cuh",
        "const auto words = load_words<16>(row + 32 * c + 8 * quarter());",
        "const auto words = load_words<16>(row + 32 * c + 8 * quarter() + 1);",
        "temporal_attention.py::test_frames[20]",
    ),
    "a barrier is missing": (
        "adaln_backward.cuh",
        "  __syncthreads();\n  for (int c = threadIdx.x; c < channels;",
        "  for (int c = threadIdx.x; c < channels;",
        "adaln.py::test_adaln[dtype1-shape0]",
    ),
    "the variance is taken over one channel less": (
        "adaln.cuh",
        "rstd = rsqrtf(warp_sum(squares) / channels + eps);",
        "rstd = rsqrtf(warp_sum(squares) / (channels - 1) + eps);",
        "adaln.py::test_adaln[dtype1-shape0]",
    ),
    "modulations are those of the first group": (
        "adaln.cuh",
        "a.shift.is_float, group * a.shift.stride + c, shift);",
        "a.shift.is_float, c, shift);",
        "adaln.py::test_adaln[dtype1-shape0]",
    ),
    "the last chunk of tokens is dropped": (
        "adaln_backward.cuh",
        "for (int64_t i = 0; i < a.chunks; ++i) sum +=",
        "for (int64_t i = 0; i + 1 < a.chunks; ++i) sum +=",
        "adaln.py::test_adaln[dtype1-shape0]",
    ),
    "the slope of the bias's gradient is the value's": (
        "bias_gelu.cuh",
        "grad[e] *= gelu_slope(x[e] + bias[e]);",
        "grad[e] *= gelu_slope(x[e]);",
        "others.py::test_bias_gelu[True-dtype1-shape0]",
    ),
}


# A quick build: one type and one head dimension.
QUICK = "-DSYNCFLOW_BF16_ONLY -DSYNCFLOW_HEADS=72"


def outcome(kernels: Path, tests: list[str]) -> subprocess.CompletedProcess:
    """The named tests on the kernels of another folder, in a process of their own."""
    run = (
        "import sys, pathlib, pytest, emulator; "
        "emulator.Device.__init__.__defaults__ = (pathlib.Path(sys.argv[1]),); "
        "sys.exit(pytest.main(['-qx', '-p', 'no:cacheprovider', *sys.argv[2:]]))"
    )
    environment = {"PYTHONPATH": f"{HERE}:{HERE.parent.parent}", "SYNCFLOW_EMULATION_FLAGS": QUICK}
    return subprocess.run(
        [sys.executable, "-c", run, str(kernels), *(f"{HERE}/test_emulated_{t}" for t in tests)],
        capture_output=True,
        text=True,
        cwd=HERE,
        env={**os.environ, **environment},
    )


def test_no_bug_no_failure():
    tests = sorted({tests for *_, tests in MUTATIONS.values()})
    done = outcome(KERNELS, tests)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-500:]


@pytest.mark.parametrize("name", MUTATIONS)
def test_planted_bug_is_caught(name, tmp_path):
    file, before, after, tests = MUTATIONS[name]
    kernels = tmp_path / "cuda"
    shutil.copytree(KERNELS, kernels)
    text = (kernels / file).read_text()
    assert before in text, f"{file} no longer holds what this mutation replaces"
    (kernels / file).write_text(text.replace(before, after))
    done = outcome(kernels, [tests])
    caught = done.returncode == 1 and "1 failed" in done.stdout
    assert caught, done.stdout[-2000:] + done.stderr[-500:]
