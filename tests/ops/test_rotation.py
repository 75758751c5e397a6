"""Rotary turns that need a gradient."""

import pytest
import torch

from syncflow.ops import rotation


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_turn_with_a_gradient_is_the_kernels_and_turns_the_gradient_back(
    monkeypatch, interleaved, dtype
):
    """In training keys were turned by plain operators: six launches a layer, and more back."""
    # The kernel is CUDA's; what it leaves to others is the same on a CPU.
    monkeypatch.setattr(rotation, "_WITH_GRADIENT", frozenset({"cpu"}))
    monkeypatch.setattr(rotation, "_turns_with_gradient", lambda *_: True)
    torch.manual_seed(0)
    table = rotation.rotation_table(torch.rand(5, 8, dtype=torch.float64) * 6, torch.float32)
    given = torch.randn(2, 5, 3, 16).to(dtype)
    kept, grad = given.clone(), torch.randn(2, 5, 3, 16).to(dtype)
    results = []
    for function in (rotation.turned, rotation._turned_reference):
        x = given.detach().requires_grad_()
        out = function(x, table, interleaved)
        kernels = type(out.grad_fn).__name__ == "_TurnBackward"
        assert kernels == (function is rotation.turned)
        out.backward(grad)
        assert torch.equal(x.detach(), kept), "what a gradient may need is not taken over"
        results.append((out.detach(), x.grad))
    near = 1e-6 if dtype == torch.float32 else 2e-2
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, rtol=near, atol=near)


def test_a_turn_on_a_cpu_is_the_plain_operators():
    x = torch.randn(1, 4, 2, 8, requires_grad=True)
    table = rotation.frame_rotation(4, 8, 1e4, torch.device("cpu"), torch.float32)
    assert "Turn" not in type(rotation.turned(x, table, False).grad_fn).__name__
