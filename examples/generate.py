"""Text to video and audio: two prompts, one batch, one mp4 each.

python examples/generate.py --out clips
"""

import argparse
from pathlib import Path

import syncflow

PROMPTS = [
    "a metal ball bounces three times on concrete",
    "a small blue glass ball bounces twice on tiles",
]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("clips"))
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args(argv)

    # Load once, generate often. Prompts in a list are generated together, which is faster.
    model = syncflow.load()
    clips = model.generate(PROMPTS, seed=args.seed)

    args.out.mkdir(parents=True, exist_ok=True)
    for prompt, clip in zip(PROMPTS, clips, strict=True):
        path = args.out / f"{prompt.replace(' ', '-')}.mp4"
        clip.save(path)
        print(f"{path}: {clip.seconds:g} s, {tuple(clip.video.shape)} at {clip.fps:g} fps")


if __name__ == "__main__":
    main()
