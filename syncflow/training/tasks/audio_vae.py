"""Training of the audio VAE on the sound of clips, or of any recordings."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from syncflow.clip import AUDIO_HOP, Clip
from syncflow.data.recordings import Recordings
from syncflow.data.shards import ClipShards
from syncflow.detect import fidelity, onsets
from syncflow.interop import encodec
from syncflow.models.audio_vae import AudioVAE
from syncflow.models.codec import AudioCodec
from syncflow.models.vae import build_audio_vae
from syncflow.training.datasets.clips import Crops, Shares
from syncflow.training.distributed import side_stream
from syncflow.training.distributed.groups import Group
from syncflow.training.losses import reconstruction, spectral
from syncflow.training.losses.discriminators import SpectralDiscriminator
from syncflow.training.settings import AudioVAETask
from syncflow.training.tasks import vae
from syncflow.training.tasks.vae import VAETraining

_GAIN = -0.3  # powers of ten: the quietest that a crop is made
_SECONDS = 2.0  # of a recording, in validation
_PAUSE = 0.25  # s between an original and its copy
_TRIES = 16  # recordings in a row that may be damaged


class AudioVAETraining(VAETraining):
    """Spectral reconstruction, the waveform and KL, on random pieces of soundtracks."""

    module: AudioCodec
    config: AudioVAETask
    # A constant, but part of the loss of runs that went before.
    _frozen_has_no_kl = False

    def __init__(
        self, config: AudioVAETask, device: str = "cpu", group: Group | None = None
    ) -> None:
        module = build_audio_vae(config.model)
        if config.init_encodec:
            encodec.init_audio_vae(cast(AudioVAE, module), config.init_encodec)
        group = group or Group(device=torch.device(device))
        super().__init__(config, module, "audio_vae", 2, group)
        self.rate = config.model.sample_rate
        self.train: ClipShards | Recordings | Shares
        if isinstance(config.data, str):
            self.train = self._sounds(config.data)
            if isinstance(self.train, ClipShards):
                self._check(config.data, self.train)
        else:
            self.train = Shares(config.data, config.loop, group)
            for folder in self.train.folders:
                self._check(folder.name, folder.clips)
        self.validation = self._sounds(config.validation)
        self._damaged: set[int] = set()

    def _sounds(self, folder: str) -> ClipShards | Recordings:
        return vae.shards(folder) or Recordings(folder, "sound", self.rate)

    def _check(self, name: str, clips: ClipShards) -> None:
        if clips.sample_rate != self.rate:
            raise ValueError(f"{name} has {clips.sample_rate} Hz, and the model {self.rate}")
        there, wanted = clips.geometry["seconds"], self.config.seconds
        if there < wanted:
            raise ValueError(f"{name} has clips of {there:g} s, and a crop is {wanted:g} s")

    def batch(self, index: int) -> Crops:
        if not isinstance(self.train, Shares):
            return super().batch(index)
        drawn = self.train.draws(index)
        pieces = [self._piece(folder.clips, row, rng) for folder, row, rng in drawn]
        return Crops(self._on_device(np.stack(pieces)), index)

    def _count(self) -> int:
        assert not isinstance(self.train, Shares)  # they draw for themselves
        return len(self.train)

    def _discriminator(self) -> nn.Module:
        settings = self.config.adversarial
        assert settings is not None
        return SpectralDiscriminator(self.config.windows, settings.filters)

    def _weights(self) -> dict[str, float]:
        level = {"level": self.config.level_weight} if self.config.level_weight else {}
        return {"recon": 1.0, "wave": self.config.wave_weight, **level}

    def _losses(self, out: Tensor, batch: Crops) -> dict[str, Tensor]:
        original = batch.originals
        losses = {}
        if self.config.level_weight:
            losses["level"] = reconstruction.level_difference(out, original).abs().mean()
        if self.config.reconstruction == "mel":
            recon = spectral.mel_distance(out, original, self.rate)
            return losses | {"recon": recon, "wave": (out - original).abs().mean()}
        recon = reconstruction.audio_reconstruction(out, original, self.config.band_weight)
        size = original.abs().mean(1) + 2e-3
        wave = ((out - original).abs().mean(1) / size).mean()
        return losses | {"recon": recon, "wave": wave}

    def _decode(self, latent: Tensor, original: Tensor) -> Tensor:
        return self.module.decode(latent, num_samples=original.shape[1])

    def _crop(self, clip: int, rng: np.random.Generator) -> np.ndarray:
        assert not isinstance(self.train, Shares)
        if isinstance(self.train, ClipShards):
            return self._piece(self.train, clip, rng)
        length, place, gain = self._length(self.rate), rng.random(), 10 ** rng.uniform(_GAIN, 0.0)
        for number in range(clip, clip + _TRIES):
            index = number % len(self.train)
            try:
                room = max(0.0, self.train.seconds(index) - length / self.rate)
                return self.train.audio(index, place * room, length) * np.float32(gain)
            except ValueError as error:  # hours of training do not end with one file
                if index not in self._damaged:
                    print(f"{error}; the next recording stands in for it", flush=True)
                self._damaged.add(index)
        raise ValueError(f"{_TRIES} recordings in a row in '{self.config.data}' cannot be decoded")

    def _piece(self, clips: ClipShards, row: int, rng: np.random.Generator) -> np.ndarray:
        """A random crop of a clip of shards, not always as loud as it is."""
        length = self._length(clips.sample_rate)
        audio = clips.audio(row)
        first = AUDIO_HOP * int(rng.integers(0, (len(audio) - length) // AUDIO_HOP + 1))
        gain = 10 ** rng.uniform(_GAIN, 0.0)
        return audio[first : first + length] * gain

    def _length(self, rate: int) -> int:
        """Samples of a crop."""
        return round(self.config.seconds * rate / AUDIO_HOP) * AUDIO_HOP

    def _on_device(self, pieces: np.ndarray) -> Tensor:
        return side_stream.send(torch.from_numpy(pieces.astype(np.float32)), self.device)

    def validate(self, module: nn.Module) -> dict[str, float]:
        audio, times = self._held_out(vae.VALIDATION_CLIPS)
        out = self._copied(cast(AudioCodec, module), audio)
        ratio = fidelity.si_sdr(out, audio)
        return {
            "spectral_db": fidelity.spectral_distance(out, audio),
            "mel_db": fidelity.mel_distance(out, audio, self.rate),
            "si_sdr_db": float(ratio.nanmean()),
            "loudness_db": float(20 * torch.log10(out.std() / audio.std())),
            **onsets.score(list(out), times, self.rate),
        }

    def clips(self, module: nn.Module) -> list[Clip]:
        """A sound, a pause, and what the VAE makes of it; without pictures."""
        if not self.group.leads and self.config.loop.deepspeed is None:
            return []
        audio, _ = self._held_out(vae.SAMPLES)
        pause = torch.zeros(len(audio), round(_PAUSE * self.rate))
        both = torch.cat([audio, pause, self._copied(cast(AudioCodec, module), audio)], dim=1)
        none = torch.zeros(0, 3, 2, 2, dtype=torch.uint8)
        return [Clip(none, sound.clamp(-1, 1), sample_rate=self.rate) for sound in both]

    def _copied(self, codec: AudioCodec, audio_BM: Tensor) -> Tensor:
        there = audio_BM.to(self.device, next(codec.parameters()).dtype)
        out = codec.decode(codec.encode(there).mode(), num_samples=audio_BM.shape[1])
        return out.float().cpu()

    def _held_out(self, count: int) -> tuple[Tensor, list[list[float]]]:
        """The first sounds [B, M] of the validation set, and the times of their contacts: known, or
        as they are heard in the original."""
        rows = range(min(count, len(self.validation)))
        if isinstance(self.validation, ClipShards):
            audio = torch.from_numpy(np.stack([self.validation.audio(i) for i in rows]))
            return audio, [self.validation.contact_times(i) for i in rows]
        length = math.ceil(_SECONDS * self.rate / AUDIO_HOP) * AUDIO_HOP
        sounds = []
        for i in rows:
            room = max(0.0, self.validation.seconds(i) - _SECONDS)
            sounds.append(torch.from_numpy(self.validation.audio(i, room / 2, length)))
        return torch.stack(sounds), [onsets.times(sound, self.rate) for sound in sounds]
