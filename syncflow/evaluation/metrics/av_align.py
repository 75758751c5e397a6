"""AV-Align (Yariv et al., 2024): do peaks of sound and of motion fall on the same frames?

Onsets of librosa at 22,050 Hz, local maxima of the mean Farneback flow, a hit within one frame,
intersection over union: as its authors compute it, without the flow threshold or the one-to-one
matching that later copies added. It counts every wobble of the flow as an event, so read it beside
its value for shuffled soundtracks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from syncflow.evaluation.metrics import metric
from syncflow.evaluation.metrics.metric import Mean, Metric, Pair, Result

RATE = 22050
_FLOW = (0.5, 3, 15, 3, 5, 1.2, 0)  # Farneback: scale, levels, window, iterations, n, sigma, flags


def onsets(audio_M: Tensor) -> list[float]:
    """Onset times (s) of mono audio [M] at ``RATE``, librosa's defaults."""
    import librosa

    return list(librosa.onset.onset_detect(y=audio_M.numpy(), sr=RATE, units="time"))


def flow(video_FCHW: Tensor) -> np.ndarray:
    """Mean length (px) of the flow between neighbouring frames, the first one twice: [F]."""
    import cv2

    images = video_FCHW.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    if len(images) < 3:
        raise ValueError(f"AV-Align needs at least 3 frames, got {len(images)}")
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    lengths = [
        np.linalg.norm(cv2.calcOpticalFlowFarneback(a, b, None, *_FLOW), axis=-1).mean()
        for a, b in zip(grey, grey[1:], strict=False)
    ]
    return np.array([lengths[0], *lengths])


def peaks(values_F: np.ndarray, fps: float) -> list[float]:
    """Times (s) of the inner values that are greater than both neighbours."""
    inner = values_F[1:-1]
    return list((np.flatnonzero((inner > values_F[:-2]) & (inner > values_F[2:])) + 1) / fps)


def overlap(sounds: Sequence[float], motions: Sequence[float], fps: float) -> float:
    """Share of all peaks that are sounds with a motion less than one frame away; 0 without any."""
    hits = sum(any(abs(sound - motion) < 1 / fps for motion in motions) for sound in sounds)
    union = len(sounds) + len(motions) - hits
    return hits / union if union else 0.0


class AVAlign(Metric):
    """``AV-Align``; higher is better. ``shuffled`` also sets every picture beside the sound of
    another clip: ``AV-Align, shuffled``, which is chance. Which one follows from the clips alone,
    not from their batches or order."""

    def __init__(self, shuffled: bool = True) -> None:
        import cv2
        import librosa

        self.mean, self.shuffled = Mean(), shuffled
        self._seen: list[tuple[list[float], list[float], float]] = []
        self.facts = {
            "network": "none",
            "sample_rate": f"{RATE} Hz mono, librosa {librosa.__version__}",
            "picture": f"the clip's own frames, Farneback flow, OpenCV {cv2.__version__}",
            "definition": "intersection over union, within one frame, mean over clips",
        }

    def update(self, pairs: Sequence[Pair]) -> None:
        clips = [pair.generated for pair in pairs]
        sounds = [onsets(metric.sound(clip, RATE)) for clip in clips]
        motions = [peaks(flow(clip.video), clip.fps) for clip in clips]
        for index, clip in enumerate(clips):
            self.mean.add(overlap(sounds[index], motions[index], clip.fps))
            self._seen.append((sounds[index], motions[index], clip.fps))

    def results(self) -> list[Result]:
        means = {"AV-Align": self.mean}
        if self.shuffled and len(self._seen) > 1:
            means["AV-Align, shuffled"] = chance = Mean()
            seen = sorted(self._seen)
            for (_, motions, fps), (other, _, _) in zip(seen, seen[1:] + seen[:1], strict=True):
                chance.add(overlap(other, motions, fps))
        return [
            Result(name, mean.value(), "higher", mean.count, self.facts)
            for name, mean in means.items()
        ]
