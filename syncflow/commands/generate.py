"""``syncflow generate``: clips from sentences, or sound for a video."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from syncflow import arguments

SUMMARY = "make clips from sentences"
EXAMPLE = 'syncflow generate "a glass ball falls on wood" -o clip.mp4 --seed 7'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompts", nargs="*", metavar="PROMPT", help="one sentence per clip")
    add(
        "-o",
        "--out",
        default=None,
        metavar="OUT",
        help="a file (mp4, mkv, webm, mov), a folder, or a pattern such as 'out/{i}-{prompt}.mp4' "
        "({i}, {prompt}, {seed}, {take}); default: clip.mp4, or the folder clips for several",
    )
    add("--model", help="a model folder or hub id (default: the model in the package)")
    add("--seed", type=arguments.seed, default=0, help="same seed, same clip (default 0)")
    arguments.add_sampling(parser)
    add("--seconds", type=arguments.positive, help="length of the clip (default: the model's)")
    add("--height", type=arguments.count, help="pixels (default: the model's)")
    add("--width", type=arguments.count, help="pixels (default: the model's)")
    add("--negative-prompt", help="what the clip should not be")
    add("--video", metavar="FILE", help="keep this picture and make sound for it")
    count = arguments.count
    add("--audio-takes", type=count, default=1, metavar="N", help="soundtracks per picture")
    add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: the device's best")
    add("--sheet", action="store_true", help="also write a PNG of frames above waveforms")
    add("--no-progress", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    from syncflow import outputs
    from syncflow.data import media

    prompts: list[str] = args.prompts or ([""] if args.video else [])
    if not prompts:
        raise ValueError('no prompt: say what to make, e.g. syncflow generate "a drum is hit"')
    for prompt in prompts:
        if not prompt.strip() and not args.video:
            raise ValueError("empty prompt: say what to make in a sentence")
    if args.video:
        media.probe(args.video)
    if args.model and args.model[:1] in "./~" and not Path(args.model).expanduser().exists():
        raise FileNotFoundError(f"unknown model '{args.model}': there is no such folder")

    paths = outputs.plan(args.out, prompts, args.audio_takes, args.seed)
    for path in paths:
        media.check_writable(path)
    sheet = outputs.sheet_path(paths) if args.sheet else None
    if sheet:
        media.check_folder(sheet)

    import syncflow

    begin = time.monotonic()
    placement = {"device": args.device, "dtype": args.dtype}
    placement = {name: value for name, value in placement.items() if value is not None}
    model = syncflow.load(*([args.model] if args.model else []), **placement)
    names = (
        "steps", "guidance", "audio_guidance", "solver", "schedule", "seconds", "height", "width",
        "video",
    )
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    clips = _flat(
        model.generate(
            prompts,
            seed=args.seed,
            negative_prompt=args.negative_prompt,
            audio_takes=args.audio_takes,
            progress=not args.no_progress,
            **options,
        )
    )
    if len(clips) != len(paths):
        paths = outputs.plan(args.out, prompts, max(1, len(clips) // len(prompts)), args.seed)
    for clip, path in zip(clips, paths, strict=True):
        clip.save(path)
        print(path)
    if sheet:
        from syncflow.evaluation.contact_sheet import contact_sheet

        captions = [prompts[index * len(prompts) // len(clips)] for index in range(len(clips))]
        print(contact_sheet(clips, captions, sheet))
    seconds, first = time.monotonic() - begin, clips[0]
    height, width = first.video.shape[2:]
    what = f"{first.seconds:g} s, {width}x{height} at {first.fps:g} fps, {first.sample_rate} Hz"
    many = "1 clip" if len(clips) == 1 else f"{len(clips)} clips"
    print(f"{many} ({what}) in {seconds:.1f} s", file=sys.stderr)


def _flat(clips: Any) -> list[Any]:
    """One clip, a list of them or a list per prompt, as one list."""
    if isinstance(clips, (list, tuple)):
        return [clip for item in clips for clip in _flat(item)]
    return [clips]
