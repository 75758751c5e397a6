"""The emulated matrix instructions against the matrices that they stand for."""

import pytest
import torch
from emulator import Device, compiler

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
