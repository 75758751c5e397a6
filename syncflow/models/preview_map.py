"""What a latent will look and sound like, without its decoder: one linear map for either.

A picture's block of pixels comes from its latent and the eight around it, and the loudness of a
moment of sound from its latent and the two beside it. Both are fitted by least squares to what the
decoders make (``Fit``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from syncflow.clip import AUDIO_HOP, SAMPLE_RATE, VIDEO_STRIDE

#: Latents to either side that a map sees.
_AROUND = 1
_SIDE = 2 * _AROUND + 1
#: Values of a sound's envelope to a latent.
PER_LATENT = 2
#: Pulls the weights towards 0, in variances of the latents: it costs nothing in what is fitted, and
#: keeps latents that no encoder makes within bounds.
_RIDGE = 1e-2


def rate(sample_rate: int = SAMPLE_RATE) -> float:
    """Values of an envelope to a second."""
    return PER_LATENT * sample_rate / AUDIO_HOP


@dataclass(frozen=True)
class PreviewMap:
    """``picture`` [9 C + 1, 4 * 3 * 8 * 8] and ``sound`` [3 D + 1, 2]: weights, and last the bias,
    of the VAEs' own latents, not the normalised ones."""

    picture: Tensor
    sound: Tensor

    def __post_init__(self) -> None:
        """Raises ValueError for other shapes."""
        outs = VIDEO_STRIDE[0] * 3 * VIDEO_STRIDE[1] * VIDEO_STRIDE[2], PER_LATENT
        sides = _SIDE**2, _SIDE
        for name, side, out in zip(("picture", "sound"), sides, outs, strict=True):
            shape = list(getattr(self, name).shape)
            if len(shape) != 2 or shape[0] <= side or (shape[0] - 1) % side or shape[1] != out:
                raise ValueError(
                    f"{name} of a preview map must be [{side} C + 1, {out}] for latents of C "
                    f"channels, got {shape}"
                )

    @property
    def channels(self) -> tuple[int, int]:
        """Of the latents that it reads: C of a picture's, D of a sound's."""
        return (len(self.picture) - 1) // _SIDE**2, (len(self.sound) - 1) // _SIDE

    def to(self, device: torch.device) -> Self:
        """Both on a device."""
        return type(self)(self.picture.to(device), self.sound.to(device))

    def video(self, latent_BCThw: Tensor, num_frames: int) -> Tensor:
        """Latents -> uint8 [B, F, 3, 8h, 8w]."""
        blocks = _applied(self.picture, _places(latent_BCThw))
        pixels = (255 * blocks).round_().clamp_(0, 255).to(torch.uint8)
        return _pixels(pixels)[:, :num_frames]

    def envelope(self, latent_BAD: Tensor) -> Tensor:
        """Latents -> root mean square of the samples, float32 [B, 2A]: one value for ``rate``."""
        return _applied(self.sound, _moments(latent_BAD)).clamp(min=0).square().flatten(1)


def blank(video_channels: int, audio_channels: int) -> PreviewMap:
    """A map that shows nothing of any latents."""
    pixels = VIDEO_STRIDE[0] * 3 * VIDEO_STRIDE[1] * VIDEO_STRIDE[2]
    picture = torch.zeros(_SIDE**2 * video_channels + 1, pixels)
    return PreviewMap(picture, torch.zeros(_SIDE * audio_channels + 1, PER_LATENT))


class Fit:
    """Least squares over clips, a few numbers kept of each.

    ``solved`` gives the map once some were added.
    """

    def __init__(self) -> None:
        self._picture, self._sound = _Sums(), _Sums()

    def add_video(self, latent_BCThw: Tensor, frames_BFCHW: Tensor) -> None:
        """Latents of the VAE's own beside uint8 frames that its decoder made, 4 to a latent."""
        self._picture.add(_places(latent_BCThw), _blocks(frames_BFCHW))

    def add_audio(self, latent_BAD: Tensor, audio_BM: Tensor) -> None:
        """The same for sounds, 960 samples to a latent."""
        loud = loudness(audio_BM).unflatten(1, (-1, PER_LATENT))
        self._sound.add(_moments(latent_BAD), loud.sqrt())

    def solved(self) -> PreviewMap:
        """The map.

        Raises:
            ValueError: nothing was added.
        """
        return PreviewMap(self._picture.solved(), self._sound.solved())


class _Sums:
    """Of the normal equations, in float64."""

    def __init__(self) -> None:
        self.count, self.xx, self.xy = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor, y: Tensor) -> None:
        x_NI = torch.cat([x, torch.ones_like(x[..., :1])], -1).flatten(0, -2).double().cpu()
        y_NO = y.flatten(0, -2).double().cpu()
        self.count += len(x_NI)
        self.xx, self.xy = self.xx + x_NI.T @ x_NI, self.xy + x_NI.T @ y_NO

    def solved(self) -> Tensor:
        if not self.count:
            raise ValueError("a preview map is fitted to clips, got none")
        xx, xy = self.xx / self.count, self.xy / self.count
        mean = xx[-1, :-1]
        covariance = xx[:-1, :-1] - mean[:, None] * mean
        ridge = _RIDGE * covariance.diagonal().mean() * torch.eye(len(mean))
        weight = torch.linalg.solve(covariance + ridge, xy[:-1] - mean[:, None] * xy[-1])
        return torch.cat([weight, xy[-1:] - mean[None] @ weight]).float()


def loudness(audio_BM: Tensor) -> Tensor:
    """Root mean square of every 480 samples, [B, N]: what ``PreviewMap.envelope`` guesses."""
    hop = AUDIO_HOP // PER_LATENT
    padded = F.pad(audio_BM.float(), (0, -audio_BM.shape[1] % AUDIO_HOP))
    pieces: Tensor = padded.unflatten(1, (-1, hop))
    return pieces.square().mean(-1).sqrt()


def _applied(map_IO: Tensor, x: Tensor) -> Tensor:
    out: Tensor = torch.addmm(map_IO[-1], x.flatten(0, -2), map_IO[:-1]).unflatten(0, x.shape[:-1])
    return out


def _places(latent_BCThw: Tensor) -> Tensor:
    """Every latent of a picture with those around it: [B, T, h, w, 9 C]."""
    padded = F.pad(latent_BCThw.float(), (*(_AROUND,) * 4, 0, 0), mode="replicate")
    around: Tensor = padded.unfold(3, _SIDE, 1).unfold(4, _SIDE, 1)  # [B, C, T, h, w, 3, 3]
    return around.permute(0, 2, 3, 4, 1, 5, 6).flatten(4)


def _moments(latent_BAD: Tensor) -> Tensor:
    """Every latent of a sound with those beside it: [B, A, 3 D]."""
    padded = F.pad(latent_BAD.float().mT, (_AROUND, _AROUND), mode="replicate")
    beside: Tensor = padded.unfold(2, _SIDE, 1).transpose(1, 2)
    return beside.flatten(2)


def _blocks(frames_BFCHW: Tensor) -> Tensor:
    """uint8 frames -> [B, T, h, w, 4 * 3 * 8 * 8] in [0, 1]; the last frame fills up the last."""
    p, q, r = VIDEO_STRIDE
    missing = -frames_BFCHW.shape[1] % p
    last = frames_BFCHW[:, -1:].expand(-1, missing, -1, -1, -1)
    x = torch.cat([frames_BFCHW, last], 1).float() / 255
    pieces: Tensor = x.unflatten(4, (-1, r)).unflatten(3, (-1, q)).unflatten(1, (-1, p))
    return pieces.permute(0, 1, 4, 6, 2, 3, 5, 7).flatten(4)


def _pixels(blocks_BThwO: Tensor) -> Tensor:
    """Inverse of ``_blocks``."""
    x: Tensor = blocks_BThwO.unflatten(4, (VIDEO_STRIDE[0], 3, *VIDEO_STRIDE[1:]))
    return x.permute(0, 1, 4, 5, 2, 6, 3, 7).flatten(1, 2).flatten(3, 4).flatten(4, 5).contiguous()
