"""What a captured step stands for and holds, and what moving a model undoes."""

import pickle
import weakref

import pytest
import torch
from test_steps import captions, made, state

from syncflow import ops
from syncflow.generation.sampler import GuidedVelocity, see
from syncflow.generation.steps import Fixed, Steps, graph_key
from syncflow.ops import kept, native, rotation
from syncflow.ops.self_attention import self_attention


def key(**changes):
    given = {"function": see, "tensors": (torch.ones(2),), "fixed": Fixed(), "choices": (1,)}
    return graph_key(**{**given, **changes})


def test_a_graph_is_of_the_operators_that_ran_when_it_was_captured(monkeypatch):
    assert key() == key()
    with ops.reference_ops():
        assert native.in_use()[0]
        inside = key()
    assert inside != key()
    whole = key()
    monkeypatch.setitem(native._off, "adaln", "wrong")
    assert key() != whole
    assert key(tensors=(torch.ones(3),)) != key() != key(choices=(2,))


def table_of(T: int) -> torch.Tensor:
    return rotation.frame_rotation(T, 8, 1e4, torch.device("cpu"), torch.float32)


def test_tables_stay_where_a_graph_reads_them():
    with kept.held_tables() as held:
        seen = weakref.ref(table_of(1001))
    unheld = weakref.ref(table_of(1002))
    for T in range(1100, 1140):  # more sizes than are kept
        table_of(T)
    assert unheld() is None
    assert seen() is held[0] and len(held) == 1
    held.clear()
    assert seen() is None


def test_a_table_that_a_plan_keeps_is_held_too():
    qkv = torch.randn(1, 4, 2, 3, 2, 8)
    from syncflow.ops.temporal_attention import temporal_attention

    for _ in range(2):  # the second finds its plan
        with kept.held_tables() as held, torch.no_grad():
            temporal_attention(qkv, None, None)
        assert any(table.shape == (4, 4, 2) for table in held)


@torch.inference_mode()
def test_every_pass_over_the_picture_is_a_step(monkeypatch):
    """With guidance for the picture alone, too."""
    model, dtype = made("cpu")
    asked = []

    class Told(Steps):
        def __call__(self, function, *rest):
            asked.append(function.__name__)
            return super().__call__(function, *rest)

    found = {}
    for weights in ((3.0, 1.0), (3.0, 2.0)):
        velocity = GuidedVelocity(model, captions(model, dtype, 1), *weights, steps=Told())
        found[weights] = velocity(state("cpu"), (0.3, 0.4), (True, True))
    assert asked == ["see", "sound", "joint"]
    (video, audio), (both, guided) = found.values()
    torch.testing.assert_close(video.conditional, both.conditional)
    torch.testing.assert_close(video.null, both.null)
    torch.testing.assert_close(audio, guided.conditional)


@torch.inference_mode()
def test_a_model_that_moves_forgets_its_folded_weights():
    model, _ = made("cpu")
    for undo in (
        lambda: model.to(torch.bfloat16),
        lambda: model.load_state_dict(model.state_dict()),
    ):
        model.fold()
        assert len(model._folded) == 2
        undo()
        assert not model._folded


def test_a_model_can_be_pickled():
    model, _ = made("cpu")
    again = pickle.loads(pickle.dumps(model))
    assert again.state_dict().keys() == model.state_dict().keys()


def test_heads_are_turned_where_the_kernel_of_it_was_switched_off(monkeypatch):
    """Between the question whether it is usable and its first use it may be found wrong."""
    qkv = torch.randn(2, 6, 3, 2, 8)
    table = rotation.rotation_table(torch.rand(6, 4), torch.float32)
    with torch.no_grad():
        with ops.reference_ops():
            expected = self_attention(qkv.clone(), None, None, table, False)
            unturned = self_attention(qkv.clone(), None, None, None, False)
        monkeypatch.setattr(native, "usable", lambda name, *tensors: name == "rotate_")
        monkeypatch.setattr(rotation._ROTATE, "plan", lambda *given, **extra: None)
        got = self_attention(qkv, None, None, table, False)
    torch.testing.assert_close(got, expected)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(unturned, expected)
