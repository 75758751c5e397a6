"""The length and rates of a clip where nothing is said stand in clip.py and nowhere else."""

import ast
import tokenize
from pathlib import Path

import pytest

import syncflow
from syncflow.clip import FPS, SAMPLE_RATE, SECONDS

PACKAGE = Path(syncflow.__file__).parent
OWNER = PACKAGE / "clip.py"
# Sample rates that codecs know, of networks of others and of a standard's filters.
TABLES = {"data/media.py", "data/export/loudness.py"}
DEFAULTS = {"seconds": SECONDS, "fps": FPS, "sample_rate": SAMPLE_RATE, "rate": SAMPLE_RATE}


def stated(source: str) -> list[tuple[int, str]]:
    """Line and name of every default, of a parameter or a field, that is one of a clip's."""
    found = []
    for node in ast.walk(ast.parse(source)):
        pairs: list[tuple[str, ast.expr | None]] = []
        if isinstance(node, ast.arguments):
            plain = [*node.posonlyargs, *node.args]
            given = plain[len(plain) - len(node.defaults) :]
            pairs += [(a.arg, d) for a, d in zip(given, node.defaults, strict=True)]
            pairs += [(a.arg, d) for a, d in zip(node.kwonlyargs, node.kw_defaults, strict=True)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            pairs.append((node.target.id, node.value))
        for name, value in pairs:
            if isinstance(value, ast.Constant) and value.value == DEFAULTS.get(name, object()):
                found.append((value.lineno, name))
    return found


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_defaults_come_from_clip(path):
    if path != OWNER:
        assert stated(path.read_text()) == []
        if str(path.relative_to(PACKAGE)) not in TABLES:
            with open(path, "rb") as file:
                numbers = [t for t in tokenize.tokenize(file.readline) if t.type == tokenize.NUMBER]
            lines = [t.start[0] for t in numbers if t.string.replace("_", "") == str(SAMPLE_RATE)]
            assert lines == []


def test_what_is_looked_for_is_found():
    source = "def f(a, fps: float = 16, *, seconds=2.0): ...\n"
    source += "class C:\n    sample_rate: int = 48_000\n"
    assert stated(source) == [(1, "fps"), (1, "seconds"), (3, "sample_rate")]
    assert stated("def f(fps=FPS, level=16, seconds=3.0): ...") == []
