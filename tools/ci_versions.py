"""Writes requirements/ci.txt: the versions that continuous integration installs.

They are those that pip resolves when this runs:

python tools/ci_versions.py          # what pyproject.toml asks for, with test, lint and docs
python tools/ci_versions.py --check  # whether pyproject.toml allows every version there

The file constrains (`pip install -c requirements/ci.txt ...`) and installs nothing by itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "requirements" / "ci.txt"
EXTRAS = ("test", "lint", "docs")


def wanted() -> list[str]:
    """The requirements of the package and of what its checks need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for name in EXTRAS for text in project["optional-dependencies"][name]]
    return [*project["dependencies"], *extras]


def resolved() -> dict[str, str]:
    """Name -> version of everything that a fresh environment would get; installs nothing."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
               "--report", "-", *wanted()]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return {item["name"].lower().replace("_", "-"): item["version"] for item in found}


def locked() -> dict[str, str]:
    """Name -> version of the file."""
    lines = [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def outside() -> list[str]:
    """Requirements that the file does not meet, with what it has for them."""
    have = locked()
    return [
        f"{need}: {have.get(need.name.lower().replace('_', '-'), 'missing')}"
        for need in map(Requirement, wanted())
        if not need.specifier.contains(have.get(need.name.lower().replace("_", "-"), "0"))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args().check:
        print("\n".join(outside()) or "up to date")
        return 1 if outside() else 0
    lines = [f"{name}=={version}" for name, version in sorted(resolved().items())]
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(
        "\n".join(["# Made by tools/ci_versions.py; constraints of .ci/run.", *lines, ""])
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
