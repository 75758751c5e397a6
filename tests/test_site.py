"""The pages of the documentation site that come from the code, and its links."""

import argparse
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from syncflow import cli
from tools import site_hooks

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return site_hooks.pages()


def test_every_option_of_every_command_is_listed(pages) -> None:
    for parser in site_hooks.commands(cli._parser()):
        section = pages["cli"].split(f"\n## {parser.prog}\n")[1].split("\n## ")[0]
        for action in parser._actions:
            if action.help == argparse.SUPPRESS:  # what launchers add
                continue
            for option in action.option_strings:
                if option not in ("-h", "--help"):
                    shown = action.help != argparse.SUPPRESS
                    assert (option in section) == shown, f"{parser.prog} {option}"


def test_every_key_of_every_schema_is_listed(pages) -> None:
    names = set()
    for schema in [
        *site_hooks.schemas("syncflow.config"),
        *site_hooks.schemas("syncflow.training"),
    ]:
        section = (
            pages["configuration"].partition(f"\n### {schema.__name__}\n")[2].split("\n###")[0]
        )
        for key in schema.model_fields:
            assert f"| `{key}` |" in section, f"{schema.__name__}.{key}"
        names.add(schema.__name__)
    assert {"DDiTConfig", "SamplingConfig", "ModelConfig", "LoopConfig", "FlowTask"} <= names


def test_bounds_and_choices_are_told(pages) -> None:
    text = pages["configuration"]
    assert "| `batch_size` | `int` between 1 and 1000000 clips | required |" in text
    assert "| `steps` | `int | None` between 1 and 1000000000 steps | `None` |" in text
    assert '| `optimizer` | `"adamw" | "muon"` | `\'adamw\'` |' in text


def test_api_pages_name_modules_that_exist(pages) -> None:
    import importlib

    for text in pages.values():
        for name in re.findall(r"^::: ([\w.]+)$", text, flags=re.M):
            module, _, attribute = name.rpartition(".")
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize(
    "repo_url, shown",
    [(None, "`it`, `x`"), ("https://host/me/it/", "[it](https://host/me/it/blob/main/csrc/a.cpp)")],
)
def test_links_out_of_docs_are_code_until_the_repository_has_an_address(repo_url, shown) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="guide.md"))
    told = SimpleNamespace(repo_url=repo_url)
    text = "[it](../csrc/a.cpp), [`x`](../x.py), [y](other.md#z), [w](https://w), [up](#here)"
    out = site_hooks.on_page_markdown(text, page, told, None)
    assert out.startswith(shown)
    assert out.endswith("[y](other.md#z), [w](https://w), [up](#here)")


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r": ([\w/]+\.md)$", text, flags=re.M))
    there = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert named == there | {f"reference/{name}.md" for name in site_hooks.pages()}
