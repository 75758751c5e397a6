"""Whole blocks (spatial, temporal, audio) and the video tower's step of XL/2, against the same
weights run in Open-Sora's eager way, with scaled_dot_product_attention, and compiled."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu import baselines
from benchmarks.gpu.op_table import assert_compiled, freshly_compiled
from benchmarks.gpu.results import Results
from benchmarks.gpu.timing import measure
from syncflow import ops
from syncflow.config import AudioTowerConfig, VideoTowerConfig
from syncflow.models.audio_tower import AudioLayer
from syncflow.models.layers import seconds_rotation
from syncflow.models.video_tower import Block, VideoTower
from syncflow.ops.euler_cfg import euler_cfg
from syncflow.ops.rotation import frame_rotation


def _video_config(dry: bool) -> VideoTowerConfig:
    if not dry:
        return VideoTowerConfig()
    small = {"hidden_size": 144, "num_heads": 2, "depth": 1}
    return VideoTowerConfig(**small, caption_channels=32, model_max_length=8)


def _dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def video_block(device: torch.device, temporal: bool, dry: bool) -> dict[str, Callable[[], Tensor]]:
    """Name -> a call on fixed inputs: two samples of 2 s at 256 x 256."""
    config = _video_config(dry)
    C, (B, T, S, L) = config.hidden_size, (2, 8, 16, 8) if dry else (2, 8, 256, 300)
    with torch.device(device):
        layer = Block(config, temporal).to(_dtype(device))
        x, text = torch.randn(B, T, S, C), torch.randn(B, L, C)
        modulation = tuple(0.3 * torch.randn(B, C) for _ in range(6))
    x, text = x.to(_dtype(device)).requires_grad_(), text.to(_dtype(device))
    modulation = tuple(m.to(_dtype(device)) for m in modulation)
    table = frame_rotation(T, C // config.num_heads, 1e4, device, torch.float32)
    cross = layer.cross_attn

    def ours() -> Tensor:
        # Keys and values of the captions are made once per prompt; in training once per step.
        return layer(x, modulation, cross.keys_values(text), None)[0]

    run = functools.partial(baselines.block, temporal=temporal)
    arguments = (layer, x, modulation, text, table)
    sdpa = F.scaled_dot_product_attention
    return {
        "ours": ours,
        "eager": lambda: run(*arguments, core=baselines.naive),
        "eager sdpa": lambda: run(*arguments, core=sdpa),
        "compile": functools.partial(_compiled(run), *arguments, core=sdpa),
    }


def audio_block(device: torch.device, dry: bool) -> dict[str, Callable[[], Tensor]]:
    """A layer of the audio tower on two samples: 100 latents beside 2049 tokens of video."""
    config = AudioTowerConfig(hidden_size=144, num_heads=2) if dry else AudioTowerConfig()
    C, (B, A, M) = config.hidden_size, (2, 20, 33) if dry else (2, 100, 2049)
    with torch.device(device):
        layer = AudioLayer(config).to(_dtype(device))
        x, tokens = torch.randn(B, A, C), torch.randn(B, M, C)
    x, tokens = x.to(_dtype(device)).requires_grad_(), tokens.to(_dtype(device))
    clock = (C // config.num_heads, config.rope_frequency, config.rope_theta, torch.float32)
    seconds = torch.arange(A, device=device) / 50
    rotation, t = seconds_rotation(seconds, *clock), x[:, 0].detach()

    def ours() -> Tensor:
        keys_values = layer.cross_attn.keys_values(tokens)
        return layer(x, rotation, t, keys_values, None, rotation, None, 0)

    plain = functools.partial(_reference, ours)
    return {
        "ours": ours,
        "eager": plain,
        "compile": functools.partial(_reference, _compiled(ours)),
    }


def _reference(function: Callable[[], Tensor]) -> Tensor:
    with ops.reference_ops():
        return function()


def _compiled(function: Callable) -> Callable:
    """torch.compile of it, at its first call: compiling one forgets what was compiled before."""
    made: list[Callable] = []

    def call(*arguments: object, **options: object) -> Tensor:
        if not made:
            made.append(freshly_compiled(function))
        return made[0](*arguments, **options)

    return call


def table(results: Results, device: torch.device, tiny: bool, compiled: bool) -> None:
    """Rows like the operators': microseconds of a block by implementation.

    Args:
        compiled: time torch.compile alone, else all but it.
    """
    made = {
        "spatial": lambda: video_block(device, False, tiny),
        "temporal": lambda: video_block(device, True, tiny),
        "audio": lambda: audio_block(device, tiny),
    }
    for name, make in made.items():
        for backward in (False, True):

            def row(make: Callable = make, backward: bool = backward) -> dict[str, object]:
                calls = {k: c for k, c in make().items() if (k == "compile") == compiled}
                return {"times": {k: timed(k, c, backward, tiny) for k, c in calls.items()}}

            label = "compile block" if compiled else "block"
            passes = "forward+backward" if backward else "forward"
            results.row(f"{label} {name} {passes}", row, 25 if compiled else 5)


def timed(name: str, call: Callable, backward: bool, tiny: bool) -> dict[str, object] | str:
    """A time, or why there is none."""
    if tiny and name == "compile":
        return "not run: rehearsal"

    def run() -> object:
        with torch.set_grad_enabled(backward):
            out = call()
            if backward:
                out.float().square().mean().backward()
            return out

    found = measure([run], tiny)
    if name == "compile":
        assert_compiled(name)
    return "not run: rehearsal" if found is None else found.as_json()


def tower_step(device: torch.device, dry: bool, only_compiled: bool) -> dict[str, object]:
    """One step of the video tower alone, guided, 256 x 256: forward of a doubled batch and the
    update. The step that users wait for is in `step_table`."""
    config = _video_config(dry)
    size, L = (8, 32, 32) if not dry else (8, 8, 8), config.model_max_length
    with torch.device(device):
        tower = VideoTower(config).to(_dtype(device)).eval().requires_grad_(False)
        for parameter in tower.parameters():  # nothing may be zero: zeros run faster
            if parameter.ndim > 1:
                parameter.normal_(std=0.02)
        x, t = torch.randn(1, 4, *size), torch.full((2,), 0.3)
        text = torch.randn(2, L, config.caption_channels).to(_dtype(device))
    place = {"fps": 16.0, "height": 256, "width": 256}
    context = tower.prepare(text)
    table = frame_rotation(8, config.hidden_size // config.num_heads, 1e4, device, torch.float32)

    def ours() -> Tensor:
        velocity, _ = tower.step(torch.cat([x, x]), t, context, **place)
        return euler_cfg(x, velocity[:1], velocity[1:], 6.0, 0.02)

    def baseline(run_block: Callable) -> Callable[[], Tensor]:
        def forward() -> Tensor:
            words = tower.y_embedder(text)
            with ops.reference_ops(), _other_blocks(tower, run_block, words, table):
                velocity, _ = tower.step(torch.cat([x, x]), t, context, **place)
            return x + 0.02 * (velocity[1:] + 6.0 * (velocity[:1] - velocity[1:]))

        return forward

    def eager(layer, *arguments, temporal: bool) -> Tensor:
        return baselines.block(layer, *arguments, temporal=temporal, core=baselines.naive)

    def compiled(layer, *arguments, temporal: bool) -> Tensor:
        return whole[temporal](layer, *arguments)

    calls = {"ours": ours, "eager": baseline(eager)}
    if only_compiled:
        torch._dynamo.reset()
        sdpa = functools.partial(baselines.block, core=F.scaled_dot_product_attention)
        whole = [
            torch.compile(functools.partial(sdpa, temporal=temporal), fullgraph=True)
            for temporal in (False, True)
        ]
        calls = {"compile": baseline(compiled)}
    with torch.no_grad():
        times = {name: timed(name, call, False, dry) for name, call in calls.items()}
    return {"what": "video tower, one step, batch 1 with guidance, 256x256", "times": times}


@contextlib.contextmanager
def _other_blocks(tower: VideoTower, run: Callable, words: Tensor, table: Tensor) -> Iterator[None]:
    """The tower with `run(block, x, modulation, words, table, temporal=)` for its blocks."""
    blocks = [(b, False) for b in tower.spatial_blocks] + [(b, True) for b in tower.temporal_blocks]
    for block, temporal in blocks:

        def forward(x, modulation, *_, block=block, temporal=temporal) -> tuple[Tensor, None]:
            return run(block, x, modulation, words, table, temporal=temporal), None

        block.forward = forward
    try:
        yield
    finally:
        for block, _ in blocks:
            del block.forward
