"""Open-Sora v1.2 weights: sizes from shapes, and refusals that name what is wrong."""

import miniature
import pytest
import torch

from syncflow.config import OpenSoraVAEConfig, VideoTowerConfig
from syncflow.interop import opensora
from syncflow.models.video_tower import VideoTower
from syncflow.models.video_vae import VideoVAE

SPATIAL = {**miniature.SPATIAL, "block_out_channels": [4, 8]}
TEMPORAL = {
    **miniature.TEMPORAL, "channel_multipliers": [1, 2], "temporal_downsample": [True],
}  # fmt: skip
SMALL_TOWER = VideoTowerConfig(
    hidden_size=24, depth=2, num_heads=3, mlp_ratio=2.0, caption_channels=10, model_max_length=7
)


@pytest.fixture(scope="module")
def vae_state():
    torch.manual_seed(0)
    return VideoVAE(OpenSoraVAEConfig(spatial=SPATIAL, temporal=TEMPORAL)).state_dict()


@pytest.fixture(scope="module")
def tower_state():
    torch.manual_seed(0)
    return VideoTower(SMALL_TOWER).state_dict()


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


def test_other_rotary_frequencies_are_refused_and_rounded_ones_are_not(tower_state):
    rounded = tower_state["rope.freqs"].bfloat16().float()
    opensora.video_tower({**tower_state, "rope.freqs": rounded}, num_heads=3)
    with pytest.raises(ValueError, match="rope.freqs"):
        opensora.video_tower({**tower_state, "rope.freqs": rounded * 1.1}, num_heads=3)


def test_known_other_models_are_called_by_name():
    state = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="looks like a Stable Diffusion checkpoint"):
        opensora.video_tower(state)
    with pytest.raises(ValueError, match="looks like a Stable Diffusion checkpoint"):
        opensora.video_vae(state, SPATIAL, TEMPORAL)
