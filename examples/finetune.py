"""Fine-tunes the shipped model on a folder of clips with LoRA and generates with the result.

python examples/finetune.py --clips my_clips    # mp4 files, each with a caption in NAME.txt
python examples/finetune.py                     # on clips of the impacts world, made first

Needs `pip install -e ".[lora]"`. docs/finetune.md explains every step and what to watch.
"""

import argparse
import json
from pathlib import Path

import syncflow
from syncflow.cli import main as run

SHIPPED = Path(syncflow.__file__).parent / "pretrained"


def command(*words: object) -> None:
    """One `syncflow` command, as on the command line."""
    code = run([str(word) for word in words])
    if code:
        raise SystemExit(code)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, help="folder of clips (default: make some)")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", type=int, help="decoding processes (default: one per core)")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"))
    args = parser.parse_args(argv)

    clips = args.clips or args.out / "clips"
    if args.clips is None:
        command("data", "impacts", "--out", clips, "--clips", 12, "--workers", args.workers or 1)

    # 1. Every clip goes through the model's own encoders once; a share is held out for validation.
    for split in ("train", "test"):
        words = ["--split", split, "--test-share", 0.25, "--out", args.out / split]
        workers = [] if args.workers is None else ["--workers", args.workers]
        command("prepare", clips, *words, *workers, "--no-progress")

    # 2. Small matrices in both towers learn; everything else stays.
    known = json.loads((SHIPPED / "config.json").read_text())
    config = {
        "task": "flow",
        "out": str(args.out / "lora"),
        "data": str(args.out / "train"),
        "validation": str(args.out / "test"),
        "model": known["ddit"],
        "init": str(SHIPPED),
        "statistics": "init",
        "null_caption": known["sampling"].get("null_caption", "full"),
        "train": "both",
        "lora": {"rank": 8, "alpha": 8, "towers": "both"},
        "loop": {
            "steps": args.steps,
            "batch_size": args.batch,
            "lr": 2e-4,
            "warmup": args.steps // 10,
            "weight_decay": 0.0,
            "ema": 0.99,
            "precision": "fp32",
            "randomness": "sample",
            "validate_every": max(args.steps // 2, 1),
        },
    }
    train(args.out / "lora.json", config)

    # 3. A model folder of its own, with the additions merged in and the model's own settings.
    export = {
        "task": "export",
        "out": str(args.out / "model"),
        "name": "fine-tuned",
        "latents": config["data"],
        "ddit": config["out"],
        "sampling": known["sampling"],
        **{part: str(SHIPPED) for part in ("video_vae", "audio_vae", "text_encoder")},
    }
    train(args.out / "export.json", export)

    clip = syncflow.load(args.out / "model").generate("a glass ball bounces twice", seed=0)
    clip.save(args.out / "clip.mp4")
    print(args.out / "clip.mp4")


def train(path: Path, config: dict) -> None:
    """Writes the config and runs it; rerunning resumes."""
    path.write_text(json.dumps(config, indent=2))
    command("train", "--config", path)


if __name__ == "__main__":
    main()
