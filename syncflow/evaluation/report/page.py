"""A report as a web page: ``index.html`` beside its clips, which opens from disk with no network.

Everything is in the folder: players for the clips, their frames above the waveform with detected
events on both, tables, distributions and curves. No library, no font and no script from elsewhere.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from pathlib import Path

import numpy as np

from syncflow import durable
from syncflow.clip import Clip
from syncflow.detect import matching
from syncflow.evaluation.report import (
    accelerations_tables,
    figures,
    paper_tables,
    shapes,
    table,
    tables,
)
from syncflow.evaluation.report.table import cell

_STYLE = (Path(__file__).with_name("page.css")).name
#: Lines in the pictures of ``cards`` that move as a clip plays.
SCRIPT = """
document.querySelectorAll('.card').forEach(card => {
  const video = card.querySelector('video'), head = card.querySelector('.head');
  const place = () => {
    const x = video.duration ? 1000 * video.currentTime / video.duration : 0;
    head.setAttribute('x1', x); head.setAttribute('x2', x);
    if (!video.paused) requestAnimationFrame(place);
  };
  ['play', 'seeked', 'pause'].forEach(name => video.addEventListener(name, place));
  card.querySelector('.timeline').addEventListener('click', event => {
    const box = event.currentTarget.getBoundingClientRect();
    video.currentTime = (event.clientX - box.left) / box.width * video.duration;
  });
});
"""


@dataclass(frozen=True)
class Shown:
    """A clip on the page: ``system`` made it for ``prompt``; times in seconds. ``file``: where it
    is already, to be copied; None = it is encoded."""

    system: str
    prompt: str
    clip: Clip
    seen: Sequence[float]
    heard: Sequence[float]
    file: Path | None = None


def write(out: Path, report: shapes.Sync, shown: Sequence[Shown]) -> Path:
    """Writes ``index.html`` and the folder ``clips``; returns the page's path."""
    folder = out / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_head(report), _tables(report), _clips(folder, shown), _distributions(report)]
    parts += [_calibration(name, part) for name, part in report.get("calibration", {}).items()]
    parts += [_guidance(report), _accelerations(report, out)]
    parts += [_counterfactual(report), _training(report)]
    parts += [_notes(report), _reading(report)]
    return document(out / "index.html", "syncflow: sync report", parts, SCRIPT)


def document(path: Path, title: str, parts: Sequence[str], script: str = "") -> Path:
    """Writes one page that needs nothing beside it: the parts that are not empty, with style."""
    style = Path(__file__).with_name(_STYLE).read_text()
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        + "\n".join(part for part in parts if part)
        + "</main>"
        + (f"<script>{script}</script>" if script else "")
        + "</body></html>\n"
    )
    durable.write_text(path, text)
    return path


def facts(report: shapes.Report) -> str:
    """What was run, folded."""
    lines = "".join(
        f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>"
        for key, value in report["facts"].items()
    )
    return f"<details><summary>What was run</summary><dl>{lines}</dl></details>"


def _head(report: shapes.Sync) -> str:
    return (
        "<h1>Does the sound happen when the picture says so?</h1>"
        "<p>Contacts are found in the picture from pixels alone, onsets in the sound from samples "
        "alone. <b class=seen-text>Red</b>: a contact seen. <b class=heard-text>Blue</b>: an onset "
        "heard. A line of the one should continue as a line of the other.</p>" + facts(report)
    )


def _tables(report: shapes.Sync) -> str:
    parts = ["<h2>Results</h2>"]
    groups = dict.fromkeys(row["group"] for row in report["rows"])
    for index, group in enumerate(groups):
        rows = [row for row in report["rows"] if row["group"] == group]
        body = _table(rows, tables.BY_CLIP) + _table(rows, tables.MAIN)
        parts.append(
            f"<h3>{escape(group)}</h3>{body}"
            if not index
            else f"<details><summary>{escape(group)}</summary>{body}</details>"
        )
    if report.get("recordings"):
        body = _table(report["recordings"], tables.MAIN)
        parts.append(f"<h3>Recordings with written-down events</h3>{body}")
    if report.get("fidelity"):
        body = table.html(tables.fidelity(report["fidelity"]))
        parts.append(f"<details><summary>Through both VAEs and back</summary>{body}</details>")
    return "".join(parts)


def _table(rows: Sequence[shapes.Row], columns: Sequence[str]) -> str:
    return table.html(tables.lines(rows, columns, ""))


def _clips(folder: Path, shown: Sequence[Shown]) -> str:
    return f"<h2>Clips</h2>{cards(folder, shown)}" if shown else ""


def cards(folder: Path, shown: Sequence[Shown], prefix: str = "") -> str:
    """Players, caption by caption, each clip saved in ``folder`` under a name with ``prefix``."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    by_prompt: dict[str, list[Shown]] = {}
    for item in shown:
        by_prompt.setdefault(item.prompt, []).append(item)
    for number, (prompt, items) in enumerate(by_prompt.items(), start=1):
        drawn = []
        for item in items:
            name = prefix + file_name(number, item.system)
            if item.file is None:
                item.clip.save(folder / f"{name}.mp4")
            elif item.file != folder / f"{name}.mp4":
                shutil.copy(item.file, folder / f"{name}.mp4")
            (folder / f"{name}.jpg").write_bytes(figures.strip(item.clip.video))
            drawing = figures.timeline(
                item.clip.audio, item.clip.sample_rate, item.clip.seconds, item.seen, item.heard
            )
            drawn.append(
                f'<div class="card"><h4>{escape(item.system)}</h4><div class="row">'
                f'<video src="clips/{name}.mp4" controls preload="none" loop playsinline '
                f'poster="clips/{name}.jpg"></video><div class="strip">'
                f'<img src="clips/{name}.jpg" alt="frames in order of time" loading="lazy">'
                f"{drawing}</div></div></div>"
            )
        parts.append(
            f"<section><h3>{escape(prompt or '(no sentence)')}</h3>"
            f'<div class="cards">{"".join(drawn)}</div></section>'
        )
    return "".join(parts)


def file_name(number: int, system: str) -> str:
    """Of a player's clip, without ending; captions count from 1."""
    return f"{number:03d}-" + "-".join(re.findall(r"[a-z0-9]+", system.lower()))


def place(number: int, many: int, count: int) -> int:
    """Which of ``count`` clips is number ``number`` of ``many`` players: evenly over the levels."""
    return int(number * count / many)


def _distributions(report: shapes.Sync) -> str:
    drawings = [
        figures.histogram(values, name) for name, values in report.get("offsets_ms", {}).items()
    ]
    if not drawings:
        return ""
    return (
        "<h2>How far from the nearest onset</h2><p>Onset minus contact in milliseconds, for every "
        "contact; late sounds lie to the right. The last bars hold all that is further away.</p>"
        f'<div class="charts">{"".join(drawings)}</div>'
    )


def _calibration(name: str, found: shapes.Calibration) -> str:
    drawings, verdicts = [], []
    for metric in found["metrics"].values():
        points = [
            (float(ms), value, low, high)
            for ms, (value, low, high) in zip(found["offsets_ms"], metric["curve"], strict=True)
        ]
        floors = [("other soundtracks", metric["shuffled"])]
        title = metric["label"] + ("" if metric["fit"] else " (UNFIT)")
        drawings.append(
            figures.chart([figures.Series("", points)], "sound moved by, ms", title, floors)
        )
        early, late = (escape(f"{v} ms") if v else "-" for v in metric["resolution_ms"])
        why = "fit" if metric["fit"] else f"<b>unfit: {escape(metric['why'])}</b>"
        three = (metric["curve"][_zero(found)], metric["shuffled"], metric["silent"])
        values = "".join(f"<td>{cell(estimate, 3).html()}</td>" for estimate in three)
        verdicts.append(
            f"<tr><th>{escape(metric['label'])}</th>{values}"
            f"<td>{early}</td><td>{late}</td><td>{why}</td></tr>"
        )
    return (
        f"<h2>How good the metrics are: {escape(name)}</h2><p>The sound of "
        f"{escape(str(found['clips']))} real clips moved by a known time. A metric is fit if it is "
        "best where the sound is right, worse on both sides and better than chance; the band is "
        "its 95 % interval, the grey one "
        f'that of chance.</p><div class="charts">{"".join(drawings)}</div>'
        '<div class="wide"><table><tr>'
        "<th>metric</th><th>in sync</th><th>other soundtracks</th><th>silence</th>"
        "<th>notices early sound from</th><th>late sound from</th><th></th></tr>"
        f"{''.join(verdicts)}</table></div>"
    )


def _zero(found: shapes.Calibration) -> int:
    return list(found["offsets_ms"]).index(0)


def _guidance(report: shapes.Sync) -> str:
    rows = report.get("guidance", {}).get("rows", [])
    rows = sorted(rows, key=lambda row: row["options"]["guidance"])
    drawings = []
    for name in ("f1_50", "correlation", "count_picture", "material"):
        points = [(row["options"]["guidance"], *row[name]) for row in rows if name in row]
        if points:
            title = tables.COLUMNS[name][0]
            drawings.append(figures.chart([figures.Series("", points)], "guidance", title))
    if not drawings:
        return ""
    return (
        "<h2>Strength of guidance</h2><p>On validation captions (the paper's figure 5 asks the "
        f'same of its own metrics).</p><div class="charts">{"".join(drawings)}</div>'
    )


def _accelerations(report: shapes.Sync, out: Path) -> str:
    found = report.get("accelerations")
    if not found:
        return ""
    theirs = "accelerations/index.html"
    link = (
        f' The rule and players are on <a href="{theirs}">a page of their own</a>.'
        if (out / theirs).is_file()
        else ""
    )
    return (
        f"<h2>Faster settings</h2><p>On validation captions.{link} "
        f"{escape(accelerations_tables.conclusion(found))}</p>"
        f"{table.html(accelerations_tables.lines(found))}"
    )


def _counterfactual(report: shapes.Sync) -> str:
    found = report.get("counterfactual")
    if not found:
        return ""
    keys = ("onsets stay", "changes", "right")
    lines: list[list[str | table.Cell]] = [
        ["what changes", "system", "onsets stay", "what must change does", "right, all of it"]
    ]
    for row in found["rows"]:
        lines.append([row["factor"], row["system"], *(table.cell(row[key]) for key in keys)])
    return (
        "<h2>One thing changes</h2><p>Pairs of scenes that differ in one thing, drawn from one "
        "seed. All columns and the conflicts of picture and caption are in "
        "counterfactual/counterfactual.md; shuffled pairs are chance.</p>"
        f"{table.html(lines)}"
    )


def _training(report: shapes.Sync) -> str:
    drawings = [
        figures.chart(
            [figures.Series(k, [(x, y, y, y) for x, y in v]) for k, v in curves.items()],
            "step",
            name,
        )
        for name, curves in report.get("training", {}).items()
    ]
    drawings = [drawing for drawing in drawings if drawing]
    if not drawings:
        return ""
    return f'<h2>Validation loss</h2><div class="charts">{"".join(drawings)}</div>'


def _notes(report: shapes.Sync) -> str:
    notes = "".join(
        f"<li>{escape(name)}: {escape(text)}</li>" for name, text in report.get("notes", {}).items()
    )
    lines = [["", "paper", "here"]]
    lines += [
        [f"{name.removeprefix('paper: ')}, {metric}", f"{value:g}", "not run"]
        for rows in paper_tables.PUBLISHED.values()
        for name, values in rows
        for metric, value in values.items()
    ]
    return (
        (f"<h2>What was not run, and why</h2><ul>{notes}</ul>" if notes else "")
        + "<details><summary>The paper's numbers that its text states</summary><p>Of another model "
        "on other data, by networks that this report does not use; they compare with nothing above."
        f"</p>{table.html(lines)}</details>"
    )


def _reading(report: shapes.Sync) -> str:
    detectors = "".join(
        f"<tr><th>{escape(name)}</th>"
        + "".join(
            f"<td>{escape(key)} "
            f"{escape(value) if isinstance(value, str) else format(value, '.3f')}</td>"
            for key, value in facts.items()
        )
        + "</tr>"
        for name, facts in report["detectors"].items()
    )
    return (
        f"<h2>How to read this</h2><p>{escape(tables.READING)}</p><details><summary>The detectors "
        "against the renderer's own times, on the real clips</summary>"
        f'<div class="wide"><table>{detectors}</table></div></details>'
    )


def offsets_ms(seen: Sequence[Sequence[float]], heard: Sequence[Sequence[float]]) -> list[float]:
    """Onset minus nearest contact of every contact that has one, in ms."""
    every = [matching.nearest(a, b) for a, b in zip(seen, heard, strict=True)]
    values = np.concatenate([np.zeros(0), *every]) * 1000
    return [round(float(v), 1) for v in values if isfinite(v)]
