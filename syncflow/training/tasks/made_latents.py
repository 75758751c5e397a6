"""Latents of clips as a model makes them, for the video decoder to train on.

A decoder that has only seen the encoder's latents is given a sampler's. Those of a caption alone
have no picture to compare with; those that a sampler denoises from a clip's own latents, noised,
are near that clip's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from syncflow import flow
from syncflow.clip import ClipSpec
from syncflow.data import made_latents
from syncflow.data.encoders import weights_hash
from syncflow.data.shards import ClipShards
from syncflow.generation import noise
from syncflow.generation.pipeline import SyncFlow, load
from syncflow.generation.request import resolve
from syncflow.generation.sampler import GuidedVelocity, advance, encode_captions
from syncflow.models.codec import ENCODING
from syncflow.models.latent_space import Scale, encode_video
from syncflow.training.settings import MadeLatentsTask


def make(config: MadeLatentsTask, device: torch.device, progress: bool = True) -> Path:
    """Writes ``config.out`` (``made_latents``); a cut-off run goes on where it was.

    Raises:
        ValueError: the clips are not of the model's geometry, or ``out`` holds something else.
    """
    clips, model = ClipShards(config.data), load(config.model, device)
    spec = ClipSpec(**clips.geometry)
    if spec != model.config.geometry.spec:
        raise ValueError(f"{config.data} has clips of {spec}, the model {model.config.geometry}")
    count = min(config.clips or len(clips), len(clips))
    facts = {
        "encoder": weights_hash(model.video_vae, ENCODING),
        "ddit": weights_hash(model.ddit),
        "data": clips.about,
        "sampling": model.config.sampling.model_dump(),
        "start": list(config.start),
        "seed": config.seed,
    }

    def rows(which: range) -> dict[str, Tensor]:
        return _made(model, clips, which, config)

    out = Path(config.out)
    return made_latents.write(out, count, config.batch_size, facts, rows, progress)


@torch.inference_mode()
def _made(
    model: SyncFlow, clips: ClipShards, rows: range, config: MadeLatentsTask
) -> dict[str, Tensor]:
    """The rows of some clips: latent, distance, time."""
    sampling, spec, device = model.config.sampling, model.config.geometry.spec, model.device
    captions = [clips.caption(row) for row in rows]
    asked = resolve(sampling, captions, {})
    scale = Scale.of_video(model.config.latent_mean_video, model.config.latent_std_video)
    frames = [torch.from_numpy(clips.video(row).copy()) for row in rows]
    x_1 = encode_video(model.video_vae, frames, scale, device)
    low, high = config.start
    t = low + (high - low) * np.random.default_rng([config.seed, rows.start]).random()
    # By clip, so that a clip's noise does not depend on how many are made at once.
    sources = noise.generators(config.seed + row for row in rows)
    x_0 = torch.stack([source.normal(x_1.shape[1:]) for source in sources])
    x_t = flow.interpolate(x_0.to(device), x_1, torch.full((len(rows),), t, device=device))
    velocity = GuidedVelocity(
        model.ddit,
        encode_captions(
            model.ddit,
            model.text_encoder,
            captions,
            spec,
            model.dtype,
            null_caption=sampling.null_caption,
        ),
        asked.guidance,
        asked.audio_guidance,
        interval=(sampling.guidance_start, sampling.guidance_end),
    )
    silence = torch.zeros(len(rows), 1, 1, device=device)
    made, _ = flow.integrate(
        velocity,
        (x_t, silence),
        _path(t, sampling.steps, sampling.shift),
        sampling.solver,
        advance=advance,
        eta=(sampling.eta, 0.0),
        noise=noise.fresh(sources),
        eta_start=sampling.eta_start,
    )
    return {
        "latent": scale.denormalize(made).half().cpu(),
        "distance": (made - x_1).square().mean((1, 3, 4)).cpu(),
        "time": torch.full((len(rows),), t),
    }


def _path(t: float, steps: int, shift: float) -> Tensor:
    """The picture's clock from ``t`` on through the times that a sampler stops at; the sound's
    stands still. [N + 1, 2]."""
    times = flow.times(steps, shift)
    times = torch.cat([times.new_tensor([t]), times[times > t]])
    return torch.stack([times, torch.zeros_like(times)], dim=1)
