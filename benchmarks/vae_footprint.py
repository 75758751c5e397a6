"""What training a VAE needs of a GPU, counted on a device that is not there.

The repository's own task and engine, discriminator among them, on fake tensors of the CPU:
PyTorch's backward pass runs there, and shapes are the same everywhere. In the precision of the
weights, so what a GPU computes under autocast takes less. LSTMs count as no operations.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.counting import GIB, Counter, pretend  # noqa: E402
from benchmarks.footprint import on_a_gpu  # noqa: E402
from syncflow.clip import AUDIO_HOP  # noqa: E402
from syncflow.training.datasets.clips import Crops  # noqa: E402
from syncflow.training.distributed import engine  # noqa: E402
from syncflow.training.losses.perceptual import Perceptual  # noqa: E402
from syncflow.training.recompute import recompute  # noqa: E402
from syncflow.training.settings import AudioVAETask  # noqa: E402
from syncflow.training.tasks import vae  # noqa: E402
from syncflow.training.tasks.audio_vae import AudioVAETraining  # noqa: E402
from syncflow.training.tasks.video_vae import VideoVAETraining  # noqa: E402


def report(config: Any, gpus: int) -> dict[str, Any]:
    """As ``memory.report`` of a flow config, without what generates."""
    batch, left = divmod(config.loop.batch_size, gpus)
    if left or not batch:
        raise ValueError(
            f"loop.batch_size {config.loop.batch_size} cannot be shared by {gpus} GPUs evenly"
        )
    if config.loop.deepspeed:
        raise ValueError("a VAE's ZeRO is not counted; leave out the deepspeed block")
    shape = _shape(config, batch)
    with _task(config, batch) as (counter, task):
        training = engine.build(task, config.loop, task.group)
        late = (config.adversarial.start if config.adversarial else 0) * config.loop.accumulate
        for step in range(2):  # the second has the optimizer's state
            counter.reset()
            crops = Crops(torch.empty(shape), late)
            loss, _ = training.loss(crops, torch.Generator())
            training.backward(loss)
            training.synchronise()
            training.step(config.loop.lr, step, loss)
        train, rest, counted = counter.memory.peak, counter.memory.live, counter.total
        counter.reset()
        with torch.no_grad():
            # Sounds are copied all at once, films one by one.
            clips = vae.VALIDATION_CLIPS if isinstance(config, AudioVAETask) else 1
            original = torch.empty(clips, *shape[1:])
            task._decode(task.module.encode(original).mode(), original)
        validate = counter.memory.peak
    sizes = {"train": train, "validate": validate, "checkpoint": rest}
    critic = [] if task.critic is None else list(task.critic.parameters())
    weights = {"parameters": task.module.parameters(), "critic": critic}
    return {
        "gpus": gpus, "batch_per_gpu": batch,
        "peak_gib": {name: round(size / GIB, 4) for name, size in sizes.items()},
        "parts_gib": {
            name: round(sum(4 * p.numel() for p in of) / GIB, 4) for name, of in weights.items()
        },
        "step": {
            "flops": counted.flops, "launches": counted.launches, "bytes": counted.bytes,
            "dispatcher_calls": counted.calls,
            "bytes_outside_products": counted.bytes_outside_products,
        },
    }  # fmt: skip


def _shape(config: Any, batch: int) -> tuple[int, ...]:
    if isinstance(config, AudioVAETask):
        samples = round(config.seconds * config.model.sample_rate / AUDIO_HOP) * AUDIO_HOP
        return batch, samples
    return batch, 3, config.frames, config.height, config.width


@contextmanager
def _task(config: Any, batch: int) -> Iterator[tuple[Counter, Any]]:
    """The task with weights and clips without numbers."""
    loop = on_a_gpu(config.loop, batch_size=batch, randomness="batch")
    config = config.model_copy(update={"loop": loop, "init": None})
    if isinstance(config, AudioVAETask):
        config, kind = config.model_copy(update={"init_encodec": None}), AudioVAETraining
    else:
        kind = VideoVAETraining
    with ExitStack() as stack:
        for owner, name, value in (
            (vae, "shards", lambda _: _NoClips()),
            (nn.Module, "to", lambda module, *_, **__: module),
            (Perceptual, "_load", lambda *_: None),
            (Perceptual, "_load_heads", lambda *_: None),
            (sys.modules[Perceptual.__module__], "_read", lambda *_: {}),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        counter = stack.enter_context(pretend("cpu"))
        task = kind(config)
        recompute(task.module, config.loop.recompute)
        yield counter, task


class _NoClips:
    def __len__(self) -> int:
        return vae.VALIDATION_CLIPS
