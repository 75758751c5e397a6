"""What is installed and what this machine can run: the facts behind ``syncflow info``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import warnings
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "diffusers", "av", "safetensors", "deepspeed", "xformers")


def collect(attention: bool = False) -> dict[str, Any]:
    """Versions, device, compiled kernels and the shipped model, as plain JSON values.

    attention: also the backends of attention that can be imported, which takes seconds.
    """
    import torch

    import syncflow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of is said in the line about kernels
        from syncflow.ops import native

    facts: dict[str, Any] = {"syncflow": syncflow.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = None
    facts["torch"] = torch.__version__  # with the build tag that the metadata leaves out
    facts["cuda"] = torch.version.cuda
    facts["devices"] = [
        f"cuda:{index} {torch.cuda.get_device_name(index)}"
        for index in range(torch.cuda.device_count())
    ] or [f"cpu ({os.cpu_count()} cores, {torch.get_num_threads()} threads)"]
    facts["kernels"] = native.status()
    if attention:
        from syncflow.ops import attention_backends

        facts["attention"] = attention_backends.status()
    model = Path(syncflow.__file__).parent / "pretrained"
    weights = sorted(model.rglob("*.safetensors"))
    facts["model"] = {
        "path": str(model) if weights else None,
        "megabytes": round(sum(file.stat().st_size for file in weights) / 1e6, 1),
    }
    return facts


def table(facts: dict[str, Any]) -> str:
    """``facts`` as aligned lines."""
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if name == "devices":
            rows += [("device", device) for device in value]
        elif name == "kernels":
            rows.append(("kernels", _kernels(value)))
        elif name == "attention":
            rows += [(f"attention {backend}", found) for backend, found in value.items()]
        elif name == "model":
            found = f"{value['path']} ({value['megabytes']} MB)"
            rows.append(("model", found if value["path"] else "none in this installation"))
        elif name == "cuda":
            rows.append((name, value or "none (CPU build of PyTorch)"))
        else:
            rows.append((name, value or "not installed"))
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows)


def _kernels(status: dict[str, Any]) -> str:
    if not status.get("active"):
        return f"PyTorch reference ({status.get('reason') or 'compiled kernels are not active'})"
    parts = [status.get("cpu_capability") or "CPU", *(status.get("cuda_archs") or [])]
    off = "".join(f"; {name} off: {why}" for name, why in (status.get("off") or {}).items())
    return f"compiled ({', '.join(map(str, parts))}){off}"
