"""Blocks for Modular Diffusers, and a pipeline that is called as diffusers' are."""

import numpy as np
import pytest
import torch
from diffusers.modular_pipelines import SequentialPipelineBlocks
from PIL import Image

import syncflow
from syncflow.generation.manner import diffusers as manner
from syncflow.modular import Decode, Denoise, EncodeText, SyncFlowBlocks
from tests.small_model import PROMPT, build, run, same


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def pipe(model, tmp_path_factory):
    folder = model.save(tmp_path_factory.mktemp("modular") / "model")
    made = SyncFlowBlocks().init_pipeline(folder)
    assert set(made.components) == {"text_encoder", "ddit", "video_vae", "audio_vae", "settings"}
    assert set(made.components.values()) == {None}
    made.load_components()
    assert None not in made.components.values()
    return made


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_blocks_give_the_models_own_clip(model, pipe):
    asked = {"num_inference_steps": 4, "guidance_scale": 3.0, "generator": seeded(7)}
    state = pipe(prompt=PROMPT, **asked, sampling={"audio_steps": 2}, progress=False)
    clip = run(model, seed=7, steps=4, guidance=3.0, audio_steps=2)
    assert same(state.get("clips")[0], clip)
    assert torch.equal(state.get("audio")[0][0], clip.audio)
    frames = state.get("videos")[0]
    assert len(frames) == 16 and isinstance(frames[0], Image.Image)


def test_several_prompts_and_negative_ones(model, pipe):
    prompts = [PROMPT, "a drum falls"]
    away = {"negative_prompt": "blur", "negative_audio_prompt": "music"}
    clips = pipe(prompt=prompts, generator=seeded(3), **away, progress=False, output="clips")
    alone = run(model, prompts, seed=3, **away)
    for clip, other in zip(clips, alone, strict=True):
        assert (clip.video.int() - other.video.int()).abs().max() <= 1
        torch.testing.assert_close(clip.audio, other.audio, atol=1e-4, rtol=1e-3)


def test_each_block_can_be_taken_alone(model, pipe):
    """Embeddings of one pipeline, latents of another, decoded by a third."""
    text = SequentialPipelineBlocks.from_blocks_dict({"text": EncodeText()}).init_pipeline()
    text.update_components(text_encoder=pipe.text_encoder)
    embeds = text(prompt=PROMPT, output="prompt_embeds")
    middle = SequentialPipelineBlocks.from_blocks_dict({"denoise": Denoise()}).init_pipeline()
    middle.update_components(ddit=pipe.ddit, settings=pipe.settings)
    given = {"prompt_embeds": embeds, "generator": seeded(1), "progress": False}
    state = middle(prompt=PROMPT, **given, num_inference_steps=2)
    end = SequentialPipelineBlocks.from_blocks_dict({"decode": Decode()}).init_pipeline()
    end.update_components(
        video_vae=pipe.video_vae, audio_vae=pipe.audio_vae, settings=pipe.settings
    )
    latents = {name: state.get(name) for name in ("latents", "audio_latents", "geometry")}
    (clip,) = end(**latents, output="clips")
    assert same(clip, run(model, seed=1, steps=2))
    with pytest.raises(ValueError, match="no embedding of 'another'"):
        middle(prompt="another", **given)


def test_a_repeated_step_counts_and_stops(pipe):
    steps = []
    pipe(
        prompt=PROMPT,
        callback=lambda step, x, t: steps.append(step),
        progress=False,
        num_inference_steps=2,
        output="clips",
    )
    assert steps == [1, 2, 3, 4]
    assert "encode_text" in repr(pipe.blocks) and "num_inference_steps" in pipe.doc


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"output_type": "jpeg"}, "unknown output_type 'jpeg'; known are pil, np, pt"),
        ({"generator": 7}, "generator must be a torch.Generator, got int"),
        ({"num_inference_steps": 0}, "steps must be a whole number"),
        ({"sampling": {"candidates": 3}}, "candidates needs whole clips"),
        ({"contacts": [0.2]}, "not trained to be told"),
        ({"height": 7}, "height"),
        ({"height": 0}, "height must be"),
        ({"seconds": True}, "seconds must be"),
        ({"sampling": {"steps": 3}}, "steps is said twice"),
        ({"sampling": ["a"]}, "sampling must be a dict"),
        ({"sampling": {3: 4}}, "sampling must be a dict"),
        ({"sampling": {"shfit": 3}}, "sampling has no option 'shfit'; the nearest is 'shift'"),
        ({"sampling": {"seed": 3}}, "sampling has no option 'seed'; the nearest is "),
        ({"sampling": {"": None}}, "sampling has no option ''; the nearest is "),
        ({"progress": "no"}, "progress must be True or False, got 'no'"),
        ({"negative_prompt": 5}, "negative_prompt must be a string, got 5"),
        ({"negative_audio_prompt": ["a"]}, "negative_audio_prompt must be a string, got"),
        ({"callback": 5}, "callback is a function that is given each step, got 5"),
    ],
)
def test_what_cannot_be_made_is_refused(pipe, given, said):
    with pytest.raises(ValueError, match=said):
        pipe(prompt=PROMPT, **{"num_inference_steps": 1, "progress": False, **given})


def test_nothing_is_drawn_for_an_output_type_that_there_is_not(pipe):
    steps = []
    given = {"num_inference_steps": 1, "progress": False, "callback": lambda *of: steps.append(of)}
    with pytest.raises(ValueError, match="unknown output_type 'pill'"):
        pipe(prompt=PROMPT, output_type="pill", **given)
    assert not steps


def test_parts_that_are_not_loaded_are_asked_for(model, tmp_path):
    made = SyncFlowBlocks().init_pipeline(model.save(tmp_path / "model"))
    with pytest.raises(ValueError, match=r"text_encoder, ddit, .* call load_components\(\)"):
        made(prompt=PROMPT)
    made.load_components(["text_encoder", "ddit", "settings"])
    with pytest.raises(ValueError, match=r"^video_vae, audio_vae: not loaded yet"):
        made(prompt=PROMPT, num_inference_steps=1)
    alone = SequentialPipelineBlocks.from_blocks_dict({"text": EncodeText()}).init_pipeline()
    with pytest.raises(ValueError, match="^text_encoder: not loaded yet"):
        alone(prompt=PROMPT)


def test_the_shipped_model_and_unknown_ones():
    made = SyncFlowBlocks().init_pipeline()
    made.load_components(["settings"])
    assert made.settings.config.geometry.height == 64 and made.ddit is None
    made.load_components()
    few = {"num_inference_steps": 2, "generator": seeded(7), "sampling": {"audio_steps": 1}}
    (clip,) = made(prompt=PROMPT, **few, progress=False, output="clips")
    # Its file has half the precision in which it is run.
    assert same(clip, run(syncflow.load(), seed=7, steps=2, audio_steps=1))
    with pytest.raises(FileNotFoundError):
        SyncFlowBlocks().init_pipeline("no/such/folder/here")


def test_a_model_is_called_as_pipelines_are(model):
    asked = {"num_inference_steps": 2, "guidance_scale": 2.5, "progress": False}
    made = model(PROMPT, generator=seeded(5), **asked)
    assert same(made.clips[0], run(model, seed=5, steps=2, guidance=2.5))
    assert isinstance(made.frames[0][0], Image.Image) and made.audio[0].shape == (1, 48000)
    arrays = model([PROMPT] * 2, generator=seeded(5), output_type="np", **asked)
    assert arrays.frames[0].shape == (16, 32, 32, 3) and arrays.frames[0].max() <= 1
    assert isinstance(arrays.frames[1], np.ndarray)
    tensors = model(PROMPT, generator=seeded(5), output_type="pt", **asked).frames[0]
    assert torch.equal((tensors * 255).round().to(torch.uint8), made.clips[0].video)
    with pytest.raises(ValueError, match="steps is said twice"):
        model(PROMPT, num_inference_steps=2, steps=3)
    with pytest.raises(ValueError, match="unknown output_type 'latent'"):
        model(PROMPT, output_type="latent")


def test_what_is_no_prompt_is_refused_as_generate_refuses_it(model):
    for prompt in (5, None, seeded(1), [PROMPT, 5]):
        said = []
        for call in (model.generate, model):
            with pytest.raises(ValueError, match="a prompt must be a string, got") as caught:
                call(prompt)
            said.append(str(caught.value))
        assert said[0] == said[1]
    once = {"num_inference_steps": 1, "progress": False}
    assert len(model((text for text in [PROMPT] * 2), **once).clips) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"negative_prompt": 5}, "negative_prompt must be a string, got 5"),
        ({"negative_prompt": ["blur"]}, "negative_prompt must be a string, got"),
        ({"negative_audio_prompt": b"a"}, "negative_audio_prompt must be a string, got b'a'"),
        ({"negative_prompt": "\ud800"}, "negative_prompt must be UTF-8 text"),
        ({"callback": 5}, "callback is a function that is given each step, got 5"),
    ],
)
def test_texts_and_functions_that_are_none_are_refused(model, given, said):
    for call in (model.generate, model):
        with pytest.raises(ValueError, match=said):
            call(PROMPT, progress=False, **given)


@pytest.mark.parametrize("value", ["no", "", 0, 1, None])
def test_a_progress_that_is_neither_true_nor_false_is_refused(model, value):
    for call in (model.generate, model):
        with pytest.raises(ValueError, match=f"progress must be True or False, got {value!r}$"):
            call(PROMPT, progress=value)


def test_a_bool_of_numpy_is_one(model, capfd):
    for shown in (False, True):
        model.generate(PROMPT, steps=1, progress=np.bool_(shown))
        assert bool(capfd.readouterr().err) == shown


def test_generators_move_on():
    generator = seeded(11)
    first, second = manner.seed(generator), manner.seed(generator)
    assert first == 11 and second != 11
    again = seeded(11)
    assert [manner.seed(again), manner.seed(again)] == [11, second]
    used = seeded(11)
    torch.rand(1, generator=used)
    assert manner.seed(used) != 11
    assert manner.seed(None) != manner.seed(None)
    assert 0 <= manner.seed(seeded(2**63)) < 2**53  # a seed that is none of ours
