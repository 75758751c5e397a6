#!/usr/bin/env bash
# Builds a wheel into dist/ (or FOLDER) and checks what is inside. Its operators are for the PyTorch of this
# environment; beside another PyTorch it runs the plain ones, and `syncflow info` says so.
#
#   bash tools/wheel.sh [FOLDER]
set -euo pipefail
out=$(realpath -m "${1:-$(dirname "$0")/../dist}")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
rm -rf build/lib build/lib.* build/bdist.*  # what setuptools left of earlier trees would be packed too
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$out" .
"$python" tools/check_wheel.py "$out"/syncflow-*.whl
