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


def test_of_few_groups_one_is_held_out_and_one_is_left() -> None:
    for count in (2, 3, 8):
        films = [Source(f"{number}.mp4") for number in range(count)]
        for share in (0.001, 0.1, 0.999):
            train, test = (splits.choose(films, split, share)[0] for split in ("train", "test"))
            assert train and test and {*train} | {*test} == {*films} and not {*train} & {*test}
    with pytest.raises(ValueError, match="one group of clips .* cannot be shared"):
        splits.choose([Source("a.mp4"), Source("a.mp4", 5.0)], "train", 0.5)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_captions_and_lists_of_every_editor_say_the_same(tmp_path, encoding) -> None:
    words = "ein Ball fällt\u2028auf Holz"  # a line end of Python's, none of a text's
    said = "ein Ball fällt auf Holz"
    mark = "\ufeff" if encoding == "utf-16-be" else ""

    def write(name: str, text: str) -> Path:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((mark + text).encode(encoding))
        return tmp_path / name

    touch(tmp_path, "beside/a.mp4", "card/a.mp4", "meta/a.mp4", "table/a.mp4", "v_000007.mp4")
    write("beside/a.txt", words)
    write("card/a.json", json.dumps({"caption": words}, ensure_ascii=False))
    row = {"file_name": "a.mp4", "text": words}
    write("meta/metadata.jsonl", json.dumps(row, ensure_ascii=False) + "\r\n")
    write("table/metadata.csv", f"file_name,text\r\na.mp4,{words}\r\n")
    for folder in ("beside", "card", "meta", "table"):
        assert found(tmp_path / folder) == [("a.mp4", 0, None, said)]
    row = {"file": "x.mp4", "caption": words}
    for path in (
        write("list.jsonl", json.dumps(row, ensure_ascii=False)),
        write("list.csv", f"file,caption\nx.mp4,{words}\n"),
        write("semicolons.csv", f" File ; Caption \n x.mp4 ;{words}\n"),
        write("tabs.csv", f"file\tcaption\nx.mp4\t{words}"),
        write("spaces.csv", f'file, caption, split\nx.mp4, "{words}", train\n'),
    ):
        assert found(path) == [("x.mp4", 0, None, said)], path
    listed = sources.find(write("v.csv", f"v,7,{words},train\n"), "vggsound")[0]
    assert [(s.file, s.caption) for s in listed] == [("v_000007.mp4", said)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", "file,caption\nf.mp4,schön".encode("latin-1"), "line 2 is not UTF-8 text"),
        ("a.csv", "file,caption\nf.mp4,x".encode("utf-32"), "NUL character"),
        ("a.csv", "file,caption\nf.mp4,x".encode("utf-16-le"), "line 1 has a NUL character"),
        ("a.csv", b"\xff\xfea", "line 1 is not UTF-16 text"),
        ("a.jsonl", b'{"file": "a.mp4"}\n{"file": "\xe9.mp4"}', "line 2 is not UTF-8 text"),
        ("a.jsonl", b'{"file": "a.mp4", "caption": "\\ud800"}', "line 1 holds half of"),
        ("a.jsonl", b'{"file": "a.mp4", "caption": 3}', "line 1, entry 1: the caption must be"),
        ("a.jsonl", b'{"file": "a.mp4", "caption": ["a"]}', r"must be text, got \['a'\]"),
        ("a.jsonl", b'{"file": 7, "caption": "a"}', "the file must be a name, got 7"),
        ("a.jsonl", b'{"file": "a.mp4", "start": NaN}', "start must be a number of seconds"),
        ("a.jsonl", b'{"file": "a.mp4", "seconds": 1e400}', "seconds must be a number of"),
        ("a.jsonl", b'{"file": "a.mp4", "start": true}', "start must be a number of seconds"),
        ("a.jsonl", b"[" * 100_000, "nested too deeply"),
        ("a.csv", b"file,caption\nf.mp4,a ball, red\n", "line 2: 3 cells for 2 columns"),
        ("a.csv", b'file,caption\na.mp4,x\nb.mp4,"a 5" ball\nc.mp4,y\n', "line 3: a quote opens"),
        ("a.csv", b'file,caption\n\n\r\na.mp4,x\r\nb.mp4,"a\nc.mp4,y\n', "line 5: a quote opens"),
        ("a.csv", b'file,caption\na.mp4,"one\ntwo"\nb.mp4,"a\n', "line 4: a quote opens"),
        ("a.csv", b'file,caption\na.mp4,"' + b"x" * 200_000 + b'"\n', "line 2: field larger"),
    ],
)  # fmt: skip
def test_what_is_no_text_or_list_is_named_by_file_and_line(tmp_path, name, data, message) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as told:
        sources.find(tmp_path / name)
    assert f"{name}'" in str(told.value) and "\n" not in str(told.value)


def test_a_caption_with_quotes_and_lines_is_kept(tmp_path) -> None:
    (tmp_path / "a.csv").write_text(
        'file,caption\na.mp4,"says ""hit"",\nthen stops"\nb.mp4,a 5" ball\nc.mp4,""\n'
    )
    said = {file: caption for file, _, _, caption in found(tmp_path / "a.csv")}
    assert said == {"a.mp4": 'says "hit", then stops', "b.mp4": 'a 5" ball', "c.mp4": None}


def test_a_folder_as_video_data_sets_on_the_hub_have_it(tmp_path) -> None:
    """Each folder's metadata names files from there; what is nearer to a film counts."""
    touch(tmp_path, "train/a.mp4", "train/deep/b.mp4", "test/a.mp4", "c.mp4")
    for folder, rows in {
        "train": [("a.mp4", "train a"), ("deep/b.mp4", "train b")], "test": [("a.mp4", "test a")],
        ".": [("c.mp4", "root c"), ("train/a.mp4", "not this one")],
    }.items():  # fmt: skip
        (tmp_path / folder / "metadata.jsonl").write_text(
            "".join(json.dumps({"file_name": f, "text": text}) + "\n" for f, text in rows)
        )
    assert [(file, caption) for file, _, _, caption in found(tmp_path)] == [
        ("c.mp4", "root c"), ("test/a.mp4", "test a"), ("train/a.mp4", "train a"),
        ("train/deep/b.mp4", "train b"),
    ]  # fmt: skip
    assert found(tmp_path / "train" / "a.mp4") == [("a.mp4", 0, None, "train a")]


def test_linked_folders_are_followed_once_and_loops_end(tmp_path) -> None:
    touch(tmp_path, "disk/more/x.mp4", "disk/y.mp4", "clips/a.mp4", "clips/inner/b.mp4")
    clips = tmp_path / "clips"
    (clips / "0-link").symlink_to(tmp_path / "disk")
    (clips / "again").symlink_to(tmp_path / "disk" / "more")
    (clips / "0-inner").symlink_to(clips / "inner")
    (clips / "inner" / "up").symlink_to(clips)
    (tmp_path / "disk" / "up").symlink_to(tmp_path)
    (clips / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    assert [file for file, *_ in found(clips)] == [
        "0-link/more/x.mp4", "0-link/y.mp4", "a.mp4", "gone.mp4", "inner/b.mp4",
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["ts", "mts", "m2ts", "MPG", "wmv", "flv", "gif"])
def test_films_of_every_ending_are_films(tmp_path, ending) -> None:
    touch(tmp_path, f"a.{ending}", "b.opus", "c.opus", "d.txt")
    assert [file for file, *_ in found(tmp_path)] == [f"a.{ending}"]
    assert sources.unsupported(tmp_path) == {".opus": 2}
    (tmp_path / f"a.{ending}").unlink()
    with pytest.raises(ValueError, match="has no clips .*; there are files of other kinds: 2 .op"):
        sources.find(tmp_path)


def test_a_name_that_is_no_text_is_told(tmp_path) -> None:
    import os

    try:
        (tmp_path / os.fsdecode(b"\xe9.mp4")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(ValueError, match=r"xe9.mp4' is not UTF-8; rename"):
        sources.find(tmp_path)


def test_copies_join_their_groups(tmp_path) -> None:
    from syncflow.data.prepare import copies

    data = {"a": b"1" * 200_000, "b": b"2" * 200_000, "c": b"1" * 200_000, "e": b"", "f": b""}
    data["d"] = data["a"][:100_000] + b"3" + data["a"][100_001:]  # differs in the middle alone
    for name, content in data.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
    films = [Source(f"{name}.mp4") for name in "abcdefx"]
    films += [Source("b.mp4", 2.0, group="one video"), Source("y.mp4", group="one video")]
    (tmp_path / "y.mp4").write_bytes(data["c"])
    joined, count = copies.joined(films, tmp_path)
    groups = {(s.file, s.start): s.group for s in joined}
    assert count == 2
    assert groups == {
        ("a.mp4", 0): "a.mp4", ("c.mp4", 0): "a.mp4", ("y.mp4", 0): "a.mp4",
        ("b.mp4", 2): "a.mp4", ("b.mp4", 0): "b.mp4", ("d.mp4", 0): "d.mp4",
        ("e.mp4", 0): "e.mp4", ("f.mp4", 0): "f.mp4", ("x.mp4", 0): "x.mp4",
    }  # fmt: skip


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
