"""Weights of Open-Sora v1.2 as this package's modules, checked key for key before they load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from syncflow.config import OpenSoraVAEConfig, VideoTowerConfig
from syncflow.interop.opensora_sampler import Compat
from syncflow.json_types import JsonObject
from syncflow.models.video_embeddings import RotaryFrequencies
from syncflow.models.video_tower import VideoTower
from syncflow.models.video_vae import VideoVAE

Module = TypeVar("Module", bound=nn.Module)

_NUM_NAMED = 5
_TOWER = "an Open-Sora v1.2 STDiT3"
#: First letters of keys that tell other models, so that a wrong file is called by its name.
_KNOWN = (
    ("model.diffusion_model.", "a Stable Diffusion checkpoint"),
    ("first_stage_model.", "a Stable Diffusion checkpoint"),
    ("down_blocks.", "a diffusers UNet"),
    ("transformer_blocks.", "a diffusers transformer"),
    ("encoder.block.", "a T5"),
    ("encoder.down_blocks.", "a diffusers image VAE"),
    ("encoder.layers.", "an Encodec"),
    ("spatial_vae.", "an Open-Sora video VAE"),
    ("spatial_blocks.", "an Open-Sora STDiT"),
)


def video_vae(
    state_dict: Mapping[str, Tensor],
    spatial: Mapping[str, object] | None = None,
    temporal: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> VideoVAE:
    """The video VAE from a state dict in the layout of `hpcai-tech/OpenSora-VAE-v1.2`.

    Args:
        state_dict: keys `spatial_vae.module.*`, `temporal_vae.*`, `scale`, `shift`. The module
            shares its memory where the dtype is the same.
        spatial: arguments of diffusers' `AutoencoderKL`; the released model's when not given.
        temporal: arguments of `TemporalVAE`; the released model's when not given.
        dtype: of the module; None = as stored.

    Returns:
        The module in evaluation mode.

    Raises:
        ValueError: keys are missing, unexpected or of another shape; they are named.
    """
    sizes: JsonObject = {}
    if spatial is not None:
        sizes["spatial"] = dict(spatial)
    if temporal is not None:
        sizes["temporal"] = dict(temporal)
    for name in ("shift", "scale"):
        if name in state_dict:
            sizes[name] = state_dict[name].float().flatten().tolist()
    sizes["latent_channels"] = sizes.get("temporal", {}).get("embed_dim", 4)
    config = OpenSoraVAEConfig.parse(sizes, "video VAE")
    return _load(lambda: VideoVAE(config), state_dict, "an Open-Sora v1.2 video VAE", dtype)


def video_tower(
    state_dict: Mapping[str, Tensor],
    num_heads: int = 16,
    compat: Compat | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> VideoTower:
    """The video tower from a state dict in the layout of `hpcai-tech/OpenSora-STDiT-v3`.

    Every size but the number of heads follows from the shapes.

    Args:
        state_dict: the released 973 keys, or those of another size of the same model. The module
            shares its memory where the dtype is the same.
        num_heads: attention heads.
        compat: "opensora-1.2" reproduces the original's output for clean frames, a defect.
        dtype: of the module; None = as stored.

    Returns:
        The tower in evaluation mode.

    Raises:
        ValueError: it is no STDiT3, `num_heads` does not fit, or keys are missing, unexpected or
            of another shape; they are named.
    """
    config = video_tower_config(state_dict, num_heads, compat)
    tower = _load(lambda: VideoTower(config), state_dict, _TOWER, dtype)
    _check_rotary(tower.rope.freqs)
    return tower


def video_tower_config(
    state_dict: Mapping[str, Tensor], num_heads: int = 16, compat: Compat | None = None
) -> VideoTowerConfig:
    """Sizes of the STDiT3 that a state dict holds; see `video_tower`."""
    what = _TOWER
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
        compat=compat,
    )


def _shape(state_dict: Mapping[str, Tensor], key: str, ndim: int, what: str) -> tuple[int, ...]:
    if key not in state_dict:
        raise ValueError(
            f"not {what}{_looks_like(state_dict)}: the key {key} is missing among "
            f"{len(state_dict)} keys"
        )
    shape = tuple(state_dict[key].shape)
    if len(shape) != ndim:
        raise ValueError(f"not {what}: {key} has shape {shape}, expected {ndim} axes")
    return shape


def _load(
    build: Callable[[], Module],
    state_dict: Mapping[str, Tensor],
    what: str,
    dtype: torch.dtype | None,
) -> Module:
    # Built on the meta device: a wrong file costs no memory, and neither do first weights that
    # the file's replace.
    with torch.device("meta"):
        module = build()
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    check_layout(wanted, {key: tuple(value.shape) for key, value in state_dict.items()}, what)
    module.load_state_dict(state_dict, strict=True, assign=True)
    return module.to(dtype).eval()


def _check_rotary(freqs: Tensor) -> None:
    # The tower computes its rotary frequencies; files that went through bfloat16 hold them rounded.
    expected = RotaryFrequencies(2 * len(freqs)).freqs
    if not torch.allclose(freqs.float(), expected, rtol=0.01, atol=0):
        raise ValueError(
            "rope.freqs are not those of base 10000 that Open-Sora v1.2 has: "
            f"{_some([f'{value:.3g}' for value in freqs.tolist()])}"
        )


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
        raise ValueError(f"not {what} of this size{_looks_like(found)}: keys " + ", ".join(faults))


def _looks_like(keys: Iterable[str]) -> str:
    """What other known model the keys are of, as words to add, or nothing."""
    keys = list(keys)
    for prefix, what in _KNOWN:
        if any(key.startswith(prefix) for key in keys):
            return f" (it looks like {what})"
    return ""


def _some(names: list[str]) -> str:
    more = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
