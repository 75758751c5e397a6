"""`syncflow prepare` on real files: what is kept, what is left out, and that nothing ends it."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from made_clips import clip, foreign, moving, noise

import syncflow
from syncflow import cli
from syncflow.data import media
from syncflow.data.latents import Latents
from syncflow.data.prepare import Options, prepare

# The toy model's window: 1 s, 8 frames, 48,000 samples.


def run(source, out, encoders, spec, captioner=None, **options):
    return prepare(
        source, out, encoders, spec, Options(**options), captioner, batch=4, progress=False
    )


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def shards(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """Every kind of file, good and bad, each with a caption unless the name says otherwise."""
    folder = tmp_path_factory.mktemp("zoo")
    clip(folder / "a.mp4", seed=1)
    clip(folder / "b.mkv", seed=2)
    clip(folder / "c.webm", 1.0, seed=3)
    foreign(folder / "odd_rate.mp4", 2.0, Fraction(30000, 1001))
    foreign(folder / "slow.mov", 2.0, Fraction(5), (96, 48), channels=1)
    clip(folder / "long.mp4", 5.0, seed=4)
    clip(folder / "two_scenes.mp4", video=torch.cat([moving(15, 5), moving(25, 6)]),
         audio=noise(120000))  # fmt: skip
    clip(folder / "short_scenes.mp4", audio=noise(96000),
         video=torch.cat([moving(10, 7), moving(12, 8), moving(10, 9)]))  # fmt: skip
    clip(folder / "static.mp4", video=moving(1).expand(32, -1, -1, -1))
    clip(folder / "silent.mp4", audio=torch.zeros(96000))
    clip(folder / "no_audio.mp4", audio=None)
    clip(folder / "one_frame.mp4", video=moving(1), audio=noise(3000))
    clip(folder / "no_caption.mp4")
    whole = clip(folder / "broken_tail.mp4", 4.0, seed=5).read_bytes()
    (folder / "broken_tail.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video")
    head = bytearray((folder / "a.mp4").read_bytes())
    head[len(head) // 2 : len(head) // 2 + 400] = bytes(400)
    (folder / "scratched.mp4").write_bytes(head)
    for path in folder.iterdir():
        if "no_caption" not in path.name:
            path.with_suffix(".txt").write_text(f"the clip {path.stem.replace('_', ' ')}")
    return folder


@pytest.fixture(scope="session")
def prepared(zoo, encoders, spec, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    run(zoo, out, encoders, spec, segment_s=2.0, seed=1)
    return out


def test_every_file_is_kept_or_listed_with_its_reason(zoo, prepared) -> None:
    kept, skipped = lines(prepared / "clips.jsonl"), lines(prepared / "skipped.jsonl")
    files = {}
    for line in kept:
        files[line["file"]] = files.get(line["file"], 0) + 1
    scratched = files.pop("scratched.mp4", 0)  # the decoder conceals it, or not
    assert files == {
        "a.mp4": 2, "b.mkv": 2, "c.webm": 1, "odd_rate.mp4": 2, "slow.mov": 2, "long.mp4": 5,
        "two_scenes.mp4": 1,
    }  # fmt: skip
    reasons = {(line["file"], line["reason"]) for line in skipped}
    assert reasons - {("scratched.mp4", "damaged")} == {
        ("short_scenes.mp4", "scene cuts"), ("static.mp4", "static"), ("silent.mp4", "silent"),
        ("no_audio.mp4", "no audio"), ("one_frame.mp4", "too short"),
        ("no_caption.mp4", "no caption"), ("broken_tail.mp4", "damaged"),
        ("empty.mp4", "damaged"), ("text.mp4", "damaged"),
    }  # fmt: skip
    report = json.loads((prepared / "report.json").read_text())
    assert report["windows"] == len(kept) == 15 + scratched
    assert report["files_found"] == len([p for p in zoo.iterdir() if p.suffix != ".txt"]) == 17
    assert sum(report["skipped"].values()) == len(skipped)
    assert report["skipped"]["static"] == report["skipped"]["silent"] == 2
    assert report["captions"] == len({line["caption"] for line in kept})
    (two,) = (line for line in kept if line["file"] == "two_scenes.mp4")
    assert two["start"] >= 15 / 16 and two["start"] + two["seconds"] <= 2.5
    assert all(str(zoo) not in line["detail"] or line["reason"] for line in skipped)


def test_latents_are_those_of_the_window(zoo, prepared, encoders, spec) -> None:
    latents = Latents(prepared)
    kept = lines(prepared / "clips.jsonl")
    assert len(latents) == len(kept) and latents.spec == spec
    assert latents.manifest["encoders"] == encoders.hashes()
    for row in (0, 5, len(kept) - 1):
        record = latents.record(row)
        assert record == kept[row]
        video, audio = media.read(zoo / record["file"], 8, 48000, record["start"], 1.0, 32, 32)
        rows = encoders.rows(video[None], audio[None], [record])
        shard, inside = latents._find(row)
        for name in ("video_mean", "video_std", "audio_mean", "audio_std"):
            stored = shard.tensors[name][inside].float().numpy()
            np.testing.assert_allclose(stored, rows.arrays[name][0], atol=0.06, err_msg=name)
        words = len(record["caption"].split()) + 1  # and the end token
        assert shard.text(inside).shape == (words, 16)
        np.testing.assert_allclose(
            shard.text(inside).float(), rows.texts[record["caption"]], atol=0.01
        )
    batch = latents.batch(np.array([3, 0, len(kept) - 1]), np.random.default_rng(0))
    assert batch["video"].shape == (3, 2, 2, 4, 4) and batch["audio"].shape == (3, 50, 3)
    assert batch["mask"].sum(1).tolist() == [
        len(kept[row]["caption"].split()) + 1 for row in (3, 0, len(kept) - 1)
    ]
    assert not batch["text"][~batch["mask"]].any()


def test_statistics_normalise_draws(prepared) -> None:
    latents = Latents(prepared)
    rng = np.random.default_rng(0)
    batch = latents.batch(np.arange(len(latents)).repeat(30), rng)
    for kind, axes in (("video", (0, 2, 3, 4)), ("audio", (0, 1))):
        assert batch[kind].mean(axes).abs().max() < 0.05
        assert (batch[kind].std(axes) - 1).abs().max() < 0.05


def test_the_same_again_gives_the_same_bytes_and_another_seed_does_not(
    zoo, prepared, encoders, spec, tmp_path, capsys
) -> None:
    run(zoo, tmp_path / "again", encoders, spec, segment_s=2.0, seed=1)
    assert shards(tmp_path / "again") == shards(prepared)
    run(zoo, tmp_path / "other", encoders, spec, segment_s=2.0, seed=2)
    assert shards(tmp_path / "other") != shards(prepared)
    stamp = (prepared / "manifest.json").stat().st_mtime_ns
    run(zoo, prepared, encoders, spec, segment_s=2.0, seed=1)
    assert "finished before" in capsys.readouterr().out
    assert (prepared / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="other options"):
        run(zoo, prepared, encoders, spec, segment_s=2.0, seed=3)


def test_fixed_windows_need_no_seed(zoo, encoders, spec, tmp_path) -> None:
    for seed in (1, 2):
        options = dict(windows="fixed", per_segment=1, seed=seed)
        run(zoo / "long.mp4", tmp_path / f"{seed}", encoders, spec, **options)
    assert shards(tmp_path / "1") == shards(tmp_path / "2")
    (line,) = lines(tmp_path / "1" / "clips.jsonl")
    assert line["start"] == 2.0  # 5 s long


def test_what_to_keep_is_the_users_choice(zoo, encoders, spec, tmp_path) -> None:
    keep = ("static", "silent", "no audio")
    options = dict(keep=keep, caption="something happens", per_segment=1)
    run(zoo, tmp_path / "out", encoders, spec, **options)
    kept = lines(tmp_path / "out" / "clips.jsonl")
    files = {line["file"] for line in kept}
    assert {"static.mp4", "silent.mp4", "no_audio.mp4", "no_caption.mp4"} <= files
    said = {line["file"]: line["caption"] for line in kept}
    assert said["no_caption.mp4"] == "something happens" and said["a.mp4"] == "the clip a"
    sound = {line["file"]: line["sound"] for line in kept}
    assert not sound["no_audio.mp4"] and sound["silent.mp4"]
    assert json.loads((tmp_path / "out/report.json").read_text())["without_sound"] == 1


def test_a_list_with_pieces_and_a_file_that_is_not_there(zoo, encoders, spec, tmp_path) -> None:
    (tmp_path / "list.csv").write_text(
        "file,start,end,caption,split\n"
        "long.mp4,0.5,2.5,piece one,train\nlong.mp4,3,5.2,piece two,train\n"
        "gone.mp4,,,gone,train\na.mp4,,,tested,test\nlong.mp4,4,8,too far,train\n"
        "b.mkv,0,2,both,train\nb.mkv,,,both,test\n"
    )
    options = dict(videos=str(zoo), split="train")
    run(tmp_path / "list.csv", tmp_path / "out", encoders, spec, **options)
    kept = lines(tmp_path / "out" / "clips.jsonl")
    starts = [(line["caption"], line["start"]) for line in kept]
    assert len(starts) == 4 and all(said.startswith("piece") for said, _ in starts)
    assert all(0.5 <= at <= 1.5 for said, at in starts if said == "piece one")
    assert all(3 <= at <= 4 for said, at in starts if said == "piece two")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["skipped"] == {"damaged": 1, "missing": 1, "in another split": 1}


def test_a_captioning_model_sees_the_middle_of_windows_without_caption(
    zoo, encoders, spec, tmp_path
) -> None:
    seen = []

    def captioner(stills):
        seen.extend(stills)
        return ["" if len(seen) > 2 else "a square moves"] * len(stills)

    run(zoo / "no_caption.mp4", tmp_path / "out", encoders, spec, captioner)
    assert [still.shape for still in seen] == [(384, 384, 3)] * 2
    assert seen[0].max() > 200 and seen[0].dtype == np.uint8
    assert {line["caption"] for line in lines(tmp_path / "out/clips.jsonl")} == {"a square moves"}
    run(zoo / "c.webm", tmp_path / "again", encoders, spec, lambda _: ["new"], recaption=True)
    assert lines(tmp_path / "again/clips.jsonl")[0]["caption"] == "new"


def test_nothing_kept_is_an_error_that_says_why(zoo, encoders, spec, tmp_path) -> None:
    for name, reason in (("static.mp4", "static"), ("text.mp4", "damaged")):
        out = tmp_path / name
        for _ in range(2):  # and so when it is asked again
            with pytest.raises(ValueError, match=f"no clip was left.*{reason}; see .*skipped"):
                run(zoo / name, out, encoders, spec)
            assert {line["reason"] for line in lines(out / "skipped.jsonl")} == {reason}
            report = json.loads((out / "report.json").read_text())
            assert report["windows"] == 0 and list(report["skipped"]) == [reason]


def test_copies_are_in_one_split_and_other_files_are_counted(
    encoders, spec, tmp_path, capsys
) -> None:
    folder = tmp_path / "clips"
    films = [clip(folder / f"{number}.mp4", 1.0, seed=number) for number in range(3)]
    for number in range(6):
        (folder / f"copy{number}.mp4").write_bytes(films[number % 3].read_bytes())
    for name in ("a.pdf", "b.PDF", "c", "notes.txt"):
        (folder / name).write_text("x")
    kept = {}
    for split in ("train", "test"):
        options = dict(caption="a square", split=split, test_share=0.3)
        run(folder, tmp_path / split, encoders, spec, **options)
        rows = lines(tmp_path / split / "clips.jsonl")
        kept[split] = {(folder / row["file"]).read_bytes() for row in rows}
        report = json.loads((tmp_path / split / "report.json").read_text())
        assert report["copies"] == 6 and report["unsupported"] == {".pdf": 2, "no ending": 1}
    assert "6 files are copies of another one" in capsys.readouterr().err
    assert kept["train"] and kept["test"] and not kept["train"] & kept["test"]
    assert len(kept["train"] | kept["test"]) == 3


@pytest.mark.parametrize(
    ("argument", "value"),
    [("num_workers", -1), ("batch", 0), ("batch", 1e12), ("share", (2, 2)), ("share", (0, 0))],
)
def test_numbers_of_prepare_are_checked_by_name(
    zoo, encoders, spec, tmp_path, argument, value
) -> None:
    name = argument.removeprefix("num_")
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        prepare(zoo, tmp_path / "out", encoders, spec, **{argument: value})
    assert not (tmp_path / "out").exists()
    for option in ("per_segment", "segment_s", "seed", "min_motion", "min_db", "test_share"):
        with pytest.raises(ValueError, match=f"{option} must be"):
            Options(**{option: float("nan")})


def test_two_machines_share_the_work(zoo, prepared, encoders, spec, tmp_path, monkeypatch) -> None:
    from syncflow.data.prepare import plan

    monkeypatch.setattr(plan, "SHARD", 6)
    options = Options(segment_s=2.0, seed=1)
    arguments = (zoo, tmp_path / "out", encoders, spec, options)
    common = {"batch": 4, "progress": False}
    assert prepare(*arguments, share=(0, 2), **common) is None
    first = shards(tmp_path / "out")
    assert len(first) >= 2 and not (tmp_path / "out/manifest.json").exists()
    manifest = prepare(*arguments, share=(1, 2), **common)
    assert manifest["count"] == len(Latents(prepared)) == len(Latents(tmp_path / "out"))
    assert first.items() <= shards(tmp_path / "out").items()
    assert lines(tmp_path / "out/clips.jsonl") == lines(prepared / "clips.jsonl")
    one, two = Latents(tmp_path / "out"), Latents(prepared)
    rows = np.arange(len(one))
    batches = [x.batch(rows, np.random.default_rng(0)) for x in (one, two)]
    for name in batches[0]:
        torch.testing.assert_close(batches[0][name], batches[1][name], atol=1e-4, rtol=1e-4)


def test_the_command_makes_a_folder_per_size(zoo, toy_model, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    argv = ["prepare", str(zoo / "a.mp4"), "--out", str(out), "--model", str(toy_model)]
    argv += ["--size", "32", "32x48", "--workers", "0", "--no-progress", "--windows", "fixed"]
    assert cli.main(argv) == 0, capsys.readouterr().err
    for name, width in (("32x32", 4), ("32x48", 6)):
        latents = Latents(out / name)
        assert len(latents) == 2
        batch = latents.batch(np.array([0]), np.random.default_rng(0))
        assert batch["video"].shape == (1, 2, 2, 4, width)
        assert latents.manifest["model"] == "toy"
    assert '"windows": 2' in capsys.readouterr().out


def test_python_makes_what_the_command_makes(zoo, toy_model, tmp_path) -> None:
    out, other = tmp_path / "python", tmp_path / "command"
    options = Options(windows="fixed")
    made = syncflow.prepare(
        zoo / "a.mp4",
        out,
        model=toy_model,
        sizes=[(32, 32)],
        options=options,
        workers=0,
        progress=False,
    )
    argv = ["prepare", str(zoo / "a.mp4"), "--out", str(other), "--model", str(toy_model)]
    argv += ["--size", "32", "--workers", "0", "--no-progress", "--windows", "fixed"]
    assert cli.main(argv) == 0
    assert list(made) == [out] and made[out]["count"] == 2
    assert shards(out) == shards(other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere"], "nowhere"),
        (["{zoo}", "--size", "30"], "divisible by 16"),
        (["{zoo}", "--size", "big"], "not a size"),
        (["{zoo}", "--share", "3/2"], "not a share"),
        (["{zoo}", "--recaption"], "captioning model"),
        (["{zoo}", "--out", "{zoo}"], "holds no latents"),
        (["{zoo}", "--split", "test"], "give a test share"),
        (["{zoo}", "--segment", "0.5"], "shorter than a window"),
        (["{zoo}", "--captioner", "none"], "captioning model"),
        (["{zoo}", "--device", "abacus"], "abacus"),
        (["{zoo}", "--test-share", "2", "--split", "test"], "more than 0 and less than 1, got 2"),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    zoo, toy_model, tmp_path, capsys, monkeypatch, options, words
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [option.replace("{zoo}", str(zoo)) for option in options]
    argv = ["prepare", "--out", "out", *options, "--model", str(toy_model), "--no-progress"]
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("syncflow: error: ") and error.count("\n") == 1 and words in error
