"""Strings that others wrote, in pages and tables that people open."""

import csv
import html.parser
import json

import pytest
import torch

from syncflow.clip import Clip
from syncflow.evaluation.report import (
    accelerations_page,
    accelerations_tables,
    page,
    paper_page,
    redraw,
    tables,
)

EVIL = "<script>alert(1)</script>\"' onload=x <img src=x onerror=y>"
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "'=1", "''@x"]


class Tags(html.parser.HTMLParser):
    """Which elements a page has, and with which attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def held(text: str) -> None:
    seen = Tags(text).seen
    assert "alert(1)" in text  # it came through, as text
    assert sum(tag == "script" for tag, _ in seen) <= text.count(page.SCRIPT)
    assert not [attrs for _, attrs in seen if {"onload", "onerror"} & set(attrs)]


def estimate(name: str) -> dict:
    three = [0.5, 0.4, 0.6]
    return {
        "label": name, "curve": [three] * 3, "shuffled": three, "silent": three, "fit": False,
        "why": name, "resolution_ms": [name, name], "better": "high",
    }  # fmt: skip


def test_a_page_shows_every_string_as_text(tmp_path):
    clip = Clip(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(12000))
    row = {"system": EVIL, "group": EVIL, "clips": 3}
    report = {
        "facts": {EVIL: EVIL}, "rows": [row], "recordings": [row],
        "offsets_ms": {EVIL: [1.0]},
        "calibration": {EVIL: {"offsets_ms": [-40, 0, 40], "clips": EVIL,
                               "metrics": {"m": estimate(EVIL)}}},
        "training": {EVIL: {EVIL: [(0, 1.0), (1, 0.5)]}},
        "notes": {EVIL: EVIL}, "detectors": {EVIL: {EVIL: EVIL}},
    }  # fmt: skip
    shown = [page.Shown(EVIL, EVIL, clip, [0.1], [0.2])]
    held(page.write(tmp_path, report, shown).read_text())


def test_the_papers_page_too(tmp_path):
    metric = {"value": [1.0, 0.9, 1.1], "better": "low", "clips": 2, "facts": {EVIL: EVIL}}
    rows = [
        {"system": EVIL, "tables": ["1", "5"], "at": 1.0, "clips": 2, "metrics": {EVIL: metric},
         "metrics_not_run": {EVIL: EVIL}, "seconds a clip": 1.0},
        {"system": EVIL, "tables": ["1"], "at": None, "not_run": EVIL},
    ]  # fmt: skip
    curves = {EVIL: {EVIL: [[0, 1.0, 0.9, 1.1]]}}
    paper_page.write(tmp_path, {"facts": {EVIL: EVIL}, "rows": rows, "curves": curves})
    held((tmp_path / "index.html").read_text())


def test_the_page_of_accelerations_too(tmp_path):
    clip = Clip(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(12000))
    report = {
        "facts": {EVIL: EVIL}, "rows": [{"cell": EVIL, "verdicts": {EVIL: EVIL}}],
        "rule": [{"modality": EVIL, "key": EVIL, "what": EVIL, "range": [None, 1.0]}],
        "not_run": [{"cell": EVIL, "why": EVIL}], "recommended": EVIL, "written": EVIL,
    }  # fmt: skip
    shown = [page.Shown(EVIL, EVIL, clip, [0.1], [0.2])]
    part = accelerations_page.section(tmp_path, EVIL, shown, 1)
    held(accelerations_page.write(tmp_path, report, [part]).read_text())
    whole = {"facts": {}, "rows": [], "detectors": {}, "accelerations": report}
    held(page.write(tmp_path, whole, []).read_text())


@pytest.mark.parametrize("name", [None, "steps 20"])
def test_a_report_that_is_read_again_recommends_the_same(name):
    report = {"recommended": name, "recommended for the folder": None, "written": None}
    said = accelerations_tables.conclusion(report)
    assert said == accelerations_tables.conclusion(redraw._numbers(report))
    assert ("steps 20" in said) == bool(name) and "Written" not in said


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_and_the_text_comes_back(text):
    cell = tables.csv_cell(text)
    assert cell.startswith("'") and not cell.lstrip("' \t").startswith(("'",))
    assert tables.csv_text(cell) == text


@pytest.mark.parametrize("text", ["", "a ball", "it's", "'quoted'", "2 + 2 = 4", "a@b"])
def test_other_cells_stay(text):
    assert tables.csv_cell(text) == tables.csv_text(text) == text


def test_a_table_is_written_without_formulas(tmp_path):
    records = [{"prompt": text, "system": "x", "seed": -1, "onsets": [0.5]} for text in FORMULAS]
    tables.write_csv(tmp_path / "clips.csv", records)
    with (tmp_path / "clips.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["prompt"][0] for line in lines] == ["'"] * len(FORMULAS)
    assert lines[0]["seed"] == "-1" and lines[0]["onsets"] == "0.5000"


def test_a_page_drawn_again_has_the_prompt_itself(tmp_path, monkeypatch):
    out = tmp_path / "eval"
    (out / "clips").mkdir(parents=True)
    clip = Clip(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(12000))
    clip.save(out / "clips" / "001-x.mp4")
    record = {"system": "x", "prompt": "=1+1", "contacts": [0.1], "onsets": []}
    tables.write_csv(out / "clips.csv", [record])
    (out / "report.json").write_text(json.dumps({}))
    asked = {}
    monkeypatch.setattr(page, "write", lambda out, report, shown: asked.setdefault("shown", shown))
    redraw.redraw(out, tmp_path / "again")
    assert asked["shown"][0].prompt == "=1+1"
