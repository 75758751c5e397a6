"""Metrics of the paper's tables: a worse system scores worse, mixed-up inputs are caught."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import stand_ins
import torch

from syncflow.clip import Clip
from syncflow.evaluation.metrics import (
    av_align,
    clap,
    fad,
    fvd,
    imagebind,
    kl,
    probe_distance,
)
from syncflow.evaluation.metrics.metric import Mean, Pair, picture, resized, sound
from syncflow.evaluation.probes.probe import Probe

RATE, FPS = 48000, 16

# The files of these tests are programs of our own.
FVD = partial(fvd.FVD, allow_torchscript=True)


def tone(index: int, seconds: float = 2.0, noise: float = 0.0) -> torch.Tensor:
    """Another pitch and loudness for every index."""
    t = torch.arange(round(seconds * RATE)) / RATE
    wave = 0.3 * torch.sin(2 * np.pi * (200 + 170 * index) * t) * torch.exp(-(1 + index % 3) * t)
    return wave + noise * torch.randn(len(t), generator=torch.Generator().manual_seed(index))


def shade(index: int, seconds: float = 2.0, dark: float = 1.0) -> torch.Tensor:
    """A grey square that moves, another one for every index."""
    frames = torch.full((round(seconds * FPS), 3, 32, 32), 40 + 20 * (index % 5), dtype=torch.uint8)
    for f in range(len(frames)):
        x = (f * (1 + index % 4)) % 24
        frames[f, index % 3, 8:16, x : x + 8] = int(dark * (120 + 10 * (index % 13)))
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module")
def pairs():
    """Eight clips that are nearly the real ones."""
    return [
        Pair(Clip(shade(i), tone(i, noise=1e-5)), Clip(shade(i), tone(i)), "a metal ball rings")
        for i in range(8)
    ]


def worse_sound(pairs, noise):
    return [replace(p, generated=Clip(p.generated.video, tone(i, noise=noise)))
            for i, p in enumerate(pairs)]  # fmt: skip


def mixed(pairs, real=False):
    """Every clip beside the next one's real clip, or the sounds of the next beside its picture."""
    turned = pairs[1:] + pairs[:1]
    if real:
        return [replace(p, real=q.real) for p, q in zip(pairs, turned, strict=True)]
    return [
        replace(p, generated=Clip(p.generated.video, q.generated.audio))
        for p, q in zip(pairs, turned, strict=True)
    ]


def value(metric, pairs, name=None):
    metric.update(pairs[:3])
    metric.update(pairs[3:])
    results = {result.name: result for result in metric.results()}
    result = results[name] if name else next(iter(results.values()))
    assert result.clips == len(pairs) and result.facts
    assert result.value[1] <= result.value[0] <= result.value[2]
    return result.value[0]


def test_fad(folder, pairs):
    weights = stand_ins.vggish(folder)
    values = [value(fad.FAD(weights, replicas=5), p)
              for p in (pairs, worse_sound(pairs, 0.05), worse_sound(pairs, 0.5))]  # fmt: skip
    assert values == sorted(values) and values[2] > 2 * values[0]
    # A sample rate that is told wrongly, the field's most common mistake, shows.
    wrong = [replace(p, generated=Clip(p.generated.video, p.generated.audio, FPS, 24000))
             for p in pairs]  # fmt: skip
    assert value(fad.FAD(weights, replicas=0), wrong) > 2 * values[0]
    # So do sets that were made in two ways.
    first = fad.FAD(weights, replicas=0)
    first.update(pairs)
    with pytest.raises(ValueError, match="preprocessing"):
        value(fad.FAD(weights, reference=first.real, hop_seconds=0.48, replicas=0), pairs)
    with pytest.raises(ValueError, match="needs the real clip"):
        fad.FAD(weights).update([replace(pairs[0], real=None)])
    # Against a reference that was measured before, no real clips are needed.
    alone = [replace(p, real=None) for p in pairs]
    again = fad.FAD(weights, reference=first.real, replicas=0)
    assert value(again, alone) == pytest.approx(values[0], rel=1e-6)


@pytest.mark.parametrize("network", [stand_ins.I3D, stand_ins.PlainI3D])
def test_fvd(folder, pairs, network):
    weights = stand_ins.script(network(), folder)
    pairs = pairs[:4]
    darker = [replace(p, generated=Clip(shade(i, dark=0.5), p.generated.audio))
              for i, p in enumerate(pairs)]  # fmt: skip
    good, bad = (value(FVD(weights, replicas=3), p) for p in (pairs, darker))
    assert good == pytest.approx(0, abs=1e-6) and bad > 1e-3
    metric = FVD(weights)
    with pytest.raises(ValueError, match="one length"):
        metric.update([pairs[0], replace(pairs[1], generated=Clip(shade(1, 1.0), tone(1, 1.0)))])
    # Pictures of another frame rate are another metric, and are refused.
    metric = FVD(weights, replicas=0)
    slow = [replace(p, real=replace(p.real, fps=8)) for p in pairs[:3]]
    metric.update(slow)
    with pytest.raises(ValueError, match="frames"):
        metric.results()
    short = [replace(p, generated=Clip(p.generated.video[:8], p.generated.audio)) for p in pairs]
    with pytest.raises(ValueError, match="at least 10 frames"):
        FVD(weights).update(short)


def classifiers(folder):
    yield "KL", kl.by_vggish(stand_ins.vggish(folder), stand_ins.head(folder))
    yield "KL (PANNs)", kl.by_panns(stand_ins.cnn14(folder))


def test_kl(folder, pairs):
    for name, classifier in classifiers(folder):
        good, bad, swapped = (
            value(kl.KL(classifier), p, name)
            for p in (pairs, worse_sound(pairs, 0.5), mixed(pairs, real=True))
        )
        assert 0 <= good < bad and good < swapped
        same = [replace(p, generated=p.real) for p in pairs]
        assert value(kl.KL(classifier), same) == pytest.approx(0, abs=1e-9)


def test_kl_says_which_way():
    """KL(real || generated): where the real one is sure and the generated is not, ln 2."""
    sure, unsure = torch.tensor([100.0, 0.0]), torch.zeros(2)
    classifier = kl.Classifier("VGGish", 48000, lambda a: sure if a[0] > 0 else unsure, {})
    real = Clip(shade(0), torch.ones(96000) * 0.1)
    made = Clip(shade(0), -torch.ones(96000) * 0.1)
    metric = kl.KL(classifier)
    metric.update([Pair(made, real, "x")])
    assert metric.results()[0].value[0] == pytest.approx(np.log(2))
    swapped = kl.KL(classifier)
    swapped.update([Pair(real, made, "x")])
    assert swapped.results()[0].value[0] > 10


def test_kl_by_a_transformers_classifier(folder, pairs):
    classifier = kl.by_transformers(str(stand_ins.audio_classifier(folder)))
    assert classifier.rate == 16000
    name = "KL (ASTForAudioClassification)"
    good, swapped = (value(kl.KL(classifier), p, name) for p in (pairs[:4], mixed(pairs[:4], True)))
    assert good < swapped
    with pytest.raises(FileNotFoundError, match="no audio classifier"):
        kl.by_transformers(str(folder / "nothing"))
    with pytest.raises(ValueError, match="shapes"):
        torch.save({"weight": torch.zeros(3, 128), "bias": torch.zeros(2)}, folder / "bad.pt")
        kl.by_vggish(folder / "vggish.pth", folder / "bad.pt")


def test_clap(folder, pairs):
    """Random weights know no meaning: each sound gets the caption that they score highest for it,
    and mixing captions up, or swapping sounds, must then lower the mean."""
    model = str(stand_ins.clap(folder))
    prompts = ["metal bell rings", "wood ball", "the a the a", "bell bell wood"]

    def score(chosen):
        metric = clap.CLAP(model)
        metric.update(chosen)
        return metric.results()[0].value[0]

    table = np.array([[score([replace(p, prompt=q)]) for q in prompts] for p in pairs[:4]])
    assert np.abs(table).max() <= 1 and (np.ptp(table, axis=1) > 0).all()
    best, worst = table.argmax(1), table.argmin(1)
    right = [replace(p, prompt=prompts[i]) for p, i in zip(pairs, best, strict=False)]
    wrong = [replace(p, prompt=prompts[i]) for p, i in zip(pairs, worst, strict=False)]
    # In one batch, with padding, as one by one: no sound meets another's caption.
    assert score(right) == pytest.approx(table.max(1).mean(), abs=1e-5)
    assert score(wrong) == pytest.approx(table.min(1).mean(), abs=1e-5)
    assert score(wrong) < score(right)
    with pytest.raises(FileNotFoundError, match="no CLAP model"):
        clap.CLAP(str(folder / "nothing"))


def test_imagebind(folder, pairs):
    weights, words = stand_ins.imagebind(folder), str(stand_ins.clip_tokenizer(folder))
    metric = imagebind.ImageBindScores(weights, words)
    metric.update(pairs[:4])
    scores = {result.name: result.value[0] for result in metric.results()}
    assert set(scores) == set(imagebind.PAIRS) and all(abs(v) < 1.0001 for v in scores.values())
    # Nearly the real sound against the real sound; noise, and another clip's sound, are farther.
    name = "IB (Gen-A&GT-A)"
    for bad in (worse_sound(pairs, 0.5), mixed(pairs)):
        other = imagebind.ImageBindScores(weights, words, [name])
        other.update(bad[:4])
        assert other.results()[0].value[0] < scores[name]
    # The pictures are the real ones: each pair of names must be one number, and another not.
    assert scores["IB (Gen-V&GT-T)"] == pytest.approx(scores["IB (GT-V&GT-T)"])
    assert scores["IB (Gen-A&GT-V)"] == pytest.approx(scores["IB (Gen-A&Gen-V)"])
    assert scores["IB (Gen-A&GT-T)"] != pytest.approx(scores["IB (Gen-V&GT-T)"], abs=1e-4)
    with pytest.raises(ValueError, match="unknown pair"):
        imagebind.ImageBindScores(weights, words, ["IB (A&B)"])


def test_imagebind_inputs():
    assert imagebind.starts(2.0, 5) == [0.0] and imagebind.starts(1.0, 3) == [0.0]
    assert imagebind.starts(10.0, 5) == [0, 2, 4, 6, 8]
    square = imagebind.frames(Clip(shade(1), tone(1)))
    assert square.shape == (1, 3, 2, 224, 224)
    wide = Clip(torch.randint(0, 255, (80, 3, 32, 64), dtype=torch.uint8), tone(1, 5.0))
    assert imagebind.frames(wide).shape == (15, 3, 2, 224, 224)
    assert imagebind.banks(wide).shape == (3, 1, 128, 204)
    # First and last frame of the window.
    mean, std = imagebind._RGB_MEAN[0], imagebind._RGB_STD[0]
    video = torch.zeros(32, 3, 32, 32, dtype=torch.uint8)
    video[0], video[-1] = 255, 51
    found = imagebind.frames(Clip(video, tone(0)))[0, 0, :, 0, 0]
    assert (found * std + mean).tolist() == pytest.approx([1.0, 0.2], abs=1e-6)


def test_probe_distances():
    """The worlds' probes by the same road: a small network stands in for each."""
    torch.manual_seed(0)

    def fake(width):
        layers = torch.nn.Sequential(torch.nn.Linear(width, 8), torch.nn.ReLU(),
                                     torch.nn.Linear(8, 4))  # fmt: skip
        return Probe(layers, "abcd", {"accuracy": 0.9, "fingerprint": "x"})

    real = [Clip(shade(i), tone(i)) for i in range(12)]

    def score(made, name):
        metric = probe_distance.ProbeDistance(
            "test", fake(3), lambda clip: clip.video.float().mean((0, 2, 3)) / 50, True, {}, 5
        )
        metric.update([Pair(a, b, "") for a, b in zip(made, real, strict=True)])
        return {r.name: r.value[0] for r in metric.results()}[name]

    torch.manual_seed(0)
    darker = [Clip(shade(i, dark=0.2), tone(i)) for i in range(12)]
    turned = real[1:] + real[:1]
    for name in ("FD (test probe)", "KL (test probe)"):
        torch.manual_seed(0)
        assert score(real, name) == pytest.approx(0, abs=1e-9)
        torch.manual_seed(0)
        assert score(darker, name) > 1e-6
    torch.manual_seed(0)
    # The set is the same, the pairs are not: only the paired metric may notice.
    assert score(turned, "FD (test probe)") == pytest.approx(0, abs=1e-9)
    torch.manual_seed(0)
    assert score(turned, "KL (test probe)") > 1e-6


def test_mean_and_inputs():
    mean, values = Mean(), np.random.default_rng(0).normal(5, 2, 400)
    for v in values:
        mean.add(v)
    centre, low, high = mean.value()
    assert centre == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std(ddof=1) / 20)
    with pytest.raises(ValueError):
        mean.add(float("nan"))
    with pytest.raises(ValueError):
        Mean().value()
    clip = Clip(shade(1), tone(1))
    assert sound(clip, 16000).shape == (32000,) and torch.equal(sound(clip, RATE), clip.audio)
    assert picture(clip, 8).shape[0] == 16 and torch.equal(picture(clip, 8)[3], clip.video[6])
    assert resized(clip.video, 224).shape == (32, 3, 224, 224)
    with pytest.raises(ValueError, match="finite"):
        sound(replace(clip, audio=torch.full((10,), float("nan"))), 16000)


def test_chance_depends_on_the_clips_and_not_on_their_batches_or_order(monkeypatch):
    pytest.importorskip("librosa")
    pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    clips = [Clip(torch.full((8, 3, 8, 8), i, dtype=torch.uint8), torch.zeros(4)) for i in range(6)]
    heard = rng.uniform(0, 2, (6, 9))
    seen = rng.uniform(0, 2, (6, 9))
    sounds = iter(())
    monkeypatch.setattr(av_align, "flow", lambda video: int(video[0, 0, 0, 0]))
    monkeypatch.setattr(av_align, "peaks", lambda index, fps: list(seen[index]))
    monkeypatch.setattr(av_align, "onsets", lambda audio: list(heard[next(sounds)]))

    def chance(order, batch):
        nonlocal sounds
        sounds = iter(order)
        metric = av_align.AVAlign()
        for first in range(0, 6, batch):
            metric.update([Pair(clips[i], None, "") for i in order[first : first + batch]])
        return {result.name: result.value[0] for result in metric.results()}

    first = chance(range(6), 6)
    assert first["AV-Align, shuffled"] > 0
    for order, batch in (((5, 0, 3, 1, 4, 2), 6), (range(6), 1), ((5, 0, 3, 1, 4, 2), 4)):
        assert chance(order, batch) == pytest.approx(first)


def test_one_clip_has_no_frechet_distance(folder, pairs):
    metric = fad.FAD(stand_ins.vggish(folder), replicas=0)
    metric.update(pairs[:1])
    with pytest.raises(ValueError, match="at least 2 clips"):
        metric.results()


def test_clap_with_fusion_is_refused(folder):
    """It listens to crops that are chosen at random."""
    import json
    import shutil

    model = Path(stand_ins.clap(folder))
    other = shutil.copytree(model, folder / "fusion")
    config = json.loads((other / "config.json").read_text())
    config["audio_config"]["enable_fusion"] = True
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="with fusion.*chosen at random"):
        clap.CLAP(str(other))
