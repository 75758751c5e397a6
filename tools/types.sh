#!/usr/bin/env bash
# Checks the types: plain mypy everywhere, strict where pyproject.toml says so, and what is excused.
#
#   pip install -e '.[lint,test]'
#   bash tools/types.sh
#   bash tools/types.sh --install    installs that first, in the versions of CI
#
# mypy reads the types of PyTorch and pydantic, so it needs the package's environment, where tools/lint.sh needs its tools alone.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
    "") ;;
    --install) pip install --quiet -c requirements/ci.txt -e '.[lint,test]' ;;
    *) echo "usage: bash tools/types.sh [--install]" >&2; exit 2 ;;
esac

# Excuses; how often a type is left open, by `Any` or by `JsonObject`, which is a dictionary of it (syncflow/json_types.py);
# and lines that the formatter is kept from. They may become fewer and not more.
most_ignored=20 most_open=120 most_unformatted=40

command -v mypy > /dev/null || { echo "types: no mypy; pip install -e '.[lint]'" >&2; exit 2; }
mypy

lines() { grep -rh --include='*.py' -E "$1" syncflow || true; }
ignored=$(lines 'type: ignore' | wc -l)
bare=$(lines 'type: ignore' | grep -cvE 'type: ignore\[[a-z, -]+\]  # ' || true)
open=$(grep -rhow --include='*.py' -E 'Any|JsonObject' syncflow | wc -l)
unformatted=$(lines 'fmt: (skip|off)' | wc -l)
echo "types: $ignored of at most $most_ignored excuses, $open of at most $most_open open types," \
    "$unformatted of at most $most_unformatted lines unformatted"
[ "$bare" -eq 0 ] || { echo "types: an excuse needs its code and a reason" >&2; exit 1; }
[ "$ignored" -le "$most_ignored" ] && [ "$open" -le "$most_open" ] && [ "$unformatted" -le "$most_unformatted" ]
