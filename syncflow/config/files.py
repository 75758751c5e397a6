"""Where a file named in a config or on the command line lies."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


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
