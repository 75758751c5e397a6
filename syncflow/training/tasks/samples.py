"""Clips made while a model trains: from the validation set's text, without a text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from syncflow import flow
from syncflow.clip import Clip, ClipSpec
from syncflow.config import SamplingConfig
from syncflow.data import media
from syncflow.data.latents import Latents
from syncflow.generation import noise
from syncflow.generation.request import resolve
from syncflow.generation.sampler import GuidedVelocity, advance, encode_captions
from syncflow.models.ddit import DDiT
from syncflow.models.latent_space import decode_audio, decode_video
from syncflow.training.settings import SamplesConfig
from syncflow.training.tasks import export

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter


def sample(
    model: DDiT, batch: dict[str, Tensor], spec: ClipSpec, sampling: SamplingConfig
) -> tuple[Tensor, Tensor]:
    """Normalised latents, video [B, Cz, T, h, w] and audio [B, A, D]; always the same noise."""
    count, device = len(batch["text"]), batch["text"].device
    asked = resolve(sampling, ["-"] * count, {})
    sources = noise.generators(range(count))
    start = noise.start(sources, batch["video"].shape[1:], batch["audio"].shape[1:], device)
    captions = encode_captions(
        model,
        _Read(batch),
        ["-"] * count,
        spec,
        batch["text"].dtype,
        null_caption=sampling.null_caption,
    )
    interval = sampling.guidance_start, sampling.guidance_end
    velocity = GuidedVelocity(
        model, captions, asked.guidance, asked.audio_guidance, interval=interval
    )
    state = flow.integrate(
        velocity,
        start,
        asked.path,
        sampling.solver,
        advance=advance,
        eta=(sampling.eta, 0.0),
        noise=noise.fresh(sources),
        eta_start=sampling.eta_start,
    )
    return state[0], state[1]


class _Read:
    """Stands in for a text encoder: the captions were read when the data were prepared."""

    def __init__(self, batch: dict[str, Tensor]) -> None:
        self.read = batch["text"], batch["mask"]

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        return self.read


def check(config: SamplesConfig, latents: Latents) -> None:
    """What the clips need is there and fits, before the first step.

    Raises:
        FileNotFoundError: a VAE is not there, or its run not finished.
        ValueError: it is not of these latents' kind, or there are fewer captions than clips.
    """
    if config.clips > len(latents):
        raise ValueError(
            f"samples.clips is {config.clips}, and the first validation set has {len(latents)} "
            "clips; ask for fewer"
        )
    found = latents.statistics
    for part, run, channels in (
        ("video_vae", config.video_vae, len(found["video_mean"])),
        ("audio_vae", config.audio_vae, len(found["audio_mean"])),
    ):
        has = getattr(export.part_config(run, part), "latent_channels", None)
        if has != channels:
            raise ValueError(
                f"samples.{part} ({run}) has {has or 'no'} latent channels, and the latents have "
                f"{channels}"
            )


def decode(video: Tensor, audio: Tensor, latents: Latents, config: SamplesConfig) -> list[Clip]:
    """Latents -> clips; the VAEs are there only meanwhile. ``latents`` has scale and geometry."""
    spec: ClipSpec = latents.spec
    vae = export.load_part(config.video_vae, "video_vae").to(video.device)
    pixels = [decode_video(vae, one, latents.scale["video"], spec.num_frames) for one in video]
    sound_vae = export.load_part(config.audio_vae, "audio_vae").to(audio.device)
    scale = latents.scale["audio"]
    sounds = [decode_audio(sound_vae, one, scale, spec.num_samples) for one in audio]
    rates = (spec.fps, spec.sample_rate)
    return [Clip(*both, *rates) for both in zip(pixels, sounds, strict=True)]


def write(clips: list[Clip], out: Path, step: int, board: SummaryWriter | None) -> None:
    """``samples/<step>-<number>.mp4``, and in TensorBoard as moving picture and sound; a wav where
    there are no pictures."""
    (out / "samples").mkdir(exist_ok=True)
    for index, clip in enumerate(clips):
        name = out / "samples" / f"{step:08d}-{index}"
        if len(clip.video):
            clip.save(name.with_suffix(".mp4"))
        else:
            media.write_wav(name.with_suffix(".wav"), clip.audio, clip.sample_rate)
        if board is None:
            continue
        if len(clip.video) and board.file_writer is not None:
            board.file_writer.add_summary(_moving_picture(f"clip_{index}", clip), step)
        board.add_audio(f"clip_{index}", clip.audio[None], step, clip.sample_rate)
    if board is not None:
        board.flush()


def _moving_picture(tag: str, clip: Clip) -> Summary:
    """TensorBoard's summary of a clip: a GIF, for which its own writer would need moviepy."""
    import io

    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    frames = [Image.fromarray(frame.movedim(0, -1).numpy()) for frame in clip.video]
    file = io.BytesIO()
    frames[0].save(
        file,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        loop=0,
        duration=round(1000 / clip.fps),
    )
    height, width = clip.video.shape[2:]
    image = Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=file.getvalue()
    )
    return Summary(value=[Summary.Value(tag=tag, image=image)])
