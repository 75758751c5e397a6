"""``syncflow generate``: clips from sentences, or sound for a video."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from syncflow.commands import options
from syncflow.sampling import OPTIONS

SUMMARY = "generate clips from prompts"
EXAMPLE = 'syncflow generate "a glass ball falls on wood" -o clip.mp4 --seed 7'

_OPTIONS = (
    *OPTIONS, "seconds", "height", "width", "negative_prompt", "negative_audio_prompt", "video",
    "v2a", "image", "contacts",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompts", nargs="*", metavar="PROMPT", help="one prompt per clip")
    add(
        "-o",
        "--out",
        default=None,
        metavar="OUT",
        help="a file (mp4, mkv, webm, mov), a folder, or a pattern such as 'out/{i}-{prompt}.mp4' "
        "({i}, {prompt}, {seed}, {take}); default: clip.mp4, or the folder clips for several",
    )
    add("--model", help="a model folder or hub id (default: the model in the package)")
    add(
        "--seed", type=options.seed, default=0, help="the same seed gives the same clip (default 0)"
    )
    options.add_sampling(parser)
    add(
        "--seconds",
        type=options.positive,
        help="length of the clip in seconds (default: the model's)",
    )
    add("--height", type=options.count, help="pixels (default: the model's)")
    add("--width", type=options.count, help="pixels (default: the model's)")
    add("--negative-prompt", help="what to avoid in the clip")
    what = "what to avoid in the audio, e.g. 'music, speech'"
    add("--negative-audio-prompt", metavar="TEXT", help=what)
    add(
        "--video",
        metavar="FILE",
        help="generate audio for this video; its picture is copied bit for bit",
    )
    what = "how --video is read: once and clean (default), or noised again at every step"
    add("--v2a", choices=("one-pass", "paper"), help=what)
    add("--image", metavar="FILE", help="the first frame: an image, or the first frame of a video")
    what = "when things touch, in seconds, e.g. 0.4,1.1 (for models trained with event times)"
    add("--contacts", type=options.times, metavar="S,S,...", help=what)
    count = options.count
    what = "soundtracks per picture, ranked by sync (default 1)"
    add("--audio-takes", type=count, default=1, metavar="N", help=what)
    add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if available)")
    add(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the towers (default: bfloat16 on a GPU, else float32)",
    )
    add("--sheet", action="store_true", help="also write a PNG of frames above waveforms")
    add("--no-progress", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    from syncflow.commands import output_paths
    from syncflow.data import media

    prompts: list[str] = args.prompts or ([""] if args.video else [])
    if not prompts:
        raise ValueError(
            'no prompt: describe the clip, e.g. syncflow generate "a metal ball bounces twice"'
        )
    for prompt in prompts:
        if not prompt.strip() and not args.video:
            raise ValueError("empty prompt: describe the clip in one sentence")
    if args.model and args.model[:1] in "./~" and not Path(args.model).expanduser().exists():
        raise FileNotFoundError(f"unknown model '{args.model}': there is no such folder")
    if args.video and args.image:
        raise ValueError("give --video or --image, not both: the video has its own first frame")
    if args.image and not Path(args.image).is_file():
        raise FileNotFoundError(f"no such image: '{args.image}'")

    plan = output_paths.plan(args.out, prompts, args.audio_takes, args.seed)
    plan.check()
    if args.video:
        media.probe(args.video)
        media.check_copy(plan.paths[0], args.video)
    if args.sheet and plan.folder is None:
        media.check_folder(plan.sheet)

    import syncflow

    begin = time.monotonic()
    placement = {"device": args.device, "dtype": args.dtype}
    placement = {name: value for name, value in placement.items() if value is not None}
    model = syncflow.load(*([args.model] if args.model else []), **placement)
    options = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    clips = model.generate(
        prompts,
        seed=args.seed,
        audio_takes=args.audio_takes,
        progress=not args.no_progress,
        **options,
    )
    plan.make()
    for clip, path in zip(clips, plan.paths, strict=True):
        clip.save(path)
        found = clip.scores or {}
        if "candidate" in found:
            print(_drawn(found, path), file=sys.stderr)
            found = {}
        scores = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        print(f"{path}  {scores}" if scores else path)
    if args.sheet:
        from syncflow.evaluation.report.contact_sheet import contact_sheet

        captions = [prompts[index * len(prompts) // len(clips)] for index in range(len(clips))]
        print(contact_sheet(clips, captions, plan.sheet))
    seconds, first = time.monotonic() - begin, clips[0]
    height, width = first.video.shape[2:]
    length, fps = first.seconds, first.fps
    if args.video:  # copied at its own rate, not the model's
        given = media.probe(args.video)
        length, fps = args.seconds or given.seconds or length, given.fps or fps
    what = f"{length:g} s, {width}x{height} at {fps:g} fps, {first.sample_rate} Hz"
    many = "1 clip" if len(clips) == 1 else f"{len(clips)} clips"
    print(f"{many} ({what}) in {seconds:.1f} s", file=sys.stderr)


def _drawn(scores: dict[str, float], path: Path) -> str:
    """Which candidate a clip is, in words."""
    verdict = "agrees" if scores["agrees"] else "is the nearest; none agreed"
    return (
        f"{path}: candidate {scores['candidate']:.0f} {verdict}: {scores['contacts']:.0f} contacts "
        f"seen, {scores['onsets']:.0f} onsets heard, agreement {scores['agreement']:.2f}"
    )
