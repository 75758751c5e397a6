"""Whether a clip will fit into memory, asked before it is sampled."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from syncflow.clip import VIDEO_STRIDE, ClipSpec
from syncflow.config import ModelConfig, PatchVAEConfig
from syncflow.generation.model import Model
from syncflow.models.video_vae import AT_ONCE, AT_ONCE_ON_GPU

_CGROUP = Path("/sys/fs/cgroup")
_FLOAT = 4
_UNLIMITED = 2**60  # how version 1 of control groups says that there is no limit


def check(
    model: Model, spec: ClipSpec, prompts: int = 1, takes: int = 1, guided: bool = True
) -> None:
    """Raises ValueError where clips plainly need more memory than is free."""
    item, gpu = model.dtype.itemsize, model.device.type == "cuda"
    needed = estimate(model.config, spec, prompts, takes, guided, item, gpu)
    free = available(model.device)
    if free is None or needed <= free:
        return
    many = f"{prompts * takes} clips of " if prompts * takes > 1 else ""
    fewer = "fewer prompts or takes, " if many else ""
    raise ValueError(
        f"{many}{spec.seconds:g} s at {spec.width}x{spec.height} need{'' if many else 's'} about "
        f"{_gb(needed)}; {_gb(free)} are free on {model.device}: ask for {fewer}fewer seconds or "
        "a smaller size"
    )


def estimate(
    config: ModelConfig,
    spec: ClipSpec,
    prompts: int,
    takes: int,
    guided: bool,
    item: int,
    gpu: bool = False,
) -> int:
    """Bytes that generation takes beside the weights; rather too few than too many.

    The greater of sampling and of decoding one clip, and the finished clips.

    Args:
        item: bytes of a number in the towers.
        gpu: decoded as on a GPU, more frames at once and in the towers' numbers.
    """
    needed = max(
        sampling(config, spec, prompts, takes, guided, item), decoding(config, spec, item, gpu)
    )
    pixels = spec.num_frames * spec.height * spec.width
    return round(needed + prompts * 3 * pixels + prompts * takes * _FLOAT * spec.num_samples)


def sampling(
    config: ModelConfig, spec: ClipSpec, prompts: int, takes: int, guided: bool, item: int
) -> float:
    """Bytes of the towers' activations: the captions' keys and values in every layer, what every
    layer of the video tower hands to the sound, and the widest moment of a block."""
    video, audio = config.ddit.video, config.ddit.audio
    frames, rows, columns = spec.video_latent_shape
    _, high, wide = video.patch_size
    patches = frames * -(-rows // high) * -(-columns // wide)
    groups = 2 if guided else 1
    tokens = prompts * groups * patches * video.hidden_size
    sounds = prompts * takes * groups * spec.audio_latent_length * audio.hidden_size
    # A block holds its input, the projections of q, k and v, and the hidden layer of its MLP.
    moment = 5 + video.mlp_ratio
    heard = 0 if audio.condition == "video" else audio.hidden_size
    said = 2 * prompts * groups * video.model_max_length * (video.hidden_size + heard) * video.depth
    return item * (said + tokens * (video.depth + moment) + sounds * moment)


def decoding(config: ModelConfig, spec: ClipSpec, item: int, gpu: bool = False) -> float:
    """Bytes of the decoders' activations, for one clip: the picture as it comes, as it is clamped
    and as whole numbers, and the layers at full length."""
    size = spec.height * spec.width
    pixels = spec.num_frames * size
    whole = pixels * (2 * 3 * _FLOAT + 3) + 4 * _FLOAT * spec.num_samples
    vae = config.video_vae
    if isinstance(vae, PatchVAEConfig):  # frames, and their neighbours side by side, by its patches
        return whole + pixels * 8 * _FLOAT * vae.width / 32
    # The temporal decoder has a film of latents. The frame decoder goes piece by piece, and its
    # widest layer, the second last, has its input and what comes of it at the full size.
    temporal = 3 * _FLOAT * vae.temporal.filters / (VIDEO_STRIDE[1] * VIDEO_STRIDE[2])
    number, most = (item, AT_ONCE_ON_GPU) if gpu else (_FLOAT, AT_ONCE)
    widest = max(vae.spatial.block_out_channels[:2])
    return whole + pixels * temporal + 2 * number * widest * size * min(most, spec.num_frames)


def available(device: torch.device) -> int | None:
    """Bytes that can still be had; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        ours = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + ours
    if sys.platform != "linux" or device.type != "cpu":
        return None
    known = [_of_machine(), _of_group("memory.max", "memory.current"), _of_process()]
    known.append(_of_group("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    return min((free for free in known if free is not None), default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _of_group(limit: str, used: str) -> int | None:
    """What the container's limit leaves; the cache of files in it can be given back."""
    try:
        most = int((_CGROUP / limit).read_text())
        taken = int((_CGROUP / used).read_text())
        stat = (_CGROUP / used).with_name("memory.stat").read_text().split()
    except (OSError, ValueError):  # none, or "max"
        return None
    cache = int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0
    return max(0, most - taken + cache) if most < _UNLIMITED else None


def _of_process() -> int | None:
    """What ``ulimit -v`` leaves."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return max(0, limit - pages * os.sysconf("SC_PAGESIZE"))


def _gb(size: float) -> str:
    return f"{size / 1e9:.0f} GB" if size >= 10e9 else f"{size / 1e9:.1f} GB"
