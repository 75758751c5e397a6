"""The emulated matrix instructions against the matrices that they stand for."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from emulator import KERNELS, Device, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler (set CXX)")


def test_products_and_transposition():
    device = Device()
    generator = torch.Generator().manual_seed(0)
    for which, dtype in ((0, torch.bfloat16), (2, torch.float16)):
        a = torch.randint(-8, 9, (16, 16), generator=generator).to(dtype)
        b = torch.randint(-8, 9, (16, 8), generator=generator).to(dtype)
        halves = torch.empty(32, 6, 2, dtype=dtype)
        for lane in range(32):
            g, j = lane // 4, 2 * (lane % 4)
            for i, (row, column) in enumerate([(g, j), (g + 8, j), (g, j + 8), (g + 8, j + 8)]):
                halves[lane, i] = a[row, column : column + 2]
            halves[lane, 4], halves[lane, 5] = b[j : j + 2, g], b[j + 8 : j + 10, g]
        words = halves.view(32, 12).view(torch.int32)
        out = device.fragments(words)
        for index, k in ((which, 16), (which + 1, 8)):
            c = torch.empty(16, 8)
            for lane in range(32):
                g, j = lane // 4, 2 * (lane % 4)
                c[g, j : j + 2] = out[lane, 4 * index : 4 * index + 2]
                c[g + 8, j : j + 2] = out[lane, 4 * index + 2 : 4 * index + 4]
            assert torch.equal(c, a[:, :k].float() @ b[:k].float())
        block = out.view(torch.int32)[:, 16].contiguous().view(dtype).view(8, 8)
        assert torch.equal(block, a[:8, :8].t())
        assert torch.equal(out.view(torch.int32)[:, 17], words[torch.arange(32) ^ 5, 0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_fragments_are_laid_out_as_emulated(tmp_path):
    """The emulated tensor cores and the kernels come from one reading of the PTX manual: the
    device has the last word."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(nvcc).exists():
        pytest.skip("no nvcc")
    major, minor = torch.cuda.get_device_capability()
    library = tmp_path / "probe.so"
    command = [nvcc, "-std=c++20", "-O1", f"-arch=sm_{major}{minor}", "-shared", "-Xcompiler"]
    command += ["-fPIC", f"-I{KERNELS}", str(Path(__file__).with_name("fragment_probe.cu"))]
    subprocess.run([*command, "-o", str(library)], check=True)
    # Small whole numbers: every sum is exact in both types, so the bits must agree.
    for dtype in (torch.bfloat16, torch.float16):
        words = torch.randint(-8, 9, (32, 12)).to(dtype).view(torch.int32)
        device_words = words.cuda()
        out = torch.zeros(32, 18, device="cuda")
        torch.cuda.synchronize()
        probe = ctypes.CDLL(str(library)).fragment_probe
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (device_words, out)]
        assert probe(*pointers) == 0
        expected = Device().fragments(words).view(torch.int32)
        got = out.cpu().view(torch.int32)
        columns = slice(0, 8) if dtype == torch.bfloat16 else slice(8, 16)
        assert torch.equal(got[:, columns], expected[:, columns])
        assert torch.equal(got[:, 16:], expected[:, 16:])
