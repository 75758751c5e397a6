"""The golden files: numbers of Open-Sora v1.2's own code, where they are present."""

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from miniature import SPATIAL, T5, TEMPORAL, TOWER, fill

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("SYNCFLOW_GOLDEN", REPOSITORY.parent / "shared" / "golden"))


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden files: $SYNCFLOW_GOLDEN, or ../shared/golden beside the repository."""
    if not (FOLDER / "opensora_v1_2").is_dir():
        reason = (
            f"NO GOLDEN FILES at {FOLDER}: parity with Open-Sora v1.2 is NOT checked "
            "(set SYNCFLOW_GOLDEN)"
        )
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    return FOLDER / "opensora_v1_2"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``tower_case`` and ``vae_case``: as many as the golden files hold."""
    for name, part in (("tower_case", "stdit3"), ("vae_case", "vae")):
        if name in metafunc.fixturenames:
            meta = FOLDER / "opensora_v1_2" / part / "meta.json"
            count = len(json.loads(meta.read_text())["cases"]) if meta.exists() else 1
            metafunc.parametrize(name, range(count))


@dataclass(frozen=True)
class Published:
    """Miniatures of the published weights, in their layouts."""

    stdit: Path
    vae: Path
    text: Path

    def arguments(self, out: Path, **changes: object) -> list[str]:
        """Of ``syncflow import opensora``; a change to None leaves an option out."""
        options = {"stdit": self.stdit, "vae": self.vae, "text": self.text, "out": out, **changes}
        given = [(f"--{name}", str(value)) for name, value in options.items() if value is not None]
        return ["import", "opensora", *(word for pair in given for word in pair)]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    from safetensors.torch import save_file
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    from syncflow.config import OpenSoraVAEConfig, VideoTowerConfig
    from syncflow.models.video_tower import VideoTower
    from syncflow.models.video_vae import VideoVAE

    root = tmp_path_factory.mktemp("published")
    folders = Published(root / "stdit", root / "vae", root / "text")
    tower = VideoTower(VideoTowerConfig(**TOWER))
    vae = VideoVAE(OpenSoraVAEConfig(spatial=SPATIAL, temporal=TEMPORAL))
    for folder, module, config in (
        (folders.stdit, tower, {"num_heads": 3, "model_type": "STDiT3"}),
        (folders.vae, vae, {"spatial": SPATIAL, "temporal": TEMPORAL}),
    ):
        folder.mkdir()
        save_file(fill(module, 0), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
    (folders.stdit / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A tower\n")
    torch.manual_seed(0)
    T5EncoderModel(T5Config(vocab_size=384, **T5)).save_pretrained(folders.text)
    ByT5Tokenizer().save_pretrained(folders.text)
    return folders
