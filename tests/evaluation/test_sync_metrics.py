"""The metrics of timing between picture and sound: AV-Align and DeSync."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import stand_ins
import torch
from test_metrics import shade, tone

from syncflow.clip import Clip
from syncflow.evaluation.metrics import (
    av_align,
    desync,
)
from syncflow.evaluation.metrics.metric import Pair

RATE, FPS = 48000, 16
# A program of our own.
DeSync = partial(desync.DeSync, allow_torchscript=True)


def hits(times, seconds=2.0, delay=0.0):
    """A square that jumps, and clicks, at ``times``."""
    video = torch.zeros(round(seconds * FPS), 3, 64, 64, dtype=torch.uint8)
    audio = torch.zeros(round(seconds * RATE))
    place = 8
    noise = torch.randn(2400, generator=torch.Generator().manual_seed(0)) * 0.3
    for f in range(len(video)):
        place += 10 * any(round(t * FPS) == f for t in times)
        video[f, :, 20:36, place : place + 16] = 255
    for t in times:
        first = round((t + delay) * RATE)
        audio[first : first + 2400] += noise * torch.exp(-torch.arange(2400) / 600)
    return Clip(video, audio)


@pytest.mark.slow  # librosa compiles itself when it is first used
def test_av_align():
    pytest.importorskip("librosa")
    pytest.importorskip("cv2")
    events = [(0.5, 1.0), (0.375, 1.25), (0.75, 1.5), (0.625, 1.125, 1.625)]
    scores = {}
    for delay in (0.0, 0.25):
        metric = av_align.AVAlign()
        metric.update([Pair(hits(t, delay=delay), None, "") for t in events])
        scores[delay] = {result.name: result.value[0] for result in metric.results()}
    assert scores[0.0]["AV-Align"] > 0.8
    assert scores[0.25]["AV-Align"] < 0.3
    # Soundtracks of other clips are chance, and must lie below.
    assert scores[0.0]["AV-Align, shuffled"] < scores[0.0]["AV-Align"] - 0.3


def test_av_align_by_hand():
    assert av_align.peaks(np.array([0, 1, 0, 2, 2, 0, 3]), 10) == [0.1]
    assert av_align.overlap([0.1, 0.5], [0.12, 0.9], 16) == 1 / 3
    assert av_align.overlap([], [], 16) == 0
    assert av_align.overlap([0.0625], [0.0], 16) == 0  # one whole frame away is a miss


def flash(at, late, seconds):
    """A bright moment ``at`` s and a loud one ``late`` s after it."""
    video = torch.zeros(round(seconds * 25), 3, 16, 16, dtype=torch.uint8)
    video[round(at * 25) : round(at * 25) + 8] = 255
    audio = torch.zeros(round(seconds * 16000))
    first = round((at + late) * 16000)
    audio[first : first + 5120] = 0.5 * torch.randn(5120)
    return Clip(video, audio, 25, 16000)


def test_desync(tmp_path):
    weights = stand_ins.script(stand_ins.Synchformer(), tmp_path)
    found = []
    for late in (0.0, 0.64, 1.28):
        metric = DeSync(weights)
        metric.update([Pair(flash(1.0, late, 4.8), None, "")])
        found.append(metric.results()[0].value[0])
    assert found == pytest.approx([0.0, 0.6, 1.2], abs=0.25) and found == sorted(found)
    early, late = flash(0.6, 0.0, 4.8), flash(1.9, 0.0, 4.8)
    swapped = [replace(early, audio=late.audio), replace(late, audio=early.audio)]
    metric = DeSync(weights)
    metric.update([Pair(clip, None, "") for clip in swapped])
    assert metric.results()[0].value[0] == pytest.approx(1.3, abs=0.25), "soundtracks exchanged"
    with pytest.raises(ValueError, match=r"not defined for clips of 2 s: Synchformer reads 4\.8 s"):
        DeSync(weights).update([Pair(Clip(shade(0), tone(0)), None, "")])
