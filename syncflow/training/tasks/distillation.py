"""Guidance distilled into the video tower (arXiv 2210.03142, at one weight and interval).

A guided step passes each clip through the tower twice, with its caption and with the null caption.
A student that is trained towards the guided velocity itself needs one pass.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from syncflow.clip import ClipSpec
from syncflow.models.ddit import Condition, DDiT
from syncflow.models.text import tokens
from syncflow.training.checkpoints import weights
from syncflow.training.distributed import sequence
from syncflow.training.distributed.groups import Group
from syncflow.training.settings import DistillationConfig, FlowTask


class Teacher:
    """A frozen video tower that says what a student's velocity is to be.

    Args:
        config: whose weights, and the guidance.
        student: before its first step; without ``config.teacher`` the teacher is what it is now.
        null_caption: what stands in for a dropped caption (``SamplingConfig``).
        group: the processes that the student is trained in.
        dtype: of its weights; the student's when not given.
    """

    def __init__(
        self,
        config: DistillationConfig,
        student: DDiT,
        null_caption: str,
        group: Group,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.config, self.null_caption = config, null_caption
        self.ddit = copy.deepcopy(student)
        if config.teacher is not None:
            where = f"distillation.teacher ({config.teacher})"
            weights.fill(self.ddit, weights.load(config.teacher), where)
        self.ddit.eval().requires_grad_(False)
        # Nothing but the picture is asked of it, and the rest takes no memory.
        for name, part in self.ddit.named_children():
            part.to(group.device if name in ("video_tower", "event_embedder") else "meta")
        sequence.share(self.ddit.to(dtype), group)

    @torch.no_grad()
    def read(
        self, text: Tensor, mask: Tensor, drop_B: Tensor, spec: ClipSpec, events: Tensor | None
    ) -> Condition:
        """Once per batch, of 2B rows: the captions [B, L, E] as the student has them, with its null
        caption for ``drop_B``, and then null captions; ``events`` as in ``DDiT.read``, said of the
        captions alone."""
        null, null_mask = self.ddit.video_tower.unguided_text(mask, self.null_caption)
        # The teacher's null caption, since the student's moves as it learns.
        text, mask = tokens.replace(text, mask, null, null_mask, drop_B)
        length = max(text.shape[1], null.shape[1])
        both = torch.cat([tokens.pad(t.float(), length) for t in (text, null)])
        masks = torch.cat([tokens.pad(m, length) for m in (mask, null_mask)])
        if events is not None:
            events = torch.cat([events, torch.full_like(events, torch.nan)])
        return Condition(self.ddit.read(both, masks, spec, events), None, spec)

    @torch.no_grad()
    def velocity(
        self,
        of_data: Tensor,
        x_t: Tensor,
        t_B: Tensor,
        lesson: Condition,
        frame_mask: Tensor | None,
    ) -> Tensor:
        """The velocity [B, C, T, H, W] to learn, where the data's own is ``of_data``: the teacher's
        with guidance, as far as ``config.data`` leaves it the word. Guidance itself is always the
        teacher's: the data have none."""
        config = self.config
        if frame_mask is not None:
            frame_mask = torch.cat([frame_mask] * 2)
        both, _ = self.ddit.video_velocity(
            torch.cat([x_t] * 2), torch.cat([t_B] * 2), lesson, frame_mask
        )
        captioned, null = both.chunk(2)
        # Where the caption is dropped both are the same, and nothing is led away.
        inside = (config.guidance_start <= t_B) & (t_B < config.guidance_end)
        led = (config.guidance - 1) * inside[:, None, None, None, None]
        return torch.lerp(captioned, of_data, config.data) + led * (captioned - null)


def check(config: FlowTask, statistics: Mapping[str, list[float]]) -> None:
    """Raises ValueError where the teacher knows other latents than those that are trained on."""
    assert config.distillation is not None
    key = "distillation.teacher" if config.distillation.teacher else "init"
    where = config.distillation.teacher or config.init or config.init_video
    known = weights.statistics(where) if where else None
    for name in ("video_mean", "video_std"):
        theirs, ours = (known or {}).get(name), statistics[name]
        if theirs is not None and not np.allclose(theirs, ours, rtol=1e-3, atol=1e-4):
            raise ValueError(
                f"the teacher ({key}: {where}) was trained on latents of other statistics "
                f"({name} {_shown(theirs)}, here {_shown(ours)}); start from its weights with "
                'statistics "init"'
            )


def _shown(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.3g}' for value in values[:4])}{', ...' * (len(values) > 4)}]"
