"""Plans of operators' calls: kept, bounded, never older than the switches; what a call costs."""

import itertools
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

    tensors, before = given(40), dict(adaln._ADALN._kept)
    with FakeTensorMode() as mode:
        assert adaln.adaln(*map(mode.from_tensor, tensors)).shape == (2, 3, 40)
    assert adaln._ADALN._kept == before


def test_a_key_says_shapes_dtypes_devices_and_the_gradient_and_no_more():
    def described(tensors, mode):
        said = [None if t is None else (tuple(t.shape), t.dtype, str(t.device)) for t in tensors]
        asked = any(t is not None and t.requires_grad for t in tensors)
        return (*said, asked and mode is torch.enable_grad, mode is torch.inference_mode)

    pool = [
        None, torch.randn(2, 3), torch.randn(3, 2), torch.randn(3, 2).T, torch.randn(6),
        torch.randn(2, 3, requires_grad=True), torch.randn(2, 3).double(), torch.randn(()),
        torch.zeros(2, 3, dtype=torch.float16), torch.zeros(2, 3).to_sparse(),
        torch.nn.Parameter(torch.zeros(3, 2)), torch.randn(2, 3, device="meta"), torch.zeros(0, 3),
    ]  # fmt: skip
    found: dict[object, object] = {}
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            for some in itertools.product(pool, pool):
                said = described(some, mode)
                key = native._plan_key(*some)
                assert key is not None and found.setdefault(said, key) == key
    assert len(set(found.values())) == len(found)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_has_no_key_is_planned_anew():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        assert native._plan_key(mode.from_tensor(torch.zeros(2))) is None
    assert native._plan_key(*[torch.zeros([1] * 8)] * 7) is None
    assert native._plan_key(3.0) is None
    assert native._plan_key(*[torch.zeros([1] * 8)] * 6) is not None
    with pytest.raises(RuntimeError, match="(?i)nested"):
        native._plan_key(torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]))


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
