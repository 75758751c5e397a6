"""Config files and models by the names that they have in a clone, also beside an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def find(path: str | Path) -> Path:
    """``path``, or what an installed package ships under that name where there is no such file.

    So ``configs/tiny/recipe.json``, and the ``syncflow/pretrained`` that it names, mean the same in
    a clone and beside an installed wheel.
    """
    path = Path(path)
    if path.is_absolute() or path.exists() or path.parts[:1] not in (("configs",), ("syncflow",)):
        return path
    for root in (_PACKAGE, _PACKAGE.parent):
        if (root / path).exists():
            return root / path
    return path
