"""Fits the map with which a model shows its steps, and measures it: is it like the clip, and what
does it cost?

Fitted to what the decoders make of clips that the model draws, half-way and finished, and of films,
if some are given; measured on others: correlation of the preview's pixels with those that the
decoder makes of the same latents and with those of the finished clip, frame by frame; the same of
the loudness; processor time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from syncflow.clip import Clip
from syncflow.data import media
from syncflow.detect import matching
from syncflow.evaluation.report import table, tables
from syncflow.evaluation.report.shapes import Row
from syncflow.evaluation.suites import provenance, systems
from syncflow.generation.drawing import EVERY
from syncflow.generation.pipeline import SyncFlow, load
from syncflow.generation.remarks.preview import Preview
from syncflow.model_io import fingerprint
from syncflow.model_io import preview_map as files
from syncflow.models.preview_map import Fit, PreviewMap, blank, loudness
from syncflow.progress import bar

COLUMNS = {
    "decoded": "picture: correlation with what the decoder makes of the same latents",
    "final": "picture: correlation with the finished clip",
    "sound decoded": "loudness: correlation with what the decoder makes of the same latents",
    "sound final": "loudness: correlation with the finished clip",
}


def run(
    model: SyncFlow | str | Path | None = None,
    fit_clips: int = 64,
    clips: int = 16,
    levels: Sequence[int] = (1,),
    out: str | Path | None = None,
    seed: int = 0,
    *,
    every: int = EVERY,
    videos: Sequence[str | Path] = (),
    write: bool = False,
    command: str | None = None,
    progress: bool = True,
) -> Row:
    """Fits a map to ``fit_clips`` clips of training captions of every level, and windows of
    ``videos``, measures it on ``clips`` validation captions; writes ``preview.json`` and ``.md``
    into ``out`` (default ``runs/eval``) and, with ``write``, the map into the model's folder;
    returns the former.

    Raises:
        ValueError: to be written, and the model is not a folder of the caller's. OSError: a
            folder takes no files; said before anything is measured.
    """
    if write and not (isinstance(model, (str, Path)) and Path(model).is_dir()):
        raise ValueError("a map is written into a model folder of yours: name it as the model")
    if write:
        media.check_folder(Path(str(model)) / fingerprint.PREVIEW)
    out = media.make_folder(out if out is not None else "runs/eval", "preview.json")
    loaded = model if isinstance(model, SyncFlow) else load(model)
    named = provenance.load_model(loaded)[1]
    loaded.previews = fitted(loaded, fit_clips, levels, videos, progress)
    prompts = [case.prompt for case in systems.cases("val", clips, levels)]
    seen = [
        _looked_at(loaded, prompt, seed + index, every)
        for index, prompt in enumerate(bar(prompts, desc="preview", shown=progress))
    ]
    rows = []
    for place, first in enumerate(seen[0][0]):
        row: Row = {"step": first["step"]}
        for key in COLUMNS:
            values = [steps[place][key] for steps, _ in seen]
            row[key] = None if None in values else matching.average(values, seed=seed)
        rows.append(row)
    times = np.array([seconds for _, seconds in seen])
    report: Row = {
        "facts": {
            **named,
            "fitted to": f"{fit_clips} clips of every level of {list(levels)}, {len(videos)} films",
            "clips": f"{clips} per level of split val",
            "seed": seed,
            "every": every,
            **provenance.circumstances(command),
        },
        "rows": rows,
        "seconds a clip": float(np.median(times[:, 0])),
        "share of time": float(np.median(times[:, 1] - times[:, 0]) / np.median(times[:, 0])),
    }
    # The report first: what was measured must not be lost where the map cannot be written.
    tables.write_json(out / "preview.json", report)
    tables.write_text(out / "preview.md", _page(report))
    if write:
        report["written"] = files.save(Path(str(model)), loaded.previews).name
        tables.write_json(out / "preview.json", report)
    return report


@torch.inference_mode()
def fitted(
    model: SyncFlow,
    clips: int,
    levels: Sequence[int] = (1,),
    videos: Sequence[str | Path] = (),
    progress: bool = False,
) -> PreviewMap:
    """A map fitted to so many clips of training captions of every level, as they are half-way and
    finished (twice, where the sound is drawn after the picture), and as many windows of films. A
    map of rendered clips' latents fits drawn ones less well, and those are what it is asked of."""
    from syncflow import impacts

    spec, codecs, fit = model.config.geometry.spec, model.codecs, Fit()
    seeds = impacts.SEEDS["train"][:clips]
    prompts = [impacts.sample_scene(n, level, "train").caption for level in levels for n in seeds]
    films = systems.windows(videos, clips, _empty(model)) if videos else []
    half = max(1, (model.config.sampling.steps + 1) // 2)
    model.previews = blank(model.config.ddit.video.in_channels, model.config.ddit.audio.in_channels)

    def add(seen: Tensor, heard: Tensor | None) -> None:
        fit.add_video(codecs.video.denormalize(seen), codecs.decode_video(seen[0], spec)[None])
        if heard is not None:
            samples = codecs.decode_audio(heard[0], spec)
            fit.add_audio(codecs.audio.denormalize(heard), samples[None])

    for index in bar(range(len(prompts) + len(films)), desc="fit", shown=progress):
        if index < len(prompts):
            shown: list[Preview] = []
            asked = {"seed": index, "progress": False, "preview_every": half}
            model.generate(prompts[index], preview=shown.append, **asked)
            for preview in shown:
                add(*preview.latents)
        else:
            clip = films[index - len(prompts)]
            add(codecs.encode_video([clip.video]), codecs.encode_audio([clip.audio]))
    return fit.solved()


def _empty(model: SyncFlow) -> Clip:
    """A clip of the model's geometry."""
    spec = model.config.geometry.spec
    video = torch.zeros(spec.num_frames, 3, spec.height, spec.width, dtype=torch.uint8)
    return Clip(video, torch.zeros(spec.num_samples), spec.fps, spec.sample_rate)


def _looked_at(
    model: SyncFlow, prompt: str, seed: int, every: int
) -> tuple[list[Row], tuple[float, float]]:
    """A row for every preview of a clip, and processor seconds without and with previews: of two
    runs each the faster, since what else the machine does only ever adds."""
    seen: list[Preview] = []
    plain, watched = [], []
    for show in (_unseen, seen.append):
        begun = time.process_time()
        clip = model.generate(prompt, seed=seed, progress=False)
        plain.append(time.process_time() - begun)
        begun = time.process_time()
        model.generate(prompt, seed=seed, progress=False, preview=show, preview_every=every)
        watched.append(time.process_time() - begun)
    return [_compared(model, one, clip) for one in seen], (min(plain), min(watched))


def _unseen(preview: Preview) -> None:
    """Looks away."""


def _compared(model: SyncFlow, preview: Preview, clip: Clip) -> Row:
    spec = model.config.geometry.spec
    latent, sound = preview.latents
    decoded = model.codecs.decode_video(latent[0], spec)
    row: Row = {
        "step": preview.step,
        "decoded": likeness(preview.video[0], decoded),
        "final": likeness(preview.video[0], clip.video),
        "sound decoded": None,
        "sound final": None,
    }
    if sound is not None and preview.envelope is not None:
        heard = model.codecs.decode_audio(sound[0], spec)
        row["sound decoded"] = likeness(preview.envelope[:1], loudness(heard[None]))
        row["sound final"] = likeness(preview.envelope[:1], loudness(clip.audio[None]))
    return row


def likeness(a_N: Tensor, b_N: Tensor) -> float:
    """Mean of Pearson's correlations of rows, 0 for one that is flat."""
    a, b = (x.float().flatten(1) - x.float().flatten(1).mean(1, keepdim=True) for x in (a_N, b_N))
    size = (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-9)
    return float(((a * b).sum(1) / size).mean())


def _page(report: Row) -> str:
    lines: list[list[str | table.Cell]] = [["step", *COLUMNS]]
    lines += [
        [str(row["step"]), *(table.cell(row[key]) for key in COLUMNS)] for row in report["rows"]
    ]
    facts = "\n".join(f"- {key}: {value}" for key, value in report["facts"].items())
    legend = "\n".join(f"- {key}: {text}" for key, text in COLUMNS.items())
    cost = f"{100 * report['share of time']:.1f} % of {report['seconds a clip']:.2f} s"
    return f"# Previews\n\n{facts}\n- cost: {cost}\n\n{table.markdown(lines)}\n{legend}\n"
