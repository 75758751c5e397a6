"""Shares of a report: whose clips are whose, and when a report counts as made."""

import errno
import json

import pytest
import torch

from syncflow.clip import Clip
from syncflow.evaluation.suites import paper, paper_shares
from syncflow.evaluation.suites.datasets import Item
from syncflow.evaluation.suites.paper_systems import Networks, System

SHARE = (0, 2)


def clip(value):
    return Clip(torch.full((2, 3, 8, 8), value, dtype=torch.uint8), torch.zeros(6000))


ITEMS = [Item("a", "a ball", lambda height, width: clip(0))]


def making(value):
    return lambda items, real, seed: [clip(value) for _ in items]


def failing(error):
    def make(items, real, seed):
        raise error

    return make


def shares(out, beside=None, **settings):
    out.mkdir(exist_ok=True)
    return paper_shares.Shares(out, settings, ITEMS, (8, 8), 0, 1, beside)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("a b", ("1",)), ("a-b", ("1",))),
        (("a", ("1",)), ("A", ("1",))),
        (("mine", ("1",)), ("mine", ("4",))),  # a cascade and an ablation
        (("x" * 300, ("1",)), ("x" * 299 + "y", ("1",))),
    ],
)
def test_systems_of_names_that_look_alike_share_no_clips(tmp_path, one, two):
    rows = [System(*named, (making(value),)) for value, named in enumerate((one, two), 1)]
    made = shares(tmp_path)
    made.make(rows, SHARE, progress=False)
    assert made.complete(rows)
    for value, row in enumerate(rows, 1):
        (read,) = made.stored(row).makes[0](ITEMS, [], 0)
        assert read.video.unique().tolist() == [value]


def test_a_refusal_of_the_input_is_kept_and_a_full_disk_is_not(tmp_path):
    made = shares(tmp_path)
    refusing = System("refusing", ("1",), (failing(ValueError("no such size")),))
    made.make([refusing], SHARE, progress=False)
    with pytest.raises(ValueError, match="no such size"):
        made.stored(refusing).makes[0](ITEMS, [], 0)
    for error in (OSError(errno.ENOSPC, "No space left"), ModuleNotFoundError("no", name="no")):
        full = System("full", ("1",), (failing(error),))
        with pytest.raises(type(error)):
            made.make([full], SHARE, progress=False)
        assert not made.complete([full])
    mended = System("full", ("1",), (making(7),))
    made.make([mended], SHARE, progress=False)
    assert made.stored(mended).makes[0](ITEMS, [], 0)[0].video.unique().tolist() == [7]


def test_a_report_counts_as_made_only_while_it_is_the_one_that_was_written(tmp_path):
    made, report = shares(tmp_path, {"run": 1}), tmp_path / "report.json"
    report.write_text("{}")
    made.finish()
    assert made.finished and not made.folder.exists()
    assert not shares(tmp_path, {"run": 2}).finished  # another training run's curves
    report.write_text('{"rows": []}')
    assert not made.finished
    report.unlink()
    assert not made.finished
    report.write_text("{}")
    assert made.finished
    (tmp_path / "shares.json").write_text("{")
    assert not made.finished


def test_what_lies_behind_a_report_is_known_by_its_content(tmp_path):
    for name in ("model", "videos", "sounds"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.mp4").write_text("film")
    (tmp_path / "i3d.pt").write_text("weights")

    def found(ablations=None, **networks):
        given = Networks(i3d=str(tmp_path / "i3d.pt"), clap="some/clap", **networks)
        ours = {"ours": tmp_path / "model"} if ablations is None else ablations
        cascades = {"c": (str(tmp_path / "videos"), str(tmp_path / "sounds"))}
        return paper_shares.sources(tmp_path / "data", ours, cascades, given)

    before = found()
    assert json.loads(json.dumps(before)) == found() == before
    assert found(vggish="v.pt") != before != found({})
    changed = [f"{name}/config.json" for name in ("model", "videos", "sounds")]
    for name in (*changed, "data/a.mp4", "i3d.pt"):
        (tmp_path / name).write_text("something else")
        assert found() != before, name
        before = found()


def test_shares_of_another_setting_are_refused_in_a_line(tmp_path, monkeypatch):
    class Model:
        def generate(self, prompts, **options):
            return [clip(3) for _ in prompts]

    two = [*ITEMS, Item("b", "a drum", ITEMS[0].real)]
    monkeypatch.setattr(paper.datasets, "folder", lambda *_: two)
    (tmp_path / "cascade").mkdir()

    def run(model=None, **options):
        options = {"wanted": ("1",), "sizes": (), "batch": 1} | options
        out = tmp_path / "out"
        return paper.run(model or Model(), tmp_path, out, share=SHARE, progress=False, **options)

    assert run() is None
    folder = str(tmp_path / "cascade")
    for other, said in (
        ({"networks": Networks(clap="some/clap")}, "networks"),
        ({"cascades": {"c": (folder, folder)}}, "cascades"),
        ({"wanted": ("1", "2")}, "rows"),
        ({"allow_torchscript": True}, "allow_torchscript"),
    ):
        with pytest.raises(ValueError, match=f"made with another {said}: .*; delete it"):
            run(**other)
    monkeypatch.setattr(paper, "factories", lambda *_: [])
    with pytest.raises(ValueError, match="made with another metrics: "):
        run()
