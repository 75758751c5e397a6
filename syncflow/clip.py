"""What a clip is, and the only place where a length is computed.

Seconds, frame rate, size and sample rate go in; frames, samples, latent shapes and token counts
come out. Outside the model a clip's video is ``uint8 [F,3,H,W]`` and its audio ``float32 [M]`` in
[-1, 1] (paper section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

#: Down-sampling of the video VAE (time, height, width) and of the audio VAE (samples per latent).
VIDEO_STRIDE = (4, 8, 8)
AUDIO_HOP = 960

#: Length (s), frames/s and samples/s of a clip where nothing is said (paper section 4).
SECONDS: float = 2.0
FPS: float = 16
SAMPLE_RATE = 48000


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
        for name in ("seconds", "fps", "height", "width", "sample_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
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


@dataclass
class Clip:
    """Picture and sound that belong together.

    ``video`` uint8 [F,3,H,W]; ``audio`` float32 [M] in [-1,1]; ``fps`` frames/s; ``sample_rate``
    Hz; ``prompt`` the sentence it was made from, if any; ``picture_file`` the file whose picture
    this is (at any size), which ``save`` copies as it stands; ``scores`` what ranking measured
    (name -> value).
    """

    video: Tensor
    audio: Tensor
    fps: float = FPS
    sample_rate: int = SAMPLE_RATE
    prompt: str | None = None
    picture_file: Path | None = None
    scores: dict[str, float] | None = None

    def __post_init__(self) -> None:
        if self.video.dtype != torch.uint8 or self.video.ndim != 4 or self.video.shape[1] != 3:
            raise ValueError(
                f"video must be uint8 [F,3,H,W], got {self.video.dtype} {list(self.video.shape)}"
            )
        if not self.audio.is_floating_point() or self.audio.ndim != 1:
            raise ValueError(
                f"audio must be float [M], got {self.audio.dtype} {list(self.audio.shape)}"
            )

    @property
    def seconds(self) -> float:
        return len(self.video) / self.fps

    def save(self, path: str | Path) -> Path:
        """Writes H.264 + AAC (mp4, mkv, webm or mov by the name's ending); returns the path.

        The picture of ``picture_file`` is copied bit for bit, in the codec that it has.
        """
        from syncflow.data import media  # containers live in one file; importing stays free

        if self.picture_file is not None:
            seconds = len(self.audio) / self.sample_rate
            return media.add_sound(path, self.picture_file, self.audio, self.sample_rate, seconds)
        return media.write(path, self.video, self.audio, self.fps, self.sample_rate)

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
        what raises: ``media.read``."""
        from syncflow.data import media

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
