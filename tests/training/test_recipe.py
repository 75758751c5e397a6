"""The whole recipe at toy size: render, text, VAEs, latents, three stages, export, generate."""

import json

import pytest
import torch
from safetensors.torch import load_file

import syncflow
from syncflow import durable
from syncflow.training import runner

SIZE = 32


def write(folder, file, /, **config):
    (folder / f"{file}.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    at = lambda name: str(folder / name)  # noqa: E731
    loop = {"steps": 2, "batch_size": 2, "lr": 1e-3, "validate_every": 2, "threads": 1}
    video_vae = {"kind": "patch", "latent_channels": 2, "width": 16, "depth": 1}
    audio_vae = {
        "kind": "spectral", "latent_channels": 3, "width": 32, "depth": 1, "oscillators": 16,
    }  # fmt: skip
    text = {
        "kind": "bytes",
        "max_length": 64,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 4,
        "pool": "word",
        "clean_caption": False,
    }
    ddit = {
        "video": {
            "hidden_size": 32, "depth": 1, "num_heads": 2, "in_channels": 2, "mlp_ratio": 2,
            "caption_channels": 32, "model_max_length": 33, "pred_sigma": False,
        },
        "adaptor": {"num_heads": 2},
        "audio": {
            "hidden_size": 32, "num_heads": 2, "in_channels": 3, "mlp_ratio": 2,
            "condition": "both", "upsampler_patches": 4, "upsampler_width": 16,
        },
    }  # fmt: skip
    for split in ("train", "val"):
        write(
            folder,
            f"render_{split}",
            task="render",
            out=at(split),
            clips=3,
            split=split,
            height=SIZE,
            width=SIZE,
        )
    data = {"data": at("train"), "validation": at("val"), "loop": loop}
    write(folder, "text", task="text", out=at("text"), model=text, levels=[1], loop=loop)
    write(folder, "audio_vae", task="audio_vae", out=at("audio_vae"), model=audio_vae, **data)
    write(folder, "video_vae", task="video_vae", out=at("video_vae"), model=video_vae, **data)
    parts = {"video_vae": at("video_vae"), "audio_vae": at("audio_vae"), "text_encoder": at("text")}
    for split in ("train", "val"):
        write(
            folder,
            f"latents_{split}",
            task="latents",
            out=at(f"latents_{split}"),
            data=at(split),
            **parts,
        )
    write(
        folder,
        "video_decoder",
        task="video_vae",
        out=at("video_decoder"),
        model=video_vae,
        init=at("video_vae"),
        freeze_encoder=True,
        latent_noise=0.1,
        **data,
    )
    flow = {
        "data": at("latents_train"),
        "validation": at("latents_val"),
        "model": ddit,
        "loop": loop,
        "null_caption": "full",
    }
    init = {}
    samples = {
        "every": 2, "clips": 1, "video_vae": at("video_vae"), "audio_vae": at("audio_vae"),
        "sampling": {"steps": 2, "guidance": 2.0, "schedule": "cascade"},
    }  # fmt: skip
    for stage, train in enumerate(("video", "audio", "both"), start=1):
        write(
            folder,
            f"stage{stage}",
            task="flow",
            out=at(f"stage{stage}"),
            train=train,
            **flow,
            **init,
            samples=samples if stage == 3 else None,
        )
        init = {"init": at(f"stage{stage}")}
    parts["video_vae"] = at("video_decoder")
    write(
        folder,
        "export",
        task="export",
        out=at("model"),
        name="toy",
        latents=at("latents_train"),
        ddit=at("stage3"),
        sampling={"steps": 2, "guidance": 2.0, "schedule": "cascade"},
        **parts,
    )
    steps = [
        "render_train", "render_val", "text", "audio_vae", "video_vae", "latents_train",
        "latents_val", "video_decoder", "stage1", "stage2", "stage3", "export",
    ]  # fmt: skip
    write(folder, "recipe", task="recipe", steps=[f"{step}.json" for step in steps])
    runner.run(folder / "recipe.json", progress=False)
    return folder / "model"


def test_the_exported_folder_generates(model_folder, tmp_path):
    model = syncflow.load(model_folder)
    clip = model.generate("a wooden ball bounces twice", seed=3, progress=False)
    assert clip.video.shape == (32, 3, SIZE, SIZE) and clip.audio.shape == (96000,)
    assert torch.isfinite(clip.audio).all()
    assert clip.save(tmp_path / "clip.mp4").exists()
    again = syncflow.load(model_folder).generate(
        "a wooden ball bounces twice", seed=3, progress=False
    )
    assert torch.equal(clip.video, again.video) and torch.equal(clip.audio, again.audio)


def test_the_exported_folder_normalises_as_its_training_did(model_folder):
    config = syncflow.load(model_folder).config
    found = model_folder.parent / "latents_train" / "manifest.json"
    for name, values in json.loads(found.read_text())["statistics"].items():
        kind, what = name.split("_")
        assert getattr(config, f"latent_{what}_{kind}") == values, name


def test_frozen_encoder_stays_bit_identical(model_folder):
    from syncflow.training.checkpoints import weights as weights_of

    before = weights_of.load(model_folder.parent / "video_vae")
    after = weights_of.load(model_folder.parent / "video_decoder")
    for name in before:
        assert name.startswith("decoder.") or torch.equal(before[name], after[name]), name
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_finished_steps_are_skipped(model_folder, capsys):
    stamp = (model_folder.parent / "stage1" / "model.safetensors").stat().st_mtime_ns
    runner.run(model_folder.parent / "stage1.json", progress=False)
    assert (model_folder.parent / "stage1" / "model.safetensors").stat().st_mtime_ns == stamp
    assert "finished before, skipped" in capsys.readouterr().out


def test_a_skipped_step_says_that_its_config_has_changed(model_folder, capsys):
    config = json.loads((model_folder.parent / "stage1.json").read_text())
    write(model_folder.parent, "changed", **{**config, "text_dropout": 0.5})
    runner.run(model_folder.parent / "changed.json", progress=False)
    assert "finished before with another config" in capsys.readouterr().out


def test_latents_of_other_encoders_are_not_taken_for_finished(model_folder):
    config = json.loads((model_folder.parent / "latents_val.json").read_text())
    write(
        model_folder.parent, "other",
        **{**config, "video_vae": str(model_folder.parent / "video_decoder")},
    )  # fmt: skip
    with pytest.raises(ValueError, match="latents_val holds latents of other encoders"):
        runner.run(model_folder.parent / "other.json", progress=False)


def test_training_goes_on_from_a_model_folder(model_folder, tmp_path):
    from syncflow.training.checkpoints import weights as weights_of
    from syncflow.training.tasks import export

    weights = weights_of.load(model_folder)
    trained = weights_of.load(model_folder.parent / "stage3")
    assert weights.keys() == trained.keys()
    for name, value in weights.items():  # the folder keeps bfloat16
        torch.testing.assert_close(value, trained[name], rtol=1e-2, atol=1e-2)
    encoder = export.load_part(model_folder, "text_encoder")
    assert encoder.encode(["a ball"])[0].shape[2] == 32
    folder = model_folder.parent
    export_config = json.loads((folder / "export.json").read_text())
    of_model = dict.fromkeys(("video_vae", "audio_vae", "text_encoder"), str(model_folder))
    write(folder, "more", **export_config | of_model | {"out": str(tmp_path / "more")})
    runner.run(folder / "more.json", progress=False)
    more = weights_of.load(tmp_path / "more", "video_vae")
    kept = weights_of.load(model_folder, "video_vae")
    assert all(torch.equal(more[name], kept[name]) for name in kept)


def test_clips_are_written_while_training(model_folder):
    from syncflow import Clip

    run = model_folder.parent / "stage3"
    (path,) = (run / "samples").glob("*.mp4")
    assert path.name == "00000002-0.mp4"
    clip = Clip.load(path)
    assert clip.video.shape[0] == 32 and clip.audio.shape[0] == 96000
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert "clip_0" in events.Tags()["images"] and "clip_0" in events.Tags()["audio"]
    assert events.Images("clip_0")[0].encoded_image_string.startswith(b"GIF89a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": "other"}, "other encoders than the data that .*stage3 was trained on"),
        ({"audio_gain_db": 30}, "audio_gain_db: must be .* 20 dB, got 30"),
        ({"rhythms": 2}, "rhythms are asked times, and ddit.event_bins is 0"),
        ({"ddit": "text"}, "is a run of task 'text', not of a d-DiT"),
        ({"sampling": {"null_caption": "prompt"}}, "null_caption is 'prompt'.*with 'full'"),
    ],
)
def test_an_export_of_what_does_not_belong_together_is_refused(
    model_folder, tmp_path, change, message
):
    import shutil

    folder = model_folder.parent
    if "latents" in change:
        shutil.copytree(folder / "latents_train", tmp_path / "other")
        manifest = durable.read_sealed(tmp_path / "other" / "manifest.json")
        manifest["encoders"]["audio_vae"] = "another"
        durable.write_sealed(tmp_path / "other" / "manifest.json", manifest)
        change = {"latents": str(tmp_path / "other")}
    if "ddit" in change:
        change = {"ddit": str(folder / "text")}
    config = json.loads((folder / "export.json").read_text())
    write(tmp_path, "export", **config | {"out": str(tmp_path / "model")} | change)
    with pytest.raises(ValueError, match=message):
        runner.run(tmp_path / "export.json", progress=False)
    assert not (tmp_path / "model").exists()


def test_an_export_may_raise_the_level_of_the_sound(model_folder, tmp_path):
    import syncflow

    config = json.loads((model_folder.parent / "export.json").read_text())
    write(tmp_path, "export", **config | {"out": str(tmp_path / "model"), "audio_gain_db": 6.0})
    runner.run(tmp_path / "export.json", progress=False)
    latent = torch.randn(1, 4, 3)
    quiet, loud = (
        syncflow.load(folder, dtype=torch.float32).audio_vae.decode(latent)
        for folder in (model_folder, tmp_path / "model")
    )
    # The factors are kept in bfloat16, and squared.
    assert loud.norm() / quiet.norm() == pytest.approx(10 ** (6 / 20), rel=0.02)


def test_an_export_may_average_another_run_in(model_folder, tmp_path):
    folder = model_folder.parent
    config = json.loads((folder / "export.json").read_text()) | {"out": str(tmp_path / "model")}
    config |= {"dtype": "float32", "blend": {"ddit": str(folder / "stage1"), "share": 0.25}}
    write(tmp_path, "export", **config)
    runner.run(tmp_path / "export.json", progress=False)
    last, first = (load_file(folder / n / "model.safetensors") for n in ("stage3", "stage1"))
    made = load_file(tmp_path / "model" / "ddit.safetensors")
    name = "video_tower.x_embedder.proj.weight"
    assert not torch.equal(last[name], first[name])
    torch.testing.assert_close(made[name], 0.75 * last[name] + 0.25 * first[name])

    other = {"blend": {"ddit": "syncflow/pretrained", "share": 0.25}}
    write(tmp_path, "other", **config | {"out": str(tmp_path / "no")} | other)
    with pytest.raises(ValueError, match="syncflow/pretrained is of another shape than"):
        runner.run(tmp_path / "other.json", progress=False)
    assert not (tmp_path / "no").exists()


def test_tuning_a_model_keeps_its_scale(model_folder, tmp_path):
    """Weights know latents by their own statistics, whatever the new clips' are."""
    from syncflow.config import ModelConfig

    folder = model_folder.parent
    config = json.loads((folder / "stage3.json").read_text())
    config |= {"out": str(tmp_path / "tuned"), "init": str(model_folder), "statistics": "init"}
    config |= {"data": str(folder / "latents_val"), "samples": None}
    write(tmp_path, "tuned", **config)
    runner.run(tmp_path / "tuned.json", progress=False)
    export = json.loads((folder / "export.json").read_text())
    export |= {"out": str(tmp_path / "model"), "ddit": str(tmp_path / "tuned")}
    write(tmp_path, "export", **export | {"latents": str(folder / "latents_val")})
    runner.run(tmp_path / "export.json", progress=False)
    folders = (model_folder, tmp_path / "model")
    before, after = (ModelConfig.load(folder / "config.json") for folder in folders)
    assert before.latent_mean_video == after.latent_mean_video
    assert before.latent_std_audio == after.latent_std_audio


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_vae": "nowhere"}, "nowhere is not finished"),
        ({"audio_vae": "video_vae"}, "video_vae is a run of task 'video_vae', which makes no aud"),
        ({"clips": 4}, "samples.clips is 4, and the first validation set has 3 clips"),
        ({"video_vae": "pretrained"}, "has 8 latent channels, and the latents have 2"),
    ],
)
def test_what_sample_clips_need_is_checked_before_step_1(model_folder, tmp_path, change, message):
    folder = model_folder.parent
    config = json.loads((folder / "stage3.json").read_text()) | {"out": str(tmp_path / "run")}
    places = {"video_vae": str(folder / "video_vae"), "pretrained": "syncflow/pretrained"}
    change = {key: places.get(value, value) for key, value in change.items()}
    config["samples"] |= change
    write(tmp_path, "run", **config)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        runner.run(tmp_path / "run.json", progress=False)
    assert not (tmp_path / "run").exists()
