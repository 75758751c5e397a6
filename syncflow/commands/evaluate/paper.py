"""``syncflow evaluate paper``: the paper's tables and figures for any model and data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from syncflow.commands import options
from syncflow.commands.evaluate import scope

SUMMARY = "measure the paper's tables: FVD, FAD, KL, CLAP, ImageBind, in all of its settings"
EXAMPLE = "syncflow evaluate paper --data clips/ --networks networks.json --out report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, count = parser.add_argument, options.count
    options.add_model(parser)
    what = "'impacts' (default), or a folder of clips with metadata.jsonl or a .txt file per clip"
    add("--data", default="impacts", metavar="DIR", help=what)
    scope.add_captions(parser, 200, "number of captions")
    scope.add_split(parser)
    what = "tables 1,2,3 and figure 5 to run for the model (default all)"
    add("--tables", default="1,2,3,5", metavar="T,T", help=what)
    add(
        "--sizes",
        default="128,256,512",
        metavar="PX,PX",
        help="sizes that the model was not trained at, in pixels (default 128,256,512)",
    )
    what = "guidance strengths of figure 5 (default 1,2,4,6,8)"
    add("--guidances", default="1,2,4,6,8", metavar="W,W", help=what)
    what = "a row of table 4: a model folder, a folder of several, or a training run, whose "
    what += "last three checkpoints are averaged (with the VAEs of --model)"
    add("--ablation", action="append", default=[], metavar="NAME=DIR", help=what)
    what = "videos of any text-to-video model, and sounds: a folder or module:function"
    add("--cascade", action="append", default=[], metavar="NAME=VIDEOS,SOUNDS", help=what)
    what = "a training run whose validation losses are plotted in figure 6"
    add("--training", action="append", default=[], metavar="NAME=RUN", help=what)
    what = "paths in JSON: i3d, vggish, vggish_head, panns, audio_classifier, clap, imagebind, ..."
    add("--networks", metavar="FILE", help=what)
    what = "run i3d and synchformer, which are TorchScript: programs that may do what you may"
    add("--allow-torchscript", action="store_true", help=what)
    add("--out", default="runs/paper", metavar="DIR", help="folder for the report")
    add("--seed", type=options.seed, default=0, help="seed of the first clip (default 0)")
    add("--batch", type=count, default=8, metavar="N", help="clips generated per batch (default 8)")
    add("--device", default="cpu", help="device of the feature networks (default cpu)")


def run(args: argparse.Namespace) -> None:
    from syncflow.evaluation.report import paper_tables
    from syncflow.evaluation.suites import paper

    cascades = {}
    for name, value in _named(args.cascade, "--cascade").items():
        videos, comma, sounds = value.partition(",")
        if not (videos and comma and sounds):
            raise ValueError(f"--cascade takes NAME=VIDEOS,SOUNDS, got {value!r}")
        cascades[name] = (videos, sounds)
    known = {key for key in paper_tables.TABLES if key != "4"}
    wanted = args.tables.split(",")
    if not set(wanted) <= known:
        raise ValueError(f"--tables takes {', '.join(sorted(known))}, got {args.tables!r}")
    paper.run(
        args.model, args.data, args.out, clips=args.clips, split=args.split, levels=args.levels,
        wanted=wanted, sizes=_numbers(args.sizes, int, "--sizes"),
        guidances=_numbers(args.guidances, float, "--guidances"),
        ablations={
            name: _model(Path(folder), args.model, Path(args.out) / "models" / name)
            for name, folder in _named(args.ablation, "--ablation").items()
        },
        cascades=cascades,
        training=_named(args.training, "--training"),
        networks=paper.Networks.load(args.networks) if args.networks else None,
        seed=args.seed, batch=args.batch, device=args.device,
        allow_torchscript=args.allow_torchscript,
    )  # fmt: skip
    print(args.out)


def _model(folder: Path, base: str | None, out: Path) -> Path:
    """A folder of models: itself, or what a training run's last three checkpoints make with the
    VAEs, text encoder and sampling of the model ``base``, written into ``out``."""
    from syncflow.config import ModelConfig
    from syncflow.model_io import model_folder
    from syncflow.training.checkpoints import checkpoint
    from syncflow.training.settings import ExportTask
    from syncflow.training.tasks import export

    found = checkpoint.folders(folder)[:3]
    if not found:
        if not any(folder.glob("**/config.json")):
            raise FileNotFoundError(f"'{folder}' is neither a model folder nor a training run")
        return folder
    parts = model_folder.find(base)
    sampling = ModelConfig.load(parts / model_folder.CONFIG).sampling
    for saved in found:
        task = ExportTask(
            task="export",
            out=str(out / saved.name),
            name=out.name,
            ddit=str(saved),
            latents=export.latents_of(saved),
            sampling=sampling,
            **dict.fromkeys(("video_vae", "audio_vae", "text_encoder"), str(parts)),
        )
        export.export(task)
    return out


def _named(values: list[str], option: str) -> dict[str, str]:
    named = {}
    for text in values:
        name, found, value = text.partition("=")
        if not (name and found and value) or name in named:
            raise ValueError(f"{option} takes NAME=VALUE with each name once, got {text!r}")
        named[name] = value
    return named


def _numbers(text: str, kind: type, option: str) -> list:
    try:
        return [kind(part) for part in text.split(",") if part]
    except ValueError:
        raise ValueError(f"{option} takes numbers separated by commas, got {text!r}") from None
