"""What a model knows of English, and what is said where a prompt goes beyond it."""

import json
import re
import runpy
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch

import syncflow
from syncflow import cli
from syncflow.cli import main
from syncflow.clip import Clip
from syncflow.commands import generate
from syncflow.config import ModelConfig, VocabularyConfig
from syncflow.generation import shipped
from syncflow.generation.remarks.vocabulary import remarks, told, unknown
from syncflow.impacts import world
from syncflow.impacts.captions import WORDS
from syncflow.impacts.vary import of_any_material
from syncflow.impacts.vocabulary import vocabulary
from syncflow.model_io import model_folder

ROOT = Path(__file__).parents[1]
SHIPPED = ModelConfig.load(model_folder.SHIPPED / "config.json")


def captions(level: int, count: int) -> list[str]:
    low = world.SEEDS["train"].start
    return [world.sample_scene(low + i, level).caption for i in range(count)]


@pytest.mark.parametrize("level", world.LEVELS)
def test_every_word_of_the_captions_is_known(level):
    config = SHIPPED.model_copy(update={"vocabulary": VocabularyConfig(**vocabulary([level]))})
    assert unknown(config, captions(level, 300)) == []


def test_no_word_is_told_that_captions_do_not_say():
    """Levels 1 and 3; rare words need many captions."""
    for level, count in ((1, 1500), (3, 3000)):
        said = set(re.findall(r"[a-z0-9-]+", " ".join(captions(level, count)).lower()))
        words = vocabulary([level])["words"]
        known = {word for group in words.values() for text in group for word in text.split()}
        assert known - said == set(), level


def test_the_shipped_model_tells_the_words_of_levels_1_to_3():
    assert SHIPPED.vocabulary.model_dump() == vocabulary([1, 2, 3])


def test_other_materials_are_known_beside_those_of_a_level():
    plain, more = vocabulary([1]), vocabulary([1], materials=["stone", "foam"])
    assert more["summary"] == (
        "balls of metal, wood, glass, rubber, stone or foam that fall and bounce"
    )
    said = plain["words"]["material"]
    assert more["words"] == {**plain["words"], "material": [*said, "stone", "rock", "foam"]}
    assert more["examples"] == plain["examples"]
    assert vocabulary([1], ["glass", "foam", "foam"]) == vocabulary([1], ["foam"])
    assert vocabulary([2], ["stone"]) == vocabulary([2])
    with pytest.raises(ValueError, match="at least one level"):
        vocabulary([], ["stone"])
    with pytest.raises(ValueError, match="a list of names, got 'stone'"):
        vocabulary([1], "stone")


def test_every_word_of_captions_of_any_material_is_known():
    low, known = world.SEEDS["train"].start, list(WORDS["material"])
    scenes = [of_any_material(world.sample_scene(low + i)) for i in range(600)]
    said = [scene.caption for scene in scenes]
    assert {scene.attributes["material"] for scene in scenes} == set(known)
    config = SHIPPED.model_copy(update={"vocabulary": VocabularyConfig(**vocabulary([1], known))})
    assert unknown(config, said) == []


@pytest.mark.parametrize("material", ["drum", "gold", ""])
def test_a_material_that_there_is_not_is_named(material):
    names = "metal, wood, glass, rubber, plastic, stone, ceramic, cardboard, foam"
    with pytest.raises(ValueError, match=f"^unknown material {material!r}; known are {names}$"):
        vocabulary([1], ["stone", material])


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """tools/vocabulary.py on a copy of the shipped config."""
    shutil.copy(model_folder.SHIPPED / "config.json", tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["vocabulary.py", str(tmp_path), *words])
        runpy.run_path(str(ROOT / "tools" / "vocabulary.py"), run_name="__main__")
        return (tmp_path / "config.json").read_text()

    return run


def test_the_tool_writes_the_vocabulary_and_leaves_all_else(tool):
    shipped = (model_folder.SHIPPED / "config.json").read_text()
    same = tool("--levels", "1", "2", "3")
    assert SHIPPED.rhythms and SHIPPED.rhythms_of and same == shipped, "each of them in a line"
    before, after = json.loads(shipped), json.loads(tool("--materials", "foam"))
    assert after == {**before, "vocabulary": vocabulary([1], ["foam"])}
    assert list(after) == list(before)
    assert tool("--levels", "1", "2", "3") == shipped


def test_the_tool_refuses_a_material_that_there_is_not(tool, tmp_path, capsys):
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(SystemExit) as caught:
        tool("--materials", "gold")
    assert caught.value.code == 2 and "unknown material 'gold'" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == before


@pytest.mark.parametrize("rhythms", [None, [[0.5]], [[0.25], [0.5, 1.0]]])
def test_the_tool_writes_rhythms_one_in_a_line(tool, tmp_path, rhythms):
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "rhythms": rhythms}))
    text = tool()
    assert json.loads(text)["rhythms"] == rhythms
    lines = [json.loads(line.strip(" ,")) for line in text.splitlines() if line[:5] == "    ["]
    assert lines == (rhythms or [])
    sort = {"words": ["stick"], "times": [[0.5, 1.0], [1.5]]}
    config |= {"rhythms_of": [sort]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    text = tool()
    assert json.loads(text)["rhythms_of"] == [sort] and "[0.5, 1.0],\n" in text


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a dog barks", ["dog", "barks"]),
        ("A metal ball bounced on the wood and its ball's tiles", []),
        ("a METAL ball", []),
        ("a ball bounces 3 times, then seven times", ["seven"]),
        ("un ballon rebondit \u9f13", ["un", "ballon", "rebondit", "\u9f13"]),
        ("", []),
    ],
)
def test_words_that_mean_nothing(prompt, words):
    assert unknown(SHIPPED, [prompt]) == words


def test_capitals_mean_nothing_to_an_encoder_of_bytes_as_they_are():
    encoder = SHIPPED.text_encoder.model_copy(update={"casefold": False})
    config = SHIPPED.model_copy(update={"text_encoder": encoder})
    # At the beginning of a word captions have them too.
    assert unknown(config, ["A Metal ball", "a METAL ball"]) == ["METAL"]


def test_one_line_says_so():
    assert remarks(SHIPPED, ["a dog barks", "a dog"]) == [
        f"'dog' and 'barks' are not in this model's vocabulary: {SHIPPED.vocabulary.summary}; "
        "see --vocabulary"
    ]
    (many,) = remarks(SHIPPED, ["one cat two dogs nine elephants zebra lion"])
    assert "and others are not" in many and "\n" not in many
    (long,) = remarks(SHIPPED, ["a ball"], 5.0)
    assert "5 s is more than the 2 s" in long
    assert remarks(SHIPPED, ["a ball"], 2.0) == []
    assert remarks(SHIPPED.model_copy(update={"vocabulary": None}), ["a dog"]) == []


def test_a_model_of_english_at_large_says_that():
    assert "reads English at large" in told(ModelConfig())


def test_the_command_prints_it(capsys):
    assert main(["generate", "--vocabulary"]) == 0
    out = capsys.readouterr().out
    assert "metallic" in out and SHIPPED.vocabulary.examples[0] in out


class Model:
    config, folder = SHIPPED, None
    device, dtype = torch.device("cpu"), torch.float32

    def generate(self, prompts, **options):
        clip = Clip(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.zeros(12000))
        return [clip] * len(prompts) if isinstance(prompts, list) else clip


def test_the_command_and_python_say_it(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(syncflow, "load", lambda *a, **k: Model(), raising=False)
    assert main(["generate", "a dog", "--seconds", "4"]) == 0
    notes = capsys.readouterr().err.splitlines()
    assert [line[:5] for line in notes] == ["note:", "note:", "1 cli"]
    monkeypatch.setattr(shipped, "_shipped", Model)
    for prompt in ("a dog", ["a ball", "a dog"]):
        with pytest.warns(UserWarning, match="'dog' is not in"):
            syncflow.generate(prompt)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        syncflow.generate("a metal ball bounces")


def test_examples_use_words_that_the_model_knows(capsys):
    assert main(["generate"]) == 2
    texts = [cli._parser().epilog, generate.EXAMPLE, capsys.readouterr().err]
    quoted = [re.findall('"([^"]+)"', text) for text in texts]
    assert all(quoted)
    prompts = [*SHIPPED.vocabulary.examples, *(prompt for found in quoted for prompt in found)]
    assert unknown(SHIPPED, prompts) == []
