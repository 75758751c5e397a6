"""The command line: ``syncflow generate | data | train | evaluate | info``.

A mistake of the user's is one line on stderr and exit code 2; Ctrl-C is one line and 130. Handlers
import what they need when they run, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from syncflow import arguments

_USER_ERRORS = (ValueError, OSError, ModuleNotFoundError)
_EXIT_USER_ERROR, _EXIT_INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    try:
        args = _parser().parse_args(argv)
        return args.handler(args) or 0
    except KeyboardInterrupt:
        if debug:
            raise
        return _fail("interrupted", _EXIT_INTERRUPTED)
    except Exception as error:
        out_of_memory = type(error).__name__ == "OutOfMemoryError"
        if debug or not (isinstance(error, _USER_ERRORS) or out_of_memory):
            raise
        if out_of_memory:
            error = ValueError("out of memory: ask for fewer prompts or takes, or a smaller size")
        return _fail(_one_line(error), _EXIT_USER_ERROR)


class _Parser(argparse.ArgumentParser):
    """argparse's errors in the form of all others: one line that says what to do."""

    def error(self, message: str) -> Any:
        raise ValueError(f"{message} (see {self.prog} --help)")


def _fail(message: str, code: int) -> int:
    print(f"syncflow: error: {message}", file=sys.stderr)
    return code


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.strerror}: '{error.filename}'"
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and not missing.startswith("syncflow"):
        text += f": install it with 'pip install {missing}'"
    return text or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    # On the sub-commands the flag is read from argv, so that it may stand on either side of them.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(
        prog="syncflow",
        description="Clips whose picture and sound belong together, from one sentence.",
        epilog='example: syncflow generate "a metal ball bounces three times on stone" -o clip.mp4',
        parents=[common],
    )
    parser.add_argument("--version", action=_Version, help="print the version and stop")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")

    def add(
        within: Any,
        name: str,
        handler: Callable[[Any], int | None] | None,
        what: str,
        example: str = "",
    ) -> Any:
        child = within.add_parser(
            name,
            help=what,
            description=what[0].upper() + what[1:] + ".",
            epilog=f"example: {example}" if example else None,
            parents=[common],
        )
        child.set_defaults(handler=handler)
        return child

    example = 'syncflow generate "a glass ball falls on wood" -o clip.mp4 --seed 7'
    _generate_arguments(add(commands, "generate", _generate, "make clips from sentences", example))

    data = add(commands, "data", None, "make training data")
    worlds = data.add_subparsers(metavar="WORLD", required=True, dest="world")
    example = "syncflow data impacts --out data/train --clips 1000 --seed 0 --level 1"
    what = "render clips of the synthetic world, with captions and exact contact times"
    _impacts_arguments(add(worlds, "impacts", _impacts, what, example))

    example = "syncflow train --config configs/impacts/stage1.json"
    train = add(commands, "train", _train, "train, or go on training, as a config says", example)
    train.add_argument("--config", required=True, metavar="FILE", help="a JSON config file")
    train.add_argument("--device", help="cpu or cuda (default: a GPU where there is one)")
    train.add_argument("--no-progress", action="store_true", help="no progress bars")

    evaluate = add(commands, "evaluate", None, "measure a model")
    metrics = evaluate.add_subparsers(metavar="WHAT", required=True, dest="metric")
    example = "syncflow evaluate sync --clips 200 --split test --out report"
    what = "measure when the sound happens against when the picture says so"
    _sync_arguments(add(metrics, "sync", _sync, what, example))

    what = "say what is installed and what this machine can run"
    info = add(commands, "info", _info, what, "syncflow info --json")
    info.add_argument("--json", action="store_true", help="as JSON")
    return parser


class _Version(argparse.Action):
    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        from syncflow import __version__

        print(f"syncflow {__version__}")
        parser.exit()


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
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
    _sampling_arguments(parser)
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


def _impacts_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", required=True, metavar="DIR", help="the folder to write")
    add("--clips", type=arguments.count, required=True, metavar="N", help="how many")
    add("--seed", type=arguments.seed, default=0, help="same seed, same clips (default 0)")
    add("--level", type=int, choices=(1, 2, 3, 4), default=1, help="1: one bouncing object")
    add("--split", choices=("train", "val", "test"), default="train")
    add("--size", type=arguments.count, metavar="PX", help="height and width in one (default 64)")
    add("--height", type=arguments.count, metavar="PX")
    add("--width", type=arguments.count, metavar="PX")
    add("--fps", type=arguments.positive, default=16.0, help="default 16")
    add("--seconds", type=arguments.positive, default=2.0, help="default 2")
    add("--sample-rate", type=arguments.count, default=48000, metavar="HZ", help="default 48000")
    add("--workers", type=arguments.count, help="processes (default: one per core)")
    add("--container", choices=("mp4", "shards"), default="mp4")
    add("--no-progress", action="store_true", help="no progress bar")


def _sampling_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--steps", type=arguments.count, help="solver steps (default: the model's)")
    add("--guidance", type=arguments.real, help="strength of the prompt (default: the model's)")
    what = "the same for the sound (default: as --guidance)"
    add("--audio-guidance", type=arguments.real, help=what)
    add("--solver", choices=("euler", "midpoint", "heun", "ab2"), help="default: the model's")
    add("--schedule", choices=("joint", "cascade"), help="the two clocks (default: the model's)")


def _sync_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", help="a model folder or hub id (default: the model in the package)")
    count = arguments.count
    add("--clips", type=count, default=200, metavar="N", help="captions per level (default 200)")
    add("--levels", type=arguments.levels, default=[1], metavar="L,L", help="levels (default 1)")
    add("--split", choices=("val", "test"), default="test")
    add("--out", metavar="DIR", help="folder for the report")
    add("--seed", type=arguments.seed, default=0)
    add("--batch", type=count, default=8, metavar="N", help="clips made at once (default 8)")
    add("--real-media", nargs="+", metavar="FILE", help="ordinary clips through the VAEs as well")
    add("--sweep", action="store_true", help="also sweep guidance, steps and schedule (use val)")
    _sampling_arguments(parser)


def _generate(args: argparse.Namespace) -> None:
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


def _impacts(args: argparse.Namespace) -> None:
    from syncflow.data import impacts

    impacts.write_dataset(
        args.out,
        args.clips,
        args.seed,
        args.level,
        split=args.split,
        height=args.height or args.size or 64,
        width=args.width or args.size or 64,
        fps=args.fps,
        seconds=args.seconds,
        sample_rate=args.sample_rate,
        workers=args.workers,
        container=args.container,
        progress=not args.no_progress,
    )
    print(args.out)


def _train(args: argparse.Namespace) -> int:
    if not Path(args.config).is_file():
        raise FileNotFoundError(f"no such config file: '{args.config}'")
    from syncflow import train

    options = ["--config", args.config]
    options += ["--device", args.device] if args.device else []
    options += ["--no-progress"] if args.no_progress else []
    return train.main(options)


def _sync(args: argparse.Namespace) -> None:
    from syncflow.evaluation import report

    report.run(
        model=args.model,
        clips=args.clips,
        levels=args.levels,
        split=args.split,
        out=args.out,
        seed=args.seed,
        batch=args.batch,
        sweep=args.sweep,
        real_media=args.real_media,
        **{name: getattr(args, name) for name in report.OPTIONS},
    )


def _info(args: argparse.Namespace) -> None:
    from syncflow import info

    facts = info.collect()
    print(json.dumps(facts, indent=2) if args.json else info.table(facts))
