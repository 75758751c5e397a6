"""A published T5 as the text encoder of a model folder."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from syncflow import extras
from syncflow.config import T5TextConfig
from syncflow.interop.checkpoints import Source
from syncflow.interop.opensora import check_layout
from syncflow.model_io import tensors
from syncflow.published import NO_CODE, without_code

#: Name of T5's folder inside a model's.
FOLDER = "text_encoder"

_TOKENIZER = (
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
#: One table under two names in some files: either will do.
_TABLES = ("shared.weight", "encoder.embed_tokens.weight")


def text_config(
    source: Source, width: int, max_length: int, precision: str = "bfloat16"
) -> T5TextConfig:
    """Config of the T5 at ``source``, whose embeddings must be ``width`` wide.

    It names the hub's repository at its commit where the weights are safetensors there, and else
    the folder inside the model's, where ``bundle`` puts them.

    Raises:
        ValueError: it is no T5, or not of that width. FileNotFoundError: no tokenizer is there.
    """
    sizes = source.config
    if sizes.get("model_type") not in ("t5", "mt5", "umt5"):
        raise ValueError(
            f"{source.name} is not a T5: its config.json has model_type {sizes.get('model_type')!r}"
        )
    if sizes.get("d_model") != width:
        raise ValueError(
            f"{source.name} has embeddings of width {sizes.get('d_model')}, but the video tower "
            f"reads {width}"
        )
    if not any((source.folder / name).is_file() for name in _TOKENIZER):
        raise FileNotFoundError(f"{source.name} has no tokenizer: none of {', '.join(_TOKENIZER)}")
    needs = [name for name in ("sentencepiece", "google.protobuf") if not _is_installed(name)]
    if (
        needs
        and not (source.folder / "tokenizer.json").is_file()
        and (source.folder / "spiece.model").is_file()
    ):
        raise ModuleNotFoundError(
            f"{source.name} has its vocabulary as spiece.model; reading it needs sentencepiece and "
            f"protobuf: {extras.advice('sentencepiece')}"
        )
    stays = source.repo_id is not None and not source.is_pickled
    return T5TextConfig(
        name_or_path=source.repo_id if stays else FOLDER,
        revision=source.revision if stays else None,
        max_length=max_length,
        precision=precision,
        **{name: sizes[name] for name in ("d_model", "d_kv", "d_ff", "num_layers", "num_heads")},
    )


def check(source: Source) -> None:
    """Compares keys and shapes with the encoder that ``source``'s config describes.

    Raises:
        ValueError: something is missing, unexpected or of another shape; it is named.
    """
    from transformers import T5Config, T5EncoderModel

    with torch.device("meta"):
        model = T5EncoderModel(T5Config(**source.config))
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    for shard in source.shards():
        found.update({key: tuple(value.shape) for key, value in _encoder(shard).items()})
    for one, other in (_TABLES, _TABLES[::-1]):
        if one in found:
            found.setdefault(other, found[one])
            wanted.setdefault(other, wanted[one])
    check_layout(wanted, found, "the encoder of a T5")


def bundle(source: Source, folder: Path, dtype: torch.dtype) -> None:
    """Writes the encoder's weights, config and tokenizer into ``folder``, file by file.

    Memory holds one shard of the source at a time.
    """
    folder.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    total = 0
    for index, shard in enumerate(source.shards(), start=1):
        name = f"model-{index:05d}-of-{len(source.files):05d}.safetensors"
        kept = {k: v.to(dtype).contiguous() for k, v in _encoder(shard).items()}
        if not kept:
            continue
        if all(key in kept for key in _TABLES):
            del kept[_TABLES[1]]
        weight_map.update(dict.fromkeys(kept, name))
        total += sum(value.numel() * value.element_size() for value in kept.values())
        tensors.save(folder / name, kept, {"format": "pt"})
    _dump(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )
    _dump(folder / "config.json", {**source.config, "architectures": ["T5EncoderModel"]})
    for name in _TOKENIZER:
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)
    if not (folder / "tokenizer.json").exists() and (folder / "spiece.model").exists():
        # Converted once, here: a model folder then reads text without sentencepiece.
        from transformers import AutoTokenizer

        with without_code(folder):
            AutoTokenizer.from_pretrained(folder, **NO_CODE).save_pretrained(folder)


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _encoder(shard: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in shard.items() if not k.startswith(("decoder.", "lm_head."))}


def _dump(path: Path, data: Mapping[str, object]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")
