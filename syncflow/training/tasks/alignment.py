"""Representation alignment (REPA, arXiv 2410.06940) of an early audio layer.

What a frozen audio encoder makes of a clip's sound is computed once and kept (``make_features``);
while the tower trains, a small head turns the hidden tokens of one layer into it. Only the head
and the layers below hear of it, and the head is no part of the finished weights.

Axis letters: N clips, T frames of the encoder, A audio latents, E the encoder's width, C the
tower's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncflow import durable
from syncflow.data.latents import Latents
from syncflow.data.manifest import MANIFEST
from syncflow.models.codec import AudioCodec
from syncflow.models.ddit import DDiT
from syncflow.models.latent_space import decode_audio
from syncflow.published import NO_CODE, without_code
from syncflow.training.checkpoints import weights
from syncflow.training.settings import AlignmentConfig, FeaturesTask

_ARRAY = "features.npy"
#: There = finished.
FEATURES = "features.json"


class Alignment:
    """The features of a folder of latents, and the head that is trained towards them.

    Args:
        config: where the features lie, the layer, the weight.
        module: the d-DiT; the head becomes a part of it.
        latents: whose features they are.

    Raises:
        FileNotFoundError: there are no finished features. ValueError: they are of other latents, or
            the tower has no such layer.
    """

    def __init__(
        self, config: AlignmentConfig, module: DDiT, latents: Latents, folder: str
    ) -> None:
        about = Path(config.features) / FEATURES
        if not about.exists():
            raise FileNotFoundError(
                f"no finished features in {config.features} (no {FEATURES}); make them with a task "
                '"features"'
            )
        said = json.loads(about.read_text())
        if said["latents"] != _digest(folder):
            raise ValueError(f"{config.features} holds features of other latents than {folder}")
        layers = module.audio_tower.layers
        if config.layer > len(layers):
            raise ValueError(f"alignment.layer is {config.layer}, and there are {len(layers)}")
        self.config, self.module = config, module
        self.features = np.load(Path(config.features) / _ARRAY, mmap_mode="r")
        width, wanted = module.audio_tower.config.hidden_size, self.features.shape[2]
        head = nn.Sequential(nn.Linear(width, wanted), nn.SiLU(), nn.Linear(wanted, wanted))
        module.add_module(weights.ALIGNMENT, head)
        self._hidden: Tensor | None = None
        layers[config.layer - 1].register_forward_hook(self._keep)

    def _keep(self, layer: nn.Module, _: object, hidden_BAC: Tensor) -> None:
        # Only for a loss that follows: validation and sampling would keep it for nothing.
        self._hidden = hidden_BAC if self.module.training and hidden_BAC.requires_grad else None

    def rows(self, rows: np.ndarray) -> Tensor:
        """[B, T, E] of these clips."""
        return torch.from_numpy(np.stack([self.features[int(row)] for row in rows])).float()

    def loss(self, target_BTE: Tensor) -> Tensor:
        """Scalar: one minus the mean cosine of what the head makes of the layer's last pass and the
        target, brought to the latents' rate."""
        hidden_NAC, self._hidden = self._hidden, None
        assert hidden_NAC is not None, "no pass of the audio tower before"
        head = self.module.get_submodule(weights.ALIGNMENT)
        made_NAE = head(hidden_NAC.to(next(head.parameters()).dtype)).float()
        target_BEA = F.interpolate(
            target_BTE.transpose(1, 2), size=made_NAE.shape[1], mode="linear", align_corners=False
        )
        target_NAE = target_BEA.transpose(1, 2).repeat_interleave(
            len(made_NAE) // len(target_BTE), 0
        )
        return 1 - F.cosine_similarity(made_NAE, target_NAE, dim=-1).mean()


def without_head(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights less the head's."""
    head = f"{weights.ALIGNMENT}."
    return {key: value for key, value in values.items() if not key.startswith(head)}


@torch.no_grad()
def make_features(config: FeaturesTask, audio_vae: AudioCodec, device: torch.device) -> Path:
    """Decodes every clip's sound and writes what the encoder makes of it, float16 [N, T, E].

    Raises:
        FileNotFoundError: no such encoder. ValueError: it does not read waveforms.
    """
    out, latents = Path(config.out), Latents(config.latents)
    read, about = _encoder(config.encoder, device)
    out.mkdir(parents=True, exist_ok=True)
    array = None
    audio_vae = audio_vae.to(device)
    with durable.replacing(out / _ARRAY) as temporary:
        for row in range(len(latents)):
            values = latents.batch(np.array([row]), None)
            scale, spec = latents.scale["audio"], latents.spec
            sound = decode_audio(audio_vae, values["audio"][0].to(device), scale, spec.num_samples)
            features_TE = read(sound.float().cpu(), spec.sample_rate)
            if array is None:
                shape = (len(latents), *features_TE.shape)
                array = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
            array[row] = features_TE.cpu().numpy()
        assert array is not None
        array.flush()
    said = {"latents": _digest(config.latents), "encoder": about, "shape": list(array.shape)}
    durable.write_text(out / FEATURES, json.dumps(said))
    return out


def _encoder(path: str, device: torch.device) -> tuple[Callable[[Tensor, int], Tensor], str]:
    """A function from a sound [M] and its rate to features [T, E], and the encoder's kind."""
    from torchaudio.functional import resample
    from transformers import AutoFeatureExtractor, AutoModel

    if not (Path(path) / "config.json").is_file():
        raise FileNotFoundError(f"no audio encoder in '{path}' (no config.json)")
    with without_code(path):
        extractor = AutoFeatureExtractor.from_pretrained(path, local_files_only=True, **NO_CODE)
        model = AutoModel.from_pretrained(path, local_files_only=True, **NO_CODE)
    model = model.to(device).eval()
    rate = int(extractor.sampling_rate)

    def read(sound_M: Tensor, sample_rate: int) -> Tensor:
        given = resample(sound_M, sample_rate, rate).numpy()
        values = extractor(given, sampling_rate=rate, return_tensors="pt")["input_values"]
        return model(values.to(device)).last_hidden_state[0]

    if getattr(model, "main_input_name", "") != "input_values" or not hasattr(
        model, "feature_extractor"
    ):
        raise ValueError(
            f"'{path}' is a {model.config.model_type}; wanted is an encoder of waveforms whose "
            "tokens follow time, as wav2vec2, HuBERT or WavLM"
        )
    return read, str(model.config.model_type)


def _digest(folder: str | Path) -> str:
    """Of the manifest of latents, which names encoders, statistics and shards."""
    return hashlib.sha256((Path(folder) / MANIFEST).read_bytes()).hexdigest()[:16]
