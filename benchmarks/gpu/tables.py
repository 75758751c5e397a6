"""The tables that documents quote of the measurements on a GPU, written from the kept files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.evidence import MARK, ROOT, is_current

#: The device whose figures the documents quote, as the files are named.
DEVICE = "nvidia-h200"
NOT_RUN = "not run"


def kept(part: str, root: Path = ROOT) -> dict[str, Any]:
    """The file of a part; no rows where there is none."""
    path = root / "benchmarks" / "results" / f"{DEVICE}-{part}.json"
    return json.loads(path.read_text()) if path.exists() else {"rows": {}, "environment": {}}


def pages(root: Path = ROOT) -> dict[Path, str]:
    """The documents as they read with the tables of the kept files."""
    made = {
        "README.md": [("gpu", headline(root))],
        "docs/benchmarks.md": [
            ("gpu-whole", whole(root)),
            ("gpu-operators", operators(root)),
            ("gpu-attention", attention(root)),
            ("gpu-training", training(root)),
        ],
    }
    texts = {}
    for name, parts in made.items():
        text = (root / name).read_text()
        for mark, table in parts:
            begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
            before, found, rest = text.partition(begin)
            _, closed, after = rest.partition(end)
            assert found and closed, f"{name} has no {begin} ... {end}"
            text = f"{before}{begin}\n{table}\n{end}{after}"
        texts[root / name] = text
    return texts


def _row(rows: dict[str, Any], name: str) -> dict[str, Any]:
    row = rows.get(name)
    return row if isinstance(row, dict) and "error" not in row else {}


def _number(value: Any, form: str = ".3g") -> str:
    return NOT_RUN if value is None else f"{value:{form}}"


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def machine(part: dict[str, Any]) -> str:
    """One line: device, PyTorch, date."""
    found = part["environment"]
    if not found:
        return NOT_RUN
    return f"{found.get('device')}, PyTorch {found.get('torch')}, {found.get('date', '')[:10]}"


def age(part: dict[str, Any], root: Path = ROOT) -> str:
    """Says so where the kernels have changed since."""
    recorded = part.get("csrc_cuda")
    current = recorded is None or is_current(root, "cuda", recorded)
    return "" if current else f"; of {MARK}: some were added or changed since"


def _decoder_before(rows: dict[str, Any]) -> str:
    """Says so where the decoder was the one without fused group norms."""
    kernels = _row(rows, "decode xl2 kernels").get("kernels")
    if not kernels or any("syncflow" in kernel["name"] for kernel in kernels):
        return ""
    return ";\nthe decoder was the one before its norms were fused, the fused one: not run on a GPU"


def headline(root: Path = ROOT) -> str:
    """The README's paragraph."""
    fast = kept("fast", root)
    rows = fast["rows"]
    if not rows:
        return "**GPU status:** nothing here has been measured on a GPU yet."
    long, short = _row(rows, "generate xl2 50 steps"), _row(rows, "generate xl2 8 unguided")
    eager, own = _row(rows, "generate xl2 50 steps eager"), _row(rows, "generate shipped")
    tests = _row(kept("correct", root)["rows"], "tests")
    return (
        f"**On a GPU** ({machine(fast)}{age(fast, root)}{_decoder_before(rows)}):\nthe shipped "
        "model makes a two-second clip in "
        f"{_number(own.get('seconds'), '.2f')} s. XL/2, the paper's size, with random weights and "
        "cached text, decoding\nincluded, makes 256x256 video and sound in "
        f"{_number(long.get('seconds'), '.2f')} s at 50 guided steps "
        f"({_number(eager.get('seconds'), '.1f')} s without the CUDA graph of the step) and in "
        f"{_number(short.get('seconds'), '.2f')} s at 8 unguided\nones. The kernels' tests there: "
        f"{tests.get('summary', NOT_RUN).split(' in ')[0]}. Tables and commands: "
        "[docs/benchmarks.md](docs/benchmarks.md#on-a-gpu). On several GPUs\nnothing has run yet."
    )


def whole(root: Path = ROOT) -> str:
    """Steps and clips."""
    part = kept("fast", root)
    rows = part["rows"]
    limits = _row(rows, "ceilings")
    names = {
        "xl2": "XL/2, 256x256, guided step",
        "shipped": "shipped model, 64x64, guided step",
    }
    lines = []
    for key, label in names.items():
        eager, graph = _row(rows, f"step {key} eager"), _row(rows, f"step {key} graph")
        plain = _row(rows, f"step {key} reference operators")
        lines.append(
            [
                label,
                _number(plain.get("ms"), ".1f"),
                _number(eager.get("ms"), ".1f"),
                _number(graph.get("ms"), ".2f"),
                _number(graph.get("replays_ms"), ".2f"),
            ]
        )
    steps = _table(
        ["ms", "plain operators, eager", "eager", "CUDA graph, loop", "CUDA graph, replays alone"],
        lines,
    )
    labels = {
        "generate xl2 50 steps": "XL/2, 50 guided steps",
        "generate xl2 50 steps eager": "XL/2, 50 guided steps, without graphs",
        "generate xl2 8 unguided": "XL/2, 8 unguided steps",
        "generate shipped": "shipped model, its own settings",
        "generate shipped eager": "shipped model, without graphs",
    }
    clips = _table(
        ["two-second clip", "s", "first call, s", "real-time factor", "peak GiB"],
        [
            [
                label,
                _number(row.get("seconds"), ".3f"),
                _number(row.get("seconds_first"), ".2f"),
                _number(row.get("real_time_factor"), ".2f"),
                _number(row.get("peak_gib"), ".1f"),
            ]
            for key, label in labels.items()
            for row in [_row(rows, key)]
        ],
    )
    product = limits.get("bf16_matmul_flop_per_s")
    stream = limits.get("kernel_bytes_per_s")
    note = f" ({limits['note']})" if limits.get("note") else ""
    least = _row(rows, "step xl2 eager").get("ms_least")
    return (
        f"{machine(part)}. Measured rates: {_number(product and product / 1e12, '.0f')} TFLOP/s "
        "of a large bf16 product under the device's power cap, "
        f"{_number(stream and stream / 1e12, '.2f')} TB/s of a kernel that reads and writes"
        f"\n{note.strip()}.\nRandom weights for XL/2, cached text of 300 tokens; decoding and "
        "the copy to the host are included in clips, the first call captures\nthe graphs "
        f"([nvidia-h200-fast.json](../benchmarks/results/nvidia-h200-fast.json){age(part, root)})."
        "\n\n"
        f"{steps}\n\n{clips}\n\n"
        "Eager rows are bound by the host and vary: the least of XL/2's eager steps took "
        f"{_number(least, '.0f')} ms."
    )


def _median(times: dict[str, Any], name: str) -> float | None:
    found = times.get(name)
    return found["median"] if isinstance(found, dict) else None


def operators(root: Path = ROOT) -> str:
    """Every operator and shape."""
    part, compiled = kept("fast", root), kept("compare", root)["rows"]
    rows = part["rows"]
    stream = _row(rows, "ceilings").get("kernel_bytes_per_s")
    lines = []
    for key, row in rows.items():
        if not key.startswith("op ") or "error" in row:
            continue
        _, name, shape, passes = key.split(" ", 3)
        times = row["times"]
        ours, eager = _median(times, "ours"), _median(times, "eager")
        other = _median(_row(compiled, f"compile {key[3:]}").get("times", {}), "compile")
        share = stream and ours and row["min_bytes"] / ours * 1e6 / stream
        lines.append(
            [
                name,
                shape,
                passes,
                _number(ours),
                _number(eager),
                _number(_median(times, "sdpa")) if "sdpa" in times else "",
                _number(other),
                _number(share and 100 * share, ".0f"),
            ]
        )
    head = ["operator", "shape", "pass", "ours, us", "eager", "by SDPA", "torch.compile"]
    head.append("% of stream")
    return (
        f"{machine(part)}{age(part, root)}.\nbf16, medians of graph replays over rotating inputs. "
        "The last column is the least that must move, over the time, as a share of the\nmeasured "
        "streaming rate; small tensors stay in the cache and can exceed it. By SDPA: temporal "
        "attention alone.\nApex and Liger, for the adaLN family: not run (not installed).\n\n"
        + _table(head, lines)
    )


def attention(root: Path = ROOT) -> str:
    """Attention by backend, and products."""
    part = kept("fast", root)
    rows = part["rows"]
    backends = ["sdpa", "sdpa flash", "sdpa cudnn", "sdpa efficient"]
    lines = []
    for key, row in rows.items():
        if key.startswith("attention ") and "error" not in row:
            times = [_median(row["times"], name) for name in backends]
            lines.append([key[10:], *(_number(t, ".1f") for t in times)])
    first = _table(["attention, us", *backends], lines)
    kinds = ["linear", "linear, gelu inside", "linear, gelu after", "float8 by row"]
    lines = []
    for key, row in rows.items():
        if key.startswith("product ") and "error" not in row:
            times = [_median(row["times"], name) for name in kinds]
            speed = row["flop"] / times[0] / 1e6 if times[0] else None
            cells = [_number(t, ".1f") for t in times]
            lines.append([key[8:], *cells, _number(speed, ".0f")])
    second = _table(["product, us", *kinds, "linear, TFLOP/s"], lines)
    note = "flash-attn 2 and 3 and xformers: not run (not installed)."
    return f"{machine(part)}. {note}\n\n{first}\n\n{second}"


def training(root: Path = ROOT) -> str:
    """Stages 2 and 3 of XL/2."""
    part = kept("train", root)
    recorded = part.get("csrc_cuda")
    lines: list[list[str]] = []
    others: list[str] = []
    draws: set[str] = set()
    for name, row in part["rows"].items():
        if "error" in row:
            lines.append([name.replace("_", " "), *["failed"] * 6])
            continue
        agreed = {} if row.get("engine") == "plain" else row.get("against_plain") or {}
        difference = agreed.get("largest_relative_difference")
        draws.add(str(row.get("draws")))
        if row.get("csrc_cuda", recorded) != recorded:
            others.append(name.replace("_", " "))
        lines.append(
            [
                name.replace("_", " "),
                str(row["batch"]),
                _number(row["samples_per_second"], ".2f"),
                _number(1e3 * row["step_seconds"]["median"], ".0f"),
                _number(row["mfu"] and 100 * row["mfu"], ".1f"),
                _number(row["memory_gib"]["peak"], ".1f"),
                "" if row.get("engine") == "plain" else _number(difference, ".1g"),
            ]
        )
    head = ["XL/2, one GPU", "batch", "samples/s", "ms a step", "MFU, %", "peak GiB"]
    head.append("largest relative difference of the losses to plain")
    if not lines:
        return "Not run yet."
    earlier = ""
    if others:
        earlier = (
            f" {', '.join(others)}: of an earlier build than the file's (each row has its own "
            "`csrc_cuda`)."
        )
    return (
        f"{machine(part)} ([nvidia-h200-train.json](../benchmarks/results/nvidia-h200-train.json)"
        f"{age(part, root)}).\nDraws of noise a clip: {', '.join(sorted(draws))}.{earlier}\n"
        f"ZeRO 3, several GPUs, torch.compile: not run.\n\n{_table(head, lines)}"
    )
