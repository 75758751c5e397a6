"""All levels of the synthetic world: reproducible, split cleanly, drawable at any size, and said
in good order.
"""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from syncflow import impacts
from syncflow.impacts import captions, materials, world

FINGERPRINT = """
import hashlib
from syncflow import impacts
h = hashlib.sha256()
for level in (1, 2, 3, 4):
    for seed in (3, 4, 11_000_005):
        scene = impacts.sample_scene(seed, level)
        h.update(repr(scene).encode())
        h.update(impacts.render(scene, 32, 32).tobytes())
        h.update(impacts.sound(scene).tobytes())
print(h.hexdigest())
"""


def test_a_seed_gives_the_same_bits_in_every_process_and_with_any_number_of_threads():
    seen = set()
    for threads, hashing in (("1", "1"), ("4", "2")):
        env = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": hashing}
        env["OPENBLAS_NUM_THREADS"] = threads
        seen.add(subprocess.check_output([sys.executable, "-c", FINGERPRINT], env=env))
    assert len(seen) == 1


@pytest.mark.parametrize("level", impacts.LEVELS)
def test_any_size_rate_and_length_can_be_made(level):
    for seed, (height, width, fps, seconds, rate) in enumerate(
        [(33, 47, 24, 1.0, 44100), (48, 20, 10, 2.5, 16000), (16, 16, 29.97, 1.3, 22050)] * 2
    ):
        scene = impacts.sample_scene(seed, level, None, seconds, fps, rate)
        video, audio = impacts.render(scene, height, width), impacts.sound(scene)
        assert video.shape == (round(seconds * fps), 3, height, width)
        assert video.dtype == np.uint8 and video.std() > 1
        assert audio.shape == (round(seconds * rate),) and audio.dtype == np.float32
        assert np.isfinite(audio).all() and 0.25 < np.abs(audio).max() <= 1
        assert all(0 <= c.time_s < seconds for c in scene.contacts)


@pytest.mark.parametrize("level", impacts.LEVELS)
def test_contacts_and_labels_of_a_level(level):
    values, seen = impacts.attribute_values(level), set()
    for seed in range(150):
        scene = impacts.sample_scene(seed, level)
        json.dumps(dataclasses.asdict(scene))
        seen.add(scene.attributes["kind"])
        assert all(scene.attributes[name] in values[name] for name in values)
        times = [c.time_s for c in scene.contacts if c.visible]
        assert all(b - a >= 0.2 for a, b in zip(times, times[1:], strict=False))
        more = scene.attributes.get("second", {"count": 0})["count"]
        assert len(times) == scene.attributes["count"] + more
        assert all(c.thing == -1 for c in scene.contacts if not c.visible)
    assert seen == set(values["kind"])


@pytest.mark.parametrize("level", impacts.LEVELS)
def test_visible_contacts_are_heard(level):
    for seed in range(12):
        scene = impacts.sample_scene(seed, level)
        audio = np.abs(impacts.sound(scene))
        for contact in scene.contacts:
            at = int(np.ceil(contact.time_s * scene.sample_rate))
            if contact.visible:
                assert audio[at : at + 960].max() > 1.1 * audio[at - 240 : at].max()


def test_a_stick_touches_what_it_strikes_only_at_the_contacts():
    checked = 0
    for seed in range(40):
        scene = impacts.sample_scene(seed, 2)
        if scene.attributes["kind"] != "strike":
            continue
        target, stick = scene.things
        time = np.linspace(0, 2, 4001)
        x, y, angle = stick.pose(time)
        tip = y + (2 * stick.stretch - 1) * stick.radius * np.sin(angle) - stick.radius
        high = tip - (target.pieces[0].y + target.radius)
        assert high.min() > -1e-3
        touches = np.array([c.time_s for c in scene.contacts])
        low = time[high < 2e-3]
        assert np.abs(low[:, None] - touches).min(axis=0).max() < 2e-3
        assert np.abs(low[:, None] - touches).min(axis=1).max() < 0.02
        checked += 1
    assert checked > 10


def test_no_two_clips_are_alike():
    scenes = [impacts.sample_scene(seed, level) for seed in range(12) for level in (1, 4)]
    videos = {hashlib.sha256(impacts.render(s, 16, 16).tobytes()).digest() for s in scenes}
    assert len(videos) == len(scenes)


@pytest.mark.parametrize("level", impacts.LEVELS)
def test_pairs_of_the_test_split_are_never_trained_on(level):
    def pairs(split, clips):
        for seed in impacts.SEEDS[split][:clips]:
            attributes = impacts.sample_scene(seed, level, split).attributes
            for thing in (attributes, attributes.get("second", attributes)):
                yield thing["colour"], thing["material"]

    kept = set(materials.pairs(level, True))
    assert 0.08 < len(kept) / len(kept | set(materials.pairs(level, False))) < 0.2
    assert not kept & (set(pairs("train", 300)) | set(pairs("val", 300)))
    share = np.mean([pair in kept for pair in pairs("test", 300)])
    assert 0.4 < share < 0.6


def test_balls_of_any_material_differ_from_their_scenes_in_that_alone():
    seen = set()
    for seed in range(800):
        scene = impacts.sample_scene(seed)
        made = impacts.of_any_material(scene)
        kept, other = made.attributes, scene.attributes
        assert kept | {"material": None} == other | {"material": None}
        assert made.things[0].material == kept["material"] == made.contacts[0].material
        assert [c.time_s for c in made.contacts] == [c.time_s for c in scene.contacts]
        assert made.stage == scene.stage and made.things[0].size == scene.things[0].size
        assert made == impacts.of_any_material(scene)
        changed = kept["material"] != other["material"]
        assert (made.caption != scene.caption) == (changed and "material" in kept["mentioned"])
        seen.add((kept["colour"], kept["material"]))
    assert seen == set(materials.pairs(2, kept=False, drums=False))
    with pytest.raises(ValueError, match="only a bounce can be varied, got 'strike'"):
        impacts.of_any_material(next(s for s in map(level_two, range(99)) if is_strike(s)))


def level_two(seed):
    return impacts.sample_scene(seed, 2)


def is_strike(scene):
    return scene.attributes["kind"] == "strike"


def test_the_test_split_has_phrasings_of_its_own_in_words_that_training_knows():
    for kind, patterns in captions.PATTERNS["test"].items():
        assert not set(patterns) & set(captions.PATTERNS["train"][kind])

    def words(split, clips):
        text = " ".join(
            impacts.sample_scene(seed, level).caption.lower()
            for seed in impacts.SEEDS[split][:clips]
            for level in (1, 4)
        )
        return set(re.findall(r"[a-z0-9-]+", text))

    named = {
        word
        for group in captions.WORDS.values()
        for phrases in group.values()
        for phrase in phrases
        for word in phrase.split()
    } | set(materials.COLOURS)
    assert words("test", 150) & named <= words("train", 900)


def test_captions_are_varied_short_and_true():
    said = []
    for seed in range(600):
        scene = impacts.sample_scene(seed, 1 + seed % 4)
        text, attributes = scene.caption.lower(), scene.attributes
        assert 0 < len(text) <= captions.MAX_LENGTH and "{" not in text and "  " not in text
        said += attributes["mentioned"]
        if "colour" in attributes["mentioned"]:
            assert attributes["colour"] in text
        if "material" in attributes["mentioned"] and attributes["material"] != "drum":
            assert any(w in text for w in captions.WORDS["material"][attributes["material"]])
    assert 0.85 < said.count("material") / 600 < 0.97
    assert 0.85 < said.count("count") / 600 < 0.97
    assert len({impacts.sample_scene(seed).caption for seed in range(600)}) > 580


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "-1"),
        ({"seed": 12_000_000}, "12000000"),
        ({"seed": 5, "split": "test"}, "belongs to the train split"),
        ({"seed": 5, "split": "dev"}, "dev"),
        ({"seed": 5, "level": 5}, "5"),
        ({"seed": 5, "seconds": 0.2}, "0.2"),
        ({"seed": 5, "fps": 0}, "fps"),
        ({"seed": 5, "sample_rate": 100}, "100"),
    ],
)
def test_impossible_scenes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        world.sample_scene(**arguments)


def test_tiny_pictures_are_refused():
    with pytest.raises(ValueError, match="8 x 64"):
        impacts.render(impacts.sample_scene(0), 8, 64)
