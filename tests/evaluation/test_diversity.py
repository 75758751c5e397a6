"""The report on diversity tells a model that repeats itself from one that is as varied as real."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from syncflow import impacts
from syncflow.evaluation.suites import diversity, systems

CLIPS, DRAWS = 5, 3
SCENES = [impacts.sample_scene(seed, 1, "val") for seed in impacts.SEEDS["val"][:CLIPS]]


@pytest.fixture(scope="module")
def world():
    """Of each caption as many clips as are drawn, other than those that they are compared with."""
    return {
        scene.caption: [
            systems.rendered(systems.case(other), 64, 64)
            for other in islice(impacts.alike(scene, first=700_000), DRAWS)
        ]
        for scene in SCENES
    }


class Renderer:
    """Draws as the world does, always the same clip, or with noise of its own in the picture."""

    def __init__(self, how, world) -> None:
        self.how, self.world = how, world

    def generate(self, prompts, *, seed, **options):
        draw = 0 if self.how == "same" else seed // CLIPS
        return [self._clip(prompt, draw, seed + i) for i, prompt in enumerate(prompts)]

    def _clip(self, prompt, draw, seed):
        clip = self.world[prompt][draw]
        if self.how != "noisy":
            return clip
        noise = 80 * torch.randn(clip.video.shape, generator=torch.Generator().manual_seed(seed))
        return replace(clip, video=(clip.video + noise).clamp(0, 255).to(torch.uint8))

    def reconstruct(self, clip):
        return clip


@pytest.fixture(scope="module")
def shares(tmp_path_factory, world):
    out = tmp_path_factory.mktemp("diversity")
    reports = {
        how: diversity.run(
            Renderer(how, world), CLIPS, DRAWS, "val", out / how, batch=8, progress=False
        )
        for how in ("world", "same", "noisy")
    }
    assert "variance of pixels" in (out / "same" / "diversity.md").read_text()
    return {how: {row["clips"]: row for row in report["rows"]} for how, report in reports.items()}


def test_the_world_is_as_varied_as_itself(shares):
    rows = shares["world"]
    assert rows["real, after the VAEs"]["picture"] == [1, 1, 1]
    assert rows["generated"]["picture"][0] == pytest.approx(1, abs=0.35)
    assert rows["generated"]["sound"][0] == pytest.approx(1, abs=0.25)
    assert 0.3 < rows["generated"]["first_contact"][0] < 3


def test_one_clip_again_and_again_has_no_diversity_and_noise_too_much(shares):
    assert all(shares["same"]["generated"][name][0] < 1e-6 for name in diversity.VARIANCES)
    assert shares["noisy"]["generated"]["picture"][0] > 1.5


def test_alike_scenes_fit_the_caption_and_differ_in_the_rest():
    for scene in SCENES:
        others = list(islice(impacts.alike(scene), 4))
        for other in others:
            assert other.split == "val" and other.seed != scene.seed
            for name in scene.attributes["mentioned"]:
                assert other.attributes[name] == scene.attributes[name]
        assert len({other.contacts[0].time_s for other in others}) == 4


def test_one_draw_is_no_diversity(tmp_path):
    with pytest.raises(ValueError, match="draws must be at least 2"):
        diversity.run(Renderer("same", {}), CLIPS, 1, "val", tmp_path, progress=False)


def test_an_unknown_split_is_named(tmp_path):
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'x'"):
        diversity.run(Renderer("same", {}), CLIPS, DRAWS, "x", tmp_path, progress=False)
