"""Files what the parts of `benchmarks/gpu_lease.sh` measured, and writes the documents' tables.

    python -m benchmarks.gpu.collect DIR     DIR/PART.json -> benchmarks/results/DEVICE-PART.json
    python -m benchmarks.gpu.collect         the tables alone, from what is filed

A part that is filed already for the same device is replaced, but for the rows that DIR does not
have and that were measured with the same kernels.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.evidence import RESULTS, ROOT
from benchmarks.gpu.results import device_slug
from benchmarks.gpu.tables import pages

PARTS = ("correct", "fast", "compare", "train", "small")


def file_parts(folder: Path, results: Path = RESULTS) -> list[Path]:
    """Copies the parts in ``folder``; returns the files written."""
    written = []
    for part in PARTS:
        source = folder / f"{part}.json"
        if not source.exists():
            continue
        content = json.loads(source.read_text())
        if part == "train":
            content = _as_part(content, folder)
        environment = content["environment"]
        name = device_slug(str(environment.get("device", "cpu")))
        path = results / f"{name}-{part}.json"
        content["csrc_cuda"] = environment["csrc_cuda"]
        if path.exists():
            before = json.loads(path.read_text())
            if before["csrc_cuda"] == content["csrc_cuda"]:
                content["rows"] = {**before["rows"], **content["rows"]}
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(temporary, path)
        written.append(path)
    return written


def _as_part(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The table of training with the environment of another part of the same machine."""
    for other in ("fast", "correct", "compare"):
        path = folder / f"{other}.json"
        if path.exists():
            environment = json.loads(path.read_text())["environment"]
            return {"part": "train", "environment": environment, **content, "suite": "gpu"}
    raise ValueError(f"{folder} has train.json and no other part that says the machine")


def main() -> int:
    if len(sys.argv) > 2:
        print("usage: python -m benchmarks.gpu.collect [DIR]", file=sys.stderr)
        return 2
    if len(sys.argv) == 2:
        folder = Path(sys.argv[1])
        if not folder.is_dir():
            print(f"collect: error: no folder '{folder}'", file=sys.stderr)
            return 2
        written = file_parts(folder)
        if not written:
            print(f"collect: error: '{folder}' has none of {', '.join(PARTS)}", file=sys.stderr)
            return 2
        for path in written:
            print(path.relative_to(ROOT))
    for page, text in pages().items():
        page.write_text(text)
        print(page.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
