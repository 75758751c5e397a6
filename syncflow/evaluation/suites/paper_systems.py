"""What the paper's tables compare: a model in each of its settings, cascades beside it, and the
metrics, with the networks that they need.
"""

from __future__ import annotations

import glob
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Unpack

import torch
from torch import Tensor

from syncflow.clip import Clip
from syncflow.config import Config
from syncflow.evaluation.metrics.metric import Metric
from syncflow.evaluation.probes.probe import ProbeSettings
from syncflow.evaluation.suites.datasets import Item
from syncflow.evaluation.suites.systems import Model, load_probes
from syncflow.sampling import SamplingOptions

#: Items, their real clips and a seed -> a clip for each.
Make = Callable[[Sequence[Item], Sequence[Clip], int], list[Clip]]


class SoundGenerator(Protocol):
    """An audio generator: picture uint8 [F,3,H,W] and caption -> audio float [M] in [-1, 1]."""

    def __call__(
        self, video: Tensor, prompt: str, *, fps: float, sample_rate: int, seed: int
    ) -> Tensor: ...


@dataclass(frozen=True)
class System:
    """One row: ``tables`` it belongs to, ``makes`` one entry per checkpoint to average over, ``at``
    its place on a figure's axis."""

    name: str
    tables: tuple[str, ...]
    makes: tuple[Make, ...]
    at: float | None = None


class _Options(SamplingOptions, total=False):
    height: int
    width: int


def text_to_clip(model: Model, **options: Unpack[_Options]) -> Make:
    """Picture and sound from the caption."""

    def make(items: Sequence[Item], real: Sequence[Clip], seed: int) -> list[Clip]:
        return model.generate([item.prompt for item in items], seed=seed, progress=False, **options)

    return make


def video_to_audio(
    model: Model, v2a: Literal["one-pass", "paper"], **options: Unpack[_Options]
) -> Make:
    """Sound for the real picture, without training for it: ``v2a`` "paper" or "one-pass"."""

    def make(items: Sequence[Item], real: Sequence[Clip], seed: int) -> list[Clip]:
        prompts = [item.prompt for item in items]
        return model.generate(
            prompts, seed=seed, progress=False, video=list(real), v2a=v2a, **options
        )

    return make


def real_clips(items: Sequence[Item], real: Sequence[Clip], seed: int) -> list[Clip]:
    """The real clips themselves: where every score of a pair ends."""
    return list(real)


def cascade(videos: str | Path, sound: SoundGenerator | str | Path) -> Make:
    """Pictures of any text-to-video model and sounds of any audio generator.

    Args:
        videos: a folder with ``<key>.mp4`` for every item, which is made first, elsewhere.
        sound: a function, or a folder with ``<key>.wav`` (or another container). A sound that is
            longer than the picture is cut to it, as the paper does with CoDi's (section 4).
    """
    videos = Path(videos)
    if not videos.is_dir():
        raise FileNotFoundError(f"no such folder: '{videos}'")

    def make(items: Sequence[Item], real: Sequence[Clip], seed: int) -> list[Clip]:
        clips = []
        for index, (item, truth) in enumerate(zip(items, real, strict=True)):
            seen = Clip.load(
                _file(videos, item.key),
                truth.fps,
                truth.sample_rate,
                0.0,
                truth.seconds,
                *truth.video.shape[2:],
            )
            if callable(sound):
                audio = sound(
                    seen.video,
                    item.prompt,
                    fps=seen.fps,
                    sample_rate=seen.sample_rate,
                    seed=seed + index,
                )
            else:
                audio = read_sound(_file(Path(sound), item.key), seen.sample_rate)
            samples = round(seen.seconds * seen.sample_rate)
            if not torch.is_tensor(audio) or audio.ndim != 1 or len(audio) < samples:
                shape = list(audio.shape) if torch.is_tensor(audio) else type(audio).__name__
                raise ValueError(
                    f"the sound of '{item.key}' must be float [at least {samples}] at "
                    f"{seen.sample_rate} Hz, got {shape}"
                )
            clips.append(
                Clip(seen.video, audio[:samples].float(), seen.fps, seen.sample_rate, item.prompt)
            )
        return clips

    return make


def _file(folder: Path, key: str) -> Path:
    found = sorted(file for file in folder.glob(f"{glob.escape(key)}.*") if file.is_file())
    if not found:
        raise FileNotFoundError(f"no file '{key}.*' in '{folder}'")
    return found[0]


def read_sound(path: Path, sample_rate: int) -> Tensor:
    """Mono audio float [M] at ``sample_rate`` of a 16-bit wav, or of any container with a
    picture."""
    if path.suffix.lower() != ".wav":
        return Clip.load(path, sample_rate=sample_rate).audio
    import wave

    import numpy as np
    from torchaudio.functional import resample

    try:
        with wave.open(str(path)) as source:
            width, channels, rate = (
                source.getsampwidth(),
                source.getnchannels(),
                source.getframerate(),
            )
            data = source.readframes(source.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"'{path}' is not a wav file: {error}") from error
    if width != 2:
        raise ValueError(f"'{path}' has {8 * width} bits per sample; write 16-bit wav")
    samples = np.frombuffer(data, "<i2").reshape(-1, channels).mean(1) / 32768
    audio = torch.from_numpy(samples.astype(np.float32))
    return audio if rate == sample_rate else resample(audio, rate, sample_rate)


def find_sound(text: str) -> SoundGenerator | Path:
    """A folder of sounds, or the function that ``module:function`` names, which is imported."""
    if Path(text).is_dir():
        return Path(text)
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise ValueError(f"'{text}' is neither a folder of sounds nor module:function")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no function '{name}' in module '{module}': {error}") from error
    if not callable(found):
        raise ValueError(f"'{text}' is not a function")
    return found


def checkpoints(folder: str | Path, last: int = 3) -> list[Path]:
    """The model folders to average over: the ``last`` of the folders inside ``folder`` that hold a
    config.json, in the order of their names, or ``folder`` itself where there are none (the paper
    averages the last three checkpoints, section 5)."""
    folder = Path(folder)
    inside = sorted(path.parent for path in folder.glob("*/config.json"))
    return inside[-last:] if inside else [folder]


class Networks(Config):
    """Where the feature networks' published weights are (``--networks FILE``); none is needed.

    ``clap``, ``clip_tokenizer`` and ``audio_classifier`` are transformers folders or hub ids, the
    rest are files. ``i3d`` and ``synchformer`` are TorchScript, programs that run only with
    ``allow_torchscript``, which this file cannot say: it may come from whom the programs do.
    """

    i3d: str | None = None
    vggish: str | None = None
    vggish_head: str | None = None
    panns: str | None = None
    audio_classifier: str | None = None
    clap: str | None = None
    imagebind: str | None = None
    clip_tokenizer: str | None = None
    synchformer: str | None = None


#: A metric's names, the networks it needs (with what to look for), and how to make one.
Factory = tuple[str, dict[str, str], Callable[[], Metric]]


def _given(name: str | None) -> str:
    assert name is not None  # a metric is made only where what it needs is given
    return name


def factories(
    networks: Networks, device: str = "cpu", allow_torchscript: bool = False
) -> list[Factory]:
    """Every metric of the tables."""
    from syncflow.evaluation.metrics import av_align, clap, desync, fad, fvd, imagebind, kl
    from syncflow.evaluation.metrics.networks import cnn14
    from syncflow.evaluation.metrics.networks import imagebind as imagebind_network
    from syncflow.evaluation.metrics.networks import vggish as vggish_network

    n, allowed = networks, allow_torchscript
    vggish = {"vggish": vggish_network.NAME}
    bind = {
        "imagebind": imagebind_network.NAME,
        "clip_tokenizer": "CLIP's tokenizer (openai/clip-vit-base-patch32)",
    }
    return [
        ("FVD", {"i3d": fvd.NAME}, lambda: fvd.FVD(
            _given(n.i3d), device=device, allow_torchscript=allowed)),
        ("FAD", vggish, lambda: fad.FAD(_given(n.vggish), device=device)),
        ("KL", vggish | {"vggish_head": kl.HEAD},
         lambda: kl.KL(kl.by_vggish(_given(n.vggish), _given(n.vggish_head), device))),
        ("KL (PANNs)", {"panns": cnn14.NAME}, lambda: kl.KL(kl.by_panns(_given(n.panns), device))),
        ("KL (audio classifier)", {"audio_classifier": "a transformers audio classifier"},
         lambda: kl.KL(kl.by_transformers(_given(n.audio_classifier), device))),
        ("CLAP", {"clap": "a CLAP model (laion/clap-htsat-unfused)"},
         lambda: clap.CLAP(_given(n.clap), device)),
        ("IB", bind,
         lambda: imagebind.ImageBindScores(
             _given(n.imagebind), _given(n.clip_tokenizer), device=device)),
        ("DeSync", {"synchformer": desync.NAME},
         lambda: desync.DeSync(
            _given(n.synchformer), device, allow_torchscript=allowed)),
        ("AV-Align", {}, lambda: av_align.AVAlign()),
    ]  # fmt: skip


def world_factories(
    out: Path, levels: Sequence[int], settings: tuple[ProbeSettings, ProbeSettings] | None = None
) -> list[Factory]:
    """What needs the synthetic world and no download: its probes, kept beside ``out``, and sync."""
    from syncflow.evaluation.metrics import event_sync, probe_distance

    heard, looked, _ = load_probes(out.parent / "probes", levels, settings)
    return [
        ("FD (material probe)", {}, lambda: probe_distance.by_material(heard)),
        ("FD (colour probe)", {}, lambda: probe_distance.by_colour(looked)),
        ("sync", {}, lambda: event_sync.EventSync()),
    ]
