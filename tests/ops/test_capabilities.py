"""The kernels of machines without AVX: another build of the same sources, chosen at run time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from syncflow.ops import native

CODE = """
import torch
from tests.ops import test_cross_attention, test_packed

assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
for shape in test_packed.TEMPORAL:
    test_packed.test_temporal_attention_is_as_exact_as_eager(shape, torch.float32)
for shape in test_cross_attention.SHAPES[:5]:
    test_cross_attention.test_as_exact_as_eager(shape, torch.float32, True)
"""


@pytest.mark.skipif(not native.LOADED, reason="the extension is not built")
def test_kernels_without_vector_instructions_are_as_exact_as_eager():
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    result = subprocess.run(
        [sys.executable, "-c", CODE],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
