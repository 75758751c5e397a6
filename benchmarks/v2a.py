"""What sound for a finished picture costs: `python benchmarks/v2a.py --out FILE`.

Three questions, answered in one run:

1. FLOPs of video-to-audio, one pass against the paper's way (the video tower at every step), and
   of eight takes against one: counted operation by operation by torch's FlopCounterMode on the
   shipped model, and for the paper's XL/2 on the meta device, where only shapes are computed.
2. Seconds of processor time from the given picture to the finished clip, of one thread.
3. Sync of both ways on the same real pictures, with 95 % intervals.

Matrix products and attention are counted; norms, activations and the text encoder are not.
"""

import argparse
import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

import syncflow
from syncflow import flow, ops
from syncflow.clip import ClipSpec
from syncflow.config import DDiTConfig, EncodecVAEConfig, OpenSoraVAEConfig, SamplingConfig
from syncflow.detect import contacts, matching, onsets
from syncflow.evaluation.report import tables
from syncflow.evaluation.suites import provenance, systems
from syncflow.generation.sampler import Captions, GuidedVelocity
from syncflow.models.ddit import Condition, DDiT
from syncflow.models.vae import build_audio_vae, build_video_vae

#: What one pass costs where the sound takes many guided steps.
GUIDED = {"audio_steps": 25, "audio_guidance": 2.0}
PAPER = SamplingConfig()  # 50 steps, guidance 6, one clock


def counted(ddit: DDiT, run: Callable[[], None], on_meta: bool = False) -> dict[str, float]:
    """FLOPs of ``run`` by part: video tower, adaptors, audio tower, and the rest (VAEs).

    ``on_meta``: tensors hold no numbers, so a call with the shapes of an earlier one is that call
    again: its FLOPs are added anew without going through its operations one by one.
    """
    parts: Counter[str] = Counter()
    known: dict[Any, tuple[Any, int]] = {}
    counter = FlopCounterMode(display=False)
    names = {
        "video_velocity": "video tower",
        "audio_context": "adaptors",
        "forward": "audio tower",
    }
    places = {"forward": ddit.audio_tower}

    def watch(name: str) -> Callable[..., Any]:
        inner = getattr(places.get(name, ddit), name)

        def call(*args: Any, **named: Any) -> Any:
            shapes = [tuple(x.shape) for x in args if torch.is_tensor(x)]
            groups = [len(x.video.tokens_BLC) for x in args if hasattr(x, "video")]
            key = (name, *shapes, *groups)
            if not on_meta or key not in known:
                before = counter.get_total_flops()
                result = inner(*args, **named)
                known[key] = result, counter.get_total_flops() - before
                parts["once"] += known[key][1]
            result, flops = known[key]
            parts[names[name]] += flops
            return result

        return call

    def one_after_the_other(
        video: Tensor,
        t_video: Tensor,
        audio: Tensor,
        t_audio: Tensor,
        condition: Condition,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``joint_velocity``, whose parts are told apart."""
        velocity, features = ddit.video_velocity(video, t_video, condition, mask)
        context = ddit.audio_context(features, condition)
        return velocity, ddit.audio_tower(audio, t_audio, context, condition.audio)

    # The twins and the explicit attention are made of operations that the counter knows.
    with counter, ops.reference_ops(), sdpa_kernel(SDPBackend.MATH):
        for name in names:
            setattr(places.get(name, ddit), name, watch(name))
        ddit.joint_velocity = one_after_the_other
        try:
            run()
        finally:
            del ddit.joint_velocity
            for name in names:
                delattr(places.get(name, ddit), name)
    towers = {name: float(parts[name]) for name in names.values()}
    total, others = sum(towers.values()), counter.get_total_flops() - parts["once"]
    return {**towers, "towers": total, "everything": total + others}


def xl2(axis: str) -> dict[str, Any]:
    """The paper's geometry on the meta device: 2 s, 256 x 256, T5's 300 tokens, guidance 6."""
    spec = ClipSpec()
    with torch.device("meta"):
        ddit = DDiT(DDiTConfig.parse({"adaptor": {"axis": axis}}))
        video_vae = build_video_vae(OpenSoraVAEConfig())
    decoding = audio_decoding(spec)

    def run(path: torch.Tensor, takes: int, given: bool, video_moves: bool) -> None:
        with torch.device("meta"), torch.inference_mode():
            width = ddit.config.video.caption_channels
            text = torch.empty(2, ddit.config.video.model_max_length, width)
            captions = Captions(ddit.prepare(text, None, spec), 1)
            video = torch.empty(1, ddit.config.video.in_channels, *spec.video_latent_shape)
            audio = torch.empty(takes, spec.audio_latent_length, ddit.config.audio.in_channels)
            if given:
                video_vae.encode(torch.empty(1, 3, spec.num_frames, spec.height, spec.width))
            velocity = GuidedVelocity(
                ddit,
                captions,
                PAPER.guidance,
                PAPER.guidance,
                None,
                video if given and video_moves else None,
            )
            flow.integrate(velocity, (video, audio), path)
            if not given:
                video_vae.decode(video, num_frames=spec.num_frames)

    def count(path: torch.Tensor, takes: int, *case: bool) -> dict[str, float]:
        parts = counted(ddit, lambda: run(path, takes, *case), on_meta=True)
        return parts | {"everything": parts["everything"] + takes * decoding}

    joint, audio = flow.schedule("joint", PAPER.steps), flow.schedule("audio", PAPER.steps)
    cascade = flow.schedule("cascade", PAPER.steps)
    return {
        "v2a paper": count(joint, 1, True, True),
        "v2a one-pass": count(audio, 1, True, False),
        "generate, 1 take": count(cascade, 1, False, True),
        "generate, 8 takes": count(cascade, 8, False, True),
        "generate, joint, 1 take": count(joint, 1, False, True),
        "generate, joint, 8 takes": count(joint, 8, False, True),
    }


def audio_decoding(spec: ClipSpec) -> float:
    """FLOPs of one soundtrack's decoding. Encodec pads by numbers that it keeps in tensors, so it
    runs on the CPU; its two LSTM layers are not counted."""
    vae = build_audio_vae(EncodecVAEConfig()).eval()
    for module in vae.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    latent = torch.zeros(1, spec.audio_latent_length, EncodecVAEConfig().latent_channels)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        vae.decode(latent, num_samples=spec.num_samples)
    return float(counter.get_total_flops())


def measured(
    folder: str | None, clips: int, takes: int, levels: list[int], paper_steps: list[int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Processor seconds and FLOPs a clip on a model, and the sync of both ways."""
    model = syncflow.load(folder, device="cpu")
    spec = model.config.geometry.spec
    cases = systems.cases("test", clips, levels)
    real = [systems.rendered(case, spec.height, spec.width) for case in cases]
    seen = [contacts.times(clip.video, clip.fps) for clip in real]
    ways: dict[str, dict[str, Any]] = {"v2a one-pass": {}, "v2a one-pass, 25 guided steps": GUIDED}
    for steps in paper_steps:
        ways[f"v2a paper, {steps} steps"] = {"v2a": "paper", "steps": steps}
    ways["v2a paper, its own settings"] = {
        "v2a": "paper",
        "steps": PAPER.steps,
        "guidance": PAPER.guidance,
        "audio_guidance": PAPER.guidance,
    }
    costs, table = {}, {}
    for name, options in ways.items():
        begun, heard = time.process_time(), []
        for index, (case, clip) in enumerate(zip(cases, real, strict=True)):
            made = model.generate(
                case.prompt, video=clip.video, seed=index, progress=False, **options
            )
            heard.append(onsets.times(made.audio, made.sample_rate))
        seconds = (time.process_time() - begun) / clips
        # The detector's share is measured apart and taken off.
        begun = time.process_time()
        for clip in real[:4]:
            onsets.times(clip.audio, clip.sample_rate)
        seconds -= (time.process_time() - begun) / min(4, clips)
        flops = counted(
            model.ddit,
            lambda options=options: model.generate(
                cases[0].prompt, video=real[0].video, progress=False, **options
            ),
        )
        costs[name] = {"seconds": seconds, **flops}
        result = matching.measure(seen, heard)
        table[name] = {key: result[key] for key in ("f1_50", "f1_100", "median_ms")}
    for count in (1, takes):
        options = {"audio_takes": count, "progress": False}
        best = float("inf")
        for index in range(4):
            begun = time.process_time()
            model.generate(cases[index].prompt, seed=index, **options)
            best = min(best, time.process_time() - begun)
        name = f"generate, {count} take" + ("s, ranked" if count > 1 else "")
        flops = counted(
            model.ddit, lambda options=options: model.generate(cases[0].prompt, **options)
        )
        costs[name] = {"seconds": best, **flops}
    return costs, table


def of_model(
    folder: str | None, clips: int, takes: int, levels: list[int], paper_steps: list[int]
) -> dict[str, Any]:
    """A model's costs, sync and their ratios."""
    costs, table = measured(folder, clips, takes, levels, paper_steps)
    one = costs["v2a one-pass"]
    ratios = {
        f"{name} / one-pass": {
            key: costs[name][key] / one[key] for key in ("seconds", "video tower", "towers")
        }
        for name in costs
        if name.startswith("v2a paper")
    }
    single = costs["generate, 1 take"]
    for name in costs:
        if name.startswith(f"generate, {takes} take"):
            ratios[f"{name} / 1 take"] = {
                key: costs[name][key] / single[key] for key in ("seconds", "everything")
            }
    return {"ratios": ratios, "sync": table, "cost": costs}


def of_xl2(axis: str) -> dict[str, Any]:
    """The paper's model's costs and their ratios."""
    costs = xl2(axis)
    paper, one = costs["v2a paper"], costs["v2a one-pass"]
    keys = ("video tower", "towers", "everything")
    ratios: dict[str, Any] = {"v2a paper / one-pass": {key: paper[key] / one[key] for key in keys}}
    for way in ("generate", "generate, joint"):
        several, single = costs[f"{way}, 8 takes"], costs[f"{way}, 1 take"]
        ratios[f"{way}, 8 takes / 1 take"] = several["everything"] / single["everything"]
    return {"ratios": ratios, "cost": costs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=48, help="real pictures (default 48)")
    parser.add_argument("--takes", type=int, default=8)
    parser.add_argument("--levels", type=int, nargs="+", default=[1])
    parser.add_argument("--paper-steps", type=int, nargs="*", default=[25])
    what = "shipped, xl2 (default both)"
    parser.add_argument("--models", nargs="+", choices=("shipped", "xl2"), help=what)
    parser.add_argument("--model", help="measure this model folder, in the place of --models")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    models = [] if args.model else args.models or ["shipped", "xl2"]
    result: dict[str, Any] = {
        "facts": {
            "command": shlex.join(["python", *sys.argv]),
            "clips": args.clips,
            "levels": args.levels,
            "torch": torch.__version__,
            "threads": 1,
            "machine": provenance.circumstances(None)["machine"],
            "seconds": "processor time a clip, one thread; generate: the best of four runs",
            "costs": "FLOPs; matrix products, convolutions and attention, without text encoder",
        }
    }
    folders = {"shipped model": None} if "shipped" in models else {}
    folders |= {args.model: args.model} if args.model else {}
    for name, folder in folders.items():
        result[name] = of_model(folder, args.clips, args.takes, args.levels, args.paper_steps)
    for axis in ("full", "temporal") if "xl2" in models else ():
        result[f"XL/2, adaptor axis {axis}, on the meta device"] = of_xl2(axis)
    text = json.dumps(tables.finite(result), indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
