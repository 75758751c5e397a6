"""Models with random weights for measuring speed: nothing is zero, since zeros run faster."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from syncflow.config import (
    AdaptorConfig,
    AudioTowerConfig,
    DDiTConfig,
    GeometryConfig,
    ModelConfig,
    VideoTowerConfig,
)
from syncflow.generation.pipeline import SyncFlow
from syncflow.models.ddit import DDiT


def model_config(tiny: bool) -> ModelConfig:
    """The paper's, XL/2; or a toy of the same parts with heads of 72, for a rehearsal."""
    if not tiny:
        return ModelConfig()
    video = VideoTowerConfig(
        hidden_size=144, num_heads=2, depth=2, caption_channels=32, model_max_length=8
    )
    ddit = DDiTConfig(
        video=video,
        adaptor=AdaptorConfig(num_heads=2),
        audio=AudioTowerConfig(hidden_size=144, num_heads=2),
    )
    base = ModelConfig()
    video_vae = base.video_vae.model_dump()
    video_vae["spatial"] |= {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4}
    video_vae["temporal"] |= {"filters": 8, "num_groups": 4, "num_res_blocks": 1}
    return ModelConfig(
        ddit=ddit,
        geometry=GeometryConfig(height=64, width=64),
        video_vae=video_vae,
        audio_vae=base.audio_vae.model_copy(update={"num_filters": 4}),
    )


def random_ddit(config: DDiTConfig, device: torch.device, dtype: torch.dtype) -> DDiT:
    """Made on the device and in the dtype: 2 billion numbers drawn on a CPU take a minute."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            model = DDiT(config)
    finally:
        torch.set_default_dtype(before)
    fill(model)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def fill(module: nn.Module) -> None:
    """Normal numbers in place of every constant weight of more than one axis."""
    for parameter in module.parameters():
        if parameter.ndim > 1 and not bool(parameter.count_nonzero()):
            parameter.normal_(std=0.02)


class CachedText(nn.Module):
    """Stands in for a text encoder whose states are cached: every prompt has `length` tokens."""

    def __init__(self, length: int, width: int, device: torch.device, tokens: int) -> None:
        super().__init__()
        generator = torch.Generator(device=device).manual_seed(0)
        self.states = torch.randn(1, length, width, device=device, generator=generator)
        self.mask = torch.arange(length, device=device)[None] < tokens

    def encode(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """The same tokens [B, L, E] and mask [B, L] for every prompt."""
        count = len(prompts)
        return self.states.expand(count, -1, -1), self.mask.expand(count, -1)


def random_syncflow(
    device: torch.device, dtype: torch.dtype, tiny: bool, tokens: int | None = None
) -> SyncFlow:
    """A whole model with random weights; captions of `tokens` tokens, None = of all."""
    from syncflow.models.vae import build_audio_vae, build_video_vae

    config = model_config(tiny)
    with torch.device(device):
        try:
            video = build_video_vae(config.video_vae)
        except (ImportError, RuntimeError) as error:  # diffusers wraps what it misses
            print(f"no video VAE, only its rows are lost: {error}")
            video = nn.Identity()
        vaes = video, build_audio_vae(config.audio_vae)
    for vae in vaes:
        fill(vae)
    ddit = random_ddit(config.ddit, device, dtype)
    length, width = config.ddit.video.model_max_length, config.ddit.video.caption_channels
    text = CachedText(length, width, device, tokens or length)
    return SyncFlow(config, ddit, *vaes, text_encoder=text).to(device, dtype)
