"""The video tower: STDiT3 of Open-Sora v1.2, state-dict compatible key for key (paper section 3.2).

Axis letters: B batch, T latent frames, S patches of a frame, L text tokens, C width, E width of the
text encoder. One layer is a spatial block followed by a temporal block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from syncflow.config import VideoTowerConfig
from syncflow.models.layers import (
    CrossAttention,
    Mlp,
    ModuleList,
    ScalarEmbedder,
    SelfAttention,
    additive_mask,
    plane_positions,
)
from syncflow.models.video_embeddings import (
    EPS,
    CaptionEmbedding,
    FinalLayer,
    PatchEmbedding,
    RotaryFrequencies,
)
from syncflow.ops.adaln import adaln, gate_residual, gate_residual_adaln
from syncflow.ops.cross_attention import KeysValues
from syncflow.ops.patchify3d import unpatchify3d


@dataclass(frozen=True)
class TextContext:
    """What the captions say to every block, and what is added to the tokens of each latent frame,
    where anything is: made once per prompt, used at every step."""

    tokens_BLC: Tensor
    mask_BL: Tensor | None
    keys_values: list[KeysValues]
    score_term: Tensor | None
    told_BTC: Tensor | None = None

    def select(self, rows: slice | list[int]) -> TextContext:
        """The captions of some of the batch."""
        return TextContext(
            self.tokens_BLC[rows],
            None if self.mask_BL is None else self.mask_BL[rows],
            [(k[rows], v[rows]) for k, v in self.keys_values],
            None if self.score_term is None else self.score_term[rows],
            None if self.told_BTC is None else self.told_BTC[rows],
        )


class VideoTower(nn.Module):
    """Predicts the velocity of video latents and hands out the features of every layer.

    Args:
        config: sizes; the defaults are the released XL/2 (973 keys, 1,207,643,972 parameters).
    """

    def __init__(self, config: VideoTowerConfig) -> None:
        super().__init__()
        C = config.hidden_size
        self.config = config
        self.out_channels = config.in_channels * (2 if config.pred_sigma else 1)
        self.rope = RotaryFrequencies(C // config.num_heads)
        self.x_embedder = PatchEmbedding(config)
        self.t_embedder = ScalarEmbedder(C)
        self.fps_embedder = ScalarEmbedder(C)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(C, 6 * C))
        self.y_embedder = CaptionEmbedding(config)
        self.spatial_blocks = ModuleList(Block(config, False) for _ in range(config.depth))
        self.temporal_blocks = ModuleList(Block(config, True) for _ in range(config.depth))
        self.final_layer = FinalLayer(config, self.out_channels)
        self._initialise()

    def forward(
        self,
        x_BCTHW: Tensor,
        t_B: Tensor,
        text_BLE: Tensor,
        text_mask_BL: Tensor | None = None,
        *,
        fps: float | Tensor,
        height: float,
        width: float,
        frame_mask: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Velocity ``x_data - noise`` and features of noised latents.

        Args:
            x_BCTHW: latents; a size that is no multiple of the patch is padded and cut back.
            t_B: flow time, 0 = noise and 1 = data.
            text_BLE, text_mask_BL: the text encoder's tokens, True = a token; None = all are.
            fps: frames per second, one for all or [B].
            height, width: of the picture in pixels.
            frame_mask: [B, T], False = this latent frame is data already and is modulated as such.

        Returns:
            velocity [B, C_in, T, H, W], float32, and per layer the output of its temporal block,
            [B, T, S, C].
        """
        text = self.prepare(text_BLE, text_mask_BL)
        return self.step(
            x_BCTHW, t_B, text, fps=fps, height=height, width=width, frame_mask=frame_mask
        )

    def prepare(self, text_BLE: Tensor, text_mask_BL: Tensor | None = None) -> TextContext:
        """Keys and values of every block for the captions: once per prompt."""
        y_BLC = self.y_embedder(text_BLE)
        keys_values = [block.cross_attn.keys_values(y_BLC) for block in self._blocks()]
        term = additive_mask(text_mask_BL, keys_values[0][0].dtype)
        return TextContext(y_BLC, text_mask_BL, keys_values, term)

    def step(
        self,
        x_BCTHW: Tensor,
        t_B: Tensor,
        text: TextContext,
        *,
        fps: float | Tensor,
        height: float,
        width: float,
        frame_mask: Tensor | None = None,
        on_layer: Callable[[int, Tensor], None] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """``forward`` with prepared captions: once per step. ``on_layer`` is told every layer's
        index and features as soon as they are there."""
        x_BTSC = self.embed(x_BCTHW, height, width, text.told_BTC)
        modulations, final = self.modulations(t_B, fps, frame_mask)
        x_BTSC, features = self.run(x_BTSC, modulations, text, on_layer=on_layer)
        if self.config.compat == "opensora-1.2" and frame_mask is not None:
            x_BTSC = self._modulate_clean_frames_twice(x_BTSC, t_B, fps, frame_mask)
        return self.finish(x_BTSC, final, x_BCTHW.shape[2:]), features

    def embed(
        self, x_BCTHW: Tensor, height: float, width: float, told_BTC: Tensor | None = None
    ) -> Tensor:
        """What the first block reads, [B, T, S, C], of latents and what their frames are told; the
        size is in pixels."""
        sizes = zip(x_BCTHW.shape[3:], self.config.patch_size[1:], strict=True)
        rows, columns = (-(-size // patch) for size, patch in sizes)
        scale = (height * width) ** 0.5 / self.config.input_sq_size
        base_size = round((rows * columns) ** 0.5)
        positions_SC = plane_positions(
            rows, columns, self.config.hidden_size, scale, base_size, x_BCTHW.device
        )
        x_BTSC: Tensor = self.x_embedder(x_BCTHW, positions_SC)
        return x_BTSC if told_BTC is None else x_BTSC + told_BTC[:, :, None]

    def run(
        self,
        x_BTSC: Tensor,
        modulations: Sequence[tuple[Tensor, ...]],
        text: TextContext,
        blocks: slice = slice(None),
        on_layer: Callable[[int, Tensor], None] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Some of the blocks, all when not told: what they make of the tokens, and the features of
        the layers that end among them. ``modulations`` are all blocks'."""
        features = []
        # A block's end and the next one's beginning in one pass; with a gradient both tensors
        # would have to be kept.
        joined = not torch.is_grad_enabled()
        normed_BTSC = None
        for index, block in list(enumerate(self._blocks()))[blocks]:
            following = modulations[index + 1][:2] if joined and modulations[index + 1 :] else None
            words = text.keys_values[index], text.score_term
            x_BTSC, normed_BTSC = block(x_BTSC, modulations[index], *words, normed_BTSC, following)
            if index % 2:
                features.append(x_BTSC)
                if on_layer is not None:
                    on_layer(index // 2, x_BTSC)
        return x_BTSC, features

    def finish(
        self, x_BTSC: Tensor, modulation: tuple[Tensor, ...], sizes: Sequence[int]
    ) -> Tensor:
        """The velocity [B, C_in, T, H, W], float32, of the last block's tokens; ``sizes`` are T, H
        and W of the latents."""
        out_BTSP = self.final_layer(x_BTSC, *modulation)
        T, H, W = sizes
        return unpatchify3d(out_BTSP, self.config.patch_size, self.config.in_channels, (T, H, W))

    def unguided_text(self, text_mask_BL: Tensor, kind: str = "full") -> tuple[Tensor, Tensor]:
        """Null captions, one per row of the mask, for guidance to lead away from.

        Args:
            text_mask_BL: of the captions that they stand beside.
            kind: "full" is all of the null caption, whatever the captions are; "prompt" cuts it to
                the tokens of its caption, as Open-Sora v1.2 does in training and sampling.

        Returns:
            text [B, L', E] and mask [B, L'].
        """
        if kind == "full":
            return self.null_text(len(text_mask_BL))
        null_BLE, _ = self.null_text(*text_mask_BL.shape)
        return null_BLE, text_mask_BL.bool()

    def null_text(self, batch: int, length: int | None = None) -> tuple[Tensor, Tensor]:
        """The learned caption of "no caption", [batch, length, E], and its mask, all True.

        ``length`` defaults to, and is at most, ``model_max_length``.
        """
        table = self.y_embedder.y_embedding
        length = len(table) if length is None else length
        if not 0 < length <= len(table):
            raise ValueError(f"null caption of {length} tokens; model_max_length is {len(table)}")
        mask = torch.ones(batch, length, dtype=torch.bool, device=table.device)
        return table[:length].expand(batch, -1, -1), mask

    def _blocks(self) -> list[Block]:
        """Spatial and temporal blocks in turn, in the order of the forward pass."""
        pairs = zip(self.spatial_blocks, self.temporal_blocks, strict=True)
        return [block for pair in pairs for block in pair]

    def modulations(
        self, t_B: Tensor, fps: float | Tensor, frame_mask: Tensor | None
    ) -> tuple[list[tuple[Tensor, ...]], tuple[Tensor, ...]]:
        """Shift, scale and gate of every block and of the final layer, each [B, C] or [B, T, C].

        All blocks' at once: one addition in place of one per block.
        """
        t_BC = self._clock(t_B, fps)
        t_B6C = self.t_block(t_BC).unflatten(-1, (6, -1))
        if frame_mask is not None:
            data_BC = self._clock(torch.ones_like(t_B), fps)
            data_B6C = self.t_block(data_BC).unflatten(-1, (6, -1))
            noisy_BT1 = frame_mask.bool()[:, :, None]
            t_BC = torch.where(noisy_BT1, t_BC[:, None], data_BC[:, None])
            t_B6C = torch.where(noisy_BT1[..., None], t_B6C[:, None], data_B6C[:, None])
        # [6, B(, T), C] + [blocks, 6, 1(, 1), C]: every modulation is then one contiguous slab.
        tables = torch.stack([block.scale_shift_table for block in self._blocks()])
        t_6BC = t_B6C.movedim(-2, 0)
        tables = tables.reshape(*tables.shape[:2], *(1,) * (t_6BC.ndim - 2), -1)
        rows = (tables + t_6BC).flatten(0, 1).unbind(0)
        modulations = [rows[6 * i : 6 * i + 6] for i in range(len(rows) // 6)]
        final = (self.final_layer.scale_shift_table + t_BC.unsqueeze(-2)).unbind(-2)
        return modulations, final

    def _clock(self, t_B: Tensor, fps: float | Tensor) -> Tensor:
        """Flow time and frame rate as one vector, [B, C]."""
        if not torch.is_tensor(fps):
            fps = torch.full_like(t_B, fps)
        elif fps.ndim == 0:
            fps = fps.expand_as(t_B)
        # Open-Sora's clock runs the other way, 1000 = noise; nothing else here knows it.
        clock_BC: Tensor = self.t_embedder(1000 * (1 - t_B.float())) + self.fps_embedder(fps)
        return clock_BC

    def _modulate_clean_frames_twice(
        self, x_BTSC: Tensor, t_B: Tensor, fps: float | Tensor, frame_mask: Tensor
    ) -> Tensor:
        """Open-Sora v1.2's defect: clean frames reach the final layer's norm modulated already, as
        noisy ones are. Only their own output, which is no velocity of use, comes out otherwise."""
        table_2C = self.final_layer.scale_shift_table
        shift_BC, scale_BC = (table_2C + self._clock(t_B, fps).unsqueeze(-2)).unbind(-2)
        modulated_BTSC = adaln(x_BTSC, shift_BC, scale_BC, EPS)
        return torch.where(frame_mask.bool()[:, :, None, None], x_BTSC, modulated_BTSC)

    def _initialise(self) -> None:
        """As Open-Sora: temporal blocks and text start as no-ops, and so does the output.

        Where a weight is zero its bias is too: a random bias there would disturb a tower whose
        other weights were loaded.
        """
        for module in self.modules():
            if isinstance(module, (Mlp, SelfAttention, CrossAttention)):
                for linear in module.children():
                    if isinstance(linear, nn.Linear):
                        nn.init.xavier_uniform_(linear.weight)
                        nn.init.zeros_(linear.bias)
        embedder = self.y_embedder.y_proj
        for linear in (cast(nn.Linear, self.t_block[1]), embedder.fc1, embedder.fc2):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        silent = [block.cross_attn.proj for block in self._blocks()]
        for block in self._blocks()[1::2]:
            silent += [block.attn.proj, block.mlp.fc2]
        for linear in (*silent, self.final_layer.linear):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)


class Block(nn.Module):
    """Self-attention, cross-attention to the text, MLP; within a frame or along time."""

    def __init__(self, config: VideoTowerConfig, is_temporal: bool) -> None:
        super().__init__()
        C = config.hidden_size
        self.scale_shift_table = nn.Parameter(torch.randn(6, C) / C**0.5)
        self.attn = SelfAttention(C, config.num_heads, is_temporal, config.qk_norm)
        self.cross_attn = CrossAttention(C, config.num_heads)
        self.mlp = Mlp(C, int(C * config.mlp_ratio))

    def forward(
        self,
        x_BTSC: Tensor,
        modulation: tuple[Tensor, ...],
        text: KeysValues,
        text_term: Tensor | None,
        normed_BTSC: Tensor | None = None,
        following: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """x [B, T, S, C] -> the same, and what the next block begins with.

        Args:
            x_BTSC: the residual stream.
            modulation: shift, scale and gate of the attention, then of the MLP.
            text, text_term: keys and values of the captions, and the mask's term.
            normed_BTSC: x normed and modulated already, by the block before.
            following: shift and scale of the next block's attention; None = it norms for itself.
        """
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation
        if normed_BTSC is None:
            normed_BTSC = adaln(x_BTSC, shift_attn, scale_attn, EPS)
        x_BTSC = gate_residual(x_BTSC, self.attn(normed_BTSC), gate_attn)
        y_BTSC = self.cross_attn(x_BTSC, text, text_term)
        x_BTSC, y_BTSC = gate_residual_adaln(x_BTSC, y_BTSC, None, shift_mlp, scale_mlp, EPS)
        y_BTSC = self.mlp(y_BTSC)
        if following is None:
            return gate_residual(x_BTSC, y_BTSC, gate_mlp), None
        return gate_residual_adaln(x_BTSC, y_BTSC, gate_mlp, *following, EPS)
