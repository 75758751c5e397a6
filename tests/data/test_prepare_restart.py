"""`syncflow prepare` is killed, and its decoders die: real processes, real signals."""

import os
import signal
import subprocess
import sys
import time
import uuid
from functools import partial
from pathlib import Path

import pytest
from made_clips import clip

import syncflow
from syncflow import durable
from syncflow.data import latent_shards
from syncflow.data.latents import Latents
from syncflow.data.prepare import Options, plan, prepare, workers

ROOT = Path(syncflow.__file__).parents[1]


_KILLED = """
import os, signal, sys
from syncflow import cli
from syncflow.data import latent_shards

real, made = latent_shards.ShardWriter.add, []

def add(*arguments):
    real(*arguments)
    made.append(1)
    if len(made) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

latent_shards.ShardWriter.add = add
cli.main(sys.argv[1:])
"""


def relatives(token: str) -> set[int]:
    """The processes that were started with ``token`` in their environment and are alive."""
    out = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            zombie = (path / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            if not zombie and token.encode() in (path / "environ").read_bytes():
                out.add(int(path.name))
        except OSError:
            continue
    return out


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to see processes")
def test_kill_9_loses_and_repeats_nothing(toy_model, encoders, spec, tmp_path) -> None:
    for number in range(8):
        clip(tmp_path / "clips" / f"{number:02d}.mp4", 1.0, seed=number)
        (tmp_path / "clips" / f"{number:02d}.txt").write_text(f"clip {number}")
    (tmp_path / "clips" / "06.mp4").write_bytes(b"broken")
    out, model = tmp_path / "out", {"name": "toy", "statistics": None}
    options = [tmp_path / "clips", "--out", out, "--model", toy_model, "--workers", "1"]
    options += ["--batch", "2", "--no-progress"]
    token = uuid.uuid4().hex
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKEN": token}
    command = [sys.executable, "-c", _KILLED, "prepare", *map(str, options)]
    done = subprocess.run(command, env={**os.environ, **environment}, timeout=900)
    assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + 60
    while relatives(token):
        assert time.monotonic() < end, f"decoders outlive their parent: {relatives(token)}"
        time.sleep(0.1)
    parts = out / ".work"
    done = {path.name for path in parts.glob("part_*")}
    assert len(done) == 2 and not (out / "manifest.json").exists()
    with pytest.raises(FileNotFoundError, match="no finished latents"):
        Latents(out)

    # What is done is not touched, not even to be read again.
    made = []
    real = latent_shards.ShardWriter.add
    arguments = (tmp_path / "clips", out, encoders, spec, Options(), None, model)
    common = {"num_workers": 0, "batch": 2, "progress": False}

    def add(writer, part, rows):
        made.append(f"part_{part:07d}.safetensors")
        real(writer, part, rows)

    latent_shards.ShardWriter.add = add
    try:
        prepare(*arguments, **common)
    finally:
        latent_shards.ShardWriter.add = real
    assert not set(made) & done and len(made) + len(done) == 4
    whole = tmp_path / "whole"
    prepare(arguments[0], whole, *arguments[2:], **common)
    files = {path.name for path in whole.iterdir()}
    assert files == {path.name for path in out.iterdir()} and not parts.exists()
    for name in files:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert len(Latents(out)) == 7 and (out / "skipped.jsonl").read_text().count("damaged") == 1


_ONE_OF_TWO = """
import os, signal, sys
from syncflow import cli
from syncflow.data import latent_shards
from syncflow.data.prepare import plan

plan.SHARD = 2
real = latent_shards.ShardWriter.add

def add(*arguments):
    real(*arguments)
    if os.environ.get("DIES") == os.environ["RANK"]:
        os.kill(os.getpid(), signal.SIGKILL)

latent_shards.ShardWriter.add = add
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_two_processes_of_a_launcher_share_the_work_and_one_that_is_killed_goes_on(
    toy_model, encoders, spec, tmp_path, monkeypatch
) -> None:
    """As torchrun starts them: the share is in the environment, and no option says it."""
    for number in range(12):
        clip(tmp_path / "clips" / f"{number:02d}.mp4", 1.0, seed=number)
        (tmp_path / "clips" / f"{number:02d}.txt").write_text(f"clip {number}")
    out = tmp_path / "out"
    options = [tmp_path / "clips", "--out", out, "--model", toy_model, "--workers", "0"]
    options += ["--batch", "2", "--no-progress"]
    command = [sys.executable, "-c", _ONE_OF_TWO, "prepare", *map(str, options)]

    def both(**more: str) -> list[tuple[int, str]]:
        started = []
        for rank in ("0", "1"):
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **ranks, **more}
            started.append(
                subprocess.Popen(
                    command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
                )
            )
        said = [process.communicate(timeout=600)[0] for process in started]
        return [(p.returncode, text) for p, text in zip(started, said, strict=True)]

    (first, told), (second, _) = both(DIES="1")
    assert first == 0 and "share 1 of 2" in told and "this part is done" in told
    assert second == -signal.SIGKILL and not (out / "manifest.json").exists()
    assert [code for code, _ in both()] == [0, 0]
    monkeypatch.setattr(plan, "SHARD", 2)
    arguments = (encoders, spec, Options(), None, {"name": "toy", "statistics": None})
    whole = tmp_path / "whole"
    prepare(tmp_path / "clips", whole, *arguments, num_workers=0, batch=2, progress=False)
    shards = sorted(path.name for path in whole.glob("shard_*"))
    assert len(shards) >= 3
    for name in (*shards, "clips.jsonl", "manifest.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_cut_off_at_any_point_of_a_shard_goes_on(encoders, spec, tmp_path, monkeypatch):
    """Between any two things that are written, as power loss would have it."""
    for number in range(3):
        clip(tmp_path / "clips" / f"{number}.mp4", 1.0, seed=number)
    monkeypatch.setattr(plan, "SHARD", 2)
    run = partial(
        prepare, tmp_path / "clips", encoders=encoders, spec=spec, progress=False, batch=1,
        options=Options(caption="a square", keep=("static",)),
    )  # fmt: skip
    run(out=tmp_path / "whole")
    real, count = os.replace, 0
    for cut in range(12):
        out, count = tmp_path / f"out{cut}", 0

        def replace(source, target, cut=cut):
            nonlocal count
            if count == cut:
                raise SystemExit("power loss")
            count += 1
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        try:
            run(out=out)
            break
        except SystemExit:
            monkeypatch.setattr(os, "replace", real)
            run(out=out)
        for path in (tmp_path / "whole").iterdir():
            assert (out / path.name).read_bytes() == path.read_bytes(), (cut, path.name)
    assert cut == 11  # settings, plan, 3 parts, 2 shards, 2 lists, report, manifest


def test_one_run_at_a_time(encoders, spec, tmp_path) -> None:
    pytest.importorskip("fcntl")
    clip(tmp_path / "clip.mp4")
    options = Options(caption="a square")
    with latent_shards.locked(tmp_path / "out", "0-of-1"):
        (tmp_path / "out" / "settings.json").unlink(missing_ok=True)
        with pytest.raises(ValueError, match="another process is writing"):
            prepare(tmp_path / "clip.mp4", tmp_path / "out", encoders, spec, options)


def fragile(item: int) -> int:
    """Dies of 3 as a decoder dies of a file, hangs on 5, and is slow with none."""
    if item == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 5:
        time.sleep(1000)
    if item == 100:
        raise RuntimeError("its own fault")
    return item * item


def test_an_item_that_kills_its_process_costs_itself_alone() -> None:
    results = workers.ordered(fragile, range(5), 1, lambda item: (item, "died"))
    assert list(results) == [0, 1, 4, (3, "died"), 16]
    assert list(workers.ordered(fragile, range(3), 0, None)) == [0, 1, 4]


@pytest.mark.slow
def test_an_item_that_hangs_is_given_up() -> None:
    results = workers.ordered(fragile, [4, 5, 6], 1, lambda item: "gone", limit_s=5.0)
    assert list(results) == [16, "gone", 36]
    with pytest.raises(RuntimeError, match="its own fault"):
        list(workers.ordered(fragile, [1, 100], 1, lambda item: "gone"))


def test_a_damaged_or_short_shard_is_told(encoders, spec, tmp_path) -> None:
    clip(tmp_path / "clip.mp4", 4.0)
    prepare(
        tmp_path / "clip.mp4", tmp_path / "out", encoders, spec, Options(caption="a square"),
        progress=False,
    )  # fmt: skip
    (shard,) = (tmp_path / "out").glob("*.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="shard_00000.safetensors' is damaged"):
        Latents(tmp_path / "out")
    shard.write_bytes(whole)
    manifest = tmp_path / "out" / "manifest.json"
    facts = durable.read_sealed(manifest)
    durable.write_sealed(manifest, {**facts, "count": 5})
    with pytest.raises(ValueError, match="count is 5, and the shards have 4 rows"):
        Latents(tmp_path / "out")
    facts["shards"][0]["count"] = facts["count"] = 5
    durable.write_sealed(manifest, facts)
    with pytest.raises(ValueError, match="does not have the 5 rows"):
        Latents(tmp_path / "out")
