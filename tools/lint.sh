#!/usr/bin/env bash
# Checks the form of every Python, C++ and CUDA file, and that what is public says what it is; --fix
# rewrites the form.
#
#   pip install -e '.[lint]'   the versions that this is checked with
#   bash tools/lint.sh
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
    "") check=(--check) dry=(--dry-run --Werror) ;;
    --fix) check=() dry=(-i) ;;
    *) echo "usage: bash tools/lint.sh [--fix]" >&2; exit 2 ;;
esac
for tool in ruff clang-format; do
    command -v "$tool" > /dev/null || { echo "lint: no $tool; pip install -e '.[lint]'" >&2; exit 2; }
done

# Said by whatever fails below.
trap '[ $? -eq 0 ] || echo "lint: not clean; bash tools/lint.sh --fix mends all but what ruff check and the docstrings list" >&2' EXIT

files() { git ls-files --cached --others --exclude-standard -- "$@"; }

ruff check --quiet ${1:+--fix} .
ruff format --quiet "${check[@]}" .
# Timings of the kernels remain those of the kernels that are only laid out anew.
[ -z "${1:-}" ] || python3 benchmarks/evidence.py --remember
python3 tools/docstrings.py
files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs clang-format "${dry[@]}"
echo "lint: clean"
