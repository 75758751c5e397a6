"""A critic beside an engine: a second module that is trained against the first.

It is whole in every process, whatever the engine shares out: a discriminator is small beside what
it judges. Its optimizer steps when the engine's does, and its state is saved with the engine's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from syncflow.training.distributed.replicas import Replicas, State

_TURNS = 6  # the stream of random numbers that says when the critic learns


class Adversarial:
    """``engine`` with the critic of its task; everything else is the engine's own.

    The critic learns from the pass in which it judged: both see each other as they were before the
    step.
    """

    def __init__(self, engine: Replicas) -> None:
        self.engine, self.task, self.group = engine, engine.task, engine.group
        critic, settings = self.task.critic, self.task.critic_settings
        assert critic is not None and settings is not None
        self.settings, self.critic = settings, critic.to(self.group.device).train()
        if self.group.world > 1:
            for value in self.critic.state_dict().values():
                torch.distributed.broadcast(value, 0)
        self.named = dict(self.critic.named_parameters())
        self._judged = False
        self.optimizer = torch.optim.AdamW(
            self.named.values(), lr=self.settings.lr, betas=self.settings.betas, weight_decay=0.0
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)
        verdict = self.task.judge()
        if verdict is not None:
            self._judged = True  # in all processes: it follows from the number of the pass
            (verdict / self.engine.config.accumulate).backward()

    def synchronise(self) -> None:
        self.engine.synchronise()
        if self.group.world > 1 and self._judged:
            for parameter in self.named.values():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            self.engine._reduce([p.grad for p in self.named.values() if p.grad is not None])

    def step(self, lr: float, number: int, loss: Tensor) -> float | None:
        """The engine's step, and the critic's where that was one."""
        judged, self._judged = self._judged, False
        limit = self.engine.config.clip or math.inf
        # Finite for all or for nobody: the gradients are averaged by now.
        norm = torch.nn.utils.clip_grad_norm_(list(self.named.values()), limit)
        done = self.engine.step(lr, number, loss)
        rate = lr / self.engine.config.lr if self.engine.config.lr else 1.0
        if judged and done is not None and torch.isfinite(norm) and self._has_turn(number):
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.lr * rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return done

    def _has_turn(self, number: int) -> bool:
        draw = np.random.default_rng([self.engine.config.seed, _TURNS, number]).random()
        return bool(draw < self.settings.update_share)

    def state(self) -> dict[str, Tensor]:
        out = self.engine.state()
        if not self.group.leads:
            return out
        found = {f"critic/{name}": value for name, value in self.critic.state_dict().items()}
        for name, parameter in self.named.items():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                found[f"critic_{kind}/{name}"] = value
        copies = {name: value.detach().to("cpu", copy=True) for name, value in found.items()}
        return {**out, **copies}

    def restore(self, state: State, updates: int) -> None:
        self.engine.restore(state, updates)
        own = self.critic.state_dict()
        self.critic.load_state_dict({k: state.get(f"critic/{k}", v) for k, v in own.items()})
        for name, parameter in self.named.items():
            if f"critic_step/{name}" in state:
                self.optimizer.state[parameter] = {
                    "step": state[f"critic_step/{name}"],
                    "exp_avg": state[f"critic_exp_avg/{name}"].to(parameter, copy=True),
                    "exp_avg_sq": state[f"critic_exp_avg_sq/{name}"].to(parameter, copy=True),
                }
