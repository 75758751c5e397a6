"""What decoding one XL/2 clip moves and computes, counted on a device that is not there:
`python benchmarks/decoding.py`. Every pass over memory counts, those inside PyTorch's operators
too.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter as Numbers
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.counting import pretend
from syncflow import ops
from syncflow.clip import to_pixels
from syncflow.config import OpenSoraVAEConfig
from syncflow.models.video_vae import VideoVAE

# Fake convolutions keep channels last in float16 and not in bfloat16, which asks a real device.
DTYPE = torch.float16
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def prepared(fused: bool) -> VideoVAE:
    """As `VideoVAE.for_gpu` leaves it: fake parameters cannot be moved."""
    vae = VideoVAE(OpenSoraVAEConfig()).eval()

    def lay_out(module: nn.Module) -> None:
        for name, weight in module._parameters.items():
            if weight is not None:
                layout = LAYOUTS.get(weight.ndim, torch.preserve_format)
                moved = weight.detach().to(DTYPE).clone(memory_format=layout)
                module._parameters[name] = nn.Parameter(moved, requires_grad=False)

    vae.apply(lay_out)
    vae.spatial_vae.micro_batch_size = 16
    if fused:
        vae.spatial_vae.fuse()
    return vae


def hidden_passes(name: str, args: tuple, out: Any) -> dict[str, int]:
    """Bytes that an operator moves beside reading its inputs and writing its outputs once."""
    if name == "aten.convolution":
        x, bias = args[0], args[2]
        found = {"bias of a convolution": 2 * out.nbytes if bias is not None else 0}
        if not x.is_contiguous(memory_format=LAYOUTS[x.ndim]):
            found["layout of a convolution's input"] = 2 * x.nbytes
        return found
    if name == "aten.native_group_norm":
        return {name: args[0].nbytes}  # statistics
    if name == "syncflow.group_norm_silu":
        return {name: out[1].nbytes}
    return {}


def count(fused: bool, frames: int) -> None:
    moved: Numbers[str] = Numbers()
    with pretend("cuda") as counter, nullcontext() if fused else ops.reference_ops():
        measure = counter._measure

        def measured(found, operator, packet, args, kwargs, given, made, out) -> None:
            measure(found, operator, packet, args, kwargs, given, made, out)
            moved[str(packet)] += found.bytes
            moved.update(hidden_passes(str(packet), args, out))

        counter._measure = measured
        with torch.device("cuda"), torch.no_grad():
            vae = prepared(fused)
            latent: Tensor = torch.randn(1, 4, -(-frames // 4), 32, 32)
            counter.reset()
            moved.clear()
            to_pixels(vae.decode(latent, num_frames=frames)[0].float())
    print(
        f"{'fused' if fused else 'plain'}: {counter.total.flops / 1e12:.2f} TFLOP, "
        f"{sum(moved.values()) / 1e9:.1f} GB, {counter.total.launches} calls, "
        f"peak {counter.memory.peak / 2**30:.2f} GiB"
    )
    for name, size in moved.most_common(10):
        print(f"  {name:44s} {size / 1e9:7.2f} GB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=32)
    given = parser.parse_args()
    for fused in (False, True):
        count(fused, given.frames)
