"""A real film through both VAEs and back to mp4, at several sizes, beside clips of impacts.

python benchmarks/real_media.py                               # the shipped model
python benchmarks/real_media.py --model runs/impacts/model --out runs/real_media --sizes 64
python benchmarks/real_media.py --page docs/real_media.md     # also fill in the page

Ten two-second windows of Big Buck Bunny (see film.py) are read with ``Clip.load`` at 16 fps and 48
kHz mono, reconstructed, written as mp4 and read again. Writes real_media.json, real_media.md and
real_media.png, exit code 0 if every length and every lag is right and 1 if not.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import film
import torch
from torch import Tensor

from syncflow import durable
from syncflow.clip import Clip, ClipSpec
from syncflow.data import media
from syncflow.detect import fidelity
from syncflow.evaluation.report import tables
from syncflow.evaluation.report.contact_sheet import contact_sheet
from syncflow.evaluation.suites import provenance, systems

ROOT = Path(__file__).resolve().parents[1]
#: Start of every window in seconds, in the part of the film (480 to 590 s) that nothing trains on:
#: cuts, pans, a close-up, credits that roll with small figures, a bird against the sky. Some lie
#: off the grid of the film's 24 frames a second.
STARTS = (480.0, 482.25, 484.0, 487.01, 498.13, 508.5, 524.0, 553.37, 581.5, 588.0)
SECONDS, FPS, SAMPLE_RATE = 2.0, 16, 48000
#: A/V lag in ms that a file may add: what the package promises.
MAX_LAG_MS = 1.0
#: A picture in docs/ stays under this many bytes.
SHEET_BYTES = 190_000
#: name in the JSON -> heading and digits; the mean and the range over the clips are shown.
COLUMNS = {
    "psnr": ("PSNR dB", 1),
    "psnr_moving": ("PSNR of moving pixels dB", 1),
    "spectral_db": ("spectral distance dB", 1),
    "loudness_dbfs": ("loudness dBFS", 1),
    "loudness_change_db": ("its change dB", 1),
}
#: The same for numbers of which the one furthest from 0 is shown.
WORST = {
    "file_lag_ms": ("lag of mp4 ms", 3),
    "load_lag_ms": ("lag of `Clip.load` ms", 3),
    "load_gain_db": ("gain of `Clip.load` dB", 1),
}
_MARKS = ("<!-- real-media:begin -->", "<!-- real-media:end -->")


def loudness(audio_M: Tensor) -> float:
    """Root mean square in dB of full scale; -120 for silence."""
    return float(20 * torch.log10(audio_M.double().square().mean().sqrt() + 1e-6))


def sound_lag_ms(reference_M: Tensor, late_M: Tensor, sample_rate: int) -> float:
    """Delay of the second sound against the first at the peak of their cross-correlation."""
    length = len(reference_M) + len(late_M)
    spectrum = torch.fft.rfft(late_M.double(), length)
    product = torch.fft.irfft(
        spectrum * torch.fft.rfft(reference_M.double(), length).conj(), length
    )
    if not float(product.abs().max()):
        return 0.0
    peak = int(product.argmax())
    left, middle, right = (float(product[(peak + i) % length]) for i in (-1, 0, 1))
    curve = left - 2 * middle + right
    fraction = 0.5 * (left - right) / curve if curve else 0.0  # of the parabola's top
    return 1000 * ((peak if peak < length / 2 else peak - length) + fraction) / sample_rate


def picture_lag_ms(reference: Tensor, late: Tensor, fps: float, reach: int = 3) -> float:
    """Delay of the second uint8 [F,3,H,W] against the first in whole frames of best match."""

    def error(shift: int) -> float:
        a, b = reference[max(0, -shift) :], late[max(0, shift) :]
        frames = min(len(a), len(b))
        return float((a[:frames].float() - b[:frames].float()).square().mean())

    best = min(range(-reach, reach + 1), key=error)
    # A still picture matches everywhere, but for what the codec did to each frame.
    return 1000 * best / fps if error(best) < 0.5 * error(0) else 0.0


def soundtrack(path: Path) -> tuple[Tensor, float]:
    """All sound of a file, decoded from its beginning without a seek: mono [M] at ``SAMPLE_RATE``,
    and the time of its first sample in seconds after the first picture."""
    import av
    import torchaudio

    with av.open(str(path)) as source:
        picture = next(source.decode(video=0))
    with av.open(str(path)) as source:
        if not source.streams.audio:
            raise ValueError(f"'{path}' has no sound to measure")
        sound = source.streams.audio[0]
        frames = list(source.decode(sound))
        planar = av.AudioResampler(format="fltp")
        parts = [part for frame in [*frames, None] for part in planar.resample(frame)]
        pieces = [torch.from_numpy(part.to_ndarray()).mean(0) for part in parts]
        start = float(frames[0].pts * frames[0].time_base - picture.pts * picture.time_base)
        rate = sound.rate
    return torchaudio.functional.resample(torch.cat(pieces), rate, SAMPLE_RATE), start


def load_windows(
    path: Path, starts: Sequence[float], size: int, track: tuple[Tensor, float]
) -> list[tuple[Clip, dict[str, float]]]:
    """Square windows of a file, each with how late (ms) and how much louder (dB) its sound is than
    the mean of the channels in ``track``."""
    found = []
    for start in starts:
        clip = Clip.load(path, FPS, SAMPLE_RATE, start, SECONDS, size, size)
        first = round((start - track[1]) * SAMPLE_RATE)
        reference = track[0][max(0, first) : first + len(clip.audio)]
        reference = torch.nn.functional.pad(reference, (max(0, -first), 0))
        lag = sound_lag_ms(reference, clip.audio, SAMPLE_RATE)
        gain = loudness(clip.audio) - loudness(reference)
        found.append((clip, {"start_s": start, "load_lag_ms": lag, "load_gain_db": gain}))
    return found


def measure(model: systems.Model, original: Clip, path: Path) -> tuple[dict[str, Any], Clip]:
    """One clip through both VAEs, to the mp4 ``path`` and back: its numbers and what was read."""
    made = model.reconstruct(original)
    made.save(path)
    again = Clip.load(path, original.fps, original.sample_rate)
    spec = ClipSpec(SECONDS, FPS, *original.video.shape[2:], SAMPLE_RATE)
    lag = sound_lag_ms(made.audio, again.audio, SAMPLE_RATE)
    lag -= picture_lag_ms(made.video, again.video, FPS)
    lengths = {"frames": len(again.video), "samples": len(again.audio)}
    right = lengths == {"frames": spec.num_frames, "samples": spec.num_samples}
    quality = fidelity.measure(original, again) if right else {"psnr_moving": math.nan}
    numbers = {
        **quality,
        "loudness_dbfs": loudness(original.audio),
        "loudness_change_db": loudness(again.audio) - loudness(original.audio),
        **lengths,
        "file_lag_ms": lag,
        "ok": right and abs(lag) <= MAX_LAG_MS,
    }
    return numbers, again


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per source and size: [mean, least, greatest], the worst lags and gain, checks passed."""
    result = []
    for key in dict.fromkeys((row["source"], row["size"]) for row in rows):
        part = [row for row in rows if (row["source"], row["size"]) == key]
        entry: dict[str, Any] = {"source": key[0], "size": key[1], "clips": len(part)}
        for name in COLUMNS:
            values = [row[name] for row in part if math.isfinite(row.get(name, math.nan))]
            if values:
                entry[name] = [sum(values) / len(values), min(values), max(values)]
        for name in WORST:
            values = [row[name] for row in part if name in row]
            if values:
                entry[name] = max(values, key=abs)
        result.append({**entry, "passed": sum(row["ok"] for row in part)})
    return result


def markdown(result: dict[str, Any]) -> str:
    """The table and the circumstances."""
    heads = ["clips", "px", *(title for title, _ in COLUMNS.values())]
    heads += [*(title for title, _ in WORST.values()), "lengths and lags right"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in result["summary"]:
        cells = [row["source"], str(row["size"])]
        for name, (_, digits) in COLUMNS.items():
            mean, low, high = (f"{v:.{digits}f}" for v in row.get(name, [math.nan] * 3))
            cells.append(f"{mean} [{low}, {high}]" if name in row else "-")
        for name, (_, digits) in WORST.items():
            cells.append(f"{row[name]:.{digits}f}" if name in row else "-")
        lines.append("| " + " | ".join([*cells, f"{row['passed']} of {row['clips']}"]) + " |")
    facts = "\n".join(f"- {name}: {value}" for name, value in result["facts"].items())
    legend = (
        "Mean [least, greatest] over the clips, original against what was read back from the mp4. "
        "Moving pixels: those that differ from their median over time. Spectral distance: mean of "
        "|difference| of log magnitudes. Loudness: of the original, RMS. Lags and gain: the one "
        "furthest from 0; of the mp4, sound against picture, read back against written; of "
        "`Clip.load`, against the soundtrack decoded from its beginning, its channels averaged."
    )
    return "\n".join([*lines, "", legend, "", facts]) + "\n"


def draw(
    shown: Sequence[tuple[str, Clip, Clip]], path: Path, columns: int = 2, limit: int = SHEET_BYTES
) -> Path:
    """Contact sheet: every original above its reconstruction, one gain for both waveforms, in as
    many frames and colours as fit into ``limit`` bytes."""
    from PIL import Image

    clips, labels = [], []
    for first in range(0, len(shown), columns):
        part = shown[first : first + columns]
        gains = [0.9 / max(float(original.audio.abs().max()), 1e-3) for _, original, _ in part]
        for index, name in ((1, "original"), (2, "after the VAEs and mp4")):
            for item, gain in zip(part, gains, strict=True):
                clip = item[index]
                clips.append(Clip(clip.video, clip.audio * gain, clip.fps, clip.sample_rate))
                labels.append(f"{item[0]}: {name}")
    for frames, colours in ((8, 256), (8, 128), (6, 128), (6, 64), (4, 64)):
        with durable.replacing(path) as partial:
            contact_sheet(clips, labels, partial, frames=frames, columns=columns)
            sheet = Image.open(partial).quantize(colours, dither=Image.Dither.NONE)
            sheet.save(partial, format="PNG", optimize=True)
        if path.stat().st_size <= limit:
            break
    return path


def source_hash() -> str:
    """Of every Python file of the package: which code was measured."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "syncflow").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def run(
    model: systems.Model,
    path: Path,
    starts: Sequence[float],
    sizes: Sequence[int],
    folder: Path,
    levels: Sequence[int] = (1,),
    impacts: int = 10,
) -> tuple[list[dict[str, Any]], list[tuple[str, Clip, Clip]]]:
    """One row of numbers per clip and size, and pairs to draw, from the first size. The mp4 files
    go into ``folder``; ``impacts`` test clips (0 for none) are spread over ``levels``."""
    from tqdm import tqdm

    track = soundtrack(path)
    share = max(2, impacts // len(levels))
    cases = systems.cases("test", share, levels)[:impacts] if impacts else []
    rows: list[dict[str, Any]] = []
    shown: list[tuple[str, Clip, Clip]] = []
    for size in sizes:
        windows = load_windows(path, starts, size, track)
        inputs = [("film", f"{facts['start_s']:g} s", clip, facts) for clip, facts in windows]
        for case in cases:
            facts = {"seed": case.seed, "level": case.level}
            clip = systems.rendered(case, size, size)
            inputs.append(("impacts", f"impacts, level {case.level}", clip, facts))
        for index, (source, label, clip, facts) in enumerate(tqdm(inputs, f"{size} px")):
            numbers, again = measure(model, clip, folder / f"{size}_{index:02}_{source}.mp4")
            numbers["ok"] &= abs(facts.get("load_lag_ms", 0.0)) <= MAX_LAG_MS
            rows.append({"source": source, "size": size, **facts, **numbers})
            if size == sizes[0] and (source == "film" or index < len(starts) + 2):
                shown.append((f"{label}, {size} px", clip, again))
    return rows, shown


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ValueError(f"{message} (see --help)")


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(argv)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"real_media: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _main(argv: list[str]) -> int:
    parser = _Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="real_media"
    )
    parser.add_argument("--model", help="model folder or hub id; default: the one in the package")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256], metavar="PX")
    parser.add_argument("--cache", type=Path, default=film.CACHE, help="where the film is kept")
    parser.add_argument("--file", type=Path, help="measure on this film instead")
    parser.add_argument("--starts", type=float, nargs="+", default=STARTS, metavar="SECONDS")
    parser.add_argument("--impacts", type=int, default=10, help="clips of impacts; 0 for none")
    parser.add_argument("--levels", type=int, nargs="+", default=[1], help="levels of impacts")
    parser.add_argument("--page", type=Path, help="page to fill in, with the sheet beside it")
    parser.add_argument("--keep", type=Path, help="folder for the mp4 files of the reconstructions")
    args = parser.parse_args(argv)
    for size in args.sizes:
        ClipSpec(SECONDS, FPS, size, size, SAMPLE_RATE)
    page = args.page.read_text() if args.page else ""
    if args.page and any(page.count(mark) != 1 for mark in _MARKS):
        raise ValueError(f"'{args.page}' has no place for the numbers: {' ... '.join(_MARKS)}")
    for folder in (args.out, args.keep):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            media.check_folder(folder / "real_media.json")
    model, named = provenance.load_model(args.model)
    path = args.file or film.fetch(args.cache)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        rows, shown = run(model, path, args.starts, args.sizes, folder, args.levels, args.impacts)
    info = media.probe(path)
    result = {
        "facts": {
            **named,
            "film": f"{args.file.name if args.file else 'Big Buck Bunny'}, {info.width}x"
            f"{info.height} at {info.fps:g} fps, {info.sample_rate} Hz x {info.channels}",
            "sha256": film.sha256(path),
            "windows": f"{SECONDS:g} s from {', '.join(f'{s:g}' for s in args.starts)} s",
            **provenance.circumstances(shlex.join(["python", "benchmarks/real_media.py", *argv])),
            "source": source_hash(),
        },
        "summary": summary(rows),
        "rows": rows,
    }
    tables.write_json(args.out / "real_media.json", result)
    text = markdown(result)
    (args.out / "real_media.md").write_text(f"# Real media through the VAEs\n\n{text}")
    sheet = draw(shown, (args.page.parent if args.page else args.out) / "real_media.png")
    if args.page:
        picture = f"![Originals above their reconstructions, with waveforms]({sheet.name})"
        block = f"{_MARKS[0]}\n{picture}\n\n{text}{_MARKS[1]}"
        between = f"{_MARKS[0]}.*{_MARKS[1]}"
        args.page.write_text(re.sub(between, lambda _: block, page, flags=re.S))
    print(text)
    failed = sum(not row["ok"] for row in rows)
    if failed:
        print(f"{failed} of {len(rows)} clips have a wrong length or lag", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
