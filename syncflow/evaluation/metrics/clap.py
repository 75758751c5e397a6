"""CLAP score: does the sound say what the caption says (Wu et al., 2023).

Cosine of the text's and the sound's embedding in transformers' CLAP, a mean over clips. 48 kHz
mono; sounds longer than the network's window are cut, not cropped at random, so that a score is the
same every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch.nn import functional as F

from syncflow.evaluation.metrics import metric
from syncflow.evaluation.metrics.metric import Mean, Metric, Pair, Result
from syncflow.published import NO_CODE, without_code


class _Pooled(Protocol):
    """What some versions of transformers return in place of the vectors themselves."""

    pooler_output: torch.Tensor


class CLAP(Metric):
    """``CLAP``: Gen-A & GT-T; higher is better. ``folder``: a model folder or hub id, such as
    ``laion/clap-htsat-unfused``."""

    def __init__(self, folder: str, device: str = "cpu") -> None:
        from transformers import AutoProcessor, ClapModel

        try:
            with without_code(folder):
                self.network = ClapModel.from_pretrained(folder, **NO_CODE).eval().to(device)
                self.processor = AutoProcessor.from_pretrained(folder, **NO_CODE)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise FileNotFoundError(f"no CLAP model at '{folder}': {reason}") from error
        if self.network.config.audio_config.enable_fusion:
            raise ValueError(
                f"'{folder}' is a CLAP model with fusion, which looks at crops chosen at random: "
                "its scores differ from run to run; give one without, such as "
                "laion/clap-htsat-unfused"
            )
        self.device, self.mean = device, Mean()
        extractor = self.processor.feature_extractor
        self.rate = extractor.sampling_rate
        self.longest = int(extractor.max_length_s * self.rate)
        self.facts = {
            "network": "CLAP, transformers",
            "weights": str(folder),
            "sample_rate": f"{self.rate} Hz mono",
            "preprocessing": f"first {extractor.max_length_s:g} s, shorter ones as the model's "
            f"extractor pads ({extractor.padding})",
            "definition": "cosine of sound and caption, mean over clips",
        }

    @torch.inference_mode()
    def update(self, pairs: Sequence[Pair]) -> None:
        sounds = [metric.sound(p.generated, self.rate)[: self.longest].numpy() for p in pairs]
        heard = self.processor.feature_extractor(
            sounds, sampling_rate=self.rate, return_tensors="pt"
        )
        read = self.processor.tokenizer(
            [pair.prompt for pair in pairs], padding=True, truncation=True, return_tensors="pt"
        )
        audio = self.network.get_audio_features(**heard.to(self.device))
        text = self.network.get_text_features(**read.to(self.device))
        scores = F.cosine_similarity(_vectors(audio).float(), _vectors(text).float(), dim=-1)
        for score in scores.tolist():
            self.mean.add(score)

    def results(self) -> list[Result]:
        return [Result("CLAP", self.mean.value(), "higher", self.mean.count, self.facts)]


def _vectors(output: torch.Tensor | _Pooled) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.pooler_output
