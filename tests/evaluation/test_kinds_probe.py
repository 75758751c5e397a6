"""The probe of what happens: it learns it, and a clip of another kind is not wholly right."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from syncflow import impacts
from syncflow.evaluation.probes import kinds, looks
from syncflow.evaluation.probes.probe import ProbeSettings
from syncflow.evaluation.suites import rows, systems
from syncflow.evaluation.suites.systems import Observation

FEW = ProbeSettings(levels=(2,), clips=160, held=40, epochs=12, batch=16)


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    trained = kinds.load(tmp_path_factory.mktemp("probes"), FEW)
    assert trained is not None
    return trained


def test_a_probe_tells_strikes_from_bounces(probe) -> None:
    assert probe.accuracy >= 0.9, "guessing has about .5"
    scenes = [impacts.sample_scene(seed, 2, "test") for seed in impacts.SEEDS["test"][:24]]
    videos = [torch.from_numpy(impacts.render(scene, 64, 64)) for scene in scenes]
    told = kinds.predict(probe, videos)
    right = sum(a == s.attributes["kind"] for a, s in zip(told, scenes, strict=True))
    assert right >= 20, told
    # Neither size nor length is of a kind.
    large = [torch.from_numpy(impacts.render(scene, 96, 96))[::2] for scene in scenes[:8]]
    assert sum(a == b for a, b in zip(kinds.predict(probe, large), told[:8], strict=True)) >= 6


def test_a_level_of_one_kind_needs_no_probe(tmp_path) -> None:
    assert kinds.load(tmp_path, ProbeSettings(levels=(1,), clips=1, held=1)) is None
    assert not list(tmp_path.iterdir())


def test_only_pictures_have_a_kind() -> None:
    with pytest.raises(ValueError, match="uint8"):
        kinds.features(torch.zeros(4, 3, 8, 8))


def test_what_happens_counts_where_captions_are_of_several_kinds() -> None:
    case = next(case for case in systems.cases("val", 12, [2]) if case.kind == "strike")
    times = [0.3 + 0.3 * i for i in range(case.count or 1)]
    material, colour = case.material or "", case.colour or ""
    right = Observation(times, times, material, colour, 0.5, -20.0, -23.0, kind="strike")
    other = dataclasses.replace(right, kind="bounce")
    unread = dataclasses.replace(right, kind=None)
    assert rows.wholly_right(case, right) and rows.wholly_right(case, unread)
    assert not rows.wholly_right(case, other)
    found = rows.adherence([case, case], [right, other])
    assert found["kind"][0] == 0.5
    assert "kind" not in rows.adherence([case], [unread])
    assert rows.records([case], {"generated": [other]})[0]["found_kind"] == "bounce"
    assert "found_kind" not in rows.records([case], {"generated": [unread]})[0]


@pytest.mark.slow
def test_the_colour_of_what_a_stick_strikes_is_read(tmp_path) -> None:
    """The thing stands still, and the stick that moves has a colour of its own."""
    few = ProbeSettings(levels=(2,), clips=240, held=40, epochs=12, batch=16, rate=5e-3)
    trained = looks.load(tmp_path, few)
    assert trained.accuracy >= 0.7, "guessing has about .13"
    scenes = [impacts.sample_scene(seed, 2, "val") for seed in impacts.SEEDS["val"][40:90]]
    struck = [scene for scene in scenes if scene.attributes["kind"] == "strike"]
    videos = [torch.from_numpy(impacts.render(scene, 64, 64)) for scene in struck]
    found = looks.predict(trained, videos)
    right = sum(a == s.attributes["colour"] for a, s in zip(found, struck, strict=True))
    assert right >= 0.6 * len(struck), found
    large = [torch.from_numpy(impacts.render(scene, 128, 128)) for scene in struck[:6]]
    assert sum(a == b for a, b in zip(looks.predict(trained, large), found, strict=False)) >= 5


def test_four_moments_are_looked_at() -> None:
    video = torch.arange(32, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 96, 96)
    assert looks.moments(video)[:, 0, 0, 0].tolist() == [4, 12, 20, 28]
    assert looks.moments(video).shape == (4, 3, 64, 64)
    assert looks.moments(video[:1])[:, 0, 0, 0].tolist() == [0] * 4
    network = looks.LookNet(3).eval()
    assert network(torch.zeros(2, 4, 3, 64, 64, dtype=torch.uint8)).shape == (2, 3)
    with pytest.raises(ValueError, match="uint8"):
        looks.moments(video.float())
