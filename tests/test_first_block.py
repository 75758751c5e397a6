"""The first-block cache: what it leaves out, and what it may not change."""

from types import SimpleNamespace

import pytest
import torch

from syncflow.generation import first_block
from tests import small_model

PROMPTS = [small_model.PROMPT, "a red rubber ball falls", "a drum"]


@pytest.fixture(scope="module")
def model():
    return small_model.build()


def clips(model, prompts=PROMPTS, **options):
    return model.generate(prompts, progress=False, steps=4, audio_steps=None, **options)


def joined(made):
    """Pixels and samples of all clips, each between -1 and 1; the tiny model is very quiet."""
    loudest = max(c.audio.abs().max() for c in made)
    return torch.cat([torch.cat([c.video.flatten() / 255, c.audio / loudest]) for c in made])


class Counted:
    """Rows that went through every block of the picture and every layer of the sound."""

    def __init__(self, model):
        video, audio = model.ddit.video_tower, model.ddit.audio_tower
        pairs = zip(video.spatial_blocks, video.temporal_blocks, strict=True)
        blocks = [block for pair in pairs for block in pair]
        self.rows = {"video": [0] * len(blocks), "audio": [0] * len(audio.layers)}
        for name, parts in (("video", blocks), ("audio", audio.layers)):
            for index, part in enumerate(parts):
                part.register_forward_pre_hook(self.counting(name, index))

    def counting(self, name, index):
        def hook(module, arguments):
            self.rows[name][index] += len(arguments[0])

        return hook


@pytest.mark.parametrize("schedule", ["cascade", "joint"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"audio_takes": 2, "rank": None},
        {"guidance_start": 0.3, "guidance_end": 0.8},
        {"negative_audio_prompt": "speech"},
        {"image": torch.full((3, 32, 32), 90, dtype=torch.uint8)},
        {"solver": "heun"},
    ],
    ids=["plain", "takes", "interval", "negative", "image", "heun"],
)
def test_without_reuse_nothing_changes(model, schedule, more):
    plain = joined(clips(model, schedule=schedule, **more))
    for towers in ("both",) if more else ("video", "audio", "both"):
        cached = clips(model, schedule=schedule, cache=towers, cache_threshold=0.0, **more)
        assert (joined(cached) - plain).abs().max() < 5e-3  # a step of a pixel


def test_off_is_the_default_and_asks_for_no_cache(model, monkeypatch):
    plain = joined(clips(model))
    monkeypatch.setattr(first_block.CachedVelocity, "__init__", lambda *a, **k: 1 / 0)
    assert torch.equal(joined(clips(model, cache="off", cache_threshold=5.0)), plain)
    with pytest.raises(ZeroDivisionError):
        clips(model, cache="video")


@pytest.mark.parametrize("schedule", ["cascade", "joint"])
@pytest.mark.parametrize("towers", ["video", "audio", "both"])
def test_reuse_leaves_out_all_blocks_but_the_first(schedule, towers):
    model = small_model.build()
    counted = Counted(model)
    plain = clips(model, schedule=schedule)
    whole = {name: list(rows) for name, rows in counted.rows.items()}
    for rows in counted.rows.values():
        rows[:] = [0] * len(rows)
    cached = clips(model, schedule=schedule, cache=towers, cache_threshold=10.0)
    for name, rows in counted.rows.items():
        assert rows[0] == whole[name][0]
        if towers in (name, "both"):
            # Of four steps the first is whole; the cascade reads the finished picture once more.
            more = whole[name][0] - 4 * rows[-1] if name == "video" else 0
            assert rows[1:] == [rows[-1]] * len(rows[1:])
            assert rows[-1] < whole[name][-1] / 2 and more <= 0
        else:
            assert rows == whole[name]
    assert not torch.equal(joined(cached), joined(plain))


@pytest.mark.parametrize("schedule", ["cascade", "joint"])
@pytest.mark.parametrize("takes", [1, 2])
@pytest.mark.parametrize("towers", ["video", "audio"])
def test_a_clip_does_not_depend_on_its_batch(model, monkeypatch, schedule, takes, towers):
    """The prompts cross the threshold at different steps, so some rows are run and some not."""
    moved = []
    change = first_block.change
    monkeypatch.setattr(first_block, "change", lambda *a: (moved.append(change(*a)), moved[-1])[1])
    options = {"schedule": schedule, "cache": towers, "audio_takes": takes, "rank": None}
    clips(model, cache_threshold=0.0, **options)
    options["cache_threshold"] = float(moved[0].sort().values[:2].mean())
    together = clips(model, **options)
    alone = [
        clip
        for index, prompt in enumerate(PROMPTS)
        for clip in clips(model, [prompt], seed=index, **options)
    ]
    assert (joined(together) - joined(alone)).abs().max() < 5e-3


def test_change_is_measured_from_the_last_whole_pass_of_each_prompt():
    velocity = object.__new__(first_block.CachedVelocity)
    velocity.threshold, velocity._whole = 0.5, {}
    velocity.captions = SimpleNamespace(prompts=2)
    asked = []

    def others(rows):
        asked.append(rows)
        return (torch.zeros(2 if rows is None else len(rows), 1, 1),)

    # The second prompt moves away at the second step and is as near to it at the third.
    for first in ([1.0, 1.0], [1.1, 2.0], [1.2, 2.1], [1.6, 2.1]):
        velocity._passed("video", ("a",), torch.tensor(first).view(2, 1, 1), others)
    assert asked == [None, [1], [0]]


def test_change_is_of_every_prompt_over_its_captions_and_takes():
    old = torch.ones(2 * 3 * 2, 4, 5)
    new = old.clone()
    new[2:4] += 0.5  # prompt 1, both takes, the first of two groups
    new[10] -= 1.0  # prompt 2, one take of two, the other group
    assert torch.allclose(
        first_block.change(new, old, groups=2, prompts=3), torch.tensor([0.0, 0.25, 0.25])
    )
    assert first_block.change(old, torch.zeros_like(old), 2, 3).min() > 1e6


def test_mistakes_are_told(model):
    with pytest.raises(ValueError, match="unknown cache 'first'; known are off, video, audio"):
        clips(model, cache="first")
    with pytest.raises(ValueError, match="cache_threshold"):
        clips(model, cache="video", cache_threshold=-0.1)
