"""What a clip is, and the only place where a length is computed.

Seconds, frame rate, size and sample rate go in; frames, samples, latent shapes and token counts
come out. Outside the model a clip's video is ``uint8 [F,3,H,W]`` and its audio ``float32 [M]`` in
[-1, 1] (paper section 3).
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from syncflow.json_types import JsonObject
from syncflow.ranges import Range, Real, Whole

#: Down-sampling of the video VAE (time, height, width) and of the audio VAE (samples per latent).
VIDEO_STRIDE = (4, 8, 8)
AUDIO_HOP = 960

#: Length (s), frames/s and samples/s of a clip where nothing is said (paper section 4).
SECONDS: float = 2.0
FPS: float = 16
SAMPLE_RATE = 48000

#: What the numbers of a clip's geometry may be.
RANGES: dict[str, Range[int] | Range[float]] = {
    "seconds": Real(0, 86_400, "s", above=True),
    "fps": Real(0, 1000, "frames/s", above=True),
    "height": Whole(1, 16_384, "px"),
    "width": Whole(1, 16_384, "px"),
    "sample_rate": Whole(1, 768_000, "Hz"),
}


@dataclass(frozen=True)
class ClipSpec:
    """The geometry of a clip; every derived length is a property.

    ``seconds`` s, ``fps`` frames/s, ``height`` and ``width`` px, ``sample_rate`` Hz. The default is
    the paper's: 2 s, 16 fps, 256x256, 48 kHz mono (section 4).
    """

    seconds: float = SECONDS
    fps: float = FPS
    height: int = 256
    width: int = 256
    sample_rate: int = SAMPLE_RATE

    def __post_init__(self) -> None:
        for name, within in RANGES.items():
            value = getattr(self, name)
            number = within.check(name, value)
            if type(value) not in (int, float):  # of another library
                object.__setattr__(self, name, number)
        step = VIDEO_STRIDE[1] * 2
        for name in ("height", "width"):
            if getattr(self, name) % step:
                raise ValueError(
                    f"{name} must be divisible by {step} (VAE stride x patch), "
                    f"got {getattr(self, name)}; the nearest is "
                    f"{max(step, round(getattr(self, name) / step) * step)}"
                )
        # Rates such as 59.94/2 are a few hundredths of a frame off; more would leave picture and
        # sound of different lengths.
        off = abs(self.seconds * self.fps - self.num_frames) > 0.1
        if off or self.num_frames < 1 or self.num_frames % VIDEO_STRIDE[0]:
            raise ValueError(
                f"seconds x fps must be a multiple of {VIDEO_STRIDE[0]} frames, "
                f"got {self.seconds} s x {self.fps} fps = {self.seconds * self.fps:g} frames"
            )

    @property
    def num_frames(self) -> int:
        return round(self.seconds * self.fps)

    @property
    def num_samples(self) -> int:
        return round(self.seconds * self.sample_rate)

    @property
    def video_latent_shape(self) -> tuple[int, int, int]:
        """Latent frames, height and width: T, h, w."""
        return (
            latent_frames(self.num_frames),
            self.height // VIDEO_STRIDE[1],
            self.width // VIDEO_STRIDE[2],
        )

    @property
    def audio_latent_length(self) -> int:
        """Audio latent frames A (50 Hz at 48 kHz)."""
        return audio_latents(self.num_samples)

    @property
    def seconds_per_latent_frame(self) -> float:
        return VIDEO_STRIDE[0] / self.fps

    @property
    def seconds_per_audio_latent(self) -> float:
        return AUDIO_HOP / self.sample_rate

    def video_latent_times(self, device: torch.device | None = None) -> Tensor:
        """Centre of every latent frame in seconds, [T] (frame f is shown at f / fps)."""
        index_T = torch.arange(self.video_latent_shape[0], device=device, dtype=torch.float32)
        return (index_T * VIDEO_STRIDE[0] + (VIDEO_STRIDE[0] - 1) / 2) / self.fps

    def audio_latent_times(self, device: torch.device | None = None) -> Tensor:
        """Centre of every audio latent in seconds, [A]."""
        index_A = torch.arange(self.audio_latent_length, device=device, dtype=torch.float32)
        return (index_A + 0.5) * self.seconds_per_audio_latent

    def with_size(self, height: int | None, width: int | None) -> ClipSpec:
        return replace(self, height=height or self.height, width=width or self.width)


def latent_frames(num_frames: int) -> int:
    """Latent frames of ``num_frames`` encoded in one piece."""
    return -(-num_frames // VIDEO_STRIDE[0])


def audio_latents(num_samples: int) -> int:
    """Audio latents of ``num_samples``, the last one padded."""
    return -(-num_samples // AUDIO_HOP)


@dataclass(repr=False)
class Clip:
    """Picture and sound that belong together.

    ``video`` uint8 [F,3,H,W]; ``audio`` float32 [M] in [-1,1]; ``fps`` frames/s; ``sample_rate``
    Hz; ``prompt`` the sentence it was made from, if any; ``picture_file`` the file whose picture
    this is, at any size, which ``save`` copies as it stands; ``scores`` what ranking measured (name
    -> value); ``made`` how it was generated, as it goes into a file's metadata
    (``generation.record``).
    """

    video: Tensor
    audio: Tensor
    fps: float = FPS
    sample_rate: int = SAMPLE_RATE
    prompt: str | None = None
    picture_file: Path | None = None
    scores: dict[str, float] | None = None
    made: JsonObject | None = None

    def __post_init__(self) -> None:
        if self.video.dtype != torch.uint8 or self.video.ndim != 4 or self.video.shape[1] != 3:
            raise ValueError(
                f"video must be uint8 [F,3,H,W], got {self.video.dtype} {list(self.video.shape)}"
            )
        if not self.audio.is_floating_point() or self.audio.ndim != 1:
            raise ValueError(
                f"audio must be float [M], got {self.audio.dtype} {list(self.audio.shape)}"
            )

    def __repr__(self) -> str:
        height, width = self.video.shape[2:]
        said = f"{textwrap.shorten(self.prompt, 60, placeholder='...')!r}, " if self.prompt else ""
        size = f"{self.seconds:g} s, {width}x{height} at {self.fps:g} fps"
        return f"Clip({said}{size}, {self.sample_rate} Hz)"

    def _repr_html_(self) -> str:
        """A player, for notebooks."""
        from syncflow.data.export import player

        return player.page(self)

    @property
    def seconds(self) -> float:
        return len(self.video) / self.fps

    def save(self, path: str | Path) -> Path:
        """Writes the file that the name asks for; returns the path.

        Films hold H.264 + AAC (mp4, m4v, mov, mkv) or VP9 + Opus (webm); the picture of
        ``picture_file`` is copied bit for bit, in the codec that it has. wav and flac hold the
        sound alone, gif and numbered pictures (``frame-%04d.png``, from 1 on) the picture alone.
        ``made`` goes into the metadata. Same clip, same bytes.

        Raises:
            ValueError: the name's format is unknown or cannot hold this clip. OSError: a folder
                that is missing or takes no files.
        """
        from syncflow.data.export import files  # formats live there; importing stays free

        return files.save(self, path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        fps: float = FPS,
        sample_rate: int = SAMPLE_RATE,
        start: float = 0.0,
        seconds: float | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> Clip:
        """Reads a film by its timestamps, resampled to ``fps`` and ``sample_rate``; ``height`` and
        ``width`` crop the centre and resize. A file without sound gives silence. What is read, and
        what else raises: ``media.read``.

        Raises:
            ValueError: no path, or a number that a clip cannot have.
        """
        from syncflow.data import media

        if not isinstance(path, (str, Path)):
            raise ValueError(f"a clip is loaded from a path, got {path!r:.60}")
        RANGES["fps"].check("fps", fps)
        RANGES["sample_rate"].check("sample_rate", sample_rate)
        for name, size in (("height", height), ("width", width)):
            if size is not None:
                RANGES[name].check(name, size)
        video, audio = media.read(
            path,
            fps=fps,
            sample_rate=sample_rate,
            start=start,
            seconds=seconds,
            height=height,
            width=width,
        )
        if audio is None:
            audio = torch.zeros(round(len(video) / fps * sample_rate))
        return cls(video, audio, fps, sample_rate)


def to_model(video_FCHW: Tensor) -> Tensor:
    """uint8 [..., F,3,H,W] -> float [..., 3,F,H,W] in [-1,1], the video VAE's order."""
    return (video_FCHW.float() / 127.5 - 1).movedim(-3, -4)


def to_pixels(video_CFHW: Tensor) -> Tensor:
    """float [..., 3,F,H,W] in [-1,1] -> uint8 [..., F,3,H,W]."""
    return ((video_CFHW.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-4, -3)
