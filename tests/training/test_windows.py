"""Random windows of longer latents: the same moment of picture and sound, and exact resuming."""

from pathlib import Path

import numpy as np
import pytest
from made import assert_same, flow_config, told, whole_and_cut, write_latents

from syncflow.clip import ClipSpec
from syncflow.data.latents import Latents
from syncflow.training.settings import TrainConfig
from syncflow.training.tasks.flow import FlowTraining


@pytest.fixture(scope="module")
def latents(tmp_path_factory) -> Path:
    """8 clips of 4 s: 8 latent frames, two a second, and 40 audio latents, ten a second."""
    return write_latents(tmp_path_factory.mktemp("windows") / "latents", 8, seconds=4.0)


def test_windows_begin_where_picture_and_sound_have_a_latent_of_one_moment():
    starts = ClipSpec(seconds=10.0).windows(2.0)
    assert starts == [(2 * n, 25 * n) for n in range(17)]  # every half a second
    assert ClipSpec(seconds=9.92, fps=25).windows(2.0 + 0.08)[:2] == [(0, 0), (1, 8)]
    assert ClipSpec().windows(2.0) == [(0, 0)]
    with pytest.raises(ValueError, match="a window of 4 s is longer than clips of 2"):
        ClipSpec().windows(4.0)
    with pytest.raises(ValueError, match="multiple of 4 frames"):
        ClipSpec().windows(1.9)


def test_a_window_that_clips_cannot_have_is_named(latents):
    for window, reason in ((0.3, "multiple of 4 frames"), (6.0, "longer than clips of 4")):
        said = f"window is {window:g}, .*latents cannot have: .*{reason}.*multiple of 0.5 s, 4 at"
        with pytest.raises(ValueError, match=said):
            Latents(latents, window=window)


def test_a_window_is_a_piece_of_the_clip_from_another_place_every_time(latents):
    whole, parts = Latents(latents), Latents(latents, window=1.0)
    assert parts.spec.seconds == 1.0 and parts.spec.video_latent_shape[0] == 2
    rows, seen = np.arange(8), set()
    long, first = whole.read(rows, None), parts.batch(rows, None)
    assert first["video"].equal(long["video_mean"][:, :, :2].float())
    for seed in range(6):
        short = parts.read(rows, np.random.default_rng(seed))
        assert short["text"].equal(long["text"])
        for row in rows:
            places = [
                n for n in range(7)
                if short["video_mean"][row].equal(long["video_mean"][row][:, n : n + 2])
            ]  # fmt: skip
            assert len(places) == 1
            n = places[0]
            sound = long["audio_mean"][row][5 * n : 5 * n + 10]
            assert short["audio_mean"][row].equal(sound), "another moment than the picture's"
            seen.add(n)
    assert seen == set(range(7))


def test_a_run_on_windows_goes_on_bit_for_bit(latents, tmp_path):
    def config(out, loop):
        settings = {"randomness": "device", "log_every": 1, "prefetch": 2, **loop}
        return flow_config(latents, out, "both", settings, window=1.0)

    assert_same(*whole_and_cut(config, tmp_path))
    assert len(set(told(tmp_path / "whole", "loss"))) == 4


def test_the_model_sees_the_window_and_not_the_clip(latents, tmp_path):
    values = flow_config(latents, tmp_path / "run", window=1.0)
    training = FlowTraining(TrainConfig.parse({"run": values}).run)
    batch = training.batch(0)
    assert batch["video"].shape[2] == 2 and batch["bucket"].spec.seconds == 1.0
    assert training.plan.buckets[0].name == "32x32x8"
    whole = write_latents(tmp_path / "short", 4)  # fixed windows to validate on
    values = flow_config(latents, tmp_path / "run", window=1.0, validation=str(whole))
    assert len(FlowTraining(TrainConfig.parse({"run": values}).run).validation[0].latents) == 4
    with pytest.raises(ValueError, match="window of 8 s is longer than clips of 4"):
        values = flow_config(latents, tmp_path / "run", window=8.0)
        FlowTraining(TrainConfig.parse({"run": values}).run)
