"""Plans of operators' calls: kept, bounded, never older than the switches; what a call costs."""

import sys
from pathlib import Path

import pytest
import torch

from syncflow import ops
from syncflow.ops import adaln, gelu, native

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import overhead  # noqa: E402

pytestmark = pytest.mark.skipif(
    not native.LOADED or ops.reference_only(), reason="the kernels do not run"
)


def given(C: int = 16) -> tuple[torch.Tensor, ...]:
    return torch.randn(2, 3, C), torch.randn(2, C), torch.randn(2, C)


def runs_the_kernel(tensors: tuple[torch.Tensor, ...]) -> bool:
    out = adaln.adaln(tensors[0].clone().requires_grad_(), *tensors[1:])
    return "syncflow" in out.grad_fn.name()


def test_a_plan_does_not_outlive_the_switches(monkeypatch):
    tensors = given()
    assert runs_the_kernel(tensors)
    with ops.reference_ops():
        assert not runs_the_kernel(tensors)
    assert runs_the_kernel(tensors)
    monkeypatch.setitem(native._off, "adaln", "by hand")
    assert not runs_the_kernel(tensors)
    monkeypatch.delitem(native._off, "adaln")
    assert runs_the_kernel(tensors)
    monkeypatch.setattr(native, "_DEVICES", {})
    assert not runs_the_kernel(tensors)


def test_a_plan_is_for_its_shapes_dtypes_and_need_of_a_gradient_alone():
    x, shift, scale = given()
    adaln.adaln(x, shift, scale)
    for wrong in (x[:1], x[..., :8]):
        for _ in range(2):
            with pytest.raises(ValueError, match="does not modulate x"):
                adaln.adaln(wrong, shift, scale)
    assert adaln.adaln(x.bfloat16(), shift, scale).dtype == torch.bfloat16
    assert adaln.adaln(x, shift, scale).grad_fn is None
    assert adaln.adaln(x, shift.requires_grad_(), scale).grad_fn is not None
    with torch.no_grad():
        assert adaln.adaln(x, shift, scale).grad_fn is None
    with torch.inference_mode():
        assert adaln.adaln(x, shift, scale).is_inference()
    assert not adaln.adaln(x, shift.detach(), scale).is_inference()


def test_plans_are_bounded():
    for n in range(1, 2 * native._MOST_PLANS):
        gelu.bias_gelu(torch.zeros(n, 4))
    assert 0 < len(gelu._BIAS_GELU._kept) <= native._MOST_PLANS


def test_layout_is_no_part_of_a_plan():
    x, out = torch.randn(4, 6), []
    for y in (x.clone(), x.T.contiguous().T, x.clone()):
        out.append(gelu.bias_gelu(y))
    assert torch.equal(out[0], out[1]) and torch.equal(out[0], out[2])


def test_fake_tensors_leave_no_plans():
    from torch._subclasses.fake_tensor import FakeTensorMode

    tensors = given(40)
    with FakeTensorMode() as mode:
        assert adaln.adaln(*map(mode.from_tensor, tensors)).shape == (2, 3, 40)
    assert not any(key[0][0][-1] == 40 for key in adaln._ADALN._kept)


def test_vmap_takes_the_operator():
    x, shift, scale = given()
    mapped = torch.vmap(lambda x: adaln.adaln(x, shift, scale))(x[None])
    assert torch.equal(mapped[0], adaln.adaln(x, shift, scale))


def calls_of(function) -> int:
    """How many functions, of Python and of C, one call enters."""
    count = 0

    def seen(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("mode", overhead.MODES)
def test_a_repeated_call_only_looks_up(mode):
    """Counted, so the same on a busy machine: at most ten functions more than the bare operator."""
    with overhead.MODES[mode]():
        for name, (wrapper, dispatch) in overhead.pairs().items():
            for _ in range(2):
                wrapper(), dispatch()
            assert calls_of(wrapper) <= calls_of(dispatch) + 10, name


@pytest.mark.parametrize("mode", overhead.MODES)
def test_a_wrapper_costs_little_beside_its_operator(mode):
    """Twice its dispatch is the goal (`benchmarks/kernels.py overhead`), and this its alarm."""
    with overhead.MODES[mode]():
        for name, pair in overhead.pairs().items():
            for _ in range(3):
                wrapper, dispatch = overhead.best(pair, rounds=30)
                if wrapper <= 3 * dispatch + 2:
                    break
            else:
                pytest.fail(f"{name}: {wrapper:.1f} us beside {dispatch:.1f}")
