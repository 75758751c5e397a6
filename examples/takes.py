"""Several soundtracks for one picture, the one in best sync first.

python examples/takes.py --takes 4 --out clips
"""

import argparse
from pathlib import Path

import syncflow


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", default="a metal ball bounces twice on tiles")
    parser.add_argument("--takes", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("clips"))
    args = parser.parse_args(argv)

    model = syncflow.load()
    takes = model.generate(args.prompt, audio_takes=args.takes, seed=3)

    args.out.mkdir(parents=True, exist_ok=True)
    for number, take in enumerate(takes, 1):
        take.save(args.out / f"take-{number}.mp4")
        scores = ", ".join(f"{name} {value:.2f}" for name, value in take.scores.items())
        print(f"take-{number}.mp4: {scores}")


if __name__ == "__main__":
    main()
