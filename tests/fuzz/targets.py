"""What is fuzzed: good files, how one of them is damaged, and how it is used afterwards.

``use`` returns a digest of all tensors, "" where what was read is not to be compared: a film or a
config that was changed may be another good one.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tests.data import toy
from tests.fuzz import mutate
from tests.fuzz.forked import Refused


@dataclass(frozen=True)
class Target:
    """``make(folder)`` writes good inputs and names them; ``damage(rng, path)`` changes a copy of
    one and says how; ``use(path)`` reads it."""

    make: Callable[[Path], list[Path]]
    damage: Callable[[random.Random, Path], str]
    use: Callable[[Path], str]


def digest(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    out = hashlib.sha256()
    for name, value in sorted(named):
        out.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        out.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return out.hexdigest()


def _rewrite(path: Path, change: Callable, rng: random.Random) -> str:
    said, data = change(rng, path.read_bytes())
    path.write_bytes(data)
    return f"{path.name}: {said}"


def _rewrite_json(path: Path, rng: random.Random) -> str:
    said, text = mutate.json_value(rng, path.read_text())
    path.write_text(text)
    return f"{path.name}: {said}"


def _rewrite_line(path: Path, rng: random.Random) -> str:
    lines = path.read_text().splitlines()
    number = rng.randrange(len(lines))
    said, lines[number] = mutate.json_value(rng, lines[number])
    path.write_text("\n".join(lines) + "\n")
    return f"{path.name}, line {number + 1}: {said}"


# ---- films ----


def make_films(folder: Path) -> list[Path]:
    import av

    from tests.data.made_clips import clip

    ends = (".mp4", ".mkv", ".webm", ".mov")
    out = [clip(folder / f"a{end}" / f"film{end}", 1.0) for end in ends]

    path = folder / "a.ts" / "film.ts"  # without an index
    path.parent.mkdir()
    with av.open(str(out[0])) as source, av.open(str(path), "w", format="mpegts") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return [path.parent for path in (*out, path)]


def damage_film(rng: random.Random, folder: Path) -> str:
    (film,) = folder.iterdir()
    return _rewrite(film, mutate.film, rng)


def use_film(folder: Path) -> str:
    from syncflow.clip import Clip

    (film,) = folder.iterdir()
    clip = Clip.load(film)
    assert clip.video.dtype == torch.uint8 and torch.isfinite(clip.audio).all()
    return ""


def prepare_film(folder: Path) -> str:
    from syncflow.config import ModelConfig
    from syncflow.data.latents import Latents
    from syncflow.data.prepare import Options, prepare

    spec = ModelConfig.parse(toy.TOY).geometry.spec
    out = folder.with_name(f"{folder.name}-latents")
    options = Options(caption="a square", keep=("static", "silent", "no audio"))
    prepare(folder, out, toy.encoders(), spec, options, progress=False)
    latents = Latents(out)
    latents.batch(np.arange(len(latents)), np.random.default_rng(0))
    return ""


def use_or_prepare_film(folder: Path) -> str:
    """One of both, by the file's content."""
    (film,) = folder.iterdir()
    even = hashlib.sha256(film.read_bytes()).digest()[0] % 2
    return (use_film if even else prepare_film)(folder)


# ---- models ----


def make_models(folder: Path) -> list[Path]:
    return [toy.save(folder / "model")]


def damage_model(rng: random.Random, folder: Path) -> str:
    if rng.random() < 0.6:
        return _rewrite_json(folder / "config.json", rng)
    path = rng.choice(sorted(folder.glob("*.safetensors")))
    change = rng.choice([mutate.safetensors_header, mutate.safetensors_header, mutate.truncated])
    return _rewrite(path, change, rng)


def use_model(folder: Path) -> str:
    import syncflow

    model = syncflow.load(folder, device="cpu")
    parts = {"d": model.ddit, "v": model.video_vae, "a": model.audio_vae, "t": model.text_encoder}
    return digest(
        (f"{name}.{key}", value)
        for name, part in parts.items()
        for key, value in part.state_dict().items()
    )


# ---- configs ----


def make_configs(folder: Path) -> list[Path]:
    from tests.training.made import flow_config, write_latents

    latents = write_latents(folder / "latents")
    loop = {"steps": 1, "validate_every": 1, "checkpoint_every": 1}
    out = []
    for name, train, changes in (
        ("stage1", "video", {}),
        ("stage2", "audio", {"draws": 2, "coupling": "ot"}),
        ("stage3", "both", {"conditioned": 0.5, "decoupled": 0.5, "coupling": "c2ot"}),
    ):
        (folder / name).mkdir()
        config = flow_config(latents, "run", train, loop, **changes)
        from syncflow.training.settings import TrainConfig

        whole = json.loads(TrainConfig.parse({"run": config}).run.model_dump_json())
        (folder / name / "config.json").write_text(json.dumps(whole))
        out.append(folder / name)
    return out


def damage_config(rng: random.Random, folder: Path) -> str:
    path = folder / "config.json"
    if rng.random() < 0.1:
        return _rewrite(path, rng.choice([mutate.truncated, mutate.flipped]), rng)
    return _rewrite_json(path, rng)


def use_config(folder: Path) -> str:
    """``train --config``, as far as the first step."""
    import contextlib
    import io
    import os

    from syncflow import train
    from syncflow.training import loop

    class Enough(Exception):
        pass

    plain = loop._Run._advance

    def advance(self):
        plain(self)
        for name, value in self.engine.module.state_dict().items():
            if not torch.isfinite(value).all():
                raise AssertionError(f"{name} is not finite after the first step")
        if self.step < self.config.steps:
            raise Enough

    loop._Run._advance = advance
    os.chdir(folder)
    said = io.StringIO()
    with contextlib.suppress(Enough), contextlib.redirect_stderr(said):
        code = train.main(["--config", "config.json", "--device", "cpu", "--no-progress"])
        lines = [line for line in said.getvalue().splitlines() if "syncflow: error" in line]
        if code == 2 and len(lines) == 1:
            if "out of memory" in lines[0]:
                raise MemoryError(lines[0])
            raise Refused(lines[0])
        assert code == 0, f"exit code {code}: {said.getvalue()[-200:]}"
    return ""


# ---- shards, manifests and checkpoints ----


def make_shards(folder: Path) -> list[Path]:
    from syncflow.data import impacts_dataset
    from syncflow.training.checkpoints.writer import Writer
    from tests.training.made import write_latents

    write_latents(folder / "latents")
    impacts_dataset.write_dataset(
        folder / "raw", 2, height=32, width=32, container="shards", workers=1, progress=False
    )
    (folder / "run").mkdir()
    writer = Writer(folder / "run", 0, 1, 2, 0)
    writer.save_frozen({"tower.weight": torch.randn(30)})
    for step in (1, 2):
        state = {f"{kind}/head.weight": torch.randn(4, 5) for kind in ("model", "ema", "exp_avg")}
        facts = {"step": step, "skipped": 0, "seconds": 1.5, "config": '{"task": "flow"}'}
        writer.save(state, {**facts, "recent_skips": [1]})
        writer.wait()
    return [folder / "latents", folder / "run", folder / "raw"]


def damage_shards(rng: random.Random, folder: Path) -> str:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    read = [p for p in files if p.suffix in (".json", ".safetensors", ".npy")]
    read = [p for p in read if p.name not in ("settings.json", "model.safetensors")]
    read += [p for p in files if p.name == "metadata.jsonl"]
    path = rng.choice(read)
    if path.suffix == ".json":
        if rng.random() < 0.15:
            return _rewrite(path, rng.choice([mutate.truncated, mutate.flipped]), rng)
        return _rewrite_json(path, rng)
    if path.suffix == ".jsonl":
        return _rewrite_line(path, rng)
    if path.suffix == ".npy":
        if rng.random() < 0.5:
            return _rewrite(path, mutate.truncated, rng)
        said, data = mutate.flipped(rng, path.read_bytes(), 128)
        path.write_bytes(data)
        return f"{path.name}: {said}"
    return _rewrite(path, rng.choice([mutate.safetensors_header, mutate.truncated]), rng)


def use_shards(folder: Path) -> str:
    if (folder / "checkpoints").is_dir():
        return _use_run(folder)
    if (folder / "dataset.json").exists():
        return _use_raw(folder)
    from syncflow.data.latents import Latents

    latents = Latents(folder)
    rows = np.arange(len(latents))
    batch = latents.batch(rows, np.random.default_rng(0))
    records = [json.dumps(latents.record(int(row)), sort_keys=True) for row in rows]
    return digest(batch.items()) + hashlib.sha256("".join(records).encode()).hexdigest()


def _use_run(folder: Path) -> str:
    """The newest checkpoint, or the refusal of it: an older one is no wrong answer of reading."""
    from syncflow.training.checkpoints import checkpoint

    saved = checkpoint.Saved(checkpoint.folders(folder)[0])
    about = {k: v for k, v in saved.about.items() if k in ("step", "skipped", "config")}
    return digest(saved.items()) + json.dumps(about, sort_keys=True)


def _use_raw(folder: Path) -> str:
    from syncflow.data.shards import ClipShards

    clips = ClipShards(folder)
    values = []
    for index in range(len(clips)):
        values += [
            (f"v{index}", torch.from_numpy(clips.video(index).copy())),
            (f"a{index}", torch.from_numpy(clips.audio(index).copy())),
        ]
        clips.caption(index), clips.contact_times(index)
    assert all(math.isfinite(v) for v in (clips.fps, clips.sample_rate))
    return digest(values) + json.dumps(clips.geometry)


#: The last two are parts of the third.
TARGETS = {
    "media": Target(make_films, damage_film, use_or_prepare_film),
    "models": Target(make_models, damage_model, use_model),
    "configs": Target(make_configs, damage_config, use_config),
    "shards": Target(make_shards, damage_shards, use_shards),
    "latents": Target(lambda f: make_shards(f)[:1], damage_shards, use_shards),
    "checkpoints": Target(lambda f: make_shards(f)[1:2], damage_shards, use_shards),
}


def copy(source: Path, folder: Path) -> Path:
    """A case's own copy."""
    target = folder / source.name
    shutil.copytree(source, target)
    return target
