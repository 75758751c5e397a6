import pytest
import torch

from syncflow.clip import Clip
from syncflow.detect import envelopes
from syncflow.generation.choice import ranking


def late(clip: Clip, seconds: float) -> Clip:
    shift = round(seconds * clip.sample_rate)
    audio = torch.cat([torch.zeros(shift), clip.audio])[: len(clip.audio)]
    return Clip(clip.video, audio, clip.fps, clip.sample_rate)


def test_the_take_that_meets_the_picture_comes_first(clips):
    right = [clip for clip in clips if len(clip.audio)][:4]
    for clip in right:
        silent = Clip(clip.video, torch.zeros_like(clip.audio))
        order = ranking.ranked([late(clip, 0.3), silent, late(clip, 0.05), clip])
        assert torch.equal(order[0].audio, clip.audio)
        assert torch.equal(order[1].audio, late(clip, 0.05).audio)
        values = [take.scores["agreement"] for take in order]
        assert values == sorted(values, reverse=True) and values[0] > 0.85


def test_agreement():
    assert ranking.agreement([0.5, 1.0], [0.5, 1.0]) == 1
    assert ranking.agreement([0.5, 1.0], [0.55, 1.0]) == pytest.approx(0.75)
    assert ranking.agreement([0.5], []) == 0 and ranking.agreement([], []) == 1
    assert ranking.agreement([0.5], [0.5, 0.9]) == ranking.agreement([0.5, 0.9], [0.5])


def test_correlation_falls_when_the_sound_is_moved(clips):
    def value(clip):
        return envelopes.correlation(
            envelopes.picture(clip.video, clip.fps), envelopes.sound(clip.audio, clip.sample_rate)
        )

    mean = {d: sum(value(late(c, d)) for c in clips) / len(clips) for d in (0.0, 0.2)}
    assert mean[0.0] > mean[0.2] + 0.2
    flat = Clip(torch.zeros(32, 3, 64, 64, dtype=torch.uint8), torch.zeros(96000))
    assert value(flat) == 0 and len(envelopes.picture(flat.video[:2], 16)) == 12
