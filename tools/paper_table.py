"""Writes into docs/paper.md where the recommended configs are not the paper's, and why.

python tools/paper_table.py

Beside it go what one card and the other steps of the route take, from benchmarks/results.

Compares configs/NAME.json with configs/paper/NAME.json, defaults among them. A difference without a
reason in ``REASONS`` is an error, and so is a reason that nothing needs any more.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from syncflow.training import runner

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "paper.md"
NAMES = ("audio_vae", "stage1", "stage2", "stage3")
#: Where things lie is no setting.
_PLACES = {"out", "data", "validation", "init", "init_video"}

_LATER = "as in audiocraft, later code of Encodec's authors"
#: Why a recommended config is not the paper's, by setting.
REASONS = {
    "wave_weight": _LATER,
    "adversarial.start": "a discriminator learns nothing from sounds that anybody can tell apart",
    "adversarial.weight": _LATER,
    "adversarial.feature_weight": _LATER,
    "adversarial.update_share": _LATER,
    "samples_every": "for listening",
    "loop.steps": "half of Encodec's; not tried, go on with more if validation still falls",
    "loop.decay": "a last fall of the learning rate is worth many steps at a constant one",
    "loop.ema": "the averaged weights are what is kept",
    "clean_video": "one-pass video-to-audio and the cascade schedule begin from a finished picture",
    "clean_noise": "a sampler's latents are never exact, and the sound must not rely on it",
    "decoupled": "every schedule between joint and cascade meets times that differ",
    "conditioned": "image-to-video, extension and retakes are given frames",
    "draws": "the frozen tower's pass costs most of a step, and four sounds share it",
    "loss_weighting": "by its numbers the sound is 28 % of the loss, yet stage 2 trained it",
}


def differences() -> list[tuple[str, str, Any, Any]]:
    """(config, setting, the paper's value, the recommended one), in the order of the configs."""
    out = []
    for name in NAMES:
        ours, papers = (_flat(ROOT / "configs" / f"{where}{name}.json") for where in ("", "paper/"))
        for key in papers | ours:
            if papers.get(key) != ours.get(key):
                out.append((name, key, papers.get(key), ours.get(key)))
    return out


def table() -> str:
    """The differences as Markdown.

    Raises:
        ValueError: a difference has no reason, or a reason no difference.
    """
    found = differences()
    settings = dict.fromkeys(key for _, key, _, _ in found)
    if missing := [key for key in settings if key not in REASONS]:
        raise ValueError(f"tools/paper_table.py gives no reason for: {', '.join(missing)}")
    if idle := [key for key in REASONS if key not in settings]:
        raise ValueError(f"tools/paper_table.py gives reasons for what is the same: {idle}")
    lines = ["| setting | config | the paper | recommended | why |", "|---|---|---|---|---|"]
    for setting in settings:
        for name, key, paper, ours in found:
            if key == setting:
                cells = [f"`{key}`", f"{name}.json", _shown(paper), _shown(ours), REASONS[key]]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


#: A GeForce RTX 4090's dense bfloat16 TFLOP/s, and the share of them that is assumed.
_PEAK, _SHARE = 165.2, 0.4


def one_card() -> str:
    """Memory and predicted hours of configs/one_gpu, as Markdown."""
    counted = json.loads((ROOT / "benchmarks" / "results" / "counted.json").read_text())
    lines = [
        "| config | clips a step | steps | TFLOP a step | GiB | hours |", "|---" * 6 + "|",
    ]  # fmt: skip
    total = 0.0
    for name in ("stage1", "stage2", "stage3"):
        loop = runner.read(ROOT / "configs" / "one_gpu" / f"{name}.json").loop
        found = counted[f"one_gpu/{name}"]
        tflop = found["step"]["flops"] * loop.accumulate / 1e12
        hours = tflop * loop.steps / (_PEAK * _SHARE) / 3600
        total += hours
        peak = max(found["peak_gib"].values())
        file = f"[one_gpu/{name}.json](../configs/one_gpu/{name}.json)"
        cells = [file, loop.batch_size, f"{loop.steps:,}", f"{tflop:.1f}", f"{peak:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} | {hours:.1f} |")
    return "\n".join([*lines, f"| together | | | | | {total:.0f} |"])


def route() -> str:
    """GPU-hours and terabytes of the steps that train nothing, as Markdown."""
    found = json.loads((ROOT / "benchmarks" / "results" / "route-cost.json").read_text())
    return "\n".join(
        [
            "| step | of | H100-hours | TB |", "|---|---|---|---|",
            f"| `prepare` | {found['clips']:,} clips of 10 s, {found['windows']:,} windows | "
            f"{found['prepare_gpu_hours']:.1f} | {found['prepare_tb']:.2f} |",
            f"| sampling for `evaluate paper` | {found['sampled']:,} clips of 2 s, "
            f"{found['steps']} steps | {found['sample_gpu_hours']:.1f} | |",
        ]
    )  # fmt: skip


def _shown(value: Any) -> str:
    return "none" if value is None else str(value).replace("|", "\\|")


def _flat(path: Path) -> dict[str, Any]:
    values = json.loads(runner.read(path).model_dump_json())
    out: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                add(f"{prefix}.{key}" if prefix else key, each)
        elif prefix not in _PLACES:
            out[prefix] = value

    add("", values)
    return out


def filled() -> str:
    """The page with the tables of now."""
    path = ROOT / "tools" / "update_numbers.py"
    spec = importlib.util.spec_from_file_location("update_numbers", path)
    assert spec is not None and spec.loader is not None
    update = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(update)
    text = PAGE.read_text()
    for name, block in (("paper", table()), ("one_gpu", one_card()), ("route", route())):
        text, times = update.fill(text, name, block)
        if times != 1:
            raise ValueError(f"{PAGE} must have the comments {name}:begin and {name}:end once")
    return text


def main() -> int:
    try:
        text = filled()
    except (OSError, ValueError) as error:
        print(f"paper_table: {error}", file=sys.stderr)
        return 2
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
