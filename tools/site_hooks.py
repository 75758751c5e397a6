"""Hooks of mkdocs.yml: pages that come from the code, and links to files outside docs/.

The configuration reference is read off the pydantic schemas, the command line off its parsers; the
API pages name modules whose docstrings mkdocstrings renders. None is kept in the repository.
"""

from __future__ import annotations

import argparse
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from syncflow.ranges import Range

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """MkDocs' hook: adds the generated pages."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links out of docs/ lead to the repository's host, or are code where it is not known."""
    folder = posixpath.dirname(page.file.src_uri)

    def turn(match: re.Match[str]) -> str:
        image, words, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        inside = posixpath.normpath(posixpath.join("docs", folder, path))
        if inside.startswith("docs/") and not inside.startswith("docs/report/"):
            return match[0]
        if config.repo_url:
            return f"{image}[{words}]({config.repo_url.rstrip('/')}/blob/main/{inside})"
        return words if words.startswith("`") else f"`{words}`"

    return _LINK.sub(turn, markdown)


def pages() -> dict[str, str]:
    """Name -> Markdown of every page made from the code."""
    return {
        "cli": command_line(),
        "configuration": configuration(),
        "python": python_api(),
        "models": modules("Models", "models"),
        "ops": modules("Operators", "ops"),
        "flow": "# Rectified flow\n\n::: syncflow.flow\n",
        "kernels": moved(ROOT / "csrc" / "README.md"),
        "changelog": moved(ROOT / "CHANGELOG.md"),
    }


def moved(path: Path) -> str:
    """A page of the repository, its links written as from docs/reference/."""
    home = path.parent.relative_to(ROOT).as_posix()

    def turn(match: re.Match[str]) -> str:
        image, words, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        inside = posixpath.relpath(posixpath.join(home, target), "docs/reference")
        return f"{image}[{words}]({inside})"

    return _LINK.sub(turn, path.read_text())


# The Python API


def python_api() -> str:
    """The page of the Python interface."""
    import syncflow

    pipeline = syncflow.load.__module__
    parts = ["# Python", "Everything a script needs is in `syncflow` itself.", "## Functions"]
    for name in ("load", "generate", "prepare"):
        where = getattr(syncflow, name).__module__
        parts.append(f"::: {where}.{name}\n    options: {{heading_level: 3}}")
    parts.append("## Model")
    parts.append(f"::: {pipeline}.SyncFlow\n    options: {{heading_level: 3}}")
    parts.append("## Clips")
    for name in ("Clip", "ClipSpec"):
        parts.append(f"::: syncflow.clip.{name}\n    options: {{heading_level: 3}}")
    return "\n\n".join(parts) + "\n"


def modules(title: str, package: str) -> str:
    """All public modules of one package."""
    parts = [f"# {title}", f"::: syncflow.{package}"]
    for path in sorted((ROOT / "syncflow" / package).glob("[a-z]*.py")):
        parts.append(f"::: syncflow.{package}.{path.stem}")
    return "\n\n".join(parts) + "\n"


# The command line


def command_line() -> str:
    """The page of all commands and their options."""
    from syncflow import cli

    parts = [
        "# Command line",
        "`syncflow COMMAND --help` prints the same. Exit codes: 0 done, 2 bad input (one line says "
        "what is wrong), 130 interrupted, 1 a bug. `--debug` shows the traceback of an error.",
    ]
    for parser in commands(cli._parser()):
        parts.append(f"## {parser.prog}")
        parts.append(parser.description or "")
        if parser.epilog:
            parts.append(f"```sh\n{parser.epilog.removeprefix('example: ')}\n```")
        rows = [
            f"| `{names(action)}` | {cell(action.help or '')} |"
            for action in parser._actions
            if not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS
        ]
        parts.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(filter(None, parts)) + "\n"


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers that run something, in the order of --help."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for child in group.choices.values():
            yield from commands(child)


def names(action: argparse.Action) -> str:
    """An option as it is typed, with its value."""
    value = action.metavar or action.dest.upper()
    value = " ".join(value) if isinstance(value, tuple) else str(value)
    if action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return value
    return ", ".join(action.option_strings) + (f" {value}" if action.nargs != 0 else "")


def cell(text: str) -> str:
    """Words in a table; in code a bar stays as it is."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("%%", "%")


# The configuration


def configuration() -> str:
    """Every schema of the configs: what its keys are, their types, defaults and bounds."""
    parts = [
        "# Configuration",
        "A config is one JSON file, and every key is listed here. An unknown key is an error that "
        "names the nearest known one. Model folders hold a `ModelConfig` in `config.json`; the "
        "files in `configs/` hold one of the tasks, chosen by the key `task`.",
    ]
    for title, package in (("Models", "syncflow.config"), ("Training", "syncflow.training")):
        parts.append(f"## {title}")
        parts += [schema_section(schema) for schema in schemas(package)]
    return "\n\n".join(parts) + "\n"


def schemas(package: str) -> list[Any]:
    """The schemas with keys of their own that a package declares, in the order of declaration."""
    import syncflow.config
    import syncflow.training.settings  # noqa: F401  declares its schemas

    def below(schema: Any) -> Iterator[Any]:
        for child in schema.__subclasses__():
            yield child
            yield from below(child)

    found = [s for s in dict.fromkeys(below(syncflow.config.Config)) if s.model_fields]
    found = [s for s in found if s.__module__.startswith(package) and s.__name__[0] != "_"]
    # What a file as a whole is comes before its parts.
    return sorted(found, key=lambda schema: schema.__name__ not in ("ModelConfig", "TrainConfig"))


def schema_section(schema: Any) -> str:
    """One schema as a table of its fields."""
    text = re.sub(r"``(.+?)``", r"`\1`", schema.__doc__ or "")
    lines = [line.strip() for line in text.splitlines()]
    fields = schema.model_fields.items()
    told = any(field.description for _, field in fields)
    columns = ["key", "type", "default", *(["meaning"] if told else [])]
    rows = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for key, field in fields:
        bounds = ", ".join(filter(None, map(bound, [*field.metadata, *optional(field.annotation)])))
        cells = [
            f"`{key}`",
            f"`{annotation(field.annotation)}`" + (f" {bounds}" if bounds else ""),
            "required" if field.is_required() else f"`{shown(field)}`",
            *([cell(field.description or "")] if told else []),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n\n".join([f"### {schema.__name__}", "\n".join(lines).strip(), "\n".join(rows)])


def shown(field: Any) -> str:
    """A default as the table has it."""
    value = field.get_default(call_default_factory=True)
    return f"{type(value).__name__}()" if hasattr(value, "model_dump") else repr(value)


def bound(rule: Any) -> str:
    """What a constraint asks of a number, in words."""
    if isinstance(rule, Range):
        return str(rule).partition(" number")[2].lstrip(" ,")
    signs = {"gt": ">", "ge": "at least", "lt": "<", "le": "at most"}
    return " ".join(
        f"{sign} {getattr(rule, name)}" for name, sign in signs.items() if hasattr(rule, name)
    )


def optional(kind: Any) -> list[Any]:
    """The constraints of what may be None instead."""
    return [rule for arg in get_args(kind) for rule in getattr(arg, "__metadata__", ())]


def annotation(kind: Any) -> str:
    """A type as one would write it: `int | None`, `"adamw" | "muon"`."""
    if get_origin(kind) is Literal:
        return " | ".join(f'"{value}"' for value in get_args(kind))
    if kind is type(None):
        return "None"
    args = [a for a in get_args(kind) if a is not Ellipsis]
    origin = get_origin(kind)
    if not args:
        return getattr(kind, "__name__", str(kind))
    inner = [annotation(arg) for arg in args]
    if getattr(origin, "__name__", "") in ("Union", "UnionType"):
        return " | ".join(inner)
    if getattr(origin, "__name__", "") == "Annotated":
        return inner[0]
    return f"{getattr(origin, '__name__', origin)}[{', '.join(inner)}]"
