"""Level 1 of the synthetic world: what it draws, plays and says agrees with the contact times
that it states.
"""

import numpy as np
import pytest

from syncflow import impacts

SEEDS = range(20)

# Data sets are made from level 1, so its captions, contacts, pictures and sounds are fixed for
# good.
FIXED = {
    0: (
        "a large orange glass ball drops onto floorboards and bounces 4 times",
        [0.148548, 0.8668297, 1.4004707, 1.8123858],
        63.046,
        47.796,
    ),
    1: (
        "Two bounces: an orange small glass ball on a carpeted floor.",
        [0.7404504, 1.7348769],
        49.103,
        47.259,
    ),
    2: ("an orange wooden ball hits a wood floor two times", [0.380542, 1.452271], 57.578, 20.698),
    10000000: (
        "Falling onto a wooden floor, the huge metallic ball bounces two times.",
        [0.8431982, 1.8257347],
        32.868,
        325.527,
    ),
    11000003: (
        "Watch a red little glass ball as it hits the floor one time.",
        [0.2328122],
        54.486,
        28.508,
    ),
}


@pytest.mark.parametrize("seed", FIXED)
def test_level_1_never_changes(seed):
    caption, times, picture, loudness = FIXED[seed]
    scene = impacts.sample_scene(seed)
    assert scene.caption == caption
    assert [c.time_s for c in scene.contacts] == pytest.approx(times, abs=1e-6)
    weights = np.arange(64 * 64).reshape(64, 64) / 64**2
    assert (impacts.render(scene)[7] * weights).mean() == pytest.approx(picture, abs=0.01)
    assert np.square(impacts.sound(scene)).sum() == pytest.approx(loudness, rel=1e-3)


def test_contacts_are_apart_and_inside_the_clip():
    for seed in SEEDS:
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
        touches = np.array([c.time_s for c in scene.contacts])
        near = np.abs(low[:, None] - touches)
        assert near.min(axis=1).max() < 0.06
        assert near.min(axis=0).max() < 1e-3
        assert min(x.min(), (1 - x).min(), (1 - y).min()) > thing.radius * 0.99


def test_the_lowest_pixels_of_the_thing_are_at_its_contacts():
    for seed in range(3):
        scene = impacts.sample_scene(seed, fps=60)
        video = impacts.render(scene, 64, 64).astype(float)
        moving = np.abs(video - np.median(video, axis=0)).max(axis=1) > 40
        rows = np.arange(64)[None, :, None]
        top = np.where(moving, rows, 64).min(axis=(1, 2))
        for contact in scene.contacts:
            frame = round(contact.time_s * 60)
            around = top[max(frame - 6, 0) : frame + 7]
            around = around[around < 64]
            assert top[frame] >= around.max() - 1


def test_the_sound_starts_at_the_contacts_to_less_than_a_millisecond():
    for seed in SEEDS:
        scene = impacts.sample_scene(seed)
        audio = impacts.sound(scene)
        first = scene.contacts[0].time_s
        heard = np.nonzero(np.abs(audio) > 1e-4)[0][0] / scene.sample_rate
        assert 0 <= heard - first < 1e-3
        for contact in scene.contacts:
            at = int(contact.time_s * scene.sample_rate)
            before, after = audio[at - 480 : at], audio[at : at + 480]
            assert np.square(after).sum() > 1.5 * np.square(before).sum()
        assert 10 ** (-10.01 / 20) <= np.abs(audio).max() <= 10 ** (-2.99 / 20)


def test_materials_sound_apart():
    def spectrum(seed):
        scene = impacts.sample_scene(seed)
        start = int(scene.contacts[0].time_s * scene.sample_rate)
        audio = impacts.sound(scene)
        power = np.abs(np.fft.rfft(audio[start : start + 9000])) ** 2
        hertz = np.fft.rfftfreq(9000, 1 / scene.sample_rate)
        bands = np.histogram(hertz, np.geomspace(60, 16000, 25), weights=power)[0]
        late = np.abs(audio[start + 4800 : start + 7200]).max()
        features = np.log(bands / bands.sum() + 1e-4)
        return scene.attributes["material"], np.append(features, 3 * np.log(late + 1e-3))

    known = [spectrum(seed) for seed in range(40)]
    unknown = [spectrum(seed) for seed in range(100, 120)]
    right = [
        material == min(known, key=lambda k: np.linalg.norm(k[1] - features))[0]
        for material, features in unknown
    ]
    assert np.mean(right) > 0.95


def test_every_count_and_material_is_about_as_frequent():
    scenes = [impacts.sample_scene(seed) for seed in range(400)]
    values = impacts.attribute_values(1)
    for name in ("count", "material"):
        for value in values[name]:
            assert 70 < sum(s.attributes[name] == value for s in scenes) < 130
