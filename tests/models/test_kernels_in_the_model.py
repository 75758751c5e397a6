"""The whole model with compiled kernels against plain PyTorch: forward, backward, compiled."""

import contextlib

import pytest
import torch

from syncflow import ops
from syncflow.clip import ClipSpec
from syncflow.config import AdaptorConfig, AudioTowerConfig, DDiTConfig, VideoTowerConfig
from syncflow.models.ddit import DDiT
from syncflow.ops import native

pytestmark = pytest.mark.skipif(not native.LOADED, reason="the extension is not built")

SPEC = ClipSpec(seconds=1.0, height=48, width=32)  # T 4, latents 6x4, S 6, A 50


def model() -> DDiT:
    """A small model in which nothing is silent; head dims that are no whole vector."""
    torch.manual_seed(0)
    video = dict(
        hidden_size=40, depth=2, num_heads=2, in_channels=3, caption_channels=12, model_max_length=6
    )
    audio = dict(hidden_size=24, num_heads=2, in_channels=5, condition="both")
    ddit = DDiT(
        DDiTConfig(
            video=VideoTowerConfig(**video),
            adaptor=AdaptorConfig(num_heads=4),
            audio=AudioTowerConfig(**audio),
        )
    )
    with torch.no_grad():
        for p in ddit.parameters():
            p.copy_(torch.randn_like(p) * (0.5 if p.ndim < 2 else p[0].numel() ** -0.5))
    return ddit


def batch(masked: bool, dtype: torch.dtype) -> dict:
    g = torch.Generator().manual_seed(5)
    frame_mask = torch.tensor([[True] * 4, [False, True, True, True]])
    return dict(
        video_x_t=torch.randn(2, 3, *SPEC.video_latent_shape, generator=g).to(dtype),
        audio_x_t=torch.randn(2, SPEC.audio_latent_length, 5, generator=g).to(dtype),
        t_video=torch.rand(2, generator=g),
        t_audio=torch.rand(2, generator=g),
        text=torch.randn(2, 5, 12, generator=g).to(dtype),
        text_mask=torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool),
        spec=SPEC,
        frame_mask=frame_mask if masked else None,
    )


def results(ddit: DDiT, given: dict, call=None) -> list[torch.Tensor]:
    """Velocities and the gradient of every parameter."""
    outputs = (ddit if call is None else call)(**given)
    loss = sum(o.double().square().mean() for o in outputs)
    grads = torch.autograd.grad(loss, list(ddit.parameters()), allow_unused=True)
    return [*(o.detach() for o in outputs), *(g for g in grads if g is not None)]


def assert_as_good_as_eager(kernel, eager, exact) -> None:
    """The operators' rule on root mean squares: here errors of many operators meet."""
    for k, e, x in zip(kernel, eager, exact, strict=True):
        x = x.double()
        error, allowed = ((t.double() - x).square().mean().sqrt().item() for t in (k, e))
        rounding = torch.finfo(k.dtype).eps * max(1.0, x.square().mean().sqrt().item())
        assert error <= 2 * allowed + rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_kernels_are_as_exact_as_eager(dtype, masked):
    ddit, given = model().to(dtype), batch(masked, dtype)
    kernel = results(ddit, given)
    with ops.reference_ops():
        eager = results(ddit, given)
        exact = results(ddit.double(), batch(masked, torch.float64) | _double(given))
    assert_as_good_as_eager(kernel, eager, exact)


def _double(given: dict) -> dict:
    """The very inputs, widened: their rounding is no error."""
    return {k: v.double() for k, v in given.items() if torch.is_tensor(v) and v.is_floating_point()}


def test_autocast_gives_the_dtypes_of_eager():
    ddit, given = model(), batch(False, torch.float32)
    answers = []
    for switch in (contextlib.nullcontext(), ops.reference_ops()):
        with torch.autocast("cpu", torch.bfloat16), switch:
            answers.append(results(ddit, given))
    for k, e in zip(*answers, strict=True):
        assert k.dtype == e.dtype
        assert (k - e).square().mean().sqrt() <= 0.1 * (1e-3 + e.square().mean().sqrt())


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_is_the_same(backend):
    ddit, given = model(), batch(True, torch.float32)
    eager = results(ddit, given)
    compiled = results(ddit, given, torch.compile(ddit, backend=backend, fullgraph=True))
    for c, e in zip(compiled, eager, strict=True):
        torch.testing.assert_close(c, e, rtol=1e-4, atol=1e-5)
