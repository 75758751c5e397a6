"""Optimizers of the loop: AdamW, or Muon on matrices with AdamW beside it."""

from __future__ import annotations

import torch
from torch import nn

from syncflow.models.codec import has_bfloat16
from syncflow.training.optim.muon import Float32Muon
from syncflow.training.settings import LoopConfig

#: What the optimizers keep of each parameter, besides the number of updates.
STATES = ("exp_avg", "exp_avg_sq", "momentum_buffer")


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Muon is for matrices inside the network; embedders, tables and heads stay with AdamW."""
    outside = ("embed", "table", "final", ".out.", "patch", "y_proj", "aligned_scale")
    return (
        parameter.ndim == 2
        and min(parameter.shape) >= 16
        and not any(part in name for part in outside)
    )


def build(module: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """The optimizers over every parameter that requires a gradient."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError("nothing to train: no parameter requires a gradient")
    muon = [p for name, p in named if config.optimizer == "muon" and is_matrix(name, p)]
    taken = {id(p) for p in muon}
    rest = [p for _, p in named if id(p) not in taken]
    optimizers: list[torch.optim.Optimizer] = []
    if muon:
        kind = torch.optim.Muon if has_bfloat16(muon[0].device) else Float32Muon
        optimizers.append(
            kind(
                muon,
                lr=config.lr,
                weight_decay=config.weight_decay,
                momentum=0.95,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    if rest:
        decayed = [p for p in rest if p.ndim >= 2]
        plain = [p for p in rest if p.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        optimizers.append(
            torch.optim.AdamW(
                [group for group in groups if group["params"]],
                lr=config.lr,
                betas=config.betas,
                fused=True,
            )
        )
    return optimizers


def learning_rate(step: int, config: LoopConfig, seconds: float = 0.0) -> float:
    """Warm-up, plateau, linear decay to zero; ``step`` counts from 0. ``seconds``: how long the run
    has lasted, for one by the clock."""
    if config.minutes is not None:
        minutes = seconds / 60
        rate = by_clock(config.lr, step, minutes / config.minutes, config.warmup, config.decay)
        return rate * (min(1.0, minutes / config.warmup_minutes) if config.warmup_minutes else 1.0)
    assert config.steps is not None  # the settings have one of the two
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    decay_steps = max(1, round(config.steps * config.decay))
    left = (config.steps - step) / decay_steps
    return config.lr * warm * min(1.0, left)


def by_clock(lr: float, step: int, progress: float, warm_up: int, decay: float) -> float:
    """Warm-up by steps, then a plateau, then linear to zero over the last ``decay`` share of the
    time; ``progress``: the share that has gone by."""
    left = max(0.0, 1 - progress) / max(decay, 1e-9)
    return lr * min(1.0, (step + 1) / max(1, warm_up)) * min(1.0, left)
