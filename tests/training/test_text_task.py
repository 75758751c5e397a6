"""Captions that the text encoder learns to read."""

import pytest

from syncflow import impacts
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


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_colour_and_material_are_told_apart_where_asked(apart: float) -> None:
    made = task(apart=apart)
    texts, labels = made.batch(2)
    names = list(made.labels)
    said = labels >= 0
    both = said[:, names.index("colour")] & said[:, names.index("material")]
    either = said[:, names.index("colour")] | said[:, names.index("material")]
    if apart:
        # Some scenes cannot: a drum has no material that is named.
        assert both.float().mean() < 0.05 and either.float().mean() > 0.85
    else:
        assert both.float().mean() > 0.5
        scenes = [impacts.sample_scene(120 + i, [1, 3][i % 2], "train") for i in range(60)]
        assert texts == [scene.caption for scene in scenes]


def test_labels_are_what_the_caption_says() -> None:
    made = task(apart=1.0)
    texts, labels = made.batch(0)
    values = made.labels["colour"]
    column = list(made.labels).index("colour")
    rows = [(text.lower(), row[column]) for text, row in zip(texts, labels, strict=True)]
    named = [(text, values[label]) for text, label in rows if label >= 0]
    assert len(named) > 10 and all(colour in text for text, colour in named)


def test_validation_is_not_touched() -> None:
    seeds = impacts.SEEDS["val"][:20]
    assert task(apart=1.0)._captions(seeds)[0] == task()._captions(seeds)[0]
