"""Draws docs/impacts_level1.png ... 4.png: clips of the test split of every level of impacts.

python tools/impacts_sheets.py              # all levels
python tools/impacts_sheets.py --levels 3   # some
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

from syncflow import impacts
from syncflow.clip import Clip
from syncflow.evaluation.report.contact_sheet import contact_sheet

DOCS = Path(__file__).resolve().parents[1] / "docs"
#: PNGs in the repository stay for ever: colours of the palette that they are reduced to.
_PALETTE = 128


def scenes(level: int, count: int) -> list[impacts.Scene]:
    """The first test scenes of a level with every kind of event as often as any other."""
    kinds = impacts.attribute_values(level)["kind"]
    found: dict[str, list[impacts.Scene]] = {kind: [] for kind in kinds}
    for seed in impacts.SEEDS["test"]:
        scene = impacts.sample_scene(seed, level)
        found[scene.attributes["kind"]].append(scene)
        if min(map(len, found.values())) * len(kinds) >= count:
            break
    rounds = zip(*found.values(), strict=False)
    return [scene for some in rounds for scene in some][:count]


def draw(level: int, count: int, size: int, out: Path) -> Path:
    """Renders ``count`` clips at ``size`` px and draws them into ``out``."""
    shown = scenes(level, count)
    clips = [
        Clip(torch.from_numpy(impacts.render(s, size, size)), torch.from_numpy(impacts.sound(s)))
        for s in shown
    ]
    marks = [
        (
            [c.time_s for c in scene.contacts if c.visible],
            [c.time_s for c in scene.contacts if c.audible],
        )
        for scene in shown
    ]
    contact_sheet(clips, [s.caption for s in shown], out, frames=12, marks=marks)
    image = Image.open(out).quantize(_PALETTE, dither=Image.Dither.NONE)
    image.save(out, optimize=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--levels", type=int, nargs="+", default=list(impacts.LEVELS))
    parser.add_argument("--clips", type=int, default=10, help="clips on a sheet")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder")
    args = parser.parse_args()
    for level in args.levels:
        print(draw(level, args.clips, args.size, args.out / f"impacts_level{level}.png"))


if __name__ == "__main__":
    main()
