"""Models and weights of others: their code is not run, nobody is asked, nothing advises it."""

import ast
import io
import json
from pathlib import Path

import pytest
import torch

import syncflow
from syncflow.data.prepare.captions import Captioner
from syncflow.evaluation.metrics import clap, desync, fvd, kl
from syncflow.evaluation.metrics.networks import loading
from syncflow.interop import checkpoints

PACKAGE = Path(syncflow.__file__).parent
RAN = "it ran"


@pytest.fixture
def coded(tmp_path, monkeypatch):
    """A model folder whose config names its own code, and a person who would say yes."""
    folder = tmp_path / "model"
    folder.mkdir()
    names = {
        "AutoConfig": "own.Config", "AutoModel": "own.Model",
        "AutoModelForImageTextToText": "own.Model", "AutoModelForAudioClassification": "own.Model",
        "AutoProcessor": "own.Model", "AutoTokenizer": ["own.Model", None],
        "AutoFeatureExtractor": "own.Model",
    }  # fmt: skip
    config = {"model_type": "own", "auto_map": names, "architectures": ["Model"]}
    for name in ("config", "preprocessor_config", "processor_config", "tokenizer_config"):
        (folder / f"{name}.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / RAN)!r}, 'w')\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    monkeypatch.setattr("builtins.input", lambda *text: "y")
    yield folder
    assert not (tmp_path / RAN).exists()


@pytest.mark.parametrize("read", [Captioner, kl.by_transformers, clap.CLAP])
def test_a_models_own_code_does_not_run(coded, read):
    with pytest.raises((ValueError, OSError)) as caught:
        read(str(coded))
    assert "trust_remote_code" not in str(caught.value)
    assert str(coded) in str(caught.value)


def test_it_is_said_what_is_not_run(coded):
    with pytest.raises(ValueError, match="Python code of its own, which is not run"):
        Captioner(coded)


def test_every_call_that_could_run_code_says_no():
    """Of transformers: from_pretrained and pipeline."""
    found = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            if name not in ("from_pretrained", "pipeline"):
                continue
            found += 1
            given = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg is None]
            assert "NO_CODE" in given, f"{path.name}:{node.lineno}"
    assert found >= 8


@pytest.mark.parametrize("metric", [fvd.FVD, desync.DeSync])
def test_torchscript_runs_only_where_it_is_allowed(metric, tmp_path, monkeypatch):
    path = tmp_path / "network.pt"
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(path))
    ran = []
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: ran.append(a))
    with pytest.raises(ValueError, match="a program that may read.*--allow-torchscript"):
        metric(path)
    assert not ran


def test_no_message_advises_to_read_code(tmp_path):
    script, objects = tmp_path / "script.pt", tmp_path / "objects.pt"
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(script))
    torch.save({"x": Path("/")}, objects)
    for path in (script, objects):
        for read in (checkpoints._read_pickle, lambda path: loading.read(path, "a network")):
            with pytest.raises(ValueError) as caught:
                read(path)
            assert "weights_only" not in str(caught.value)
    for path in PACKAGE.rglob("*.py"):
        assert "weights_only=False" not in path.read_text(), path
