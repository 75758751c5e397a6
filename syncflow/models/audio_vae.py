"""Mono audio to latents and back: Encodec (arXiv 2210.13438) without its quantizer.

Encoder and decoder are transformers' own modules; a Gaussian posterior with a KL term takes the
place of the codebooks (paper section 3.1).

Axis letters: B batch, M samples, A latent frames, D latent channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncflow.models.codec import AudioCodec
from syncflow.models.posterior import DiagonalGaussian

if TYPE_CHECKING:
    from syncflow.config import EncodecVAEConfig

# A fresh posterior is narrow beside the latents' unit-order spread: reconstruction then learns from
# the first step, and the KL term widens it as far as it pays.
_FIRST_LOGVAR = -4.0


class AudioVAE(AudioCodec):
    """Audio VAE, one latent per product of `config.upsampling_ratios` samples (960: 50 Hz).

    Args:
        config: kind "encodec".
        norm: Encodec's `norm_type`: "weight_norm" (24 kHz model) or "time_group_norm" (48 kHz).
        causal: whether convolutions look only backwards (24 kHz model).

    Raises:
        ValueError: another kind.
    """

    def __init__(
        self,
        config: EncodecVAEConfig,
        *,
        norm: Literal["weight_norm", "time_group_norm"] = "weight_norm",
        causal: bool = False,
    ) -> None:
        super().__init__()
        from transformers import EncodecConfig
        from transformers.models.encodec.modeling_encodec import (
            EncodecConv1d,
            EncodecDecoder,
            EncodecEncoder,
        )

        if config.kind != "encodec":
            raise ValueError(f"AudioVAE is the kind 'encodec', got a config of {config.kind!r}")
        self.config = config
        self.hop = math.prod(config.upsampling_ratios)
        channels = config.latent_channels
        encodec = EncodecConfig(
            sampling_rate=config.sample_rate,
            audio_channels=1,
            hidden_size=channels,
            num_filters=config.num_filters,
            num_residual_layers=config.num_residual_layers,
            upsampling_ratios=list(config.upsampling_ratios),
            num_lstm_layers=config.num_lstm_layers,
            norm_type=norm,
            use_causal_conv=causal,
        )
        self.encoder = EncodecEncoder(encodec)
        self.moments = nn.Conv1d(channels, 2 * channels, 1)
        self.decoder = EncodecDecoder(encodec)
        for part in self.modules():
            if isinstance(part, EncodecConv1d):
                _count_on_the_host(cast("_Convolution", part))
        self._start_at_encodecs_latents()

    @torch.no_grad()
    def _start_at_encodecs_latents(self) -> None:
        # With the identity as the mean, pretrained encoders and decoders fit from the first step.
        channels = self.config.latent_channels
        bias = self.moments.bias
        assert bias is not None
        nn.init.zeros_(self.moments.weight)
        nn.init.zeros_(bias)
        nn.init.eye_(self.moments.weight[:channels, :, 0])
        bias[channels:] = _FIRST_LOGVAR

    def num_latents(self, num_samples: int) -> int:
        """Latent frames A of so many samples, the last one padded."""
        return -(-num_samples // self.hop)

    def encode(self, audio_BM: Tensor) -> DiagonalGaussian:
        """Posterior over `[B, A, D]` of mono audio in [-1, 1]; zeros fill up the last hop.

        Raises:
            ValueError: not `[B, M]`, or no samples.
        """
        if audio_BM.ndim != 2 or audio_BM.shape[1] == 0:
            raise ValueError(f"audio must be [B, M] (mono), got {tuple(audio_BM.shape)}")
        padded_BM = F.pad(audio_BM, (0, -audio_BM.shape[1] % self.hop))
        moments_BDA = self.moments(self.encoder(padded_BM[:, None]))
        return DiagonalGaussian(*moments_BDA.transpose(1, 2).chunk(2, dim=-1))

    def decode(self, latent_BAD: Tensor, num_samples: int | None = None) -> Tensor:
        """Audio `[B, M]` in about [-1, 1] (not clamped).

        Args:
            latent_BAD: latents.
            num_samples: M; all that the latents hold when not given.

        Raises:
            ValueError: not `[B, A, D]`, or the latents do not hold `num_samples`.
        """
        channels = self.config.latent_channels
        if latent_BAD.ndim != 3 or latent_BAD.shape[2] != channels:
            raise ValueError(f"latents must be [B, A, {channels}], got {tuple(latent_BAD.shape)}")
        available = latent_BAD.shape[1] * self.hop
        if num_samples is not None and not 0 < num_samples <= available:
            raise ValueError(
                f"{latent_BAD.shape[1]} latents hold {available} samples, asked for {num_samples}"
            )
        out: Tensor = self.decoder(latent_BAD.transpose(1, 2))[:, 0, :num_samples]
        return out


class _Convolution(Protocol):
    """Of transformers' `EncodecConv1d`."""

    conv: nn.Conv1d
    _get_extra_padding_for_conv1d: Callable[[Tensor], int]


def _count_on_the_host(convolution: _Convolution) -> None:
    """Lets an Encodec's convolution know its padding without asking the device: its sizes are
    tensors there, for whose numbers every layer of every pass would wait."""
    plain = convolution.conv
    reach, stride = (plain.kernel_size[0] - 1) * plain.dilation[0] + 1, plain.stride[0]
    sizes = {"stride": stride, "kernel_size": reach, "padding_total": reach - stride}
    for name, size in sizes.items():
        delattr(convolution, name)
        setattr(convolution, name, size)
    convolution._get_extra_padding_for_conv1d = partial(_extra_padding, stride)


def _extra_padding(stride: int, x_BDM: Tensor) -> int:
    """Zeros that fill up the last stride."""
    return -x_BDM.shape[-1] % stride
