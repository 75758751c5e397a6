"""What clips tell of how they were made, what will not fit, and prompts of every shape."""

import json

import numpy as np
import pytest
import torch

import syncflow
from syncflow.clip import Clip, ClipSpec
from syncflow.config import ModelConfig
from syncflow.data import media
from syncflow.data.export import tags
from syncflow.generation import arguments, memory, record
from syncflow.model_io import fingerprint
from tests import small_model

FEW = {"steps": 1, "audio_steps": 1, "progress": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = small_model.build().save(tmp_path_factory.mktemp("models") / "m")
    return syncflow.load(folder, device="cpu")


def test_a_clip_tells_how_it_was_made_and_is_made_again_from_it(model, tmp_path) -> None:
    clip = model.generate(
        "a ball", seed=7, guidance=3.0, negative_audio_prompt="music", seconds=0.5, **FEW
    )
    made = tags.read(clip.save(tmp_path / "a.mp4"))
    assert made == clip.made
    assert (made["prompt"], made["seed"], made["syncflow"]) == ("a ball", 7, syncflow.__version__)
    assert made["negative_audio_prompt"] == "music" and made["seconds"] == 0.5
    assert made["model"] == "tiny" and made["model_hash"] == fingerprint.of(model.folder)
    assert made["sampling"]["guidance"] == 3.0 and made["sampling"]["steps"] == 1
    sampling = {k: v for k, v in made["sampling"].items() if k != "null_caption"}
    again = model.generate(
        made["prompt"], seed=made["seed"], progress=False, seconds=made["seconds"],
        negative_audio_prompt=made["negative_audio_prompt"], **sampling,
    )  # fmt: skip
    assert torch.equal(again.video, clip.video) and torch.equal(again.audio, clip.audio)
    assert again.save(tmp_path / "b.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


def test_every_prompt_and_take_has_its_own(model) -> None:
    clips = model.generate(["one", "two"], seed=2**40, audio_takes=2, **FEW)
    told = [(c.made["prompt"], c.made["seed"], c.made["take"]) for c in clips]
    assert told == [
        ("one", 2**40, 1), ("one", 2**40, 2), ("two", 2**40 + 1, 1), ("two", 2**40 + 1, 2),
    ]  # fmt: skip


def test_files_are_told_by_name_alone(model, tmp_path) -> None:
    video = torch.zeros(16, 3, 32, 32, dtype=torch.uint8)
    path = media.write(tmp_path / "given.mkv", video, None)
    clip = model.generate("", video=path, **FEW)
    assert clip.made["video"] == "given.mkv" and clip.made["v2a"] == "one-pass"
    assert str(tmp_path) not in json.dumps(clip.made)
    assert model.generate("", video=video, **FEW).made["video"] == "given"
    assert "video" not in model.generate("x", **FEW).made


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"audio_takes": 2, "height": 32, "seconds": 2.0},
        {"negative_prompt": "n", "guidance": 2, "schedule": "joint"},
        {"video": "film", "seconds": 0.5},
        {"rank": None, "audio_takes": 2},
        {"extend": "film", "seconds": 0.5},
        {"image": "film"},
    ],
)
def test_what_is_planned_is_what_is_made(model, tmp_path, options) -> None:
    for name in {"video", "extend", "image"} & options.keys():
        video = torch.zeros(16, 3, 32, 32, dtype=torch.uint8)
        options = {**options, name: media.write(tmp_path / "f.mp4", video, None)}
    options = {"steps": 1, **options}
    planned = record.planned(model, ["a", "b"], 3, **options)
    clips = model.generate(["a", "b"], seed=3, progress=False, **options)
    assert [clip.made for clip in clips] == planned
    assert json.loads(json.dumps(planned)) == planned
    assert planned[0].get("rank", "sync") == "sync"


@pytest.mark.parametrize("part", ["audio", "both"])
def test_a_retake_tells_its_part_and_its_file(model, tmp_path, part) -> None:
    given = media.write(tmp_path / "f.mp4", torch.zeros(16, 3, 32, 32, dtype=torch.uint8), None)
    options = {"retake": given, "span": (0.2, 0.6), **({} if part == "audio" else {"part": part})}
    clip = model.generate("a", **options, **FEW)
    (planned,) = record.planned(model, ["a"], 0, **options, steps=1, audio_steps=1)
    assert clip.made == planned and (planned["retake"], planned["part"]) == ("f.mp4", part)
    assert planned["retake_hash"] == fingerprint.of_file(given)


def test_the_content_of_given_files_counts(model, tmp_path) -> None:
    """Whatever their names and places."""
    found = []
    for number in range(3):
        path = tmp_path / str(number) / "given.bin"
        path.parent.mkdir()
        path.write_bytes(b"same" if number < 2 else b"else")
        (told,) = record.planned(model, ["a"], 0, lora=path, image=str(path))
        assert told["lora_hash"] == told["image_hash"] and len(told["lora_hash"]) == 16
        found.append(told)
    assert found[0] == found[1] != found[2]


def test_additions_tell_their_strength_whether_it_was_stated_or_not(model) -> None:
    told = [record.planned(model, ["a"], 0, lora="x", **s) for s in ({}, {"strength": 1})]
    assert told[0] == told[1] and told[0][0]["strength"] == 1.0
    assert "strength" not in record.planned(model, ["a"], 0, strength=1.0)[0]


def test_a_clip_without_pictures_gets_no_sound(model) -> None:
    for shape in ((0, 3, 32, 32), (4, 3, 0, 32)):
        empty = torch.zeros(shape, dtype=torch.uint8)
        for video in (empty, Clip(empty, torch.zeros(10))):
            with pytest.raises(ValueError, match="video must "):
                model.generate("a", video=video, **FEW)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"height": -1, "width": 3}, "height must be a whole number between 1 and 16384 px"),
        ({"height": 3, "width": 2.5}, "width must be a whole number"),
        ({"fps": "a"}, "fps must be a number"),
        ({"sample_rate": 1.5}, "sample_rate must be a whole number"),
        ({"path": None}, "a clip is loaded from a path, got None"),
    ],
)  # fmt: skip
def test_a_clip_is_not_loaded_with_numbers_that_none_can_have(tmp_path, options, said) -> None:
    path = media.write(tmp_path / "f.mkv", torch.zeros(4, 3, 32, 32, dtype=torch.uint8), None)
    with pytest.raises(ValueError, match=said):
        Clip.load(**{"path": path, **options})


def test_another_model_has_another_hash(model, tmp_path) -> None:
    first = fingerprint.of(model.folder)
    assert first == fingerprint.of(model.folder) and len(first) == 16
    assert fingerprint.of(small_model.build(seed=1).save(tmp_path / "n")) != first
    assert fingerprint.of(model.save(tmp_path / "same")) == first
    weights = tmp_path / "same" / "ddit.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert fingerprint.of(tmp_path / "same") != first


def test_of_large_files_blocks_are_hashed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fingerprint, "_BLOCKS", 4)
    weights = tmp_path / "ddit.safetensors"
    with weights.open("wb") as file:
        file.truncate(10 * 2**30)  # sparse
    first = fingerprint.of(tmp_path)
    with weights.open("r+b") as file:
        file.seek(5 * 2**30)
        file.write(b"other")
    assert fingerprint.of(tmp_path) != first


@pytest.mark.parametrize("prompts", [("a", "b"), np.array(["a", "b"]), iter(["a", "b"])])
def test_prompts_in_any_list(prompts) -> None:
    found = arguments.prompt_list(prompts)
    assert found == ["a", "b"] and {type(one) for one in found} == {str}


@pytest.mark.parametrize(
    "prompt", [None, 7, b"a ball", {"a": 1}, ["a", None], np.array("a"), np.zeros(2), [["a"]]]
)
def test_what_is_no_prompt_is_one_sentence(model, prompt) -> None:
    with pytest.raises(ValueError, match="a prompt must be a string, got"):
        model.generate(prompt, **FEW)


def test_a_prompt_of_other_bytes_than_utf_8_is_one_sentence(model) -> None:
    with pytest.raises(ValueError, match=r"a prompt must be UTF-8 text, got 'f\\udce4llt'"):
        model.generate("f\udce4llt", **FEW)


def test_arguments_that_records_do_not_know_are_told(model) -> None:
    (made,) = record.planned(model, ["a"], 0, lora="/secret/place/x.safetensors", strength=0.5)
    assert (made["lora"], made["strength"]) == ("x.safetensors", 0.5)


def test_the_papers_way_needs_a_video(model) -> None:
    with pytest.raises(ValueError, match="v2a 'paper' is a way to read a given video"):
        model.generate("a", v2a="paper", **FEW)


def test_what_will_not_fit_is_said(model, monkeypatch) -> None:
    spec = ClipSpec(seconds=30, height=512, width=512)
    monkeypatch.setattr(memory, "available", lambda device: 8 * 10**9)
    with pytest.raises(ValueError, match=r"^30 s at 512x512 needs about \d.* GB; 8.0 GB are free"):
        memory.check(small_model.build(video_vae={"width": 256, "latent_channels": 4,
                                                  "kind": "patch"}), spec)  # fmt: skip
    memory.check(model, ClipSpec(seconds=2, height=64, width=64))
    with pytest.raises(ValueError, match="4000 clips of .* fewer prompts or takes"):
        memory.check(model, ClipSpec(seconds=2, height=256, width=256), 2000, 2)
    monkeypatch.setattr(memory, "available", lambda device: None)
    memory.check(model, spec, 10**6)


def test_the_estimate_is_near_what_was_measured() -> None:
    """Peak above the loaded shipped model, 1 thread, MB: see docs/generate.md."""
    from syncflow.model_io.model_folder import SHIPPED

    config = ModelConfig.load(SHIPPED / "config.json")
    for seconds, measured in ((30, 225), (60, 487)):
        spec = ClipSpec(seconds=seconds, height=64, width=64)
        found = memory.estimate(config, spec, 1, 1, True, 4) / 1e6
        assert 0.5 * measured < found < 1.1 * measured


def test_the_estimate_of_a_large_model_is_near_what_was_counted() -> None:
    """GiB beside the d-DiT's 3.715 of XL/2 in bfloat16 and the 0.138 of its folded products:
    generate_2s and generate_10s of ``python benchmarks/memory.py configs/stage2.json``."""
    config = ModelConfig()
    for seconds, counted in ((2, 4.323 - 3.853), (10, 5.595 - 3.853)):
        found = memory.sampling(config, ClipSpec(seconds=seconds), 1, 1, True, 2) / 2**30
        assert 0.8 * counted < found < 1.1 * counted


def test_free_memory_is_known_here() -> None:
    free = memory.available(torch.device("cpu"))
    assert free is None or 10**7 < free < 10**14
