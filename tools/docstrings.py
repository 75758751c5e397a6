"""The share of the package's public modules, classes, functions and methods that have a docstring.

    python tools/docstrings.py                          # below 95 % it fails and lists the rest
    python tools/docstrings.py syncflow/ops --least 1   # of some folders or files

Not counted: names that begin with an underscore, what is defined inside functions, typing
overloads, and `main`, of which the module's docstring tells. A method that overrides one of the
package's has that one's docstring.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEAST = 0.95

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


Classes = dict[str, list[ast.ClassDef]]


def classes_of(package: Path) -> Classes:
    """By name, all classes that modules define."""
    found: Classes = defaultdict(list)
    for file in sorted(package.rglob("*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found[node.name].append(node)
    return found


def public(tree: ast.Module, classes: Classes) -> Iterator[tuple[str, int, bool]]:
    """(name, line, whether it has a docstring) of a module and of what it defines in the open."""
    yield "", 1, ast.get_docstring(tree) is not None
    for node in _defined(tree.body):
        yield node.name, node.lineno, ast.get_docstring(node) is not None
        if not isinstance(node, ast.ClassDef):
            continue
        inherited = _documented_above(node, classes)
        for method in _defined(node.body):
            told = ast.get_docstring(method) is not None or method.name in inherited
            yield f"{node.name}.{method.name}", method.lineno, told


def _defined(body: list[ast.stmt]) -> Iterator[Definition]:
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_") and node.name != "main":
            if not any("overload" in ast.unparse(d) for d in node.decorator_list):
                yield node


def _documented_above(node: ast.ClassDef, classes: Classes) -> set[str]:
    """Names of methods that a base class documents."""
    found: set[str] = set()
    for base in node.bases:
        for above in classes.get(ast.unparse(base).rpartition(".")[2].partition("[")[0], ()):
            if above is not node:
                found |= {m.name for m in _defined(above.body) if ast.get_docstring(m)}
                found |= _documented_above(above, classes)
    return found


def main() -> None:
    """Prints the share and what is missing; exit code 1 below the least share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, default=[ROOT / "syncflow"])
    parser.add_argument("--least", type=float, default=LEAST, help="share from 0 to 1")
    options = parser.parse_args()
    classes, missing, count = classes_of(ROOT / "syncflow"), [], 0
    for path in options.paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if not file.read_text().strip():
                continue
            for name, line, told in public(ast.parse(file.read_text(), str(file)), classes):
                count += 1
                if not told:
                    missing.append(f"{file}:{line}: no docstring: {name or 'the module'}")
    share = 1 - len(missing) / max(count, 1)
    if share < options.least:
        print(*missing, sep="\n")
    print(f"docstrings: {count - len(missing)} of {count} public names, {100 * share:.1f} %")
    sys.exit(int(share < options.least))


if __name__ == "__main__":
    main()
