"""Published weights -> a model folder: Open-Sora v1.2, T5, and an audio side to train."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from syncflow import flow
from syncflow.clip import AUDIO_HOP
from syncflow.config import (
    AdaptorConfig,
    AudioTowerConfig,
    DDiTConfig,
    EncodecVAEConfig,
    GeometryConfig,
    ModelConfig,
    SamplingConfig,
    T5TextConfig,
    VideoTowerConfig,
)
from syncflow.interop import checkpoints, encodec, opensora, opensora_sampler, t5
from syncflow.model_io import model_card, model_folder
from syncflow.models.audio_vae import AudioVAE
from syncflow.models.ddit import DDiT

_APACHE = "apache-2.0"
_OWN_FRESH = "initialised by syncflow, not trained"


@dataclass
class ImportReport:
    """What ``opensora_folder`` wrote."""

    folder: Path
    #: Parameters by part.
    parameters: dict[str, int] = field(default_factory=dict)
    encodec: encodec.EncodecReport | None = None

    def __str__(self) -> str:
        lines = [f"{self.folder}"]
        lines += [f"  {name}: {count:,} parameters" for name, count in self.parameters.items()]
        if self.encodec is not None:
            lines += [f"  Encodec: {line}" for line in str(self.encodec).splitlines()]
        return "\n".join(lines)


def opensora_folder(
    stdit: str | Path,
    vae: str | Path,
    text: str | Path,
    out: str | Path,
    *,
    audio: str | Path = "fresh",
    axis: Literal["full", "temporal", "none"] = "full",
    precision: Literal["float32", "bfloat16", "int8"] = "bfloat16",
    dtype: torch.dtype | None = None,
    compat: opensora_sampler.Compat | None = None,
    allow_pickle: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> ImportReport:
    """Writes a model folder from Open-Sora v1.2's weights: where the paper's stage 2 starts.

    Everything is read and checked before anything is written, and the folder appears whole or not
    at all.

    Args:
        stdit, vae, text: files, folders or hub ids (owner/name or owner/name@revision) in the
            layouts of `hpcai-tech/OpenSora-STDiT-v3`, `hpcai-tech/OpenSora-VAE-v1.2` and a T5.
        out: the folder to make; it must not exist, or be empty.
        audio: "fresh" for an audio VAE with first weights, a run that trained one, or an Encodec to
            start it from. The audio tower and the adaptors always start fresh.
        axis: of the adaptors.
        precision: of T5 when it is used.
        dtype: of the towers; as the video tower's is stored when not given.
        compat: "opensora-1.2" keeps the original's defects in tower, clock and guidance.
        allow_pickle: read torch pickles too, tensors alone.
        seed: of the fresh weights.
        say: is told what is being done.

    Raises:
        ValueError, OSError: something is wrong with an argument or a file; nothing was written.
    """
    out = Path(out).expanduser()
    _check_out(out)
    sources = {
        name: checkpoints.locate(source, what, allow_pickle)
        for name, source, what in (
            ("stdit", stdit, "video tower"),
            ("vae", vae, "video VAE"),
            ("text", text, "text encoder"),
        )
    }
    if str(audio) != "fresh":
        sources["audio"] = checkpoints.locate(audio, "Encodec", allow_pickle)

    say(f"video tower: {sources['stdit'].name}")
    num_heads = sources["stdit"].config.get("num_heads", 16)
    tower = opensora.video_tower(sources["stdit"].tensors(), num_heads, compat, dtype)
    say(f"video VAE: {sources['vae'].name}")
    sizes = sources["vae"].config
    video_vae = opensora.video_vae(
        sources["vae"].tensors(), sizes.get("spatial"), sizes.get("temporal"), dtype=None
    )
    say(f"text encoder: {sources['text'].name}")
    width, length = tower.config.caption_channels, tower.config.model_max_length
    text_config = t5.text_config(sources["text"], width, length, precision)
    t5.check(sources["text"])

    say("audio side")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        audio_vae, report = _audio_vae(sources.get("audio"))
        ddit_config = _ddit_config(tower.config, audio_vae.config, axis)
        ddit = DDiT(ddit_config, tower)
    stored = next(tower.parameters()).dtype
    for part in (ddit.adaptors, ddit.audio_tower):
        part.to(stored)
    config = ModelConfig(
        name=out.resolve().name,
        ddit=ddit_config,
        video_vae=video_vae.config,
        audio_vae=audio_vae.config,
        text_encoder=text_config,
        sampling=_sampling(compat),
    )
    parts: dict[str, nn.Module | None] = {
        "ddit": ddit,
        "video_vae": video_vae,
        "audio_vae": audio_vae,
        "text_encoder": None,
    }

    say(f"writing {out}")
    text_dtype = torch.float32 if precision == "float32" else torch.bfloat16
    temporary = out.resolve().with_name(f".{out.resolve().name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        model_folder.save(temporary, config, parts, card=_card(config, sources, report))
        if text_config.name_or_path == t5.FOLDER:
            t5.bundle(sources["text"], temporary / t5.FOLDER, text_dtype)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    counted = {
        "video tower": tower,
        "adaptors": ddit.adaptors,
        "audio tower": ddit.audio_tower,
        "video VAE": video_vae,
        "audio VAE": audio_vae,
    }
    counts = {name: sum(p.numel() for p in m.parameters()) for name, m in counted.items()}
    return ImportReport(out, counts, report)


def _check_out(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise ValueError(f"'{out}' exists and is not an empty folder; give --out another name")


def _audio_vae(
    source: checkpoints.Source | None,
) -> tuple[AudioVAE, encodec.EncodecReport | None]:
    if source is None:
        config = EncodecVAEConfig()
        return AudioVAE(config, norm=config.norm, causal=config.causal).eval(), None
    weights = source.tensors()
    if "moments.weight" in weights:
        return encodec.trained_audio_vae(source.config, weights), None
    config = encodec.audio_vae_config(source.config, weights, AUDIO_HOP)
    vae = AudioVAE(config, norm=config.norm, causal=config.causal).eval()
    return vae, encodec.init_audio_vae(vae, weights)


def _ddit_config(video: VideoTowerConfig, audio: EncodecVAEConfig, axis: str) -> DDiTConfig:
    sizes = {"hidden_size": video.hidden_size, "num_heads": video.num_heads}
    return DDiTConfig(
        video=video,
        adaptor=AdaptorConfig(axis=axis, num_heads=video.num_heads),
        audio=AudioTowerConfig(
            **sizes, mlp_ratio=video.mlp_ratio, in_channels=audio.latent_channels
        ),
    )


def _sampling(compat: opensora_sampler.Compat | None) -> SamplingConfig:
    """The paper's sampling with the clock that the video tower was trained with."""
    spec = GeometryConfig().spec
    size = (spec.height, spec.width)
    if compat is None:
        return SamplingConfig.parse(
            {"shift": flow.resolution_shift(*size, spec.video_latent_shape[0])}
        )
    shift = opensora_sampler.original_shift(*size, spec.num_frames)
    return SamplingConfig.parse(
        {"steps": 30, "guidance": 7.0, "shift": shift, "null_caption": "prompt"}
    )


def _card(
    config: ModelConfig,
    sources: dict[str, checkpoints.Source],
    report: encodec.EncodecReport | None,
) -> str:
    def license_of(name: str, known: str | None) -> str | None:
        return sources[name].license or known

    def origin(name: str) -> str:
        # A path of this machine means nothing to a reader elsewhere.
        source = sources[name]
        return source.name if source.repo_id else f"local file {Path(source.name).name}"

    assert isinstance(config.text_encoder, T5TextConfig)  # an import brings a T5
    text_file = config.text_encoder.name_or_path
    audio = model_card.Part("audio VAE", "audio_vae.safetensors", _OWN_FRESH, _APACHE)
    if report is None and "audio" in sources:
        audio = model_card.Part(audio.name, audio.file, origin("audio"), license_of("audio", None))
    if report is not None:
        what = f"{origin('audio')}, {len(report.taken)} layers; the rest {_OWN_FRESH}"
        audio = model_card.Part(audio.name, audio.file, what, license_of("audio", None))
    parts = [
        model_card.Part(
            "video tower", "ddit.safetensors", origin("stdit"), license_of("stdit", _APACHE)
        ),
        model_card.Part("adaptors, audio tower", "ddit.safetensors", _OWN_FRESH, _APACHE),
        model_card.Part(
            "video VAE", "video_vae.safetensors", origin("vae"), license_of("vae", _APACHE)
        ),
        audio,
        model_card.Part("text encoder", text_file, origin("text"), license_of("text", _APACHE)),
    ]
    notes = (
        "Open-Sora v1.2 as the video side of a syncflow model, made by `syncflow import opensora`. "
        "**The audio side is not trained: it makes no meaningful sound yet.** It is where stage 2 "
        "of training starts, with the video tower frozen. A license in the table is the one that "
        "the source states, or, where it states none, the one its project is published under."
    )
    return model_card.write(config, parts, notes)
