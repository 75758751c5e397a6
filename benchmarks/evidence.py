"""Timings of kernels as evidence: which kernels a file speaks of, and whether they still are.

A result file carries the hash of csrc/cuda or csrc/cpu. Wherever a document names one, the hash
must be that of the kernels beside it, or the line must say so with the words "older kernels".
Kernels that were only laid out anew are the same: `python benchmarks/evidence.py --remember` before
clang-format runs notes the hash with that of the text without its spaces, in results/layout.json.

What a model measured carries the hash of its weights. Where a document names such a file, or the
page made from it, the weights must be those in the package, or the paragraph must say "older
weights"; the log tells what was, and is left out.

`python benchmarks/evidence.py` writes the tables of the CPU's timings into docs/benchmarks.md
and docs/log.md, between the comments kernels:begin and kernels:end.
"""

import hashlib
import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from syncflow.model_io import fingerprint

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MARK = "older kernels"
# By the kind of result, which hash decides.
_KERNELS = {"gpu": "csrc_cuda", "cpu": "csrc_cpu"}


def source_hash(folder: Path) -> str:
    """sha256 over the names and contents of a folder's C++ and CUDA files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".cu", ".cuh", ".cpp", ".h"):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def layout_free_hash(folder: Path) -> str:
    """The same without spaces and line ends: of what a formatter leaves as it is."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".cu", ".cuh", ".cpp", ".h"):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(re.sub(r"[\s\\]+", "", path.read_text()).encode() + b"\0")
    return digest.hexdigest()


def remember(root: Path = ROOT) -> None:
    """Notes the kernels as they are laid out now."""
    path = root / "benchmarks" / "results" / "layout.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for device in ("cpu", "cuda"):
        folder = root / "csrc" / device
        known[source_hash(folder)] = layout_free_hash(folder)
    path.write_text(json.dumps(known, indent=1) + "\n")


def is_current(root: Path, device: str, recorded: str) -> bool:
    """Whether a result with this hash is of the kernels that are there, layout aside."""
    folder = root / "csrc" / device
    if recorded == source_hash(folder):
        return True
    path = root / "benchmarks" / "results" / "layout.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    return recorded in known and known[recorded] == layout_free_hash(folder)


def kernels_hash(root: Path, device: str) -> str:
    """Of the kernels of "cpu" or "cuda"."""
    return source_hash(root / "csrc" / device)


def stale_quotes(root: Path = ROOT) -> list[str]:
    """One line for every mention, in README and docs, of a result of other kernels."""
    found = []
    for document in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        if not document.exists():
            continue
        for number, line in enumerate(document.read_text().splitlines(), 1):
            for name in re.findall(r"benchmarks/results/([\w.-]+\.json)", line):
                path = root / "benchmarks" / "results" / name
                where = f"{document.relative_to(root)}:{number}: {name}"
                if not path.exists():
                    found.append(f"{where} does not exist")
                    continue
                result = json.loads(path.read_text())
                key = _KERNELS.get(result.get("suite")) if isinstance(result, dict) else None
                device = key and key.removeprefix("csrc_")
                if key and not is_current(root, device, result[key]) and MARK not in line:
                    found.append(f'{where} is of other kernels (say "{MARK}" if it must stay)')
    return found


OLDER_WEIGHTS = "older weights"
#: Says the same of weights that were never shipped.
TRIAL = "not shipped"
# A page -> the result that it was made from.
_MADE_FROM = {"report/index.html": "suite-impacts-64/report.json"}


def shipped_weights(root: Path = ROOT) -> str:
    """The hash that reports give the model in the package (``provenance.load_model``)."""
    digest = hashlib.sha256()
    for file in fingerprint.weights(root / "syncflow" / "pretrained"):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def quotes_of_older_weights(root: Path = ROOT) -> list[str]:
    """One line for every paragraph of README, docs and model card that quotes other weights than
    the package's without saying so."""
    shipped, found = shipped_weights(root), []
    pages = [root / "README.md", root / "syncflow" / "pretrained" / "README.md"]
    pages += sorted((root / "docs").glob("*.md"))
    for page in pages:
        if not page.exists() or page.name == "log.md":
            continue
        for text in page.read_text().split("\n\n"):
            names = set(re.findall(r"benchmarks/results/([\w./-]+\.json)", text))
            names |= {made for link, made in _MADE_FROM.items() if f"]({link})" in text}
            weights = {name: _weights(root / "benchmarks" / "results" / name) for name in names}
            weights |= {f"- weights: {w}": w for w in re.findall(r"^- weights: (\w+)", text, re.M)}
            for name, recorded in sorted(weights.items()):
                said = OLDER_WEIGHTS in text or TRIAL in text
                if recorded not in (None, shipped) and not said:
                    where = page.relative_to(root)
                    found.append(f'{where}: {name} is of other weights (say "{OLDER_WEIGHTS}")')
    return found


def _weights(path: Path) -> str | None:
    """The hash in a result, where it has one."""
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    facts = result.get("facts", result) if isinstance(result, dict) else {}
    return facts.get("weights") if isinstance(facts, dict) else None


# Operator and shape -> what docs/benchmarks.md calls it.
CHOSEN = {
    ("temporal_attention", "2x8x64x6x32"): "temporal attention, norm and rotation with it, 8 frames"
    " of 64 places, width 192",
    ("temporal_attention", "1x8x256x16x72"): "the same at the paper's width, 1152, 256 places",
    ("gate_residual_adaln", "2x512x192"): "gate, residual, LayerNorm and modulation, 2 x 512 tokens"
    " of 192",
    ("bias_gelu", "1024x768"): "GELU, 1024 x 768",
    ("model", "shipped, 2 rows"): "a whole denoising pass of the shipped model",
}


def _ratios(result: dict) -> dict[tuple[str, str], dict[tuple[str, str], list[dict]]]:
    """By operator and shape, by dtype and pass: the rows of all rounds."""
    found: dict = {}
    for row in (row for rows in result["rounds"] for row in rows):
        place = found.setdefault((row["op"], row["shape"]), {})
        place.setdefault((row["dtype"], row["pass"]), []).append(row)
    return found


def _spread(rows: Sequence[dict]) -> str:
    """Lowest, median and highest ratio."""
    if not rows:
        return ""
    ratios = [row["ratio"] for row in rows]
    low, middle, high = (f"{n:.2f}" for n in (min(ratios), statistics.median(ratios), max(ratios)))
    return f"{low}, **{middle}**, {high}"


def full_table(result: dict) -> str:
    """Every operator and shape, in Markdown."""
    columns = [(t, p) for t in ("float32", "bfloat16") for p in ("fwd", "fwd+bwd")]
    lines = [
        "| operator | shape | forward, us | forward | with backward | bfloat16 | with backward |",
        "|---|---|---|---|---|---|---|",
    ]
    for (op, shape), rows in _ratios(result).items():
        times = [row["kernel_us"] for row in rows["float32", "fwd"]]
        cells = [op, shape, f"{statistics.median(times):,.0f}"]
        cells += [_spread(rows.get(column, [])) for column in columns]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def chosen_table(result: dict) -> str:
    """The medians of a few float32 rows, in Markdown."""
    found = _ratios(result)
    lines = ["| operator | forward | forward and backward |", "|---|---|---|"]
    for key, label in CHOSEN.items():
        medians = [
            statistics.median(row["ratio"] for row in rows) if rows else None
            for rows in (found[key].get(("float32", p), []) for p in ("fwd", "fwd+bwd"))
        ]
        cells = [label, *("" if n is None else f"{n:.2f}" for n in medians)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_tables(root: Path = ROOT) -> dict[Path, str]:
    """The documents as they read with the tables of the kept timings."""
    result = json.loads((root / "benchmarks" / "results" / "cpu-kernels.json").read_text())
    tables = {"docs/benchmarks.md": chosen_table(result), "docs/log.md": full_table(result)}
    pages = {}
    for name, table in tables.items():
        begin, end = "<!-- kernels:begin -->", "<!-- kernels:end -->"
        before, _, rest = (root / name).read_text().partition(begin)
        _, found, after = rest.partition(end)
        assert found, f"{name} has no {begin} ... {end}"
        pages[root / name] = f"{before}{begin}\n{table}\n{end}{after}"
    return pages


if __name__ == "__main__":
    if sys.argv[1:] == ["--remember"]:
        remember()
    else:
        for page, text in with_tables().items():
            page.write_text(text)
