"""What stands around the video tower's blocks: latents, captions and asked times to its width, and
back.

Parameters are named as in Open-Sora v1.2. Axis letters: B batch, T latent frames, S patches of a
frame, L text tokens, C width, E width of the text encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from syncflow.clip import ClipSpec
from syncflow.config import VideoTowerConfig
from syncflow.models.layers import Mlp
from syncflow.ops.adaln import adaln
from syncflow.ops.patchify3d import patchify3d

#: Added to the variance of every norm of the tower.
EPS = 1e-6


class PatchEmbedding(nn.Module):
    """Latents to tokens: [B, C_in, T, H, W] -> [B, T, S, C]; the parameters are a Conv3d's."""

    def __init__(self, config: VideoTowerConfig) -> None:
        super().__init__()
        self.proj = nn.Conv3d(
            config.in_channels, config.hidden_size, config.patch_size, config.patch_size
        )
        nn.init.xavier_uniform_(self.proj.weight.view(config.hidden_size, -1))
        if self.proj.bias is not None:
            nn.init.zeros_(self.proj.bias)

    def forward(self, x_BCTHW: Tensor, positions_SC: Tensor) -> Tensor:
        """Latents, and positions [S, C] that every frame gets -> tokens [B, T, S, C]."""
        weight = self.proj.weight
        return patchify3d(x_BCTHW.to(weight.dtype), weight, self.proj.bias, positions_SC)


class CaptionEmbedding(nn.Module):
    """Text tokens to the tower's width, and the learned null caption for guidance."""

    def __init__(self, config: VideoTowerConfig) -> None:
        super().__init__()
        E = config.caption_channels
        self.y_embedding = nn.Parameter(torch.randn(config.model_max_length, E) / E**0.5)
        self.y_proj = Mlp(E, config.hidden_size, config.hidden_size)

    def forward(self, text_BLE: Tensor) -> Tensor:
        """[B, L, E] -> [B, L, C]."""
        text_BLC: Tensor = self.y_proj(text_BLE.to(self.y_embedding.dtype))
        return text_BLC


class EventEmbedder(nn.Module):
    """Times of contacts to what is added to the tokens of each latent frame.

    A caption's words reach every patch alike, and none of them knows which frame it is of. So times
    are not words: each latent frame is told of its own time and of the time around it.

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


class RotaryFrequencies(nn.Module):
    """Holds ``rope.freqs`` of the released layout; the temporal attention computes its own."""

    freqs: Tensor  # [D/2]

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        freqs = 1e4 ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        self.register_buffer("freqs", freqs)


class FinalLayer(nn.Module):
    """Modulated norm and the projection to patches, channels last within one: the velocity, then
    what else was predicted."""

    def __init__(self, config: VideoTowerConfig, out_channels: int) -> None:
        super().__init__()
        C = config.hidden_size
        pt, ph, pw = config.patch_size
        self.scale_shift_table = nn.Parameter(torch.randn(2, C) / C**0.5)
        self.linear = nn.Linear(C, pt * ph * pw * out_channels)

    def forward(self, x_BTSC: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """[B, T, S, C] -> [B, T, S, patch * out_channels]."""
        out_BTSP: Tensor = self.linear(adaln(x_BTSC, shift, scale, EPS))
        return out_BTSP
