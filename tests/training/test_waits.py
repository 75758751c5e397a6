"""A step on a GPU that is not there: where the host would wait for it, and what is copied."""

import contextlib
import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from made import flow_config, write_latents

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from benchmarks import footprint  # noqa: E402
from benchmarks.counting import pretend  # noqa: E402
from benchmarks.fake_backward import backward  # noqa: E402
from syncflow import flow  # noqa: E402
from syncflow.training import runner  # noqa: E402
from syncflow.training.batches import Batches  # noqa: E402
from syncflow.training.distributed import side_stream  # noqa: E402
from syncflow.training.distributed.replicas import Replicas  # noqa: E402
from syncflow.training.settings import TrainConfig  # noqa: E402
from syncflow.training.tasks import randomness  # noqa: E402
from syncflow.training.tasks.randomness import SampleGenerators  # noqa: E402

# All that a step may wait for: its gradient's norm and whether all is finite, in one copy.
ALLOWED = {"syncflow.training.distributed.replicas.step": 1}


def test_a_wait_is_seen_wherever_it_is():
    """Each kind: what holds every config to its waits (test_memory) could otherwise not fail."""
    with pretend("cuda") as counter:
        x = torch.ones(3, device="cuda")
        x.sum().item()
        x.cpu()
        for asks in (lambda: (x > 0).nonzero(), lambda: torch.equal(x, x)):
            with contextlib.suppress(RuntimeError):  # no fake tensor has an answer
                asks()
        assert counter.reads == 4 and set(counter.waits) == {""}
        torch.ones(3).sum().item()  # of the host's own
        assert counter.reads == 4


def test_draws_on_the_device_copy_latents_and_captions_alone(monkeypatch, tmp_path):
    # No generator of a GPU that is not there.
    monkeypatch.setattr(SampleGenerators, "_of", lambda self, place: torch.Generator())
    monkeypatch.setattr(
        flow, "sample_times", lambda n, generator, device, **_: torch.rand(n, device=device)
    )
    config = footprint.with_batch(runner.read(ROOT / "configs/tiny/stage3.json"), 4)
    copies = {}
    for kind in ("sample", "device"):
        loop = config.loop.model_copy(update={"randomness": kind})
        with footprint._task(config.model_copy(update={"loop": loop})) as (counter, task):
            latents = task.plan.buckets[0].latents
            blank = latents.batch

            def read(rows, rng, blank=blank):
                values = blank(rows, rng)
                halves = {
                    f"{part}_{which}": values[part].half()
                    for part in ("video", "audio") for which in ("mean", "std")
                }  # fmt: skip
                return halves | {key: values[key] for key in ("text", "mask")}

            latents.read = read
            latents.scale = {  # its four small tables are of the device already
                key: type(scale)(*(x.to(footprint.CUDA) for x in scale))
                for key, scale in latents.scale.items()
            }
            engine = Replicas(task, loop, task.group)
            counter.reset()
            where = "cpu" if kind == "sample" else footprint.CUDA
            loss, _ = engine.loss(task.batch(0), SampleGenerators(0, task.places(0), where))
            backward(loss)
            engine.step(1e-3, 0, loss.detach())
            assert dict(counter.waits) == ALLOWED
            copies[kind] = counter.transfers["to the device"]
    assert copies["device"] == 6 and copies["sample"] > 10


def test_draws_on_a_device_are_the_clips_own_whoever_draws_them(tmp_path):
    """On a CPU as the device: the same for one process, or any share of it."""
    latents = write_latents(tmp_path / "latents", 8)
    loop = {"batch_size": 8, "randomness": "device"}
    found = []
    for coupling in ("none", "ot"):
        values = flow_config(latents, tmp_path / "run", "both", loop, coupling=coupling)
        config = TrainConfig.parse({"run": values}).run
        task = runner._training(config, runner.Group())
        batch = task.batch(3)
        assert not any(key.endswith(("mean", "std")) for key in batch)
        assert torch.equal(batch["video"], task.batch(3)["video"])
        assert not torch.equal(batch["video"], task.batch(4)["video"])
        places = task.places(3)
        parts = [
            randomness.normal((4, *batch["video"].shape[1:]), SampleGenerators(0, half, "cpu"))
            for half in (places[:4], places[4:])
        ]
        whole = randomness.normal(batch["video"].shape, SampleGenerators(0, places))
        assert torch.equal(whole, torch.cat(parts))
        found.append(task.loss(batch, SampleGenerators(0, task.places(3)))[0])
    assert not torch.equal(*found)


def test_every_tensor_of_a_batch_is_found():
    @dataclasses.dataclass
    class Inner:
        one: torch.Tensor
        none: None = None

    a, b, c, d = (torch.zeros(n) for n in range(4))
    batch = {"a": a, "inner": Inner(b), "more": [c, ("text", d)], "name": "x"}
    assert [x.numel() for x in side_stream.tensors(batch)] == [0, 1, 2, 3]


def test_what_was_made_beside_is_waited_for_on_the_device_and_kept_that_long(monkeypatch):
    told = []

    class Stream:
        def wait_event(self, event):
            told.append(("wait", event))

    class Event:
        device = torch.device("cuda", 1)

    class Tensor(torch.Tensor):
        device = torch.device("cuda", 1)

        def record_stream(self, stream):
            told.append(("keep", stream))

    stream, event = Stream(), Event()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    value = torch.zeros(2).as_subclass(Tensor)
    made = side_stream.Made({"x": value, "host": torch.zeros(1)}, event)
    assert made.take()["x"] is value
    assert told == [("wait", event), ("keep", stream)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_come_by_pinned_memory_and_a_stream_of_their_own():
    class Task:
        def batch(self, index):
            return {
                "x": side_stream.send(torch.full((1 << 20,), float(index)), torch.device("cuda"))
            }

        def drawn(self, batch, source):
            return batch | {"y": batch["x"] * 2}

    device = torch.device("cuda", 0)
    with Batches(Task(), 3, lambda index: None, 2, device) as batches:
        for index in range(8):
            batches.prepare(index)
            batch = batches.take(index)
            assert batch["y"].sum().item() == 2 * index * (1 << 20)


def test_readers_read_at_once_and_draw_in_order():
    import threading

    together, drawn = threading.Barrier(3, timeout=20), []

    class Task:
        def batch(self, index):
            if index < 3:
                together.wait()  # three read at the same time, or none goes on
            return index

        def drawn(self, batch, source):
            drawn.append(batch)
            return batch

    with Batches(Task(), 6, lambda index: None, readers=3) as batches:
        batches.prepare(0)
        assert [batches.take(index) for index in range(6)] == list(range(6))
    assert drawn == list(range(6))
