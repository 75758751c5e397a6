"""The schema of the loop that every task shares."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from syncflow.config import Config

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

_Length = Annotated[float, Field(ge=0.005, le=0.28)]
_Changeable = Literal["lr", "warmup", "decay", "weight_decay", "clip", "betas", "max_spike"]


class LoopConfig(Config):
    """The loop that every task shares.

    ``batch_size`` is that of all processes together, in one pass; an update sees ``accumulate`` of
    them. The learning rate warms up over ``warmup`` steps, stays, and falls to zero over the last
    ``decay`` share. ``optimizer`` "muon" trains the matrices inside the network with Muon and the
    rest with AdamW. ``clip``: the largest norm of a gradient, 0 = any. ``ema`` 0 keeps no average.
    ``average_every`` (0: never) steps two averages of the lengths ``average_lengths``, relative to
    the run's, are written in float16, from which one of any length can be made (``power_ema.py``).
    ``max_spike``: a step whose gradient norm is more than so many times the median of the last 101
    is left out, and counts as one that is not finite; 0 = none is. ``changed``: the settings of the
    optimizer that a resumed run may have otherwise than its checkpoint.
    ``randomness`` "sample" numbers the draws by clip, so that they do not depend on how a batch is
    shared; several processes need it.

    Checkpoints come every ``checkpoint_minutes`` and, where it is set, every ``checkpoint_every``
    steps; the newest ``keep_last`` stay and those of every ``keep_every`` steps. ``prefetch``
    batches are made ahead. ``recompute``: see ``recompute.py``. ``wandb``: a project of Weights &
    Biases. ``peak_tflops``: of one device, for MFU where its name says nothing. ``deepspeed``:
    DeepSpeed's own block. ``sequence_parallel``: so many processes share every sample.
    """

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    lr: float = 1e-3
    warmup: int = 50
    decay: float = Field(0.4, ge=0, le=1)
    weight_decay: float = 0.01
    clip: float = Field(1.0, ge=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.98)
    ema: float = 0.998
    precision: Literal["bf16", "fp32"] = "bf16"
    accumulate: int = Field(1, gt=0)
    seed: int = 0
    randomness: Literal["batch", "sample"] = "batch"
    threads: int | None = None
    prefetch: int = Field(0, ge=0)
    recompute: Literal["none", "blocks", "selective"] = "none"
    checkpoint_minutes: float = 2.0
    checkpoint_every: int = Field(0, ge=0)
    keep_last: int = Field(2, gt=0)
    keep_every: int = Field(0, ge=0)
    log_every: int = 20
    validate_every: int = 500
    max_nonfinite: int = 20
    average_every: int = Field(0, ge=0)
    average_lengths: tuple[_Length, _Length] = (0.05, 0.1)
    max_spike: float = Field(0.0, ge=0, allow_inf_nan=False)
    changed: list[_Changeable] = []
    wandb: str | None = None
    peak_tflops: float | None = Field(None, gt=0)
    sequence_parallel: int = Field(1, gt=0)
    deepspeed: dict[str, Any] | None = None

    @field_validator("deepspeed")
    @classmethod
    def _check_deepspeed(cls, block: dict[str, Any] | None) -> dict[str, Any] | None:
        if block is None:
            return None
        for key in block:
            if key in _LOOPS_OWN:
                raise ValueError(f"{key!r} is set by {_LOOPS_OWN[key]}, not in the deepspeed block")
            if key not in _DEEPSPEED_KEYS:
                near = difflib.get_close_matches(key, _DEEPSPEED_KEYS, n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown key {key!r} in the deepspeed block; nearest is {near!r}")
        stage = block.get("zero_optimization", {}).get("stage")
        if stage not in (1, 2, 3):
            raise ValueError(f"zero_optimization.stage must be 1, 2 or 3, got {stage!r}")
        if stage == 1 and block.get("data_types", {}).get("grad_accum_dtype") == "fp32":
            raise ValueError(
                "data_types.grad_accum_dtype 'fp32' at stage 1 is another optimizer of "
                "DeepSpeed's, whose state cannot be saved here; use stage 2, which sends as much"
            )
        return block
