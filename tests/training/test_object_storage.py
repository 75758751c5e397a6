"""Latents in an object store: copies are what lies there, and train as they do on a disk."""

import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from made import assert_same, flow_config, run, told, whole_and_cut, write_latents
from test_distributed import free_port, start

from syncflow import durable
from syncflow.data import latent_sources
from syncflow.data.latent_sources import Cache
from syncflow.data.latents import Latents
from syncflow.training.checkpoints import checkpoint
from syncflow.training.datasets.buckets import epoch_indices
from syncflow.training.settings import TrainConfig

ROOT = Path(__file__).parents[2]
LOOP = {"steps": 4, "randomness": "sample", "log_every": 1, "prefetch": 2, "readers": 2}


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return write_latents(tmp_path_factory.mktemp("local") / "latents", 12, shards=4)


@pytest.fixture(scope="module")
def s3(latents):
    """The latents in a bucket of a server that speaks S3."""
    server_module = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "made-up")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        files = s3fs.S3FileSystem()
        files.mkdir("bucket")
        files.put(str(latents), "bucket/latents", recursive=True)
        yield "s3://bucket/latents"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def memory(latents, monkeypatch):
    """The same in a store that is quick to ask and easy to break."""
    import fsspec

    files = fsspec.filesystem("memory")
    files.put(str(latents) + "/", "/latents", recursive=True)
    monkeypatch.setattr(latent_sources, "_WAITS", (0.0, 0.0))
    yield files
    files.rm("/latents", recursive=True)


def config(data, out, loop, cache=None):
    storing = {"cache": {"folder": str(cache)}} if cache else {}
    return flow_config(data, out, "both", {**LOOP, **loop}, shuffle_shards=2, **storing)


def copies(cache):
    return sorted(cache.glob("*/shard_*.safetensors"))


def test_training_from_s3_is_training_from_the_disk_and_goes_on_bit_for_bit(s3, latents, tmp_path):
    cache = tmp_path / "cache"

    def streamed(out, loop):
        if loop["steps"] == 4 and out.name == "cut":
            shutil.rmtree(cache)  # goes on elsewhere, where there is no copy yet
        return config(s3, out, loop, cache)

    whole, cut = whole_and_cut(streamed, tmp_path)
    assert_same(whole, cut)
    loop = {"steps": 4, "checkpoint_every": 2, "decay": 0.0}
    run(config(latents, tmp_path / "local", loop), tmp_path)
    for key in ("loss", "val_video", "val_audio_other"):
        assert told(tmp_path / "whole", key) == told(tmp_path / "local", key) != []
    assert_same(checkpoint.newest(tmp_path / "local"), whole)
    rows, found = np.arange(12), Latents(s3, cache=Cache(cache))
    ours, theirs = (
        each.batch(rows, np.random.default_rng(3)) for each in (Latents(latents), found)
    )
    assert all(ours[key].equal(theirs[key]) for key in ours)
    made = {path.name: path.read_bytes() for path in copies(cache)}
    assert len(made) == 4
    assert all((latents / name).read_bytes() == data for name, data in made.items())


@pytest.mark.slow
def test_killed_while_it_streams_it_goes_on(s3, latents, tmp_path):
    loop = {"steps": 40, "checkpoint_every": 3, "decay": 0}
    run(config(latents, tmp_path / "whole", loop), tmp_path)
    values = config(s3, tmp_path / "run", loop, tmp_path / "cache")
    (tmp_path / "run.json").write_text(json.dumps(values))
    arguments = [str(ROOT / "syncflow/train.py"), "--config", str(tmp_path / "run.json")]
    process = start([*arguments, "--device", "cpu"], 0, free_port(), world=1)
    deadline = time.monotonic() + 120
    while not checkpoint.folders(tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert checkpoint.folders(tmp_path / "run")
    run(values, tmp_path)
    assert told(tmp_path / "run", "loss")[-1] == told(tmp_path / "whole", "loss")[-1]


def test_shards_are_copied_when_they_are_read_and_no_more_than_there_is_room(memory, tmp_path):
    size = memory.size("/latents/shard_00000.safetensors")
    cache = Cache(tmp_path, gib=2.2 * size / 2**30)
    found = Latents("memory://latents", cache=cache)
    assert [path.name for path in copies(tmp_path)] == ["shard_00000.safetensors"]
    whole = [found.batch(np.array([row]), None)["audio"] for row in range(12)]
    assert [path.name for path in copies(tmp_path)][-1] == "shard_00003.safetensors"
    assert len(copies(tmp_path)) <= 2 and len(found._shards._open) == 1
    again = [found.batch(np.array([row]), None)["audio"] for row in range(12)]
    assert all(one.equal(two) for one, two in zip(whole, again, strict=True))
    with pytest.raises(ValueError, match="cache.gib is .*shuffle_shards"):
        found.place.require_room()


def test_a_store_that_fails_for_a_moment_is_asked_again(memory, tmp_path, monkeypatch):
    real, calls = type(memory).get_file, []

    def flaky(self, remote, local, **options):
        calls.append(remote)
        if len(calls) < 3:
            Path(local).write_bytes(b"half")
            if len(calls) == 1:
                raise TimeoutError("no answer")
            return None  # what came is not what lies there
        return real(self, remote, local, **options)

    monkeypatch.setattr(type(memory), "get_file", flaky)
    assert len(Latents("memory://latents", cache=Cache(tmp_path))) == 12 and len(calls) == 3
    shutil.rmtree(tmp_path)
    calls.clear()
    monkeypatch.setattr(type(memory), "get_file", lambda self, remote, local, **_: 1 / 0)
    with pytest.raises(OSError, match="'memory://latents' cannot be read: division"):
        Latents("memory://latents", cache=Cache(tmp_path))
    assert not copies(tmp_path)


def test_what_lies_there_wrong_is_one_line_with_its_address(memory, latents, tmp_path):
    cache = Cache(tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished latents in memory://nothing"):
        Latents("memory://nothing", cache=cache)
    with pytest.raises(ValueError, match="'nowhere://a/b' is in no store"):
        Latents("nowhere://a/b", cache=cache)
    spoilt = bytearray((latents / "shard_00001.safetensors").read_bytes())
    spoilt[-3] ^= 1
    memory.pipe_file("/latents/shard_00001.safetensors", bytes(spoilt))
    found = Latents("memory://latents", cache=cache)
    with pytest.raises(ValueError, match="memory://latents/shard_00001.safetensors' cannot be use"):
        found.batch(np.array([5]), None)
    memory.rm_file("/latents/shard_00002.safetensors")
    with pytest.raises(ValueError, match="shard_00002.safetensors' is missing"):
        Latents("memory://latents", cache=cache)


def test_latents_made_anew_under_the_same_address_are_copied_anew(memory, tmp_path):
    cache = Cache(tmp_path / "cache")
    before = Latents("memory://latents", cache=cache).batch(np.array([0]), None)
    other = write_latents(tmp_path / "other", 12, shards=3)
    memory.rm("/latents", recursive=True)
    memory.put(str(other) + "/", "/latents", recursive=True)
    after = Latents("memory://latents", cache=cache)
    assert after.counts == (4, 4, 4) and len(list((tmp_path / "cache").iterdir())) == 2
    assert after.batch(np.array([0]), None)["audio"].equal(before["audio"])


def _cut(path, data):
    path.write_bytes(data[: len(data) // 2])


def _flip(path, data):
    path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])


@pytest.mark.parametrize("spoil", [_cut, _flip, lambda path, data: path.write_bytes(b"")])
def test_a_damaged_copy_is_copied_anew(memory, latents, tmp_path, spoil):
    cache = Cache(tmp_path)
    Latents("memory://latents", cache=cache).batch(np.arange(12), None)
    for path in copies(tmp_path):
        spoil(path, path.read_bytes())
    (manifest,) = tmp_path.glob("*/manifest.json")
    manifest.write_text("{")
    found = Latents("memory://latents", cache=cache).batch(np.arange(12), None)
    expected = Latents(latents).batch(np.arange(12), None)
    assert all(found[key].equal(expected[key]) for key in found)
    for path in copies(tmp_path):
        assert path.read_bytes() == (latents / path.name).read_bytes()


def test_a_copy_is_read_in_full_once_by_a_process_and_a_cut_one_always_told(memory, tmp_path):
    size = memory.size("/latents/shard_00000.safetensors")
    cache = Cache(tmp_path, gib=5 * size / 2**30)
    Latents("memory://latents", cache=cache).batch(np.arange(12), None)
    real, read = latent_sources.Shard.verify, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_sources.Shard, "verify", lambda s: (read.append(s.path.name), real(s)))
        found = Latents("memory://latents", cache=Cache(tmp_path, gib=1e-9))  # one open at a time
        for _ in range(2):
            for row in range(12):
                found.batch(np.array([row]), None)
    assert sorted(read) == [path.name for path in copies(tmp_path)]
    first = copies(tmp_path)[0]
    made = first.read_bytes()
    first.unlink()  # not cut in place: some of it may be mapped
    _cut(first, made)
    found.batch(np.array([0]), None)
    assert first.read_bytes() == made


def test_a_copy_that_another_process_removes_is_copied_again(memory, tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    Latents("memory://latents", cache=cache)
    real, removed = latent_sources.Shard.__init__, []

    def evicting(self, path, header=None):
        if path.parent.parent == tmp_path and len(removed) < 2:
            removed.append(path)
            path.unlink(missing_ok=True)
        real(self, path, header)

    def touch(path):
        Path(path).unlink()  # just after it was opened
        raise FileNotFoundError(errno.ENOENT, "No such file", str(path))

    monkeypatch.setattr(latent_sources.Shard, "__init__", evicting)
    monkeypatch.setattr(os, "utime", touch)
    assert len(Latents("memory://latents", cache=cache).batch(np.arange(12), None)["audio"]) == 12
    assert len(removed) == 2


def test_a_full_cache_that_may_only_be_read_is_read(memory, tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    before = Latents("memory://latents", cache=cache).batch(np.arange(12), None)

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for module, name in ((os, "utime"), (durable, "replacing"), (latent_sources.lock, "held")):
        monkeypatch.setattr(module, name, refuse)
    after = Latents("memory://latents", cache=cache).batch(np.arange(12), None)
    assert all(before[key].equal(after[key]) for key in before)
    copies(tmp_path)[2].unlink()
    found = Latents("memory://latents", cache=cache)
    with pytest.raises(OSError, match=f"cannot be written to '{tmp_path}': Permission denied"):
        found.batch(np.arange(12), None)


@pytest.mark.parametrize("filename", [True, False])
def test_a_full_disk_is_told_at_once_and_is_not_the_stores_fault(
    memory, tmp_path, monkeypatch, filename
):
    asked = []

    def full(self, remote, local, **_):
        asked.append(remote)
        names = (local,) if filename else ()
        raise OSError(errno.ENOSPC, "No space left on device", *names)

    monkeypatch.setattr(type(memory), "get_file", full)
    with pytest.raises(OSError, match=f"written to '{tmp_path}': No space left.*cache.folder"):
        Latents("memory://latents", cache=Cache(tmp_path))
    assert len(asked) == 1 and not copies(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=f"written to '{tmp_path}/file': "):
        Latents("memory://latents", cache=Cache(tmp_path / "file"))

    def gone(self, remote, local, **_):
        asked.append(remote)
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    asked.clear()
    monkeypatch.setattr(type(memory), "get_file", gone)
    with pytest.raises(OSError, match="'memory://latents' cannot be read: .*reset by peer"):
        Latents("memory://latents", cache=Cache(tmp_path))
    assert len(asked) == 3  # the store's: asked again


def test_an_empty_name_is_no_cache(tmp_path):
    values = config("memory://latents", tmp_path / "run", {})
    with pytest.raises(ValueError, match="cache.folder") as told_so:
        TrainConfig.parse({"run": {**values, "cache": {"folder": ""}}})
    assert "\n" not in str(told_so.value)


def test_an_epoch_goes_through_a_few_shards_at_a_time_and_sees_each_clip_once():
    sizes = (5, 3, 4, 6, 2)
    of = np.repeat(np.arange(5), sizes)
    seen = np.concatenate([epoch_indices(20, 1, step, 4, sizes, 2) for step in range(10)])
    for epoch in (seen[:20], seen[20:]):
        assert sorted(epoch) == list(range(20))
        shards = [of[row] for row in epoch]
        firsts = list(dict.fromkeys(shards))
        for at in range(0, 5, 2):  # two are mixed, and done with before the next are read
            pair = set(firsts[at : at + 2])
            places = [place for place, shard in enumerate(shards) if shard in pair]
            assert places == list(range(places[0], places[0] + len(places)))
    assert not np.array_equal(seen[:20], seen[20:])
    plain = np.concatenate([epoch_indices(20, 1, step, 4) for step in range(5)])
    assert not np.array_equal(plain, seen[:20])
