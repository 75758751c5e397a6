"""Training of XL/2 on one GPU: the plain loop and DeepSpeed's ZeRO 1 and 3, stages 2 and 3.

    python -m benchmarks.gpu.train_table --out FOLDER
    python -m benchmarks.gpu.train_table --out FOLDER --tiny      the same rows, small, on a CPU too

Every row is measured by a process of its own (train_row.py), so that one that fails or hangs costs
no other, and stands in FOLDER/<row>.json from the moment it was measured. Rows that are there are
skipped: the same command goes on where it was stopped. FOLDER/train.json joins them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PREDICTED = Path(__file__).with_name("train_predicted.json")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    ``batch`` clips a pass on this GPU, ``draws`` sounds for each; ``steps`` measured. ``gpus`` > 1
    couples noise with the batch that so many GPUs would gather, the others' made up.
    """

    stage: int
    engine: str
    batch: int
    draws: int = 1
    recompute: str = "none"
    coupling: str = "none"
    gpus: int = 1
    steps: int = 20
    profile: bool = False


#: By name, the most telling first. The paper's batches are 16 (stage 2) and 2 (stage 3) a GPU.
ROWS = {
    "stage2_plain": Row(2, "plain", 16, profile=True),
    "stage3_plain": Row(3, "plain", 2, profile=True),
    "stage2_zero1": Row(2, "zero1", 16),
    "stage3_zero1": Row(3, "zero1", 2),
    "stage3_zero3": Row(3, "zero3", 2, profile=True),
    "stage2_zero1_draws4": Row(2, "zero1", 16, draws=4, steps=8),
    "stage2_zero3": Row(2, "zero3", 16, steps=10),
    "stage2_zero1_draws4_ot32": Row(2, "zero1", 16, draws=4, coupling="ot", gpus=32, steps=8),
    "stage2_plain_draws4_blocks": Row(2, "plain", 16, draws=4, recompute="blocks", steps=6),
    "stage3_plain_selective": Row(3, "plain", 2, recompute="selective", steps=8),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the rows, one small file each")
    add("--joined", type=Path, help="all rows in one file (default: train.json in --out)")
    add("--tiny", action="store_true", help="configs/tiny in place of XL/2, 3 steps a row")
    add("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    add("--seconds", type=float, default=130, help="no row starts after that")
    add("--row-seconds", type=float, default=60, help="a row that takes longer is ended")
    add("--rows", help="some of them, in this order, with commas between")
    add("--retry", action="store_true", help="measure again the rows that failed")
    options = parser.parse_args()
    names = options.rows.split(",") if options.rows else list(ROWS)
    for name in names:
        if name not in ROWS:
            print(
                f"train_table: error: no row {name!r}; there are {', '.join(ROWS)}", file=sys.stderr
            )
            return 2
    options.out.mkdir(parents=True, exist_ok=True)
    return _Table(options, names).run()


class _Table:
    """The rows of one call, measured one after another."""

    def __init__(self, options: argparse.Namespace, names: list[str]) -> None:
        self.options, self.begun = options, time.monotonic()
        self.names = names
        self.joined = options.joined or options.out / "train.json"
        device = options.device or ("cuda" if _has_gpu() else "cpu")
        self.environment = _environment(device)
        self.device = device
        # Imports take as long as a measurement: the next rows' processes have theirs done by then.
        self.ahead = 2 if (os.cpu_count() or 1) >= 8 else 1
        self.waiting: dict[str, subprocess.Popen] = {}

    def run(self) -> int:
        todo = [name for name in self.names if not self._done(name)]
        try:
            for index, name in enumerate(todo):
                left = self.options.seconds - (time.monotonic() - self.begun)
                if left <= 0:
                    print(f"{name}: not run, {self.options.seconds:.0f} s are over")
                    break
                for later in todo[index : index + 1 + self.ahead]:
                    self._start(later)
                self._measure(name)
        finally:
            for process in self.waiting.values():
                process.kill()
                process.wait()
        self._join()
        found = [_read(self._path(name)) for name in self.names]
        return 0 if all(row is not None and "error" not in row for row in found) else 1

    def _path(self, name: str) -> Path:
        return self.options.out / f"{name}.json"

    def _done(self, name: str) -> bool:
        row = _read(self._path(name))
        return row is not None and not (self.options.retry and "error" in row)

    def _start(self, name: str, reference: bool = False) -> None:
        """A process that has everything imported and waits for its turn."""
        if name in self.waiting:
            return
        command = [sys.executable, "-m", "benchmarks.gpu.train_row", name]
        command += ["--out", str(self.options.out), "--device", self.device]
        command += ["--tiny"] if self.options.tiny else []
        environment = self.environment | ({"SYNCFLOW_OPS": "reference"} if reference else {})
        # What the process writes before its turn is its result too: that it cannot begin.
        self._path(name).unlink(missing_ok=True)
        log = (self.options.out / f"{name}.log").open("ab")
        self.waiting[name] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment,
        )
        log.close()

    def _measure(self, name: str) -> None:
        row = self._turn(name)
        # A kernel that fails must not hide what the engine can do.
        if "error" in row and row.get("kernels") and not row.get("out_of_memory"):
            self._start(name, reference=True)
            again = self._turn(name)
            if "error" not in again:
                again["error_with_kernels"] = row["error"]
                write(self._path(name), again)
                row = again
        self._join()
        print(f"{name}: {_summary(row)}", flush=True)

    def _turn(self, name: str) -> dict[str, Any]:
        """Lets a waiting process measure and returns its row."""
        process, path = self.waiting.pop(name), self._path(name)
        try:
            process.stdin.write(b"go\n")
            process.stdin.close()
            process.wait(self.options.row_seconds)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            process.kill()
            process.wait()
        row = _read(path)
        if row is None:
            log = (self.options.out / f"{name}.log").read_text(errors="replace")
            why = f"ended with {process.returncode} and without a result"
            row = {
                "row": name,
                "error": f"{why} (limit {self.options.row_seconds:g} s)",
                "log": log[-1500:],
            }
            write(path, row)
        return row

    def _join(self) -> None:
        """All rows in one file, the losses of a stage held against its plain loop's."""
        rows = {}
        for name in ROWS:
            row = _read(self._path(name))
            if row is not None:
                rows[name] = row
        predicted = _read(PREDICTED) or {}
        for name, row in rows.items():
            row["predicted"] = predicted.get("rows", {}).get(name)
            plain = rows.get(f"stage{ROWS[name].stage}_plain", {})
            if ROWS[name].draws == ROWS[f"stage{ROWS[name].stage}_plain"].draws:
                row["against_plain"] = agreement(row.get("losses"), plain.get("losses"))
        write(self.joined, {"suite": "train_table", "tiny": self.options.tiny, "rows": rows})


def agreement(losses: list[float] | None, others: list[float] | None) -> dict[str, float] | None:
    """The largest relative difference of two runs' losses, step by step, and how many steps."""
    if not losses or not others:
        return None
    pairs = list(zip(losses, others, strict=False))
    return {
        "steps": len(pairs),
        "largest_relative_difference": max(abs(a - b) / max(abs(b), 1e-12) for a, b in pairs),
    }


def write(path: Path, value: Any) -> None:
    """JSON under a temporary name, then renamed: a file is whole when it appears."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(temporary, path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return None


def _summary(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"FAILED: {row['error'][:300]}"
    mfu = "" if row["mfu"] is None else f", MFU {row['mfu']:.3f}"
    return (
        f"{row['samples_per_second']:.2f} samples/s, {1e3 * row['step_seconds']['median']:.0f} ms"
        f" a step{mfu}, {row['memory_gib']['peak']:.1f} GiB, loss {row['losses'][-1]:.4f}"
    )


def _has_gpu() -> bool:
    """Without PyTorch, whose import takes seconds here."""
    return any(Path(path).exists() for path in ("/dev/nvidia0", "/proc/driver/nvidia/version"))


def _environment(device: str) -> dict[str, str]:
    """What the rows' processes are started with."""
    cores = os.cpu_count() or 1
    out = {**os.environ, "DS_ACCELERATOR": device, "PYTHONUNBUFFERED": "1"}
    out.setdefault("OMP_NUM_THREADS", str(max(1, min(8, cores // 2))))
    out["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), out.get("PYTHONPATH"))))
    # All five, or DeepSpeed asks MPI.
    out |= {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29517",
    }
    for folder in ("/usr/local/cuda", *sorted(map(str, Path("/usr/local").glob("cuda-*")))):
        if (Path(folder) / "bin" / "nvcc").exists():
            out.setdefault("CUDA_HOME", folder)
    return out


if __name__ == "__main__":
    raise SystemExit(main())
