"""Says whether a wheel holds what an installed package needs, and nothing else.

python tools/check_wheel.py dist/syncflow-*.whl
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def faults(wheel: Path, root: Path = ROOT) -> list[str]:
    """One line for everything that is missing, foreign or of another version."""
    tracked = subprocess.run(
        ["git", "ls-files", "syncflow", "configs"], cwd=root, capture_output=True, text=True
    ).stdout.split()
    if not tracked:  # a copy without history
        tracked = [
            path.relative_to(root).as_posix()
            for folder in ("syncflow", "configs")
            for path in (root / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and path.name[:2] != "_C"
        ]
    wanted = {f"syncflow/{name}" if name.startswith("configs/") else name for name in tracked}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        record = json.loads(archive.read("syncflow/_C.json")) if "syncflow/_C.json" in names else {}
    found = [f"{name} is missing" for name in sorted(wanted - names)]
    foreign = {name for name in names - wanted if not name.startswith("syncflow/_C")}
    found += [f"{name} does not belong there" for name in sorted(foreign)]
    if not record:
        found.append("syncflow/_C.json, the record of the operators, is missing")
    elif "torch" in record and not any(name.startswith("syncflow/_C.c") for name in names):
        found.append("the operators are recorded but not there")
    sys.path.insert(0, str(root))
    from syncflow import __version__

    if wheel.name.split("-")[1] != __version__:
        found.append(f"its version is {wheel.name.split('-')[1]}, the package's is {__version__}")
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, nargs="+")
    wrong = 0
    for wheel in parser.parse_args(argv).wheel:
        lines = faults(wheel)
        for line in lines:
            print(f"{wheel.name}: {line}", file=sys.stderr)
        print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB" + (", faulty" if lines else ", good"))
        wrong += bool(lines)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
