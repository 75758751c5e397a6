"""From sentences to clips: ``load`` a model, ``generate``, done."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import torch
from torch import nn

from syncflow import flow
from syncflow.clip import Clip, ClipSpec, to_model, to_pixels
from syncflow.config import ModelConfig, T5TextConfig
from syncflow.generation import candidates, continuation, noise, record
from syncflow.generation.additions import with_additions
from syncflow.generation.codecs import Codecs
from syncflow.generation.drawing import Start, draw
from syncflow.generation.events import Times, events
from syncflow.generation.request import (
    GenerateOptions,
    GivenVideo,
    Part,
    checked,
    first_frame,
    geometry,
    given_videos,
    prompt_list,
    resolve,
)
from syncflow.generation.sampler import encode_captions
from syncflow.generation.steps import Steps
from syncflow.model_io import hub, model_folder
from syncflow.model_io.text_cache import PromptEncoder
from syncflow.models.codec import AudioCodec, VideoCodec
from syncflow.models.ddit import DDiT
from syncflow.models.latent_space import Scale
from syncflow.models.text.encoder import TextEncoder
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


class SyncFlow:
    """A text encoder, the d-DiT and both VAEs; made by ``load``."""

    def __init__(
        self,
        config: ModelConfig,
        ddit: DDiT,
        video_vae: VideoCodec,
        audio_vae: AudioCodec,
        text_encoder: TextEncoder | None = None,
        folder: Path | None = None,
        steps: Steps | None = None,
    ) -> None:
        self.config, self.folder = config, folder
        self.steps = steps or Steps(graph=True)
        self.ddit, self.video_vae, self.audio_vae = ddit, video_vae, audio_vae
        self._text_encoder: TextEncoder | PromptEncoder | None = text_encoder
        self._video = Scale.of_video(config.latent_mean_video, config.latent_std_video)
        self._audio = Scale.of_audio(config.latent_mean_audio, config.latent_std_audio)
        self.device, self.dtype = torch.device("cpu"), torch.float32
        for part in (ddit, video_vae, audio_vae, text_encoder):
            if part is not None:
                part.eval().requires_grad_(False)

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> SyncFlow:
        """Moves everything; ``dtype`` is the towers', None = the device's default."""
        try:
            self.device = torch.device(device)
            self.dtype = dtype or (torch.float32 if self.device.type == "cpu" else torch.bfloat16)
            self.ddit.to(self.device, self.dtype)
            if self.device.type == "cuda":
                self.ddit.fold()
            self.audio_vae.to(self.device, torch.float32)
            if self.device.type == "cuda" and hasattr(self.video_vae, "for_gpu"):
                self.video_vae.for_gpu(self.device, self.dtype)
            else:
                self.video_vae.to(self.device, torch.float32)
            self.steps.clear()
            if self._text_encoder is not None:
                self._text_encoder.to(self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device {str(device)!r} cannot be used: {reason}") from error
        return self

    @property
    def codecs(self) -> Codecs:
        return Codecs(
            self.video_vae, self.audio_vae, self._video, self._audio, self.steps, self.device
        )

    @property
    def text_encoder(self) -> TextEncoder | PromptEncoder:
        """T5 is in memory only while it encodes."""
        if self._text_encoder is None:
            config = self.config.text_encoder
            assert isinstance(config, T5TextConfig)  # the other kind is loaded with the model
            self._text_encoder = PromptEncoder(config, self.folder, self.device)
        return self._text_encoder

    def save(self, folder: str | Path) -> Path:
        """Writes the model folder that ``load`` reads, model card included."""
        text = self._text_encoder
        parts: dict[str, nn.Module | None] = {
            "ddit": self.ddit,
            "video_vae": self.video_vae,
            "audio_vae": self.audio_vae,
            "text_encoder": text if isinstance(text, TextEncoder) else None,
        }
        return model_folder.save(folder, self.config, parts, source=self.folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        private: bool = False,
        token: str | None = None,
        message: str = "Add a syncflow model",
    ) -> str:
        """Saves the model into a hub repository, made where it is missing; returns the address.

        Raises:
            ValueError: ``repo_id`` is not owner/name. OSError: the hub refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            return hub.upload(
                self.save(folder), repo_id, revision=revision, private=private, token=token,
                message=message,
            )  # fmt: skip

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
    @with_additions
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
        video: Any = None,
        image: Any = None,
        extend: Any = None,
        retake: Any = None,
        span: tuple[float, float] | None = None,
        part: Part = "audio",
        contacts: Times | Sequence[Times] | None = None,
        audio_takes: int = 1,
        v2a: Literal["one-pass", "paper"] = "one-pass",
        rank: Literal["sync"] | None = "sync",
        callback: flow.Callback | None = None,
        progress: bool = True,
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
            contacts: when things touch, in seconds from the start, or such a list for each prompt;
                for models that were trained to be told.
            audio_takes: soundtracks per picture.
            rank: "sync" puts the takes whose onsets meet the contacts in the picture first, and
                fills in ``Clip.scores``; None leaves them in the order of their noise.
            v2a: how a given video is read: clean and once ("one-pass"), or noised anew at every
                step ("paper").
            callback: ``callback(step, (video, audio) latents, (t_video, t_audio))`` after a step.
            progress: show a progress bar.
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
            seed=seed, audio_takes=audio_takes, seconds=seconds, height=height, width=width
        )
        if retake is None and (span is not None or part != "audio") and extend is None:
            raise ValueError("span and part say what of retake is drawn anew: give retake too")
        if extend is not None or retake is not None:
            others = {"video": video, "image": image, "contacts": contacts, "height": height}
            others |= {"width": width, "audio_takes": audio_takes if audio_takes > 1 else None}
            wishes = continuation.Wishes(
                sampling, negative_prompt, negative_audio_prompt, callback, progress
            )
            return continuation.run(
                self, prompt, extend, retake, seconds, span, part, seed, wishes, others
            )
        single = isinstance(prompt, str) and audio_takes == 1
        prompts = prompt_list(prompt)
        asked = resolve(
            self.config.sampling, prompts, sampling, v2a=v2a, rank=rank, video=video,
            image=image, takes=audio_takes,
        )  # fmt: skip
        size = {"seconds": seconds, "height": height, "width": width}
        spec = geometry(self.config, size, video)
        given: list[GivenVideo] = []
        if video is not None:
            given, spec = given_videos(video, len(prompts), spec, seconds)
        told = events(contacts, len(prompts), self.config.ddit.event_tokens, spec.seconds)
        made = record.records(
            self, prompts, asked.sampling, spec, seed=seed, audio_takes=audio_takes,
            seconds=seconds, negative_prompt=negative_prompt,
            negative_audio_prompt=negative_audio_prompt, video=video, image=image, v2a=v2a,
            contacts=contacts, rank=rank,
        )  # fmt: skip

        def drawn(rows: Sequence[int], seeds: Iterable[int]) -> list[Clip]:
            its = [prompts[row] for row in rows]
            captions = encode_captions(
                self.ddit, self.text_encoder, its, spec, self.dtype, negative_prompt,
                negative_audio_prompt, asked.sampling.null_caption,
                None if told is None else told[list(rows)],
            )  # fmt: skip
            sources = noise.generators(seeds)
            start = self._start(sources, spec, given, image, v2a == "paper", audio_takes)
            latents = draw(
                self.ddit, self.steps, captions, start, asked, noise.fresh(sources), callback,
                progress,
            )  # fmt: skip
            return self.codecs.clips(*latents, its, audio_takes, spec, given)

        if asked.sampling.candidates > 1:
            clips = candidates.best(drawn, prompts, seed, asked.sampling.candidates)
        else:
            clips = drawn(range(len(prompts)), range(seed, seed + len(prompts)))
        if audio_takes > 1 and rank == "sync":
            from syncflow.generation import ranking

            groups = [clips[i : i + audio_takes] for i in range(0, len(clips), audio_takes)]
            clips = [clip for group in groups for clip in ranking.ranked(group)]
        for clip, how in zip(clips, made, strict=True):
            clip.made = how
        return clips[0] if single else clips

    def _start(
        self,
        sources: noise.Generators,
        spec: ClipSpec,
        given: list[GivenVideo],
        image: Any,
        paper_way: bool,
        takes: int,
    ) -> Start:
        """Noise, and what a given video or first frame puts in its place."""
        channels = self.config.ddit.video.in_channels, self.config.ddit.audio.in_channels
        video_shape = channels[0], *spec.video_latent_shape
        audio_shape = spec.audio_latent_length, channels[1]
        x_video, x_audio = noise.start(sources, video_shape, audio_shape, self.device, takes)
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

    @torch.inference_mode()
    def reconstruct(self, clip: Clip) -> Clip:
        """The clip through both VAEs and back: the best that generation could look and sound.

        Raises:
            ValueError: another sample rate than the model's, or a size that the VAE cannot take.
        """
        rate = self.config.geometry.sample_rate
        if clip.sample_rate != rate:
            raise ValueError(f"the model's sample rate is {rate} Hz, the clip's {clip.sample_rate}")
        pixels = to_model(clip.video)[None].to(self.device)
        video = self.video_vae.encode(pixels).mode()
        video = self.video_vae.decode(video, num_frames=len(clip.video))
        audio = self.audio_vae.encode(clip.audio[None].to(self.device, torch.float32)).mode()
        audio = self.audio_vae.decode(audio, num_samples=len(clip.audio))
        return Clip(
            to_pixels(video[0]).cpu(), audio[0].clamp(-1, 1).cpu(), clip.fps, rate, clip.prompt
        )
