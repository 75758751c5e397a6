"""PEP 517 hooks: setuptools' own, except that ninja is asked for only where a compiler is.

pip builds in an isolated environment in which PyTorch is not visible, and must not be: the
operators are compiled against the PyTorch of the target environment (`build_tools.pytorch`).
"""

from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from build_tools import toolchain

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def _ninja() -> list[str]:
    try:
        toolchain.compiler()
    except toolchain.CannotBuildError:
        return []
    return ["ninja"]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """As PEP 517 has it; with ninja where none is installed."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_ninja()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """As PEP 660 has it; with ninja where none is installed."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_ninja()]
