"""The route of docs/paper.md: its commands as they stand there, at tiny size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
ROUTE = ROOT / "tests" / "paper_route.sh"


def commands() -> str:
    """What the script runs, without what stands before it."""
    return ROUTE.read_text().split("\n\n", 1)[1]


def test_the_page_has_the_scripts_commands_word_for_word() -> None:
    page = (ROOT / "docs" / "paper.md").read_text()
    assert f"```sh\n{commands()}```" in page


def miniatures(folder: Path) -> None:
    """The published models, small, in folders of the names that the hub has them under."""
    sys.path.insert(0, str(ROOT / "tests" / "interop"))
    from miniature import SPATIAL, T5, TEMPORAL, TOWER, fill
    from safetensors.torch import save_file
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    from syncflow.config import OpenSoraVAEConfig, VideoTowerConfig
    from syncflow.models.video_tower import VideoTower
    from syncflow.models.video_vae import VideoVAE

    tower = VideoTower(VideoTowerConfig(**TOWER))
    vae = VideoVAE(OpenSoraVAEConfig(spatial=SPATIAL, temporal=TEMPORAL))
    for name, module, config in (
        ("hpcai-tech/OpenSora-STDiT-v3", tower, {"num_heads": 3}),
        ("hpcai-tech/OpenSora-VAE-v1.2", vae, {"spatial": SPATIAL, "temporal": TEMPORAL}),
    ):
        where = folder / name
        where.mkdir(parents=True)
        save_file(fill(module, 0), where / "model.safetensors")
        (where / "config.json").write_text(json.dumps(config))
    text = folder / "DeepFloyd" / "t5-v1_1-xxl"
    T5EncoderModel(T5Config(vocab_size=384, **T5)).save_pretrained(text)
    ByT5Tokenizer().save_pretrained(text)


def clips(folder: Path, count: int) -> None:
    """VGGSound's csv and its files, sounds to train on, and a test set with captions."""
    from syncflow.data import media

    rows, lines = [], []
    for name in ("vggsound", "vggsound_test", "data/sounds_train", "data/sounds_val"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        torch.manual_seed(index)
        video = torch.randint(0, 255, (40, 3, 32, 32), dtype=torch.uint8)
        audio = 0.3 * torch.randn(120_000) * (torch.arange(120_000) % 24_000 < 3000)
        split = "test" if index % 4 == 0 else "train"
        file = media.write(folder / "vggsound" / f"video{index}_{index:06d}.mp4", video, audio, 16)
        rows.append(f"video{index},{index},something hits something,{split}\n")
        kind = "val" if split == "test" else "train"
        media.write_wav(folder / "data" / f"sounds_{kind}" / f"{index}.wav", audio)
        if split == "test":
            (folder / "vggsound_test" / file.name).write_bytes(file.read_bytes())
            lines.append(json.dumps({"file": file.name, "caption": "something hits something"}))
    (folder / "vggsound.csv").write_text("".join(rows))
    (folder / "vggsound_test" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "networks.json").write_text("{}")


def overrides(folder: Path) -> None:
    """The shipped configs with small numbers: same keys, same tasks."""
    from miniature import TOWER

    loop = {"steps": 2, "batch_size": 2, "warmup": 1, "validate_every": 2, "log_every": 1}
    audio_model = {"num_filters": 2, "latent_channels": 8, "num_lstm_layers": 1}
    for name in ("audio_vae", "opensora/stage2", "opensora/stage3", "opensora/export"):
        config = json.loads((ROOT / "configs" / f"{name}.json").read_text())
        if "loop" in config:
            config["loop"].update(loop, prefetch=1)
        if name == "audio_vae":
            config["model"].update(audio_model)
            config.update(seconds=0.1, samples_every=2)
            config["adversarial"].update(start=1, filters=4)
        elif config["task"] == "flow":
            config["model"]["video"].update(TOWER, pred_sigma=True)
            config["model"]["adaptor"]["num_heads"] = 3
            config["model"]["audio"].update(hidden_size=24, num_heads=3, in_channels=8, mlp_ratio=2)
        else:
            config["sampling"]["steps"] = 2
        path = folder / "configs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config))


@pytest.mark.slow
def test_the_route_runs_at_tiny_size(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    miniatures(tmp_path)
    clips(tmp_path, 8)
    overrides(tmp_path)
    (tmp_path / "syncflow").symlink_to(ROOT / "syncflow")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, module in (("syncflow", "syncflow"), ("torchrun", "torch.distributed.run")):
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (tools / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        "GPUS": "2", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu",
        "SYNCFLOW_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(ROUTE)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    for made in (
        "runs/xl/audio_vae/model.safetensors", "data/latents_train/manifest.json",
        "runs/opensora/stage3/model.safetensors", "runs/opensora/model/config.json",
        "runs/opensora/report/report.md",
    ):  # fmt: skip
        assert (tmp_path / made).exists(), made
