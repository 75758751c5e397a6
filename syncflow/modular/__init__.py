"""SyncFlow as blocks for diffusers' Modular Diffusers: encode text, denoise, decode.

    from syncflow.modular import SyncFlowBlocks
    pipe = SyncFlowBlocks().init_pipeline("path-or-hub-id")
    pipe.load_components()
    clips = pipe(prompt="a metal ball bounces twice", num_inference_steps=20, output="clips")

Each block can stand among others. The same seed gives the clip that ``generate`` gives.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any, cast

import torch
from diffusers.modular_pipelines.components_manager import ComponentsManager
from diffusers.modular_pipelines.modular_pipeline import (
    BlockState,
    ModularPipeline,
    ModularPipelineBlocks,
    PipelineState,
    SequentialPipelineBlocks,
)
from diffusers.modular_pipelines.modular_pipeline_utils import (
    ComponentSpec,
    InputParam,
    OutputParam,
)
from torch import Tensor

from syncflow.clip import ClipSpec
from syncflow.config import ModelConfig
from syncflow.generation import noise
from syncflow.generation.arguments import checked, flag, function, prompt_list, texts
from syncflow.generation.codecs import Codecs
from syncflow.generation.drawing import Start, draw
from syncflow.generation.events import times
from syncflow.generation.manner import diffusers as manner
from syncflow.generation.request import geometry, resolve
from syncflow.generation.sampler import encode_captions
from syncflow.generation.steps import Steps
from syncflow.model_io import model_folder
from syncflow.models.latent_space import Scale
from syncflow.models.text import tokens
from syncflow.modular.parts import KINDS
from syncflow.sampling import OPTIONS, SamplingOptions

#: Components by name.
Parts = dict[str, Any]
#: Embedding and mask of each text, [1, L, W] and [1, L].
Embeds = dict[str, tuple[Tensor, Tensor]]


class _Step(ModularPipelineBlocks):
    """A block whose components come from the model folder ``path``, if one is named."""

    needs: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.path: str | None = None

    @property
    def expected_components(self) -> list[ComponentSpec]:
        """What it needs, and where that is."""
        return [
            ComponentSpec(name, KINDS[name], pretrained_model_name_or_path=self.path)
            for name in self.needs
        ]

    def made(self, parts: Parts, asked: SimpleNamespace) -> dict[str, object]:
        """The block's outputs by name, of components and inputs by name."""
        raise NotImplementedError

    @torch.inference_mode()
    def __call__(
        self, components: ModularPipeline, state: PipelineState
    ) -> tuple[ModularPipeline, PipelineState]:
        """What diffusers calls."""
        _check_loaded(components, self.needs)
        given = cast(BlockState, self.get_block_state(state)).as_dict()
        for name, value in self.made(components.components, SimpleNamespace(**given)).items():
            state.set(name, value)
        return components, state


def _check_loaded(components: ModularPipeline, needs: Sequence[str]) -> None:
    missing = [name for name in needs if components.components.get(name) is None]
    if missing:
        raise ValueError(
            f"{', '.join(missing)}: not loaded yet; call load_components() of the pipeline first"
        )


def _check_texts(asked: SimpleNamespace) -> None:
    texts(negative_prompt=asked.negative_prompt, negative_audio_prompt=asked.negative_audio_prompt)


_TEXTS = [
    InputParam("prompt", required=True, description="a sentence, or several for several clips"),
    InputParam("negative_prompt", description="what the clips should not be"),
    InputParam("negative_audio_prompt", description="the same for the sound alone"),
]


class EncodeText(_Step):
    """Prompts and what guidance leads away from -> embeddings."""

    needs = ("text_encoder",)

    @property
    def inputs(self) -> list[InputParam]:
        """Texts."""
        return _TEXTS

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """Embeddings by text."""
        return [OutputParam("prompt_embeds", description="text -> (embedding, mask)")]

    def made(self, parts: Parts, asked: SimpleNamespace) -> dict[str, object]:
        """Encodes each text by itself."""
        _check_texts(asked)
        told = [text if text.strip() else "-" for text in prompt_list(asked.prompt)]
        told += [text for text in (asked.negative_prompt, asked.negative_audio_prompt) if text]
        encode = parts["text_encoder"].encode
        return {"prompt_embeds": {text: encode([text]) for text in told}}


class _Read:
    """An encoder that knows the embeddings of some texts."""

    def __init__(self, embeds: Embeds) -> None:
        self.embeds = embeds

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """[B, L, W] and [B, L], padded to the longest."""
        missing = [text for text in texts if text not in self.embeds]
        if missing:
            raise ValueError(f"prompt_embeds has no embedding of {missing[0]!r}")
        found = [self.embeds[text] for text in texts]
        length = max(words.shape[1] for words, _ in found)
        return (
            torch.cat([tokens.pad(words, length) for words, _ in found]),
            torch.cat([tokens.pad(mask, length) for _, mask in found]),
        )


class Denoise(_Step):
    """Embeddings -> latents of picture and sound, by the model's own sampler."""

    needs = ("ddit", "settings")

    @property
    def inputs(self) -> list[InputParam]:
        """What is asked for; what is None is as the model's folder says."""
        return [
            *_TEXTS,
            InputParam("prompt_embeds", required=True),
            InputParam("num_inference_steps", description="steps of the picture"),
            InputParam("guidance_scale", description="guidance of the picture"),
            InputParam("generator", description="a torch.Generator; one with seed 7 is seed=7"),
            InputParam("sampling", description="other options of generate, as a dict"),
            InputParam("seconds", description="length of the clips"),
            InputParam("height", description="pixels"),
            InputParam("width", description="pixels"),
            InputParam("contacts", description="when things touch, in seconds"),
            InputParam("callback", description="callback(step, latents, times) after every step"),
            InputParam("progress", default=True, description="show a progress bar"),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """Latents and the geometry that they are of."""
        return [
            OutputParam("latents", description="of the picture, normalised, [P, C, T, h, w]"),
            OutputParam("audio_latents", description="of the sound, normalised, [P, A, D]"),
            OutputParam("geometry", description="ClipSpec"),
        ]

    def made(self, parts: Parts, asked: SimpleNamespace) -> dict[str, object]:
        """Samples."""
        ddit = parts["ddit"]
        config: ModelConfig = parts["settings"].config
        prompts = prompt_list(asked.prompt)
        _check_texts(asked)
        function("callback", "each step", asked.callback)
        progress = flag("progress", asked.progress)
        request = resolve(config.sampling, prompts, _options(asked))
        if request.sampling.candidates > 1:
            raise ValueError("candidates needs whole clips: call syncflow.load(...).generate")
        numbers = checked(seconds=asked.seconds, height=asked.height, width=asked.width)
        _, _, seconds, height, width = numbers
        spec = geometry(config, {"seconds": seconds, "height": height, "width": width})
        weight = next(ddit.parameters())
        first = manner.seed(asked.generator, len(prompts))
        seeds = range(first, first + len(prompts))
        when = times(config, asked.contacts, prompts, spec.seconds)
        captions = encode_captions(
            ddit,
            _Read(asked.prompt_embeds),
            prompts,
            spec,
            weight.dtype,
            asked.negative_prompt,
            asked.negative_audio_prompt,
            request.sampling.null_caption,
            when(range(len(prompts)), seeds),
        )
        sources = noise.generators(seeds)
        channels = config.ddit.video.in_channels, config.ddit.audio.in_channels
        shapes = (channels[0], *spec.video_latent_shape), (spec.audio_latent_length, channels[1])
        start = Start(*noise.start(sources, *shapes, weight.device, 1))
        latents, audio_latents = draw(
            ddit,
            Steps(),
            captions,
            start,
            request,
            noise.fresh(sources),
            asked.callback,
            progress,
        )
        return {"latents": latents, "audio_latents": audio_latents, "geometry": spec}


def _options(asked: SimpleNamespace) -> SamplingOptions:
    """Steps, guidance and ``sampling`` as one.

    Raises:
        ValueError: ``sampling`` is no dict of options, has one that there is not, or says again
            what is said beside it.
    """
    sampling = {} if asked.sampling is None else asked.sampling
    if not isinstance(sampling, dict) or not all(isinstance(name, str) for name in sampling):
        raise ValueError(f"sampling must be a dict, as {{'audio_steps': 20}}, got {sampling!r}")
    for name in sampling:
        if name not in OPTIONS:
            near = get_close_matches(name, OPTIONS, n=1, cutoff=0.0)[0]
            raise ValueError(f"sampling has no option {name!r}; the nearest is {near!r}")
    given = manner.merged(sampling, steps=asked.num_inference_steps, guidance=asked.guidance_scale)
    return cast(SamplingOptions, given)


class Decode(_Step):
    """Latents -> pictures and sounds."""

    needs = ("video_vae", "audio_vae", "settings")

    @property
    def inputs(self) -> list[InputParam]:
        """Latents, and how pictures are handed over."""
        return [
            InputParam("latents", required=True),
            InputParam("audio_latents", required=True),
            InputParam("geometry", required=True),
            InputParam("prompt", description="which the clips are told with"),
            InputParam("output_type", default="pil", description="pil, np or pt"),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """Clips, and the same as diffusers hands it over."""
        return [
            OutputParam("videos", description="pictures of each clip, as output_type says"),
            OutputParam("audio", description="sounds of each clip, float32 [1, M]"),
            OutputParam("clips", description="syncflow.Clip of each: rates, save"),
        ]

    def made(self, parts: Parts, asked: SimpleNamespace) -> dict[str, object]:
        """Decodes."""
        manner.check(asked.output_type)
        config: ModelConfig = parts["settings"].config
        spec: ClipSpec = asked.geometry
        codecs = Codecs(
            parts["video_vae"],
            parts["audio_vae"],
            Scale.of_video(config.latent_mean_video, config.latent_std_video),
            Scale.of_audio(config.latent_mean_audio, config.latent_std_audio),
            Steps(),
            asked.latents.device,
        )
        told = [] if asked.prompt is None else prompt_list(asked.prompt)
        prompts = told if any(told) else [""] * len(asked.latents)
        clips = codecs.clips(asked.latents, asked.audio_latents, prompts, 1, spec, [])
        videos, audio, _ = manner.output(clips, asked.output_type)
        return {"videos": videos, "audio": audio, "clips": clips}


class SyncFlowBlocks(SequentialPipelineBlocks):
    """Encode text, denoise, decode."""

    block_names = ["encode_text", "denoise", "decode"]
    block_classes = [EncodeText, Denoise, Decode]

    @property
    def description(self) -> str:
        """One line."""
        return "Text to a clip whose picture and sound belong together."

    def __call__(
        self, components: ModularPipeline, state: PipelineState
    ) -> tuple[ModularPipeline, PipelineState]:
        """What diffusers calls; what the last block would refuse is refused before the first."""
        blocks = [block for block in self.sub_blocks.values() if isinstance(block, _Step)]
        _check_loaded(components, [name for block in blocks for name in block.needs])
        if any(isinstance(block, Decode) for block in blocks):
            manner.check(cast(str, state.get("output_type")))
        found: tuple[ModularPipeline, PipelineState] = super().__call__(components, state)
        return found

    def init_pipeline(
        self,
        pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        components_manager: ComponentsManager | None = None,
        collection: str | None = None,
    ) -> ModularPipeline:
        """A pipeline of the blocks whose components ``load_components()`` loads from a model folder
        or hub id; None = the model in the package.

        Raises:
            FileNotFoundError, OSError: there is no such model.
        """
        path = pretrained_model_name_or_path
        folder = str(model_folder.find(None if path is None else os.fspath(path)))
        for block in self.sub_blocks.values():
            if isinstance(block, _Step):
                block.path = folder
        return super().init_pipeline(None, components_manager, collection)
