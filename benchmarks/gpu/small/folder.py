"""Weights on disk: three files that travel, and the model folder that they make.

    part-1.safetensors ... part-3.safetensors    float16, tensors named ddit.*, video_vae.*, ...

Every file carries the model's config, the time it was written at and, the first one, the rows that
the run has told so far.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from syncflow.config import ModelConfig
from syncflow.model_io import model_card, model_folder
from syncflow.models.ddit import DDiT
from syncflow.models.text.encoder import TextEncoder
from syncflow.models.vae import build_audio_vae, build_video_vae
from syncflow.training.checkpoints import weights

PARTS = ("ddit", "video_vae", "audio_vae", "text_encoder")
FILES = 3


def write(
    folder: Path,
    config: ModelConfig,
    states: Mapping[str, Mapping[str, Tensor]],
    stamp: str,
    rows: list[dict[str, Any]],
) -> bool:
    """Writes the three files, each complete when it has its name; False, and nothing written,
    where a weight is not finite."""
    named = {
        f"{part}.{key}": value.detach().to("cpu", torch.float16).contiguous()
        for part, state in states.items()
        for key, value in state.items()
    }
    if not all(bool(value.isfinite().all()) for value in named.values()):
        return False
    bins: list[dict[str, Tensor]] = [{} for _ in range(FILES)]
    sizes = [0] * FILES
    for name, value in sorted(named.items(), key=lambda item: -item[1].numel()):
        smallest = sizes.index(min(sizes))
        bins[smallest][name] = value
        sizes[smallest] += value.numel()
    folder.mkdir(parents=True, exist_ok=True)
    about = {"config": config.model_dump_json(), "stamp": stamp, "files": str(FILES)}
    paths = [(folder / f".part-{n}.tmp", folder / f"part-{n}.safetensors") for n in (1, 2, 3)]
    for index, (temporary, _) in enumerate(paths):
        more = {"rows": json.dumps(rows)} if index == 0 else {}
        save_file(bins[index], temporary, {**about, **more})
    for temporary, path in paths:
        os.replace(temporary, path)
    return True


def read(folder: Path) -> tuple[ModelConfig, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Config, weights in float32 by part, and what else is known (``rows``, ``stamps``), of
    written parts or of a model folder.

    Raises:
        FileNotFoundError: there is neither. ValueError: files are missing or of different models.
    """
    if (folder / model_folder.CONFIG).exists():
        config = ModelConfig.load(folder / model_folder.CONFIG)
        return config, {part: weights.load(folder, part) for part in PARTS}, {}
    paths = sorted(folder.glob("part-*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds neither a model nor part-1.safetensors")
    states: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    about: list[dict[str, str]] = []
    for path in paths:
        with safe_open(path, "pt") as file:
            about.append(dict(file.metadata()))
            for name in file.keys():  # a safetensors file is no dict
                part, _, key = name.partition(".")
                states[part][key] = file.get_tensor(name).float()
    if len(paths) != int(about[0]["files"]):
        raise ValueError(f"{folder} holds {len(paths)} of {about[0]['files']} files")
    if len({each["config"] for each in about}) > 1:
        raise ValueError(f"the files of {folder} belong to models of different sizes")
    stamps = sorted({each["stamp"] for each in about})
    rows = next((json.loads(each["rows"]) for each in about if "rows" in each), [])
    known = {"rows": rows, "stamps": stamps}
    return ModelConfig.parse(json.loads(about[0]["config"]), str(paths[0])), states, known


def modules(config: ModelConfig) -> dict[str, nn.Module]:
    """Fresh modules of a model, by part."""
    return {
        "ddit": DDiT(config.ddit),
        "video_vae": build_video_vae(config.video_vae),
        "audio_vae": build_audio_vae(config.audio_vae),
        "text_encoder": TextEncoder(config.text_encoder),
    }


def join(parts: Path, out: Path) -> Path:
    """Makes the model folder, which ``syncflow.load`` reads, of written parts.

    Raises:
        FileNotFoundError, ValueError: as ``read``, or the weights do not fit their config.
    """
    config, states, known = read(parts)
    if len(known.get("stamps", [])) > 1:
        stamps = ", ".join(known["stamps"])
        print(f"{parts}: the files were written at different times ({stamps})", file=sys.stderr)
    built = modules(config)
    for name, module in built.items():
        try:
            module.load_state_dict(states[name])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"the {name} of {parts} does not fit its config: {reason}") from None
        for parameter in module.parameters():
            parameter.data = parameter.data.half()
    kept = [
        model_card.Part(name, f"{name}.safetensors", "trained by benchmarks/gpu/small")
        for name in PARTS
    ]
    notes = (
        "Levels 1 to 4 of impacts, trained by the clock on one GPU: `python -m benchmarks.gpu.small"
        "`. What each phase measured is in training.json."
    )
    folder = model_folder.save(out, config, built, card=model_card.write(config, kept, notes))
    (folder / "training.json").write_text(json.dumps(known, indent=1) + "\n")
    return folder
