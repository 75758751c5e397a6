"""Video files of every kind, for the tests of `syncflow prepare`."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from syncflow.data import media


def moving(frames: int, seed: int = 0, size: tuple[int, int] = (48, 64)) -> torch.Tensor:
    """A bright square that goes to and fro over a still background of its own."""
    rng = np.random.default_rng(seed)
    height, width = size
    ground = rng.integers(20, 120, (3, 6, 8)).repeat(height // 6, 1).repeat(width // 8, 2)
    video = np.broadcast_to(ground, (frames, 3, height, width)).astype(np.uint8)
    for index in range(frames):
        left = 2 + abs((seed * 7 + 2 * index) % (2 * (width - 16)) - (width - 16))
        video[index, :, 18:30, left : left + 12] = 240
    return torch.from_numpy(video)


def noise(samples: int, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    return level * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def clip(path: Path, seconds: float = 2.0, seed: int = 0, **changes) -> Path:
    """An ordinary clip: 16 fps, 48 kHz mono, moving and audible."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video = changes.get("video", moving(round(seconds * 16), seed))
    audio = changes.get("audio", noise(round(seconds * 48000), seed))
    return media.write(path, video, audio, 16, 48000)


def foreign(path: Path, seconds: float, rate: Fraction, size=(48, 64), channels: int = 2) -> Path:
    """A file that another program could have made: any frame rate, 44.1 kHz stereo."""
    import av

    frames = round(seconds * rate)
    video = moving(frames, 5, size)
    sound = noise(round(seconds * 44100) * channels, 5).view(channels, -1).numpy()
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        picture.height, picture.width, picture.pix_fmt = *size, "yuv420p"
        track = out.add_stream("aac", rate=44100, layout="stereo" if channels == 2 else "mono")
        for index in range(frames):
            pixels = np.ascontiguousarray(video[index].permute(1, 2, 0).numpy())
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            out.mux(picture.encode(frame))
        for first in range(0, sound.shape[1], 1024):
            part = np.ascontiguousarray(sound[:, first : first + 1024])
            layout = "stereo" if channels == 2 else "mono"
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = 44100, first, Fraction(1, 44100)
            out.mux(track.encode(frame))
        out.mux(picture.encode(None))
        out.mux(track.encode(None))
    return path
