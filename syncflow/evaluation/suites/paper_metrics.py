"""What the paper's tables are measured with: the metrics, and the networks that they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from syncflow.config import Config
from syncflow.evaluation.metrics.metric import Metric
from syncflow.evaluation.probes.probe import ProbeSettings


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
    from syncflow.evaluation.suites.systems import load_probes

    heard, looked = load_probes(out.parent / "probes", levels, settings)
    return [
        ("FD (material probe)", {}, lambda: probe_distance.by_material(heard)),
        ("FD (colour probe)", {}, lambda: probe_distance.by_colour(looked)),
        ("sync", {}, lambda: event_sync.EventSync()),
    ]
