"""Small drawings for a report that opens anywhere: SVG as text, and strips of frames as JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle, pairwise
from math import isfinite

import numpy as np
from torch import Tensor

#: One colour a series, told apart by colour-blind readers too (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_WIDTH, _HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 8, 34


@dataclass(frozen=True)
class Series:
    """``points``: (x, value, low, high); ``label`` for the legend."""

    label: str
    points: Sequence[tuple[float, float, float, float]]


def chart(
    series: Sequence[Series],
    x_label: str,
    title: str,
    floors: Sequence[tuple[str, Sequence[float]]] = (),
    x_marks: Sequence[float] | None = None,
) -> str:
    """Lines with their 95 % bands; ``floors``: (name, [value, low, high]) as horizontal bands."""
    xs = [p[0] for s in series for p in s.points]
    ys = [v for s in series for p in s.points for v in p[1:] if isfinite(v)]
    ys += [v for _, values in floors for v in values if isfinite(v)]
    if not xs or not ys:
        return ""
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(0.0, *ys), max(ys)
    y_high = y_high if y_high > y_low else y_low + 1

    def x_at(x: float) -> float:
        share = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y_at(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<rect class="plot" x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _LEFT - _RIGHT}"'
        f' height="{_HEIGHT - _TOP - _BOTTOM}"/>'
    ]
    for y in np.linspace(y_low, y_high, 5):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}"'
            f' y1="{y_at(y):.1f}" y2="{y_at(y):.1f}"/>'
            f'<text x="{_LEFT - 4}" y="{y_at(y) + 4:.1f}" class="end">{_short(y)}</text>'
        )
    marks = x_marks if x_marks is not None else np.linspace(x_low, x_high, 5)
    for x in marks:
        anchor = "end" if x == x_high else "mid"
        parts.append(
            f'<text x="{x_at(x):.1f}" y="{_HEIGHT - _BOTTOM + 14}" class="{anchor}">'
            f"{_short(x)}</text>"
        )
    parts.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 5}" class="mid">'
        f"{escape(x_label)}</text>"
    )
    for name, (value, low, high) in floors:
        if not isfinite(value):
            continue
        low, high = (low if isfinite(low) else value), (high if isfinite(high) else value)
        parts.append(
            f'<rect class="floor" x="{_LEFT}" y="{y_at(high):.1f}"'
            f' width="{_WIDTH - _LEFT - _RIGHT}" height="{y_at(low) - y_at(high):.1f}"/>'
            f'<line class="floor-line" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}"'
            f' y1="{y_at(value):.1f}" y2="{y_at(value):.1f}"/>'
            f'<text x="{_WIDTH - _RIGHT - 3}" y="{y_at(value) - 3:.1f}" class="end small">'
            f"{escape(name)}</text>"
        )
    for index, one in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        points = [p for p in one.points if isfinite(p[1])]
        band = [p for p in points if isfinite(p[2]) and isfinite(p[3])]
        if len(band) > 1:
            edge = [(p[0], p[3]) for p in band] + [(p[0], p[2]) for p in reversed(band)]
            path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in edge)
            parts.append(f'<polygon points="{path}" fill="{colour}" opacity="0.18"/>')
        path = " ".join(f"{x_at(p[0]):.1f},{y_at(p[1]):.1f}" for p in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x_at(p[0]):.1f}" cy="{y_at(p[1]):.1f}" r="2.4" fill="{colour}">'
            f"<title>{_short(p[0])}: {p[1]:.3f} [{p[2]:.3f}, {p[3]:.3f}]</title></circle>"
            for p in points
        ]
    return _figure(parts, _WIDTH, _HEIGHT, title, [s.label for s in series if s.label])


def binned(
    values: Sequence[float] | np.ndarray, limit: float, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Counts and edges of bins of ``step`` within +-``limit``; what is beyond counts in the last
    ones, what is not finite nowhere."""
    found = np.asarray(values, float)
    inside = np.clip(found[np.isfinite(found)], -limit, limit - 1e-6)
    counts, edges = np.histogram(inside, round(2 * limit / step), (-limit, limit))
    return counts, edges


def histogram(
    values: Sequence[float], title: str, limit: float = 250, step: float = 10, unit: str = "ms"
) -> str:
    """Bars of signed values; those beyond the limit are piled up in the last bars."""
    counts, edges = binned(values, limit, step)
    width, height, bottom = _WIDTH, 120, 26
    wide = (width - _LEFT - _RIGHT) / len(counts)
    tallest = max(1, int(counts.max(initial=0)))
    parts = [
        f'<line class="floor-line" x1="{width / 2 + (_LEFT - _RIGHT) / 2}"'
        f' x2="{width / 2 + (_LEFT - _RIGHT) / 2}" y1="{_TOP}" y2="{height - bottom}"/>',
        f'<text x="{_LEFT - 4}" y="{_TOP + 8}" class="end">{tallest}</text>',
    ]
    for i, count in enumerate(counts):
        tall = count / tallest * (height - bottom - _TOP)
        parts.append(
            f'<rect x="{_LEFT + i * wide + 0.5:.1f}" y="{height - bottom - tall:.1f}"'
            f' width="{wide - 1:.1f}" height="{tall:.1f}" fill="{COLOURS[0]}">'
            f"<title>{edges[i]:.0f} to {edges[i + 1]:.0f} {unit}: {count}</title></rect>"
        )
    for value in (-limit, -limit / 2, 0, limit / 2, limit):
        x = _LEFT + (value + limit) / (2 * limit) * (width - _LEFT - _RIGHT)
        anchor = "end" if value == limit else ("mid" if value > -limit else "")
        parts.append(f'<text x="{x:.1f}" y="{height - 10}" class="{anchor}">{value:+.0f}</text>')
    return _figure(parts, width, height, f"{title} ({int(counts.sum())} contacts)", [])


def timeline(
    audio_M: Tensor, sample_rate: int, seconds: float, seen: Sequence[float], heard: Sequence[float]
) -> str:
    """A waveform and, over the frames above it, both kinds of events on one time axis.

    The drawing is 1000 units wide and has the frames' place in its upper half; it is laid over
    them. Contacts are drawn on the frames, onsets on the waveform.
    """
    samples = audio_M.detach().cpu().float().numpy()
    wanted = max(1, round(seconds * sample_rate))
    samples = np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))
    points = 250
    edges = np.linspace(0, wanted, points + 1).astype(int)
    pieces = [samples[a : max(b, a + 1)] for a, b in pairwise(edges)]
    upper, lower = [float(p.max()) for p in pieces], [float(p.min()) for p in pieces]
    step = 1000 / points
    top = [f"{round((i + 0.5) * step)},{150 - round(48 * v)}" for i, v in enumerate(upper)]
    down = [f"{round((i + 0.5) * step)},{151 - round(48 * v)}" for i, v in enumerate(lower)]
    parts = [f'<polygon class="wave" points="{" ".join(top + down[::-1])}"/>']
    for name, times, y in (("seen", seen, (0, 100)), ("heard", heard, (100, 200))):
        parts += [
            f'<line class="{name}" x1="{1000 * t / seconds:.1f}" x2="{1000 * t / seconds:.1f}"'
            f' y1="{y[0]}" y2="{y[1]}"><title>{name} at {1000 * t:.0f} ms</title></line>'
            for t in times
        ]
    return (
        '<svg class="timeline" viewBox="0 0 1000 200" preserveAspectRatio="none" role="img" '
        f'aria-label="waveform with {len(seen)} contacts seen and {len(heard)} onsets heard">'
        + "".join(parts)
        + '<line class="head" x1="0" x2="0" y1="0" y2="200"/></svg>'
    )


def strip(video_F3HW: Tensor, height: int = 40) -> bytes:
    """Evenly spaced frames side by side, about ten times as wide as high, as a JPEG."""
    from PIL import Image

    frames = max(3, round(10 * video_F3HW.shape[2] / video_F3HW.shape[3]))
    width = max(1, round(height * video_F3HW.shape[3] / video_F3HW.shape[2]))
    sheet = Image.new("RGB", (frames * width, height))
    for column in range(frames):
        index = min(len(video_F3HW) - 1, int((column + 0.5) / frames * len(video_F3HW)))
        pixels = video_F3HW[index].permute(1, 2, 0).contiguous().cpu().numpy()
        small = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(small, (column * width, 0))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()


def _figure(
    parts: Sequence[str], width: float, height: float, title: str, legend: Sequence[str]
) -> str:
    names = "".join(
        f'<span class="key"><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in zip(legend, cycle(COLOURS), strict=False)
    )
    title = escape(title)
    return (
        f'<figure><figcaption>{title} {names}</figcaption><svg class="chart" role="img" '
        f'viewBox="0 0 {width} {height}" aria-label="{title}">{"".join(parts)}</svg></figure>'
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 or value == round(value) else f"{value:.2g}"
