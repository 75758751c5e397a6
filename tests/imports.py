"""The imports of a package as a graph: who reads whom, lazily or not, and in what circles."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

Graph = dict[str, set[str]]


def modules(package: Path) -> dict[str, Path]:
    """By name within the package ("data.media"; "" is the package itself): the file."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, package: str, known: Mapping[str, Path]) -> list[tuple[str, bool]]:
    """(module of ``package``, whether at module level) of all that a file imports from it."""
    found = []
    for name, top in statements(path):
        if name != package and not name.startswith(f"{package}."):
            continue
        inner = name.removeprefix(package).removeprefix(".")
        while inner not in known:  # a name inside a module
            inner = inner.rpartition(".")[0]
        found.append((inner, top))
    return found


def statements(path: Path) -> list[tuple[str, bool]]:
    """(dotted name, whether at module level) of all that a file imports, wherever it does."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                found.extend((f"{child.module}.{alias.name}", top) for alias in child.names)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            visit(child, top and not inside)

    visit(ast.parse(path.read_text()), True)
    return found


def graph(package: Path, without: Iterable[tuple[str, str]] = ()) -> Graph:
    """Module -> the modules that it imports anywhere, but for the arrows ``without``."""
    known = modules(package)
    arrows = {
        name: {other for other, _ in imported(path, package.name, known) if other != name}
        for name, path in known.items()
    }
    for source, target in without:
        arrows[source].discard(target)
    return arrows


def rooms(arrows: Graph, folders: Iterable[str]) -> Graph:
    """The same between rooms: a folder with what lies in it itself, or a file beside the folders
    of the package."""
    names = set(folders)

    def room(module: str) -> str:
        return module if module in names else module.rpartition(".")[0] or module

    result: Graph = {}
    for module, others in arrows.items():
        inside = result.setdefault(room(module), set())
        inside |= {room(other) for other in others} - {room(module)}
    return result


def circles(arrows: Graph) -> list[list[str]]:
    """Groups of nodes that reach each other."""
    reach = {name: _reached(arrows, name) for name in arrows}
    groups = {
        tuple(sorted(o for o in arrows if o in reach[name] and name in reach[o]))
        for name in arrows
        if name in reach[name]
    }
    return [list(group) for group in sorted(groups)]


def _reached(arrows: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(arrows[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += arrows.get(name, ())
    return seen
