"""Level 1 of the synthetic world: what it draws, plays and says agrees with the contact times that it states."""

import numpy as np
import pytest

from syncflow.data import impacts

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_contacts_are_apart_and_inside_the_clip(seed):
    scene = impacts.sample_scene(seed)
    times = [c.time_s for c in scene.contacts]
    assert len(times) == scene.attributes["count"]
    assert times[0] >= 0.12 and times[-1] <= 1.85
    assert all(b - a >= 0.2 for a, b in zip(times, times[1:], strict=False))


def test_the_thing_touches_the_ground_exactly_at_its_contacts_and_stays_in_the_frame():
    for seed in SEEDS:
        scene = impacts.sample_scene(seed)
        thing = scene.things[0]
        time = np.linspace(0, 2.04, 4000)
        x, y, _ = thing.pose(time)
        bottom = y - thing.radius - scene.stage.ground
        assert bottom.min() > -1e-6
        low = time[bottom < 1e-2]
        assert all(min(abs(low - c.time_s)) < 1e-2 for c in scene.contacts)
        assert min(x.min(), (1 - x).min(), (1 - y).min()) > thing.radius * 0.99


def test_the_sound_starts_at_the_contacts():
    for seed in SEEDS:
        scene = impacts.sample_scene(seed)
        audio = impacts.sound(scene)
        first = scene.contacts[0].time_s
        heard = np.nonzero(np.abs(audio) > 1e-4)[0][0] / scene.sample_rate
        assert 0 <= heard - first < 1e-3
        for contact in scene.contacts:
            at = int(contact.time_s * scene.sample_rate)
            assert np.square(audio[at : at + 480]).sum() > 1.5 * np.square(audio[at - 480 : at]).sum()
        assert 10 ** (-10.01 / 20) <= np.abs(audio).max() <= 10 ** (-2.99 / 20)
