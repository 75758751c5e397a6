"""Weights of Open-Sora v1.2 as this package's modules, checked key for key before they load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from syncflow.config import VideoTowerConfig, VideoVAEConfig
from syncflow.models.video_vae import VideoVAE

_NUM_NAMED = 5


def video_vae(
    state_dict: Mapping[str, Tensor],
    spatial: Mapping[str, Any] | None = None,
    temporal: Mapping[str, Any] | None = None,
) -> VideoVAE:
    """The video VAE from a state dict in the layout of `hpcai-tech/OpenSora-VAE-v1.2`.

    Args:
        state_dict: keys `spatial_vae.module.*`, `temporal_vae.*`, `scale`, `shift`.
        spatial: arguments of diffusers' `AutoencoderKL`; the released model's when not given.
        temporal: arguments of `TemporalVAE`; the released model's when not given.

    Returns:
        The module in evaluation mode, float32.

    Raises:
        ValueError: keys are missing, unexpected or of another shape; they are named.
    """
    sizes: dict[str, Any] = {}
    if spatial is not None:
        sizes["spatial"] = dict(spatial)
    if temporal is not None:
        sizes["temporal"] = dict(temporal)
    for name in ("shift", "scale"):
        if name in state_dict:
            sizes[name] = state_dict[name].float().flatten().tolist()
    sizes["latent_channels"] = sizes.get("temporal", {}).get("embed_dim", 4)
    config = VideoVAEConfig(kind="opensora", **sizes)
    return _load(lambda: VideoVAE(config), state_dict, "an Open-Sora v1.2 video VAE")


def video_tower(state_dict: Mapping[str, Tensor], num_heads: int = 16) -> nn.Module:
    """The video tower from a state dict in the layout of `hpcai-tech/OpenSora-STDiT-v3`.

    Every size but the number of heads follows from the shapes.

    Args:
        state_dict: the released 973 keys, or those of another size of the same model.
        num_heads: attention heads.

    Returns:
        `syncflow.models.video_tower.VideoTower` in evaluation mode, float32.

    Raises:
        ValueError: it is no STDiT3, `num_heads` does not fit, or keys are missing, unexpected or
            of another shape; they are named.
    """
    from syncflow.models.video_tower import VideoTower

    config = video_tower_config(state_dict, num_heads)
    return _load(lambda: VideoTower(config), state_dict, "an Open-Sora v1.2 STDiT3")


def video_tower_config(state_dict: Mapping[str, Tensor], num_heads: int = 16) -> VideoTowerConfig:
    """Sizes of the STDiT3 that a state dict holds; see `video_tower`."""
    what = "an Open-Sora v1.2 STDiT3"
    hidden_size, in_channels, *patch_size = _shape(state_dict, "x_embedder.proj.weight", 5, what)
    max_length, caption_channels = _shape(state_dict, "y_embedder.y_embedding", 2, what)
    mlp_width, _ = _shape(state_dict, "spatial_blocks.0.mlp.fc1.weight", 2, what)
    out_features, _ = _shape(state_dict, "final_layer.linear.weight", 2, what)
    out_channels = out_features // (patch_size[0] * patch_size[1] * patch_size[2])
    if out_channels not in (in_channels, 2 * in_channels):
        raise ValueError(
            f"the final layer has {out_channels} output channels; {in_channels} or "
            f"{2 * in_channels} go with {in_channels} input channels"
        )
    q_norm = state_dict.get("spatial_blocks.0.attn.q_norm.weight")
    if q_norm is not None and q_norm.shape[0] * num_heads != hidden_size:
        raise ValueError(
            f"num_heads {num_heads} does not fit: width {hidden_size} with head dim "
            f"{q_norm.shape[0]} has {hidden_size // q_norm.shape[0]} heads"
        )
    blocks = {key.split(".")[1] for key in state_dict if key.startswith("spatial_blocks.")}
    return VideoTowerConfig(
        hidden_size=hidden_size,
        depth=len(blocks),
        num_heads=num_heads,
        in_channels=in_channels,
        patch_size=tuple(patch_size),
        mlp_ratio=mlp_width / hidden_size,
        caption_channels=caption_channels,
        model_max_length=max_length,
        qk_norm=q_norm is not None,
        pred_sigma=out_channels == 2 * in_channels,
    )


def _shape(state_dict: Mapping[str, Tensor], key: str, ndim: int, what: str) -> tuple[int, ...]:
    if key not in state_dict:
        raise ValueError(f"not {what}: the key {key} is missing among {len(state_dict)} keys")
    shape = tuple(state_dict[key].shape)
    if len(shape) != ndim:
        raise ValueError(f"not {what}: {key} has shape {shape}, expected {ndim} axes")
    return shape


def _load(build: Callable[[], nn.Module], state_dict: Mapping[str, Tensor], what: str) -> nn.Module:
    # Checked on the meta device first: a wrong file then costs no memory and no half-loaded model.
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in build().state_dict().items()}
    check_layout(wanted, {key: tuple(value.shape) for key, value in state_dict.items()}, what)
    module = build()
    module.load_state_dict(state_dict, strict=True)
    return module.eval()


def check_layout(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], what: str
) -> None:
    """Compares two layouts (shapes by key).

    Raises:
        ValueError: they differ; one line that counts and names what is missing, unexpected or of
            another shape.
    """
    faults = []
    for label, keys in (
        ("missing", [key for key in wanted if key not in found]),
        ("unexpected", [key for key in found if key not in wanted]),
    ):
        if keys:
            faults.append(f"{len(keys)} {label} ({_some(keys)})")
    reshaped = [
        f"{key} {list(found[key])} for {list(shape)}"
        for key, shape in wanted.items()
        if key in found and found[key] != shape
    ]
    if reshaped:
        faults.append(f"{len(reshaped)} of another shape ({_some(reshaped)})")
    if faults:
        raise ValueError(f"not {what} of this size: keys " + ", ".join(faults))


def _some(names: list[str]) -> str:
    more = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
