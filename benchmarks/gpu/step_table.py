"""The full guided denoising step and `generate()`: what a user waits for.

A step is both towers, the adaptors, guidance and the solver's update, batch 1 with its unguided
twin. Its time is the wall clock of eager calls and, beside it, of a CUDA graph of the same calls.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.gpu.random_models import random_syncflow
from benchmarks.gpu.results import Results, peak_memory
from syncflow import ops
from syncflow.generation.pipeline import SyncFlow, load
from syncflow.generation.sampler import GuidedVelocity, advance, encode_captions
from syncflow.generation.steps import Fixed, Steps
from syncflow.models.latent_space import pixels_of

PROMPT = "a metal ball bounces three times on concrete"


def _wall(call: Callable[[], object], repeats: int, warm: int = 2) -> dict[str, float]:
    """Milliseconds of a call until the device is done, and until it returns (the host's part)."""
    for _ in range(warm):
        call()
    _synchronize()
    whole, host = [], []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        host.append(1e3 * (time.perf_counter() - begun))
        _synchronize()
        whole.append(1e3 * (time.perf_counter() - begun))
    return {
        "ms": statistics.median(whole),
        "ms_least": min(whole),
        "host_ms": statistics.median(host),
        "repeats": repeats,
    }


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def guided_step(
    model: SyncFlow, guidance: float = 6.0, steps: Steps | None = None
) -> Callable[[], object]:
    """One joint step of both modalities as the sampler makes it; ``steps`` says how it is run."""
    spec, config = model.config.geometry.spec, model.config.ddit
    captions = encode_captions(model.ddit, model.text_encoder, [PROMPT], spec, model.dtype)
    velocity = GuidedVelocity(model.ddit, captions, guidance, guidance, steps=steps)
    draw = torch.Generator(device=model.device).manual_seed(0)
    shapes = (
        (1, config.video.in_channels, *spec.video_latent_shape),
        (1, spec.audio_latent_length, config.audio.in_channels),
    )
    state = tuple(torch.randn(shape, device=model.device, generator=draw) for shape in shapes)

    @torch.inference_mode()
    def step() -> tuple[Tensor, ...]:
        made = velocity(state, (0.3, 0.3), (True, True))
        return tuple(advance(x, v, 0.02) for x, v in zip(state, made, strict=True))

    return step


def table(results: Results, device: torch.device, tiny: bool) -> None:
    """Rows of the paper's model and of the shipped one."""
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    holder: dict[str, SyncFlow] = {}
    repeats = 1 if tiny else 20

    def xl2() -> SyncFlow:
        if "xl2" not in holder:
            holder["xl2"] = random_syncflow(device, dtype, tiny)
        return holder["xl2"]

    def shipped() -> SyncFlow:
        if "shipped" not in holder:
            holder["shipped"] = load(device=device)
        return holder["shipped"]

    def replayed(model: SyncFlow, guidance: float = 6.0) -> dict[str, object]:
        """The loop's wall clock for a step, beside the replays' own time."""
        step = guided_step(model, guidance, model.steps)
        found = _wall(lambda: [step() for _ in range(repeats)], 5)
        row = {"ms": found["ms"] / repeats, "host_ms": found["host_ms"] / repeats}
        graphs = [graph for graph in model.steps._graphs.values() if graph is not None]
        if graphs:
            replay = _wall(lambda: [graphs[-1].graph.replay() for _ in range(repeats)], 5)
            row["replays_ms"] = replay["ms"] / repeats
        return row

    def reference() -> dict[str, object]:
        with ops.reference_ops():
            return _wall(guided_step(xl2()), max(1, repeats // 4))

    def eager_clip(model: SyncFlow, steps: int | None) -> dict[str, object]:
        before, model.steps = model.steps, Steps()
        try:
            return clip(model, device, steps, tiny, takes=0)
        finally:
            model.steps = before

    def row(name: str, make: Callable[[], object], needs: float = 5) -> None:
        """A row that decodes pictures, which takes diffusers."""
        if find_spec("diffusers") is None:
            results.add(name, {"not run": "diffusers is not installed"})
        else:
            results.row(name, make, needs)

    fifty = 2 if tiny else 50
    results.row("step xl2 eager", lambda: _wall(guided_step(xl2()), repeats), 30)
    results.row("step xl2 graph", lambda: replayed(xl2()))
    results.row("step xl2 unguided graph", lambda: replayed(xl2(), 1.0))
    results.row("step xl2 reference operators", reference)
    results.row("step xl2 kernels", lambda: profile(guided_step(xl2()), device))
    row("generate xl2 50 steps", lambda: clip(xl2(), device, fifty, tiny), 12)
    row("generate xl2 8 unguided", lambda: clip(xl2(), device, 8, tiny, guidance=1.0), 6)
    row("decode xl2", lambda: decode(xl2(), repeats), 4)
    row("decode xl2 kernels", lambda: profile(decoding(xl2()), device), 4)
    row("generate xl2 50 steps eager", lambda: eager_clip(xl2(), fifty), 12)
    holder.clear()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    results.row("step shipped eager", lambda: _wall(guided_step(shipped(), 2.0), repeats), 10)
    results.row("step shipped graph", lambda: replayed(shipped(), 2.0))
    if not tiny:
        results.row("generate shipped", lambda: clip(shipped(), device, None, tiny), 8)
        results.row("generate shipped eager", lambda: eager_clip(shipped(), None), 8)


def clip(
    model: SyncFlow,
    device: torch.device,
    steps: int | None,
    tiny: bool,
    guidance: float | None = None,
    takes: int = 3,
) -> dict[str, object]:
    """Seconds of `generate()`, decoding and the copy to the host included; the first call captures
    its graphs."""
    options = {"steps": steps, "guidance": guidance, "progress": False}
    seconds = []
    memory: dict[str, float] = {}
    for seed in range(1 if tiny else takes + 1):
        _synchronize()
        begun = time.perf_counter()
        if device.type == "cuda":
            with peak_memory() as memory:
                made = model.generate(PROMPT, seed=seed, **options)
        else:
            made = model.generate(PROMPT, seed=seed, **options)
        seconds.append(time.perf_counter() - begun)
    best = statistics.median(seconds[1:] or seconds)
    return {
        "seconds": best,
        "seconds_first": seconds[0],
        "steps": steps,
        "clip_seconds": made.seconds,
        "real_time_factor": best / made.seconds,
        **memory,
    }


@torch.inference_mode()
def decode(model: SyncFlow, repeats: int) -> dict[str, object]:
    """Milliseconds of the two decoders alone, as `generate` calls them."""
    spec, config = model.config.geometry.spec, model.config.ddit
    video = torch.randn(1, config.video.in_channels, *spec.video_latent_shape, device=model.device)
    audio = torch.randn(1, spec.audio_latent_length, config.audio.in_channels, device=model.device)
    few = max(1, repeats // 5)
    shown = _wall(lambda: model.video_vae.decode(video, num_frames=spec.num_frames), few)
    tensors, rest = (video,), (model.video_vae, spec.num_frames)
    replayed = _wall(lambda: model.steps(pixels_of, tensors, Fixed(), *rest), few)
    heard = _wall(lambda: model.audio_vae.decode(audio, num_samples=spec.num_samples), few)
    found = {"video_ms": shown["ms"], "video_graph_ms": replayed["ms"], "audio_ms": heard["ms"]}
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        searched = _wall(lambda: model.video_vae.decode(video, num_frames=spec.num_frames), few)
    return found | {"video_searched_ms": searched["ms"]}


def decoding(model: SyncFlow) -> Callable[[], object]:
    """The picture's decoder alone."""
    spec, config = model.config.geometry.spec, model.config.ddit
    video = torch.randn(1, config.video.in_channels, *spec.video_latent_shape, device=model.device)
    return torch.inference_mode()(lambda: model.video_vae.decode(video, num_frames=spec.num_frames))


def profile(step: Callable[[], object], device: torch.device) -> dict[str, object]:
    """The kernels of one step by name: how often, and microseconds in all."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    on_device = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_device
    step()
    with record(activities=activities) as recorded:
        step()
        _synchronize()
    kernels: dict[str, list[float]] = {}
    for event in recorded.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            entry = kernels.setdefault(event.name[:160], [0, 0.0])
            entry[0] += 1
            entry[1] += event.time_range.elapsed_us()
    ordered = sorted(kernels.items(), key=lambda item: -item[1][1])
    return {
        "launches": sum(n for n, _ in kernels.values()),
        "device_ms": sum(us for _, us in kernels.values()) / 1e3,
        "kernels": [{"name": k, "count": n, "us": us} for k, (n, us) in ordered[:80]],
    }
