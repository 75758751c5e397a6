"""The steps of `bash benchmarks/gpu_suite.sh` after the build, each a part of the result."""

import argparse
import datetime
import importlib
import json
import re
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.evidence import RESULTS, ROOT, source_hash
from benchmarks.gpu import op_table, small_shapes
from benchmarks.gpu.fields import ensure_pydantic
from benchmarks.gpu.timing import Clock, measure, sets_for
from syncflow.ops import native

STEPS = ("parity", "ceilings", "step", "blocks", "ops", "sanitizer")


def environment(device: torch.device) -> dict[str, object]:
    """What the numbers depend on; clocks are read, never set."""
    found = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "kernels": native.status(),
        "commit": _first_line(["git", "rev-parse", "HEAD"]),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["device"] = properties.name
        found["multiprocessors"] = properties.multi_processor_count
        query = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"
        found["nvidia_smi"] = _first_line(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv"], -1
        )
    return found


def _first_line(command: list[str], which: int = 0) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[which] if lines else None


def parity(clock: Clock, dry: bool) -> dict[str, object]:
    """The CUDA tests, the comparison of fragment maps among them."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/ops/test_cuda.py"]
    command += ["--collect-only"] if dry else []
    limit = max(30, min(150, clock.left() - 240))
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=limit)
    lines = done.stdout.strip().splitlines()
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if done.returncode:
        raise RuntimeError("; ".join([*failures[:5], lines[-1] if lines else done.stderr[-300:]]))
    return {"summary": lines[-1]}


def ceilings(device: torch.device, dry: bool) -> dict[str, float | None]:
    """The machine's own: bytes per second of a large copy, and of a matrix product's operations."""
    n = 1 << 20 if dry else 2 << 30
    source = torch.randint(0, 255, (n,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = measure([lambda: target.copy_(source)], dry)
    side = 64 if dry else 8192
    dtype = torch.float32 if dry else torch.bfloat16
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    out = torch.empty_like(a)
    product = measure([lambda: torch.mm(a, b, out=out)], dry)
    # As large as the operators' tensors: what a kernel of this size can reach.
    small = 1 << 16 if dry else 2 * 2048 * 1152 * 2
    sets = [
        (torch.randn(small // 4, device=device), torch.empty(small // 4, device=device))
        for _ in range(sets_for(2 * small, dry))
    ]
    copies = measure([lambda s=s: s[1].copy_(s[0]) for s in sets], dry)
    return {
        "copy_bytes_per_s": copy and 2 * n / copy.median * 1e6,
        "copy_9MB_bytes_per_s": copies and 2 * small / copies.median * 1e6,
        "bf16_matmul_flop_per_s": product and 2 * side**3 / product.median * 1e6,
    }


def sanitizer(clock: Clock, dry: bool) -> dict[str, str]:
    """compute-sanitizer over one small shape of every kernel."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    command = [sys.executable, "-m", "benchmarks.gpu.small_shapes"]
    if dry:
        small_shapes.run("cpu")
        return {"memcheck": "not run: dry run", "racecheck": "not run: dry run"}
    results = {}
    for name in ("memcheck", "racecheck"):
        if not Path(tool).exists():
            results[name] = "not run: compute-sanitizer is not installed"
            continue
        if clock.left() < 30:
            results[name] = "not run: out of time"
            continue
        try:
            done = subprocess.run([tool, "--tool", name, *command], cwd=ROOT, capture_output=True,
                                  text=True, timeout=clock.left() - 10)  # fmt: skip
        except subprocess.TimeoutExpired:
            results[name] = "not run: out of time"
            continue
        said = re.search(r"(ERROR|RACECHECK) SUMMARY: .*", done.stdout + done.stderr)
        results[name] = said.group(0) if said else "not run: " + (done.stderr.strip() or "?")[-120:]
        if said and not re.search(r"SUMMARY: 0 (errors|hazards)", said.group(0)):
            raise RuntimeError(f"{name}: {said.group(0)}")
    return results


def whole() -> types.ModuleType:
    """The table of blocks, whose models read configs."""
    ensure_pydantic()
    return importlib.import_module("benchmarks.gpu.block_table")


def summary(result: dict[str, object]) -> str:
    """The short table."""
    peak = (result.get("ceilings") or {}).get("copy_bytes_per_s")
    lines = [f"{'':34} {'pass':16} {'ours us':>9} {'eager':>9} {'compile':>9} {'% copy':>7}"]

    def cell(times: dict, name: str) -> str:
        value = times.get(name)
        return f"{value['median']:9.1f}" if isinstance(value, dict) else f"{'not run':>9}"

    parts = [(f"{r['op']} {r['shape']}", r) for r in result.get("ops") or []]
    parts += [(f"{r['block']} block", r) for r in result.get("blocks") or []]
    if result.get("step"):
        parts.append(("step, XL/2, guided", {**result["step"], "pass": "forward"}))
    for name, row in parts:
        ours, share = row["times"].get("ours"), ""
        if isinstance(ours, dict) and peak and "min_bytes" in row:
            share = f"{100 * row['min_bytes'] / ours['median'] * 1e6 / peak:.0f}"
        cells = " ".join(cell(row["times"], n) for n in ("ours", "eager", "compile"))
        lines.append(f"{name:34} {row['pass']:16} {cells} {share:>7}")
    for name, what in {**result["failed"], **(result.get("sanitizer") or {})}.items():
        lines.append(f"{name}: {what}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="walk every step on the CPU")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything, build included")
    parser.add_argument("--steps", default=",".join(STEPS), help="some of them, in this order")
    parser.add_argument("--started", type=float, default=time.time(), help=argparse.SUPPRESS)
    parser.add_argument("--build-seconds", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    dry = options.dry_run
    if not dry and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here; --dry-run walks the steps on a CPU")
    if not dry and not native.LOADED:
        parser.error(f"the compiled operators are not loaded: {native.status()['reason']}")
    if not dry and not native.status()["cuda_archs"]:
        parser.error("the CUDA kernels were not built; syncflow/_C.json says why")
    device = torch.device("cpu" if dry else "cuda")
    clock = Clock(options.started, options.minutes)
    torch.manual_seed(0)
    now = datetime.datetime.now(datetime.UTC)
    result: dict[str, object] = {
        "suite": "gpu",
        "date": now.isoformat(timespec="seconds"),
        "csrc": source_hash(ROOT / "csrc"),
        "csrc_cuda": source_hash(ROOT / "csrc" / "cuda"),
        "build_seconds": options.build_seconds,
        "failed": {},
    }
    unknown = set(options.steps.split(",")) - set(STEPS)
    if unknown:
        parser.error(f"no step is called {unknown.pop()!r}; there are {', '.join(STEPS)}")
    steps: dict[str, Callable[[], object]] = {
        "environment": lambda: environment(device),
        "parity": lambda: parity(clock, dry),
        "ceilings": lambda: ceilings(device, dry),
        "step": lambda: whole().step(device, clock, dry),
        "blocks": lambda: whole().table(device, clock, dry),
        "ops": lambda: op_table.table(device, clock, dry),
        "sanitizer": lambda: sanitizer(clock, dry),
    }
    for name, run in steps.items():
        if name != "environment" and name not in options.steps.split(","):
            continue
        begun = time.time()
        try:
            result[name] = run()
        except Exception as error:
            result["failed"][name] = f"{type(error).__name__}: {error}"[:600]
        print(f"{name}: {time.time() - begun:.0f} s {result['failed'].get(name, '')}".rstrip())
        if not dry:
            write(result, now)
            torch.cuda.empty_cache()
    print(summary(result))
    if not dry:
        print(f"written: {write(result, now).relative_to(ROOT)}")
    return 1 if result["failed"] else 0


def write(result: dict[str, object], now: datetime.datetime) -> Path:
    """To a temporary name, then renamed. What the same kernels gave earlier that day in other steps
    is kept."""
    device = (result.get("environment") or {}).get("device", "unknown")
    slug = re.sub(r"[^a-z0-9]+", "-", str(device).lower()).strip("-")
    path = RESULTS / f"{slug}-{now:%Y-%m-%d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text()) if path.exists() else {}
    if before.get("csrc_cuda") == result["csrc_cuda"]:
        failed = {k: v for k, v in before["failed"].items() if k not in result}
        result = {**before, **result, "failed": {**failed, **result["failed"]}}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(path)
    return path


if __name__ == "__main__":
    raise SystemExit(main())
