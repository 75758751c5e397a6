"""The engine without DeepSpeed: one process, or replicas of it that average their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from syncflow.training.distributed.groups import Group
from syncflow.training.distributed.spikes import SpikeGuard
from syncflow.training.optim import optimizer, power_ema, precision
from syncflow.training.optim.ema import Average
from syncflow.training.settings import AdversarialConfig, LoopConfig

State = Mapping[str, Tensor]
_BUCKET = 32 * 1024 * 1024  # numbers in one message of gradients


Told = dict[str, Tensor | float]


class Trained(Protocol):
    """What an engine asks of a task (``tasks.Task``); it hands the batch and the randomness on."""

    module: nn.Module
    critic: nn.Module | None
    critic_settings: AdversarialConfig | None

    @property
    def loss(self) -> Callable[..., tuple[Tensor, Told]]:
        """The scalar to minimise and what is told beside it."""

    def judge(self) -> Tensor | None:
        """The critic's own loss for what the last ``loss`` saw."""


class Replicas:
    """Full weights in every process; replicas average their gradients."""

    def __init__(self, task: Trained, config: LoopConfig, group: Group) -> None:
        chosen = precision.chosen(config, group.device)
        self.config = config.model_copy(update={"precision": chosen})
        self.task, self.group = task, group
        self.module: nn.Module = task.module.to(group.device).train()
        self.named = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        self.guard = SpikeGuard(config.max_spike)
        self._prepare()

    def _prepare(self) -> None:
        if self.group.world > 1:  # replicas start as one, whatever they were made from
            for value in self.module.state_dict().values():
                torch.distributed.broadcast(value, 0)
        self.optimizers = optimizer.build(self.module, self.config)
        self.average = Average(self.module, self.config.ema)
        self.powers = [self._copy() for _ in self._gammas()]

    def _gammas(self) -> list[float]:
        """Of the averages that snapshots are written of."""
        lengths = self.config.average_lengths if self.config.average_every else ()
        return [power_ema.gamma_of(length) for length in lengths]

    def _copy(self) -> dict[str, Tensor]:
        return {n: p.detach().clone().float() for n, p in self.named.items()}

    def _update_powers(self, number: int) -> None:
        for gamma, average in zip(self._gammas(), self.powers, strict=True):
            own = [self.named[name].float() for name in average]
            weight = 1 - power_ema.decay_at(gamma, number + 1)
            torch._foreach_lerp_(list(average.values()), own, weight)

    def power(self, index: int) -> dict[str, Tensor]:
        """One of those averages, whole, in the process that leads."""
        return self.powers[index] if self.group.leads else {}

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the forward pass, around it."""
        if self.config.precision == "bf16":
            return torch.autocast(self.group.device.type, torch.bfloat16)
        return nullcontext()

    def loss(self, batch: object, source: object) -> tuple[Tensor, Told]:
        """The task's loss of a batch, a scalar, and what is told beside it."""
        with self.autocast():
            return self.task.loss(batch, source)

    def backward(self, loss: Tensor) -> None:
        """Adds a batch's share to the gradients: one of ``accumulate``."""
        (loss / self.config.accumulate).backward()

    def synchronise(self) -> None:
        """Averages the gradients of all replicas."""
        if self.group.world == 1:
            return
        bucket: list[Tensor] = []
        for parameter in self.named.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(grad.numel() for grad in bucket) > _BUCKET:
                self._reduce(bucket)
                bucket = []
        if bucket:
            self._reduce(bucket)

    def _reduce(self, grads: list[Tensor]) -> None:
        with self.group.watch.phase("communication"):
            flat = torch.cat([grad.flatten() for grad in grads]) / self.group.world
            torch.distributed.all_reduce(flat)
            pieces = flat.split([grad.numel() for grad in grads])
            torch._foreach_copy_(grads, [p.view_as(g) for p, g in zip(pieces, grads, strict=True)])

    def step(self, lr: float, number: int, loss: Tensor) -> float | None:
        """One update, the ``number``-th from 0; its gradient norm, or None where something was not
        finite, or a spike, and nothing was changed."""
        most = self.config.clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(list(self.named.values()), most)
        finite = bool(torch.isfinite(norm)) and bool(torch.isfinite(loss))
        finite = finite and self.guard.allows(norm.item())
        if self.group.world > 1:
            finite = not self.group.any(not finite)[0]
        for each in self.optimizers:
            for group in each.param_groups:
                group["lr"] = lr
            if finite:
                each.step()
            each.zero_grad(set_to_none=True)
        if not finite:
            return None
        self.average.update(self.module, number)
        with torch.no_grad():
            self._update_powers(number)
        return norm.item()

    @torch.no_grad()
    def evaluate(self, name: str) -> object:
        """``task.<name>(module)`` with the averaged weights."""
        own = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.average.of(self.module))
        self.module.eval()
        try:
            return getattr(self.task, name)(self.module)
        finally:
            self.module.load_state_dict(own)
            self.module.train()

    def state(self) -> dict[str, Tensor]:
        """This process's share of everything that must survive, on the CPU and its own copy."""
        if not self.group.leads:
            return {}
        out = {f"model/{k}": v for k, v in self._trained(self.module.state_dict()).items()}
        out |= {f"ema/{k}": v for k, v in self._trained(self.average.weights).items()}
        for index, average in enumerate(self.powers):
            out |= {f"power{index}/{k}": v for k, v in average.items()}
        for each in self.optimizers:
            for parameter, values in each.state.items():
                name = self._name_of(parameter)
                out |= {f"{k}/{name}": values[k] for k in optimizer.STATES if k in values}
        copies = {name: value.detach().to("cpu", copy=True) for name, value in out.items()}
        return {**copies, **self.guard.state()}

    def restore(self, state: State, updates: int) -> None:
        """Takes over a state after that many updates."""
        own = self.module.state_dict()
        own |= {k: state[f"model/{k}"] for k in own if f"model/{k}" in state}
        self.module.load_state_dict(own)
        self.guard.restore(state)
        for name, value in self.average.weights.items():
            value.copy_(state.get(f"ema/{name}", own[name]))
        for index, average in enumerate(self.powers):
            for name, value in average.items():
                value.copy_(state.get(f"power{index}/{name}", own[name]))
        for each in self.optimizers:
            for group in each.param_groups:
                for parameter in group["params"]:
                    name = self._name_of(parameter)
                    kinds = [k for k in optimizer.STATES if f"{k}/{name}" in state]
                    values = {k: state[f"{k}/{name}"].to(parameter, copy=True) for k in kinds}
                    if "exp_avg" in values:
                        device = parameter.device if group.get("fused") else None
                        values["step"] = torch.tensor(float(updates), device=device)
                    if values:
                        each.state[parameter] = values

    def frozen(self) -> dict[str, Tensor]:
        """What is not trained, in full precision, in the process that leads."""
        state = self.module.state_dict() if self.group.leads else {}
        return {k: v for k, v in state.items() if k not in self._trained(state)}

    def weights(self) -> dict[str, Tensor]:
        """The final weights, averaged, in the process that leads."""
        return self.average.of(self.module) if self.group.leads else {}

    def _trained(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        parameters = {name for name, _ in self.module.named_parameters()}
        return {k: v for k, v in state.items() if k in self.named or k not in parameters}

    def _name_of(self, parameter: Tensor) -> str:
        if not hasattr(self, "_names"):
            self._names = {id(p): n for n, p in self.named.items()}
        return self._names[id(parameter)]
