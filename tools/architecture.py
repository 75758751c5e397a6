"""Draws docs/architecture.svg: both towers, what runs between them, and what reads what.

python tools/architecture.py
"""

from __future__ import annotations

from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "docs" / "architecture.svg"

_WIDTH, _HEIGHT = 940, 380
_VIDEO, _AUDIO, _BRIDGE, _PLAIN = "#dbe9ff", "#ffe5cf", "#e3f3df", "#f0f1f4"
_VIDEO_Y, _ADAPTOR_Y, _AUDIO_Y = 64, 164, 250
_LAYER_X, _LAYER_W, _STEP, _H = 272, 92, 122, 54
_LAYERS = ("layer 1", "layer 2", "...", "layer N")
_OUT_X = _LAYER_X + len(_LAYERS) * _STEP


def text(x: float, y: float, words: str, size: int = 13, extra: str = "") -> str:
    """Words at a point, in pixels."""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" {extra}>{words}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, *lines: str) -> str:
    """A rounded box with its lines of words in the middle."""
    parts = [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" fill="{fill}"/>'
    ]
    first = y + height / 2 + 4.5 - 8 * (len(lines) - 1)
    for index, words in enumerate(lines):
        size = 13 if not index else 11
        parts.append(text(x + width / 2, first + 16 * index, words, size, 'text-anchor="middle"'))
    return "".join(parts)


def line(*points: tuple[float, float], kind: str = "line") -> str:
    """Through points, in pixels."""
    path = " L".join(f"{x:g},{y:g}" for x, y in points)
    return f'<path d="M{path}" class="{kind}"/>'


def arrow(*points: tuple[float, float]) -> str:
    """A line with a head at its end."""
    return line(*points, kind="line arrow")


def draw() -> str:
    """The figure as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'width="{_WIDTH}" height="{_HEIGHT}">',
        "<title>One sentence goes to both towers. Each layer of the video tower hands its features "
        "through an adaptor to the same layer of the audio tower, and nothing goes back.</title>",
        "<style>text{font-family:Helvetica,Arial,sans-serif;fill:#1c2430}"
        "rect{stroke:#55627a;stroke-width:1}"
        ".line{fill:none;stroke:#3b4758;stroke-width:1.4}.optional{stroke-dasharray:5 4}"
        ".arrow{marker-end:url(#head)}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto">',
        '<path d="M0,0 L8,4 L0,8 z" fill="#3b4758"/></marker></defs>',
        f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" rx="10" fill="white" '
        'style="stroke:#d5dae3"/>',
        text(_LAYER_X, 36, "video tower (STDiT3: spatial and temporal attention)", 12),
        text(
            _LAYER_X,
            _AUDIO_Y + _H + 32,
            "audio tower (self- and cross-attention; reading the sentence is optional)",
            12,
        ),
    ]
    middle, above, below = _ADAPTOR_Y + 19, _VIDEO_Y - 14, _AUDIO_Y + _H + 14
    centres = [_LAYER_X + index * _STEP + _LAYER_W / 2 for index in range(len(_LAYERS))]
    parts += [
        text(64, middle - 52, "one sentence", 12, 'text-anchor="middle"'),
        arrow((64, middle - 46), (64, middle - 27)),
        box(16, middle - 27, 96, 54, _PLAIN, "text encoder", "T5"),
        box(140, _VIDEO_Y, 100, _H, _PLAIN, "video noise", "8 x 32 x 32 x 4"),
        box(140, _AUDIO_Y, 100, _H, _PLAIN, "audio noise", "100 x 128"),
        # The sentence reaches every layer: one line along the outside of each tower.
        line((112, middle), (126, middle), (126, above), (centres[-1], above)),
        line((126, middle), (126, below), (centres[-1], below), kind="line optional"),
    ]
    for x in centres:
        parts += [arrow((x, above), (x, _VIDEO_Y)), arrow((x, below), (x, _AUDIO_Y + _H))]
    for y, fill in ((_VIDEO_Y, _VIDEO), (_AUDIO_Y, _AUDIO)):
        parts.append(arrow((240, y + 27), (_LAYER_X, y + 27)))
        for index, name in enumerate(_LAYERS):
            x = _LAYER_X + index * _STEP
            parts.append(box(x, y, _LAYER_W, _H, fill, name))
            parts.append(arrow((x + _LAYER_W, y + 27), (x + _STEP, y + 27)))
    for index, name in enumerate(_LAYERS):
        x = _LAYER_X + index * _STEP
        centre = x + _LAYER_W / 2
        words = "..." if name == "..." else "adaptor"
        parts.append(arrow((centre, _VIDEO_Y + _H), (centre, _ADAPTOR_Y)))
        parts.append(box(x + 8, _ADAPTOR_Y, _LAYER_W - 16, 38, _BRIDGE, words))
        parts.append(arrow((centre, _ADAPTOR_Y + 38), (centre, _AUDIO_Y)))
    for y, fill, name, result in (
        (_VIDEO_Y, _VIDEO, "video VAE", "frames"),
        (_AUDIO_Y, _AUDIO, "audio VAE", "waveform"),
    ):
        parts.append(box(_OUT_X, y, 84, _H, fill, name, "decoder"))
        parts.append(arrow((_OUT_X + 84, y + 27), (_OUT_X + 106, y + 27)))
        parts.append(text(_OUT_X + 100, y - 8, result, 12, 'text-anchor="middle"'))
    note = "Features go down and never up, so one picture serves any number of soundtracks."
    parts.append(text(_LAYER_X, _HEIGHT - 16, note, 12, 'font-style="italic"'))
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    OUT.write_text(draw())
    print(OUT)
