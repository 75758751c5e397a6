"""Training of the two VAEs on raw clips: what both have."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from syncflow.data.shards import ClipShards
from syncflow.models.codec import ENCODING, AudioCodec, VideoCodec
from syncflow.models.posterior import DiagonalGaussian
from syncflow.training.checkpoints import weights
from syncflow.training.datasets.buckets import epoch_indices
from syncflow.training.datasets.clips import CROPS, Crops
from syncflow.training.distributed.groups import Group
from syncflow.training.losses import adversarial
from syncflow.training.losses.balance import Balancer
from syncflow.training.settings import VAETask
from syncflow.training.tasks import randomness
from syncflow.training.tasks.randomness import Source
from syncflow.training.tasks.task import Task

VALIDATION_CLIPS = 32
SAMPLES = 4  # reconstructions that are written now and then
M = TypeVar("M", bound=nn.Module)


class VAETraining(Task[Crops]):
    """Reconstruction and KL, and from a step on a discriminator's verdict.

    Args:
        config: of an audio or a video VAE.
        module: its VAE.
        channel_axis: of its latents.
        discriminator: judges reconstructions, where the config has a part for it.
        group: the processes that train together.
    """

    module: AudioCodec | VideoCodec

    def __init__(
        self,
        config: VAETask,
        module: AudioCodec | VideoCodec,
        part: str,
        channel_axis: int,
        group: Group,
    ) -> None:
        self.config, self.group, self.device = config, group, group.device
        self.channel_axis = channel_axis
        self.module = _prepared(module, config, part)
        group.rows(config.loop.batch_size)
        self.clips_every = config.samples_every
        self.critic_settings = config.adversarial
        self._judged: tuple[Tensor, Tensor] | None = None
        if config.adversarial is not None:
            self.critic = nn.ModuleDict(
                {"discriminator": self._discriminator(), "balancer": self._balancer()}
            )

    @abstractmethod
    def _discriminator(self) -> nn.Module:
        """Of reconstructions like those of this VAE."""

    @abstractmethod
    def _weights(self) -> dict[str, float]:
        """Of the losses on the output, by their names."""

    @abstractmethod
    def _losses(self, out: Tensor, batch: Crops) -> dict[str, Tensor]:
        """Scalars by the names of ``_weights``."""

    @abstractmethod
    def _decode(self, latent: Tensor, original: Tensor) -> Tensor:
        """As long as the original."""

    @abstractmethod
    def _crop(self, clip: int, rng: np.random.Generator) -> np.ndarray:
        """A random piece of a training clip."""

    def batch(self, index: int) -> Crops:
        loop = self.config.loop
        picks = epoch_indices(self._count(), loop.seed, index, loop.batch_size)
        if loop.randomness == "batch":
            rng = np.random.default_rng([loop.seed, CROPS, index])
            pieces = [self._crop(int(pick), rng) for pick in picks]
        else:
            share = self.group.rows(len(picks))
            places = range(index * len(picks), (index + 1) * len(picks))
            pieces = [
                self._crop(int(pick), np.random.default_rng([loop.seed, CROPS, place]))
                for pick, place in zip(picks[share], places[share], strict=True)
            ]
        return Crops(self._on_device(np.stack(pieces)), index)

    @abstractmethod
    def _count(self) -> int:
        """Training clips."""

    @abstractmethod
    def _on_device(self, pieces: np.ndarray) -> Tensor:
        """As the VAE sees them."""

    def loss(self, batch: Crops, source: Source) -> tuple[Tensor, dict[str, Tensor | float]]:
        original, config = batch.originals, self.config
        latent, kl = self._latents(batch, source)
        out = self._decode(latent, original)
        with torch.autocast(original.device.type, enabled=False):
            if self._has_critic(batch.index):
                out = out.float()
                losses = self._losses(out, batch)
                verdicts = self._verdicts(out, original)
                losses |= {
                    "adversarial": adversarial.of_generator(verdicts[1]),
                    "features": adversarial.of_features(*verdicts),
                }
                total = self._critic_part("balancer")(losses, out)
                self._judged = out.detach(), original
            else:
                self._judged = None
                losses = self._losses(out, batch)
                total = self._sum(losses)
        if not (config.freeze_encoder and self._frozen_has_no_kl):
            total = total + config.kl_weight * kl
        return total, {**{name: value.item() for name, value in losses.items()}, "kl": kl.item()}

    def _latents(self, batch: Crops, source: Source) -> tuple[Tensor, Tensor]:
        """What the decoder is given, and the KL of what was encoded."""
        return self._encoded(batch.originals, source)

    def _encoded(self, original: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        posterior = self.module.encode(original.to(next(self.module.parameters()).dtype))
        return _draw(posterior, self.config, self.channel_axis, source), _kl(posterior)

    #: Whether a frozen encoder's KL is left out of the loss, to which it adds a constant.
    _frozen_has_no_kl = True

    def _sum(self, losses: Mapping[str, Tensor]) -> Tensor:
        total: Tensor | None = None
        for name, weight in self._weights().items():
            part = losses[name] if weight == 1 else weight * losses[name]
            total = part if total is None else total + part
        assert total is not None
        return total

    def _has_critic(self, index: int) -> bool:
        config = self.config
        if config.adversarial is None:
            return False
        return index // config.loop.accumulate >= config.adversarial.start

    def _critic_part(self, name: str) -> nn.Module:
        assert isinstance(self.critic, nn.ModuleDict)
        return self.critic[name]

    def _verdicts(
        self, out: Tensor, original: Tensor
    ) -> tuple[adversarial.Verdicts, adversarial.Verdicts]:
        """Of the originals and of what was made of them."""
        discriminator = self._critic_part("discriminator")
        return discriminator(original.float()), discriminator(out)

    def judge(self) -> Tensor | None:
        if self._judged is None:
            return None
        (out, original), self._judged = self._judged, None
        return adversarial.of_discriminator(*self._verdicts(out, original))

    def _balancer(self) -> Balancer:
        settings, group = self.config.adversarial, self.group
        assert settings is not None
        names = {"adversarial": settings.weight, "features": settings.feature_weight}
        weights_of = {k: v for k, v in {**self._weights(), **names}.items() if v}
        return Balancer(weights_of, mean=lambda value: group.sum(value) / group.world)


def is_shards(folder: str | Path) -> bool:
    """Whether clips of impacts lie there as raw shards, or nothing does: then the reader of shards
    says so."""
    card = Path(folder) / "dataset.json"
    if not card.exists():
        return not Path(folder).is_dir()
    found = json.loads(card.read_text())
    return isinstance(found, dict) and found.get("container") == "shards"


def shards(folder: str | Path) -> ClipShards | None:
    """The shards in a folder; None where it is one of recordings."""
    return ClipShards(folder) if is_shards(folder) else None


def _prepared(module: M, config: VAETask, part: str) -> M:
    if config.init:
        weights.fill(module, weights.load(config.init, part), f"init ({config.init})")
    if config.freeze_encoder:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(not set(ENCODING) & set(name.split(".")))
    return module


def _kl(posterior: DiagonalGaussian) -> Tensor:
    """Nats per element of a latent, in float32."""
    with torch.autocast(posterior.mean.device.type, enabled=False):
        return (posterior.kl() / posterior.mean[0].numel()).mean()


def _draw(
    posterior: DiagonalGaussian, config: VAETask, channel_axis: int, source: Source
) -> Tensor:
    """A posterior draw; for a frozen encoder its mean and ``latent_noise`` standard deviations."""
    mean = posterior.mean
    if not config.freeze_encoder:
        if isinstance(source, torch.Generator):
            return posterior.sample(source)
        noise = randomness.normal(mean.shape, source).to(mean)
        return mean + posterior.std * noise
    others = [axis for axis in range(mean.ndim) if axis != channel_axis]
    spread = mean.std(others, keepdim=True)
    noise = randomness.normal(mean.shape, source).to(mean)
    return mean + config.latent_noise * spread * noise
