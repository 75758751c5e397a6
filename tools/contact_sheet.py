"""Draws docs/contact_sheet.png: clips made by the shipped model, frames above waveforms.

python tools/contact_sheet.py                                  # the sheet of the README
python tools/contact_sheet.py --prompt "a drum is hit twice"   # other sentences
python tools/contact_sheet.py --clip a.mp4 b.mp4 -o sheet.png  # clips that exist already
"""

from __future__ import annotations

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = (
    "a metal ball bounces three times on concrete",
    "a large yellow wooden ball bounces twice on a carpet",
    "a small blue glass ball bounces four times on tiles",
    "a big green rubber ball hits a wooden floor once",
    "a red metal ball drops onto concrete and bounces twice",
    "the sound of a purple glass ball bouncing three times",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", nargs="+", default=PROMPTS, help="sentences to draw")
    parser.add_argument("--clip", nargs="+", help="draw these media files instead of generating")
    parser.add_argument("--model", help="a model folder (default: the shipped model)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=12, help="pictures per clip")
    parser.add_argument("--columns", type=int, default=2, help="clips side by side")
    parser.add_argument("--cell", type=int, default=48, help="width of a picture in px")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "docs" / "contact_sheet.png")
    args = parser.parse_args()

    import syncflow
    from syncflow.evaluation.report.contact_sheet import contact_sheet

    if args.clip:
        clips, prompts = [syncflow.Clip.load(path) for path in args.clip], args.clip
    else:
        model = syncflow.load(args.model) if args.model else syncflow.load()
        clips, prompts = model.generate(list(args.prompt), seed=args.seed), args.prompt
    print(
        contact_sheet(
            clips, prompts, args.out, frames=args.frames, columns=args.columns, cell=args.cell
        )
    )


if __name__ == "__main__":
    main()
