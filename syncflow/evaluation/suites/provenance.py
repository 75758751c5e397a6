"""What a report was made with: the model and its weights, the date, the command, the machine."""

from __future__ import annotations

import datetime
import hashlib
import platform
import shlex
import sys
from pathlib import Path

import torch

from syncflow.evaluation.suites.systems import Model
from syncflow.model_io import fingerprint


def load_model(model: Model | str | Path | None) -> tuple[Model, dict[str, str]]:
    """A loaded model and what names it: its folder's name, a hash of its weights, and the hash that
    its clips' records name it by (``model_hash``, of its settings too)."""
    import syncflow

    loaded = syncflow.load(model) if model is None or isinstance(model, (str, Path)) else model
    folder = getattr(loaded, "folder", None)
    if folder is None:
        return loaded, {"model": getattr(loaded, "name", type(loaded).__name__)}
    weights = hashlib.sha256()
    for file in fingerprint.weights(Path(folder)):
        weights.update(file.read_bytes())
    name = "the model in the package" if model is None else Path(folder).name
    return loaded, {
        "model": name,
        "weights": weights.hexdigest()[:16],
        "model_hash": fingerprint.of(Path(folder)),
    }


def circumstances(command: str | None) -> dict[str, str]:
    """Date, command and machine, for a report's head."""
    program = Path(sys.argv[0]).name
    words = ["syncflow" if program == "__main__.py" else program, *sys.argv[1:]]
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = lines[0].split(":", 1)[1].strip() if lines else processor
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command or shlex.join(words),
        "machine": f"{processor}, {torch.get_num_threads()} threads, {device}, "
        f"torch {torch.__version__}",
    }
