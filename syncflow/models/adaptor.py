"""From the video tower to the audio tower: the modality adaptor, the aligned path, and the clock in
seconds on which the tokens of both meet.

Axis letters: B batch, T latent frames, S patches of a frame, M adaptor tokens, A audio latents,
C width, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncflow.clip import ClipSpec
from syncflow.config import AdaptorConfig, AudioTowerConfig
from syncflow.models.layers import Mlp, seconds_rotation
from syncflow.ops.adaln import layernorm_of_sum
from syncflow.ops.kept import kept
from syncflow.ops.self_attention import self_attention


class Adaptor(nn.Module):
    """Self-attention, LayerNorm, Linear over one layer's video features (paper section 3.2).

    ``axis`` "full" attends over all T*S tokens, "temporal" over T after the mean over space; "none"
    is the paper's ablation, features as they are (a Linear only where the towers' widths differ).
    """

    def __init__(self, config: AdaptorConfig, video_width: int, audio_width: int) -> None:
        super().__init__()
        self.axis, self.num_heads = config.axis, config.num_heads
        self.attend: Callable[[Tensor], Tensor] = (
            self_attention  # training may share it among processes
        )
        self.linear: nn.Linear | nn.Identity
        if config.axis == "none":
            same = video_width == audio_width
            self.linear = nn.Identity() if same else nn.Linear(video_width, audio_width)
            return
        if video_width % config.num_heads:
            raise ValueError(
                f"video width {video_width} is not divisible by the adaptor's num_heads "
                f"{config.num_heads}"
            )
        self.qkv = nn.Linear(video_width, 3 * video_width)
        self.proj = nn.Linear(video_width, video_width)
        self.norm = nn.LayerNorm(video_width)
        self.linear = nn.Linear(video_width, audio_width)
        for linear in (self.qkv, self.proj, self.linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, features_BTSC: Tensor) -> Tensor:
        """[B, T, S, C_video] -> [B, M, C_audio]; M is T*S, or T for the axis "temporal"."""
        tokens_BMC: Tensor = self.linear(self.tokens(features_BTSC))
        return tokens_BMC

    def tokens(self, features_BTSC: Tensor) -> Tensor:
        """All but the last Linear: [B, T, S, C_video] -> [B, M, C_video]."""
        if self.axis == "temporal":
            x_BMC = features_BTSC.mean(2)
        else:
            x_BMC = features_BTSC.flatten(1, 2)
        if self.axis != "none":
            qkv_BM3HD = self.qkv(x_BMC).unflatten(-1, (3, self.num_heads, -1))
            y_BMC = self.attend(qkv_BM3HD)
            # The residual lets a token say where it is: without it an untrained attention hands
            # every audio token the same mean of the clip.
            norm = self.norm
            x_BMC = layernorm_of_sum(x_BMC, self.proj(y_BMC), norm.weight, norm.bias, norm.eps)
        return x_BMC


class TemporalUpsampler(nn.Module):
    """The aligned path: the first layer's video features at the audio's rate.

    Cross-attention must learn which latent frame an audio token belongs to; here it is given. The
    patches of a latent frame are flattened into one vector; a window of four neighbouring frames,
    one before and one after each pair, becomes the audio tokens of that pair (25 at 16 fps and
    50 Hz). It works for every length, since it sees the window only.
    """

    #: Latent frames per group, and its neighbours on either side.
    GROUP, CONTEXT = 2, 1

    def __init__(self, video_width: int, num_patches: int, width: int, audio_width: int) -> None:
        super().__init__()
        spec = ClipSpec()
        ratio = spec.seconds_per_latent_frame / spec.seconds_per_audio_latent
        self.num_patches = num_patches
        self.tokens_per_group = round(self.GROUP * ratio)
        self.frame = nn.Linear(num_patches * video_width, width)
        self.group = Mlp(
            (self.GROUP + 2 * self.CONTEXT) * width, 2 * width, self.tokens_per_group * audio_width
        )
        self.norm = nn.LayerNorm(audio_width)

    def forward(self, features_BTSC: Tensor, spec: ClipSpec) -> Tensor:
        """[B, T, S, C_video] -> [B, A, C_audio]."""
        B, T, S, _ = features_BTSC.shape
        if S != self.num_patches:
            raise ValueError(
                f"the model's aligned path was made for {self.num_patches} patches per frame, "
                f"but {spec.height}x{spec.width} gives {S}"
            )
        frames_BTW = F.silu(self.frame(features_BTSC.flatten(2)))
        pad = (0, 0, self.CONTEXT, self.CONTEXT + T % self.GROUP)
        window = F.pad(frames_BTW, pad).unfold(1, self.GROUP + 2 * self.CONTEXT, self.GROUP)
        tokens = self.group(window.transpose(-1, -2).flatten(2))
        x_BAC = tokens.reshape(B, -1, self.norm.normalized_shape[0])
        # Made for the default rates; at others the tokens are further apart or closer.
        lasting = self.GROUP * spec.seconds_per_latent_frame / spec.seconds_per_audio_latent
        length = spec.audio_latent_length
        if abs(lasting - self.tokens_per_group) > 1e-6:
            x_BAC = _resample(x_BAC, length, self.tokens_per_group / lasting)
        x_BAC = F.pad(x_BAC, (0, 0, 0, max(0, length - x_BAC.shape[1])))[:, :length]
        normed_BAC: Tensor = self.norm(x_BAC)
        return normed_BAC


def _resample(x_BAC: Tensor, length: int, rate: float) -> Tensor:
    """Linear interpolation along A at the centres (i + 1/2) rate - 1/2, ends held."""
    at = ((torch.arange(length, device=x_BAC.device) + 0.5) * rate - 0.5).clamp(
        0, x_BAC.shape[1] - 1
    )
    low = at.floor().long()
    high = (low + 1).clamp(max=x_BAC.shape[1] - 1)
    return torch.lerp(x_BAC[:, low], x_BAC[:, high], (at - low).to(x_BAC.dtype)[:, None])


#: Seconds, frames and samples a second; head dim, frequency and theta of the rotation; device.
MadeOf = tuple[float, float, int, int, float, float, torch.device]


@dataclass(frozen=True)
class Clock:
    """Rotations [A, D/2, 2] of a clip's audio latents, and where those of the video's keys come
    from; ``aligned``: cross-attention turns queries and keys by them."""

    audio_AP2: Tensor
    aligned: bool
    made_of: MadeOf

    @classmethod
    def of(cls, spec: ClipSpec, config: AudioTowerConfig, device: torch.device) -> Clock:
        """Of a clip, for a tower of this config on this device."""
        head_dim = config.hidden_size // config.num_heads
        rates = (head_dim, config.rope_frequency, config.rope_theta, device)
        made_of = (spec.seconds, spec.fps, spec.sample_rate, *rates)
        return cls(_audio_rotation(*made_of), config.align == "rope", made_of)

    @property
    def cross_AP2(self) -> Tensor | None:
        """Rotations of cross-attention's queries, [A, D/2, 2]; None where it turns nothing."""
        return self.audio_AP2 if self.aligned else None

    def keys(self, tokens: int) -> Tensor:
        """Rotations [M, D/2, 2] of M tokens, the same number of every latent frame."""
        return _key_rotation(*self.made_of, tokens)


@kept
def _audio_rotation(
    seconds: float,
    fps: float,
    sample_rate: int,
    head_dim: int,
    frequency: float,
    theta: float,
    device: torch.device,
) -> Tensor:
    """Of a clip's audio latents; not to be changed."""
    spec = ClipSpec(seconds=seconds, fps=fps, sample_rate=sample_rate)
    clock = (head_dim, frequency, theta, torch.float32)
    return seconds_rotation(spec.audio_latent_times(device), *clock)


@kept
def _key_rotation(
    seconds: float,
    fps: float,
    sample_rate: int,
    head_dim: int,
    frequency: float,
    theta: float,
    device: torch.device,
    tokens: int,
) -> Tensor:
    """Of so many tokens of a clip's latent frames; not to be changed."""
    spec = ClipSpec(seconds=seconds, fps=fps, sample_rate=sample_rate)
    clock = (head_dim, frequency, theta, torch.float32)
    frame_TP2 = seconds_rotation(spec.video_latent_times(device), *clock)
    return frame_TP2.repeat_interleave(tokens // len(frame_TP2), 0)
