"""Clips and latents that stay on the device, and their random draws.

Letters: N clips, B batch, F frames, M samples, C video channels, T latent frames, A audio latents,
D audio channels, L tokens, E their width, V events.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.gpu.small.plan import CAPTIONS, EVENTS, SPEC, TOKENS
from benchmarks.gpu.small.world import Arrival, Record
from syncflow.clip import to_model
from syncflow.config import ModelConfig
from syncflow.detect.fidelity import moving_mask


class Raw:
    """Pixels and samples of the first clips, as the VAEs and the decoder train on them."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        F, H, W = SPEC.num_frames, SPEC.height, SPEC.width
        self.video_NF3HW = torch.empty(capacity, F, 3, H, W, dtype=torch.uint8, device=device)
        self.audio_NM = torch.empty(capacity, SPEC.num_samples, dtype=torch.int16, device=device)
        self.moving_NFHW = torch.empty(capacity, F, H, W, dtype=torch.bool, device=device)
        self.records: list[Record] = []
        self.count = torch.zeros((), device=device)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def room(self) -> int:
        """Clips that still fit."""
        return len(self.video_NF3HW) - len(self.records)

    def add(self, video_nF3HW: Tensor, audio_nM: Tensor, records: list[Record]) -> None:
        """Takes clips in: uint8 pictures, float sounds, and what is known of them."""
        first, last = len(self), len(self) + len(records)
        self.video_NF3HW[first:last] = video_nF3HW
        self.audio_NM[first:last] = audio_nM
        self.moving_NFHW[first:last] = moving_mask(to_model(video_nF3HW))[:, 0].bool()
        self.records += records
        self.count.fill_(len(self))

    def rows(self, batch: int) -> Tensor:
        """Numbers of ``batch`` clips at random, on the device."""
        return random_rows(batch, self.count)

    def video(self, rows_B: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Pieces of ``frames`` frames that begin with a latent frame: [B, 3, frames, H, W] in
        [-1, 1] and which pixels move, [B, 1, frames, H, W]."""
        starts = (SPEC.num_frames - frames) // 4 + 1
        first_B = 4 * (torch.rand(len(rows_B), device=rows_B.device) * starts).long()
        at_BF = first_B[:, None] + torch.arange(frames, device=rows_B.device)
        video = self.video_NF3HW[rows_B[:, None], at_BF]
        return to_model(video), self.moving_NFHW[rows_B[:, None], at_BF][:, None].float()

    def audio(self, rows_B: Tensor, samples: int) -> Tensor:
        """Pieces of sound that begin with a latent, 0 to 6 dB quieter: [B, samples]."""
        starts = (SPEC.num_samples - samples) // 960 + 1
        draw = torch.rand(2, len(rows_B), device=rows_B.device)
        first_B = 960 * (draw[0] * starts).long()
        at_BM = first_B[:, None] + torch.arange(samples, device=rows_B.device)
        gain_B1 = 10 ** (-0.3 * draw[1])[:, None]
        return self.audio_NM[rows_B[:, None], at_BM].float() / 32767 * gain_B1


@dataclass
class Batch:
    """A draw of latents, normalised: see ``Latents``."""

    video_BCTHW: Tensor
    audio_BAD: Tensor
    text_BLE: Tensor
    mask_BL: Tensor
    events_BV: Tensor


class Latents:
    """Normalised latents, captions' states and event times (seconds, NaN where there is none)."""

    def __init__(self, capacity: int, config: ModelConfig, device: torch.device) -> None:
        half = {"dtype": torch.float16, "device": device}
        T, h, w = SPEC.video_latent_shape
        C, D = config.ddit.video.in_channels, config.ddit.audio.in_channels
        E = config.text_encoder.d_model
        self.video_NCTHW = torch.empty(capacity, C, T, h, w, **half)
        self.audio_NAD = torch.empty(capacity, SPEC.audio_latent_length, D, **half)
        self.text_NKLE = torch.zeros(capacity, CAPTIONS, TOKENS, E, **half)
        self.mask_NKL = torch.zeros(capacity, CAPTIONS, TOKENS, dtype=torch.bool, device=device)
        self.events_NV = torch.full((capacity, EVENTS), float("nan"), device=device)
        self.level_N = torch.zeros(capacity, dtype=torch.long, device=device)
        self.count = torch.zeros((), device=device)
        self.size = 0

    @property
    def room(self) -> int:
        """Clips that still fit."""
        return len(self.level_N) - self.size

    def add(
        self, video: Tensor, audio: Tensor, text: Tensor, mask: Tensor, records: list[Record]
    ) -> None:
        """Takes latents in, with the tokens [n, K, L, E] and masks of K captions each."""
        rows = slice(self.size, self.size + len(records))
        self.video_NCTHW[rows] = video.half()
        self.audio_NAD[rows] = audio.half()
        self.text_NKLE[rows] = text.half()
        self.mask_NKL[rows] = mask
        events = torch.full((len(records), EVENTS), float("nan"))
        for row, record in enumerate(records):
            events[row, : len(record.events_s)] = torch.tensor(record.events_s)
        self.events_NV[rows] = events.to(self.events_NV.device)
        self.level_N[rows] = torch.tensor([r.level for r in records]).to(self.level_N.device)
        self.size += len(records)
        self.count.fill_(self.size)

    def draw(self, batch: int) -> Batch:
        """Random clips, each with one of its captions."""
        rows_B = random_rows(batch, self.count)
        which_B = (torch.rand(batch, device=rows_B.device) * CAPTIONS).long()
        return self.take(rows_B, which_B)

    def take(self, rows_B: Tensor, which_B: Tensor) -> Batch:
        """The clips ``rows_B``, each with its caption number ``which_B``, float32."""
        return Batch(
            self.video_NCTHW[rows_B].float(),
            self.audio_NAD[rows_B].float(),
            self.text_NKLE[rows_B, which_B].float(),
            self.mask_NKL[rows_B, which_B],
            self.events_NV[rows_B],
        )


class Encoders:
    """The trained VAEs and text encoder: clips to what ``Latents`` keeps."""

    def __init__(
        self, video_vae: nn.Module, audio_vae: nn.Module, text: nn.Module, device: torch.device
    ) -> None:
        self.video_vae, self.audio_vae, self.text, self.device = video_vae, audio_vae, text, device
        self.scale: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def raw_latents(self, video_nF3HW: Tensor, audio_nM: Tensor) -> tuple[Tensor, Tensor]:
        """As the VAEs give them, [n, C, T, h, w] and [n, A, D]."""
        video = self.video_vae.encode(to_model(video_nF3HW)).mode()
        return video, self.audio_vae.encode(audio_nM.float() / 32767).mode()

    @torch.no_grad()
    def words(self, records: list[Record]) -> tuple[Tensor, Tensor]:
        """States [n, K, L, E] and masks [n, K, L] of all captions."""
        texts = [caption for record in records for caption in record.captions]
        states, mask = self.text.encode(texts)
        states, mask = states[:, :TOKENS], mask[:, :TOKENS]
        pad = TOKENS - states.shape[1]
        states = nn.functional.pad(states.float(), (0, 0, 0, pad))
        mask = nn.functional.pad(mask, (0, pad))
        shape = (len(records), CAPTIONS, TOKENS)
        return states.view(*shape, -1), mask.view(shape)

    def measure(self, video: Tensor, audio: Tensor) -> None:
        """Takes the statistics that latents are normalised by from these."""
        self.scale = {
            "video": _statistics(video.transpose(0, 1).flatten(1)),
            "audio": _statistics(audio.flatten(0, 1).T),
        }

    def adopt(self, config: ModelConfig) -> None:
        """Takes the statistics that a trained model works with."""
        for kind in ("video", "audio"):
            values = [getattr(config, f"latent_{which}_{kind}") for which in ("mean", "std")]
            if None in values:
                raise ValueError(f"the model's config has no statistics of its {kind} latents")
            self.scale[kind] = tuple(torch.tensor(v, device=self.device) for v in values)

    def normal(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of mean 0 and deviation 1 in every channel."""
        mean, std = (x[:, None, None, None] for x in self.scale["video"])
        audio_mean, audio_std = self.scale["audio"]
        return (video - mean) / std, (audio - audio_mean) / audio_std

    def raw_video(self, latent_BCTHW: Tensor) -> Tensor:
        """The VAE's own latents again."""
        mean, std = (x[:, None, None, None] for x in self.scale["video"])
        return latent_BCTHW * std + mean

    def add(self, latents: Latents, video: Tensor, audio: Tensor, records: list[Record]) -> None:
        """Encodes clips into ``latents``, as many as it has room for."""
        records = records[: latents.room]
        if records:
            n = len(records)
            pair = self.normal(*self.raw_latents(video[:n], audio[:n]))
            latents.add(*pair, *self.words(records), records)


def uploaded(arrivals: list[Arrival], device: torch.device) -> tuple[Tensor, Tensor, list[Record]]:
    """The clips of several slots on the device."""
    video = torch.cat([torch.from_numpy(a.video).to(device) for a in arrivals])
    audio = torch.cat([torch.from_numpy(a.audio).to(device) for a in arrivals])
    return video, audio, [record for a in arrivals for record in a.records]


def random_rows(batch: int, count: Tensor) -> Tensor:
    """[batch] row numbers below ``count``, a 0-dim tensor: drawn without the host."""
    draw_B = torch.rand(batch, device=count.device) * count
    return torch.minimum(draw_B, count - 1).long()


def _statistics(values_CN: Tensor) -> tuple[Tensor, Tensor]:
    values = values_CN.double()
    return values.mean(1).float(), values.std(1).clamp(min=1e-4).float()
