#!/usr/bin/env bash
# Builds the documentation site; any broken link or reference is an error.
#
#   pip install -e '.[docs]'
#   bash tools/docs.sh [FOLDER]      into site/ or FOLDER
#   mkdocs serve                     while writing
set -euo pipefail
out=$(realpath -m "${1:-$(dirname "$0")/../site}")
cd "$(dirname "$0")/.."
# The notice of the theme's authors about the future of MkDocs is not about these pages.
NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet --site-dir "$out"
echo "docs: $out/index.html"
