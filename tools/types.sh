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

# Excuses, and how often `Any` is written: it may become less and not more. The aim is 120: most of it stands for JSON
# and for PyAV's, Gradio's and DeepSpeed's objects.
most_ignored=20 most_any=660

command -v mypy > /dev/null || { echo "types: no mypy; pip install -e '.[lint]'" >&2; exit 2; }
mypy

count() { grep -rhow --include='*.py' -e "$1" syncflow | wc -l; }
ignored=$(grep -rh --include='*.py' 'type: ignore' syncflow | wc -l)
bare=$(grep -rh --include='*.py' 'type: ignore' syncflow | grep -cvE 'type: ignore\[[a-z, -]+\]  # ' || true)
any=$(count Any)
echo "types: $ignored of at most $most_ignored excuses, Any $any times of at most $most_any"
[ "$bare" -eq 0 ] || { echo "types: an excuse needs its code and a reason" >&2; exit 1; }
[ "$ignored" -le "$most_ignored" ] && [ "$any" -le "$most_any" ]
