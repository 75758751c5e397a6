"""Your own video files as latents to train on, encoded by a model's VAEs and text encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from syncflow.config import ModelConfig, T5TextConfig
from syncflow.data import prepare as data_prepare
from syncflow.data.encoders import Encoders
from syncflow.data.manifest import ManifestFile
from syncflow.data.prepare import Options
from syncflow.data.prepare.captions import Captioner
from syncflow.data.prepare.films import look
from syncflow.model_io import model_folder
from syncflow.model_io.text_cache import PromptEncoder
from syncflow.models.text.encoder import TextEncoder


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    sizes: Sequence[tuple[int, int]] = (),
    seconds: float | None = None,
    fps: float | None = None,
    options: Options | None = None,
    captioner: str | Path | None = None,
    workers: int | None = None,
    batch: int = 16,
    share: tuple[int, int] = (0, 1),
    device: str | None = None,
    progress: bool = True,
) -> dict[Path, ManifestFile | None]:
    """Turns video files into the folders of latents that training reads.

    A run that was cut off goes on where it was when it is called again with the same arguments.

    Args:
        source: a folder, a video file, or a csv, jsonl or parquet list.
        out: the folder to write; with several ``sizes`` a folder HxW of it for each.
        model: whose encoders: a model folder or hub id; None = the package's.
        sizes: heights and widths in pixels; none = the model's.
        seconds, fps: of a window; None = the model's.
        options: what of the sources is taken: captions, splits, windows, filters.
        captioner: a captioning model's folder, for clips without a caption.
        workers: processes that decode; 0: none beside this one, None: one a core.
        batch: about as many windows are encoded at once.
        share: (i, n): make every n-th shard from the i-th on, so that n machines share the work.
        device: "cpu" or "cuda"; None = a GPU where there is one.
        progress: show a bar.

    Returns:
        folder -> its manifest, or None while another machine's share is missing.

    Raises:
        FileNotFoundError, ValueError: the sources, the model or the options are no good, or ``out``
            holds something else.
    """
    options = options or Options()
    # Mistakes first: nothing is loaded for a list that is not there.
    films = look(source, options, captioner is not None)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder = model_folder.find(model)
    geometry = ModelConfig.load(folder / model_folder.CONFIG).geometry
    changes = {"seconds": seconds, "fps": fps}
    changes = {name: value for name, value in changes.items() if value is not None}
    specs = [
        geometry.model_copy(update={**changes, "height": height, "width": width}).spec
        for height, width in sizes or [(geometry.height, geometry.width)]
    ]
    config, encoders = _encoders(folder, device)
    reader = Captioner(captioner, device) if captioner else None
    about = {"name": config.name, "statistics": model_folder.statistics(config)}
    found: dict[Path, ManifestFile | None] = {}
    for spec in specs:
        each = Path(out)
        each = each / f"{spec.height}x{spec.width}" if len(specs) > 1 else each
        found[each] = data_prepare.prepare(
            source, each, encoders, spec, options, reader, about,
            _cores() if workers is None else workers, batch, share, progress, films,
        )  # fmt: skip
    return found


def _encoders(folder: Path, device: str) -> tuple[ModelConfig, Encoders]:
    config, parts = model_folder.load_encoders(folder)
    reader = parts["text_encoder"]
    if isinstance(config.text_encoder, T5TextConfig):  # it elsewhere comes and goes, and stays here
        where = PromptEncoder(config.text_encoder, folder).folder
        t5 = config.text_encoder.model_copy(update={"name_or_path": str(where)})
        reader = TextEncoder(t5).eval().requires_grad_(False)
    assert reader is not None
    return config, Encoders(parts["video_vae"], parts["audio_vae"], reader, device)


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1
