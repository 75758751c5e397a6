"""Which floor a picture shows: by its hue, for nothing of it has to be learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from syncflow.impacts.stages import FLOOR_RGB

#: Share of a picture's height, from below, where nothing but floor is seen at level 1.
_LOWEST = 1 / 16


def predict(videos: Sequence[Tensor]) -> list[str]:
    """The floor of every ``uint8 [F,3,H,W]``: the one whose colour has the nearest direction, for
    a floor may be brighter or darker than its kind."""
    names = list(FLOOR_RGB)
    known_K3 = torch.nn.functional.normalize(torch.tensor([FLOOR_RGB[n] for n in names]), dim=1)
    found = []
    for video_F3HW in videos:
        rows = max(1, round(video_F3HW.shape[2] * _LOWEST))
        lowest_N3 = video_F3HW[:, :, -rows:].movedim(1, -1).flatten(0, -2).float()
        found.append(names[int((known_K3 @ lowest_N3.median(0).values.cpu()).argmax())])
    return found
