"""Writes the vocabulary of a model that was trained on impacts into its config.json.

python tools/vocabulary.py syncflow/pretrained --levels 1
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from syncflow.config import ModelConfig
from syncflow.data import media
from syncflow.impacts.vocabulary import vocabulary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("--levels", type=int, nargs="+", default=[1], help="that it learned from")
    args = parser.parse_args()
    path = args.model / "config.json"
    config = json.loads(path.read_text())
    at = list(config).index("sampling") + 1
    pairs = [pair for pair in config.items() if pair[0] != "vocabulary"]
    pairs.insert(at, ("vocabulary", vocabulary(args.levels)))
    with media.replacing(path) as temporary:
        temporary.write_text(json.dumps(dict(pairs), indent=2) + "\n")
    ModelConfig.load(path)


if __name__ == "__main__":
    main()
