"""Captions that the text encoder learns to read."""

import numpy as np
import torch

from syncflow import impacts
from syncflow.impacts import captions, materials, unknown_words
from syncflow.training.settings import TrainConfig
from syncflow.training.tasks.text import TextTraining

MODEL = {
    "kind": "bytes", "max_length": 128, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1,
    "num_heads": 2, "pool": "word",
}  # fmt: skip


def task(**changes) -> TextTraining:
    config = {
        "task": "text", "out": "runs/none", "model": MODEL, "levels": [1, 3],
        "loop": {"steps": 1, "batch_size": 60}, **changes,
    }  # fmt: skip
    return TextTraining(TrainConfig.parse({"run": config}, "test").run)


def test_words_are_as_the_world_says_them_where_nothing_is_asked() -> None:
    texts, _ = task().batch(2)
    scenes = [impacts.sample_scene(120 + i, [1, 3][i % 2], "train") for i in range(60)]
    assert texts == [scene.caption for scene in scenes]


def test_unknown_words_take_the_company_of_an_attribute_but_not_the_attribute() -> None:
    made = task(unknown_words=1.0, levels=[1, 2, 3, 4])
    said, known = made.batch(2), task(levels=[1, 2, 3, 4]).batch(2)
    values, column = made.labels["colour"], list(made.labels).index("colour")
    colours = 0
    for text, row, before, all_of_them in zip(*said, *known, strict=True):
        legible = row >= 0
        assert torch.equal(row[legible], all_of_them[legible])
        assert legible.sum() <= (all_of_them >= 0).sum()
        named = {colour for colour in values if colour in text.lower().split()}
        if legible[column]:
            assert values[row[column]] in named
            colours += 1
        elif all_of_them[column] >= 0:  # hidden
            assert values[all_of_them[column]] not in named
        assert len(text.split()) == len(before.split())
    assert colours > 15
    changed = [a != b for a, b in zip(said[0], known[0], strict=True)]
    assert sum(changed) > 50


def test_unknown_words_are_in_the_share_of_captions_that_is_asked() -> None:
    plain = task(levels=[1, 2, 3, 4]).batch(1)[0]
    shares = []
    for share in (0.3, 1.0):
        texts = task(levels=[1, 2, 3, 4], unknown_words=share).batch(1)[0]
        shares.append(np.mean([a != b for a, b in zip(texts, plain, strict=True)]))
    assert 0.1 < shares[0] < 0.5 and shares[1] > 0.8


def test_unknown_words_are_no_words_of_the_world() -> None:
    phrases = [p for values in captions.WORDS.values() for each in values.values() for p in each]
    known = {word for phrase in phrases for word in phrase.split()} | set(materials.COLOURS)
    rng = np.random.default_rng(0)
    words = [unknown_words.unknown(rng) for _ in range(2000)]
    assert len(set(words)) > 1000 and not set(words) & known


def test_validation_is_not_touched() -> None:
    seeds = impacts.SEEDS["val"][:20]
    assert task(unknown_words=1.0)._captions(seeds)[0] == task()._captions(seeds)[0]
