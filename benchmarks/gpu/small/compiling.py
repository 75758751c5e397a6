"""torch.compile of the video tower's blocks, made ahead in a process of its own.

Compiling takes longer than a GPU lent for minutes can wait, so a second process does it while the
encoders train, and leaves what it made in the compiler's cache on disk. The run then finds it there
in seconds; if it does not, or if anything fails, the blocks stay as they are.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from benchmarks.gpu.small import folder, plan, pool, world
from benchmarks.gpu.small.towers import Towers

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
#: How long the run itself may spend on compiling before it goes on without.
PATIENCE_S = 35


class Ahead:
    """The second process; it inherits the command line's model."""

    def __init__(self, arguments: list[str]) -> None:
        os.environ.setdefault(_CACHE, str(Path(tempfile.gettempdir()) / "syncflow_small_cache"))
        self.began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.gpu.small", "--compile-only", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def done(self) -> bool:
        """Whether it has ended well."""
        return self.process.poll() == 0

    def stop(self) -> None:
        """Ends the process, finished or not."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def compile_only(device: torch.device, tiny: bool, init: Path | None) -> None:
    """What the second process does: both steps once, on latents that mean nothing."""
    plan_ = plan.TINY if tiny else plan.FULL
    config = plan.model_config(tiny) if init is None else folder.read(init)[0]
    towers = Towers(
        folder.modules(config)["ddit"].to(device).train(),
        _noise(config, device),
        plan_.tower_batch,
        dtype_on(device),
    )
    use(towers)


def dtype_on(device: torch.device) -> torch.dtype:
    """What the towers compute in."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def use(towers: Towers, patience_s: float | None = None) -> str:
    """Compiles the video tower's blocks and makes both steps once with a learning rate of 0.

    Returns:
        "" or, where it failed or took longer than ``patience_s``, why; the blocks are then as they
        were. Without ``patience_s`` a failure is raised.
    """
    blocks = towers.model.video_tower._blocks()
    for block in blocks:
        block.compile(dynamic=False, fullgraph=True)
    rates = [(o, o.lr.clone()) for o in (towers.video, towers.audio)]
    for optimizer, _ in rates:
        optimizer.lr.zero_()
    try:
        with _at_most(patience_s):
            towers.video_step()
            towers.audio_step()
            towers.losses()  # waits for the device
    except Exception as error:
        if patience_s is None:
            raise
        for block in blocks:
            block._compiled_call_impl = None
        torch._dynamo.reset()
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    finally:
        for optimizer, rate in rates:
            optimizer.lr.copy_(rate)
    return ""


def _noise(config: plan.ModelConfig, device: torch.device) -> pool.Latents:
    latents = pool.Latents(4, config, device)
    records = [world.Record(1, "bounce", False, ["a ball"] * plan.CAPTIONS, [0.5])] * 4
    video = torch.randn_like(latents.video_NCTHW.float())
    audio = torch.randn_like(latents.audio_NAD.float())
    text = torch.randn_like(latents.text_NKLE.float())
    latents.add(video, audio, text, torch.ones_like(latents.mask_NKL), records)
    return latents


@contextmanager
def _at_most(seconds: float | None) -> Iterator[None]:
    """Raises TimeoutError in the block after so many seconds."""
    if seconds is None:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not ready after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
