"""The ComfyUI nodes, called as ComfyUI calls them, with its modules as published stood in for."""

import importlib.util
import json
import sys
import types
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

import syncflow

FOLDER = Path(__file__).parents[1] / "integrations" / "comfyui"


@dataclass
class VideoComponents:
    images: torch.Tensor
    frame_rate: Fraction
    audio: dict | None = None
    metadata: dict | None = None
    alpha: torch.Tensor | None = None


class VideoFromComponents:
    def __init__(self, components: VideoComponents, bit_depth: int = 8) -> None:
        self.components = components


class Bar:
    seen: list[int] = []

    def __init__(self, total: int) -> None:
        self.total = total

    def update_absolute(self, value: int, total: int | None = None) -> None:
        Bar.seen.append(value)


class Interrupted(Exception):
    pass


@pytest.fixture
def comfy(monkeypatch):
    """ComfyUI's modules and the nodes, loaded from their folder as it loads them."""
    management: Any = types.SimpleNamespace(
        get_torch_device=lambda: torch.device("cpu"), stop=False
    )

    def check() -> None:
        if management.stop:
            raise Interrupted

    management.throw_exception_if_processing_interrupted = check
    latest = types.ModuleType("comfy_api.latest")
    latest.InputImpl = types.SimpleNamespace(VideoFromComponents=VideoFromComponents)
    latest.Types = types.SimpleNamespace(VideoComponents=VideoComponents)
    inside = types.ModuleType("comfy")
    inside.model_management, inside.utils = management, types.SimpleNamespace(ProgressBar=Bar)
    for name, module in (("comfy", inside), ("comfy_api.latest", latest)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "comfy_api", types.ModuleType("comfy_api"))
    # A folder of any name below custom_nodes.
    name = "custom_nodes_syncflow"
    spec = importlib.util.spec_from_file_location(
        name, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    package = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, package)
    spec.loader.exec_module(package)
    Bar.seen = []
    package.management = management
    return package


def run(package, name, **given):
    """A node as ComfyUI's executor runs it: what is not given has its widget's default."""
    node = package.NODE_CLASS_MAPPINGS[name]
    inputs = node.INPUT_TYPES()
    values = {}
    for key, entry in inputs["required"].items():
        kind, options = entry[0], entry[1] if len(entry) > 1 else {}
        values[key] = options.get("default", kind[0] if isinstance(kind, list) else None)
    known = set(values) | set(inputs.get("optional", {}))
    assert set(given) <= known
    result = getattr(node(), node.FUNCTION)(**(values | given))
    assert len(result) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    return result


def test_a_clip_is_the_packages_own(comfy):
    (model,) = run(comfy, "SyncflowLoad")
    prompt = "a metal ball bounces twice on wood"
    given = {"model": model, "prompt": prompt, "seed": 5, "steps": 2}
    video, images, audio, fps = run(comfy, "SyncflowGenerate", **given)
    clip = model.generate(prompt, seed=5, steps=2, progress=False)
    assert torch.equal((images * 255).round().to(torch.uint8).movedim(-1, 1), clip.video)
    assert audio["waveform"].shape == (1, 1, 96000) and audio["sample_rate"] == 48000
    assert torch.equal(audio["waveform"][0, 0], clip.audio) and fps == 16
    assert video.components.frame_rate == 16 and video.components.images is images
    assert Bar.seen[-1] == 100 and sorted(Bar.seen) == Bar.seen and len(Bar.seen) > 2


def test_pictures_keep_and_get_sound(comfy):
    (model,) = run(comfy, "SyncflowLoad")
    images = torch.rand(48, 40, 56, 3)
    given = {"model": model, "images": images, "fps": 24.0, "takes": 2, "steps": 1}
    _, same, audio, fps = run(comfy, "SyncflowVideoToAudio", **given)
    assert fps == 24 and audio["waveform"].shape == (1, 1, 96000)
    assert (same - images).abs().max() <= 0.5 / 255 + 1e-6


def test_a_first_picture_and_stopping(comfy):
    (model,) = run(comfy, "SyncflowLoad")
    given = {"model": model, "steps": 1, "first_frame": torch.rand(1, 64, 64, 3)}
    assert run(comfy, "SyncflowGenerate", **given)[1].shape == (32, 64, 64, 3)
    comfy.management.stop = True
    with pytest.raises(Interrupted):
        run(comfy, "SyncflowGenerate", **given)


def test_a_clip_goes_on(comfy):
    (model,) = run(comfy, "SyncflowLoad")
    old = model.generate("a metal ball bounces twice on wood", seed=5, steps=1, progress=False)
    images = old.video.movedim(1, -1).float() / 255
    # Two channels at half the rate: a sound of another node's.
    audio = {"waveform": old.audio[None, None, ::2].repeat(1, 2, 1), "sample_rate": 24000}
    given = {"model": model, "images": images, "audio": audio, "seconds": 1.0, "steps": 1}
    _, whole, sound, fps = run(comfy, "SyncflowExtend", **given)
    assert whole.shape == (48, 64, 64, 3) and fps == 16
    assert torch.equal(whole[:32], images) and sound["waveform"].shape == (1, 1, 144000)


def test_times_of_contacts_that_cannot_be_are_refused(comfy):
    (model,) = run(comfy, "SyncflowLoad")
    with pytest.raises(ValueError, match="at 0 to 2 seconds, got 2.5"):
        run(comfy, "SyncflowGenerate", model=model, contacts="0.4, 2.5")
    with pytest.raises(ValueError, match="contacts must be seconds.*'soon'"):
        run(comfy, "SyncflowGenerate", model=model, contacts="soon")
    _, images, audio, _ = run(comfy, "SyncflowGenerate", model=model, steps=1)
    given = {"model": model, "images": images, "audio": audio, "seconds": 1.0, "steps": 1}
    with pytest.raises(ValueError, match="at 2 to 3 seconds"):
        run(comfy, "SyncflowExtend", **given, contacts="1.5")
    assert len(run(comfy, "SyncflowExtend", **given, contacts="2.4")[1]) == 48


@pytest.mark.parametrize("name", ["workflow.json", "extend.json"])
def test_the_workflow_fits_the_nodes(comfy, name):
    flow = json.loads((FOLDER / name).read_text())
    by_id = {node["id"]: node for node in flow["nodes"]}
    for node in flow["nodes"]:
        if node["type"] not in comfy.NODE_CLASS_MAPPINGS:
            continue
        kind = comfy.NODE_CLASS_MAPPINGS[node["type"]]
        outputs = [(entry["name"], entry["type"]) for entry in node["outputs"]]
        assert outputs == list(zip(kind.RETURN_NAMES, kind.RETURN_TYPES, strict=True))
        inputs = kind.INPUT_TYPES()
        links = {entry["name"] for entry in node["inputs"]}
        widgets = [key for key in inputs["required"] if key not in links]
        # A seed has one more value: what becomes of it after a run.
        assert len(node["widgets_values"]) == len(widgets) + ("seed" in widgets)
        assert links <= set(inputs["required"]) | set(inputs.get("optional", {}))
    for _, source, out, target, into, kind in flow["links"]:
        assert by_id[source]["outputs"][out]["type"] == kind
        assert by_id[target]["inputs"][into]["type"] == kind
    assert set(comfy.NODE_CLASS_MAPPINGS) == set(comfy.NODE_DISPLAY_NAME_MAPPINGS)
    assert syncflow.__version__
