"""A kernel's first use: what is wrong switches off, what is right disturbs nothing."""

import time
import warnings

import pytest
import torch
from torch import Tensor

from syncflow import info, ops
from syncflow.ops import (
    adaln,
    cross_attention,
    euler_cfg,
    gelu,
    native,
    patchify3d,
    qk_norm_rope,
    verify,
)
from syncflow.ops.temporal_attention import temporal_attention

pytestmark = pytest.mark.skipif(
    not native.LOADED or ops.reference_only(), reason="the kernels do not run"
)


@pytest.fixture(autouse=True)
def checked_on_the_cpu(monkeypatch):
    """As if this processor were a device that nobody has tried."""
    monkeypatch.setattr(verify, "DEVICES", frozenset({"cpu"}))
    monkeypatch.setattr(verify, "_verdicts", {})
    monkeypatch.setattr(native, "_off", {})
    # Another dictionary than any plan has seen.
    monkeypatch.setattr(native, "_DEVICES", dict(native._DEVICES))


def calls(dtype=torch.float32) -> dict[str, tuple]:
    """By operator, a wrapper and its arguments."""
    x, y = torch.randn(2, 2, 4, 24, dtype=dtype)
    m, w = torch.randn(3, 2, 24, dtype=dtype), torch.ones(24, dtype=dtype)
    qkv, gain = torch.randn(2, 6, 3, 3, 2, 8, dtype=dtype), torch.ones(8, dtype=dtype)
    q, k = torch.randn(2, 5, 2, 8, dtype=dtype), torch.randn(2, 2, 7, 8, dtype=dtype)
    latents, weight = torch.randn(1, 4, 2, 6, 6, dtype=dtype), torch.randn(10, 4, 1, 2, 2)
    size = ((1, 2, 2), 4, (2, 6, 6))
    return {
        "adaln": (adaln.adaln, (x, m[0], m[1])),
        "gate_residual": (adaln.gate_residual, (x, y, m[2])),
        "gate_residual_adaln": (adaln.gate_residual_adaln, (x, y, m[2], m[0], m[1])),
        "residual_layernorm": (adaln.residual_layernorm, (x, y, w, w)),
        "bias_gelu": (gelu.bias_gelu, (x, w)),
        "temporal_attention": (temporal_attention, (qkv, gain, gain)),
        "qk_norm_rope": (qk_norm_rope.qk_norm_rope, (qkv[:, :, 0], gain, gain)),
        "cross_attention": (cross_attention.cross_attention, (q, (k, k))),
        "patchify3d": (patchify3d.patchify3d, (latents, weight.to(dtype))),
        "unpatchify3d": (patchify3d.unpatchify3d, (torch.randn(1, 2, 9, 16), *size)),
        "euler_cfg": (euler_cfg.euler_cfg, (x, y, None, 1.0, 0.1)),
    }


NAMES = tuple(calls())


def spoil(monkeypatch, operator: native.Operator) -> None:
    """The operator's kernel adds a thousandth to what it should give."""
    right = operator._plain

    def wrong(*given):
        return right(*given) + 1e-3

    monkeypatch.setattr(operator, "_plain", wrong)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gradient", [False, True])
def test_right_kernels_stay_and_nothing_is_disturbed(name, dtype, gradient, recwarn):
    function, given = calls(dtype)[name]
    given = [t.requires_grad_() if gradient and torch.is_tensor(t) else t for t in given]
    before = torch.random.get_rng_state()
    with torch.set_grad_enabled(gradient):
        function(*given)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert native._off == {} and not recwarn.list
    # Where a gradient is wanted the kernels of some have nothing to do on this device.
    kernel_runs = not gradient or name not in ("patchify3d", "unpatchify3d", "euler_cfg")
    assert ({key[0] for key in verify._verdicts} == {name}) == kernel_runs
    assert not any(verify._verdicts.values())


def test_a_wrong_kernel_is_switched_off_with_one_line(monkeypatch):
    spoil(monkeypatch, adaln._ADALN)
    x, m = torch.randn(2, 3, 16), torch.randn(2, 16)
    with torch.no_grad(), pytest.warns(UserWarning) as caught:
        outs = [adaln.adaln(x, m, m), adaln.adaln(x, m, m), adaln.adaln(x[:, :2], m, m)]
    (line,) = [str(w.message) for w in caught]
    assert line.startswith("syncflow switches its kernel of adaln off: its error is")
    assert "\n" not in line and "cpu" in line
    assert torch.equal(outs[0], adaln.adaln_reference(x, m, m)) and torch.equal(outs[0], outs[1])
    assert not native.usable("adaln", x) and native.usable("gate_residual", x)
    off = native.status()["off"]
    assert set(off) == {"adaln"} and "allowed" in off["adaln"]
    assert "adaln" in info.table({"kernels": native.status()})


def test_a_kernel_that_fails_or_gives_nan_is_wrong(monkeypatch):
    x, m = torch.randn(2, 3, 16), torch.randn(2, 16)

    def fails(*given):
        raise RuntimeError("no image for this device\nand more")

    monkeypatch.setattr(adaln._ADALN, "_plain", fails)
    monkeypatch.setattr(adaln._GATE_RESIDUAL, "_plain", lambda x, *rest: x * torch.nan)
    with torch.no_grad(), pytest.warns(UserWarning):
        adaln.adaln(x, m, m)
        adaln.gate_residual(x, x, m)
    assert native._off["adaln"].startswith("it fails: no image for this device, on cpu")
    assert "error is nan" in native._off["gate_residual"]


def of_error(error: float, allowed: float = 0.0, size: float = 1.0) -> verify.Problem:
    """A kernel with this error, and a twin with that one, of what is to be `size` everywhere."""

    def gives(far: float):
        return lambda x: torch.full_like(x, size if x.dtype == torch.float64 else size + far)

    return verify.Problem([(2, 3)], kernel=gives(error), twin=gives(allowed))


RIGHT, WRONG = verify.Verdict.RIGHT, verify.Verdict.WRONG


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0.25, 1, 16])
@pytest.mark.parametrize("units", [0, 1, 8])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_is_twice_the_twins_error_and_a_rounding_unit(dtype, size, units, sign):
    unit = torch.finfo(dtype).eps * max(1, size)
    bound = (2 * units + 1) * unit
    verdicts = []
    for times in (0.5, 1, 1.5, 4):
        verify.forget()
        problem = of_error(sign * times * bound, units * unit, size)
        verdicts.append(verify.first_use("made up", problem, (torch.ones(1).to(dtype),), False)[0])
    assert verdicts == [RIGHT, RIGHT, WRONG, WRONG]


@pytest.mark.parametrize(("times", "off"), [(0.5, set()), (4, {"adaln"})])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_so_many_times_what_is_allowed(monkeypatch, recwarn, dtype, times, off):
    whats = verify._what_is_wrong

    def spoiled(problem, *given):
        def kernel(*tensors):
            exact = problem.twin(*[t.double() for t in tensors])
            allowed = (problem.twin(*tensors) - exact).abs().max()
            bound = 2 * allowed + torch.finfo(dtype).eps * max(1.0, exact.abs().max())
            return (exact + times * bound).to(dtype)

        return whats(problem._replace(kernel=kernel), *given)

    monkeypatch.setattr(verify, "_what_is_wrong", spoiled)
    x, m = torch.randn(2, 3, 16, dtype=dtype), torch.randn(2, 16, dtype=dtype)
    with torch.no_grad():
        adaln.adaln(x, m, m)
    assert len(verify._verdicts) == 1 and set(native._off) == off
    assert len(recwarn.list) == len(off)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (Tensor.double, r"\(.*, 16\) torch.float64 for \(.*, 16\) torch.float32,"),
        (lambda out: out[None], r"\(1, .*, 16\) torch.float32 for \(.*, 16\) torch.float32,"),
        (lambda out: out[:0], r"\(0, .*, 16\) torch.float32 for \(.*, 16\) torch.float32,"),
        (lambda out: (out, out), "2 results for 1,"),
    ],
    ids=["dtype", "shape", "nothing", "number"],
)
def test_a_kernel_of_another_shape_or_dtype_is_wrong(monkeypatch, change, what):
    """However exact its numbers are, and though they can be compared."""
    x, m = torch.randn(2, 3, 16), torch.randn(2, 16)
    right = adaln._ADALN._plain
    monkeypatch.setattr(adaln._ADALN, "_plain", lambda *given: change(right(*given)))
    with torch.no_grad(), pytest.warns(UserWarning, match=f"kernel of adaln off: it gives {what}"):
        out = adaln.adaln(x, m, m)
    assert torch.equal(out, adaln.adaln_reference(x, m, m)) and set(native._off) == {"adaln"}


def test_a_wrong_way_back_is_found_when_a_gradient_is_wanted(monkeypatch):
    x, m = torch.randn(2, 3, 16), torch.randn(2, 16)
    right = native._functions["adaln"]

    class Wrong(right):
        @staticmethod
        def backward(ctx, grad):
            grad_x, *rest = right.backward(ctx, grad)
            return 1.01 * grad_x, *rest

    monkeypatch.setitem(native._functions, "adaln", Wrong)
    with torch.no_grad():
        adaln.adaln(x, m, m)
    assert not native._off
    with pytest.warns(UserWarning, match="kernel of adaln off"):
        out = adaln.adaln(x.requires_grad_(), m, m)
    assert "syncflow" not in out.grad_fn.name()


def test_an_operator_that_works_in_place_goes_with_its_twin_of_no_underscore(monkeypatch):
    monkeypatch.setattr(gelu._BIAS_GELU, "_inplace_op", lambda x, bias: x.zero_())
    x = torch.randn(3, 16)
    expected = gelu.bias_gelu_reference(x)
    with torch.no_grad(), pytest.warns(UserWarning, match="kernel of bias_gelu off"):
        assert torch.equal(gelu.bias_gelu(x), expected)
    assert set(native._off) == {"bias_gelu", "bias_gelu_"}


def test_once_for_a_kind_of_call(monkeypatch):
    made = []
    whats = verify._what_is_wrong
    monkeypatch.setattr(
        verify, "_what_is_wrong", lambda *given: made.append(given) or whats(*given)
    )
    with torch.no_grad():
        for B, N, C in [(2, 3, 16), (5, 7, 16), (2, 3, 16), (2, 3, 24)]:
            adaln.adaln(torch.randn(B, N, C), *torch.randn(2, B, C))
        assert len(made) == 2  # widths 16 and 24
        adaln.adaln(torch.randn(2, 3, 16).bfloat16(), *torch.randn(2, 2, 16))
        assert len(made) == 3
    adaln.adaln(torch.randn(2, 3, 16, requires_grad=True), *torch.randn(2, 2, 16))
    assert len(made) == 4


def test_kinds_of_equal_shapes_are_told_apart():
    x = (torch.ones(1),)
    verdicts = [
        verify.first_use("made up", of_error(error)._replace(kind=kind), x, False)[0]
        for kind, error in [("even", 0.0), ("odd", 0.1), ("even", 0.2), ("odd", 0.0)]
    ]
    assert verdicts == [RIGHT, WRONG, RIGHT, WRONG] and len(verify._verdicts) == 2
    verify.forget()
    _, (qkv, *gains) = calls()["qk_norm_rope"]
    table = torch.randn(6, 4, 2)
    with torch.no_grad():
        for interleaved in (False, True, False, True):
            qk_norm_rope.qk_norm_rope(qkv, *gains, table, interleaved)
    assert len(verify._verdicts) == 2 and not native._off


def test_it_runs_as_at_the_top_level(monkeypatch):
    seen = []
    whats = verify._what_is_wrong

    def modes():
        mode = torch.is_inference_mode_enabled()
        return mode, torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()

    def looking(*given):
        seen.append(modes())
        return whats(*given)

    monkeypatch.setattr(verify, "_what_is_wrong", looking)
    x, m = torch.randn(2, 3, 16), torch.randn(2, 16)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.inference_mode():
            adaln.adaln(x, m, m)
            assert modes() == (True, True, False)
        with torch.no_grad():
            adaln.adaln(x[..., :8].contiguous(), m[:, :8], m[:, :8])
        adaln.adaln(x.clone().requires_grad_(), m, m)
        assert modes() == (False, True, True)
    assert seen == [(False, False, False), (False, False, False), (False, False, True)]
    assert not native._off


def test_inside_inference_mode_autocast_checkpointing_and_hooks():
    x, m = torch.randn(2, 3, 16), torch.randn(2, 16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        adaln.adaln(x, m, m)
    packed = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t)
    with hooks:
        adaln.adaln(x.clone().requires_grad_(), m, m)
    assert len(packed) == 3 and len(verify._verdicts) == 2
    verify.forget()
    leaf = x.clone().requires_grad_()
    out = torch.utils.checkpoint.checkpoint(adaln.adaln, leaf, m, m, use_reentrant=False)
    out.sum().backward()
    assert leaf.grad.isfinite().all() and not native._off


def test_not_while_traced_faked_or_captured(monkeypatch):
    x, m = torch.randn(2, 3, 16), torch.randn(2, 16)
    with torch.no_grad():
        torch.compile(adaln.adaln, fullgraph=True, backend="aot_eager")(x, m, m)
        assert not verify._verdicts
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode() as mode:
            adaln.adaln(*map(mode.from_tensor, (x, m, m)))
        assert not verify._verdicts
        # A device on which a graph is being captured.
        with monkeypatch.context() as patch:
            patch.setattr(verify, "_plain", lambda tensors: False)
            adaln.adaln(x, m, m)
        assert not verify._verdicts
        adaln.adaln(x, m, m)  # the same call, and now it is checked
    assert len(verify._verdicts) == 1


def test_switched_off_and_other_devices(monkeypatch):
    x, m = torch.randn(2, 3, 16), torch.randn(2, 16)
    monkeypatch.setattr(verify, "DEVICES", frozenset({"cuda"}))
    spoil(monkeypatch, adaln._ADALN)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        adaln.adaln(x, m, m)
    assert not verify._verdicts and not native._off


@pytest.mark.parametrize(("word", "devices"), [("0", set()), ("1", {"cuda"}), (None, {"cuda"})])
def test_the_environment_chooses(monkeypatch, word, devices):
    if word is None:
        monkeypatch.delenv("SYNCFLOW_VERIFY", raising=False)
    else:
        monkeypatch.setenv("SYNCFLOW_VERIFY", word)
    assert verify._devices_from_environment() == devices
    monkeypatch.setenv("SYNCFLOW_VERIFY", "yes")
    with pytest.raises(ValueError, match="SYNCFLOW_VERIFY is 'yes'"):
        verify._devices_from_environment()


def test_it_is_cheap():
    """The time of the process, best of three; a first use is to take less than 50 ms."""
    for name, (function, given) in calls().items():
        times = []
        for _ in range(3):
            verify.forget()
            native._DEVICES = dict(native._DEVICES)  # plans are forgotten with it
            start = time.process_time()
            with torch.no_grad():
                function(*given)
            times.append(time.process_time() - start)
        assert min(times) < 0.05, name
