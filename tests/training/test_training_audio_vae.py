"""The audio VAE with its discriminator: it learns, resumes exactly, and reads any recordings."""

import numpy as np
import pytest
import torch
from made import VAE_LOOP, assert_same, lines, run, told, whole_and_cut
from safetensors.torch import load_file

from syncflow import impacts
from syncflow.clip import AUDIO_HOP, SAMPLE_RATE
from syncflow.data import impacts_dataset, media
from syncflow.data.recordings import Recordings
from syncflow.detect import fidelity
from syncflow.training import loop
from syncflow.training.checkpoints import checkpoint
from syncflow.training.distributed.groups import Group
from syncflow.training.losses import adversarial, reconstruction, spectral
from syncflow.training.losses.balance import Balancer
from syncflow.training.losses.discriminators import SpectralDiscriminator
from syncflow.training.settings import TrainConfig
from syncflow.training.tasks.audio_vae import AudioVAETraining

SMALL = {
    "kind": "encodec", "latent_channels": 8, "num_filters": 2, "num_lstm_layers": 1,
    "upsampling_ratios": [8, 6, 5, 4],
}  # fmt: skip
CRITIC = {"filters": 4, "lr": 0.002}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Sounds of impacts as files of three kinds, and a film with sound."""
    folder = tmp_path_factory.mktemp("sounds")
    for index, seed in enumerate(impacts.SEEDS["train"][:4]):
        scene = impacts.sample_scene(seed, 1)
        audio = torch.as_tensor(impacts.sound(scene)).float()
        media.write_wav(folder / f"{index}.wav", audio)
    encode(folder / "0.wav", folder / "4.flac", "flac")
    encode(folder / "1.wav", folder / "5.mp3", "libmp3lame")
    film = torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    media.write(folder / "6.mp4", film, torch.rand(48000) * 0.1, 8, SAMPLE_RATE)
    return folder


def encode(source, target, codec):
    import av

    with av.open(str(source)) as sound, av.open(str(target), "w") as out:
        stream = out.add_stream(codec, rate=SAMPLE_RATE)
        stream.layout = "mono"
        for frame in sound.decode(audio=0):
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)


def config(sounds, out, critic=CRITIC, loop=None, **changes):
    settings = {**VAE_LOOP, "lr": 0.002, **(loop or {})}
    return {
        "task": "audio_vae", "out": str(out), "data": str(sounds), "validation": str(sounds),
        "model": SMALL, "seconds": 0.1, "reconstruction": "mel", "wave_weight": 0.1,
        "windows": [512, 256], "adversarial": critic, "loop": settings, **changes,
    }  # fmt: skip


def test_recordings_of_every_kind_are_read_from_anywhere(sounds, capsys):
    (sounds / "7.mp3").write_bytes(b"no sound at all")
    found = Recordings(sounds, "sound", SAMPLE_RATE)
    (sounds / "7.mp3").unlink()
    assert [path.suffix for path in found.files] == [".wav"] * 4 + [".flac", ".mp3", ".mp4"]
    assert "1 files have no sound to read: 7.mp3" in capsys.readouterr().out
    whole = torch.as_tensor(impacts.sound(impacts.sample_scene(impacts.SEEDS["train"][0], 1)))
    for index, tolerance in ((0, 1e-4), (4, 1e-4)):
        piece = found.audio(index, 0.5, 4800)
        np.testing.assert_allclose(piece, whole[24000:28800].numpy(), atol=tolerance)
    late = found.audio(0, found.seconds(0) - 0.05, 4800)
    assert np.abs(late[:2400]).max() > 0 and not late[2500:].any()
    lossy, source = (torch.from_numpy(found.audio(i, 0.0, 96000))[None] for i in (5, 1))
    assert fidelity.si_sdr(lossy, source) > 10
    with pytest.raises(ValueError, match="has no picture in it"):
        Recordings(empty(sounds), "picture", SAMPLE_RATE)


@pytest.mark.parametrize("reconstruction", ["spectral", "mel"])
def test_levels_are_weighed_where_asked(sounds, tmp_path, reconstruction):
    totals, parts = [], []
    for weight in (0.0, 0.25):
        settings = config(
            sounds, tmp_path / "run", None, level_weight=weight, reconstruction=reconstruction
        )
        torch.manual_seed(0)
        task = AudioVAETraining(TrainConfig.parse({"run": settings}, "test").run)
        total, found = task.loss(task.batch(0), torch.Generator().manual_seed(0))
        totals.append(total.item())
        # No number is waited for in a step.
        assert all(isinstance(value, torch.Tensor) for value in found.values())
        parts.append({name: value.item() for name, value in found.items()})
    assert "level" not in parts[0] and parts[1]["level"] > 1
    assert totals[1] == pytest.approx(totals[0] + 0.25 * parts[1]["level"], rel=1e-5)


def test_a_level_is_a_level():
    sound = torch.randn(2, 4800) * torch.tensor([[0.1], [0.01]])
    found = reconstruction.level_difference(2 * sound, sound)
    torch.testing.assert_close(found, torch.full((2,), 6.02), atol=0.05, rtol=0)
    silent = reconstruction.level_difference(torch.zeros(1, 4800), torch.ones(1, 4800))
    torch.testing.assert_close(silent, torch.tensor([-70.0]))


def empty(sounds):
    folder = sounds / "empty"
    folder.mkdir(exist_ok=True)
    return folder


def test_distances_are_what_their_definitions_say():
    from transformers.audio_utils import mel_filter_bank

    theirs = mel_filter_bank(513, 80, 0, 24000, SAMPLE_RATE, norm=None, mel_scale="htk")
    np.testing.assert_allclose(fidelity.mel_filters(SAMPLE_RATE, 1024, 80), theirs.T, atol=1e-5)
    torch.manual_seed(0)
    x, noise = torch.randn(2, 9600), torch.randn(2, 9600)
    noise -= (noise * x).sum(1, keepdim=True) / x.square().sum(1, keepdim=True) * x
    noise *= (x.norm(dim=1) / noise.norm(dim=1))[:, None]
    found = fidelity.si_sdr(3 * (x + 0.1 * noise), x)
    torch.testing.assert_close(found, torch.full((2,), 20.0), atol=0.01, rtol=0)
    assert fidelity.si_sdr(torch.zeros_like(x), x).eq(-60).all()
    assert fidelity.si_sdr(x, torch.zeros_like(x)).isnan().all()
    assert fidelity.mel_distance(x, x) == 0
    assert fidelity.mel_distance(0.1 * x, x) == pytest.approx(20, abs=0.1)
    assert spectral.mel_distance(x, x, SAMPLE_RATE) < 1e-5
    near, far = (spectral.mel_distance(x + size * noise, x, SAMPLE_RATE) for size in (0.1, 0.3))
    assert 0 < near < far


def test_balanced_gradients_have_the_shares_of_their_weights():
    out = torch.randn(4, 100, requires_grad=True)

    def losses():
        return {"big": 1e4 * out.square().mean(), "small": 1e-4 * (out - 3).abs().mean()}

    balancer = Balancer({"big": 1.0, "small": 3.0})
    total = balancer(losses(), out)
    value = losses()["big"] + 3 * losses()["small"]
    assert total.item() == pytest.approx(value.item(), rel=1e-5)
    total.backward()
    units = []
    for loss in losses().values():
        (grad,) = torch.autograd.grad(loss, out)
        units.append(grad / grad.norm(dim=1).mean())
    torch.testing.assert_close(out.grad, (0.25 * units[0] + 0.75 * units[1]) / len(out))
    before = balancer.norms.clone()
    balancer({"big": float("nan") * out.sum(), "small": losses()["small"]}, out)
    assert torch.isfinite(balancer.norms).all() and balancer.norms[0] == before[0]


def test_the_discriminator_learns_to_tell_and_leads_the_other():
    torch.manual_seed(0)
    judge = SpectralDiscriminator([256, 64], 4)
    real = torch.sin(torch.arange(4800) / 7).expand(2, -1)
    fake = (0.3 * torch.randn(2, 4800)).requires_grad_()
    optimizer = torch.optim.Adam(judge.parameters(), 0.01)
    first = adversarial.of_discriminator(judge(real), judge(fake.detach())).item()
    for _ in range(12):
        loss = adversarial.of_discriminator(judge(real), judge(fake.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * first
    features = adversarial.of_features(judge(real), judge(fake))
    (features + adversarial.of_generator(judge(fake))).backward()
    assert fake.grad.abs().max() > 0 and adversarial.of_features(judge(real), judge(real)) == 0


def test_it_learns_the_sounds_of_impacts(sounds, tmp_path):
    values = config(sounds, tmp_path / "run", loop={"steps": 40, "batch_size": 2, "lr": 0.006},
                    samples_every=40)  # fmt: skip
    fresh = AudioVAETraining(TrainConfig.parse({"run": values}).run)
    with torch.no_grad():
        before = fresh.validate(fresh.module)
    run(values, tmp_path)
    after = {key: told(tmp_path / "run", f"val_{key}")[-1] for key in ("mel_db", "si_sdr_db")}
    assert after["mel_db"] < before["mel_db"] - 1
    assert {"adversarial", "features", "recon", "wave", "kl"} <= set(lines(tmp_path / "run")[0])
    written = sorted((tmp_path / "run" / "samples").iterdir())
    assert [path.suffix for path in written] == [".wav"] * 4
    assert told(tmp_path / "run", "val_f1_50")[-1] >= 0


def test_a_resumed_run_has_its_discriminator_back_bit_for_bit(sounds, tmp_path):
    critic = {**CRITIC, "start": 1, "update_share": 0.7}
    one, two = whole_and_cut(lambda out, loop: config(sounds, out, critic, loop), tmp_path)
    assert_same(one, two)
    kinds = {name.partition("/")[0] for name in one}
    assert {"critic", "critic_step", "critic_exp_avg", "critic_exp_avg_sq"} <= kinds
    assert not any(name.startswith("critic") for name in one.weights())
    assert any(one[k].ne(0).any() for k in one if k.startswith("critic/balancer.norms"))


def test_no_discriminator_before_its_start(sounds, tmp_path):
    with_it = config(sounds, tmp_path / "late", {**CRITIC, "start": 4})
    run(with_it, tmp_path)
    run(config(sounds, tmp_path / "never", None), tmp_path)
    late, never = (load_file(tmp_path / n / "model.safetensors") for n in ("late", "never"))
    assert all(torch.equal(late[name], never[name]) for name in never)


def test_a_step_that_is_not_finite_changes_neither(sounds, tmp_path, monkeypatch):
    plain = AudioVAETraining._on_device

    def poisoned(self, pieces):
        made = plain(self, pieces)
        poisoned.calls += 1
        return made * float("nan") if poisoned.calls == 2 else made

    poisoned.calls = 0
    monkeypatch.setattr(AudioVAETraining, "_on_device", poisoned)
    run(config(sounds, tmp_path / "run"), tmp_path)
    saved = checkpoint.newest(tmp_path / "run")
    assert saved.about["skipped"] == 1
    assert all(torch.isfinite(saved[name]).all() for name in saved)
    assert {int(saved[n]) for n in saved if n.startswith("critic_step")} == {3}


def test_training_begins_at_the_outputs_of_a_published_encodec(sounds, tmp_path):
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    published = EncodecModel(
        EncodecConfig(
            sampling_rate=SAMPLE_RATE, num_filters=2, hidden_size=8, num_lstm_layers=1,
            upsampling_ratios=[8, 6, 5, 4], use_causal_conv=False, codebook_size=8,
        )
    )  # fmt: skip
    parts = [*published.encoder.parameters(), *published.decoder.parameters()]
    optimizer = torch.optim.Adam(parts, 0.003)
    source = Recordings(sounds, "sound", SAMPLE_RATE)
    audio = torch.from_numpy(np.stack([source.audio(i, 0.3, 4800) for i in range(4)]))
    for _ in range(10):  # trained: its outputs are not those of any fresh one
        made = published.decoder(published.encoder(audio[:, None]))[:, 0]
        loss = spectral.mel_distance(made, audio, SAMPLE_RATE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    published.save_pretrained(tmp_path / "encodec")
    values = config(sounds, tmp_path / "run", init_encodec=str(tmp_path / "encodec"))
    training = AudioVAETraining(TrainConfig.parse({"run": values}).run)
    with torch.no_grad():
        theirs = published.decoder(published.encoder(audio[:, None]))[:, 0]
        ours = training.module.decode(training.module.encode(audio).mode())
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"windows": [16384]}, "windows has 16384 samples"),
        ({"band_weight": 1.0}, 'band_weight is of reconstruction "spectral"'),
        ({"init": "a", "init_encodec": "b"}, "both say what to start from"),
        ({"model": {"kind": "spectral"}, "init_encodec": "b"}, 'model.kind "encodec"'),
        ({"adversarial": {"weight": float("nan")}}, "weight"),
        ({"adversarial": {"betas": [0.5, 1.0]}}, "betas"),
    ],
)
def test_what_cannot_be_is_refused(sounds, tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        TrainConfig.parse({"run": config(sounds, tmp_path / "run", **changes)})


def test_a_damaged_recording_does_not_end_a_run(sounds, tmp_path, capsys, monkeypatch):
    training = AudioVAETraining(TrainConfig.parse({"run": config(sounds, tmp_path / "run")}).run)
    plain = Recordings.audio

    def audio(self, index, start, samples):
        if index == 2:
            raise ValueError("cannot decode '2.wav': it is damaged")
        return plain(self, index, start, samples)

    monkeypatch.setattr(Recordings, "audio", audio)
    rng = np.random.default_rng(0)
    assert training._crop(2, rng).shape == (4800,)
    training._crop(2, rng)
    assert capsys.readouterr().out.count("the next recording stands in for it") == 1


def test_the_old_kind_of_training_has_no_critic(sounds, tmp_path):
    values = config(sounds, tmp_path / "run", None, reconstruction="spectral")
    training = AudioVAETraining(TrainConfig.parse({"run": values}).run)
    batch = training.batch(0)
    total, parts = training.loss(batch, torch.Generator().manual_seed(0))
    expected = parts["recon"] + 0.1 * parts["wave"] + 1e-4 * parts["kl"]
    assert total.item() == pytest.approx(float(expected), rel=1e-5) and training.judge() is None
    assert loop.engine.build(training, training.config.loop, training.group).state()


def test_several_folders_are_heard_by_their_shares(tmp_path):
    """Three folders of one clip each, of which one has no share worth the name and one four times
    the other's."""
    names = ["often", "seldom", "never"]
    render(tmp_path / "clips", 9)
    for seed, name in enumerate(names):
        render(tmp_path / name, seed)
    data = [
        {"data": str(tmp_path / name), "share": share}
        for name, share in zip(names, (4, 1, 1e-6), strict=True)
    ]
    task = training_of_shards(tmp_path, data)
    whole = [torch.from_numpy(task.train.folders[i].clips.audio(0)) for i in range(3)]
    drawn = []
    for index in range(30):
        for sound in task.batch(index).originals:
            drawn.append(next(i for i, audio in enumerate(whole) if is_part(sound, audio)))
    often, seldom, never = (drawn.count(i) for i in range(3))
    assert never == 0 and 2.5 < often / seldom < 6.5
    assert torch.equal(task.batch(3).originals, task.batch(3).originals)
    with pytest.raises(ValueError, match=r"often has clips of 2 s, and a crop is 3 s"):
        training_of_shards(tmp_path, data, seconds=3.0)
    with pytest.raises(ValueError, match=r"seldom has clips of 2 s, and a crop is 3 s"):
        training_of_shards(tmp_path, data[1]["data"], seconds=3.0)


def test_every_clip_of_a_folder_is_heard_from_every_place_and_never_louder(tmp_path):
    render(tmp_path / "clips", 0, clips=3)
    task = training_of_shards(tmp_path, [{"data": str(tmp_path / "clips")}], seconds=1.5)
    clips = task.train.folders[0].clips
    whole = [torch.from_numpy(clips.audio(row)) for row in range(3)]
    places, gains = set(), []
    for index in range(12):
        for sound in task.batch(index).originals:
            row, first, gain = place_of(sound, whole)
            places.add((row, first))
            gains.append(gain)
    assert {row for row, _ in places} == {0, 1, 2} and len({first for _, first in places}) > 8
    assert max(gains) <= 1.001 and min(gains) > 0.5 and max(gains) - min(gains) > 0.2


def test_processes_hear_their_own_share_of_several_folders(tmp_path):
    render(tmp_path / "clips", 0, clips=3)
    data = [{"data": str(tmp_path / "clips")}]
    alone = training_of_shards(tmp_path, data, loop={"randomness": "sample"})
    whole = alone.batch(2).originals
    for rank in range(2):
        group = Group(rank, 2)
        half = training_of_shards(tmp_path, data, loop={"randomness": "sample"}, group=group)
        part = half.batch(2).originals
        count = len(whole) // 2
        assert torch.equal(part, whole[rank * count :][:count])


def test_folders_of_pictures_latents_or_of_another_rate_are_refused(tmp_path):
    render(tmp_path / "clips", 0)
    entry = {"data": str(tmp_path / "clips")}
    with pytest.raises(ValueError, match="of pictures; leave made out"):
        training_of_shards(tmp_path, [{**entry, "made": "anything"}])
    with pytest.raises(ValueError, match="has 48000 Hz, and the model 24000"):
        training_of_shards(tmp_path, [entry], rate=24000)
    with pytest.raises(ValueError, match="has no strike"):
        training_of_shards(tmp_path, [{**entry, "kinds": {"strike": 2}}])


def render(folder, seed, clips=1):
    impacts_dataset.write_dataset(
        folder, clips, seed=seed, height=16, width=16, container="shards", workers=1, progress=False
    )


def is_part(sound, audio):
    """Whether a crop is a louder or quieter piece of a clip."""
    return place_of(sound, [audio]) is not None


def place_of(sound, sounds):
    """The clip that a crop is of, where it begins, and how much louder it is."""
    length = len(sound)
    for row, audio in enumerate(sounds):
        for first in range(0, len(audio) - length + 1, AUDIO_HOP):
            piece = audio[first : first + length]
            gain = sound.norm() / piece.norm()
            if (sound - gain * piece).norm() < 1e-3 * sound.norm():
                return row, first, float(gain)
    return None


def training_of_shards(tmp_path, data, rate=SAMPLE_RATE, seconds=1.9, loop=None, group=None):
    settings = config(
        tmp_path, tmp_path / "out", None, loop, data=data, validation=str(tmp_path / "clips"),
        seconds=seconds, model={**SMALL, "sample_rate": rate},
    )  # fmt: skip
    run = TrainConfig.parse({"run": settings}, "test").run
    return AudioVAETraining(run, group=group)
