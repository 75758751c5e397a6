"""A look at what there is to prepare, before anything is decoded, loaded or written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from syncflow.data.prepare import sources, splits
from syncflow.data.prepare.copies import joined
from syncflow.data.prepare.sources import Source
from syncflow.data.prepare_options import Options


@dataclass(frozen=True)
class Films:
    """``found`` sources below ``root``, the ``chosen`` of the split, how many were ``left_out`` of
    it and how many files are ``copies``, and the ``others`` that cannot be read, by ending;
    ``notes``: what a user should know of it."""

    root: Path
    found: list[Source]
    chosen: list[Source]
    left_out: int
    copies: int
    others: dict[str, int]
    notes: list[str]


def look(source: str | Path, options: Options, has_captioner: bool) -> Films:
    """The films of a folder or list.

    Raises:
        FileNotFoundError, ValueError: there are none, the options do not fit them, or nothing says
            what is to be seen in any.
    """
    videos = None if options.videos is None else Path(options.videos).expanduser()
    path, copies, notes = Path(source).expanduser(), 0, []
    found, root = sources.find(path, options.layout, videos)
    if options.split is not None:
        found, copies = joined(found, root)
        if copies:
            said = "file is a copy" if copies == 1 else "files are copies"
            notes.append(f"{copies} {said} of another one: they stay in one split")
    chosen, left_out = splits.choose(found, options.split, options.test_share)
    if options.recaption:
        if not has_captioner:
            raise ValueError("recaptioning needs a captioning model; give its folder")
        chosen = [replace(s, caption=None, events=None, problem=None) for s in chosen]
    if options.caption:
        chosen = [replace(s, caption=options.caption) if _mute(s) else s for s in chosen]
    mute = [source for source in chosen if _mute(source)]
    if mute and not has_captioner:
        file = Path(mute[0].file)
        what = (
            "give a caption for all that have none (--caption) or a captioning model "
            f"(--captioner), or write {file.with_suffix('.txt').name} beside {file}"
        )
        if len(mute) == len(chosen):
            raise ValueError(f"nothing says what is to be seen in any clip: {what}")
        notes.append(f"{len(mute)} of {len(chosen)} clips have no caption and are left out: {what}")
    others = sources.unsupported(path)
    return Films(root, found, chosen, left_out, copies, others, notes)


def _mute(source: Source) -> bool:
    """Whether nothing is said of it. What should be said and cannot be read is another matter."""
    return source.caption is None and source.events is None and source.problem is None
