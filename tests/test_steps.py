"""Steps of a clip: functions of tensors alone, run as they are, compiled, or as CUDA graphs."""

import dataclasses

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from syncflow import ops
from syncflow.clip import ClipSpec
from syncflow.config import AdaptorConfig, AudioTowerConfig, DDiTConfig, VideoTowerConfig
from syncflow.generation.sampler import Captions, GuidedVelocity, joint, picture, sound
from syncflow.generation.steps import Fixed, Steps, leaves, map_tensors, signature
from syncflow.models.ddit import DDiT

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]
SPEC = ClipSpec(height=32, width=48)


def made(device: str, condition: str = "video") -> tuple[DDiT, torch.dtype]:
    torch.manual_seed(0)
    config = DDiTConfig(
        video=VideoTowerConfig(
            hidden_size=128, num_heads=2, depth=2, caption_channels=16, model_max_length=8
        ),
        adaptor=AdaptorConfig(num_heads=2),
        audio=AudioTowerConfig(hidden_size=128, num_heads=2, condition=condition),
    )
    model = DDiT(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.count_nonzero():
            torch.nn.init.normal_(parameter, std=0.05)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return model.to(device, dtype), dtype


def captions(model: DDiT, dtype: torch.dtype, seed: int) -> Captions:
    device = model.audio_tower.x_embedder.weight.device
    draw = torch.Generator().manual_seed(seed)
    text = torch.randn(2, 8, 16, generator=draw).to(device, dtype)
    return Captions(model.prepare(text, None, SPEC), prompts=1)


def state(device: str, seed: int = 0, takes: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = (1, 4, *SPEC.video_latent_shape), (takes, SPEC.audio_latent_length, 128)
    return tuple(torch.randn(shape, generator=draw).to(device) for shape in shapes)


def velocities(model, captions, steps, x, t, moving) -> list[torch.Tensor]:
    velocity = GuidedVelocity(model, captions, 3.0, 2.0, steps=steps)
    found = velocity(x, t, moving)
    return [part for guided in found if guided for part in (guided.conditional, guided.null)]


@torch.inference_mode()
def test_a_step_depends_on_its_times_as_tensors_alone():
    """Traced at two times, the functions are the same program: nothing of t is baked in."""
    model, dtype = made("cpu")
    fixed = captions(model, dtype, 1).condition
    video, audio = state("cpu")
    context = model.audio_context([torch.randn(2, 8, 6, 128) for _ in range(2)], fixed)

    def program(function, *tensors) -> str:
        with torch.inference_mode(False), torch.no_grad():
            copies = [t.clone() for t in tensors]
            return make_fx(function, tracing_mode="real")(*copies).code

    def at(t: float) -> list[str]:
        with torch.inference_mode(False):
            clock = torch.tensor(t)
        return [
            program(lambda v, s: picture(v, s, fixed, None, model, 2), video, clock),
            program(lambda a, s: sound(a, s, context, None, model, 2), audio, clock),
            program(
                lambda v, a, s, u: joint(v, a, s, u, fixed, None, model, 2),
                video, audio, clock, clock,
            ),
        ]  # fmt: skip

    at(0.5)  # makes the tables
    assert at(0.25) == at(0.75)


@torch.inference_mode()
@pytest.mark.parametrize("condition", ["video", "both", "text"])
def test_joint_is_picture_then_sound(condition):
    """The layers of the sound beside those of the picture give what one after the other gives."""
    model, dtype = made("cpu", condition)
    words = captions(model, dtype, 1)
    fixed = words.condition
    video, audio = state("cpu", takes=3)
    t, u = torch.tensor(0.3), torch.tensor(0.6)
    if condition == "text":
        # Sound that reads no picture has nothing to wait for: a step takes the two apart.
        assert not model.adaptors
        found = velocities(model, words, Steps(), (video, audio), (0.3, 0.6), (True, True))
        v_video, v_audio = torch.cat(found[:2]), torch.cat(found[2:])
    else:
        v_video, v_audio = joint(video, audio, t, u, fixed, None, model, 2)
    alone, features = model.video_velocity(torch.cat([video, video]), t.expand(2), fixed)
    context = model.audio_context(features, fixed)
    assert torch.equal(v_video, alone)
    assert torch.equal(v_audio, sound(audio, u, context, fixed.audio, model, 2)[0])


@torch.inference_mode()
def test_folded_weights_give_the_same_sound():
    """One product in place of two; undone where the weights change, unused where one is wrapped."""
    model, dtype = made("cpu")
    fixed = captions(model, dtype, 1).condition
    x = (*state("cpu"), torch.tensor(0.3), torch.tensor(0.6), fixed, None, model, 2)
    expected = joint(*x)
    model.fold()
    assert len(model._folded) == 2
    got = joint(*x)
    assert torch.equal(got[0], expected[0]) and not torch.equal(got[1], expected[1])
    torch.testing.assert_close(got[1], expected[1], rtol=1e-4, atol=1e-5)
    linear = model.adaptors[0].linear
    model.adaptors[0].linear = torch.nn.Sequential(linear)
    first = model._folded[0]
    model._folded[0] = tuple(torch.zeros_like(tensor) for tensor in first)
    torch.testing.assert_close(joint(*x)[1], expected[1], rtol=1e-4, atol=1e-5)
    model._folded[1] = first
    wrapped = joint(*x)
    assert not torch.allclose(wrapped[1], expected[1], rtol=1e-4, atol=1e-5)
    model.adaptors[0].linear = linear
    model.load_state_dict(model.state_dict())
    assert not model._folded and torch.equal(joint(*x)[1], expected[1])


@torch.inference_mode()
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("moving", [(True, True), (True, False), (False, True)])
def test_replays_are_the_eager_step_bit_for_bit(device, moving):
    """Other times, other states and other captions through one graph; on a CPU, which has none,
    the same calls run as they are."""
    model, dtype = made(device)
    steps = Steps(graph=True)
    for seed, t in ((1, 0.2), (2, 0.7), (1, 0.9)):
        words = captions(model, dtype, seed)
        x = state(device, seed)
        expected = velocities(model, words, Steps(), x, (t, t), moving)
        got = velocities(model, words, steps, x, (t, t), moving)
        assert len(got) == len(expected) > 0
        for a, b in zip(got, expected, strict=True):
            assert torch.equal(a, b)
    graphs = [graph for graph in steps._graphs.values() if graph is not None]
    assert len(graphs) == (1 if device == "cuda" else 0)


@torch.inference_mode()
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=gpu)])
def test_a_graph_gives_results_of_its_own(device):
    """A later replay does not change what an earlier one gave."""
    model, dtype = made(device)
    steps, words = Steps(graph=True), captions(model, dtype, 1)
    first = velocities(model, words, steps, state(device, 1), (0.1, 0.1), (True, True))
    kept = [t.clone() for t in first]
    velocities(model, words, steps, state(device, 2), (0.8, 0.8), (True, True))
    for a, b in zip(first, kept, strict=True):
        assert torch.equal(a, b)


@torch.inference_mode()
@pytest.mark.slow
def test_compiled_steps_agree():
    model, dtype = made("cpu")
    words, x = captions(model, dtype, 1), state("cpu")
    with ops.reference_ops():
        expected = velocities(model, words, Steps(), x, (0.4, 0.4), (True, True))
    compiled = Steps(compiled=True)
    for _ in range(2):
        got = velocities(model, words, compiled, x, (0.4, 0.4), (True, True))
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_trees():
    @dataclasses.dataclass(frozen=True)
    class Pair:
        a: object
        b: object

    tree = Pair((torch.ones(2), [torch.zeros(3)]), Pair(None, SPEC))
    doubled = map_tensors(lambda t: 2 * t, tree)
    assert [t.sum().item() for t in leaves(doubled)] == [4, 0]
    assert doubled.b.b == SPEC and doubled.b.a is None
    assert signature(tree) == signature(doubled)
    assert signature(tree) != signature(Pair((torch.ones(2), []), Pair(None, SPEC)))
    assert signature(tree) != signature(map_tensors(lambda t: t.double(), tree))
    assert signature(Pair(torch.ones(1), 1)) != signature(Pair(torch.ones(1), 2))
    fixed = Fixed(tree)
    hash((fixed.signature, fixed.token))
