"""The README of a model folder: what each part is, where it came from and under which license."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from syncflow.config import ModelConfig, T5TextConfig

_UNKNOWN = "not stated"


@dataclass(frozen=True)
class Part:
    """A row of the card's table."""

    name: str
    file: str
    origin: str
    license: str | None = None


def write(config: ModelConfig, parts: Sequence[Part], notes: str) -> str:
    """A model card with front matter for the hub.

    The license of the whole is named only where all parts have the same.

    Args:
        parts: one row each.
        notes: paragraphs below the table, Markdown.
    """
    licenses = {part.license or _UNKNOWN for part in parts}
    whole = licenses.pop() if len(licenses) == 1 else "other"
    rows = [
        f"| {part.name} | `{part.file}` | {part.origin} | {part.license or _UNKNOWN} |"
        for part in parts
    ]
    geometry = config.geometry
    lines = [
        "---",
        f"license: {'other' if whole == _UNKNOWN else whole}",
        "library_name: syncflow",
        "pipeline_tag: text-to-video",
        "tags: [text-to-audio-video, rectified-flow]",
        "---",
        "",
        f"# {config.name}",
        "",
        f"A syncflow model: {geometry.seconds:g} s of {geometry.width}x{geometry.height} pixels at "
        f"{geometry.fps:g} frames a second, with {geometry.sample_rate} Hz sound. Load it with "
        "`syncflow.load(FOLDER_OR_HUB_ID)`.",
        "",
        "| part | file | from | license |",
        "|---|---|---|---|",
        *rows,
        "",
        notes.strip(),
        "",
    ]
    return "\n".join(lines)


def plain(config: ModelConfig) -> str:
    """The card of a model about whose making nothing is recorded."""
    t5 = config.text_encoder
    text = Part("text encoder", "text_encoder.safetensors", "trained with this model")
    if isinstance(t5, T5TextConfig):
        text = Part("text encoder", t5.name_or_path, f"`{t5.name_or_path}`")
    parts = [
        Part("d-DiT", "ddit.safetensors", "trained with syncflow"),
        Part("video VAE", "video_vae.safetensors", f"kind {config.video_vae.kind}"),
        Part("audio VAE", "audio_vae.safetensors", f"kind {config.audio_vae.kind}"),
        text,
    ]
    notes = "Say here what it was trained on, what it can do, and under which license it is."
    return write(config, parts, notes)
