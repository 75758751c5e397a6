"""What a training config needs of a GPU: the repository's own steps on one that is not there.

Everything is per GPU. Without ZeRO the whole step is counted as it is written, optimizer and
average among it. With ZeRO the model's passes are counted in the bfloat16 that DeepSpeed runs them
in, and what DeepSpeed shares out is added by its formulae (docs/scaling.md).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_iter

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import random_latents  # noqa: E402
from benchmarks.counting import GIB, Counter, Part, outside, pretend, to  # noqa: E402
from benchmarks.fake_backward import backward  # noqa: E402
from syncflow import flow  # noqa: E402
from syncflow.clip import ClipSpec  # noqa: E402
from syncflow.config import DDiTConfig  # noqa: E402
from syncflow.generation.sampler import Captions, GuidedVelocity, advance  # noqa: E402
from syncflow.models.ddit import DDiT  # noqa: E402
from syncflow.ops import kept  # noqa: E402
from syncflow.training.datasets import buckets  # noqa: E402
from syncflow.training.distributed.groups import Group  # noqa: E402
from syncflow.training.distributed.replicas import Replicas  # noqa: E402
from syncflow.training.recompute import recompute  # noqa: E402
from syncflow.training.settings import LoopConfig  # noqa: E402
from syncflow.training.tasks import flow as flow_task  # noqa: E402
from syncflow.training.tasks import validation  # noqa: E402
from syncflow.training.tasks.randomness import SampleGenerators  # noqa: E402

CUDA = torch.device("cuda", 0)
MOMENTS = {"adamw": 2, "muon": 1}  # Muon's matrices have one; AdamW's share beside them has two


@dataclass(frozen=True)
class Footprint:
    """Bytes on one GPU. ``parts`` of training by what they are; ``step`` of one update."""

    train: float
    validate: float
    checkpoint: float
    parts: dict[str, float]
    step: Part
    by_module: dict[str, Part]
    transfers: dict[str, int]
    waits: dict[str, int]

    @property
    def reads(self) -> int:
        """How often the host waits for the device."""
        return sum(self.waits.values())


def on_a_gpu(loop: LoopConfig, **changes: Any) -> LoopConfig:
    """A loop's settings with the precision that "auto" is on the GPUs which are counted for."""
    precision = "bf16" if loop.precision == "auto" else loop.precision
    return loop.model_copy(update={"precision": precision, **changes})


def with_batch(config: Any, batch: int, **changes: Any) -> Any:
    """A flow config with that many clips a pass on this GPU."""
    loop = on_a_gpu(config.loop, batch_size=batch, prefetch=0)
    taught = config.distillation and config.distillation.model_copy(update={"teacher": None})
    kept = {
        "distillation": taught,
        "init": None,
        "init_video": None,
        "statistics": "data",
        "samples": None,
        "coupling": "none",
        "loop": loop,
    }
    return config.model_copy(update={**kept, **changes})


def training(config: Any, gpus: int = 1, validates: bool = True) -> Footprint:
    """One GPU's share of a run on ``gpus`` of them; ``config.loop.batch_size`` is that GPU's.

    Noise is paired with data where the config says so, but not here: no memory of the GPU's is
    needed for that.
    """
    if config.loop.precision == "auto":  # as on a GPU, whatever machine counts
        loop = config.loop.model_copy(update={"precision": "bf16"})
        config = config.model_copy(update={"loop": loop})
    block = config.loop.deepspeed
    stage = block["zero_optimization"]["stage"] if block else 0
    with _task(config) as (counter, task):
        if stage:
            return _with_zero(counter, task, config, stage, gpus, validates)
        return _plain(counter, task, config, validates)


def _plain(counter: Counter, task: Any, config: Any, validates: bool) -> Footprint:
    engine = Replicas(task, config.loop, task.group)
    weights = sum(_size(p) for p in task.module.parameters())
    average = counter.memory.live - weights
    for step in range(2):  # the second has the optimizer's state
        counter.reset()
        unwatch = counter.watch(task.module)
        activations = _pass(counter, task, engine, step)
        unwatch()
        engine.step(config.loop.lr, step, torch.zeros((), device=CUDA))
    train, rest = counter.memory.peak, counter.memory.live
    step_counts, parts_counted = counter.total, counter.parts
    transfers, waits = dict(counter.transfers), dict(counter.waits)
    trained = sum(_size(p) for p in engine.named.values())
    parts = {
        "parameters": weights,
        "gradients": trained,
        "average": average,
        "optimizer": rest - weights - average,
        "activations": activations,
    }
    validate = 0.0
    if validates:
        counter.reset()
        with _short(config):
            engine.evaluate("validate")
        validate = counter.memory.peak
    return Footprint(train, validate, rest, parts, step_counts, parts_counted, transfers, waits)


def _with_zero(
    counter: Counter, task: Any, config: Any, stage: int, gpus: int, validates: bool
) -> Footprint:
    to(task.module, torch.bfloat16)
    task.module.train()
    block = config.loop.deepspeed["zero_optimization"]
    trained = sum(p.numel() for p in task.module.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in task.module.parameters())
    largest = max(p.numel() for p in task.module.parameters())
    copies = 1 + MOMENTS[config.loop.optimizer] + bool(config.loop.ema)
    shards = 4 * copies * trained / gpus
    whole = config.loop.deepspeed.get("data_types", {}).get("grad_accum_dtype") == "fp32"
    gradients = (4 if whole else 2) * trained / (gpus if stage > 1 else 1)
    buckets = 2 * 2 * min(block.get("reduce_bucket_size", 5e8), trained)
    here = counter.memory.live
    weights = 2.0 * everything
    away = 0.0
    if stage == 3:
        live = min(block.get("stage3_max_live_parameters", 1e9), everything * (1 - 1 / gpus))
        weights = 2 * everything / gpus + 2 * live
        away = 2 * everything - weights

    counter.reset()
    unwatch = counter.watch(task.module)
    activations = _pass(counter, task, None, 0, keep=stage == 1)
    unwatch()
    passes = counter.memory.peak - away + (gradients if stage > 1 else 0)
    updating = weights + gradients + 4 * trained / gpus  # its gradients in float32
    step_counts, by_module = counter.total, counter.parts
    transfers, waits = dict(counter.transfers), dict(counter.waits)
    rest = here - away + shards + buckets
    parts = {
        "parameters": weights,
        "gradients": gradients,
        "optimizer": shards * (copies - 1) / copies,
        "average": shards / copies if config.loop.ema else 0.0,
        "activations": activations,
        "buckets": buckets,
    }
    for parameter in task.module.parameters():
        parameter.grad = None
    swap = 4 * trained / gpus if config.loop.ema else 0
    validate = 0.0
    if validates:
        counter.reset()
        with torch.no_grad(), _short(config):
            task.module.eval()
            task.validate(task.module)
        validate = counter.memory.peak - away + shards + buckets + swap
    return Footprint(
        max(passes, updating) + shards + buckets,
        validate,
        rest + swap + 4 * largest,
        parts,
        step_counts,
        by_module,
        transfers,
        waits,
    )


def _pass(
    counter: Counter, task: Any, engine: Replicas | None, step: int, keep: bool = True
) -> float:
    """Forward and backward; what was kept between them, bytes."""
    batch = task.batch(step)
    source = SampleGenerators(0, task.places(step))
    before = counter.memory.live
    loss, _ = (engine or task).loss(batch, source)
    activations = counter.memory.live - before
    backward(loss, keep)
    return activations


def generation(config: Any, seconds: float) -> tuple[float, Part]:
    """See ``_generation``, which is run once for a model."""
    frames = tuple(random_latents.geometry(config).items())
    return _generation(config.model.model_dump_json(), frames, seconds)


@lru_cache
def _generation(model: str, frames: tuple, seconds: float) -> tuple[float, Part]:
    """Peak bytes of one guided step of picture and sound together in bfloat16, the weights of the
    d-DiT among them (no text encoder, no VAEs), and the counts of that step.

    Args:
        model: a DDiTConfig as JSON.
        frames: the geometry of its clips, but for their ``seconds``.
    """
    model_config = DDiTConfig.model_validate_json(model)
    spec = replace(ClipSpec(**dict(frames)), seconds=seconds)
    path = torch.tensor([[0.5, 0.5], [0.52, 0.52]], dtype=torch.float64)  # a real one
    with torch.inference_mode(), pretend("cuda") as counter:
        with CUDA:
            ddit = DDiT(model_config).eval()
        to(ddit, torch.bfloat16)
        text = torch.empty(
            2,
            model_config.video.model_max_length,
            model_config.video.caption_channels,
            dtype=torch.bfloat16,
            device=CUDA,
        )
        ddit.fold()
        # Of all its tokens: the sampler then has no mask.
        captions = Captions(ddit.prepare(text, None, spec), 1)
        velocity = GuidedVelocity(ddit, captions, 6.0, 6.0)
        state = (
            torch.empty(1, model_config.video.in_channels, *spec.video_latent_shape, device=CUDA),
            torch.empty(1, spec.audio_latent_length, model_config.audio.in_channels, device=CUDA),
        )
        with kept.held_tables() as tables:
            for _ in range(2):  # the first makes the tables
                counter.reset()
                flow.integrate(velocity, state, path, "euler", advance=advance)
                for table in tree_iter(tables):  # also those that an earlier count has made
                    if isinstance(table, Tensor) and table.device.type == CUDA.type:
                        counter.memory.keep(table)
        return counter.memory.peak, counter.total


@contextmanager
def _task(config: Any) -> Iterator[tuple[Counter, Any]]:
    """The config's task on a GPU that is not there, its clips without numbers."""
    with tempfile.TemporaryDirectory() as folder:
        count = validation.CLIPS
        latents = str(random_latents.write(Path(folder), config, count, made_up=False))
        config = config.model_copy(update={"data": latents, "validation": latents})
        with pretend("cuda") as counter, _reading_outside():
            torch.manual_seed(0)
            with random_latents.made_on(CUDA):
                task = flow_task.FlowTraining(config, group=Group(device=CUDA))
            for bucket in (*task.plan.buckets, *task.validation):
                bucket.latents.batch = _blank(config, bucket.spec)
            recompute(task.module, config.loop.recompute)
            yield counter, task


def _blank(config: Any, spec: ClipSpec) -> Any:
    """In place of ``Latents.batch``: the shapes of whole captions and clips."""
    video, audio = config.model.video, config.model.audio

    def batch(rows: np.ndarray, _: Any) -> dict[str, Tensor]:
        size, length = len(rows), video.model_max_length
        return {
            "video": torch.empty(size, video.in_channels, *spec.video_latent_shape),
            "audio": torch.empty(size, spec.audio_latent_length, audio.in_channels),
            "text": torch.empty(size, length, video.caption_channels),
            "mask": torch.ones(size, length, dtype=torch.bool),
        }

    return batch


@contextmanager
def _reading_outside() -> Iterator[None]:
    """Folders of latents are opened as real files."""
    with ExitStack() as stack:
        for name in ("training_buckets", "validation_buckets"):
            real = outside(getattr(buckets, name))
            stack.enter_context(mock.patch.object(buckets, name, real))
        yield


@contextmanager
def _short(config: Any) -> Iterator[None]:
    """Validation of two passes at one time, which takes as much memory as all of it."""
    clips = min(validation.CLIPS, 2 * config.loop.batch_size)
    with mock.patch.multiple(validation, TIMES=(0.5,), CLIPS=clips):
        yield


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def gib(value: float) -> float:
    """Bytes as GiB, to a ten-thousandth."""
    return round(value / GIB, 4)
