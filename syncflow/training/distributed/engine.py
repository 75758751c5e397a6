"""What turns a loss into a step: one process or replicas of it, or DeepSpeed's ZeRO 1 to 3.

Both engines do the same arithmetic and speak the same state: tensors by parameter name
(``model/x``, ``ema/x``, ``exp_avg/x`` ...), so a checkpoint of one is read by the other, and by any
number of processes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from syncflow.json_types import JsonObject
from syncflow.training.distributed import deepspeed_setup
from syncflow.training.distributed.critic import Adversarial
from syncflow.training.distributed.groups import Group, meet_alone
from syncflow.training.distributed.replicas import Replicas, State, Told, Trained
from syncflow.training.optim import optimizer, power_ema
from syncflow.training.optim.ema import decay_at
from syncflow.training.settings import LoopConfig


class _ZeroParameter(Protocol):
    """A weight as ZeRO-3 has changed it: this process's share, and whether the rest is here."""

    ds_tensor: Tensor
    ds_status: Enum
    ds_persist: bool

    def partition(self) -> None:
        """Lets go of all but this process's share."""

    def all_gather(self, parameters: list[_ZeroParameter]) -> None:
        """Puts these together, in every process."""


def build(task: Trained, config: LoopConfig, group: Group) -> Replicas | Adversarial:
    """The engine that a loop's config asks for; it moves the task's module to the device."""
    engine = (Replicas if config.deepspeed is None else ZeroEngine)(task, config, group)
    return engine if task.critic is None else Adversarial(engine)


class _Objective(nn.Module):
    """The loss as a module's forward, which is what DeepSpeed wraps."""

    def __init__(self, task: Trained) -> None:
        super().__init__()
        self.module, self._task = task.module, [task]

    def forward(self, what: str, *arguments: object) -> object:
        return getattr(self._task[0], what)(*arguments)


class ZeroEngine(Replicas):
    """Optimizer state (ZeRO 1), gradients (2) and weights (3) shared out by DeepSpeed."""

    def _prepare(self) -> None:
        if self.config.optimizer != "adamw":
            raise ValueError(
                f"optimizer {self.config.optimizer!r} needs whole matrices, which ZeRO splits; "
                "use adamw, or leave out the deepspeed block"
            )
        block = self.config.deepspeed
        assert block is not None  # `build` has looked
        deepspeed = deepspeed_setup.load()
        group = self.group
        meet_alone()
        deepspeed.init_distributed(dist_init_required=False, verbose=False)
        if group.world > 1:
            deepspeed_setup.adjust(group)
        # DeepSpeed casts frozen weights too; what is not trained must come out as it went in.
        trained = self._trained(self.module.state_dict())
        self._frozen = {
            k: v.detach().to("cpu", copy=True)
            for k, v in self.module.state_dict().items()
            if group.leads and k not in trained
        }
        # lr 0: a version of ZeRO-3 may make the optimizer's state by a step of its own.
        (adamw,) = optimizer.build(self.module, self.config.model_copy(update={"lr": 0.0}))
        self.engine, self.zero, _, _ = deepspeed.initialize(
            model=_Objective(self.task), optimizer=adamw, config=self._deepspeed_config(block)
        )
        self.stage: int = block["zero_optimization"]["stage"]
        self.shards: list[Tensor] = list(
            self.zero.fp32_partitioned_groups_flat
            if self.stage == 3
            else self.zero.single_partition_of_fp32_groups
        )
        self.decays = self._decays()
        self.averages = {kind: [s.detach().clone() for s in self.shards] for kind in self.decays}
        self._make_moments()
        self._set_updates(0)
        if self.config.max_spike:
            self._watch_norms()

    def _decays(self) -> dict[str, Callable[[int], float]]:
        """What each average keeps of itself in an update counted from 0, by its name in a state."""
        out: dict[str, Callable[[int], float]] = {}
        if self.config.ema:
            out["ema"] = partial(decay_at, self.config.ema)
        for index, gamma in enumerate(self._gammas()):
            out[f"power{index}"] = partial(_power_decay_at, gamma)
        return out

    def _watch_norms(self) -> None:
        """A spike's norm is given as one that is not valid, and ZeRO leaves out the step: it tells
        a norm only after the step, when it is too late to ask."""
        name = "_get_norm_groups" if self.stage == 3 else "scaled_global_norm"
        plain = getattr(self.zero, name)

        def guarded(*arguments: object, **options: object) -> object:
            found = plain(*arguments, **options)
            each = found if self.stage == 3 else [found]
            norms = torch.stack([torch.as_tensor(norm).float() for norm in each])
            # DeepSpeed's -1 stands for one that was not finite.
            if bool((norms < 0).any()) or self.guard.allows(norms.norm().item()):
                return found
            return [torch.full_like(n, -1) for n in found] if self.stage == 3 else -1.0

        setattr(self.zero, name, guarded)

    def _deepspeed_config(self, block: JsonObject) -> JsonObject:
        """The user's block with what the loop's config says already."""
        config = self.config
        block = {
            **block,
            "train_micro_batch_size_per_gpu": config.batch_size // self.group.replicas,
            "gradient_accumulation_steps": config.accumulate,
            "gradient_clipping": config.clip,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "bf16": {"enabled": config.precision == "bf16", "check_grad_overflow": True},
        }
        block.setdefault("steps_per_print", sys.maxsize)
        return block

    def _make_moments(self) -> None:
        """ZeRO makes them in the first step, too late to be restored or saved before it; 1 and 2
        then find only those of the first group of parameters again."""
        for shard in self.shards:
            self.zero.optimizer.state[shard] = {
                "step": torch.zeros((), device=shard.device),
                "exp_avg": torch.zeros_like(shard),
                "exp_avg_sq": torch.zeros_like(shard),
            }
        if self.stage < 3:
            self.zero._lazy_init_hp_params_optimizer_state()

    def _set_updates(self, updates: int) -> None:
        for values in self.zero.optimizer.state.values():
            values["step"] = torch.full_like(values["step"], float(updates))

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext()  # the weights themselves are bfloat16

    def loss(self, batch: object, source: object) -> tuple[Tensor, Told]:
        found: tuple[Tensor, Told] = self.engine("loss", batch, source)
        return found

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()  # only counts

    def synchronise(self) -> None:
        """DeepSpeed does, during the backward pass."""

    def step(self, lr: float, number: int, loss: Tensor) -> float | None:
        for groups in self.zero.optimizer.param_groups:
            groups["lr"] = lr
        self.engine.step()
        norm = float(self.engine.get_global_grad_norm() or 0.0)
        if self.zero.overflow or not math.isfinite(norm):
            return None
        for kind, average in self.averages.items():
            torch._foreach_lerp_(average, self.shards, 1 - self.decays[kind](number))
        return norm

    @contextmanager
    def _averaged(self, kind: str = "ema", refresh: bool = False) -> Iterator[None]:
        """The master weights are those of an average, where it is kept, for a while; ``refresh``
        the model's own too."""
        average = self.averages.get(kind, [])
        if not average:
            yield
            return
        self._swap(average)
        if refresh:
            self._refresh()
        try:
            yield
        finally:
            self._swap(average)
            if refresh:
                self._refresh()

    def _swap(self, averages: list[Tensor]) -> None:
        for shard, average in zip(self.shards, averages, strict=True):
            kept = shard.detach().clone()
            shard.data.copy_(average)
            average.copy_(kept)

    def power(self, index: int) -> dict[str, Tensor]:
        return self._whole(f"power{index}")

    def _whole(self, kind: str) -> dict[str, Tensor]:
        """An average, or the weights where it is not kept, whole in the process that leads."""
        from deepspeed.utils import safe_get_full_fp32_param

        out = {}
        with self._averaged(kind):
            for name, parameter in self.named.items():
                value = safe_get_full_fp32_param(parameter)
                if self.group.leads:
                    out[name] = value.detach().to("cpu", copy=True)
        return out

    def _refresh(self) -> None:
        """The model's weights from the master weights."""
        if self.stage < 3:
            self.zero.update_lp_params()
            return
        from deepspeed.utils import safe_get_local_fp32_param

        shared = [cast(_ZeroParameter, parameter) for parameter in self.named.values()]
        for parameter in shared:
            parameter.ds_tensor.data.copy_(safe_get_local_fp32_param(parameter).view(-1))
        # Those that are whole, and only those: before the first pass none is, and the first
        # backward pass would miss the hooks of those that a forward pass has not put together.
        whole = [p for p in shared if p.ds_persist and _is_whole(p)]
        for parameter in whole:
            parameter.partition()
        if whole:
            whole[0].all_gather(whole)

    @torch.no_grad()
    def evaluate(self, name: str) -> object:
        with self._averaged(refresh=True):
            self.engine.eval()
            try:
                return self.engine(name, self.module)
            finally:
                self.engine.train()

    def state(self) -> dict[str, Tensor]:
        """Every parameter is put together and kept by one process, in turn."""
        from deepspeed.utils import safe_get_full_fp32_param as weight
        from deepspeed.utils import safe_get_full_optimizer_state as moment

        out: dict[str, Tensor] = {}

        def keep(kind: str, index: int, name: str, value: Tensor) -> None:
            if index % self.group.world == self.group.rank:
                out[f"{kind}/{name}"] = value.detach().to("cpu", copy=True)

        for index, (name, parameter) in enumerate(self.named.items()):
            keep("model", index, name, weight(parameter))
            for kind in ("exp_avg", "exp_avg_sq"):
                keep(kind, index, name, moment(parameter, kind))
        for kind in self.averages:
            with self._averaged(kind):
                for index, (name, parameter) in enumerate(self.named.items()):
                    keep(kind, index, name, weight(parameter))
        if self.group.leads:
            out |= {f"model/{k}": v.detach().cpu().clone() for k, v in self.module.named_buffers()}
            out |= self.guard.state()
        return out

    def restore(self, state: State, updates: int) -> None:
        for kind, averages in self.averages.items():
            for name, parameter in self.named.items():
                self._put(parameter, state.get(f"{kind}/{name}", state[f"model/{name}"]))
            for average, shard in zip(averages, self.shards, strict=True):
                average.copy_(shard)
        for name, parameter in self.named.items():
            self._put(parameter, state[f"model/{name}"])
            for kind in ("exp_avg", "exp_avg_sq"):
                if f"{kind}/{name}" in state:
                    self._put(parameter, state[f"{kind}/{name}"], kind)
        self._set_updates(updates)
        self.guard.restore(state)
        self._refresh()

    def _put(self, parameter: nn.Parameter, value: Tensor, kind: str | None = None) -> None:
        """Sets a master weight, or one of its moments, from the whole tensor."""
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        key = () if kind is None else (kind,)
        if self.stage < 3:
            put = safe_set_full_optimizer_state if kind else safe_set_full_fp32_param
            put(parameter, value.float(), *key)
            return
        put = safe_set_local_optimizer_state if kind else safe_set_local_fp32_param
        size = cast(_ZeroParameter, parameter).ds_tensor.numel()
        flat = nn.functional.pad(value.float().flatten(), (0, size * self.group.world))
        put(parameter, flat[self.group.rank * size :][:size], *key)

    def frozen(self) -> dict[str, Tensor]:
        return self._frozen

    def weights(self) -> dict[str, Tensor]:
        out = {**self._frozen, **self._whole("ema")}
        if self.group.leads:
            out |= {k: v.detach().cpu() for k, v in self.module.named_buffers()}
        return out if self.group.leads else {}


def _power_decay_at(gamma: float, number: int) -> float:
    return power_ema.decay_at(gamma, number + 1)  # which counts updates from 1


def _is_whole(parameter: _ZeroParameter) -> bool:
    """Whether ZeRO-3 has all of a parameter here."""
    return parameter.ds_status.name == "AVAILABLE"
