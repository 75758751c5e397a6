"""What low-rank training leaves can be used: as a start, and at any strength while generating."""

import json
import warnings

import pytest
import torch
from made import MODEL, flow_config, write_latents
from safetensors.torch import load_file, save_file

from syncflow.model_io import lora, tensors
from syncflow.training import runner
from syncflow.training.checkpoints import checkpoint, weights
from syncflow.training.settings import TrainConfig
from syncflow.training.tasks import export
from tests.small_model import build

ADDED = {"rank": 4, "alpha": 8, "towers": "audio"}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A base and a low-rank run on it; returns their folder and how to run another."""
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("lora")
    latents = write_latents(folder / "latents")

    def run(name, loop=None, train="both", **changes):
        config = flow_config(latents, folder / name, train, {"steps": 2, **(loop or {})}, **changes)
        (folder / f"{name}.json").write_text(json.dumps(config))
        runner.run(folder / f"{name}.json", progress=False)
        return folder / name

    run("base")
    run("tuned", {"ema": 0.5}, init=str(folder / "base"), lora=ADDED)
    return folder, run


def test_additions_name_their_base(tuned):
    folder, _ = tuned
    about = tensors.about(folder / "tuned" / lora.FILE)
    assert about["base"] == str(folder / "base") and len(about["fingerprint"]) == 16
    read = lora.read(folder / "tuned" / lora.FILE)
    assert read.scale == 2.0 and all(name.startswith(("audio", "adap")) for name in read.pairs)


def test_a_checkpoint_and_the_additions_alone_are_what_the_run_ended_with(tuned):
    folder, _ = tuned
    final = load_file(folder / "tuned" / weights.FINAL)
    for source in (checkpoint.folders(folder / "tuned")[0], folder / "tuned" / lora.FILE):
        found = weights.load(source)
        assert found.keys() == final.keys()
        for name, value in final.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    module = export.load_part(checkpoint.folders(folder / "tuned")[0])
    assert all(torch.equal(v, final[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize("what", ["checkpoints/00000002", lora.FILE, ""])
def test_each_of_them_is_a_place_to_start_from(tuned, what):
    folder, run = tuned
    name = f"next-{what.rpartition('/')[2]}"
    out = run(name, {"lr": 0.0, "weight_decay": 0.0}, init=str(folder / "tuned" / what))
    final = load_file(folder / "tuned" / weights.FINAL)
    assert all(torch.equal(v, final[k]) for k, v in load_file(out / weights.FINAL).items())


def test_additions_without_a_base_are_no_start(tuned, tmp_path):
    folder, _ = tuned
    path = folder / "tuned" / lora.FILE
    about = {k: v for k, v in tensors.about(path).items() if k != "base"}
    save_file(load_file(path), tmp_path / "a.safetensors", about)
    with pytest.raises(ValueError, match="does not name what they add to"):
        weights.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("train", ["video", "audio"])
@pytest.mark.parametrize("towers", ["video", "audio", "both"])
def test_towers_that_are_not_trained_are_one_line(train, towers):
    config = {
        "task": "flow", "out": "a", "data": "b", "validation": "c", "model": MODEL, "train": train,
        "loop": {"steps": 1, "batch_size": 1}, "lora": {"towers": towers},
    }  # fmt: skip
    if towers == train:
        TrainConfig.parse({"run": config})
        return
    told = f"lora.towers is '{towers}'.*set lora.towers to '{train}'"
    with pytest.raises(ValueError, match=told):
        TrainConfig.parse({"run": config})


def test_weights_of_another_model_are_one_line(tuned):
    folder, run = tuned
    other = {**MODEL, "audio": {**MODEL["audio"], "mlp_ratio": 3}}
    with pytest.raises(ValueError, match="the weights of init .*base.* do not fit .*: .*mlp"):
        run("other", model=other, init=str(folder / "base"))


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture
def additions(model, tmp_path):
    """Of every linear layer of the audio tower."""
    torch.manual_seed(1)
    values = {}
    for name, module in model.ddit.audio_tower.named_modules(prefix="audio_tower"):
        if not isinstance(module, torch.nn.Linear):
            continue
        values[f"{name}.base_layer.weight"] = module.weight
        values[f"{name}.lora_A.default.weight"] = torch.randn(2, module.in_features)
        values[f"{name}.lora_B.default.weight"] = 0.3 * torch.randn(module.out_features, 2)
    lora.write(tmp_path / lora.FILE, values, 2, 4.0, "models/base")
    return tmp_path / lora.FILE


def test_clips_are_made_with_additions_of_any_strength_and_then_without(model, additions):
    def make(**options):
        return model.generate("a ball", steps=2, seconds=0.5, progress=False, **options).audio

    before = {k: v.clone() for k, v in model.ddit.state_dict().items()}
    plain, whole, half = make(), make(lora=additions), make(lora=str(additions), strength=0.5)
    assert torch.equal(plain, make(lora=additions, strength=0)) and torch.equal(plain, make())
    assert not torch.equal(plain, whole) and not torch.equal(half, whole)
    assert all(torch.equal(v, before[k]) for k, v in model.ddit.state_dict().items())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged = lora.added(model.ddit.state_dict(), lora.read(additions))
    model.ddit.load_state_dict(merged)
    try:
        assert torch.equal(make(), whole)
        with pytest.warns(UserWarning, match="on another model than this one .'models/base'"):
            make(lora=additions)
    finally:
        model.ddit.load_state_dict(before)


def test_an_error_while_generating_leaves_the_model_as_it_was(model, additions):
    before = {k: v.clone() for k, v in model.ddit.state_dict().items()}
    with pytest.raises(ValueError, match="steps"):
        model.generate("a ball", steps=-1, lora=additions)
    assert all(torch.equal(v, before[k]) for k, v in model.ddit.state_dict().items())


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 1e12, "1", None, True])
def test_a_strength_that_is_none_is_refused(model, additions, strength):
    with pytest.raises(ValueError, match="strength must be a number from -10 to 10"):
        model.generate("a ball", lora=additions, strength=strength)


def test_a_file_that_does_not_fit_is_one_line(model, additions, tmp_path):
    with pytest.raises(FileNotFoundError, match="no 'none.safetensors' to add"):
        model.generate("a ball", lora="none.safetensors")
    values, about = load_file(additions), tensors.about(additions)
    name = next(iter(values)).rpartition(".lora_")[0]
    narrow = values | {f"{name}.lora_A.default.weight": torch.zeros(2, 3)}
    save_file(narrow, tmp_path / "narrow.safetensors", about)
    with pytest.raises(ValueError, match=f"does not fit this model: .* {name} .*models/base"):
        model.generate("a ball", lora=tmp_path / "narrow.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no low-rank additions"):
        model.generate("a ball", lora=tmp_path / "other.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(additions.read_bytes()[:100])
    with pytest.raises(ValueError, match="bad.safetensors' is damaged"):
        model.generate("a ball", lora=tmp_path / "bad.safetensors")
