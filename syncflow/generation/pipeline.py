"""From sentences to clips: ``load`` a model, ``generate``, done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict, Unpack, cast, overload

import torch

from syncflow import flow
from syncflow.clip import Clip, ClipSpec
from syncflow.generation import arguments, continuation, drawing, noise, record
from syncflow.generation.arguments import (
    Film,
    GenerateOptions,
    Part,
    Picture,
    checked,
    choose,
    prompt_list,
)
from syncflow.generation.choice import candidates
from syncflow.generation.drawing import Start, Wishes, draw
from syncflow.generation.events import Times, times
from syncflow.generation.manner import diffusers
from syncflow.generation.model import Model
from syncflow.generation.remarks.preview import Show
from syncflow.generation.request import GivenVideo, first_frame, geometry, given_videos, resolve
from syncflow.generation.sampler import encode_captions
from syncflow.generation.steps import Steps
from syncflow.model_io import lora as low_rank
from syncflow.model_io import model_folder
from syncflow.noise_steps import Held
from syncflow.sampling import SamplingOptions

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    path_or_hub_id: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    *,
    graph: bool = True,
    compile: bool = False,
) -> SyncFlow:
    """Loads a model for generation.

    Args:
        path_or_hub_id: a model folder or a Hugging Face hub id; None = the one in the package.
        device: None = a GPU where there is one.
        dtype: "float32", "bfloat16" or "float16", of the towers; None = bfloat16 on a GPU and
            float32 elsewhere. The VAEs stay in float32, but for Open-Sora's on a GPU, which decodes
            in this dtype.
        revision: of the hub id.
        graph: on a GPU, replay the step of a shape as a CUDA graph from its second time on; the
            graphs hold the memory of a step's activations.
        compile: run the step through ``torch.compile``; the first clip of a shape waits for it.

    Raises:
        FileNotFoundError, OSError: no such model. ValueError: it is damaged, or a bad argument.
    """
    if isinstance(dtype, str):
        if dtype not in _DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}; known are {', '.join(_DTYPES)}")
        dtype = _DTYPES[dtype]
    folder = model_folder.find(path_or_hub_id, revision)
    config, parts = model_folder.load(folder)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    steps = Steps(graph=graph, compiled=compile)
    return SyncFlow(config, **parts, folder=folder, steps=steps).to(device, dtype)


class _New(TypedDict):
    """Arguments of ``generate`` that go with clips which go on from none."""

    height: int | None
    width: int | None
    video: object
    image: object
    contacts: Times | Sequence[Times] | None
    audio_takes: int
    v2a: str
    rank: str | None


class SyncFlow(Model):
    """A text encoder, the d-DiT and both VAEs, and the clips that they make; made by ``load``."""

    @overload
    def generate(
        self, prompt: str, *, audio_takes: Literal[1] = 1, **options: Unpack[GenerateOptions]
    ) -> Clip: ...

    @overload
    def generate(
        self,
        prompt: list[str] | tuple[str, ...],
        *,
        audio_takes: int = 1,
        **options: Unpack[GenerateOptions],
    ) -> list[Clip]: ...

    @overload
    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        audio_takes: int = 1,
        **options: Unpack[GenerateOptions],
    ) -> Clip | list[Clip]: ...

    @torch.inference_mode()
    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        seconds: float | None = None,
        height: int | None = None,
        width: int | None = None,
        seed: int = 0,
        negative_prompt: str | None = None,
        negative_audio_prompt: str | None = None,
        video: Film | Sequence[Film] | None = None,
        image: Picture | None = None,
        extend: Clip | str | Path | Sequence[Clip | str | Path] | None = None,
        retake: Clip | str | Path | None = None,
        span: tuple[float, float] | None = None,
        part: Part = "audio",
        contacts: Times | Sequence[Times] | None = None,
        audio_takes: int = 1,
        v2a: Literal["one-pass", "paper"] = "one-pass",
        rank: Literal["sync"] | None = "sync",
        callback: flow.Callback | None = None,
        progress: bool = True,
        preview: Show | None = None,
        preview_every: int = drawing.EVERY,
        lora: str | Path | None = None,
        strength: float = 1.0,
        **sampling: Unpack[SamplingOptions],
    ) -> Clip | list[Clip]:
        """Makes clips; whatever is None is as the model's config says.

        Args:
            prompt: a sentence, or several for several clips. With ``video`` it may be empty.
            seconds, height, width: of the clips; with ``video`` its own length by default, and the
                size that the model sees.
            seed: prompt i draws its noise from seed + i, whatever else is in the batch; 0 to
                2^63 - 1, of which all bits count.
            negative_prompt: what the clips should not be; stands in for the null caption.
            negative_audio_prompt: the same for the sound alone, for example "music, speech".
            video: a picture that stays and gets sound: a Clip, a path, uint8 [F,3,H,W], or a list
                with one of these per prompt. ``Clip.save`` copies a file's picture bit for bit.
            image: a first frame: uint8 [3,H,W], a path, or a PIL image.
            extend: a Clip or a path that goes on for ``seconds`` (default half of the model's own
                length) more: the whole comes back. Several prompts go on in turn.
            retake: a Clip or a path whose ``part`` ("audio", "video" or "both") is drawn anew
                between the two times of ``span``, in seconds; the rest stays as it is.
            contacts: when things touch (of ``extend``: in what is added), s from the whole's start,
                or a list a prompt; for models that take them. None: as its ``rhythms``; []: open.
            audio_takes: soundtracks per picture.
            rank: "sync" puts the takes whose onsets meet the contacts in the picture first, and
                fills in ``Clip.scores``; None leaves them in the order of their noise.
            v2a: a given video is read clean and once ("one-pass"), or noised anew ("paper").
            callback: ``callback(step, (video, audio) latents, (t_video, t_audio))`` after a step;
                raise ``syncflow.Cancelled`` to end the call.
            progress: show a progress bar.
            preview: is given a ``remarks.preview.Preview`` every ``preview_every`` steps.
            lora: a ``lora.safetensors`` of a fine-tuning, whose additions this clip is made with.
            strength: how much of them, 1 being what was trained.
            sampling: steps, candidates, guidance ... (``sampling.SamplingOptions``); the sound's
                guidance and steps follow the picture's where neither the call nor the model's
                folder states them.

        Returns:
            a Clip for one sentence and one take, else a list, the takes of a prompt side by side.

        Raises:
            ValueError: an argument makes no sense; the message holds it.
        """
        seed, audio_takes, seconds, height, width = checked(
            seed, audio_takes, seconds, height, width
        )
        choose(v2a=v2a, rank=rank, part=part)
        if retake is None and extend is None and (span is not None or part != "audio"):
            raise ValueError("span and part say what of retake is drawn anew: give retake too")
        if lora is None and strength != 1:
            raise ValueError("strength says how much of lora is added: give lora too")
        prompts = prompt_list(prompt)
        wishes = Wishes(
            sampling,
            negative_prompt,
            negative_audio_prompt,
            callback,
            arguments.flag("progress", progress),
            drawing.wish(self, preview, preview_every),
        )
        wishes.remark(self.config.sampling)
        new: _New = {
            "height": height,
            "width": width,
            "video": video,
            "image": image,
            "contacts": contacts,
            "audio_takes": audio_takes,
            "v2a": v2a,
            "rank": rank,
        }
        goes_on: continuation.Asked = {
            "extend": extend,
            "retake": retake,
            "span": span,
            "part": part,
        }
        told: dict[str, object] = {
            "seconds": seconds,
            "negative_prompt": negative_prompt,
            "negative_audio_prompt": negative_audio_prompt,
            "lora": lora,
            "strength": strength,
        }
        with low_rank.applied(self.ddit, lora, strength):
            if extend is None and retake is None:
                clips = self._new(prompts, seed, seconds, wishes, **new)
            else:
                clips = continuation.run(self, prompts, seed, seconds, wishes, new, **goes_on)
        made = record.planned(self, prompts, seed, **told, **new, **goes_on, **sampling)
        for clip, how in zip(clips, made, strict=True):
            clip.made = how
        return clips[0] if isinstance(prompt, str) and audio_takes == 1 else clips

    def __call__(
        self,
        prompt: str | list[str],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        output_type: diffusers.OutputType = "pil",
        **options: Unpack[GenerateOptions],
    ) -> diffusers.Output:
        """``generate`` in the words of diffusers' pipelines (``manner.diffusers``), whose
        ValueErrors are as ``generate``'s."""
        diffusers.check(output_type)
        prompt = prompt if isinstance(prompt, str) else prompt_list(prompt)
        own = diffusers.own(num_inference_steps, guidance_scale, generator, options, prompt)
        return diffusers.output(self.generate(prompt, **cast(GenerateOptions, own)), output_type)

    def _new(
        self,
        prompts: list[str],
        seed: int,
        seconds: float | None,
        wishes: Wishes,
        *,
        height: int | None,
        width: int | None,
        video: object,
        image: object,
        contacts: Times | Sequence[Times] | None,
        audio_takes: int,
        v2a: str,
        rank: str | None,
    ) -> list[Clip]:
        """Clips that go on from none, the takes of a prompt side by side."""
        asked = resolve(
            self.config.sampling,
            prompts,
            wishes.sampling,
            v2a=v2a,
            rank=rank,
            video=video,
            image=image,
            takes=audio_takes,
        )
        spec = geometry(self.config, {"seconds": seconds, "height": height, "width": width}, video)
        given: list[GivenVideo] = []
        if video is not None:
            given, spec = given_videos(video, len(prompts), spec, seconds)
        drawn_anew = video is None and image is None
        when = times(self.config, contacts, prompts, spec.seconds, free=drawn_anew)

        def drawn(rows: Sequence[int], seeds: Iterable[int]) -> list[Clip]:
            its, seeds = [prompts[row] for row in rows], list(seeds)
            captions = encode_captions(
                self.ddit,
                self.text_encoder,
                its,
                spec,
                self.dtype,
                wishes.negative_prompt,
                wishes.negative_audio_prompt,
                asked.sampling.null_caption,
                when(rows, seeds),
            )
            sources = noise.generators(seeds)
            start = self._start(sources, spec, given, image, v2a == "paper", audio_takes)
            latents = draw(
                self.ddit,
                self.steps,
                captions,
                start,
                asked,
                noise.fresh(sources),
                wishes.callback,
                wishes.progress,
                drawing.watch(wishes.preview, self, spec, asked.path),
            )
            return self.codecs.clips(*latents, its, audio_takes, spec, given)

        if asked.sampling.candidates > 1:
            clips = candidates.best(drawn, prompts, seed, asked.sampling.candidates)
        else:
            clips = drawn(range(len(prompts)), range(seed, seed + len(prompts)))
        if audio_takes > 1 and rank == "sync":
            from syncflow.generation.choice import ranking

            groups = [clips[i : i + audio_takes] for i in range(0, len(clips), audio_takes)]
            clips = [clip for group in groups for clip in ranking.ranked(group)]
        return clips

    def _start(
        self,
        sources: noise.Generators,
        spec: ClipSpec,
        given: list[GivenVideo],
        image: object,
        paper_way: bool,
        takes: int,
    ) -> Start:
        """Noise, and what a given video or first frame puts in its place."""
        channels = self.config.ddit.video.in_channels, self.config.ddit.audio.in_channels
        shapes = (channels[0], *spec.video_latent_shape), (spec.audio_latent_length, channels[1])
        x_video, x_audio = noise.start(sources, *shapes, self.device, takes)
        start = Start(x_video, x_audio)
        if given:
            x_1 = self.codecs.encode_video([item.frames for item in given])
            if paper_way:
                return replace(start, video_velocity=flow.velocity(x_video, x_1), still=True)
            return replace(start, video=x_1, still=True)
        if image is None:
            return start
        x_video[:, :, :1] = self.codecs.encode_video([first_frame(image, spec)])
        clean = torch.arange(x_video.shape[2], device=self.device) == 0
        frame_mask = (~clean).expand(len(x_video), -1)
        return replace(start, frame_mask=frame_mask, held=(Held(clean[:, None, None]), None))
