"""When things touch, told to the latent frames in which they do.

A caption's words reach every patch alike, and none of them knows which frame it is of. So times are
not words: each latent frame is told of its own time and of the time around it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from syncflow.clip import ClipSpec


class EventEmbedder(nn.Module):
    """Times of contacts to what is added to the tokens of each latent frame.

    Axis letters: B batch, N times, T latent frames, K bins of a frame, C width.

    Args:
        bins: K, equal parts of a latent frame's time; a contact between the middles of two counts
            for both, the more the nearer, so that its time is not rounded.
        width: C.
    """

    def __init__(self, bins: int, width: int) -> None:
        super().__init__()
        self.bins = bins
        # Of the frame before, its own and the one after; and that something was said at all. It
        # begins silent, so that weights which were trained without it go on as they are.
        self.linear = nn.Linear(3 * bins + 1, width, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, events_BN: Tensor, spec: ClipSpec) -> Tensor:
        """[B, T, C], zeros where nothing is said.

        Args:
            events_BN: seconds from the clip's start, NaN where a sample has fewer than N.
            spec: the clips' geometry.
        """
        K, T, weight = self.bins, spec.video_latent_shape[0], self.linear.weight
        said_BN1 = ~events_BN.isnan()[..., None]
        # In bins, from the middle of the first.
        place_BN1 = (
            events_BN.double().nan_to_num()[..., None] * (K / spec.seconds_per_latent_frame) - 0.5
        )
        bins_J = torch.arange(T * K, device=events_BN.device)
        near_BNJ = (1 - (bins_J - place_BN1).abs()).clamp(min=0) * said_BN1
        own_BTK = near_BNJ.sum(1).unflatten(-1, (T, K))
        none_B1K = torch.zeros_like(own_BTK[:, :1])
        before_BTK = torch.cat([none_B1K, own_BTK[:, :-1]], 1)
        after_BTK = torch.cat([own_BTK[:, 1:], none_B1K], 1)
        told_BT1 = said_BN1.any(1, keepdim=True).expand(-1, T, 1)
        parts = [before_BTK, own_BTK, after_BTK, told_BT1]
        told_BTC: Tensor = self.linear(torch.cat([part.to(weight.dtype) for part in parts], -1))
        return told_BTC
