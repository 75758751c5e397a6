"""Writes the vocabulary of a model that was trained on impacts into its config.json.

python tools/vocabulary.py syncflow/pretrained --levels 1
python tools/vocabulary.py runs/mine --levels 1 --materials stone foam
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
    what = "that it learned beyond those of its levels"
    parser.add_argument("--materials", nargs="+", default=[], metavar="M", help=what)
    args = parser.parse_args()
    path = args.model / "config.json"
    config = json.loads(path.read_text())
    at = list(config).index("sampling") + 1
    pairs = [pair for pair in config.items() if pair[0] != "vocabulary"]
    try:
        pairs.insert(at, ("vocabulary", vocabulary(args.levels, args.materials)))
    except ValueError as error:
        parser.error(str(error))
    with media.replacing(path) as temporary:
        temporary.write_text(_text(dict(pairs)))
        ModelConfig.load(temporary)


def _text(config: dict[str, object]) -> str:
    """JSON with each of the ``rhythms`` in a line: a number in each would be most of the file."""
    rhythms = config.get("rhythms")
    if not isinstance(rhythms, list) or not rhythms:
        return json.dumps(config, indent=2) + "\n"
    lines = ",\n".join(f"    {json.dumps(times)}" for times in rhythms)
    text = json.dumps({**config, "rhythms": []}, indent=2) + "\n"
    return text.replace('\n  "rhythms": []', f'\n  "rhythms": [\n{lines}\n  ]')


if __name__ == "__main__":
    main()
