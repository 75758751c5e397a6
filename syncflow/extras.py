"""How to get a package that is missing or of another version than this syncflow takes."""

from __future__ import annotations

import importlib.metadata
import importlib.util

#: The extra that brings a module, by its first name.
EXTRAS = {
    "cv2": "metrics", "deepspeed": "train", "fastapi": "serve", "flash_attn": "flash",
    "ftfy": "t5", "fsspec": "stream", "gcsfs": "stream", "google": "t5",
    "gradio": "demo", "gradio_client": "demo", "librosa": "metrics",
    "peft": "lora", "prometheus_client": "serve", "pyarrow": "prepare",
    "python_multipart": "serve", "s3fs": "stream", "sentencepiece": "t5", "tensorboard": "train",
    "uvicorn": "serve", "wandb": "wandb", "xformers": "xformers",
}  # fmt: skip


def advice(module: str) -> str:
    """The command that brings a module: of its extra, where it belongs to one."""
    top = module.partition(".")[0]
    what = f"'syncflow[{EXTRAS[top]}]'" if top in EXTRAS else top
    # A part is missing of a package that is there: another version of it has that part.
    again = "--upgrade " if top != module and _is_there(top) else ""
    return f"pip install {again}{what}"


def missing(module: str, why: str) -> ModuleNotFoundError:
    """The error for a module that is not installed; ``why`` says what needs it."""
    return ModuleNotFoundError(f"{why}, but it is not installed: {advice(module)}", name=module)


def need(module: str, why: str) -> None:
    """Asks for a module before it is imported.

    Raises:
        ModuleNotFoundError: it is not installed, or of a version that this syncflow does not take.
    """
    if not _is_there(module):
        raise missing(module, why)
    if unfit := _other_version(module):
        text = f"{why}, but {unfit}: pip install --upgrade 'syncflow[{EXTRAS[module]}]'"
        raise ModuleNotFoundError(text, name=module)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _other_version(package: str) -> str:
    """What is installed instead of what the package's metadata ask for; "" where it is right, or
    where there are no metadata, as in a source tree that is not installed."""
    from packaging.requirements import Requirement

    try:
        found = importlib.metadata.version(package)
        required = [Requirement(text) for text in importlib.metadata.requires("syncflow") or ()]
    except importlib.metadata.PackageNotFoundError:
        return ""
    wanted = [r.specifier for r in required if r.name == package and str(r.specifier)]
    if not wanted or wanted[0].contains(found, prereleases=True):
        return ""
    return f"{package}{wanted[0]} is wanted and {found} is installed"
