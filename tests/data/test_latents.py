"""Latents of raw shards, and the older format: what a batch holds."""

import pytest
import torch

from syncflow.clip import to_model
from syncflow.data import impacts_dataset
from syncflow.data.latents import Latents, encode
from syncflow.data.shards import ClipShards


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    impacts_dataset.write_dataset(
        folder, 5, height=32, width=32, container="shards", workers=1, progress=False
    )
    return ClipShards(folder)


def parts(encoders):
    return encoders.video_vae, encoders.audio_vae, encoders.text_encoder


def test_raw_shards_are_encoded_and_go_on_after_a_stop(
    raw, encoders, tmp_path, monkeypatch, capsys
) -> None:
    out = encode(raw, *parts(encoders), tmp_path / "a", batch_size=2, progress=False)
    latents = Latents(out)
    assert len(latents) == 5 and latents.spec.height == 32
    assert [latents.record(i)["caption"] for i in range(5)] == [raw.caption(i) for i in range(5)]

    real = type(encoders).rows
    calls = []

    def rows(self, video, audio, records):
        calls.append([record["clip"] for record in records])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, video, audio, records)

    monkeypatch.setattr(type(encoders), "rows", rows)
    for _ in range(2):
        try:
            encode(raw, *parts(encoders), tmp_path / "b", batch_size=2, progress=False)
        except KeyboardInterrupt:
            pass
    assert calls == [[0, 1], [2, 3], [2, 3], [4]]
    for path in out.iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()
    encode(raw, *parts(encoders), tmp_path / "b", batch_size=3, progress=False)
    assert "finished before, skipped" in capsys.readouterr().out and len(calls) == 4
    row = encoders.text_encoder.t5.embed_tokens.weight.data[5]
    before = row.clone()
    row += 1
    try:
        with pytest.raises(ValueError, match="other encoders"):
            encode(raw, *parts(encoders), tmp_path / "b", progress=False)
    finally:
        row.copy_(before)


def test_unknown_words_stand_in_captions(raw, encoders, tmp_path) -> None:
    out = encode(raw, *parts(encoders), tmp_path, progress=False, unknown_words=1.0)
    latents = Latents(out)
    made = [latents.record(i)["caption"] for i in range(5)]
    assert all(one != raw.caption(i) for i, one in enumerate(made))
    for i, caption in enumerate(made):
        own = set(raw.caption(i).split())
        assert own & set(caption.split()) and set(caption.split()) - own
    with pytest.raises(ValueError, match="other unknown_words: 1.0, expected 0.0"):
        encode(raw, *parts(encoders), tmp_path, progress=False)


def test_what_is_expected_of_latents_is_checked(raw, encoders, tmp_path) -> None:
    folder = encode(raw, *parts(encoders), tmp_path / "new", progress=False)
    new = Latents(folder)
    other = Latents(folder, expected={**new.manifest, "statistics": {
        name: [2 * x for x in values] for name, values in new.manifest["statistics"].items()
    }})  # fmt: skip
    assert torch.allclose(other.scale["video"][1], 2 * new.scale["video"][1])
    with pytest.raises(ValueError, match="other geometry"):
        Latents(folder, expected={**new.manifest, "geometry": {}})


def test_they_are_encoded_in_bfloat16_only_where_the_device_has_it(encoders, monkeypatch) -> None:
    video = torch.randint(256, (1, 8, 3, 32, 32), dtype=torch.uint8)
    exact = encoders.video_vae.encode(to_model(video)).mean.detach()
    audio = torch.zeros(1, 24000)
    record = {"caption": "a ball", "clip": 0}

    def error(has: bool) -> float:
        monkeypatch.setattr("syncflow.data.encoders.has_bfloat16", lambda device: has)
        made = encoders.rows(video, audio, [record]).arrays["video_mean"]
        return float((torch.from_numpy(made).float() - exact).abs().max() / exact.abs().max())

    assert error(False) < 1e-3 < 2e-3 < error(True)
