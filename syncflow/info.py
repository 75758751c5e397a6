"""The facts behind ``syncflow info``: what is installed, what this machine can run, and what a file
tells of how it was made."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import warnings
from pathlib import Path

from syncflow.json_types import JsonObject

_PACKAGES = ("torch", "transformers", "diffusers", "av", "safetensors", "deepspeed", "xformers")


def collect(attention: bool = False) -> JsonObject:
    """Versions, device, compiled kernels and the shipped model, as plain JSON values.

    attention: also the backends of attention that can be imported, which takes seconds.
    """
    import torch

    import syncflow
    from syncflow.model_io import fingerprint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of is said in the line about kernels
        from syncflow.ops import native

    facts: JsonObject = {"syncflow": syncflow.__version__, "python": platform.python_version()}
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
    weights = fingerprint.weights(model)
    facts["model"] = {
        "path": str(model) if weights else None,
        "megabytes": round(sum(file.stat().st_size for file in weights) / 1e6, 1),
    }
    return facts


def table(facts: JsonObject) -> str:
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
    return _aligned(rows)


def of_file(path: str | Path) -> JsonObject:
    """What a film, sound or picture holds, as plain JSON values, and under "made" how it was made
    (``Clip.made``), None where it does not tell.

    Raises:
        FileNotFoundError: no such file. ValueError: not a file that can be read.
    """
    from syncflow.data.export import tags

    found = tags.facts(path)
    return {"file": str(path), **found, "made": tags.parse(found.get("comment"))}


def file_table(facts: JsonObject) -> str:
    """``of_file`` as aligned lines."""
    made = dict(facts["made"] or {})
    named = ("file", "container", "length", "picture", "sound")
    rows = [(name, facts[name]) for name in named if facts.get(name)]
    if not made:
        rows += [(name, facts[name]) for name in ("title", "comment") if facts.get(name)]
        return _aligned([*rows, ("made", "not by syncflow, or without metadata")])
    sampling = made.pop("sampling", None)
    if not made.get("prompt") and facts.get("title"):  # kept from before a part was drawn anew
        rows.append(("title", facts["title"]))
    first = [(name, made.pop(name)) for name in ("prompt", "seed", "model") if name in made]
    rows += first + sorted(made.items())
    if isinstance(sampling, dict):
        rows += sampling.items()
    return _aligned([(name.replace("_", " "), _shown(value)) for name, value in rows])


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _aligned(rows: list[tuple[str, str]]) -> str:
    # What a file says may hold anything, such as the escape codes of a terminal.
    rows = [(_printable(name), _printable(value)) for name, value in rows]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _kernels(status: JsonObject) -> str:
    if not status.get("active"):
        return f"PyTorch reference ({status.get('reason') or 'compiled kernels are not active'})"
    parts = [status.get("cpu_capability") or "CPU", *(status.get("cuda_archs") or [])]
    off = "".join(f"; {name} off: {why}" for name, why in (status.get("off") or {}).items())
    return f"compiled ({', '.join(map(str, parts))}){off}"
