"""Open-Sora v1.2's own numbers: tower, VAE, sampler, clock; where syncflow differs on purpose."""

import json

import pytest
import torch
from safetensors.torch import load_file

from syncflow.interop import opensora, opensora_sampler

COMPAT = "opensora-1.2"


def relative_error(ours, theirs) -> float:
    """Largest error in units of the largest value."""
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.fixture(scope="module")
def stdit3(golden):
    folder = golden / "stdit3"
    meta = json.loads((folder / "meta.json").read_text())
    return folder, meta, load_file(folder / "state_dict.safetensors")


def run_case(stdit3, case, compat):
    folder, meta, state = stdit3
    tower = opensora.video_tower(state, num_heads=meta["config"]["num_heads"], compat=compat)
    shape = meta["cases"][case]
    io = load_file(folder / "io.safetensors")
    part = {k.split(".", 1)[1]: v for k, v in io.items() if k.startswith(f"case{case}.")}
    with torch.no_grad():
        velocity, features = tower(
            part["x"],
            1 - part["timestep"] / 1000,
            part["y"][:, 0],
            part["mask"] if shape["text_mask"] else None,
            fps=shape["fps"],
            height=shape["height"],
            width=shape["width"],
            frame_mask=part.get("x_mask"),
        )
    return velocity, features, part


def test_sizes_of_the_golden_tower_are_told_from_its_shapes(stdit3):
    _, meta, state = stdit3
    config = opensora.video_tower_config(state, meta["config"]["num_heads"]).model_dump()
    for name, value in meta["config"].items():
        found = config[name]
        assert (list(found) if isinstance(found, tuple) else found) == value, name


def test_tower_gives_the_originals_numbers(stdit3, tower_case):
    velocity, features, part = run_case(stdit3, tower_case, COMPAT)
    expected = part["out"][:, : part["x"].shape[1]]
    assert relative_error(velocity, expected) < 1e-4
    for layer, feature in enumerate(features):
        assert relative_error(feature.flatten(1, 2), part[f"temporal_block{layer}"]) < 1e-4
    assert f"temporal_block{len(features)}" not in part


def test_only_the_output_of_clean_frames_differs_by_default(stdit3, tower_case):
    velocity, features, part = run_case(stdit3, tower_case, None)
    for layer, feature in enumerate(features):
        assert relative_error(feature.flatten(1, 2), part[f"temporal_block{layer}"]) < 1e-4
    ours = velocity.movedim(1, 2)
    theirs = part["out"][:, : part["x"].shape[1]].movedim(1, 2)
    noisy = part.get("x_mask", torch.ones(ours.shape[:2], dtype=torch.bool))
    assert relative_error(ours[noisy], theirs[noisy]) < 1e-4
    if not noisy.all():
        assert relative_error(ours[~noisy], theirs[~noisy]) > 1e-2


def test_sampler_gives_the_originals_latents(stdit3):
    folder, meta, state = stdit3
    sample = json.loads((folder / "sample.json").read_text())
    io = load_file(folder / "sample.safetensors")
    tower = opensora.video_tower(state, num_heads=meta["config"]["num_heads"])

    def run(compat):
        return opensora_sampler.sample(
            tower,
            io["z0"],
            io["y"][:, 0],
            io["mask"],
            fps=sample["fps"],
            height=sample["height"],
            width=sample["width"],
            guidance=sample["cfg"],
            path=opensora_sampler.times(sample["steps"]),
            compat=compat,
        )

    assert relative_error(run(COMPAT), io["z1"]) < 1e-4
    # The null caption in full, where the original cuts it to the prompt's tokens.
    if not io["mask"].bool().all():
        assert relative_error(run(None), io["z1"]) > 1e-2


def test_timestep_transform_gives_the_originals_times(golden):
    table = json.loads((golden / "stdit3" / "timestep_transform.json").read_text())
    for row in table["rows"]:
        t, size = torch.tensor(row["t"]), (row["height"], row["width"], row["num_frames"])
        ours = opensora_sampler.timestep_transform(t, *size, compat=COMPAT)
        assert relative_error(ours, torch.tensor(row["out"])) < 1e-4, row


def test_video_vae_gives_the_originals_numbers(golden, vae_case):
    folder = golden / "vae"
    meta = json.loads((folder / "meta.json").read_text())
    vae = opensora.video_vae(
        load_file(folder / "state_dict.safetensors"),
        spatial=meta["spatial"],
        temporal=meta["temporal"],
    )
    io = load_file(folder / "io.safetensors")
    case = meta["cases"][vae_case]
    frames, chunk = case["frames"], case["micro_frame_size"]
    with torch.no_grad():
        latent = vae.encode(io[f"case{vae_case}.x"], micro_frame_size=chunk).mode()
        recon = vae.decode(io[f"case{vae_case}.latent"], num_frames=frames, micro_frame_size=chunk)
    assert latent.shape[2] == case["latent_frames"]
    assert relative_error(latent, io[f"case{vae_case}.latent"]) < 1e-4
    assert relative_error(recon, io[f"case{vae_case}.recon"]) < 1e-4


def test_released_tower_layout_is_recognised(golden):
    layout = json.loads((golden / "stdit3" / "xl2_layout.json").read_text())
    state = {key: torch.empty(shape, device="meta") for key, shape in layout.items()}
    config = opensora.video_tower_config(state)
    assert config == opensora.VideoTowerConfig()
    with torch.device("meta"):
        tower = opensora.VideoTower(config)
    assert {k: list(v.shape) for k, v in tower.state_dict().items()} == layout
