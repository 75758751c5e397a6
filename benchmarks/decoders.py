"""Video decoders compared on the same sampled latents, clip by clip.

python -m benchmarks.decoders --split val --clips 384 --cache runs/decoders.pt \
    --decoder late=runs/impacts/video_decoder_late --out decoders.json

Latents and sounds of the first captions of a split are drawn once by the model in the package, from
seeds 0, 1, 2 ..., and kept in --cache; every decoder then draws the same pictures. The material is
that of the sound, which no decoder changes, so wholly right is here without material and colour.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import syncflow
from syncflow.detect import contacts, matching, onsets
from syncflow.evaluation.suites import provenance, rows, systems
from syncflow.models.latent_space import decode_video
from syncflow.training.tasks import export

_BATCH, _DRAWS = 16, 2000


def sampled(model: Any, cases: list[systems.Case], cache: Path) -> dict[str, Tensor]:
    """Normalised latents ``lat`` [N, ...] and sounds ``aud`` [N, M]; what is cached is kept."""
    parts = [torch.load(cache)] if cache.exists() else []
    done = sum(len(part["lat"]) for part in parts)
    for first in range(done, len(cases), _BATCH):
        seen: dict[str, Tensor] = {}

        def keep(step: int, x: Any, t: Any, seen: dict[str, Tensor] = seen) -> None:
            seen["lat"] = x[0]

        chosen = [case.prompt for case in cases[first : first + _BATCH]]
        clips = model.generate(chosen, seed=first, progress=False, callback=keep)
        sounds = torch.stack([clip.audio for clip in clips])
        parts.append({"lat": seen["lat"].clone(), "aud": sounds})
        parts = [{key: torch.cat([part[key] for part in parts]) for key in ("lat", "aud")}]
        torch.save(parts[0], cache)
    return {key: value[: len(cases)] for key, value in parts[0].items()}


def weights_hash(module: torch.nn.Module) -> str:
    """Of a module's weights, by name and value."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.float().numpy().tobytes())
    return digest.hexdigest()[:16]


def judged(
    seen: list[list[float]], heard: list[list[float]], cases: list[systems.Case]
) -> dict[str, np.ndarray]:
    """What each clip comes to, [N] each; ``hits`` and ``events`` make the F1 at 50 ms."""
    met = [rows.every_event_matched(a, b) for a, b in zip(seen, heard, strict=True)]
    count = [c.count is None or len(a) == c.count for a, c in zip(seen, cases, strict=True)]
    hits = [len(matching.match(a, b, 0.05)) for a, b in zip(seen, heard, strict=True)]
    return {
        "whole": np.array(met) & np.array(count),
        "all_matched": np.array(met),
        "count_picture": np.array(count),
        "no_contact": np.array([not a for a in seen]),
        "hits": np.array(hits),
        "events": np.array([len(a) + len(b) for a, b in zip(seen, heard, strict=True)]),
    }


def numbers(found: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, float]:
    """The table of a decoder over some clips."""
    means = {k: float(v[chosen].mean()) for k, v in found.items() if k not in ("hits", "events")}
    return means | {"f1_50": float(2 * found["hits"][chosen].sum() / found["events"][chosen].sum())}


def paired(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """b - a with 95 % bootstrap intervals over clips, which both share."""
    count = len(a["whole"])
    rng = np.random.default_rng(0)

    def difference(chosen: np.ndarray) -> dict[str, float]:
        first, second = numbers(a, chosen), numbers(b, chosen)
        return {key: second[key] - first[key] for key in first}

    value = difference(np.arange(count))
    draws = [difference(rng.integers(0, count, count)) for _ in range(_DRAWS)]
    return {
        key: [value[key], *matching.interval(np.array([draw[key] for draw in draws]))]
        for key in value
    }


def _rounded(times: list[list[float]]) -> list[list[float]]:
    return [[round(time, 4) for time in each] for each in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--clips", type=int, default=384)
    parser.add_argument("--cache", type=Path, required=True)
    what = "trained runs or model folders, beside the base's own"
    parser.add_argument("--decoder", nargs="+", required=True, metavar="NAME=RUN", help=what)
    parser.add_argument("--base", help="a model folder in place of the package's")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    torch.set_num_threads(1)
    model, named = provenance.load_model(args.base)
    cases = systems.cases(args.split, args.clips, [1])
    drawn = sampled(model, cases, args.cache)
    heard = [onsets.times(sound, 48000) for sound in drawn["aud"]]
    vaes = {"base": model.video_vae}
    for entry in args.decoder:
        name, _, run = entry.partition("=")
        vaes[name] = export.load_part(run, "video_vae").float()
    seen: dict[str, list[list[float]]] = {}
    for name, vae in vaes.items():
        draw: Callable[[Tensor], Tensor] = lambda x, vae=vae: decode_video(vae, x, model._video, 32)  # noqa: E731
        with torch.inference_mode():
            seen[name] = [contacts.times(draw(latent), 16.0) for latent in drawn["lat"]]
    found = {name: judged(times, heard, cases) for name, times in seen.items()}
    everything = np.arange(len(cases))
    command = f"python -m benchmarks.decoders {shlex.join(sys.argv[1:])}"
    report = {
        "facts": {**named, **provenance.circumstances(command), "clips": len(cases),
                  "split": args.split, "syncflow": syncflow.__version__,
                  "decoder weights": {name: weights_hash(vae) for name, vae in vaes.items()}},
        "decoders": {name: numbers(each, everything) for name, each in found.items()},
        "minus base": {n: paired(found["base"], each) for n, each in found.items() if n != "base"},
        "contacts": {name: _rounded(times) for name, times in seen.items()},
        "onsets": _rounded(heard),
    }  # fmt: skip
    args.out.write_text(json.dumps(report) + "\n")
    print(json.dumps({k: report[k] for k in ("decoders", "minus base")}, indent=1))


if __name__ == "__main__":
    main()
