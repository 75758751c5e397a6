"""Our loaders of feature networks against the networks' own code, with the same random weights.

python benchmarks/feature_parity.py --out benchmarks/results/feature_parity.json

Three packages are fetched with pip by version and hash, without what they depend on, unpacked into
a temporary folder and imported: torchvggish (VGGish), panns-inference (Cnn14), imagebind-unofficial
(ImageBind). Their weights are drawn at random, saved as their authors save them, and read by
``syncflow.evaluation.metrics.networks``; what is compared is every output that the metrics use.
Needs ``pip install librosa einops``, which two of the packages compute with. Exit code 1 if any
difference is above a rounding error.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
import tarfile
import tempfile
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from syncflow.evaluation.metrics.networks import cnn14, imagebind, vggish
from syncflow.evaluation.suites import provenance

PACKAGES = {
    "torchvggish==0.2": "fc4d7cc17db557867bf793625f8897f0fc0c6877be737df26ee7d9df6e4ce35f",
    "panns-inference==0.1.1": "97f6b56b6c9467cf00e21f041e1f88933188c65c1b5ca64eeb3c92e37fb27fc2",
    "torchlibrosa==0.1.0": "89b65fd28b833ceb6bc74a3d0d87e2924ddc5a845d0a246b194952a4e12a38cb",
    "imagebind-unofficial==0.1.1": (
        "6bf38620d3f5729d56b49f5b432c4f2758048f016207d4e99d77c6f26f956566"
    ),
}
#: float32 outputs of order one.
LIMIT = 1e-5
# Imported by those packages for files, plots, training or tokens; none of it is called here.
_UNUSED = (
    "resampy",
    "soundfile",
    "matplotlib",
    "matplotlib.pyplot",
    "torchvision",
    "ftfy",
    "regex",
    "pytorchvideo",
    "pytorchvideo.data",
    "pytorchvideo.data.clip_sampling",
    "pytorchvideo.data.encoded_video",
    "iopath",
    "iopath.common",
    "iopath.common.file_io",
    "timm",
    "pkg_resources",
)


class _Unused:
    """Stands for whatever is taken from a module that is imported and not used."""

    def __getattr__(self, name: str) -> _Unused:
        return self

    def __call__(self, *args: Any, **named: Any) -> _Unused:
        return self


def fetch(folder: Path) -> None:
    """Downloads ``PACKAGES``, checks their hashes and unpacks their code into ``folder``."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    for package, expected in PACKAGES.items():
        target = folder / "downloads" / package
        # A source distribution is fetched as it is; building it would need its build system.
        options = ["--no-build-isolation", "--dest", str(target), package]
        done = subprocess.run([*pip, *options], capture_output=True, text=True)
        files = [path for path in target.glob("*") if path.is_file()]
        if done.returncode or len(files) != 1:
            raise OSError(f"pip cannot download {package}: {done.stderr.strip()[-300:]}")
        got = hashlib.sha256(files[0].read_bytes()).hexdigest()
        if got != expected:
            raise ValueError(f"{files[0].name} has SHA-256 {got}, not {expected}")
        if files[0].suffix == ".whl":
            with zipfile.ZipFile(files[0]) as archive:
                archive.extractall(folder)
        else:
            with tarfile.open(files[0]) as archive:
                archive.extractall(folder, filter="data")
    for inner in folder.glob("torchvggish-*"):
        sys.path.insert(0, str(inner))
    sys.path.insert(0, str(folder))
    for name in _UNUSED:
        module = types.ModuleType(name)
        module.__path__ = []  # ty: ignore
        module.__getattr__ = lambda _: _Unused()  # ty: ignore
        sys.modules.setdefault(name, module)
    layers = types.ModuleType("timm.layers")
    layers.DropPath, layers.trunc_normal_ = torch.nn.Identity, torch.nn.init.trunc_normal_
    sys.modules.setdefault("timm.layers", layers)
    # panns' package imports a module that downloads labels; its models alone do not.
    package = types.ModuleType("panns_inference")
    package.__path__ = [str(folder / "panns_inference")]
    sys.modules["panns_inference"] = package


def difference(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    assert theirs.shape == ours.shape, (theirs.shape, ours.shape)
    assert theirs.std() > 0, "an output that is the same everywhere says nothing"
    return float((theirs - ours).abs().max())


def vggish_rows(folder: Path) -> Iterator[tuple[str, float]]:
    from torchvggish import torchvggish, vggish_input

    wave = 0.2 * torch.randn(3 * 16000, dtype=torch.float64)
    examples = vggish.examples(wave)
    theirs = vggish_input.waveform_to_examples(wave.numpy(), 16000).float()
    yield "VGGish, log-mel examples", difference(theirs, examples)
    network = torchvggish.VGG(torchvggish.make_layers(), False).eval()
    torch.save(network.state_dict(), folder / "vggish.pth")
    ours = vggish.load(folder / "vggish.pth")
    yield "VGGish, embeddings", difference(network(examples), torch.relu(ours(examples)))


def cnn14_rows(folder: Path) -> Iterator[tuple[str, float]]:
    from panns_inference import models

    network = models.Cnn14(32000, 1024, 320, 64, 50, 14000, 527).eval()
    torch.save({"model": network.state_dict()}, folder / "cnn14.pth")
    wave = 0.1 * torch.randn(1, 32000)
    ours = torch.sigmoid(cnn14.load(folder / "cnn14.pth")(wave))
    yield "Cnn14, class probabilities", difference(network(wave, None)["clipwise_output"], ours)


def imagebind_rows(folder: Path) -> Iterator[tuple[str, float]]:
    from imagebind.models import imagebind_model

    sizes = {"vision": 160, "text": 128, "audio": 128}
    options = {f"{sense}_embed_dim": width for sense, width in sizes.items()}
    options |= {f"{sense}_{what}": 2 for sense in sizes for what in ("num_blocks", "num_heads")}
    options |= {f"{sense}_num_blocks": 1 for sense in ("depth", "thermal", "imu")}
    network = imagebind_model.ImageBindModel(**options).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save(network.state_dict(), folder / "imagebind.pth")
    ours = imagebind.load(folder / "imagebind.pth")
    tokens = torch.randint(1, 400, (2, 77))
    tokens[:, 6], tokens[:, 7:] = 49407, 0
    inputs = {
        "vision": torch.randn(2, 3, 2, 224, 224),
        "text": tokens,
        "audio": torch.randn(2, 1, 128, 204),
    }
    theirs = network({**inputs, "vision": inputs["vision"][:, None]})
    for sense, value in inputs.items():
        unit = torch.nn.functional.normalize(theirs[sense], dim=-1)
        yield f"ImageBind, {sense} embeddings", difference(unit, getattr(ours, sense)(value))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON file for the differences")
    args = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder = Path(name)
        try:
            fetch(folder)
            rows = dict(
                row for make in (vggish_rows, cnn14_rows, imagebind_rows) for row in make(folder)
            )
        except (OSError, ImportError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    for network, largest in rows.items():
        print(f"{network:32} {largest:.1e}")
    if args.out:
        command = f"python {shlex.join(sys.argv)}"
        facts = provenance.circumstances(command) | {"packages": list(PACKAGES)}
        report = {"facts": facts, "largest difference": rows}
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    return int(max(rows.values()) > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
