"""Configs refuse what would be ignored, would not fit, or would only show as noise."""

import json
from pathlib import Path

import pytest

from syncflow.clip import ClipSpec
from syncflow.config import DDiTConfig, ModelConfig, OpenSoraVAEConfig, SamplingConfig, paths
from syncflow.training import runner

SMALL = {
    "ddit": {
        "video": {"hidden_size": 32, "num_heads": 2, "in_channels": 3, "caption_channels": 16},
        "audio": {"hidden_size": 32, "num_heads": 2, "in_channels": 5},
    },
    "video_vae": {"kind": "patch", "latent_channels": 3},
    "audio_vae": {"kind": "spectral", "latent_channels": 5},
    "text_encoder": {"kind": "bytes", "d_model": 16},
    "latent_mean_video": [0.0, 0.0, 0.0],
}


def test_the_papers_model_and_a_small_one_fit():
    ModelConfig()
    assert ModelConfig.parse(SMALL).ddit.video.in_channels == 3


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"video_vae": {"kind": "patch", "latent_channels": 4}}, "in_channels 3 .*channels 4"),
        ({"audio_vae": {"kind": "spectral", "latent_channels": 6}}, "in_channels 5 .*channels 6"),
        ({"geometry": {"sample_rate": 24000}}, "sample_rate 24000 .*48000"),
        ({"text_encoder": {"kind": "bytes", "d_model": 8}}, "caption_channels 16 .*d_model 8"),
        ({"latent_mean_video": [0.0]}, "latent_mean_video has 1 values for 3 channels"),
        (
            {"audio_vae": {"latent_channels": 5, "upsampling_ratios": [8, 5, 4, 2]}},
            "product 320.*960",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(part, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.parse({**SMALL, **part})


def test_sizes_that_would_be_ignored_are_refused():
    with pytest.raises(ValueError, match="latent_channels 8 is not temporal.embed_dim 4"):
        OpenSoraVAEConfig.parse({"latent_channels": 8})
    with pytest.raises(ValueError, match=r"patch_size \[2, 2, 2\]"):
        DDiTConfig.parse({"video": {"patch_size": [2, 2, 2]}})
    with pytest.raises(ValueError, match="audio_steps"):
        SamplingConfig.parse({"audio_steps": 0})


def test_an_unknown_key_and_a_broken_file_are_named(tmp_path):
    with pytest.raises(ValueError, match="unknown key 'gidance'.*nearest is 'guidance'"):
        SamplingConfig.parse({"gidance": 1})
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        ModelConfig.load(path)
    with pytest.raises(FileNotFoundError, match="no config file"):
        ModelConfig.load(tmp_path / "none.json")


def test_what_is_dumped_loads_and_leaves_nothing_beside_it(tmp_path):
    config = ModelConfig.parse(SMALL)
    config.dump(tmp_path / "config.json")
    assert ModelConfig.load(tmp_path / "config.json") == config
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert json.loads((tmp_path / "config.json").read_text())["name"] == config.name


def test_a_length_between_two_frames_is_refused():
    """Its picture and its sound would not last equally long."""
    with pytest.raises(ValueError, match="2.03 s x 16 fps = 32.48 frames"):
        ClipSpec(seconds=2.03)
    assert ClipSpec(seconds=2.0, fps=29.97).num_frames == 60


def test_what_a_wheel_ships_is_found_from_any_folder(tmp_path, monkeypatch):
    """A file of that name in the current folder comes first."""
    site, work = tmp_path / "site-packages" / "syncflow", tmp_path / "work"
    (site / "configs").mkdir(parents=True)
    (site / "pretrained").mkdir()
    for folder in ("configs", "elsewhere", "."):
        (site / folder).mkdir(exist_ok=True)
        (site / folder / "a.json").write_text("{}")
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(paths, "_PACKAGE", site)
    assert paths.find("configs/a.json") == site / "configs" / "a.json"
    assert paths.find("syncflow/pretrained") == site / "pretrained"
    for name in ("configs/b.json", "elsewhere/a.json", "a.json", "."):
        assert paths.find(name) == Path(name)
    (work / "configs").mkdir()
    (work / "configs" / "a.json").write_text("{}")
    assert paths.find("configs/a.json") == Path("configs/a.json")


def test_the_recipe_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = runner.read(Path("configs/tiny/recipe.json"))
    assert recipe.steps
    with pytest.raises(FileNotFoundError, match="no config file configs/tiny/none.json"):
        runner.read(Path("configs/tiny/none.json"))


def test_the_model_in_the_package_has_a_name(tmp_path, monkeypatch):
    """In configs, and wherever a model is named; a folder of that name comes first."""
    from syncflow.model_io import model_folder
    from syncflow.training.checkpoints import weights
    from syncflow.training.tasks import export

    monkeypatch.chdir(tmp_path)
    assert model_folder.find("shipped") == model_folder.find() == paths.find("shipped")
    assert weights.statistics("shipped") == weights.statistics(model_folder.SHIPPED)
    assert export.load_part("shipped", "text_encoder").encode(["a ball"])[0].shape[0] == 1
    (tmp_path / "shipped").mkdir()
    assert paths.find("shipped") == Path("shipped")
    with pytest.raises(FileNotFoundError, match="not a model folder"):
        model_folder.find("shipped")


def test_a_config_has_a_short_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = paths.find_config("configs/impacts/recipe.json")
    for name in ("impacts/recipe", "impacts/recipe.json", "configs/impacts/recipe"):
        assert paths.find_config(name) == whole and whole.is_file()
    (tmp_path / "impacts").mkdir()
    (tmp_path / "impacts" / "recipe.json").write_text("{}")
    assert paths.find_config("impacts/recipe") == Path("impacts/recipe.json")
    assert paths.find_config("gone") == Path("gone")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_of_any_editor_is_read(tmp_path, encoding):
    path = tmp_path / "config.json"
    path.write_bytes(json.dumps({**SMALL, "name": "größe"}, ensure_ascii=False).encode(encoding))
    assert ModelConfig.load(path).name == "größe"
    path.write_bytes('{"name": "größe"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="config.json is not JSON: line 1 is not UTF-8 text"):
        ModelConfig.load(path)


def test_a_folder_of_another_format_is_refused():
    assert ModelConfig.parse(SMALL).format == 1
    with pytest.raises(ValueError, match="format 2, and this syncflow reads 1"):
        ModelConfig.parse({**SMALL, "format": 2})


def test_what_belongs_to_another_kind_is_refused():
    odd = {**SMALL, "video_vae": {"kind": "patch", "spatial": {"blok_out_chanels": [1]}}}
    with pytest.raises(ValueError, match="unknown key 'spatial' in PatchVAEConfig"):
        ModelConfig.parse(odd)
    with pytest.raises(ValueError, match="unknown key 'oscillators' in EncodecVAEConfig"):
        ModelConfig.parse({**SMALL, "audio_vae": {"kind": "encodec", "oscillators": 5}})
    with pytest.raises(ValueError, match="unknown key 'blok_out_chanels'"):
        OpenSoraVAEConfig.parse({"spatial": {"blok_out_chanels": [1]}})
    with pytest.raises(ValueError, match="'odd'"):
        ModelConfig.parse({**SMALL, "video_vae": {"kind": "odd"}})


def test_defaults_of_another_kind_are_left_out():
    """As configs had them when one schema held all kinds."""
    patch = {"kind": "patch", "latent_channels": 3, "shift": [-0.10, 0.34, 0.27, 0.98]}
    patch["spatial"] = OpenSoraVAEConfig().spatial.model_dump()
    config = ModelConfig.parse({**SMALL, "video_vae": patch})
    assert "spatial" not in config.video_vae.model_dump()


@pytest.mark.parametrize("part", ["video_vae", "audio_vae", "text_encoder"])
@pytest.mark.parametrize("value", [1e12, "x", None, True, []])
def test_a_part_that_is_no_object_is_one_line(part, value):
    with pytest.raises(ValueError, match=f"config: {part}"):
        ModelConfig.parse({part: value})
