"""Where clips come from: folders, lists, VGGSound, Greatest Hits; who trains and who tests."""

import json
from pathlib import Path

import pytest

from syncflow.data.prepare import captions, sources, splits
from syncflow.data.prepare.sources import Source


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def found(path, *arguments):
    return [(s.file, s.start, s.seconds, s.caption) for s in sources.find(path, *arguments)[0]]


def test_a_folder_with_captions_beside_the_files(tmp_path) -> None:
    touch(tmp_path, "b.mp4", "sub/a.MKV", "c.webm", "d.mov", "e.mp4", ".hidden.mp4", "notes.pdf")
    (tmp_path / "b.txt").write_text("  a dog\n barks ")
    (tmp_path / "sub/a.json").write_text('{"caption": "a cat"}')
    (tmp_path / "c.json").write_text("not json")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file": "d.mov", "caption": "a bird"}\n\n{"file": "b.mp4", "caption": "not this one"}\n'
    )
    assert found(tmp_path) == [
        ("b.mp4", 0, None, "a dog barks"), ("c.webm", 0, None, None), ("d.mov", 0, None, "a bird"),
        ("e.mp4", 0, None, None), ("sub/a.MKV", 0, None, "a cat"),
    ]  # fmt: skip
    assert found(tmp_path / "b.mp4") == [("b.mp4", 0, None, "a dog barks")]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_lists_of_every_kind_say_the_same(tmp_path, ending) -> None:
    rows = [
        {"path": "b.mp4", "text": 'two, "three"', "start": 1.5, "end": 4.0, "split": "train"},
        {"path": "a.mp4", "text": "one", "start": 0.0, "end": None, "split": "test"},
        {"path": "a.mp4", "text": "one", "start": 0.0, "end": None, "split": "test"},
    ]
    path = tmp_path / f"list.{ending}"
    if ending == "csv":
        path.write_text(
            '\ufeffpath,text,start,end,split\nb.mp4,"two, ""three""",1.5,4.0,train\n'
            "a.mp4,one,0,,test\na.mp4,one,0,,test\n"
        )
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    else:
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(arrow.Table.from_pylist(rows), path)
    assert found(path) == [("a.mp4", 0, None, "one"), ("b.mp4", 1.5, 2.5, 'two, "three"')]
    items, root = sources.find(path)
    assert root == tmp_path and [item.split for item in items] == ["test", "train"]
    (tmp_path / "elsewhere").mkdir()
    assert sources.find(path, "auto", tmp_path / "elsewhere")[1] == tmp_path / "elsewhere"


def test_vggsound(tmp_path) -> None:
    touch(tmp_path, "video/--0PQM4-hqg_000030.mp4", "video/part2/_abc_000000.mp4", "video/xyz.mkv")
    (tmp_path / "vggsound.csv").write_text(
        '--0PQM4-hqg,30,waterfall burbling,train\n_abc,0,"cat, purring",test\n'
        "xyz,120,drum,train\ngone,7,people, train\n".replace("people, train", "people,train")
    )
    items, root = sources.find(tmp_path / "vggsound.csv", "vggsound", tmp_path / "video")
    assert [(s.file, s.caption, s.split, s.group) for s in items] == [
        ("--0PQM4-hqg_000030.mp4", "waterfall burbling", "train", "--0PQM4-hqg"),
        ("gone_000007.mp4", "people", "train", "gone"),
        ("part2/_abc_000000.mp4", "cat, purring", "test", "_abc"),
        ("xyz.mkv", "drum", "train", "xyz"),
    ]
    (tmp_path / "bad.csv").write_text("file,caption\na.mp4,x\n")
    with pytest.raises(ValueError, match="line 1: expected video id"):
        sources.find(tmp_path / "bad.csv", "vggsound")


def test_greatest_hits(tmp_path) -> None:
    names = ["2015-01-01-10-00-00", "2015-01-02-10-00-00", "2015-01-03-10-00-00"]
    touch(tmp_path, *(f"{n}_{kind}.mp4" for n in names for kind in ("mic", "denoised")))
    touch(tmp_path, f"{names[0]}_denoised_thumb.mp4")
    (tmp_path / f"{names[0]}_denoised.mp4").unlink()
    (tmp_path / f"{names[0]}_times.txt").write_text(
        "0.5 metal hit static\n1.25 wood scratch deform\n1.5 metal hit static\n\n"
        "7.0 plastic-bag None None\n8.0 None None None\nnonsense\n"
    )
    (tmp_path / "train.txt").write_text(f"{names[0]}\n{names[1]}\n")
    (tmp_path / "test.txt").write_text(f"{names[2]}\n")
    items, _ = sources.find(tmp_path, "greatest-hits")
    assert [(s.file[19:], s.split, s.group) for s in items] == [
        ("_mic.mp4", "train", names[0]), ("_denoised.mp4", "train", names[1]),
        ("_denoised.mp4", "test", names[2]),
    ]  # fmt: skip
    events = items[0].events
    assert captions.of_events(events, 0, 2) == "a drumstick hits metal and scratches wood"
    assert captions.of_events(events, 1, 0.4) == "a drumstick scratches wood"
    assert captions.of_events(events, 6.5, 1) == "a drumstick touches plastic bag"
    assert captions.of_events(events, 7.5, 1) == "a drumstick touches something"
    assert "without touching" in captions.of_events(events, 3, 2)
    assert items[1].events is None


def test_no_group_is_in_two_splits() -> None:
    listed = [
        Source("a_1.mp4", split="train", group="a"), Source("a_2.mp4", split="test", group="a"),
        Source("b_1.mp4", split="train", group="b"), Source("c_1.mp4", split="val", group="c"),
        Source("c_2.mp4", split="train", group="c"),
    ]  # fmt: skip
    chosen = {split: splits.choose(listed, split, None) for split in ("train", "val", "test")}
    assert [s.file for s in chosen["train"][0]] == ["b_1.mp4"] and chosen["train"][1] == 2
    assert [s.file for s in chosen["val"][0]] == ["c_1.mp4"]
    assert [s.file for s in chosen["test"][0]] == ["a_2.mp4"] and chosen["test"][1] == 0
    groups = [{s.group for s in kept} for kept, _ in chosen.values()]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_a_share_of_the_groups_is_held_out_and_stays_so_as_files_are_added() -> None:
    pieces = [Source(f"{g}.mp4", start=10.0 * k, group=f"{g}") for g in range(300) for k in (0, 1)]
    train, test = (splits.choose(pieces, split, 0.25)[0] for split in ("train", "test"))
    assert len(train) + len(test) == 600 and 100 <= len(test) <= 200
    assert not {s.group for s in train} & {s.group for s in test}
    more = pieces + [Source("new.mp4")]
    assert set(test) <= set(splits.choose(more, "test", 0.25)[0])


def test_mistakes_are_told(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        sources.find(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has no clips"):
        sources.find(tmp_path)
    touch(tmp_path, "a.mp4", "notes.txt")
    with pytest.raises(FileNotFoundError, match="gone"):
        sources.find(tmp_path, "auto", tmp_path / "gone")
    with pytest.raises(ValueError, match="not a folder or a video"):
        sources.find(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match="greatest-hits"):
        sources.find(tmp_path / "notes.txt", "greatest-hits")
    for name, text, words in (
        ("a.csv", "name,text\na,b\n", "entry 1: there is no column 'file', only 'name', 'text'"),
        ("a.csv", "file,start\na.mp4,soon\n", "start must be a number of seconds, got 'soon'"),
        ("a.csv", "file,start,end\na.mp4,3,2\n", "cannot read -1.0 s starting at 3.0 s"),
        ("a.jsonl", '{"file": "a.mp4"}\n{file}\n', "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 is not an object"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=words.replace(".", r"\.")):
            sources.find(tmp_path / name)
    listed = [Source("a.mp4", split="train")]
    with pytest.raises(ValueError, match="choose one, got None"):
        splits.choose(listed, None, None)
    with pytest.raises(ValueError, match="its own splits"):
        splits.choose(listed, "train", 0.5)
    with pytest.raises(ValueError, match="give a test share"):
        splits.choose([Source("a.mp4")], "test", None)
