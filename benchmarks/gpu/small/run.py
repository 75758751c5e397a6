"""The run: phases by the clock, clips coming in between steps, weights written every minute."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from benchmarks.gpu.small import compiling, folder, plan, pool
from benchmarks.gpu.small import encoders as schools
from benchmarks.gpu.small.compiling import Ahead
from benchmarks.gpu.small.graph import Step, Tally
from benchmarks.gpu.small.optimizer import Optimizer
from benchmarks.gpu.small.plan import Plan
from benchmarks.gpu.small.towers import DecoderSteps, Towers, validate
from benchmarks.gpu.small.world import Arrival, World
from syncflow.config import ModelConfig
from syncflow.models.ddit import DDiT
from syncflow.training.optim.optimizer import by_clock


class School(Protocol):
    """A phase's training: see ``encoders`` and ``towers``."""

    lr: float
    warm_up: int
    decay: float
    optimizer: Optimizer
    tally: Tally


@dataclass
class Settings:
    """What the command line says. ``began``: the monotonic second that the minutes count from."""

    minutes: float
    out: Path
    began: float
    device: torch.device
    tiny: bool = False
    init: Path | None = None
    use_graph: bool = True
    ahead: Ahead | None = None
    seed: int = 0


class Run:
    """One run; ``go`` does it all and leaves the last weights in ``settings.out``."""

    def __init__(self, settings: Settings, plan_: Plan, world: World) -> None:
        self.settings, self.plan, self.world = settings, plan_, world
        self.device, self.rows = settings.device, []
        self.end = settings.began + 60 * settings.minutes
        if settings.init is not None:
            config, states, _ = folder.read(settings.init)
            self.plan = plan.going_on(plan_)
        else:
            config, states = plan.model_config(settings.tiny), None
        self.config: ModelConfig = config
        torch.manual_seed(settings.seed)
        self.parts = folder.modules(config)
        for name, module in self.parts.items():
            if states is not None:
                module.load_state_dict(states[name])
            module.to(self.device)
        self.encoders = pool.Encoders(
            self.parts["video_vae"],
            self.parts["audio_vae"],
            self.parts["text_encoder"],
            self.device,
        )
        self.ready = states is not None
        if self.ready:
            self.encoders.adopt(config)
            for name in ("video_vae", "audio_vae", "text_encoder"):
                self.parts[name].eval().requires_grad_(False)
        self.raw = pool.Raw(self.plan.raw, self.device)
        self.held_raw = pool.Raw(self.plan.held_out, self.device)
        self.latents = pool.Latents(self.plan.latents, config, self.device)
        self.held_out = pool.Latents(self.plan.held_out, config, self.device)
        self.towers: Towers | None = None
        self.judge: DDiT | None = None
        self._pending: list[Arrival] = []
        now = time.monotonic()
        self._polled = self._reported = now
        self._exported = now
        self._steps_told: dict[str, int] = {}

    def go(self) -> None:
        """Everything in turn, until the time is up."""
        share = 60 * self.settings.minutes
        self.tell("started", {"device": self._device_name(), "workers": self.world.workers})
        if self.plan.text:
            self._read_captions(share * self.plan.text)
        if self.plan.video_vae:
            self._autoencoders(share)
        self._encode_all()
        self._towers(self.end - self.plan.reserve - share * self.plan.decoder)
        self._decoder(self.end - self.plan.reserve)
        self.export("done")

    # Phases

    def _read_captions(self, seconds: float) -> None:
        self.world.wait(lambda: bool(self.world.lessons), 60)
        school = schools.TextSteps(self.parts["text_encoder"], self.plan.text_batch, self.device)
        step = Step(lambda: school.step(self.world.lessons), self.device, use_graph=False)
        self.fit("text", school, step, time.monotonic() + seconds)
        school.finish()
        self.tell("text", {f"right_{k}": round(v, 3) for k, v in school.right.items()})

    def _autoencoders(self, share: float) -> None:
        least = min(self.plan.raw, 4 * max(self.plan.video_vae_batch, 8))
        self.world.wait(lambda: self.gather() or len(self.raw) >= least, 120)
        if not len(self.raw):
            raise RuntimeError("no clip was rendered in two minutes")
        video = schools.VideoVAESteps(self.parts["video_vae"], self.raw, self.plan.video_vae_batch)
        step = Step(video.step, self.device, self.settings.use_graph)
        self.fit("video VAE", video, step, time.monotonic() + share * self.plan.video_vae)
        video.finish()
        self.tell("video VAE", schools.judge_video(self.parts["video_vae"], self.held_raw))
        audio = schools.AudioVAESteps(self.parts["audio_vae"], self.raw, self.plan.audio_vae_batch)
        step = Step(audio.step, self.device, self.settings.use_graph)
        until = time.monotonic() + share * self.plan.audio_vae
        self.fit("audio VAE", audio, step, until, audio.progress)
        audio.finish()
        self.tell("audio VAE", schools.judge_audio(self.parts["audio_vae"], self.held_raw))

    def _encode_all(self) -> None:
        """Latents of what is there; of fresh encoders also their statistics."""
        least = min(self.plan.raw, 2 * self.plan.encode_batch)
        self.world.wait(lambda: self.gather() or len(self.raw) >= least, 120)
        size, count = self.plan.encode_batch, len(self.raw)
        if not self.ready:
            pairs = [
                self.encoders.raw_latents(self.raw.video_NF3HW[i:j], self.raw.audio_NM[i:j])
                for i, j in ((i, min(i + size, count)) for i in range(0, count, size))
            ]
            video, audio = (torch.cat(values) for values in zip(*pairs, strict=True))
            self.encoders.measure(video, audio)
            scale = {
                f"latent_{which}_{kind}": self.encoders.scale[kind][index].tolist()
                for kind in ("video", "audio")
                for index, which in enumerate(("mean", "std"))
            }
            self.config = self.config.model_copy(update=scale)
            for i in range(0, count, size):
                records = self.raw.records[i : i + size]
                pair = self.encoders.normal(video[i : i + size], audio[i : i + size])
                self.latents.add(*pair, *self.encoders.words(records), records)
            self.ready = True
        for raw, latents in ((self.raw, self.latents), (self.held_raw, self.held_out)):
            for i in range(latents.size, len(raw), size):
                j = min(i + size, len(raw))
                clips = raw.video_NF3HW[i:j], raw.audio_NM[i:j], raw.records[i:j]
                self.encoders.add(latents, *clips)
        self.tell("encoded", {"latents": self.latents.size, "held_out": self.held_out.size})

    def _towers(self, until: float) -> None:
        self.towers = Towers(
            self.parts["ddit"].train(),
            self.latents,
            self.plan.tower_batch,
            compiling.dtype_on(self.device),
        )
        self.tell("compiled", self._compile())
        use_graph = self.settings.use_graph
        video = Step(self.towers.video_step, self.device, use_graph)
        audio = Step(self.towers.audio_step, self.device, use_graph)
        began, due = time.monotonic(), 0.0
        # A short warm-up: weights that are trained already meet fresh momenta.
        warm_up = 100 if self.settings.init is None else 200
        while (now := time.monotonic()) < until:
            progress = (now - began) / (until - began)
            due += audio_share(progress)
            turn, optimizer = (video, self.towers.video) if due < 1 else (audio, self.towers.audio)
            due -= float(due >= 1)
            lr = by_clock(self.towers.lr, turn.count, progress, warm_up, self.towers.decay)
            optimizer.lr.fill_(lr)
            turn()
            self.between("towers", {"video": video, "audio": audio}, self.towers.losses)
        self.tell("towers", self._faults({"video": video, "audio": audio}))
        if self.held_out.size:
            self.tell("held out", validate(self._judge(), self.held_out))

    def _compile(self) -> dict[str, Any]:
        """Takes what the second process has made, if it is there."""
        ahead = self.settings.ahead
        if ahead is None:
            return {"blocks": "eager", "why": "not asked for"}
        if not ahead.done():
            ahead.stop()
            return {"blocks": "eager", "why": f"not ready (exit {ahead.process.returncode})"}
        began = time.monotonic()
        fault = compiling.use(self.towers, compiling.PATIENCE_S)
        seconds = round(time.monotonic() - began, 1)
        return {"blocks": "eager" if fault else "compiled", "why": fault, "took_s": seconds}

    def _decoder(self, until: float) -> None:
        if not self.plan.decoder or time.monotonic() + 2 > until:
            return
        school = DecoderSteps(
            self.encoders, self._judge(), self.latents, self.raw, self.plan.decoder_batch
        )
        step = Step(school.step, self.device, self.settings.use_graph)
        self.fit("decoder", school, step, until)
        school.finish()
        self.tell("decoder", schools.judge_video(self.parts["video_vae"], self.held_raw))

    def fit(
        self,
        name: str,
        school: School,
        step: Step,
        until: float,
        progressed: Callable[[float], None] | None = None,
    ) -> None:
        """Steps until the clock says so."""
        began = time.monotonic()
        while (now := time.monotonic()) < until:
            progress = (now - began) / max(until - began, 1e-9)
            lr = by_clock(school.lr, step.count, progress, school.warm_up, school.decay)
            school.optimizer.lr.fill_(lr)
            if progressed is not None:
                progressed(progress)
            step()
            self.between(name, {name: step}, school.tally.read)
        self.tell(name, self._faults({name: step}))

    # Between steps

    def between(
        self, phase: str, steps: dict[str, Step], read: Callable[[], dict[str, float]]
    ) -> None:
        """Between steps: takes clips in and tells how it goes, now and then."""
        now = time.monotonic()
        if now - self._polled > 0.1:
            self._polled = now
            self.gather()
        if now - self._reported > self.plan.report_seconds:
            counts = {f"{k}_steps": step.count for k, step in steps.items()}
            # Of a phase's first report some steps may be older than the report before it.
            rates = {
                f"{k}_steps_s": round(
                    (step.count - self._steps_told.get(k, 0)) / (now - self._reported), 2
                )
                for k, step in steps.items()
            }
            self._steps_told |= {k: step.count for k, step in steps.items()}
            self._reported = now
            told = {k: float(f"{v:.4g}") for k, v in read().items()}
            self.tell(phase, {**counts, **rates, **told, "clips": self.world.clips})
        if now - self._exported > self.plan.export_seconds:
            self.export(phase)

    def gather(self) -> bool:
        """Takes what has been rendered; False, so that it can stand in a condition."""
        self._pending += self.world.poll()
        held = [a for a in self._pending if a.records[0].held_out]
        fresh = [a for a in self._pending if not a.records[0].held_out]
        for arrival in held:
            video, audio, records = pool.uploaded([arrival], self.device)
            self.held_raw.add(video, audio, records)
            if self.ready:
                self.encoders.add(self.held_out, video, audio, records)
            self.world.release(arrival)
        clips = sum(len(a.records) for a in fresh)
        if self.ready and clips < self.plan.encode_batch:
            self._pending = fresh
            return False
        self._pending = []
        for arrivals in _chunks(fresh, self.plan.encode_batch):
            count = sum(len(a.records) for a in arrivals)
            if not self.ready and self.raw.room < count:
                self._pending += arrivals  # no encoder yet, and no room: the workers wait
                continue
            if self.latents.room:
                video, audio, records = pool.uploaded(arrivals, self.device)
                # The same clips in the same order, as long as there is room for pixels.
                in_step = not self.ready or len(self.raw) == self.latents.size
                if in_step and self.raw.room >= count:
                    self.raw.add(video, audio, records)
                if self.ready:
                    self.encoders.add(self.latents, video, audio, records)
            for arrival in arrivals:
                self.world.release(arrival)
        return False

    def export(self, phase: str) -> None:
        """The averaged weights as they are now."""
        self._exported = time.monotonic()
        states = {name: module.state_dict() for name, module in self.parts.items()}
        if self.towers is not None:
            states["ddit"] = self.towers.averaged()
        seconds = round(time.monotonic() - self.settings.began, 1)
        self.tell(f"writing ({phase})", {"latents": self.latents.size})
        done = folder.write(self.settings.out, self.config, states, f"{seconds} s", self.rows)
        if not done:
            self.tell("not written: a weight is not finite", {})

    def tell(self, phase: str, values: dict[str, Any]) -> None:
        """A row of the log, printed and kept."""
        row = {"s": round(time.monotonic() - self.settings.began, 1), "phase": phase, **values}
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def _judge(self) -> DDiT:
        """A copy of the model with the averaged weights."""
        if self.judge is None:
            self.judge = DDiT(self.config.ddit).to(self.device)
            self.judge.to(self.towers.dtype).eval().requires_grad_(False)
        self.judge.load_state_dict(self.towers.averaged())
        return self.judge

    def _faults(self, steps: dict[str, Step]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, step in steps.items():
            out |= {f"{name}_steps": step.count, f"{name}_mode": step.mode}
            if step.fault:
                out[f"{name}_fault"] = step.fault
        return out

    def _device_name(self) -> str:
        return torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"


def audio_share(progress: float) -> float:
    """Which share of the towers' steps is the sound's: little while the picture is a blur."""
    return 0.12 if progress < 0.5 else 0.25 if progress < 0.75 else 0.5


def _chunks(arrivals: list[Arrival], clips: int) -> list[list[Arrival]]:
    """The arrivals in lots of at most so many clips."""
    lots: list[list[Arrival]] = []
    for arrival in arrivals:
        full = lots and sum(len(a.records) for a in lots[-1]) + len(arrival.records) > clips
        if not lots or full:
            lots.append([])
        lots[-1].append(arrival)
    return lots
