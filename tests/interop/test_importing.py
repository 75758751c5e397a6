"""`syncflow import opensora`: what it makes, and what it refuses without touching the disk."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import syncflow
from syncflow.cli import main
from syncflow.clip import ClipSpec
from syncflow.config import ModelConfig
from syncflow.model_io.model_folder import load
from tests.training.made import write_latents


def run(capsys, *arguments):
    """Exit code and the one line of an error."""
    code = main(list(map(str, arguments)))
    return code, capsys.readouterr().err.splitlines()[-1]


def listing(folder):
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*")}


@pytest.fixture(scope="module")
def imported(published, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "mini"
    assert main(published.arguments(out)) == 0
    return out


def test_the_folder_is_plain_and_says_what_it_is(imported, published):
    names = {p.name for p in imported.iterdir()}
    assert names == {
        "config.json", "README.md", "ddit.safetensors", "video_vae.safetensors",
        "audio_vae.safetensors", "text_encoder",
    }  # fmt: skip
    assert not list(imported.parent.glob(".*"))
    card = (imported / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n") and card.count("apache-2.0") == 6
    assert "| video tower | `ddit.safetensors` | local file stdit | apache-2.0 |" in card
    assert "not trained" in card and str(published.stdit.parent) not in card


def test_every_imported_number_is_the_files(imported, published):
    config, parts = load(imported)
    for part, folder, prefix in (
        ("ddit", published.stdit, "video_tower."),
        ("video_vae", published.vae, ""),
    ):
        ours, theirs = parts[part].state_dict(), load_file(folder / "model.safetensors")
        for key, value in theirs.items():
            assert torch.equal(ours[prefix + key], value), key
    assert config.ddit.video.num_heads == 3 and config.name == "mini"
    # 8 latent frames at 256x256.
    assert config.sampling.shift == pytest.approx(2**0.5)
    assert (config.sampling.steps, config.sampling.guidance) == (50, 6.0)


def test_it_loads_and_generates(imported, monkeypatch, tmp_path):
    monkeypatch.setenv("SYNCFLOW_CACHE", str(tmp_path))
    model = syncflow.load(imported, device="cpu")
    clip = model.generate(
        "a drum", seconds=0.5, height=32, width=32, steps=1, guidance=2.0, progress=False
    )
    assert clip.video.shape == (8, 3, 32, 32) and clip.audio.shape == (24000,)
    assert clip.audio.isfinite().all()


def test_the_audio_sides_first_outputs_are_well_scaled(imported):
    """Of unit size inside at any depth, no velocity yet, and a gradient for every layer."""
    ddit = load(imported)[1]["ddit"].requires_grad_(True)
    spec = ClipSpec(0.5, 16, 32, 32)
    g = torch.Generator().manual_seed(0)
    seen = {}
    ddit.audio_tower.final_linear.register_forward_hook(lambda m, args, out: seen.update(x=args[0]))
    audio = torch.randn(2, spec.audio_latent_length, 128, generator=g)
    _, velocity = ddit(
        torch.randn(2, 4, *spec.video_latent_shape, generator=g), audio,
        torch.rand(2, generator=g), torch.rand(2, generator=g),
        torch.randn(2, 5, 16, generator=g), None, spec,
    )  # fmt: skip
    assert velocity.abs().max() == 0
    assert seen["x"].std().item() == pytest.approx(1, abs=0.1)
    (velocity - audio).square().mean().backward()
    assert 0 < ddit.audio_tower.final_linear.weight.grad.norm() < 10


def test_stage_two_trains_from_it(imported, tmp_path):
    """The paper's second stage on made-up latents: the imported tower stays bit for bit."""
    from syncflow.training.loop import fit
    from syncflow.training.settings import TrainConfig
    from syncflow.training.tasks.flow import FlowTraining

    data = write_latents(tmp_path / "latents", 2, (4, 128, 16), sample_rate=48000)
    model = json.loads((imported / "config.json").read_text())["ddit"]
    loop = {"steps": 2, "batch_size": 2, "lr": 0.01, "ema": 0, "precision": "fp32", "warmup": 1}
    config = TrainConfig.parse(
        {"run": {
            "task": "flow", "out": str(tmp_path / "stage2"), "data": str(data),
            "validation": str(data), "model": model, "train": "audio", "init": str(imported),
            "loop": loop,
        }}
    ).run  # fmt: skip
    training = FlowTraining(config)
    first, _ = training.loss(training.batch(0), torch.Generator().manual_seed(0))
    # No velocity yet: the loss is the velocity's own size, 1 of the noise and 1 of the data.
    assert first.item() == pytest.approx(2, rel=0.1)
    after = load_file(fit(training, config.loop, config.out, progress=False))
    before = load_file(imported / "ddit.safetensors")
    moved = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert moved == {"adaptors", "audio_tower"}


def test_compat_reaches_tower_clock_and_guidance(published, tmp_path):
    out = tmp_path / "compat"
    assert main(published.arguments(out, compat="opensora-1.2", dtype="bfloat16")) == 0
    config = ModelConfig.load(out / "config.json")
    assert config.ddit.video.compat == "opensora-1.2"
    assert config.sampling.null_caption == "prompt"
    assert config.sampling.shift == pytest.approx((0.25 * 5) ** 0.5)
    assert {v.dtype for v in load_file(out / "ddit.safetensors").values()} == {torch.bfloat16}


def test_shards_and_pickles_give_the_same_model(imported, published, tmp_path, capsys):
    state = load_file(published.stdit / "model.safetensors")
    keys = sorted(state)
    shards, pickled = tmp_path / "shards", tmp_path / "pickled"
    for folder in (shards, pickled):
        folder.mkdir()
        shutil.copy(published.stdit / "config.json", folder)
    weight_map = {}
    for index, part in enumerate((keys[::2], keys[1::2])):
        name = f"model-{index}.safetensors"
        save_file({k: state[k] for k in part}, shards / name)
        weight_map |= dict.fromkeys(part, name)
    index = json.dumps({"weight_map": weight_map})
    (shards / "model.safetensors.index.json").write_text(index)
    torch.save(state, pickled / "model.pt")

    code, line = run(capsys, *published.arguments(tmp_path / "no", stdit=pickled))
    assert code == 2 and "--allow-pickle" in line and "pickle" in line
    assert not (tmp_path / "no").exists()
    whole = load_file(imported / "ddit.safetensors")
    for name, source, flags in (("a", shards, ()), ("b", pickled, ("--allow-pickle",))):
        arguments = published.arguments(tmp_path / name, stdit=source)
        assert main([*arguments, *flags]) == 0
        again = load_file(tmp_path / name / "ddit.safetensors")
        assert all(torch.equal(again[k], v) for k, v in whole.items())


def test_a_pickled_t5_is_kept_as_safetensors(published, tmp_path):
    """DeepFloyd's T5 is published so; the model folder then needs no pickle."""
    text = tmp_path / "t5"
    shutil.copytree(published.text, text)
    state = load_file(text / "model.safetensors")
    (text / "model.safetensors").unlink()
    torch.save({**state, "decoder.x": torch.zeros(2)}, text / "pytorch_model.bin")
    out = tmp_path / "out"
    assert main([*published.arguments(out, text=text), "--allow-pickle"]) == 0
    assert not list(out.rglob("*.bin"))
    (weights,) = out.glob("text_encoder/*.safetensors")
    kept = load_file(weights)
    assert {v.dtype for v in kept.values()} == {torch.bfloat16} and "decoder.x" not in kept
    torch.testing.assert_close(kept["shared.weight"], state["shared.weight"].bfloat16())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def wrong_files(folder: Path, published):
    """Case -> (changed options, words of the message)."""
    good = (published.stdit / "model.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(good[: len(good) // 2])
    sharded = folder / "sharded"
    sharded.mkdir()
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    (sharded / "model.safetensors.index.json").write_text(index)
    save_file({"a": torch.zeros(1)}, sharded / "model-1.safetensors")
    outside = folder / "outside.safetensors.index.json"
    outside.write_text(json.dumps({"weight_map": {"a": "../cut.safetensors"}}))
    sd = {f"model.diffusion_model.input_blocks.{i}.0.weight": torch.zeros(2) for i in range(9)}
    save_file(sd, folder / "sd.safetensors")
    torch.save({"a": Bomb(folder / "exploded")}, folder / "bomb.pt")
    with (folder / "old.ckpt").open("wb") as file:
        pickle.dump(Bomb(folder / "exploded"), file)
    (folder / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    (folder / "empty").mkdir()
    state = load_file(published.stdit / "model.safetensors")
    del state["t_block.1.bias"]
    save_file(state, folder / "less.safetensors")
    (folder / "config.json").write_text((published.stdit / "config.json").read_text())
    return {
        "truncated": ({"stdit": folder / "cut.safetensors"}, "cut.safetensors is damaged"),
        "missing shard": ({"stdit": sharded}, "missing: model-2.safetensors"),
        "shard elsewhere": ({"vae": outside}, "outside its folder"),
        "stable diffusion": ({"stdit": folder / "sd.safetensors"}, "Stable Diffusion"),
        "stable diffusion vae": ({"vae": folder / "sd.safetensors"}, "Stable Diffusion"),
        "code": ({"stdit": folder / "bomb.pt"}, "holds more than tensors"),
        "old code": ({"vae": folder / "old.ckpt"}, "old.ckpt"),
        "lfs": ({"vae": folder / "lfs.safetensors"}, "git-lfs"),
        "one key less": ({"stdit": folder / "less.safetensors"}, "1 missing (t_block.1.bias)"),
        "nothing": ({"vae": folder / "empty"}, "no safetensors"),
        "swapped": ({"stdit": published.vae}, "looks like an Open-Sora video VAE"),
        "no t5": ({"text": published.stdit}, "is not a T5"),
        "t5 for encodec": ({"audio": published.text}, "no layer of the source"),
        "nowhere": ({"text": "./nowhere"}, "no text encoder at './nowhere'"),
    }


def test_wrong_files_give_one_line_and_change_nothing(published, tmp_path, capsys):
    cases = wrong_files(tmp_path, published)
    before = listing(tmp_path)
    for name, (changes, words) in cases.items():
        arguments = [*published.arguments(tmp_path / "out", **changes), "--allow-pickle"]
        code, line = run(capsys, *arguments)
        assert code == 2 and line.startswith("syncflow: error: "), name
        assert words in line, (name, line)
        assert listing(tmp_path) == before, name


def test_a_folder_with_something_in_it_is_left_alone(published, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    code, line = run(capsys, *published.arguments(tmp_path))
    assert code == 2 and "exists and is not an empty folder" in line
    assert listing(tmp_path) == {"mine.txt": 4}


def test_a_write_that_fails_leaves_nothing(published, tmp_path, monkeypatch, capsys):
    from syncflow.interop import t5

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(t5, "bundle", full)
    code, line = run(capsys, *published.arguments(tmp_path / "out"))
    assert code == 2 and "No space left" in line
    assert listing(tmp_path) == {}


def test_encodec_starts_the_audio_vae(published, tmp_path, capsys):
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    source = tmp_path / "encodec"
    EncodecModel(EncodecConfig(num_filters=2, hidden_size=8)).save_pretrained(source)
    assert main(published.arguments(tmp_path / "out", audio=source)) == 0
    printed = capsys.readouterr().out
    assert "took 36 of 38 layers" in printed
    assert "Encodec: other shape: encoder.layers.3.conv" in printed
    assert "taken: decoder.layers.0.conv" in printed
    config, parts = load(tmp_path / "out")
    assert config.audio_vae.upsampling_ratios == [8, 5, 4, 6] and config.audio_vae.causal
    assert config.ddit.audio.in_channels == 8
    theirs = EncodecModel.from_pretrained(source).encoder.layers[0].conv.weight
    torch.testing.assert_close(parts["audio_vae"].encoder.layers[0].conv.weight, theirs)
    assert "36 layers" in (tmp_path / "out" / "README.md").read_text()


def test_a_published_vocabulary_is_converted_once(published, tmp_path, monkeypatch, capsys):
    """T5-v1.1 comes with a spiece.model alone; the folder is then read without sentencepiece."""
    from transformers import AutoTokenizer

    from syncflow.interop import t5

    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "words.txt").write_text("a metal drum is hit twice on stone\n" * 20)
    text = tmp_path / "t5"
    text.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(published.text / name, text)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "words.txt"), model_prefix=str(text / "spiece"), vocab_size=21,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (text / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0})
    )
    out = tmp_path / "out"
    assert main(published.arguments(out, text=text)) == 0
    (out / "text_encoder" / "spiece.model").unlink()
    tokenizer = AutoTokenizer.from_pretrained(out / "text_encoder")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(text / "spiece.model"))
    for sentence in ("a metal drum", "stone is hit"):
        assert tokenizer(sentence).input_ids == [*reference.encode(sentence), 1]

    monkeypatch.setattr(t5, "_is_installed", lambda name: False)
    code, line = run(capsys, *published.arguments(tmp_path / "no", text=text))
    assert code == 2 and "pip install 'syncflow[t5]'" in line
