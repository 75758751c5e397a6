"""The schema of the loop that every task shares."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import StrictBool, field_validator, model_validator

from syncflow.config import Config
from syncflow.config.units import (
    Batch,
    Count,
    CountOrNone,
    Decay,
    Every,
    LearningRate,
    Minutes,
    Seed,
    Share,
    Steps,
)
from syncflow.json_types import JsonObject
from syncflow.ranges import Real, Whole

# What the loop decides and DeepSpeed's block therefore may not say, and where it is said.
_LOOPS_OWN = {
    "train_batch_size": "loop.batch_size and loop.accumulate",
    "train_micro_batch_size_per_gpu": "loop.batch_size",
    "gradient_accumulation_steps": "loop.accumulate",
    "gradient_clipping": "loop.clip",
    "optimizer": "loop.optimizer",
    "scheduler": "loop.lr, loop.warmup and loop.decay",
    "bf16": "loop.precision",
    "fp16": "loop.precision",
}
_DEEPSPEED_KEYS = {
    "zero_optimization", "communication_data_type", "prescale_gradients",
    "gradient_predivide_factor", "wall_clock_breakdown", "comms_logger", "flops_profiler", "aio",
    "memory_breakdown", "steps_per_print", "data_types", "activation_checkpointing",
}  # fmt: skip

_Length = Annotated[float, Real(0.005, 0.28)]
_Changeable = Literal[
    "lr", "warmup", "warmup_minutes", "decay", "weight_decay", "clip", "betas", "max_spike"
]


class LoopConfig(Config):
    """The loop that every task shares.

    A run lasts ``steps`` steps or ``minutes``; one of the two is given. ``batch_size`` is that of
    all processes together, in one pass; an update sees ``accumulate`` of them. The learning rate
    warms up over ``warmup`` steps, stays, and falls to zero over the last ``decay`` share, of the
    steps or of the time. By the clock it also warms up over ``warmup_minutes``. ``optimizer``
    "muon" trains the matrices inside the network with Muon and the rest with AdamW. ``precision``
    "auto" is bf16 where the device multiplies it itself, else fp32; every run says which in its
    first line. ``clip``: the largest norm of a gradient, 0 = any. ``ema`` 0 keeps no average.
    ``average_every`` steps two averages of the lengths ``average_lengths``, relative to the run's,
    are written in float16, from which one of any length can be made (``power_ema.py``).
    ``max_spike``: a step whose gradient norm is more than so many times the median of the last 101
    is left out, and counts as one that is not finite; 0 = none is. ``changed``: the settings of the
    optimizer that a resumed run may have otherwise than its checkpoint. ``randomness`` "sample"
    numbers the draws by clip, so that they do not depend on how a batch is shared; "device" does so
    where the model is, and on a GPU draws other numbers than on a CPU. Several processes need one
    of the two.

    Checkpoints come every ``checkpoint_minutes`` and every ``checkpoint_every`` steps; the newest
    ``keep_last`` stay and those of every ``keep_every`` steps. ``log_every``, ``validate_every``:
    steps; what has an ``_every`` of 0 is never done. ``prefetch`` batches are made ahead,
    by ``readers`` threads. ``recompute``: see ``recompute.py``; ``compile``: see ``compiling.py``.
    ``wandb``: a project of Weights & Biases. ``peak_tflops``: of one device, for MFU where its name
    says nothing. ``deepspeed``: DeepSpeed's own block.
    ``sequence_parallel``: so many processes share every sample.
    """

    batch_size: Batch
    steps: Steps | None = None
    minutes: Annotated[float, Real(0, 100_000, "minutes", above=True)] | None = None
    lr: LearningRate = 1e-3
    warmup: Annotated[int, Whole(0, 10**9, "steps")] = 50
    warmup_minutes: Minutes = 0.0
    decay: Share = 0.4
    weight_decay: Annotated[float, Real(0, 1000)] = 0.01
    clip: Annotated[float, Real(0, 1e9)] = 1.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    betas: tuple[Decay, Decay] = (0.9, 0.98)
    ema: Decay = 0.998
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    accumulate: Count = 1
    seed: Seed = 0
    randomness: Literal["batch", "sample", "device"] = "batch"
    threads: Annotated[int, Whole(1, 4096, "threads")] | None = None
    prefetch: Annotated[int, Whole(0, 1024, "batches")] = 0
    readers: Annotated[int, Whole(1, 256, "threads")] = 1
    recompute: Literal["none", "blocks", "selective"] = "none"
    compile: StrictBool = False
    checkpoint_minutes: Minutes = 2.0
    checkpoint_every: Every = 0
    keep_last: Annotated[int, Whole(1, 1_000_000, "checkpoints")] = 2
    keep_every: Every = 0
    log_every: Every = 20
    validate_every: Every = 500
    max_nonfinite: CountOrNone = 20
    average_every: Every = 0
    average_lengths: tuple[_Length, _Length] = (0.05, 0.1)
    max_spike: Annotated[float, Real(0, 1e6)] = 0.0
    changed: list[_Changeable] = []
    wandb: str | None = None
    peak_tflops: Annotated[float, Real(0, 1e6, "TFLOP/s", above=True)] | None = None
    sequence_parallel: Annotated[int, Whole(1, 1_000_000, "processes")] = 1
    deepspeed: JsonObject | None = None

    @field_validator("deepspeed")
    @classmethod
    def _check_deepspeed(cls, block: JsonObject | None) -> JsonObject | None:
        if block is None:
            return None
        for key in block:
            if key in _LOOPS_OWN:
                raise ValueError(f"{key!r} is set by {_LOOPS_OWN[key]}, not in the deepspeed block")
            if key not in _DEEPSPEED_KEYS:
                near = difflib.get_close_matches(key, _DEEPSPEED_KEYS, n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown key {key!r} in the deepspeed block; nearest is {near!r}")
        _check_numbers(block, "deepspeed")
        zero, types = block.get("zero_optimization"), block.get("data_types")
        stage = zero.get("stage") if isinstance(zero, dict) else None
        if isinstance(stage, bool) or stage not in (1, 2, 3):
            raise ValueError(f"zero_optimization.stage must be 1, 2 or 3, got {stage!r}")
        if stage == 1 and isinstance(types, dict) and types.get("grad_accum_dtype") == "fp32":
            raise ValueError(
                "data_types.grad_accum_dtype 'fp32' at stage 1 is another optimizer of "
                "DeepSpeed's, whose state cannot be saved here; use stage 2, which sends as much"
            )
        return block

    @model_validator(mode="after")
    def _check_length(self) -> LoopConfig:
        if (self.steps is None) == (self.minutes is None):
            given = "neither" if self.steps is None else "both"
            raise ValueError(f"give steps or minutes, how long the run lasts; there is {given}")
        if self.warmup_minutes and self.minutes is None:
            raise ValueError("warmup_minutes is for a run of minutes; with steps give warmup")
        if self.minutes is not None and self.warmup_minutes > self.minutes:
            raise ValueError(
                f"warmup_minutes {self.warmup_minutes:g} is longer than the run: minutes is "
                f"{self.minutes:g}"
            )
        return self

    @model_validator(mode="after")
    def _check_compile(self) -> LoopConfig:
        if not self.compile:
            return self
        if self.recompute == "selective":
            raise ValueError(
                "compile chooses itself what of a block is kept; set recompute to 'none' or "
                "'blocks'"
            )
        if self.sequence_parallel > 1:
            raise ValueError(
                "compile needs blocks that talk to nobody; leave out sequence_parallel"
            )
        if self.deepspeed and self.deepspeed["zero_optimization"]["stage"] == 3:
            raise ValueError(
                "compile needs whole weights, which ZeRO 3 puts together inside the blocks; set "
                "zero_optimization.stage to 1 or 2"
            )
        return self


_DEEPSPEEDS = Real(-1e15, 1e15)


def _check_numbers(values: object, name: str) -> None:
    """Raises ValueError, with the key, for a number in DeepSpeed's block that is none."""
    if isinstance(values, dict):
        for key, value in values.items():
            _check_numbers(value, f"{name}.{key}")
    elif isinstance(values, list):
        for index, value in enumerate(values):
            _check_numbers(value, f"{name}.{index}")
    elif isinstance(values, (int, float)) and not isinstance(values, bool):
        _DEEPSPEEDS.check(name, values)
