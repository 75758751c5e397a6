"""Where a file named in a config or on the command line lies."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
#: The name of the model in the package, wherever a model folder may be named.
SHIPPED = "shipped"


def cache(name: str) -> Path | None:
    """A folder of syncflow's cache: of $SYNCFLOW_CACHE, or of syncflow in the user's cache; None
    where the variable is empty."""
    chosen = os.environ.get("SYNCFLOW_CACHE")
    if chosen is not None:
        return Path(chosen).expanduser() / name if chosen else None
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "syncflow" / name


def find(path: str | Path) -> Path:
    """``path``, or what an installed package ships under that name where there is no such file.

    So ``configs/tiny/recipe.json``, and the models that it names, mean the same in a clone and
    beside an installed wheel. ``"shipped"`` is the model in the package.
    """
    path = Path(path)
    if path.is_absolute() or path.exists():
        return path
    if str(path) == SHIPPED:
        return _PACKAGE / "pretrained"
    if path.parts[:1] not in (("configs",), ("syncflow",)):
        return path
    for root in (_PACKAGE, _PACKAGE.parent):
        if (root / path).exists():
            return root / path
    return path


def find_config(path: str | Path) -> Path:
    """The same for a config, which may be named as short as ``tiny/recipe``; ``path`` itself where
    there is none."""
    path = Path(path)
    names = [path] if path.suffix == ".json" else [path, path.with_name(f"{path.name}.json")]
    tried = [*names, *(Path("configs") / name for name in names if not name.is_absolute())]
    return next((found for found in map(find, tried) if found.is_file()), path)
