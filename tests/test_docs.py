"""What README and docs say exists: commands, files, links, configs, Python names."""

import ast
import importlib
import importlib.util
import inspect
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from PIL import Image

import syncflow
from syncflow import cli
from syncflow.sampling import OPTIONS
from syncflow.training import runner, settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("[A-Z]*.md")), *sorted((ROOT / "docs").glob("*.md"))]
IDS = [page.name for page in PAGES]


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced code blocks of a page in one of the languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), flags=re.M | re.S)
    return [code for language, code in found if language in languages]


def commands(page: Path) -> list[list[str]]:
    """Every shell command of a page, split into words; `a && b` are two."""
    lines = []
    for code in blocks(page, "sh", "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                cut = words.index("&&")
                lines.append(words[:cut])
                words = words[cut + 1 :]
            lines.append(words)
    return [words for words in lines if words]


def script(name: str):
    """A script of tools/, imported."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def headings(page: Path) -> set[str]:
    """Anchors of a page as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_readme_gives_clips_then_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 120
    first, second = blocks(ROOT / "README.md", "sh")[:2]
    assert re.fullmatch(r'pip install -e \. && syncflow generate ".+" -o clip\.mp4\n', first)
    assert second == "pip install -e '.[test]' && pytest -n 2 --dist loadfile\n"
    beginning = readme.split("```")[0]
    clips = re.findall(r"\[!\[.+?\]\((docs/clips/\d\.webp)\)\]\((docs/clips/\d\.mp4)\)", beginning)
    assert len(clips) == 6 and "git clone" in beginning
    assert readme.index(clips[0][0]) < readme.index("| task |")
    assert readme.index("## Limitations") < readme.index("## What it does")


def test_readme_has_one_command_per_task() -> None:
    table = (ROOT / "README.md").read_text().split("| task |")[1].split("\n\n")[0]
    found = re.findall(r"\| `(syncflow .+?)` \|", table)
    assert len(found) == len(table.splitlines()) - 2
    for line in found:
        if not line.endswith("--help"):
            cli._parser().parse_args(shlex.split(line)[1:])


def test_workflows_only_call_scripts_that_run_here_too() -> None:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert {path.stem for path in workflows} == {"lint", "tests", "docs", "wheels"}
    for path in workflows:
        lines = re.findall(r"^ *- run: (.+)$", path.read_text(), flags=re.M)
        assert lines, path.name
        for line in lines:
            program, script, *_ = line.split()
            assert program == "bash" and (ROOT / script).is_file(), f"{path.name}: {line}"
    tested = re.findall(r'python: \["(.+)"\]', (ROOT / ".github/workflows/tests.yml").read_text())
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    named = [c.split()[-1] for c in classifiers if re.search(r":: 3\.\d+$", c)]
    assert tested[0].split('", "') == named


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "syncflow.__version__"}
    citation = (ROOT / "CITATION.cff").read_text()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d.+?)\] - (\S+)$", changelog, flags=re.M)[0]
    assert released[0] == syncflow.__version__
    assert f"\nversion: {released[0]}\n" in citation
    assert f'\ndate-released: "{released[1]}"\n' in citation


def test_clips_of_the_readme_are_small_and_are_clips() -> None:
    folder = ROOT / "docs" / "clips"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_500_000
    for path in folder.glob("*.webp"):
        with Image.open(path) as image:
            assert image.n_frames == 32, path.name
        clip = syncflow.Clip.load(path.with_suffix(".mp4"))
        assert len(clip.video) == 32 and clip.audio.abs().max() > 0.01


def test_figure_is_the_scripts() -> None:
    architecture = script("architecture")
    assert architecture.OUT.read_text() == architecture.draw(), "run tools/architecture.py"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_are_understood(page: Path) -> None:
    for words in commands(page):
        program, rest = words[0], words[1:]
        if program == "syncflow":
            cli._parser().parse_args(rest)
        elif program == "python" and rest[0] == "-m":
            assert importlib.util.find_spec(rest[1]), words
        elif program in ("python", "bash"):
            assert (ROOT / rest[0]).is_file(), words
        elif program == "pip":
            extras = re.findall(r"\[(\w+)\]", rest[-1])
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            assert set(extras) <= set(project["optional-dependencies"]), words
        elif program == "torchrun" and "-m" in rest:
            module = rest.index("-m") + 1
            assert rest[module] == "syncflow", words
            cli._parser().parse_args(rest[module + 1 :])
        elif program in ("deepspeed", "torchrun"):
            script = next(index for index, word in enumerate(rest) if word.endswith(".py"))
            assert (ROOT / rest[script]).is_file(), words
            cli._parser().parse_args(["train", *rest[script + 1 :]])
        else:
            assert program == "pytest", f"unknown command in {page.name}: {words}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_and_images_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name} points to {target}, which does not exist"
        if anchor:
            assert anchor in headings(path), f"{page.name}: {path.name} has no heading {anchor!r}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_files_named_in_code_exist(page: Path) -> None:
    folders = "syncflow|configs|docs|tests|csrc|tools|examples|build_tools|benchmarks"
    pattern = rf"(?<![\w/])((?:{folders})/[\w./-]*\.(?:py|cpp|json|md|sh))\b"
    missing = [name for name in re.findall(pattern, page.read_text()) if not (ROOT / name).exists()]
    assert not missing, f"{page.name} names {missing}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_examples_call_what_exists(page: Path) -> None:
    from syncflow.generation.pipeline import SyncFlow

    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                for name in node.names:
                    module = importlib.import_module(node.module)
                    assert hasattr(module, name.name) or importlib.util.find_spec(
                        f"{node.module}.{name.name}"
                    ), ast.unparse(node)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id in ("syncflow", "impacts"):
                    home = {"syncflow": "syncflow", "impacts": "syncflow.impacts"}
                    module = importlib.import_module(home[node.value.id])
                    assert hasattr(module, node.attr), f"{node.value.id}.{node.attr}"
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "generate":
                known = {*inspect.signature(SyncFlow.generate).parameters, *OPTIONS}
                assert {word.arg for word in node.keywords} <= known, ast.unparse(node)


def test_the_example_of_impacts_runs() -> None:
    names: dict = {}
    for code in blocks(ROOT / "docs" / "impacts.md", "python"):
        exec(compile(code, "docs/impacts.md", "exec"), names)
    assert names["video"].shape == (32, 3, 64, 64) and names["audio"].shape == (96000,)


def test_configs_that_are_named_parse() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    named = {ROOT / name for name in re.findall(r"configs/[\w/.-]+\.json", text)}
    assert ROOT / "configs/impacts/recipe.json" in named
    for path in named:
        config = runner.read(path)
        for step in config.steps if isinstance(config, settings.RecipeTask) else ():
            runner.read(path.parent / step)


def test_training_page_describes_every_step_of_the_recipe() -> None:
    recipe = runner.read(ROOT / "configs/impacts/recipe.json")
    text = (ROOT / "docs/training.md").read_text()
    rows = [text.find(f"| [{step}]") for step in recipe.steps]
    named = [step for step in recipe.steps if f"[{step}](../configs/impacts/{step})" in text]
    assert named == list(recipe.steps)
    starts = [row for row in rows if row >= 0]
    assert starts == sorted(starts), "the table has another order than the recipe"


def test_held_out_pairs_are_the_worlds() -> None:
    from syncflow.impacts import materials

    text = (ROOT / "docs/impacts.md").read_text().split("## Splits")[1]
    table = dict(re.findall(r"^\| (\w+) \| ([\w, ]+) \|$", text.split("## Files")[0], flags=re.M))
    table.pop("material")
    held = {m: ", ".join(c for c in materials.COLOURS if materials.held_out(c, m)) for m in table}
    assert table == held
    assert set(table) == set(materials.LEVEL_MATERIALS[4])


@pytest.fixture(scope="module")
def update_numbers():
    return script("update_numbers")


def test_numbers_of_a_report_reach_the_page(update_numbers, tmp_path) -> None:
    from syncflow.evaluation.report import tables

    row = {"clips": 4, "f1_50": [0.5, 0.25, 0.75], "median_ms": [float("inf"), 9.0, 12.5]}
    rows = [
        {"system": "generated", "group": "all clips", **row},
        {"system": "real", "group": "all clips", **row, "material": (1.0, 1.0, 1.0)},
        {"system": "generated", "group": "level 1", "f1_50": [0.125, 0.0, 0.25]},
        {"system": "generated", "group": "kind bounce", **row},
    ]
    vaes = {"impacts": {"clips": 4, "psnr": 31.25}}
    report = {"facts": {"seed": 0, "new": 1}, "rows": rows, "fidelity": vaes}
    tables.write_json(tmp_path / "report.json", report)
    best = {"best": {"steps": 20}, "rows": [{"system": "steps 20", "clips": 2, "f1_100": 0.5}]}
    tables.write_json(tmp_path / "sweep.json", best)
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- numbers:begin -->\nold\n<!-- numbers:end -->\nb\n"
        "<!-- sweep:begin -->\n<!-- sweep:end -->\n"
    )
    argv = [str(tmp_path / "report.json"), "--sweep", str(tmp_path / "sweep.json")]
    assert update_numbers.main([*argv, "--page", str(page)]) == 0
    text = page.read_text()
    assert "old" not in text and text.startswith("a\n<!-- numbers:begin -->\n**All clips**")
    assert "| generated | 4 | 0.500 [0.250, 0.750] | - [9.0, 12.5] | - |" in text
    assert "| real | 4 | 0.500 [0.250, 0.750] | - [9.0, 12.5] | 1.00 |" in text
    assert "| generated | - | 0.125 [0.000, 0.250] |" in text and "kind bounce" not in text
    assert "Best: steps 20." in text and "| steps 20 | 2 | 0.500 |" in text
    assert "| impacts | 4 | 31.2 | - |" in text
    assert "- seed: 0" in text and text.count("<!--") == 4
    assert update_numbers.main([*argv, "--page", str(page)]) == 0
    assert page.read_text() == text


def test_the_readme_quotes_the_table(update_numbers) -> None:
    """Its sentence is made from the rows that docs/benchmarks.md shows."""
    table = (ROOT / "docs/benchmarks.md").read_text().split("<!-- numbers:begin -->")[1]
    cells = r"^\| (generated(?:, shuffled)?) \| \d+ \| (.+?) \| (.+?) \|"
    found = re.findall(cells, table, flags=re.M)
    report: dict = {"rows": []}
    for name, *both in found:
        whole, f1 = (tuple(map(float, re.findall(r"\d[\d.]*", each))) or None for each in both)
        report["rows"].append({"system": name, "whole": whole, "f1_50": f1})
    assert report["rows"][0]["whole"] is not None
    assert update_numbers.headline(report) in (ROOT / "README.md").read_text()
    assert update_numbers.headline({"rows": report["rows"][:1]}) == ""


def test_a_page_without_a_place_for_numbers_is_refused(update_numbers, tmp_path, capsys) -> None:
    (tmp_path / "page.md").write_text("nothing\n")
    report = {"rows": [{"system": "real", "f1_50": 1.0}]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    argv = [str(tmp_path / "report.json"), "--page", str(tmp_path / "page.md")]
    assert update_numbers.main(argv) == 2
    assert "numbers" in capsys.readouterr().err
    assert (tmp_path / "page.md").read_text() == "nothing\n"


def test_pages_have_a_place_for_the_numbers(update_numbers) -> None:
    pages = {"README.md": "headline", "docs/benchmarks.md": "numbers"}
    for page, name in pages.items():
        assert update_numbers.fill((ROOT / page).read_text(), name, "x")[1] == 1, page
    assert update_numbers.fill((ROOT / "docs/training.md").read_text(), "sweep", "x")[1] == 1


def test_pictures_in_docs_are_small() -> None:
    for path in (ROOT / "docs").glob("*.png"):
        assert path.stat().st_size < 200_000, f"{path.name}: {path.stat().st_size} bytes"


def test_the_papers_page_has_the_differences_of_now() -> None:
    assert script("paper_table").filled() == (ROOT / "docs" / "paper.md").read_text()
