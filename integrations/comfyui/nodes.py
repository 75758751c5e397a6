"""Nodes that load a syncflow model, make clips and give videos their sound.

ComfyUI's own modules exist only inside it, so they are imported where a node runs. Its types:
IMAGE float [F,H,W,3] in [0,1]; AUDIO a dict of ``waveform`` float [1,1,M] and ``sample_rate`` Hz;
VIDEO pictures and sound together.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

import syncflow
from syncflow.clip import Clip
from syncflow.generation.pipeline import SyncFlow
from syncflow.sampling import OPTIONS

_CATEGORY = "syncflow"
_OUTPUTS = ("VIDEO", "IMAGE", "AUDIO", "FLOAT")
_NAMES = ("video", "images", "audio", "fps")
_SEED = ("INT", {"default": 0, "min": 0, "max": 2**63 - 1, "control_after_generate": True})
_CONTACTS = (
    "STRING",
    {
        "default": "",
        "tooltip": "when things touch, in seconds: 0.4, 1.1; for "
        "models that were trained to be told",
    },
)
#: Of the widgets: "as the model's folder says".
_OWN_STEPS, _OWN_GUIDANCE = 0, -1.0


def _text(default: str = "", **more: Any) -> tuple[str, dict[str, Any]]:
    return "STRING", {"default": default, "multiline": True, **more}


def _sampling() -> dict[str, Any]:
    """Widgets of the sampling options, with their meaning as help."""
    steps = {"default": _OWN_STEPS, "min": _OWN_STEPS, "max": 1000}
    guidance = {"default": _OWN_GUIDANCE, "min": _OWN_GUIDANCE, "max": 100.0, "step": 0.1}
    own = "{}; {} = the model's own"
    steps["tooltip"] = own.format(OPTIONS["steps"].help, _OWN_STEPS)
    guidance["tooltip"] = own.format(OPTIONS["guidance"].help, f"{_OWN_GUIDANCE:g}")
    return {"steps": ("INT", steps), "guidance": ("FLOAT", guidance)}


def _asked(steps: int, guidance: float) -> dict[str, Any]:
    """The sampling options that were set."""
    asked: dict[str, Any] = {} if steps == _OWN_STEPS else {"steps": steps}
    return asked if guidance == _OWN_GUIDANCE else asked | {"guidance": guidance}


class Load:
    """A syncflow model, kept while its node's inputs stay the same."""

    CATEGORY, FUNCTION = _CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = ("SYNCFLOW_MODEL",), ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        what = "a model folder or hub id; empty = the model in the package"
        dtypes = ["default", "float32", "bfloat16", "float16"]
        return {
            "required": {
                "model": ("STRING", {"default": "", "tooltip": what}),
                "dtype": (dtypes, {"tooltip": "of the towers"}),
            }
        }

    def load(self, model: str, dtype: str) -> tuple[SyncFlow]:
        """Loads onto the device that ComfyUI works on."""
        chosen = None if dtype == "default" else dtype
        return (syncflow.load(model.strip() or None, device=_device(), dtype=chosen),)


class Generate:
    """Video and sound of a sentence, from a first picture if one is given."""

    CATEGORY, FUNCTION = _CATEGORY, "generate"
    RETURN_TYPES, RETURN_NAMES = _OUTPUTS, _NAMES

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        seconds = {"default": 2.0, "min": 0.25, "max": 60.0, "step": 0.25}
        required = {
            "model": ("SYNCFLOW_MODEL",),
            "prompt": _text("a metal ball bounces three times on concrete"),
            "seed": _SEED,
            "seconds": ("FLOAT", seconds),
            **_sampling(),
            "negative_prompt": _text(),
            "negative_audio_prompt": _text(),
        }
        optional = {"first_frame": ("IMAGE",), "contacts": _CONTACTS}
        return {"required": required, "optional": optional}

    def generate(
        self,
        model: SyncFlow,
        prompt: str,
        seed: int,
        seconds: float,
        steps: int,
        guidance: float,
        negative_prompt: str = "",
        negative_audio_prompt: str = "",
        first_frame: Tensor | None = None,
        contacts: str = "",
    ) -> tuple[Any, Tensor, dict[str, Any], float]:
        """One clip."""
        image = None if first_frame is None else frames(first_frame)[0]
        clip = model.generate(
            prompt,
            seed=seed,
            seconds=seconds,
            negative_prompt=negative_prompt or None,
            negative_audio_prompt=negative_audio_prompt or None,
            image=image,
            contacts=_times(contacts),
            callback=_watch(),
            progress=False,
            **_asked(steps, guidance),
        )
        return _outputs(clip)


class VideoToAudio:
    """Sound for pictures that exist; they come back as they were. The best of ``takes``."""

    CATEGORY, FUNCTION = _CATEGORY, "generate"
    RETURN_TYPES, RETURN_NAMES = _OUTPUTS, _NAMES

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required = {
            "model": ("SYNCFLOW_MODEL",),
            "images": ("IMAGE",),
            "fps": ("FLOAT", {"default": 16.0, "min": 1.0, "max": 240.0, "step": 0.01}),
            "prompt": _text(tooltip="what is heard; may be empty"),
            "seed": _SEED,
            "takes": ("INT", {"default": 1, "min": 1, "max": 8}),
            **_sampling(),
            "negative_audio_prompt": _text(),
        }
        return {"required": required}

    def generate(
        self,
        model: SyncFlow,
        images: Tensor,
        fps: float,
        prompt: str,
        seed: int,
        takes: int,
        steps: int,
        guidance: float,
        negative_audio_prompt: str = "",
    ) -> tuple[Any, Tensor, dict[str, Any], float]:
        """The pictures with a soundtrack."""
        silent = torch.zeros(round(len(images) / fps * syncflow.clip.SAMPLE_RATE))
        made = model.generate(
            prompt,
            video=Clip(frames(images), silent, fps=fps),
            audio_takes=takes,
            seed=seed,
            negative_audio_prompt=negative_audio_prompt or None,
            callback=_watch(),
            progress=False,
            **_asked(steps, guidance),
        )
        return _outputs(made[0] if isinstance(made, list) else made)


class Extend:
    """A clip that goes on: the whole comes back, old and new."""

    CATEGORY, FUNCTION = _CATEGORY, "generate"
    RETURN_TYPES, RETURN_NAMES = _OUTPUTS, _NAMES

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        more = {"default": 2.0, "min": 0.25, "max": 60.0, "step": 0.25, "tooltip": "that are added"}
        required = {
            "model": ("SYNCFLOW_MODEL",),
            "images": ("IMAGE",),
            "audio": ("AUDIO",),
            "prompt": _text("a metal ball bounces three times on concrete"),
            "seed": _SEED,
            "seconds": ("FLOAT", more),
            **_sampling(),
        }
        return {"required": required, "optional": {"contacts": _CONTACTS}}

    def generate(
        self,
        model: SyncFlow,
        images: Tensor,
        audio: dict[str, Any],
        prompt: str,
        seed: int,
        seconds: float,
        steps: int,
        guidance: float,
        contacts: str = "",
    ) -> tuple[Any, Tensor, dict[str, Any], float]:
        """Pictures of the model's rate and a sound, with ``seconds`` more; ``contacts`` of these
        are counted from the first picture."""
        spec = model.config.geometry.spec
        sound = sounds(audio, spec.sample_rate)
        clip = model.generate(
            prompt,
            extend=Clip(frames(images), sound, spec.fps, spec.sample_rate),
            seconds=seconds,
            seed=seed,
            contacts=_times(contacts),
            callback=_watch(windows=True),
            progress=False,
            **_asked(steps, guidance),
        )
        return _outputs(clip)


NODE_CLASS_MAPPINGS = {
    "SyncflowLoad": Load,
    "SyncflowGenerate": Generate,
    "SyncflowVideoToAudio": VideoToAudio,
    "SyncflowExtend": Extend,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "SyncflowLoad": "Load syncflow model",
    "SyncflowGenerate": "syncflow: text to video and audio",
    "SyncflowVideoToAudio": "syncflow: video to audio",
    "SyncflowExtend": "syncflow: go on from a clip",
}


def frames(images_FHWC: Tensor) -> Tensor:
    """ComfyUI's IMAGE -> uint8 [F,3,H,W]."""
    pixels = (images_FHWC[..., :3].clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.movedim(-1, 1).cpu().contiguous()


def sounds(audio: dict[str, Any], sample_rate: int) -> Tensor:
    """ComfyUI's AUDIO -> float [M], one channel, at a rate."""
    from torchaudio.functional import resample

    mono = audio["waveform"][0].float().mean(0).cpu()
    return (
        mono
        if audio["sample_rate"] == sample_rate
        else resample(mono, audio["sample_rate"], sample_rate)
    )


def _times(text: str) -> list[float] | None:
    """Seconds with commas between them; nothing is None."""
    try:
        return [float(part) for part in text.split(",")] if text.strip() else None
    except ValueError:
        raise ValueError(f"contacts must be seconds such as 0.4, 1.1, got {text!r}") from None


def _outputs(clip: Clip) -> tuple[Any, Tensor, dict[str, Any], float]:
    from comfy_api.latest import InputImpl, Types

    images = clip.video.movedim(1, -1).float() / 255
    audio = {"waveform": clip.audio[None, None], "sample_rate": clip.sample_rate}
    parts = Types.VideoComponents(images=images, audio=audio, frame_rate=Fraction(clip.fps))
    return InputImpl.VideoFromComponents(parts), images, audio, float(clip.fps)


def _device() -> torch.device:
    from comfy import model_management

    return model_management.get_torch_device()


def _watch(windows: bool = False) -> Callable[..., None]:
    """After a step: ComfyUI's bar, and the end where somebody pressed stop. Of ``windows`` there
    may be several, so that how far one is says nothing."""
    from comfy import model_management, utils

    bars: list[Any] = []

    def after(step: int, x: Any, t: tuple[float, ...]) -> None:
        model_management.throw_exception_if_processing_interrupted()
        # How far a clip is, by its clocks: a cascade moves one and then the other.
        if windows:
            return
        if not bars:
            bars.append(utils.ProgressBar(100))
        bars[0].update_absolute(round(100 * sum(t) / len(t)), 100)

    return after
