"""Given pictures that a model cannot know: how many are told so, and how many of its own are.

    python benchmarks/foreign.py                      # the shipped model, needs imageio-ffmpeg
    python benchmarks/foreign.py --clips 400 --film --videos a.mp4 b.mp4

Clips of impacts, of the validation split at every level, also noisy and through an mp4 of another
size, should not be told; generated patterns, noise, a film (Big Buck Bunny, see film.py) and other
people's videos should. Each is looked at as a film and as a first frame (``generation.foreign``).
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import film
import numpy as np
import torch
from torch import Tensor

import syncflow
from syncflow.clip import Clip
from syncflow.data import media
from syncflow.generation import foreign
from syncflow.impacts.render import render
from syncflow.impacts.world import LEVELS, SEEDS, sample_scene

FPS, FRAMES, SIZE = 16, 32, 64
#: ffmpeg's sources of pictures.
PATTERNS = (
    "cellauto", "colorspectrum", "gradients", "haldclutsrc", "life=mold=10", "mandelbrot",
    "pal75bars", "rgbtestsrc", "sierpinski", "smptehdbars", "testsrc", "testsrc2", "yuvtestsrc",
)  # fmt: skip


def scene(number: int, level: int, size: int = SIZE) -> Tensor:
    """uint8 [F,3,H,W] of a validation clip."""
    picture = render(sample_scene(SEEDS["val"].start + number, level), size, size)
    return torch.from_numpy(np.ascontiguousarray(picture))


def through_a_file(video: Tensor, folder: Path) -> Tensor:
    path = media.write(folder / "clip.mp4", video, None)
    return Clip.load(path, height=SIZE, width=SIZE).video


def noisy(video: Tensor, rng: np.random.Generator) -> Tensor:
    grain = torch.from_numpy(rng.normal(0, 4, tuple(video.shape)))
    return (video + grain).round().clamp(0, 255).to(torch.uint8)


def pattern(source: str) -> Tensor:
    """uint8 [F,3,H,W] of one of ffmpeg's sources."""
    import imageio_ffmpeg

    words = f"-v error -f lavfi -i {source} -vf fps={FPS},scale={SIZE}:{SIZE} -frames:v {FRAMES}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *words.split(), "-f", "rawvideo", "-pix_fmt"]
    done = subprocess.run([*command, "rgb24", "-"], capture_output=True, check=True)
    pixels = np.frombuffer(done.stdout, np.uint8).reshape(-1, SIZE, SIZE, 3)
    return torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2)


def made(rng: np.random.Generator) -> dict[str, list[Tensor]]:
    """Noise of all pixels, of large ones, and slow drifts of colour."""
    noise = [torch.from_numpy(rng.integers(0, 256, (FRAMES, 3, SIZE, SIZE), np.uint8))]
    small = torch.from_numpy(rng.integers(0, 256, (8, FRAMES, 3, 8, 8), np.uint8))
    ends = torch.from_numpy(rng.uniform(0, 255, (8, 2, 3, 1, 1)))
    share = torch.linspace(0, 1, FRAMES)[:, None, None, None] * torch.linspace(0, 1, SIZE)
    ramps = [(a + (b - a) * share.expand(-1, 3, SIZE, -1)).to(torch.uint8) for a, b in ends]
    blocks = [one.repeat_interleave(8, 2).repeat_interleave(8, 3) for one in small]
    return {"noise": noise, "noise of 8 px": blocks, "drifting ramps": ramps}


def windows(path: Path, count: int) -> Iterator[Tensor]:
    """Two seconds here and there."""
    length = FRAMES / FPS
    whole = media.probe(path).seconds
    for start in np.linspace(0, max(0.0, whole - length - 0.1), count):
        yield media.read_pictures(path, FPS, float(start), length, SIZE, SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=100, help="of each level (default 100)")
    parser.add_argument("--film", action="store_true", help="also Big Buck Bunny, 58 MB at first")
    parser.add_argument("--videos", type=Path, nargs="*", default=[], help="also these files")
    args = parser.parse_args()
    model, rng = syncflow.load(device="cpu"), np.random.default_rng(0)
    own = {f"impacts, level {n}": [scene(i, n) for i in range(args.clips)] for n in LEVELS}
    few = own["impacts, level 1"][: args.clips // 4]
    own["level 1, noisy"] = [noisy(video, rng) for video in few]
    with tempfile.TemporaryDirectory() as folder:
        large = (scene(i, 1, 4 * SIZE) for i in range(len(few)))
        own["level 1, mp4 of 256 px"] = [through_a_file(video, Path(folder)) for video in large]
    other = made(rng) | {"ffmpeg's patterns": [pattern(source) for source in PATTERNS]}
    for path in [film.fetch(), *args.videos] if args.film else args.videos:
        other[path.name] = list(windows(path, 80 if path.name.startswith("big_buck") else 8))
    print(f"{'':26}{'clips':>6}{'told':>7}{'median':>8}{'range':>13}{'still told':>12}")
    for name, videos in (own | other).items():
        films = [foreign.strangeness(model, video) for video in videos]
        stills = [foreign.strangeness(model, video[:1].expand(4, -1, -1, -1)) for video in videos]
        told, still = (np.mean(np.array(some) > foreign.MOST) for some in (films, stills))
        extent = f"{min(films):.2f}-{max(films):.2f}"
        print(
            f"{name:26}{len(videos):6}{told:7.3f}{np.median(films):8.2f}{extent:>13}{still:12.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
