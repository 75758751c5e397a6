"""Which colour the moving object has: a small probe on the colours of the foreground."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from syncflow.detect import tracking
from syncflow.detect.settings import TrackSettings
from syncflow.detect.tracking import foreground
from syncflow.evaluation.probes import probe, wear

_EDGES = 5
_CODE = (sys.modules[__name__], wear, tracking)


def features(video_F3HW: Tensor, settings: TrackSettings | None = None) -> Tensor:
    """Histogram of the foreground's colours, [125 + 3]: shares of 5x5x5 RGB cells, then the mean.

    Pixels count by how surely they are the object, so borders and smears say little.
    """
    if video_F3HW.dtype != torch.uint8 or video_F3HW.ndim != 4 or video_F3HW.shape[1] != 3:
        raise ValueError(
            f"video must be uint8 [F,3,H,W], got {video_F3HW.dtype} {list(video_F3HW.shape)}"
        )
    pixels_F3HW = video_F3HW.cpu().float() / 255
    weight_FHW, _ = foreground(pixels_F3HW, settings or TrackSettings())
    inside = weight_FHW > 0.9
    if not inside.any():
        return torch.zeros(_EDGES**3 + 3)
    colours_N3 = pixels_F3HW.permute(0, 2, 3, 1)[inside]
    cell_N3 = (colours_N3 * _EDGES).long().clamp(max=_EDGES - 1)
    index_N = (cell_N3 * torch.tensor([_EDGES**2, _EDGES, 1])).sum(1)
    share = torch.bincount(index_N, minlength=_EDGES**3).float() / len(index_N)
    return torch.cat([share.sqrt(), colours_N3.mean(0)])


def _network(labels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(_EDGES**3 + 3, 64), nn.ReLU(), nn.Linear(64, labels))


def _examples(split: str, clips: int, levels: Sequence[int]) -> tuple[list[Tensor], list[str]]:
    from syncflow import impacts

    inputs, labels = [], []
    for level in levels:
        for index, seed in enumerate(impacts.SEEDS[split][:clips]):
            scene = impacts.sample_scene(seed, level, split)
            if "second" in scene.attributes:
                continue  # two colours
            video = torch.from_numpy(impacts.render(scene, 64, 64))
            if split == "train":
                video = wear.picture(video, 0.5 * (index % 2), seed)
            inputs.append(features(video))
            labels.append(scene.attributes["colour"])
    return inputs, labels


def load(cache: str | Path | None, settings: probe.ProbeSettings | None = None) -> probe.Probe:
    """The colour probe, from folder ``cache`` or trained now; see :func:`materials.load`."""
    from syncflow import impacts

    settings = settings or probe.ProbeSettings(clips=800, epochs=20, rate=5e-3)
    labels = [str(value) for value in impacts.attribute_values(max(settings.levels))["colour"]]
    seen = [
        round(float(impacts.render(impacts.sample_scene(seed, level), 32, 32).mean()), 4)
        for level in settings.levels
        for seed in range(4)
    ]
    name = f"colour-{probe.fingerprint(settings, _CODE, labels, seen)}"
    return probe.learned(cache, name, labels, settings, _network, _examples)


def predict(trained: probe.Probe, videos: Sequence[Tensor]) -> list[str]:
    """The likeliest colour of every ``uint8 [F,3,H,W]``."""
    return trained.predict([features(video) for video in videos])
