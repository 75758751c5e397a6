"""The processes that train together: who am I, and the few things that all must agree on."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from syncflow.ranges import Whole
from syncflow.training.distributed.stopwatch import Stopwatch

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


_SLURM = {
    "RANK": "SLURM_PROCID",
    "WORLD_SIZE": "SLURM_STEP_NUM_TASKS",
    "LOCAL_RANK": "SLURM_LOCALID",
}


#: Processes.
_MOST = 1_000_000


@dataclass(frozen=True)
class Group:
    """``world`` processes, of which this is number ``rank``, on ``device``.

    ``sequence`` neighbours share every sample between them (``sequence.py``) and talk through
    ``neighbours``, a process group. ``watch`` times the steps; no message takes longer than
    ``timeout``. ``channel`` is the process group of all, where it is not PyTorch's default one.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")
    sequence: int = 1
    neighbours: ProcessGroup | None = None
    timeout: timedelta | None = None
    watch: Stopwatch = field(default_factory=Stopwatch, compare=False)
    channel: ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes, prints and keeps the clock."""
        return self.rank == 0

    @property
    def replicas(self) -> int:
        """How many share a batch: processes, or groups of neighbours."""
        return self.world // self.sequence

    def of_neighbours(self, size: int) -> Group:
        """The same processes, ``size`` neighbours to a sample. All call it, in the same order.

        Raises:
            ValueError: their number is no multiple of ``size``.
        """
        if size == self.sequence:
            return self
        if self.world % size:
            raise ValueError(
                f"loop.sequence_parallel is {size}, and {self.world} "
                f"{'process is' if self.world == 1 else 'processes are'} not a multiple of it"
            )
        firsts = range(0, self.world, size)
        ranks = [list(range(first, first + size)) for first in firsts]
        groups = [torch.distributed.new_group(each, timeout=self.timeout) for each in ranks]
        return replace(
            self, sequence=size, neighbours=cast("ProcessGroup", groups[self.rank // size])
        )

    def aside(self) -> Group:
        """The same processes on their CPUs, in a process group of its own: another thread may talk
        there while this one trains. All call it, in the same order."""
        channel = None
        if self.world > 1:
            made = torch.distributed.new_group(backend="gloo", timeout=self.timeout)
            channel = cast("ProcessGroup", made)
        return replace(self, device=torch.device("cpu"), watch=Stopwatch(), channel=channel)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over all processes."""
        if self.world > 1:
            value = value.detach().clone()
            self.watch.communicating(torch.distributed.all_reduce)(value, group=self.channel)
        return value

    def first(self, value: Tensor) -> Tensor:
        """The leading process's ``value``, for all."""
        return self.sum(value if self.leads else torch.zeros_like(value))

    def gather(self, value: Tensor) -> Tensor:
        """Everybody's rows, in the order of their ranks; neighbours have the same, once."""
        if self.replicas == 1:
            return value
        parts = [torch.empty_like(value) for _ in range(self.world)]
        all_gather = self.watch.communicating(torch.distributed.all_gather)
        all_gather(parts, value.contiguous(), group=self.channel)
        return torch.cat(parts[:: self.sequence])

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether any process raised it."""
        if self.world == 1:
            return list(flags)
        raised = torch.tensor(flags, dtype=torch.float32, device=self.device)
        return self.sum(raised).gt(0).tolist()

    def barrier(self) -> None:
        if self.world > 1:
            self.any(True)

    def rows(self, total: int) -> slice:
        """This process's share of a batch of ``total`` rows.

        Raises:
            ValueError: the processes cannot share it evenly.
        """
        if total % self.replicas:
            sharing = "processes" if self.sequence == 1 else f"groups of {self.sequence} processes"
            raise ValueError(
                f"batch_size {total} cannot be shared by {self.replicas} {sharing}; make it a "
                "multiple"
            )
        size, own = total // self.replicas, self.rank // self.sequence
        return slice(own * size, (own + 1) * size)


def environment() -> tuple[int, int, int]:
    """(rank, world, local rank) as torchrun, ``deepspeed`` or ``srun`` has set them.

    Raises:
        ValueError: only one of RANK and WORLD_SIZE is set, one of the three is no number that fits
            the others, or a world of several has no MASTER_ADDR.
    """
    rank, world, local = _ranks()
    if world > 1:
        _find_the_others(world)
    return rank, world, local


@dataclass(frozen=True)
class Share:
    """Part ``index`` of ``count``, for processes that share work and never talk; ``local`` is this
    one's number on its machine, where ``beside`` of them are (0: not known)."""

    index: int = 0
    count: int = 1
    local: int = 0
    beside: int = 0


def share() -> Share:
    """This process's share as torchrun, ``srun`` or a Slurm array has numbered it; all of it where
    nothing did.

    Raises:
        ValueError: the launcher's variables do not fit each other, or an array has gaps.
    """
    rank, world, local = _ranks()
    task, tasks = 0, 1
    if os.environ.get("SLURM_ARRAY_TASK_COUNT"):
        values = {
            name: _number(f"SLURM_ARRAY_TASK_{name}", text, Whole(0, 10**9))
            for name in ("COUNT", "ID", "MIN", "STEP")
            if (text := os.environ.get(f"SLURM_ARRAY_TASK_{name}", "")) or name in ("COUNT", "ID")
        }
        tasks = values["COUNT"]
        task = (values["ID"] - values.get("MIN", 0)) // max(1, values.get("STEP", 1))
        if not 0 <= task < tasks:
            raise ValueError(
                f"SLURM_ARRAY_TASK_ID is {values['ID']} of {tasks} tasks from "
                f"{values.get('MIN', 0)} on: number the array without gaps, as --array=0-7, or "
                "give --share"
            )
    beside = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE", "")
    return Share(
        task * world + rank, tasks * world, local, int(beside) if beside.isdecimal() else 0
    )


def _ranks() -> tuple[int, int, int]:
    """(rank, world, local rank), as ``environment``."""
    found = {name: os.environ.get(name, "") for name in _SLURM}
    ranks = {"RANK": found["RANK"], "WORLD_SIZE": found["WORLD_SIZE"]}
    names = dict(zip(_SLURM, _SLURM, strict=True))
    if any(ranks.values()):
        for name, text in ranks.items():
            if not text:
                (other,) = ranks.keys() - {name}
                raise ValueError(
                    f"{other} is {found[other]!r} and {name} is not set: a launcher (torchrun, "
                    "deepspeed, srun) sets RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR; unset "
                    f"{other} to train in one process"
                )
    elif os.environ.get(_SLURM["WORLD_SIZE"]):  # a step of srun's; a batch script is one process
        names = _SLURM
        own = found["LOCAL_RANK"]
        found = {name: os.environ.get(slurm, "") for name, slurm in _SLURM.items()}
        found["LOCAL_RANK"] = own or found["LOCAL_RANK"]
    world = _number(names["WORLD_SIZE"], found["WORLD_SIZE"] or "1", Whole(1, _MOST))
    # Of one process there is number 0 alone, and every number is less than that of all.
    rank, local = (
        _number(names[name], found[name] or "0", Whole(0, _MOST)) for name in ("RANK", "LOCAL_RANK")
    )
    if rank >= world:
        raise ValueError(
            f"{names['RANK']} is {rank} and {names['WORLD_SIZE']} is {world}: ranks count from 0 "
            f"to {world - 1}"
        )
    if any(ranks.values()) and local > rank:
        raise ValueError(
            f"LOCAL_RANK is {local} and RANK is {rank}: the number within a machine is never the "
            "greater one"
        )
    return rank, world, local


def _find_the_others(world: int) -> None:
    os.environ.setdefault("MASTER_ADDR", os.environ.get("SLURM_LAUNCH_NODE_IPADDR", ""))
    job = os.environ.get("SLURM_JOB_ID", "0")
    number = int(job) if job.isdecimal() else 0
    os.environ.setdefault("MASTER_PORT", str(20000 + number % 20000))
    _number("MASTER_PORT", os.environ["MASTER_PORT"], Whole(1, 65_535))
    if not os.environ["MASTER_ADDR"]:
        raise ValueError(
            f"WORLD_SIZE is {world} and MASTER_ADDR is not set: start with torchrun, deepspeed or "
            "srun, or set it to the first node's address"
        )


def _number(name: str, text: str, within: Whole) -> int:
    try:
        return within.parse(text)
    except ValueError as error:
        reason = str(error).rpartition(", got ")[0]
        raise ValueError(f"{name} is {text!r}; it {reason}: the launcher sets it") from None


def device(asked: str | None, local: int) -> str | None:
    """``asked``, or the GPU of this number where a machine has several processes."""
    if asked not in (None, "cuda") or not torch.cuda.is_available():
        return asked
    return f"cuda:{local % torch.cuda.device_count()}"


def use(local: int) -> None:
    """Makes the GPU of this number the one that "cuda" is, where there are GPUs."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())


def join(device: str | None, minutes: float = 10.0) -> Group:
    """Meets the other processes, if a launcher started any.

    Args:
        device: "cpu", "cuda", "cuda:N", or None for a GPU where there is one.
        minutes: how long a message may take; a silent process ends the job after that.

    Raises:
        ValueError: there is no such device, or a launcher's variables make no sense.
    """
    rank, world, local = environment()
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(device)
        if where.type == "cuda" and where.index is None:
            where = torch.device("cuda", local)
        torch.empty(0, device=where)  # now, and not when the data are read
        if where.type == "cuda":
            torch.cuda.set_device(where)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used: {reason}") from error
    timeout = timedelta(minutes=minutes)
    if world > 1:
        torch.distributed.init_process_group(
            "nccl" if where.type == "cuda" else "gloo",
            rank=rank,
            world_size=world,
            timeout=timeout,
        )
    return Group(rank, world, where, timeout=timeout)


def meet_alone() -> None:
    """A process group of this process, for what needs one and finds none."""
    if torch.distributed.is_initialized():
        return
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    for name, value in alone.items():
        os.environ.setdefault(name, value)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(
        backend, store=torch.distributed.HashStore(), rank=0, world_size=1
    )


def leave() -> None:
    """Parts from the others, where there are any."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
