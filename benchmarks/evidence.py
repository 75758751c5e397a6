"""Timings of kernels as evidence: which kernels a file speaks of, and whether they still are.

A result file carries the hash of csrc/cuda or csrc/cpu. Wherever a document names one, the hash
must be that of the kernels beside it, or the line must say so with the words "older kernels".
"""

import hashlib
import json
import re
from pathlib import Path

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


def stale_quotes(root: Path = ROOT) -> list[str]:
    """One line for every mention, in README and docs, of a result of other kernels."""
    now = {f"csrc_{d}": source_hash(root / "csrc" / d) for d in ("cpu", "cuda")}
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
                if key and result[key] != now[key] and MARK not in line:
                    found.append(f'{where} is of other kernels (say "{MARK}" if it must stay)')
    return found
