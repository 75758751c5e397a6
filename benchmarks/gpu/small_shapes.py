"""One small shape of every kernel, forward and backward: what compute-sanitizer watches."""

import sys

import torch

from syncflow.ops import adaln, euler_cfg, gelu, patchify3d, qk_norm_rope, rotation
from syncflow.ops.temporal_attention import temporal_attention


def run(device: str) -> None:
    """Calls every operator at sizes that are no multiples of a tile, forward and backward."""
    for dtype in (torch.bfloat16, torch.float32):

        def draw(*size: int, dtype: torch.dtype = dtype) -> torch.Tensor:
            return torch.randn(*size, device=device, dtype=dtype, requires_grad=True)

        results = []
        for C in (264, 97):
            x, y, m = draw(2, 5, C), draw(2, 5, C), draw(3, 2, C)
            results += [adaln.adaln(x, m[0], m[1]), adaln.gate_residual(x, y, m[2])]
            results += adaln.gate_residual_adaln(x, y, m[2], m[0], m[1])
            results += [adaln.residual_layernorm(x, y, draw(C), draw(C))]
            results += [gelu.bias_gelu(x, draw(C))]
        for T, D in ((5, 72), (12, 72), (20, 64), (40, 64), (7, 26)):
            results.append(temporal_attention(draw(1, T, 2, 3, 2, D), draw(D), draw(D)))
            table = rotation.frame_rotation(T, D, 1e4, torch.device(device), torch.float32)
            packed = draw(2, T, 3, 2, D) * 1  # not a leaf: it may be taken over
            results.append(qk_norm_rope.qk_norm_rope(packed, draw(D), draw(D), table))
        sum(r.float().square().sum() for r in results).backward()
        with torch.no_grad():
            patchify3d.patchify3d(draw(1, 4, 2, 5, 6), draw(48, 4, 1, 2, 2), draw(48), None)
            patchify3d.unpatchify3d(draw(1, 2, 9, 16), (1, 2, 2), 4, (2, 5, 6))
            euler_cfg.euler_cfg(draw(99), draw(99), draw(99), 6.0, 0.1)
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    torch.manual_seed(0)
    run(sys.argv[1] if len(sys.argv) > 1 else "cuda")
