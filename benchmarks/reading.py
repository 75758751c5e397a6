"""What a text encoder has read of a caption, by a linear probe on its states.

python -m benchmarks.reading --encoder apart=runs/impacts/text_apart --out reading.json

The probe sees the mean and the maximum of the states over the caption's tokens and learns, on 3000
captions of the training split, which material and which colour the caption names. It is asked on
400 validation captions and on 800 of the test split, familiar and held-out pairs of material and
colour apart. 95 % bootstrap intervals over captions.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from syncflow import impacts
from syncflow.detect import matching
from syncflow.evaluation.suites import provenance
from syncflow.impacts.materials import held_out
from syncflow.models.text.encoder import TextEncoder
from syncflow.training.tasks import export

#: By split: captions, and how many seeds of the split are left out before them. No encoder of
#: configs/impacts has trained on seeds as far out.
CAPTIONS = {"train": (3000, 200_000), "val": (400, 0), "test": (800, 0)}
NAMED = ("material", "colour")


def captions(split: str) -> tuple[list[str], list[Any]]:
    """Captions of level 1 and the attributes of their scenes."""
    count, after = CAPTIONS[split]
    seeds = impacts.SEEDS[split][after : after + count]
    scenes = [impacts.sample_scene(seed, 1, split) for seed in seeds]
    return [scene.caption for scene in scenes], [scene.attributes for scene in scenes]


@torch.inference_mode()
def features(encoder: TextEncoder, texts: list[str]) -> Tensor:
    """Mean and maximum of the states, [N, 2 C]."""
    found = []
    for first in range(0, len(texts), 128):
        states_BLC, mask_BL = encoder.encode(texts[first : first + 128])
        weight_BL1 = mask_BL[..., None].float()
        mean_BC = (states_BLC * weight_BL1).sum(1) / weight_BL1.sum(1)
        most_BC = states_BLC.masked_fill(weight_BL1 == 0, float("-inf")).amax(1)
        found.append(torch.cat([mean_BC, most_BC], 1))
    return torch.cat(found).float()


def probe(inputs_NC: Tensor, labels_N: Tensor, classes: int) -> torch.nn.Linear:
    """A linear classifier, fitted to the end with a little weight decay."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(inputs_NC.shape[1], classes)
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=200)

    def loss() -> Tensor:
        optimizer.zero_grad()
        wrong = torch.nn.functional.cross_entropy(linear(inputs_NC), labels_N)
        total: Tensor = wrong + 1e-5 * linear.weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return linear


def read(encoder: TextEncoder, data: dict[str, tuple[list[str], list[Any]]]) -> dict[str, Any]:
    """By attribute: the share that the probe gets right, [share, low, high, captions]."""
    inputs = {split: features(encoder, texts) for split, (texts, _) in data.items()}
    mean_C, spread_C = inputs["train"].mean(0), inputs["train"].std(0) + 1e-4
    inputs = {split: (x_NC - mean_C) / spread_C for split, x_NC in inputs.items()}
    found: dict[str, Any] = {}
    for name in NAMED:
        values = sorted({each[name] for each in data["train"][1]})
        labels = {
            split: torch.tensor([values.index(a[name]) if _says(a, name) else -1 for a in scenes])
            for split, (_, scenes) in data.items()
        }
        learned = labels["train"] >= 0
        linear = probe(inputs["train"][learned], labels["train"][learned], len(values))
        right = {split: _right(linear, inputs[split], labels[split]) for split in ("val", "test")}
        apart = [_says(a, *NAMED) and held_out(a["colour"], a["material"]) for a in data["test"][1]]
        pairs = list(zip(right["test"], apart, strict=True))
        found[name] = {
            "validation": _share(right["val"]),
            "test, familiar pairs": _share([each for each, held in pairs if not held]),
            "test, held-out pairs": _share([each for each, held in pairs if held]),
        }
    return found


def _says(attributes: Any, *names: str) -> bool:
    return set(names) <= set(attributes["mentioned"])


@torch.inference_mode()
def _right(linear: torch.nn.Linear, inputs_NC: Tensor, labels_N: Tensor) -> list[float]:
    """1 where the probe is right, 0 where it is wrong, nan where the caption says nothing."""
    right_N = (linear(inputs_NC).argmax(1) == labels_N).float()
    return right_N.where(labels_N >= 0, float("nan")).tolist()


def _share(right: list[float]) -> list[float]:
    said = [each for each in right if each == each]
    return [*matching.average(said), len(said)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = "trained runs or model folders, beside the package's own"
    parser.add_argument("--encoder", nargs="*", default=[], metavar="NAME=RUN", help=what)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    torch.set_num_threads(1)
    model, named = provenance.load_model(None)
    encoders = {"shipped": model.text_encoder}
    for entry in args.encoder:
        name, _, run = entry.partition("=")
        encoders[name] = export.load_part(run, "text_encoder").float()
    data = {split: captions(split) for split in CAPTIONS}
    command = f"python -m benchmarks.reading {shlex.join(sys.argv[1:])}"
    report = {
        "facts": {**named, **provenance.circumstances(command), "captions": "level 1"},
        "right": {name: read(encoder, data) for name, encoder in encoders.items()},
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["right"], indent=1))


if __name__ == "__main__":
    main()
