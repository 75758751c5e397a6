"""Writes the vocabulary of a model that was trained on impacts into its config.json.

python tools/vocabulary.py syncflow/pretrained --levels 1
python tools/vocabulary.py runs/mine --levels 1 --materials stone foam
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import cast

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
    """JSON with each of the rhythms in a line: a number in each would be most of the file."""

    def marked(rhythms: object) -> object:
        return rhythms and [f"\x01{json.dumps(times)}" for times in cast("list[object]", rhythms)]

    shown = dict(config)
    if "rhythms" in shown:
        shown["rhythms"] = marked(shown["rhythms"])
    if sorts := cast("list[dict[str, object]] | None", shown.get("rhythms_of")):
        shown["rhythms_of"] = [{**sort, "times": marked(sort["times"])} for sort in sorts]
    return re.sub(r'"\\u0001(\[.*?\])"', r"\1", json.dumps(shown, indent=2)) + "\n"


if __name__ == "__main__":
    main()
