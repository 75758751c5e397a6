"""Clips made while a model trains: from the validation set's text, without a text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from syncflow import flow
from syncflow.clip import Clip, ClipSpec, to_pixels
from syncflow.config import SamplingConfig
from syncflow.models.ddit import DDiT
from syncflow.sampler import GuidedVelocity, encode_captions
from syncflow.training import export
from syncflow.training.settings import SamplesConfig


def sample(
    model: DDiT, batch: dict[str, Tensor], spec: ClipSpec, sampling: SamplingConfig
) -> tuple[Tensor, Tensor]:
    """Normalised latents, video [B, Cz, T, h, w] and audio [B, A, D]; always the same noise."""
    device = batch["text"].device
    generator = torch.Generator().manual_seed(0)
    start = tuple(
        torch.randn(batch[kind].shape, generator=generator).to(device)
        for kind in ("video", "audio")
    )
    captions = encode_captions(
        model, _Read(batch), ["-"] * len(batch["text"]), spec, batch["text"].dtype,
        null_caption=sampling.null_caption,
    )
    guidance = sampling.guidance
    audio_guidance = guidance if sampling.audio_guidance is None else sampling.audio_guidance
    velocity = GuidedVelocity(model, captions, guidance, audio_guidance)
    path = flow.schedule(
        sampling.schedule, sampling.steps,
        sampling.audio_steps if sampling.schedule == "cascade" else None, sampling.shift,
    )
    return flow.integrate(velocity, start, path, sampling.solver)


class _Read:
    """Stands in for a text encoder: the captions were read when the data were prepared."""

    def __init__(self, batch: dict[str, Tensor]) -> None:
        self.read = batch["text"], batch["mask"]

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        return self.read


def decode(video: Tensor, audio: Tensor, latents: Any, config: SamplesConfig) -> list[Clip]:
    """Latents -> clips; the VAEs are there only meanwhile. ``latents`` has scale and geometry."""
    spec: ClipSpec = latents.spec
    video_mean, video_std = latents.scale["video"]
    audio_mean, audio_std = latents.scale["audio"]
    pixels, sounds = [], []
    vae = export.load_part(config.video_vae, "video_vae").to(video.device)
    for one in video.float() * video_std.to(video.device) + video_mean.to(video.device):
        pixels.append(to_pixels(vae.decode(one[None], num_frames=spec.num_frames)[0]).cpu())
    vae = export.load_part(config.audio_vae, "audio_vae").to(audio.device)
    for one in audio.float() * audio_std.to(audio.device) + audio_mean.to(audio.device):
        sound = vae.decode(one[None], num_samples=spec.num_samples)[0]
        sounds.append(sound.float().clamp(-1, 1).cpu())
    rates = (spec.fps, spec.sample_rate)
    return [Clip(*both, *rates) for both in zip(pixels, sounds, strict=True)]


def write(clips: list[Clip], out: Path, step: int, board: Any | None) -> None:
    """``samples/<step>-<number>.mp4``, and in TensorBoard as moving picture and sound."""
    (out / "samples").mkdir(exist_ok=True)
    for index, clip in enumerate(clips):
        clip.save(out / "samples" / f"{step:08d}-{index}.mp4")
        if board is None:
            continue
        board.file_writer.add_summary(_moving_picture(f"clip_{index}", clip), step)
        board.add_audio(f"clip_{index}", clip.audio[None], step, clip.sample_rate)
    if board is not None:
        board.flush()


def _moving_picture(tag: str, clip: Clip) -> Any:
    """TensorBoard's summary of a clip: a GIF, for which its own writer would need moviepy."""
    import io

    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    frames = [Image.fromarray(frame.movedim(0, -1).numpy()) for frame in clip.video]
    file = io.BytesIO()
    frames[0].save(
        file, "GIF", save_all=True, append_images=frames[1:], loop=0,
        duration=round(1000 / clip.fps),
    )
    height, width = clip.video.shape[2:]
    image = Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=file.getvalue()
    )
    return Summary(value=[Summary.Value(tag=tag, image=image)])
