"""Makes the moving clips of the README: the picture above its waveform, with a cursor that plays.

python tools/readme_clips.py             # docs/clips/1.webp, 1.mp4 ... from the shipped model
python tools/readme_clips.py --seed 3    # other draws

Browsers play an animated WebP in a page, but without sound, and repository pages play no mp4 by its
path: so the README shows the one and links to the other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from contact_sheet import PROMPTS
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
_SIZE, _WAVE = 208, 56
_BACK, _PLAYED, _AHEAD, _CURSOR = "#10141c", "#6cb6ff", "#3b5573", "#ffffff"


def frames(video: np.ndarray, audio: np.ndarray, size: int = _SIZE) -> list[Image.Image]:
    """One image per frame of ``video`` [F, 3, H, W], above the waveform of ``audio`` [M]."""
    columns = np.array_split(np.abs(audio), size)
    peaks = np.array([column.max() for column in columns])
    peaks = peaks / max(peaks.max(), 1e-6) * (_WAVE / 2 - 4)
    middle, made = size + _WAVE // 2, []
    for index, picture in enumerate(video):
        image = Image.new("RGB", (size, size + _WAVE), _BACK)
        shown = Image.fromarray(picture.transpose(1, 2, 0))
        image.paste(shown.resize((size, size), Image.Resampling.BICUBIC))
        draw = ImageDraw.Draw(image)
        now = round((index + 0.5) / len(video) * size)
        for x, height in enumerate(peaks):
            colour = _PLAYED if x <= now else _AHEAD
            draw.line((x, middle - height, x, middle + height), fill=colour)
        draw.line((now, size + 2, now, size + _WAVE - 3), fill=_CURSOR, width=2)
        made.append(image)
    return made


def write(path: Path, images: list[Image.Image], fps: float) -> None:
    """An animated WebP that plays for ever."""
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=[round(1000 / fps)] * (len(images) - 1) + [round(1000 / fps) + 500],
        loop=0,
        quality=70,
        method=6,
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", nargs="+", default=PROMPTS, help="one sentence per clip")
    parser.add_argument("--model", help="a model folder (default: the shipped model)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "clips", help="folder")
    args = parser.parse_args(argv)

    import syncflow

    model = syncflow.load(*([args.model] if args.model else []))
    args.out.mkdir(parents=True, exist_ok=True)
    clips = model.generate(list(args.prompt), seed=args.seed)
    for number, clip in enumerate(clips, 1):
        clip.save(args.out / f"{number}.mp4")
        path = args.out / f"{number}.webp"
        write(path, frames(clip.video.numpy(), clip.audio.numpy()), clip.fps)
        print(path, path.stat().st_size, (args.out / f"{number}.mp4").stat().st_size)


if __name__ == "__main__":
    main()
