"""Generation end to end with a tiny untrained model: files, seeds, guidance, video-to-audio."""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import syncflow
from syncflow.clip import Clip
from syncflow.config import ModelConfig
from syncflow.generation import pipeline, shipped
from syncflow.model_io import model_folder
from tests.small_model import CONFIG, PROMPT, build, picture, run, same


@pytest.fixture(scope="module")
def model() -> pipeline.SyncFlow:
    return build()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return model.save(tmp_path_factory.mktemp("models") / "tiny")


def test_a_clip_has_the_models_geometry(model) -> None:
    clip = run(model)
    assert clip.video.shape == (16, 3, 32, 32) and clip.video.dtype == torch.uint8
    assert clip.audio.shape == (48000,) and clip.audio.abs().max() <= 1
    assert (clip.fps, clip.sample_rate, clip.prompt) == (16, 48000, PROMPT)


def test_another_length_is_generated(model) -> None:
    clip = run(model, seconds=1.5, steps=1)
    assert clip.video.shape[0] == 24 and len(clip.audio) == 72000


def test_a_saved_model_loads_and_generates_the_same(model, folder) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "audio_vae.safetensors",
        "config.json",
        "ddit.safetensors",
        "text_encoder.safetensors",
        "video_vae.safetensors",
    ]
    loaded = syncflow.load(folder, device="cpu")
    assert same(run(loaded, seed=3), run(model, seed=3))


def test_the_same_seed_gives_the_same_clip_in_another_process(model, folder, tmp_path) -> None:
    code = (
        "import sys, torch, syncflow; torch.set_num_threads(int(sys.argv[4]));"
        "model = syncflow.load(sys.argv[1], device='cpu');"
        "clip = model.generate(sys.argv[3], seed=7, progress=False);"
        "torch.save([clip.video, clip.audio], sys.argv[2])"
    )
    out, threads = tmp_path / "clip.pt", str(torch.get_num_threads())
    command = [sys.executable, "-c", code, str(folder), str(out), PROMPT, threads]
    subprocess.run(command, check=True)
    video, audio = torch.load(out)
    assert same(Clip(video, audio), run(model, seed=7))


def test_seeds_differ_and_do_not_depend_on_the_batch(model) -> None:
    one, two = run(model, seed=0), run(model, seed=1)
    assert not torch.equal(one.audio, two.audio) and not torch.equal(one.video, two.video)
    both = run(model, ["a much longer prompt of eight words here", PROMPT], seed=0)
    assert (both[1].video.int() - two.video.int()).abs().max() <= 1
    torch.testing.assert_close(both[1].audio, two.audio, rtol=1e-3, atol=1e-3)


def test_prompt_and_guidance_change_the_clip(model) -> None:
    base = run(model)
    assert not torch.equal(run(model, "a wooden drum").video, base.video)
    assert not torch.equal(run(model, guidance=4.0).video, base.video)
    only_audio = run(model, audio_guidance=4.0)
    assert torch.equal(only_audio.video, base.video)
    assert not torch.equal(only_audio.audio, base.audio)
    negative = run(model, negative_prompt="rubber")
    assert not torch.equal(negative.video, base.video)


def rows_of_passes(model, **options) -> tuple[list[int], list[int]]:
    """Batch sizes of every pass of the video tower and of the audio tower."""
    video, audio = [], []
    tower, other = model.ddit.video_tower, model.ddit.audio_tower
    step = tower.step
    tower.step = lambda x, *rest, **named: video.append(len(x)) or step(x, *rest, **named)
    start = other.start
    other.start = lambda x, *rest: audio.append(len(x)) or start(x, *rest)
    try:
        run(model, **options)
    finally:
        del tower.step, other.start
    return video, audio


def test_work_is_not_done_twice(model) -> None:
    """Cascade: the video's steps, one clean pass, the audio's steps; no null branch at weight 1."""
    assert rows_of_passes(model) == ([2, 2, 2, 2], [2, 2, 2])
    alone = dict(guidance=1.0, audio_guidance=1.0)
    assert rows_of_passes(model, **alone) == ([1] * 4, [1] * 3)
    mixed = dict(guidance=1.0, audio_guidance=2.0)
    assert rows_of_passes(model, **mixed) == ([1, 1, 1, 2], [2, 2, 2])
    joint = dict(schedule="joint", guidance=2.0, audio_guidance=1.0)
    assert rows_of_passes(model, **joint) == ([2] * 3, [1] * 3)
    assert rows_of_passes(model, video=picture()) == ([2], [2] * 3)
    assert rows_of_passes(model, video=picture(), v2a="paper") == ([2] * 3, [2] * 3)
    assert rows_of_passes(model, audio_takes=3, audio_steps=2, steps=1) == ([2, 2], [6, 6])


def test_a_folder_has_a_guidance_of_its_own_for_the_sound() -> None:
    """Which holds unless one is asked for by name."""
    sampling = {**CONFIG["sampling"], "audio_guidance": 1.0}
    model = build(sampling=sampling)
    assert rows_of_passes(model) == ([2, 2, 2, 1], [1] * 3)
    assert rows_of_passes(model, audio_guidance=2.0) == ([2] * 4, [2] * 3)
    assert rows_of_passes(model, guidance=3.0) == ([2, 2, 2, 1], [1] * 3)
    model = build(sampling={**CONFIG["sampling"], "audio_guidance": None})
    assert rows_of_passes(model, guidance=1.0) == ([1] * 4, [1] * 3)


def test_sound_that_reads_no_picture_runs_no_video_tower_for_it() -> None:
    audio = {**CONFIG["ddit"]["audio"], "condition": "text", "upsampler_patches": 0}
    model = build(ddit={**CONFIG["ddit"], "audio": audio})
    assert rows_of_passes(model) == ([2] * 3, [2] * 3)
    assert rows_of_passes(model, guidance=1.0, audio_guidance=2.0) == ([1] * 3, [2] * 3)
    assert rows_of_passes(model, video=picture()) == ([], [2] * 3)
    assert rows_of_passes(model, video=picture(), v2a="paper") == ([], [2] * 3)
    one, two = run(model, video=picture()), run(model, video=picture(seed=1))
    assert torch.equal(one.audio, two.audio)


def test_a_negative_prompt_that_does_nothing_is_told(model) -> None:
    off = dict(guidance=1.0, audio_guidance=1.0)
    with pytest.warns(UserWarning, match="negative_prompt does nothing at guidance 1: give"):
        said = run(model, negative_prompt="rubber", **off)
    assert same(said, run(model, **off))
    with pytest.warns(UserWarning, match="negative_audio_prompt does nothing at audio_guidance 1"):
        run(model, negative_audio_prompt="speech", guidance=2.0, audio_guidance=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model, negative_prompt="rubber", guidance=1.0, audio_guidance=2.0)
        run(model, negative_prompt=" ", negative_audio_prompt="", **off)


@pytest.mark.parametrize("condition", ["both", "video"])
def test_a_negative_prompt_for_the_sound_leaves_the_picture_alone(condition: str) -> None:
    audio = {**CONFIG["ddit"]["audio"], "condition": condition}
    model = build(ddit={**CONFIG["ddit"], "audio": audio})
    plain = run(model)
    negative = run(model, negative_audio_prompt="speech")
    assert torch.equal(negative.video, plain.video)
    assert not torch.equal(negative.audio, plain.audio)
    assert same(run(model, negative_audio_prompt=" "), plain)
    # The same words for both modalities are the words of the one negative prompt.
    both = run(model, negative_prompt="speech", negative_audio_prompt="speech")
    one = run(model, negative_prompt="speech")
    assert (both.video.int() - one.video.int()).abs().max() <= 1
    torch.testing.assert_close(both.audio, one.audio, rtol=1e-3, atol=1e-3)
    # A group of its own is run only while the sound is drawn, and only where it is needed.
    rows = rows_of_passes(model, negative_audio_prompt="speech")
    assert rows == ([2] * 4, [2] * 3)
    joint = rows_of_passes(model, negative_audio_prompt="speech", schedule="joint")
    assert joint == ([3 if condition == "video" else 2] * 3, [2] * 3)


def test_takes_are_ranked_by_one_metric_and_told_by_another(model) -> None:
    takes = run(model, audio_takes=4, seed=5)
    scores = [clip.scores["agreement"] for clip in takes]
    assert scores == sorted(scores, reverse=True)
    assert all(set(clip.scores) == {"agreement", "correlation"} for clip in takes)
    drawn = run(model, audio_takes=4, seed=5, rank=None)
    assert {c.audio.sum().item() for c in drawn} == {c.audio.sum().item() for c in takes}
    assert all(clip.scores is None for clip in drawn)


def test_weight_one_equals_the_conditional_branch_of_guidance(model) -> None:
    """Skipping the null branch is exact: a weight next to 1 gives next to the same clip."""
    for schedule in ("joint", "cascade"):
        a = run(model, guidance=1.0, schedule=schedule)
        b = run(model, guidance=1.0 + 1e-7, schedule=schedule)
        torch.testing.assert_close(a.audio, b.audio, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("schedule", ["joint", "cascade"])
def test_takes_share_the_picture_and_differ_in_sound(model, schedule: str) -> None:
    takes = run(model, audio_takes=3, schedule=schedule, seed=5, rank=None)
    assert all(torch.equal(t.video, takes[0].video) for t in takes)
    assert not torch.equal(takes[0].audio, takes[1].audio)
    one = run(model, schedule=schedule, seed=5)
    torch.testing.assert_close(takes[0].audio, one.audio, rtol=1e-3, atol=1e-3)
    both = run(model, [PROMPT, "a drum"], audio_takes=2, schedule=schedule, seed=5, rank=None)
    assert [c.prompt for c in both] == [PROMPT, PROMPT, "a drum", "a drum"]
    torch.testing.assert_close(both[1].audio, takes[1].audio, rtol=1e-3, atol=1e-3)


def test_progress_and_callback(model, capsys) -> None:
    times = []
    model.generate(PROMPT, steps=2, callback=lambda step, x, t: times.append(t))
    assert times == [(0.5, 0), (1, 0), (1, 0.5), (1, 1)]
    assert "video 2/2, audio 2/2" in capsys.readouterr().err


def test_bfloat16_is_close(folder) -> None:
    """Untrained, so only: it runs, and the noise is the same."""
    clip = run(syncflow.load(folder, device="cpu", dtype="bfloat16"))
    assert clip.video.shape == (16, 3, 32, 32) and clip.audio.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(prompt=""), "empty prompt"),
        (dict(prompt=["x", " "]), "empty prompt"),
        (dict(prompt=[]), "no prompt"),
        (dict(prompt=[3]), "got 3"),
        (dict(height=40), "divisible by 16.*got 40"),
        (dict(height=64), "fixed to 32x32.*got 64x32"),
        (dict(seconds=0.3), "multiple of 4 frames.*0.3 s"),
        (dict(seconds=-1.0), "got -1.0"),
        (dict(steps=0), "steps.*got 0"),
        (dict(audio_takes=0), "audio_takes.*got 0"),
        (dict(guidance=-1.0), "got -1.0"),
        (dict(eta=-0.5), "got -0.5"),
        (dict(shift=0.0), "shift must be a number, more than 0 and at most 1000, got 0"),
        (dict(solver="rk"), "'rk'"),
        (dict(schedule="odd"), "'odd'"),
        (dict(v2a="odd"), "'odd'"),
        (dict(schedule="odd", video=picture()), "'odd'"),
        (dict(audio_steps=0), "audio_steps.*got 0"),
        (dict(audio_steps=5, schedule="joint"), "audio_steps 5 is not steps 3"),
        (dict(seconds=1.03), "16.48 frames"),
        (dict(rank="loud"), "'loud'"),
        (dict(video=[picture(), picture(20)], prompt=["x", "y"]), "1.000 to 1.250 s"),
        (dict(video=torch.zeros(4, 3, 32, 32)), "uint8 .* got torch.float32"),
        (dict(video=7), "got int"),
        (dict(video=picture(8), seconds=1.0), "lasts 0.500 s, 1.0 s"),
        (dict(video=[picture(), picture()]), "2 videos for 1 prompts"),
        (dict(image=picture()), r"got torch.uint8 \[16"),
        (dict(image=picture()[0], video=picture()), "not both"),
    ],
    ids=str,
)
def test_mistakes_are_named(model, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(model, **options)


def test_unknown_and_damaged_models_are_named(folder, tmp_path, monkeypatch) -> None:
    with pytest.raises(FileNotFoundError, match="unknown model './nowhere'"):
        syncflow.load("./nowhere")
    with pytest.raises(FileNotFoundError, match="it has no config.json"):
        syncflow.load(tmp_path)
    with pytest.raises(ValueError, match="unknown dtype 'int3'"):
        syncflow.load(folder, dtype="int3")
    with pytest.raises(ValueError, match="device 'nonsense'"):
        syncflow.load(folder, device="nonsense")
    monkeypatch.setattr(model_folder, "SHIPPED", tmp_path)
    with pytest.raises(FileNotFoundError, match="has no pretrained model"):
        syncflow.load()
    build().save(tmp_path / "m")
    weights = tmp_path / "m" / "ddit.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="ddit.safetensors' is damaged"):
        syncflow.load(tmp_path / "m")
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="is incomplete"):
        syncflow.load(tmp_path / "m")
    shutil.copy(tmp_path / "m" / "video_vae.safetensors", weights)
    with pytest.raises(ValueError, match="does not fit config.json"):
        syncflow.load(tmp_path / "m")


def test_the_hub_is_asked_for_a_hub_id(monkeypatch, folder) -> None:
    asked = []

    def download(name, revision=None, allow_patterns=None):
        asked.append((name, revision))
        if name == "nobody/nothing":
            raise OSError("offline")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert model_folder.find("someone/syncflow", "v2") == folder
    assert asked == [("someone/syncflow", "v2")]
    with pytest.raises(OSError, match="unknown model 'nobody/nothing'.*offline"):
        model_folder.find("nobody/nothing")


def test_module_level_generate_keeps_its_model(monkeypatch, folder) -> None:
    monkeypatch.setattr(model_folder, "SHIPPED", folder)
    shipped._shipped.cache_clear()
    try:
        clip = syncflow.generate(PROMPT, seed=2, steps=1, progress=False)
        assert clip.video.shape == (16, 3, 32, 32)
        kept = shipped._shipped()
        syncflow.generate(PROMPT, seed=2, steps=1, progress=False)
        assert shipped._shipped() is kept
    finally:
        shipped._shipped.cache_clear()


def test_the_shipped_model_is_unguided_as_it_was_trained():
    """Its captions were dropped to a null caption of their own length; sampling has to match."""
    config = ModelConfig.load(Path(syncflow.__file__).parent / "pretrained" / "config.json")
    assert config.sampling.null_caption == "prompt"
