#!/usr/bin/env bash
# Checks the types: plain mypy everywhere, strict where pyproject.toml says so, and what is excused.
#
#   pip install -e '.[lint,test]'
#   bash tools/types.sh
set -euo pipefail
cd "$(dirname "$0")/.."

most_ignored=20 most_any=120

command -v mypy > /dev/null || { echo "types: no mypy; pip install -e '.[lint]'" >&2; exit 2; }
mypy

count() { grep -rhow --include='*.py' -e "$1" syncflow | wc -l; }
ignored=$(grep -rh --include='*.py' 'type: ignore' syncflow | wc -l)
bare=$(grep -rh --include='*.py' 'type: ignore' syncflow | grep -cvE 'type: ignore\[[a-z, -]+\]  # ' || true)
any=$(count Any)
echo "types: $ignored of at most $most_ignored excuses, Any $any times of at most $most_any"
[ "$bare" -eq 0 ] || { echo "types: an excuse needs its code and a reason" >&2; exit 1; }
[ "$ignored" -le "$most_ignored" ] && [ "$any" -le "$most_any" ]
