"""DeSync: the offset between sound and picture that Synchformer (Iashin et al., 2024) believes in.

Synchformer reads 14 segments of 0.64 s, one every 0.32 s: 4.8 s. A clip of 2 s has five, and no
number is defined for it: repeating them until there are 14, as some benchmarks do, measures the
seams. Shorter clips are refused.

The network is a TorchScript file: segments of picture [B,14,16,3,224,224] and of sound
[B,14,1,128,66] -> logits [B,21] over offsets of -2 .. 2 s. The published code is a research tree of
several networks that is not on the package index, and one trace of it says exactly what was run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from syncflow.clip import Clip
from syncflow.evaluation.metrics import metric
from syncflow.evaluation.metrics.metric import Mean, Metric, Pair, Result
from syncflow.evaluation.metrics.networks import loading

NAME = "Synchformer (synchformer.pt, TorchScript)"
FPS, RATE, SIZE = 25, 16000, 224
SEGMENTS, FRAMES, STEP = 14, 16, 8
SECONDS = (FRAMES + (SEGMENTS - 1) * STEP) / FPS
OFFSETS = torch.linspace(-2, 2, 21)
_MEL_MEAN, _MEL_STD, _MEL_FRAMES = -4.2677393, 4.5689974, 66


def pictures(clip: Clip) -> Tensor:
    """Segments [S, 16, 3, 224, 224] in [-1, 1] of 25 frames a second, one every 8 frames."""
    video = metric.resized(metric.picture(clip, FPS), SIZE) / 127.5 - 1
    return video.unfold(0, FRAMES, STEP).movedim(-1, 1)


def sounds(clip: Clip) -> Tensor:
    """Normalised log-mel segments [S, 1, 128, 66] of 0.64 s at 16 kHz, one every 0.32 s."""
    from torchaudio.transforms import MelSpectrogram

    length, step = (round(frames / FPS * RATE) for frames in (FRAMES, STEP))
    segments_SM = metric.sound(clip, RATE).unfold(0, length, step)
    mel = MelSpectrogram(RATE, n_fft=1024, win_length=400, hop_length=160, n_mels=128)
    values = torch.log(mel(segments_SM) + 1e-6)[..., :_MEL_FRAMES]
    values = F.pad(values, (0, _MEL_FRAMES - values.shape[-1]))
    return ((values - _MEL_MEAN) / (2 * _MEL_STD))[:, None]


class DeSync(Metric):
    """``DeSync``: mean |offset| in s over the first and the last 4.8 s of every clip; lower is
    better.

    ``allow_torchscript``: ``weights`` are a program, which runs only where this says so.
    """

    def __init__(
        self, weights: str | Path, device: str = "cpu", *, allow_torchscript: bool = False
    ) -> None:
        self.network = loading.script(weights, NAME, allow_torchscript).to(device)
        self.device = device
        self.mean = Mean()
        self.facts = {
            "network": "Synchformer, TorchScript",
            "weights": loading.digest(weights),
            "picture": f"{FPS} fps, {SIZE} px",
            "sample_rate": f"{RATE} Hz mono",
            "definition": f"|argmax| over {len(OFFSETS)} offsets, first and last {SECONDS:g} s",
        }

    @torch.inference_mode()
    def update(self, pairs: Sequence[Pair]) -> None:
        for clip in (pair.generated for pair in pairs):
            if clip.seconds < SECONDS - 1e-6:
                raise ValueError(
                    f"DeSync is not defined for clips of {clip.seconds:g} s: Synchformer reads "
                    f"{SECONDS:g} s at once, and a padded clip would measure its padding"
                )
            seen, heard = pictures(clip), sounds(clip)
            both = min(len(seen), len(heard))
            if both < SEGMENTS:
                raise ValueError(f"DeSync needs {SEGMENTS} segments, the clip has {both}")
            parts = [slice(0, SEGMENTS), slice(both - SEGMENTS, both)]
            logits = self.network(
                torch.stack([seen[part] for part in parts]).to(self.device),
                torch.stack([heard[part] for part in parts]).to(self.device),
            )
            if logits.shape != (2, len(OFFSETS)):
                shape = list(logits.shape)
                raise ValueError(f"Synchformer must give [2, {len(OFFSETS)}] logits, got {shape}")
            self.mean.add(float(OFFSETS[logits.argmax(-1).cpu()].abs().mean()))

    def results(self) -> list[Result]:
        return [Result("DeSync", self.mean.value(), "lower", self.mean.count, self.facts)]
