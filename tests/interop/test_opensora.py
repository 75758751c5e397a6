"""Open-Sora v1.2 weights: numbers of its own code, and refusals that name what is wrong."""

import json

import pytest
import torch

from syncflow.config import VideoTowerConfig, VideoVAEConfig
from syncflow.interop import opensora
from syncflow.models.video_tower import VideoTower
from syncflow.models.video_vae import VideoVAE

SPATIAL = {
    "block_out_channels": [4, 8],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
TEMPORAL = {
    "filters": 4,
    "num_res_blocks": 1,
    "channel_multipliers": [1, 2],
    "temporal_downsample": [True],
    "num_groups": 2,
    "latent_embed_dim": 4,
    "embed_dim": 4,
}
SMALL_TOWER = VideoTowerConfig(
    hidden_size=24, depth=2, num_heads=3, mlp_ratio=2.0, caption_channels=10, model_max_length=7
)


@pytest.fixture(scope="module")
def vae_state():
    torch.manual_seed(0)
    return VideoVAE(VideoVAEConfig(spatial=SPATIAL, temporal=TEMPORAL)).state_dict()


@pytest.fixture(scope="module")
def tower_state():
    torch.manual_seed(0)
    return VideoTower(SMALL_TOWER).state_dict()


def relative_error(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("case", [0, 1, 2])
def test_video_vae_gives_the_originals_numbers(golden, case):
    from safetensors.torch import load_file

    folder = golden / "vae"
    meta = json.loads((folder / "meta.json").read_text())
    vae = opensora.video_vae(
        load_file(folder / "state_dict.safetensors"),
        spatial=meta["spatial"],
        temporal=meta["temporal"],
    )
    io = load_file(folder / "io.safetensors")
    frames, chunk = meta["cases"][case]["frames"], meta["cases"][case]["micro_frame_size"]
    with torch.no_grad():
        latent = vae.encode(io[f"case{case}.x"], micro_frame_size=chunk).mode()
        recon = vae.decode(io[f"case{case}.latent"], num_frames=frames, micro_frame_size=chunk)
    assert latent.shape[2] == meta["cases"][case]["latent_frames"]
    assert relative_error(latent, io[f"case{case}.latent"]) < 1e-4
    assert relative_error(recon, io[f"case{case}.recon"]) < 1e-4


def test_released_tower_layout_is_recognised(golden):
    layout = json.loads((golden / "stdit3" / "xl2_layout.json").read_text())
    state = {key: torch.empty(shape, device="meta") for key, shape in layout.items()}
    assert opensora.video_tower_config(state) == VideoTowerConfig()


def test_sizes_of_the_tower_come_from_its_shapes(tower_state):
    tower = opensora.video_tower(tower_state, num_heads=3)
    assert tower.config == SMALL_TOWER
    assert not tower.training
    for key, value in tower.state_dict().items():
        assert torch.equal(value, tower_state[key]), key


def test_shift_and_scale_come_with_the_weights(vae_state):
    state = {**vae_state, "shift": vae_state["shift"] + 1}
    vae = opensora.video_vae(state, spatial=SPATIAL, temporal=TEMPORAL)
    assert torch.equal(vae.shift, state["shift"])
    assert vae.config.shift == pytest.approx([0.90, 1.34, 1.27, 1.98])


def test_wrong_keys_are_named_in_one_line(tower_state):
    state = dict(tower_state)
    del state["t_block.1.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["spatial_blocks.1.mlp.fc2.bias"] = torch.zeros(5)
    with pytest.raises(ValueError) as error:
        opensora.video_tower(state, num_heads=3)
    message = str(error.value)
    assert "1 missing (t_block.1.bias)" in message
    assert "1 unexpected (extra.weight)" in message
    assert "1 of another shape (spatial_blocks.1.mlp.fc2.bias [5] for [24])" in message
    assert "\n" not in message


def test_a_stable_diffusion_vae_is_refused(vae_state):
    prefix = "spatial_vae.module."
    state = {k.removeprefix(prefix): v for k, v in vae_state.items() if k.startswith(prefix)}
    with pytest.raises(ValueError, match=r"missing.*more.*unexpected.*more"):
        opensora.video_vae(state, spatial=SPATIAL, temporal=TEMPORAL)
    with pytest.raises(ValueError, match=r"x_embedder\.proj\.weight is missing"):
        opensora.video_tower(state)


def test_heads_that_do_not_fit_are_refused(tower_state):
    with pytest.raises(ValueError, match="has 3 heads"):
        opensora.video_tower(tower_state)
