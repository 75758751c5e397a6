"""Training steps of the d-DiT's towers, and of the decoder on what the video tower makes.

The video tower learns text to picture; the audio tower and the adaptors learn on finished pictures
with the video tower as it is, as the cascade schedule samples. Letters as in ``pool``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.gpu.small.encoders import autocast, moving_error
from benchmarks.gpu.small.graph import Tally
from benchmarks.gpu.small.optimizer import Optimizer
from benchmarks.gpu.small.plan import SPEC
from benchmarks.gpu.small.pool import Batch, Encoders, Latents, Raw
from syncflow import flow
from syncflow.models.ddit import Condition, DDiT
from syncflow.training.losses import reconstruction

TEXT_DROPOUT, EVENT_DROPOUT, GIVEN, CLEAN_NOISE = 0.1, 0.5, 0.15, 0.05
_TIME_MEAN, _UNIFORM_SHARE = -0.5, 0.2
_VALIDATION_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


class Towers:
    """Both towers' steps, each a function of the device's tensors alone.

    Args:
        model: in float32, which the optimizers keep.
        dtype: that it computes in from now on.
    """

    lr, decay = 2.5e-3, 0.6

    def __init__(self, model: DDiT, latents: Latents, batch: int, dtype: torch.dtype) -> None:
        self.model, self.latents, self.batch = model, latents, batch
        self.device = latents.count.device
        named = list(model.named_parameters())
        video = [(n, p) for n, p in named if n.startswith(("video_tower.", "event_embedder."))]
        known = {name for name, _ in video}
        self.video = Optimizer(video)
        self.audio = Optimizer([(n, p) for n, p in named if n not in known])
        self.dtype = dtype
        model.to(dtype)
        self.tally_video = Tally(("video", "video_early"), self.device)
        self.tally_audio = Tally(("audio",), self.device)

    def video_step(self) -> None:
        """One update of the video tower."""
        batch = self.latents.draw(self.batch)
        text, mask = self._text(batch)
        x_1, B = batch.video_BCTHW, self.batch
        t_B = self._times(B)
        moving_BT = self._spans(B, x_1.shape[2])
        moving = moving_BT[:, None, :, None, None]
        x_0 = torch.randn_like(x_1)
        given = x_1 + CLEAN_NOISE * torch.randn_like(x_1)
        x_t = torch.where(moving, flow.interpolate(x_0, x_1, t_B), given)
        events = self._events(batch.events_BV)
        context = self.model.read(text.to(self.dtype), mask, SPEC, events)
        condition = Condition(context, None, SPEC)
        velocity, _ = self.model.video_velocity(x_t, t_B, condition, moving_BT)
        loss_B = flow.loss(velocity, flow.velocity(x_0, x_1), moving)
        self.video.step(
            torch.autograd.grad(loss_B.mean(), self.video.parameters, allow_unused=True)
        )
        early = (t_B < 0.4).float()
        self.tally_video.add(loss_B.mean(), (loss_B * early).sum() / early.sum().clamp(min=1))

    def audio_step(self) -> None:
        """One update of the audio tower and the adaptors, on clean pictures."""
        batch = self.latents.draw(self.batch)
        text, mask = self._text(batch)
        y_1, B = batch.audio_BAD, self.batch
        t_B = self._times(B)
        x_1 = batch.video_BCTHW + CLEAN_NOISE * torch.randn_like(batch.video_BCTHW)
        moving_BA = self._spans(B, y_1.shape[1])
        moving = moving_BA[..., None]
        y_0 = torch.randn_like(y_1)
        y_t = torch.where(moving, flow.interpolate(y_0, y_1, t_B), y_1)
        context, condition = self._finished(x_1, text, mask, self._events(batch.events_BV))
        velocity = self.model.audio_velocity(y_t, t_B, context, condition, latent_mask=moving_BA)
        loss_B = flow.loss(velocity, flow.velocity(y_0, y_1), moving)
        self.audio.step(
            torch.autograd.grad(loss_B.mean(), self.audio.parameters, allow_unused=True)
        )
        self.tally_audio.add(loss_B.mean())

    def losses(self) -> dict[str, float]:
        """Means since the last reading."""
        return self.tally_video.read() | self.tally_audio.read()

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights of the whole model, float32, buffers included."""
        state = {k: v.detach().float() for k, v in self.model.state_dict().items()}
        return state | self.video.averaged() | self.audio.averaged()

    def _finished(self, x_1: Tensor, text: Tensor, mask: Tensor, events: Tensor | None):
        """What the audio tower reads of clean pictures; no gradient reaches the video tower."""
        model = self.model
        with torch.no_grad():
            context = model.read(text.to(self.dtype), mask, SPEC, events)
            ones_B = torch.ones(len(x_1), device=self.device)
            _, features = model.video_velocity(x_1, ones_B, Condition(context, None, SPEC))
        audio = model.audio_tower.prepare(context.tokens_BLC, mask)
        condition = Condition(context, audio, SPEC)
        return model.audio_context(features, condition), condition

    def _text(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Some captions give way to as much of the null caption as they were long."""
        null_LE = self.model.video_tower.y_embedder.y_embedding[: batch.text_BLE.shape[1]].float()
        drop_B = torch.rand(len(batch.text_BLE), device=self.device) < TEXT_DROPOUT
        return torch.where(drop_B[:, None, None], null_LE, batch.text_BLE), batch.mask_BL

    def _events(self, events_BV: Tensor) -> Tensor | None:
        """Half of the samples are not told when things happen."""
        if self.model.event_embedder is None:
            return None
        drop_B = torch.rand(len(events_BV), device=self.device) < EVENT_DROPOUT
        nothing = torch.full_like(events_BV, float("nan"))
        return torch.where(drop_B[:, None], nothing, events_BV)

    def _times(self, size: int) -> Tensor:
        draws = torch.rand(2, size, device=self.device)
        t_B = torch.sigmoid(_TIME_MEAN + torch.randn(size, device=self.device))
        return torch.where(draws[0] < _UNIFORM_SHARE, draws[1], t_B)

    def _spans(self, size: int, length: int) -> Tensor:
        """[size, length], False = given. In a share of the samples one span is to be made, with
        what is before it, after it or both given."""
        u = torch.rand(4, size, device=self.device)
        width = 1 + (u[0] * (length - 1)).floor()
        first = (u[1] * (length - width + 1)).floor()
        first = torch.where(u[2] < 0.5, length - width, first)  # half: only the beginning is given
        place = torch.arange(length, device=self.device)
        inside = (place >= first[:, None]) & (place < (first + width)[:, None])
        return inside | (u[3] >= GIVEN)[:, None]


@torch.no_grad()
def validate(model: DDiT, held_out: Latents) -> dict[str, float]:
    """Mean square errors of velocities on held-out clips at fixed times, by level for the picture;
    the sound on its own picture and on another clip's: the gap is what it has learned from it."""
    device, size = held_out.count.device, held_out.size
    generator = torch.Generator(device).manual_seed(0)
    rows_N = torch.arange(size, device=device)
    batch = held_out.take(rows_N, torch.zeros_like(rows_N))
    dtype = model.video_tower.y_embedder.y_embedding.dtype
    condition = model.prepare(batch.text_BLE.to(dtype), batch.mask_BL, SPEC)
    ones_N = torch.ones(size, device=device)
    _, features = model.video_velocity(batch.video_BCTHW, ones_N, condition)
    context = model.audio_context(features, condition)
    others = model.audio_context([f.roll(1, 0) for f in features], condition)
    found: dict[str, list[Tensor]] = {}
    for time in _VALIDATION_TIMES:
        t_N = torch.full((size,), time, device=device)
        x_1, y_1 = batch.video_BCTHW, batch.audio_BAD
        x_0 = torch.randn(x_1.shape, generator=generator, device=device)
        y_0 = torch.randn(y_1.shape, generator=generator, device=device)
        velocity, _ = model.video_velocity(flow.interpolate(x_0, x_1, t_N), t_N, condition)
        video_N = flow.loss(velocity, flow.velocity(x_0, x_1))
        found.setdefault("val_video", []).append(video_N)
        for level in (1, 2, 3, 4):
            some = video_N[held_out.level_N[:size] == level]
            if len(some):
                found.setdefault(f"val_video_{level}", []).append(some)
        y_t = flow.interpolate(y_0, y_1, t_N)
        for name, seen in (("val_audio", context), ("val_audio_other", others)):
            velocity = model.audio_velocity(y_t, t_N, seen, condition)
            found.setdefault(name, []).append(flow.loss(velocity, flow.velocity(y_0, y_1)))
    return {name: round(float(torch.cat(values).mean()), 4) for name, values in found.items()}


class DecoderSteps:
    """The video decoder on latents as the tower makes them: a clip's latent, noised to a middle
    time and made clean again by the tower, and, in half of each batch, one with a little noise.

    ``model`` has its final weights; ``rows`` of ``latents`` and ``raw`` are the same clips.
    """

    lr, warm_up, decay = 1e-3, 30, 0.7
    moving_weight, steps, times = 8.0, 3, (0.55, 0.95)

    def __init__(
        self, encoders: Encoders, model: DDiT, latents: Latents, raw: Raw, batch: int
    ) -> None:
        self.encoders, self.model, self.latents, self.raw = encoders, model, latents, raw
        self.vae, self.batch = encoders.video_vae, batch
        self.device = raw.count.device
        decoder = [(n, p) for n, p in self.vae.named_parameters() if n.startswith("decoder.")]
        for _, parameter in decoder:
            parameter.requires_grad_(True)
        self.optimizer = Optimizer(decoder, weight_decay=0.01, ema=0.99)
        self.tally = Tally(("loss", "moving_mse"), self.device)

    @torch.no_grad()
    def worn(self, rows_B: Tensor) -> Tensor:
        """Normalised latents of clips, as far from the encoder's as a sampler's."""
        which_B = torch.zeros_like(rows_B)
        batch, B = self.latents.take(rows_B, which_B), len(rows_B)
        x_1 = batch.video_BCTHW
        dtype = self.model.video_tower.y_embedder.y_embedding.dtype
        condition = self.model.prepare(batch.text_BLE.to(dtype), batch.mask_BL, SPEC)
        low, high = self.times
        t_B = low + (high - low) * torch.rand(B, device=self.device)
        h_B = (1 - t_B) / self.steps
        x = flow.interpolate(torch.randn_like(x_1), x_1, t_B)
        for _ in range(self.steps):
            velocity, _ = self.model.video_velocity(x, t_B, condition)
            x = x + h_B[:, None, None, None, None] * velocity
            t_B = t_B + h_B
        noise = torch.rand(B, 1, 1, 1, 1, device=self.device) * 0.12 * torch.randn_like(x_1)
        plain_B = torch.rand(B, device=self.device) < 0.5
        return torch.where(plain_B[:, None, None, None, None], x_1 + noise, x)

    def step(self) -> None:
        """One update of the decoder on latents as a sampler leaves them."""
        rows_B = self.raw.rows(self.batch)
        latent = self.encoders.raw_video(self.worn(rows_B))
        video, moving = self.raw.video(rows_B, SPEC.num_frames)
        with autocast(self.device):
            out = self.vae.decode(latent)
        loss = reconstruction.video_reconstruction(out, video, self.moving_weight, moving)
        self.optimizer.step(torch.autograd.grad(loss, self.optimizer.parameters))
        self.tally.add(loss, moving_error(out, video, moving))

    def finish(self) -> None:
        """The averaged weights become the decoder's."""
        self.vae.load_state_dict(self.optimizer.averaged(), strict=False)
        self.vae.requires_grad_(False)
