"""LPIPS (arXiv 1801.03924): how far apart two pictures look, by the features of a VGG16.

The network is written out here; its weights are files that the user has: those of torchvision's
``vgg16`` (``features.N.weight``) and, optionally, of LPIPS's heads (``linN.model.1.weight``).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from syncflow.interop import checkpoints

# Channels of VGG16's convolutions, stage by stage; features are taken at the end of each stage.
_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
#: Of LPIPS: what pictures in [-1, 1] are shifted and scaled by before VGG16 sees them.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Perceptual(nn.Module):
    """Frozen; its distance has a gradient with respect to the pictures.

    Args:
        backbone: a file with VGG16's weights.
        heads: a file with the weights of LPIPS's heads; without, every channel of a stage counts
            the same.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it holds something else.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: str | Path, heads: str | Path | None = None) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        before, number, names = 3, 0, {}
        for stage, widths in enumerate(_STAGES):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if stage else []
            number += bool(stage)
            for width in widths:
                names[f"{stage}.{len(layers)}"] = f"features.{number}"
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before, number = width, number + 2
            self.stages.append(nn.Sequential(*layers))
        found = _read(backbone, "VGG16")
        wanted = {
            f"{ours}.{leaf}": f"{theirs}.{leaf}"
            for ours, theirs in names.items()
            for leaf in ("weight", "bias")
        }
        self._load(found, wanted, backbone)
        for index, widths in enumerate(_STAGES):
            self.register_buffer(f"head_{index}", torch.full((widths[-1],), 1 / widths[-1]))
        if heads is not None:
            self._load_heads(_read(heads, "LPIPS's heads"), heads)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def _load(self, found: dict[str, Tensor], wanted: dict[str, str], path: str | Path) -> None:
        missing = [theirs for theirs in wanted.values() if theirs not in found]
        if missing:
            raise ValueError(f"'{path}' is not a VGG16 as torchvision names it: no {missing[0]}")
        try:
            self.stages.load_state_dict({ours: found[theirs] for ours, theirs in wanted.items()})
        except RuntimeError as error:
            said = str(error).splitlines()[1].strip()
            raise ValueError(f"'{path}' is not a VGG16: {said}") from None

    def _load_heads(self, found: dict[str, Tensor], path: str | Path) -> None:
        for index, widths in enumerate(_STAGES):
            key = f"lin{index}.model.1.weight"
            if key not in found or found[key].numel() != widths[-1]:
                raise ValueError(
                    f"'{path}' has no {key} of {widths[-1]} numbers; LPIPS's heads are lin0 to lin4"
                )
            getattr(self, f"head_{index}").copy_(found[key].flatten())

    def forward(self, out_BCHW: Tensor, picture_BCHW: Tensor) -> Tensor:
        """Distance [B] of pictures in [-1, 1], at least 16 pixels high and wide."""
        x = (torch.cat([out_BCHW, picture_BCHW]) - self.shift) / self.scale
        total = out_BCHW.new_zeros(len(out_BCHW))
        for index, stage in enumerate(self.stages):
            x = stage(x)
            unit = x / ((x.square().sum(1, keepdim=True) + 1e-16).sqrt() + 1e-10)  # no kink at 0
            ours, theirs = unit.chunk(2)
            head_C = getattr(self, f"head_{index}")
            weighed_BHW = torch.einsum("bchw,c->bhw", (ours - theirs).square(), head_C)
            total = total + weighed_BHW.mean((1, 2))
        return total


def _read(path: str | Path, what: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file with the weights of {what}: '{path}'")
    return dict(checkpoints.locate(path, what, allow_pickle=True).tensors())
