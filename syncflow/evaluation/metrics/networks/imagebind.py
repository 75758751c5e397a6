"""ImageBind (Girdhar et al., 2023): vision, text and audio in the layout of ``imagebind_huge.pth``.

Written from the published layout rather than asked for as a program of the user's: the release is a
state dict, and the code that goes with it is not on the package index. Keys of other senses (depth,
thermal, IMU) are left out. Head widths are the release's (80, 64, 64), everything else is read off
the weights. The weights are CC-BY-NC: for measuring, not for selling.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncflow.evaluation.metrics.networks import loading

NAME = "ImageBind weights (imagebind_huge.pth)"
SENSES = ("vision", "text", "audio")
_HEAD_WIDTH = {"vision": 80, "text": 64, "audio": 64}
#: Kernel and stride of the patches; vision's covers two frames.
_PATCH = (2, 14, 14)
_AUDIO_STRIDE = 10


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, bias_kv: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, add_bias_kv=bias_kv, batch_first=True)
        self.norm_1, self.norm_2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.mlp = _Mlp(width, hidden)

    def forward(self, x_BLC: Tensor, mask_LL: Tensor | None) -> Tensor:
        y = self.norm_1(x_BLC)
        x_BLC = x_BLC + self.attn(y, y, y, need_weights=False, attn_mask=mask_LL)[0]
        return x_BLC + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm_2(x_BLC))))


class _Trunk(nn.Module):
    def __init__(
        self, width: int, depth: int, heads: int, hidden: int, norm_first: bool, bias_kv: bool
    ) -> None:
        super().__init__()
        first = nn.LayerNorm(width, eps=1e-6) if norm_first else nn.Identity()
        self.pre_transformer_layer = nn.Sequential(first)
        self.blocks = nn.ModuleList(_Block(width, heads, hidden, bias_kv) for _ in range(depth))

    def forward(self, x_BLC: Tensor, mask_LL: Tensor | None = None) -> Tensor:
        x_BLC = self.pre_transformer_layer(x_BLC)
        for block in self.blocks:
            x_BLC = block(x_BLC, mask_LL)
        return x_BLC


def _patches(sense: str, weights: dict[str, Tensor]) -> nn.Module:
    """Stem, class token and positions of vision or audio."""
    key = f"modality_preprocessors.{sense}."
    stem, positions = nn.Module(), nn.Module()
    if sense == "vision":
        shape = weights[f"{key}rgbt_stem.proj.1.weight"].shape
        conv = nn.Conv3d(3, shape[0], _PATCH, _PATCH, bias=False)
        stem.proj = nn.Sequential(nn.Identity(), conv)  # the release repeats single images here
    else:
        shape = weights[f"{key}rgbt_stem.proj.weight"].shape
        kernel = (shape[2], shape[3])
        stem.proj = nn.Conv2d(1, shape[0], kernel, _AUDIO_STRIDE, bias=False)
        stem.norm_layer = nn.LayerNorm(shape[0])
    table = weights[f"{key}pos_embedding_helper.pos_embed"]
    positions.pos_embed = nn.Parameter(torch.zeros(table.shape))
    module = nn.Module()
    module.rgbt_stem, module.pos_embedding_helper = stem, positions
    module.cls_token = nn.Parameter(torch.zeros(1, 1, shape[0]))
    return module


def _words(weights: dict[str, Tensor]) -> nn.Module:
    table = weights["modality_preprocessors.text.token_embedding.weight"]
    length = weights["modality_preprocessors.text.pos_embed"].shape[1]
    module = nn.Module()
    module.token_embedding = nn.Embedding(*table.shape)
    module.pos_embed = nn.Parameter(torch.zeros(1, length, table.shape[1]))
    module.register_buffer("mask", torch.full((length, length), float("-inf")).triu(1))
    return module


class ImageBind(nn.Module):
    """``vision``, ``text`` and ``audio`` to unit vectors [B, E] of one space."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        inputs = {sense: _patches(sense, weights) for sense in ("vision", "audio")}
        self.modality_preprocessors = nn.ModuleDict(inputs | {"text": _words(weights)})
        #: Tokens of a caption, the start and end tokens among them.
        self.num_tokens = weights["modality_preprocessors.text.pos_embed"].shape[1]
        trunks, heads = {}, {}
        for sense in SENSES:
            blocks = f"modality_trunks.{sense}.blocks."
            depth = 1 + max(
                int(k.removeprefix(blocks).split(".")[0]) for k in weights if k.startswith(blocks)
            )
            hidden, width = weights[f"{blocks}0.mlp.fc1.weight"].shape
            trunks[sense] = _Trunk(
                width,
                depth,
                width // _HEAD_WIDTH[sense],
                hidden,
                sense == "vision",
                sense == "audio",
            )
            index = "proj.1" if sense == "text" else "2"
            out = len(weights[f"modality_heads.{sense}.{index}.weight"])
            norm, project = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, out, bias=False)
            if sense == "text":
                heads[sense] = nn.Module()
                heads[sense].proj = nn.Sequential(norm, project)
            else:  # the release selects the class token between the two
                heads[sense] = nn.Sequential(norm, nn.Identity(), project)
        self.modality_trunks, self.modality_heads = nn.ModuleDict(trunks), nn.ModuleDict(heads)

    def vision(self, video_B3THW: Tensor) -> Tensor:
        """Two frames of 224 x 224 px, normalised: [B, 3, 2, H, W] -> [B, E]."""
        return self._see("vision", video_B3THW)

    def audio(self, mel_B1KN: Tensor) -> Tensor:
        """Normalised filter banks [B, 1, bands, frames] -> [B, E]."""
        return self._see("audio", mel_B1KN)

    def text(self, tokens_BL: Tensor) -> Tensor:
        """CLIP's tokens [B, L], zero after the end token (the greatest number) -> [B, E]."""
        words: Any = self.modality_preprocessors["text"]
        x_BLC = words.token_embedding(tokens_BL) + words.pos_embed
        x_BLC = self.modality_trunks["text"](x_BLC, words.mask)
        end_BC = x_BLC[torch.arange(len(x_BLC)), tokens_BL.argmax(-1)]
        head: Any = self.modality_heads["text"]
        return F.normalize(head.proj(end_BC), dim=-1)

    def _see(self, sense: str, x: Tensor) -> Tensor:
        parts: Any = self.modality_preprocessors[sense]
        x_BLC = parts.rgbt_stem.proj(x).flatten(2).transpose(1, 2)
        if sense == "audio":
            x_BLC = parts.rgbt_stem.norm_layer(x_BLC)
        x_BLC = torch.cat([parts.cls_token.expand(len(x_BLC), -1, -1), x_BLC], 1)
        positions = parts.pos_embedding_helper.pos_embed
        if positions.shape[1] != x_BLC.shape[1]:
            raise ValueError(
                f"{sense} of shape {list(x.shape)} has {x_BLC.shape[1]} tokens, the weights have "
                f"{positions.shape[1]} positions"
            )
        x_BLC = self.modality_trunks[sense](x_BLC + positions)
        return F.normalize(self.modality_heads[sense](x_BLC[:, 0]), dim=-1)


@lru_cache(maxsize=1)
def load(path: str | Path) -> ImageBind:
    """ImageBind from published weights."""
    weights = loading.read(path, NAME)
    groups = ("modality_preprocessors", "modality_trunks", "modality_heads")
    wanted = tuple(f"{group}.{sense}." for group in groups for sense in SENSES)
    weights = {key: value for key, value in weights.items() if key.startswith(wanted)}
    sizes = [
        f"modality_preprocessors.{name}"
        for name in (
            "vision.rgbt_stem.proj.1.weight",
            "vision.pos_embedding_helper.pos_embed",
            "audio.rgbt_stem.proj.weight",
            "audio.pos_embedding_helper.pos_embed",
            "text.token_embedding.weight",
            "text.pos_embed",
        )
    ]
    for sense in SENSES:
        head = "proj.1" if sense == "text" else "2"
        sizes += [f"modality_trunks.{sense}.blocks.0.mlp.fc1.weight"]
        sizes += [f"modality_heads.{sense}.{head}.weight"]
    loading.need(weights, tuple(sizes), path, NAME)
    return loading.fill(ImageBind(weights), weights, path, NAME)
