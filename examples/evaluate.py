"""Measures sync and prompt adherence on held-out captions and prints the main rows.

python examples/evaluate.py --clips 200 --out report    # what docs/benchmarks.md shows

The folder also holds index.html with players, clips.csv, and every number with its interval.
"""

import argparse
import json
from pathlib import Path

from syncflow.cli import main as run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--model", help="a model folder or hub id (default: the shipped model)")
    parser.add_argument("--out", type=Path, default=Path("report"))
    args = parser.parse_args(argv)

    words = ["evaluate", "sync", "--clips", str(args.clips), "--out", str(args.out)]
    code = run([*words, *(["--model", args.model] if args.model else [])])
    if code:
        raise SystemExit(code)

    report = json.loads((args.out / "report.json").read_text())
    for row in report["rows"]:
        if row["group"] == "all clips" and row.get("f1_50"):
            value, low, high = row["f1_50"]
            print(f"{row['system']:24} F1 at 50 ms {value:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
