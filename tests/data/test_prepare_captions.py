"""Where the captions of prepared windows come from."""

import pytest
from made_clips import clip
from test_prepare import lines, run

from syncflow.data import media


def test_greatest_hits_in_ten_second_segments_with_captions_by_window(
    encoders, spec, tmp_path
) -> None:
    folder = tmp_path / "vis-data"
    for number in range(3):
        clip(folder / f"r{number}_denoised.mp4", 12.0 if number else 2.0, seed=number)
        (folder / f"r{number}_times.txt").write_text(
            "".join(f"{t}.5 {'metal' if t < 10 else 'wood'} hit static\n" for t in range(13))
        )
    (folder / "train.txt").write_text("r0\nr1\n")
    (folder / "test.txt").write_text("r2\n")
    kept = {}
    for split in ("train", "test"):
        options = dict(layout="greatest-hits", split=split, per_segment=2)
        run(folder, tmp_path / split, encoders, spec, **options)
        kept[split] = lines(tmp_path / split / "clips.jsonl")
        plan = lines(tmp_path / split / "plan.jsonl")
        assert [line["start"] for line in plan if line["group"] != "r0"] == [0, 10]
    assert {line["group"] for line in kept["train"]} == {"r0", "r1"}
    assert {line["group"] for line in kept["test"]} == {"r2"}
    for line in kept["train"]:
        assert line["caption"] == (
            "a drumstick hits wood" if line["start"] >= 10 else "a drumstick hits metal"
        )


def test_another_caption_is_told(encoders, spec, tmp_path) -> None:
    """A file's own, and the one for all that have none."""
    one = clip(tmp_path / "clips" / "one.mp4")
    for finished in (True, False):
        out = tmp_path / f"out-{finished}"
        run(one.parent, out, encoders, spec, caption="a")
        if not finished:
            (out / "manifest.json").unlink()
        told = r"caption of one.mp4 was 'a', now 'b'; use a new --out"
        with pytest.raises(ValueError, match=told):
            run(one.parent, out, encoders, spec, caption="b")
        one.with_suffix(".txt").write_text("b")
        with pytest.raises(ValueError, match=told):
            run(one.parent, out, encoders, spec, caption="a")
        one.with_suffix(".txt").unlink()
        run(one.parent, out, encoders, spec, caption="a")
    two = clip(tmp_path / "clips" / "two.mp4")
    with pytest.raises(ValueError, match="two.mp4 is new, .*; use a new --out"):
        run(one.parent, out, encoders, spec, caption="a")
    two.rename(one)
    (one.parent / "one.mp4").rename(one.parent / "three.mp4")
    with pytest.raises(ValueError, match="three.mp4 is new"):
        run(one.parent, out, encoders, spec, caption="a")


def test_a_caption_that_is_no_text_is_skipped_by_name(encoders, spec, tmp_path) -> None:
    """Bad bytes never become a caption, and the caption for all does not hide them."""
    a = clip(tmp_path / "clips" / "a.mp4")
    a.with_suffix(".txt").write_bytes("gut so\nschön".encode("latin-1"))
    clip(tmp_path / "clips" / "b.mp4", seed=2)
    run(tmp_path / "clips", tmp_path / "out", encoders, spec, caption="said of all")
    (line,) = lines(tmp_path / "out" / "skipped.jsonl")
    assert (line["file"], line["reason"]) == ("a.mp4", "unreadable caption")
    assert "a.txt', line 2 is not UTF-8 text" in line["detail"]
    assert {row["file"] for row in lines(tmp_path / "out" / "clips.jsonl")} == {"b.mp4"}


def test_clips_that_nothing_describes_are_told_before_anything_is_decoded(
    encoders, spec, tmp_path, monkeypatch, capsys
) -> None:
    films = tmp_path / "films"
    for name in ("a.mp4", "no_caption.mp4"):
        clip(films / name)
    monkeypatch.setattr(media, "probe", lambda *_: pytest.fail("a film was opened"))
    with pytest.raises(ValueError, match="no_caption.txt beside no_caption.mp4") as told:
        run(films / "no_caption.mp4", tmp_path / "out", encoders, spec)
    assert "--caption" in str(told.value) and "--captioner" in str(told.value)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    (tmp_path / "two.jsonl").write_text(
        '{"file": "a.mp4", "caption": "a"}\n{"file": "no_caption.mp4"}\n'
    )
    run(tmp_path / "two.jsonl", tmp_path / "out", encoders, spec, videos=str(films))
    assert "1 of 2 clips have no caption and are left out: give" in capsys.readouterr().err
