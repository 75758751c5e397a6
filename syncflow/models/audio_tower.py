"""The audio tower: a transformer beside the video tower that reads it layer by layer (paper 3.2).

Axis letters: B batch, K audio draws per video, A audio latents, M tokens of a context, H heads,
D head dim, C width.

LayerNorm comes after each transformation: x + LN(f(x)).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from syncflow.clip import ClipSpec
from syncflow.config import AudioTowerConfig
from syncflow.models.adaptor import Clock
from syncflow.models.layers import (
    CrossAttention,
    Mlp,
    ModuleList,
    ScalarEmbedder,
    additive_mask,
)
from syncflow.ops.adaln import adaln, residual_layernorm
from syncflow.ops.cross_attention import KeysValues
from syncflow.ops.rotation import turned
from syncflow.ops.self_attention import self_attention


@dataclass(frozen=True)
class AudioText:
    """Keys and values of the captions for every layer: made once per prompt."""

    keys_values: list[KeysValues]
    score_term: Tensor | None

    def select(self, rows: slice | list[int]) -> AudioText:
        """The captions of some of the batch."""
        term = None if self.score_term is None else self.score_term[rows]
        return AudioText([(k[rows], v[rows]) for k, v in self.keys_values], term)


@dataclass(frozen=True)
class AudioContext:
    """What every audio layer attends to: made once per video pass, used for every step and draw.

    ``keys_values[l]`` are the adaptor's tokens of layer l, keys rotated to their time;
    ``aligned_BAC`` the upsampled video features, if the model has them.
    """

    keys_values: list[KeysValues]
    score_term: Tensor | None
    aligned_BAC: Tensor | None
    self_rotation_AP2: Tensor
    cross_rotation_AP2: Tensor | None

    def select(self, rows: slice | list[int]) -> AudioContext:
        """What some of the batch attends to."""
        return replace(
            self,
            keys_values=[(k[rows], v[rows]) for k, v in self.keys_values],
            score_term=None if self.score_term is None else self.score_term[rows],
            aligned_BAC=None if self.aligned_BAC is None else self.aligned_BAC[rows],
        )


@dataclass(frozen=True)
class AudioState:
    """Between two layers: the tokens, the embedded flow time and the aligned path."""

    x_BAC: Tensor
    t_BC: Tensor
    aligned_BAC: Tensor | None


class AudioTower(nn.Module):
    """Predicts the velocity of audio latents.

    Args:
        config: sizes and ablations.
        depth: layers, as many as the video tower's.
        text_width: width of the caption tokens, read where ``config.condition`` is not "video".
    """

    def __init__(self, config: AudioTowerConfig, depth: int, text_width: int) -> None:
        super().__init__()
        C = config.hidden_size
        self.config = config
        self.x_embedder = nn.Linear(config.in_channels, C)
        self.t_embedder = ScalarEmbedder(C)
        self.text_in = nn.Linear(text_width, C) if config.condition != "video" else None
        self.layers = ModuleList(AudioLayer(config) for _ in range(depth))
        self.aligned_scale = (
            nn.Parameter(torch.full((depth, C), 0.1)) if config.upsampler_patches else None
        )
        self.final_modulation = nn.Sequential(nn.SiLU(), nn.Linear(C, 2 * C))
        self.final_linear = nn.Linear(C, config.in_channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for part in self.t_embedder.mlp:
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
        for linear in (cast(nn.Linear, self.final_modulation[1]), self.final_linear):
            nn.init.zeros_(linear.weight)

    def prepare(self, text_BLC: Tensor, mask_BL: Tensor | None) -> AudioText | None:
        """Once per prompt: the captions' keys and values, or None where they are not read."""
        if self.text_in is None:
            return None
        text_BLC = self.text_in(text_BLC)
        keys_values = [layer.reads_text(text_BLC) for layer in self.layers]
        return AudioText(keys_values, additive_mask(mask_BL, keys_values[0][0].dtype))

    def context(
        self,
        tokens: list[Tensor] | None,
        spec: ClipSpec,
        text: AudioText | None = None,
        aligned_BAC: Tensor | None = None,
    ) -> AudioContext:
        """Once per video pass: keys and values of every layer.

        Args:
            tokens: per layer the adaptor's output [B, M, C], M a multiple of the latent frames;
                not read where ``condition`` is "text".
            spec: the clip's clocks.
            text: from ``prepare``; read where ``condition`` is "text".
            aligned_BAC: output of the temporal upsampler.
        """
        clock = self.clock(spec)
        if self.config.condition == "text":
            assert text is not None, "a tower that reads text alone needs it"
            return AudioContext(text.keys_values, text.score_term, None, clock.audio_AP2, None)
        assert tokens is not None, "a tower that reads the picture needs its tokens"
        pairs = [self.reads_video(i, x, clock) for i, x in enumerate(tokens)]
        return AudioContext(pairs, None, aligned_BAC, clock.audio_AP2, clock.cross_AP2)

    def clock(self, spec: ClipSpec) -> Clock:
        """Rotations of a clip's audio latents and latent frames."""
        return Clock.of(spec, self.config, self.x_embedder.weight.device)

    def reads_video(self, index: int, tokens_BMC: Tensor, clock: Clock) -> KeysValues:
        """Keys, turned to their frame's time, and values of one layer for the adaptor's tokens."""
        return self.turns(self.layers[index].reads_video(tokens_BMC), clock)

    def turns(self, keys_values: KeysValues, clock: Clock) -> KeysValues:
        """Keys turned to their frame's time; takes them over."""
        k_BHMD, v_BHMD = keys_values
        if clock.aligned:
            k_BMHD = turned(k_BHMD.transpose(1, 2), clock.keys(k_BHMD.shape[2]), False)
            k_BHMD = k_BMHD.transpose(1, 2)
        return k_BHMD, v_BHMD

    def forward(
        self,
        x_BAD: Tensor,
        t_B: Tensor,
        context: AudioContext,
        text: AudioText | None = None,
        repeat: int | None = None,
        latent_mask: Tensor | None = None,
    ) -> Tensor:
        """Once per step: velocity [B*K, A, D], float32.

        Args:
            x_BAD: noised latents of K draws per video, the draws of one video side by side; K is
                told from the context's batch.
            t_B: flow time of every draw, 0 = noise and 1 = data.
            context: from ``context``, of batch B.
            text: from ``prepare``; read where ``condition`` is "both".
            repeat: K, where the caller wants it checked.
            latent_mask: [B*K, A], False = this latent is data already and is told so: what a
                retake or a continuation keeps. The velocity there means nothing.
        """
        videos = len(context.keys_values[0][0])
        repeats = repeat or len(x_BAD) // videos
        assert len(x_BAD) == repeats * videos, f"{len(x_BAD)} draws, {videos} videos, {repeat=}"
        state = self.start(x_BAD, t_B, context.aligned_BAC, latent_mask)
        return self.finish(self.run(state, context, text))

    def start(
        self,
        x_BAD: Tensor,
        t_B: Tensor,
        aligned_BAC: Tensor | None,
        latent_mask: Tensor | None = None,
    ) -> AudioState:
        """What the first layer reads."""
        t_BC = self.t_embedder(1000 * t_B.float())
        clock_BAC = t_BC[:, None]
        if latent_mask is not None:
            data_BC = self.t_embedder(1000 * torch.ones_like(t_B, dtype=torch.float32))
            clock_BAC = torch.where(latent_mask.bool()[..., None], clock_BAC, data_BC[:, None])
        x_BAC = self.x_embedder(x_BAD.to(self.x_embedder.weight.dtype)) + clock_BAC
        return self.between(x_BAC, t_BC, aligned_BAC)

    def between(self, x_BAC: Tensor, t_BC: Tensor, aligned_BAC: Tensor | None) -> AudioState:
        """The state of the tokens of all draws, and the aligned path of every video."""
        if aligned_BAC is not None:
            repeats = len(x_BAC) // len(aligned_BAC)
            aligned_BAC = aligned_BAC.to(x_BAC.dtype).repeat_interleave(repeats, 0)
        return AudioState(x_BAC, t_BC, aligned_BAC)

    def run(
        self,
        state: AudioState,
        context: AudioContext,
        text: AudioText | None,
        layers: slice = slice(None),
    ) -> AudioState:
        """Some of the layers, all when not told."""
        rotations = (context.self_rotation_AP2, context.cross_rotation_AP2)
        for index, keys_values in list(enumerate(context.keys_values))[layers]:
            state = self.step(index, state, keys_values, context.score_term, rotations, text)
        return state

    def step(
        self,
        index: int,
        state: AudioState,
        keys_values: KeysValues,
        score_term: Tensor | None,
        rotations: tuple[Tensor, Tensor | None],
        text: AudioText | None,
    ) -> AudioState:
        """Layer ``index``; ``rotations`` of its self-attention and of its cross-attention."""
        layer, x_BAC = self.layers[index], state.x_BAC
        if state.aligned_BAC is not None:
            assert self.aligned_scale is not None, "made without an aligned path"
            scale_C = self.aligned_scale[index].to(x_BAC.dtype)
            x_BAC = torch.addcmul(x_BAC, state.aligned_BAC, scale_C)
        words, term = None, None
        if text is not None and layer.text_attn is not None:
            words, term = text.keys_values[index], text.score_term
        x_BAC = layer(
            x_BAC, rotations[0], state.t_BC, keys_values, score_term, rotations[1], words, term
        )
        return replace(state, x_BAC=x_BAC)

    def finish(self, state: AudioState) -> Tensor:
        """The velocity, float32."""
        shift_BC, scale_BC = self.final_modulation(state.t_BC).chunk(2, dim=-1)
        velocity_BAD: Tensor = self.final_linear(adaln(state.x_BAC, shift_BC, scale_BC))
        return velocity_BAD.float()


class AudioLayer(nn.Module):
    """Self-attention, cross-attention (to video, to text, or to both in turn) and MLP."""

    def __init__(self, config: AudioTowerConfig) -> None:
        super().__init__()
        C, H = config.hidden_size, config.num_heads
        self.num_heads = H
        self.qkv = nn.Linear(C, 3 * C)
        self.proj = nn.Linear(C, C)
        self.self_norm = PostNorm(C, config.norm_init)
        self.cross_attn = CrossAttention(C, H)
        self.cross_norm = PostNorm(C, config.norm_init)
        both = config.condition == "both"
        self.text_attn = CrossAttention(C, H) if both else None
        self.text_norm = PostNorm(C, config.norm_init) if both else None
        self.mlp = Mlp(C, int(C * config.mlp_ratio))
        self.mlp_norm = PostNorm(C, config.norm_init)

    def forward(
        self,
        x_BAC: Tensor,
        self_rotation_AP2: Tensor,
        t_BC: Tensor,
        keys_values: KeysValues,
        score_term: Tensor | None,
        cross_rotation_AP2: Tensor | None,
        words: KeysValues | None,
        words_term: Tensor | None,
    ) -> Tensor:
        """One layer: x [B*K, A, C] -> the same.

        Args:
            x_BAC: the tokens of all draws.
            self_rotation_AP2: of self-attention, [A, D/2, 2].
            t_BC: the embedded flow time of every draw, [B*K, C].
            keys_values: of the context, each [B, H, M, D].
            score_term: added to a key's scores, [B, M]; None adds nothing.
            cross_rotation_AP2: of cross-attention's queries; None turns nothing.
            words: of the captions, where this layer reads them beside the picture. (No number of
                the layer comes in: compiled, it would be a graph of its own for each.)
            words_term: ``score_term`` of the captions.
        """
        x_BAC = self.self_norm(x_BAC, self.self_attention(x_BAC, self_rotation_AP2))
        # The flow time of every draw is one more token of its context.
        time = self.cross_attn.keys_values(t_BC[:, None])
        y_BAC = self.cross_attn(x_BAC, keys_values, score_term, cross_rotation_AP2, time)
        x_BAC = self.cross_norm(x_BAC, y_BAC)
        if words is not None:
            assert self.text_attn is not None and self.text_norm is not None
            y_BAC = self.text_attn(x_BAC, words, words_term)
            x_BAC = self.text_norm(x_BAC, y_BAC)
        out_BAC: Tensor = self.mlp_norm(x_BAC, self.mlp(x_BAC))
        return out_BAC

    def self_attention(self, x_BAC: Tensor, rotation_AP2: Tensor) -> Tensor:
        """[B*K, A, C] -> the same; every token turned to its time by a rotation [A, D/2, 2]."""
        qkv_BA3HD = self.qkv(x_BAC).unflatten(-1, (3, self.num_heads, -1))
        y_BAC = self_attention(qkv_BA3HD, rotation_NP2=rotation_AP2, interleaved=False)
        out_BAC: Tensor = self.proj(y_BAC)
        return out_BAC

    def reads_text(self, text_BLC: Tensor) -> KeysValues:
        """Keys and values, each [B, H, L, D], of the captions' tokens [B, L, C]."""
        attn = self.cross_attn if self.text_attn is None else self.text_attn
        return attn.keys_values(text_BLC)

    def reads_video(self, tokens_BMC: Tensor) -> KeysValues:
        """Keys and values, each [B, H, M, D], of the adaptor's tokens [B, M, C]."""
        return self.cross_attn.keys_values(tokens_BMC)


class PostNorm(nn.Module):
    """x + LN(y): the norm after a transformation, its gain starting at ``gain``."""

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), gain))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x [..., C] and what a transformation made of it, y [..., C] -> [..., C]."""
        return residual_layernorm(x, y, self.weight, self.bias)
