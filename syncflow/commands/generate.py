"""``syncflow generate``: clips from sentences, or sound for a video."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from syncflow.commands import options
from syncflow.commands.generating import plots
from syncflow.commands.generating.notice import notice
from syncflow.commands.generating.vocabulary import print_vocabulary, remark
from syncflow.sampling import OPTIONS

if TYPE_CHECKING:
    from syncflow.commands.batch import Batch

SUMMARY = "generate clips from prompts"
EXAMPLE = 'syncflow generate "a glass ball falls on wood" -o clip.mp4 --seed 7'

_OPTIONS = (
    *OPTIONS, "seconds", "height", "width", "negative_prompt", "negative_audio_prompt", "video",
    "v2a", "image", "extend", "retake", "span", "part", "contacts", "lora", "strength",
)  # fmt: skip

_MOST_THREADS = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompts", nargs="*", metavar="PROMPT", help="one prompt per clip")
    what = "a text file with one prompt a line (- reads stdin); run again to go on where it stopped"
    add("--prompts", dest="prompts_file", metavar="FILE", help=what)
    add(
        "-o",
        "--out",
        default=None,
        metavar="OUT",
        help="a film (mp4, mkv, webm, mov), the sound alone (wav, flac), the picture alone (gif, "
        "frames as frame-%%04d.png), a folder for clips, or a pattern such as "
        "'out/{i}-{prompt}.mp4' ({i}, {prompt}, {name} of the video, {seed}, {take}); default: "
        "clip.mp4, or the folder clips for several, counting up",
    )
    add(
        "--force",
        action="store_true",
        help="replace a file that is read, and try what may not fit into memory",
    )
    what = "enlarge the picture, so that a film keeps the colour of small things (default 1)"
    add("--scale", type=options.count, default=1, metavar="N", help=what)
    what = "how --scale fills in pixels: nearest (default) or lanczos"
    add("--scale-filter", metavar="NAME", help=what)
    what = "loudness of the sound in LUFS (ITU-R BS.1770), e.g. -16, as far as its peaks allow"
    add("--loudness", type=float, metavar="LUFS", help=what)
    what = "do not write prompt, seed and options into the files"
    add("--no-metadata", action="store_true", help=what)
    options.add_model(parser)
    add(
        "--seed", type=options.seed, default=0, help="the same seed gives the same clip (default 0)"
    )
    options.add_sampling(parser)
    add(
        "--seconds",
        type=options.seconds,
        metavar="S",
        help="length of the clip in seconds, at most 600 (default: the model's)",
    )
    add("--height", type=options.count, help="pixels (default: the model's)")
    add("--width", type=options.count, help="pixels (default: the model's)")
    add("--negative-prompt", help="what to avoid in the clip")
    what = "what to avoid in the audio, e.g. 'music, speech'"
    add("--negative-audio-prompt", metavar="TEXT", help=what)
    add(
        "--video",
        metavar="FILE",
        help="generate audio for this video, or for each one in this folder; the picture is copied "
        "bit for bit",
    )
    what = "how --video is read: once, without noise (default), or noised again at every step"
    add("--v2a", choices=("one-pass", "paper"), help=what)
    add("--image", metavar="FILE", help="the first frame: an image, or the first frame of a video")
    what = "a clip that goes on: --seconds are added; several prompts go on in turn"
    add("--extend", metavar="FILE", help=what)
    what = "a clip of which --part is generated again within --span; the rest stays as it is"
    add("--retake", metavar="FILE", help=what)
    what = "start and end of --retake in seconds"
    add("--span", type=options.real, nargs=2, metavar=("START", "END"), help=what)
    what = "what of --retake is generated again (default audio)"
    add("--part", choices=("audio", "video", "both"), help=what)
    what = "when things touch, in seconds, e.g. 0.4,1.1, or none to ask for no times (for models "
    what += "that take times; the shipped one draws its own by default); with --extend from the "
    what += "old clip's start"
    add("--contacts", type=options.contacts, metavar="S,S,...", help=what)
    count = options.count
    what = "soundtracks per picture, ranked by sync (default 1)"
    add("--audio-takes", type=count, default=1, metavar="N", help=what)
    what = "prompts that are generated together (default 8)"
    add("--batch-size", type=count, default=8, metavar="N", help=what)
    what = "threads of PyTorch on the CPU (default: one for each core)"
    add("--threads", type=options.at_most(count, _MOST_THREADS), metavar="N", help=what)
    what = "a lora.safetensors of a fine-tuning of this model, to add to it"
    add("--lora", metavar="FILE", help=what)
    what = "how much of --lora (default 1, as it was trained)"
    add("--strength", type=float, metavar="N", help=what)
    add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if available)")
    add(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="precision of the video and audio towers (default: bfloat16 on a GPU, else float32)",
    )
    add("--sheet", action="store_true", help="also write a PNG of frames above waveforms")
    what = "also draw the clip's sync: when things touch in the picture, and when sounds begin"
    add("--plot", metavar="FILE.png", help=what)
    add("--vocabulary", action="store_true", help="print the words that the model knows and stop")
    add("--no-progress", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> None:
    if args.vocabulary:
        print_vocabulary(args.model)
        return
    _check(args)
    with notice("loading PyTorch ..."):
        from syncflow.commands import batch

    begin = time.monotonic()
    work = batch.planned(args)
    drawings: list[Path] = []
    if args.plot:
        others = [*work.inputs, *work.plan.paths, work.plan.sheet]
        drawings = plots.checked(args.plot, len(work.plan.paths), others)
    import torch

    import syncflow

    if args.threads:
        torch.set_num_threads(args.threads)
    placement = {"device": args.device, "dtype": args.dtype}
    placement = {name: value for name, value in placement.items() if value is not None}
    with notice("loading the model ..."):
        model = syncflow.load(*([args.model] if args.model else []), **placement)
    given = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    given["audio_takes"] = args.audio_takes
    clips = batch.made(model, work, given, args)
    if args.sheet and clips:
        from syncflow.evaluation.report.contact_sheet import contact_sheet

        print(contact_sheet(clips, [clip.prompt or "" for clip in clips], work.plan.sheet))
    if drawings:
        plots.draw(clips, drawings)
    words = [prompt for job in work.jobs for prompt in job.prompts]
    remark(model, words, args.seconds, work.given, args.image)
    _tell(work, time.monotonic() - begin)


def _check(args: argparse.Namespace) -> None:
    """What can be said before PyTorch is imported."""
    if args.plot and (args.prompts_file or (args.video and Path(args.video).is_dir())):
        raise ValueError("--plot draws the clips of one command line, not of a list or a folder")
    if args.prompts and args.prompts_file:
        raise ValueError("give prompts or --prompts, not both")
    if args.span and not args.retake:
        raise ValueError("--span says what of --retake is drawn anew: give --retake too")
    if not (args.prompts or args.prompts_file or args.video or args.retake):
        raise ValueError(
            'no prompt: describe the clip, e.g. syncflow generate "a metal ball bounces twice"'
        )
    for prompt in args.prompts:
        if not prompt.strip() and not args.video:
            raise ValueError("empty prompt: describe the clip in one sentence")
    if args.model and args.model[:1] in "./~" and not Path(args.model).expanduser().exists():
        raise FileNotFoundError(f"unknown model '{args.model}': there is no such folder")
    if args.video and args.image:
        raise ValueError("give --video or --image, not both: the video has its own first frame")
    if args.image and not Path(args.image).is_file():
        raise FileNotFoundError(f"no such image: '{args.image}'")
    if args.v2a and not args.video:
        raise ValueError("--v2a says how a given video is read: give --video too, or leave it out")
    copied = "--video" if args.video else "--retake" if args.part in (None, "audio") else ""
    if args.scale > 1 and (args.video or args.retake) and copied:
        raise ValueError(
            f"--scale cannot enlarge the picture of {copied}, which is copied as it is"
        )
    if args.part and not args.retake:
        raise ValueError("--part says what of --retake is drawn anew: give --retake too")
    if args.strength is not None and not args.lora:
        raise ValueError("--strength says how much of --lora is added: give --lora too")


def _tell(work: Batch, took: float) -> None:
    """One line about what was made."""
    if work.there:
        files = "file is" if work.there == 1 else "files are"
        print(f"{work.there} {files} there already, made so, and left as they are", file=sys.stderr)
    if work.facts:
        many = "1 clip" if work.count == 1 else f"{work.count} clips"
        print(f"{many} ({work.facts}) in {took:.1f} s", file=sys.stderr)
    if work.refused:
        raise ValueError(f"{work.refused} of {len(work.jobs)} videos cannot be used")
