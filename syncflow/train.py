"""The script that trains: ``syncflow train --config FILE``, in one process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the task (or recipe of tasks) of a config file."""
    parser = argparse.ArgumentParser(prog="syncflow train", description=__doc__)
    parser.add_argument("--config", required=True, help="JSON file, e.g. configs/impacts/recipe.json")
    parser.add_argument("--device", default=None, help="cpu or cuda; default: cuda where there is one")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    options = parser.parse_args(arguments)

    import torch

    from syncflow.training import tasks

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        tasks.run(Path(options.config), device, progress=not options.no_progress)
    except (ValueError, FileNotFoundError) as error:
        print(f"syncflow: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
