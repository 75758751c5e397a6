"""The report on extended clips tells a seamless continuation from one that jumps."""

import dataclasses

import pytest
import torch

from syncflow import impacts
from syncflow.clip import Clip
from syncflow.evaluation.probes.probe import ProbeSettings
from syncflow.evaluation.suites import systems
from syncflow.evaluation.times import continuation

CLIPS = 4


class Renderer:
    """Goes on as the world does, or, with ``broken``, with another scene and a louder sound."""

    def __init__(self, broken: bool) -> None:
        self.broken = broken
        self.long = {}
        for seed in impacts.SEEDS["val"][:CLIPS]:
            caption = impacts.sample_scene(seed, 1, "val").caption
            scene = impacts.sample_scene(seed, 1, "val", 4.0)
            self.long[caption] = systems.rendered(systems.case(scene), 64, 64)

    def generate(self, prompt, *, extend=None, retake=None, seconds=None, span=None, **options):
        if isinstance(prompt, list):
            return [self._first(p) for p in prompt]
        if retake is not None:
            audio = retake.audio.clone()
            audio[round(span[0] * 48000) : round(span[1] * 48000)] *= 0.5
            return dataclasses.replace(retake, audio=audio)
        whole = self.long[prompt]
        if self.broken:
            names = list(self.long)
            other = self.long[names[names.index(prompt) - 1]]
            video = torch.cat([extend.video, other.video[32:]])
            noise = 0.3 * torch.randn(96000, generator=torch.Generator().manual_seed(0))
            whole = Clip(video, torch.cat([extend.audio, noise]))
        return whole

    def _first(self, prompt):
        whole = self.long[prompt]
        return Clip(whole.video[:32], whole.audio[:96000])


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    few = (
        ProbeSettings(clips=8, held=4, epochs=1),
        ProbeSettings(clips=160, held=40, epochs=30, rate=1e-2),
    )
    out = tmp_path_factory.mktemp("continuation")
    return {
        broken: continuation.run(
            Renderer(broken), CLIPS, 4.0, "val", out / str(broken), probe_settings=few,
            progress=False,
        )
        for broken in (False, True)
    }  # fmt: skip


def test_the_worlds_own_continuation_is_as_good_as_real(reports):
    rows = {row["clips"]: row for row in reports[False]["rows"]}
    assert rows["extended, 2 to 4 s"] == rows["real, cut, 2 to 4 s"] | {
        "clips": "extended, 2 to 4 s"
    }
    assert rows["extended, 2 to 4 s"]["quiet seams"][0] >= 0.75
    whole = "extended, whole, 0 to 4 s"
    assert rows[whole] == rows["real, whole, 0 to 4 s"] | {"clips": whole}
    assert reports[False]["unchanged outside the span"] == 1


def test_a_jump_is_seen(reports):
    good, bad = (
        next(row for row in reports[broken]["rows"] if row["clips"] == "extended, 2 to 4 s")
        for broken in (False, True)
    )
    assert bad["quiet seams"][0] < good["quiet seams"][0]
    assert bad["place_px"][0] > good["place_px"][0] + 3
    assert bad["colour"][0] < good["colour"][0]
    assert bad["f1_50"][0] < good["f1_50"][0]


def test_lengths_that_are_no_windows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 or more times 2, got 3"):
        few = (ProbeSettings(clips=8, held=4, epochs=1),) * 2
        continuation.run(
            Renderer(False), CLIPS, 3.0, "val", tmp_path, progress=False, probe_settings=few
        )
