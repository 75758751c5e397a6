"""Which backend computes attention on a GPU, and what each is given; on a machine without one.

Packages are stood in for by functions of their published signatures, and the GPU by a tensor that
says that it is on one.
"""

import dataclasses
import os
import subprocess
import sys
import types
import warnings

import pytest
import torch
import torch.nn.functional as F
from attention_packages import FAKES, on_gpu, operands
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend

from syncflow import info
from syncflow.ops import attention as attention_module
from syncflow.ops import attention_backends as backends
from syncflow.ops.attention import attention

PACKAGES = [name for name, backend in backends.BACKENDS.items() if backend.module]


@pytest.fixture
def asked(monkeypatch):
    """asked(name): as SYNCFLOW_ATTENTION=name on a GPU of compute capability 9.0, with the package
    `name` (and no other) installed."""
    monkeypatch.setattr(backends, "_warned", set())
    monkeypatch.setattr(backends, "capability", lambda index: (9, 0))
    backends.find.cache_clear()

    def ask(name: str, found: bool = True) -> list:
        calls = []
        monkeypatch.setattr(backends, "asked_for", name)
        if found and name in FAKES:
            backend, fake = backends.BACKENDS[name], FAKES[name]
            parts = backend.module.split(".")
            for i in range(len(parts)):
                module = types.ModuleType(".".join(parts[: i + 1]))
                module.__path__ = []
                monkeypatch.setitem(sys.modules, module.__name__, module)

            def counted(q, k, v, *rest, **options):
                calls.append((q, options))
                return fake(q, k, v, *rest, **options)

            setattr(module, backend.symbol, counted)
        return calls

    yield ask
    backends.find.cache_clear()


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_packages(asked, name, dtype):
    calls = asked(name)
    given = operands(dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = attention(*on_gpu(given))
    expected = F.scaled_dot_product_attention(*given)
    assert len(calls) == 1 and out.dtype == dtype
    assert torch.equal(out.as_subclass(Tensor), expected)
    q, options = calls[0]
    assert q.shape == (2, 5, 3, 24)
    assert options.get("softmax_scale", options.get("scale")) == 24**-0.5


@pytest.mark.parametrize("kind", ["bool", "float", "broadcast"])
def test_xformers_takes_masks(asked, kind):
    calls = asked("xformers")
    given = operands()
    mask = torch.rand(2, 1, 1 if kind == "broadcast" else 5, 9) < 0.6
    mask[..., 0] = True
    if kind != "bool":
        mask = torch.where(mask, 0.0, -1e4).bfloat16()
    with warnings.catch_warnings():  # what it fails at is passed over with one
        warnings.simplefilter("error")
        out = attention(*on_gpu([*given, mask]))
    expected = F.scaled_dot_product_attention(*given, attn_mask=mask)
    torch.testing.assert_close(out.as_subclass(Tensor), expected, rtol=0, atol=2e-2)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("flash-attn-2", {"mask": "bool"}, "it takes no mask"),
        ("flash-attn-3", {"dtype": torch.float32}, "it does not take float32"),
        ("flash-attn-4", {"D": 136}, "it does not take heads of 136"),
        ("xformers", {"D": 20}, "it does not take heads of 20"),
        ("flash", {"mask": "bool"}, "it takes no mask"),
        ("cudnn", {"dtype": torch.float32}, "it does not take float32"),
        ("xformers", {"mask": "learned"}, "it gives no gradient of a mask"),
        ("cudnn", {"mask": "learned"}, "it gives no gradient of a mask"),
        ("flash-attn-3", {"capability": (8, 0)}, "it does not run on this GPU"),
        ("flash-attn-4", {"capability": (8, 9)}, "it does not run on this GPU"),
        ("flash-attn-2", {"capability": (7, 5)}, "it does not run on this GPU"),
    ],
)
def test_calls_that_it_does_not_take(asked, monkeypatch, name, change, why):
    """One line of warning, once, and PyTorch's own choice."""
    calls = asked(name)
    sizes = dict(change)
    kind, found = sizes.pop("mask", None), sizes.pop("capability", (9, 0))
    monkeypatch.setattr(backends, "capability", lambda index: found)
    mask = torch.ones(2, 1, 1, 9, dtype=torch.bool) if kind else None
    if kind == "learned":
        mask = mask.bfloat16().requires_grad_()
    given = operands(**sizes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            out = attention(*on_gpu(given), mask)
    assert torch.equal(
        out.as_subclass(Tensor), F.scaled_dot_product_attention(*given, attn_mask=mask)
    )
    said = [str(w.message) for w in caught]
    assert len(said) == 1 and said[0].startswith(f"SYNCFLOW_ATTENTION={name} was passed over")
    assert said[0].endswith(why) and "\n" not in said[0] and not calls


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_mixed_dtypes_are_refused(asked, name):
    asked(name)
    q, k, v = on_gpu(operands())
    assert not backends.refusal(name, q, k, v, None)
    for given in [(q, k.half(), v), (q, k, v.half()), (q.half(), k, v)]:
        assert backends.refusal(name, *given, None).startswith("it does not take ")


@pytest.mark.parametrize("name", ["flash-attn-2", "xformers"])
def test_what_is_not_installed(asked, monkeypatch, name):
    asked(name, found=False)
    monkeypatch.setitem(sys.modules, backends.BACKENDS[name].module, None)
    with pytest.warns(UserWarning, match=f"{backends.BACKENDS[name].module}.*") as caught:
        attention(*on_gpu(operands()))
    assert len(caught) == 1


def test_a_package_without_the_function_is_not_found(asked, monkeypatch):
    """flash-attn-4 alone makes `flash_attn` importable, without flash_attn_func in it."""
    asked("flash-attn-4")
    assert backends.find("flash-attn-4")[0] and not backends.find("flash-attn-2")[0]
    assert backends.status()["flash-attn-2"].startswith("flash_attn.flash_attn_func: ")
    assert info.collect(attention=True)["attention"]["flash-attn-4"] == "found"


def test_a_package_that_fails_is_passed_over(asked, monkeypatch):
    asked("xformers")

    def fail(*operands, **options):
        raise NotImplementedError("No operator found\nfor these inputs")

    monkeypatch.setattr(sys.modules["xformers.ops"], "memory_efficient_attention", fail)
    given = operands()
    with pytest.warns(UserWarning, match="No operator found$"):
        out = attention(*on_gpu(given))
    assert torch.equal(out.as_subclass(Tensor), F.scaled_dot_product_attention(*given))


@pytest.mark.parametrize("name", PACKAGES)
def test_want_of_memory_is_not_passed_over(asked, monkeypatch, name):
    """A second way would want as much, and hide what the first had said."""

    def fail(*operands, **options):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setitem(FAKES, name, fail)
    calls = asked(name)
    with pytest.raises(torch.OutOfMemoryError, match="^out of memory$"):
        attention(*on_gpu(operands()))
    assert len(calls) == 1


def test_never_on_a_cpu_tensor(asked):
    calls = asked("xformers")
    given = operands(dtype=torch.float32)
    assert torch.equal(attention(*given), F.scaled_dot_product_attention(*given))
    assert not calls


# (B, queries, keys, heads, D) -> what was fastest, as measured.
MEASURED = {
    (16, 256, 256, 16, 72): "sdpa",
    (128, 256, 256, 16, 72): "sdpa",
    (16, 1024, 1024, 16, 72): "sdpa",
    (2, 2048, 300, 16, 72): "sdpa",
    (2, 2048, 64, 16, 72): "flash",
    (2, 2048, 2048, 16, 72): "sdpa",
    (2, 100, 2049, 16, 72): "flash",
    (2, 100, 2048, 16, 72): "flash",
    (2, 100, 100, 16, 72): "efficient",
    (16, 16, 16, 4, 32): "efficient",
}


def empty(B, L, M, H, D, dtype=torch.bfloat16) -> list[Tensor]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        return [torch.empty(B, H, n, D, dtype=dtype, device="cuda") for n in (L, M, M)]


@pytest.mark.parametrize(("shape", "best"), MEASURED.items())
def test_table(asked, monkeypatch, shape, best):
    asked("auto")
    q, k, v = empty(*shape)
    assert q.is_cuda and backends.preferred(q, k, v, None) == best
    assert backends.preferred(q, k, v, q) == "sdpa"
    assert backends.preferred(*empty(*shape, torch.float32), None) == "sdpa"
    for one in (q, k, v):
        one.requires_grad_()
        assert backends.preferred(q, k, v, None) == "sdpa"
        with torch.no_grad():
            assert backends.preferred(q, k, v, None) == best
        one.requires_grad_(False)
    assert backends.preferred(q, k, v, None) == best
    monkeypatch.setattr(backends, "capability", lambda index: (8, 0))
    assert backends.preferred(q, k, v, None) == "sdpa"


@pytest.mark.parametrize(("shape", "rows"), [((100, 100), 64), ((100, 2048), 32), ((2048, 64), 32)])
def test_table_ends_at_what_was_measured(asked, shape, rows):
    """B x heads up to `rows`, and heads of 32 and of 72."""
    asked("auto")
    best = MEASURED[(2, *shape, 16, 72)]
    for B, H in [(rows // 16, 16), (rows, 1), (1, rows)]:
        assert backends.preferred(*empty(B, *shape, H, 72), None) == best != "sdpa"
    for B, H in [(rows // 16 + 1, 16), (rows + 1, 1), (1, rows + 1)]:
        assert backends.preferred(*empty(B, *shape, H, 72), None) == "sdpa"
    for D in (8, 32, 40, 64, 72, 80, 128):
        wanted = best if D in (32, 72) else "sdpa"
        assert backends.preferred(*empty(2, *shape, 16, D), None) == wanted


def test_a_gpu_without_memory_has_no_capability():
    """As counted with tensors that have none."""
    if not torch.cuda.is_available():
        assert backends.preferred(*empty(2, 100, 100, 16, 72), None) == "sdpa"


@pytest.mark.parametrize("name", ["auto", "sdpa", "flash", "efficient", "cudnn"])
@pytest.mark.parametrize("shape", [(2, 100, 2048, 16, 72), (2, 256, 256, 4, 32)])
def test_one_graph(asked, monkeypatch, name, shape):
    """Neither the table nor PyTorch's own backends break a compiled model's graph."""
    asked(name)
    for own, backend in backends.BACKENDS.items():  # without a GPU none of its kernels is there
        if backend.module is None:
            plain = dataclasses.replace(backend, kernel=SDPBackend.MATH)
            monkeypatch.setitem(backends.BACKENDS, own, plain)
    graphs = []

    def backend(module, inputs):
        graphs.append(module)
        return module.forward

    torch._dynamo.reset()
    compiled = torch.compile(attention_module._on_a_gpu, backend=backend, fullgraph=True)
    with torch.no_grad():
        out = compiled(*empty(*shape), None)
    assert out.shape == (shape[0], shape[3], shape[1], shape[4]) and len(graphs) == 1


def test_a_wrong_name_is_refused():
    done = subprocess.run(
        [sys.executable, "-c", "import syncflow.ops.attention"],
        capture_output=True, text=True, env={**os.environ, "SYNCFLOW_ATTENTION": "flash2"},
    )  # fmt: skip
    assert done.returncode
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "ValueError: SYNCFLOW_ATTENTION is 'flash2'; it must be one of auto, sdpa, flash, cudnn, "
        "efficient, flash-attn-2, flash-attn-3, flash-attn-4, xformers"
    )


def test_nothing_is_imported_before_it_is_wanted():
    code = (
        "import sys, torch; from syncflow.ops.attention import attention;"
        "attention(*torch.ones(3, 1, 1, 2, 8));"
        "print([m for m in sys.modules if m.split('.')[0] in ('xformers', 'flash_attn')])"
    )
    env = {**os.environ, "SYNCFLOW_ATTENTION": "xformers"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == "[]", done.stderr


def test_marks_for_the_compiler_are_pytorchs_own():
    """Made without importing it; under a private name, so that a change of it has to be noticed."""

    def function():
        pass

    marked = torch.compiler.assume_constant_result(function)
    ours = {name for name in vars(backends.capability) if "dynamo" in name}
    assert ours == {name for name in vars(marked) if "dynamo" in name} != set()
    assert ours <= set(vars(backends.warn_once))


def test_a_compiled_model_leaves_its_graph_for_a_package(monkeypatch):
    graphs = []

    def backend(graph, given):
        graphs.append(graph)
        return graph.forward

    def twice(q, k, v):
        return backends.run("flash-attn-2", q * 2, k, v, None) + 1

    called = []

    def package(q, k, v, **options):
        called.append(torch.compiler.is_compiling())
        return q

    monkeypatch.setattr(backends, "find", lambda name: (package, ""))
    q = torch.randn(1, 2, 8, 8)
    torch._dynamo.reset()
    out = torch.compile(twice, backend=backend)(q, q, q)
    assert torch.equal(out, q * 2 + 1)
    assert called == [False] and len(graphs) == 2
