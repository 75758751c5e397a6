"""ImageBind scores: cosine between picture, sound and caption, for every pair the tables use.

Inputs as the release prepares them: of every window of 2 s, two frames (its first and last) with
the short side at 224 px in up to three crops, and 204 frames of 128 filter banks at 16 kHz; five
windows of a picture and three of a sound where a clip is longer than 2 s. A 2-s clip is one window.
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
from syncflow.evaluation.metrics.networks import imagebind as network
from syncflow.evaluation.metrics.networks import loading
from syncflow.published import NO_CODE

RATE, WINDOW, SIZE = 16000, 2.0, 224
BANDS, FRAMES = 128, 204
_PICTURE_WINDOWS, _SOUND_WINDOWS = 5, 3
_AUDIO_MEAN, _AUDIO_STD = -4.268, 9.138
_RGB_MEAN = (0.48145466, 0.4578275, 0.40821073)
_RGB_STD = (0.26862954, 0.26130258, 0.27577711)
#: Name in the tables -> which two are compared; (generated?, sense).
PAIRS = {
    "IB (Gen-A&Gen-V)": ((True, "audio"), (True, "vision")),
    "IB (Gen-A&GT-V)": ((True, "audio"), (False, "vision")),
    "IB (Gen-A&GT-T)": ((True, "audio"), (False, "text")),
    "IB (Gen-V&GT-T)": ((True, "vision"), (False, "text")),
    "IB (Gen-A&GT-A)": ((True, "audio"), (False, "audio")),
    "IB (GT-A&GT-V)": ((False, "audio"), (False, "vision")),
    "IB (GT-A&GT-T)": ((False, "audio"), (False, "text")),
    "IB (GT-V&GT-T)": ((False, "vision"), (False, "text")),
}


def starts(seconds: float, windows: int) -> list[float]:
    """Starts (s) of windows of ``WINDOW`` s, evenly over the clip; one where it is no longer."""
    room = seconds - WINDOW
    if room <= 1e-6:
        return [0.0]
    return [room * i / (windows - 1) for i in range(windows)]


def frames(clip: Clip) -> Tensor:
    """Crops of a clip's windows [K, 3, 2, SIZE, SIZE], normalised."""
    video, out = clip.video, []
    for start in starts(clip.seconds, _PICTURE_WINDOWS):
        first = round(start * clip.fps)
        last = min(first + round(WINDOW * clip.fps), len(video)) - 1
        pair = video[[first, max(first, last)]].float()
        height, width = pair.shape[2:]
        scale = SIZE / min(height, width)
        target = (max(SIZE, int(height * scale)), max(SIZE, int(width * scale)))
        pair = F.interpolate(pair, target, mode="bilinear", align_corners=False) / 255
        room = max(target) - SIZE
        # Where there is no room the three crops are one, and so is their mean.
        for offset in (0, -(-room // 2), room) if room else (0,):
            top, left = (offset, 0) if target[0] > target[1] else (0, offset)
            out.append(pair[..., top : top + SIZE, left : left + SIZE])
    crops = torch.stack(out).transpose(1, 2)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (_RGB_MEAN, _RGB_STD))
    return (crops - mean) / std


def banks(clip: Clip) -> Tensor:
    """Filter banks of a clip's windows [K, 1, BANDS, FRAMES], normalised."""
    from torchaudio.compliance.kaldi import fbank

    audio_M = metric.sound(clip, RATE)
    out = []
    for start in starts(len(audio_M) / RATE, _SOUND_WINDOWS):
        first = round(start * RATE)
        part = audio_M[first : first + round(WINDOW * RATE)]
        values = fbank(
            (part - part.mean())[None],
            htk_compat=True,
            sample_frequency=RATE,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=BANDS,
            dither=0.0,
            frame_length=25,
            frame_shift=10,
        ).T[:, :FRAMES]
        out.append(F.pad(values, (0, FRAMES - values.shape[1])))
    return (torch.stack(out)[:, None] - _AUDIO_MEAN) / _AUDIO_STD


class ImageBindScores(Metric):
    """All of ``PAIRS`` (or those given); higher is better.

    Args:
        weights: ``imagebind_huge.pth`` or another file of its layout.
        tokenizer: folder or hub id of CLIP's tokenizer (``openai/clip-vit-base-patch32``).
        names: which pairs; those with a real clip need one.
    """

    def __init__(
        self,
        weights: str | Path,
        tokenizer: str,
        names: Sequence[str] = tuple(PAIRS),
        device: str = "cpu",
    ) -> None:
        from transformers import CLIPTokenizer

        unknown = sorted(set(names) - set(PAIRS))
        if unknown:
            raise ValueError(f"unknown pair '{unknown[0]}'; known are {', '.join(PAIRS)}")
        self.network, self.device = network.load(weights).to(device), device
        try:
            self.tokenizer = CLIPTokenizer.from_pretrained(tokenizer, **NO_CODE)
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise FileNotFoundError(f"no CLIP tokenizer at '{tokenizer}': {reason}") from error
        self.means = {name: Mean() for name in names}
        self.facts = {
            "network": "ImageBind",
            "weights": loading.digest(weights),
            "picture": f"2 frames of every {WINDOW:g} s window, {SIZE} px",
            "sound": f"{RATE} Hz mono, {BANDS} filter banks x {FRAMES}",
            "definition": "cosine, mean over clips",
        }

    @torch.inference_mode()
    def update(self, pairs: Sequence[Pair]) -> None:
        wanted = {part for name in self.means for part in PAIRS[name]}
        for pair in pairs:
            vectors = {part: self._vector(pair, *part) for part in wanted}
            for name, mean in self.means.items():
                a, b = (vectors[part] for part in PAIRS[name])
                mean.add(float(F.cosine_similarity(a, b, dim=0)))

    def _vector(self, pair: Pair, generated: bool, sense: str) -> Tensor:
        if sense == "text":
            return self.network.text(self._tokens(pair.prompt)).mean(0)
        clip = pair.generated if generated else pair.truth("ImageBind")
        make, read = (
            (frames, self.network.vision) if sense == "vision" else (banks, self.network.audio)
        )
        return read(make(clip).to(self.device)).mean(0)

    def _tokens(self, text: str) -> Tensor:
        length = self.network.num_tokens
        ids = self.tokenizer(text, truncation=True, max_length=length)["input_ids"]
        return torch.tensor([ids + [0] * (length - len(ids))], device=self.device)

    def results(self) -> list[Result]:
        return [
            Result(name, mean.value(), "higher", mean.count, self.facts)
            for name, mean in self.means.items()
        ]
