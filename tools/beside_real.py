"""Draws docs/beside_real.webp: generated clips beside the rendered ones of the same captions.

python tools/beside_real.py                    # the first 24 test captions, seeds 0 to 23
python tools/beside_real.py --level 3 -o docs/beside_real_level3.webp
python tools/beside_real.py --model FOLDER -o sheet.png

Every row is a caption; left the model's clip, right the renderer's, a frame in three. Captions and
seeds are fixed, so nothing is picked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
_STEP, _CELL, _TEXT, _GAP = 3, 56, 15, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model folder (default: the shipped model)")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--level", type=int, default=1, choices=(1, 2, 3, 4))
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "docs" / "beside_real.webp")
    args = parser.parse_args()

    import syncflow
    from syncflow.evaluation.suites import systems

    cases = systems.cases(args.split, args.clips, [args.level])
    model = syncflow.load(args.model)
    clips = model.generate([case.prompt for case in cases], seed=args.seed)
    height, width = clips[0].video.shape[2:]
    shown = range(0, len(clips[0].video), _STEP)
    wide = len(shown) * _CELL
    sheet = Image.new("RGB", (2 * wide + _GAP, len(cases) * (_CELL + _TEXT)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for row, (case, clip) in enumerate(zip(cases, clips, strict=True)):
        top = row * (_CELL + _TEXT)
        draw.text((2, top), f"{row + 1}  {case.prompt}", "black", font)
        both = (clip.video, systems.rendered(case, height, width).video)
        for side, video in enumerate(both):
            for place, frame in enumerate(shown):
                picture = Image.fromarray(video[frame].permute(1, 2, 0).numpy())
                picture = picture.resize((_CELL, _CELL), Image.Resampling.BICUBIC)
                sheet.paste(picture, (side * (wide + _GAP) + place * _CELL, top + _TEXT))
    sheet.save(args.out, quality=85)
    print(args.out)


if __name__ == "__main__":
    main()
