"""The report on asked times tells a model that keeps to them from one that does not hear them."""

from types import SimpleNamespace

import pytest

from syncflow import impacts
from syncflow.evaluation.suites import systems
from syncflow.evaluation.times import asked

CLIPS = 6
SCENES = [impacts.sample_scene(seed, 1, "val") for seed in impacts.SEEDS["val"][:CLIPS]]


class Renderer:
    """Knows the scenes by their times; without times, or where it does not listen, it makes the
    clip of another scene."""

    def __init__(self, listens: bool, bins: int = 8) -> None:
        self.config = SimpleNamespace(ddit=SimpleNamespace(event_bins=bins))
        self.listens, self.calls = listens, []
        cases = [systems.case(scene) for scene in SCENES]
        self.times = [list(case.seen) for case in cases]
        self.clips = [systems.rendered(case, 64, 64) for case in cases]

    def generate(self, prompts, *, contacts=None, seed, **options):
        self.calls.append((list(prompts), contacts, seed))
        if contacts is None or not self.listens:
            first = seed - 1
            return [self.clips[(first + i) % CLIPS] for i in range(len(prompts))]
        return [self.clips[self.times.index(times)] for times in contacts]

    def reconstruct(self, clip):
        return clip


def rows(renderer, out):
    report = asked.run(renderer, CLIPS, "val", out, batch=4, progress=False)
    return {(row.pop("clips"), row.pop("events")): row for row in report["rows"]}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    out = tmp_path_factory.mktemp("contacts")
    found = {}
    for listens in (True, False):
        renderer = Renderer(listens)
        found[listens] = rows(renderer, out / str(listens)), renderer.calls
    assert "| told the times | onsets heard |" in (out / "True" / "contacts.md").read_text()
    return found


@pytest.mark.parametrize("events", ["contacts seen", "onsets heard"])
def test_a_model_that_keeps_to_the_times_is_as_good_as_real(told, events):
    obeying, _ = told[True]
    ours, real = obeying["told the times", events], obeying["real", events]
    assert ours == real == obeying["real, after the VAEs", events]
    assert ours["f1_50"][0] > 0.9 and ours["met"][0] >= 0.8 and ours["median_ms"][0] < 20
    chance = obeying["not told (chance)", events]
    assert chance["f1_50"][0] < 0.6 and chance["met"][0] < 0.2


@pytest.mark.parametrize("events", ["contacts seen", "onsets heard"])
def test_a_model_that_does_not_hear_them_has_chance(told, events):
    deaf, _ = told[False]
    assert deaf["told the times", events] == deaf["not told (chance)", events]
    assert deaf["told the times", events]["f1_100"][0] < deaf["real", events]["f1_100"][0] - 0.2


def test_every_prompt_is_told_its_own_times_and_chance_has_the_same_seeds(told):
    calls = told[True][1]
    asking, silent = calls[:2], calls[2:]
    assert [(prompts, seed) for prompts, _, seed in asking] == [
        (prompts, seed) for prompts, _, seed in silent
    ]
    assert [seed for _, _, seed in asking] == [0, 4]
    assert sum((times for _, times, _ in asking), []) == [
        [c.time_s for c in scene.contacts] for scene in SCENES
    ]
    assert [times for _, times, _ in silent] == [None, None]


def test_a_model_that_takes_no_times_is_refused_before_anything_is_made(tmp_path):
    renderer = Renderer(True, bins=0)
    with pytest.raises(ValueError, match=r"takes no times of contacts .*: evaluate a model"):
        asked.run(renderer, CLIPS, "val", tmp_path / "out", progress=False)
    assert not renderer.calls and not list(tmp_path.iterdir())
