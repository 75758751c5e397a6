"""The whole towers on a device: kernels against the plain operators, forward and backward."""

import pytest
import torch

from syncflow import ops
from syncflow.clip import ClipSpec
from syncflow.config import AdaptorConfig, AudioTowerConfig, DDiTConfig, VideoTowerConfig
from syncflow.models.ddit import DDiT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def model(head: int, condition: str) -> DDiT:
    torch.manual_seed(0)
    width = 4 * head
    config = DDiTConfig(
        video=VideoTowerConfig(
            hidden_size=width, num_heads=4, depth=3, caption_channels=48, model_max_length=20
        ),
        adaptor=AdaptorConfig(num_heads=4),
        audio=AudioTowerConfig(hidden_size=width, num_heads=4, condition=condition),
    )
    made = DDiT(config)
    for parameter in made.parameters():
        if parameter.ndim > 1 and not parameter.count_nonzero():
            torch.nn.init.normal_(parameter, std=0.05)
    return made.cuda()


def run(made: DDiT, dtype: torch.dtype) -> list[torch.Tensor]:
    """Both velocities, then the gradients of every parameter for a fixed gradient of them."""
    draw = torch.Generator("cuda").manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda", generator=draw)

    spec = ClipSpec(height=64, width=80)
    video, audio = normal(2, 4, *spec.video_latent_shape), normal(2, spec.audio_latent_length, 128)
    text = normal(2, 20, 48)
    mask = torch.arange(20, device="cuda") < torch.tensor([[20], [7]]).cuda()
    t = torch.tensor([0.2, 0.7], device="cuda")
    made = made.to(dtype)
    text = text.to(dtype)
    video, audio, t = (x.double() if dtype == torch.float64 else x for x in (video, audio, t))
    velocities = made(video, audio, t, t, text, mask, spec)
    up = [normal(*v.shape).to(v.dtype) for v in velocities]
    grads = torch.autograd.grad(velocities, list(made.parameters()), up, allow_unused=True)
    return [*(v.detach() for v in velocities), *(g for g in grads if g is not None)]


@pytest.mark.parametrize("head", [72, 32, 64])
@pytest.mark.parametrize("condition", ["video", "both"])
def test_kernels_are_as_good_as_plain_operators(head, condition):
    """Both in bfloat16 against the plain operators in float32, tensor by tensor."""
    made = model(head, condition)
    with ops.reference_ops():
        exact = run(made, torch.float32)
        plain = run(made, torch.bfloat16)
    kernels = run(made, torch.bfloat16)
    off = 0
    for k, p, x in zip(kernels, plain, exact, strict=True):
        size = x.float().norm().item()
        ours, theirs = ((r.float() - x.float()).norm().item() for r in (k, p))
        assert ours <= 2 * theirs + 0.02 * size + 1e-6, f"{ours} > 2 * {theirs} of {size}"
        off += ours > 1.2 * theirs
    assert off <= len(exact) // 3


def test_float32_kernels_agree_with_plain_operators():
    made = model(72, "video")
    with ops.reference_ops():
        expected = run(made, torch.float32)
    for got, wanted in zip(run(made, torch.float32), expected, strict=True):
        size = wanted.abs().max().item()
        assert (got - wanted).abs().max().item() <= 2e-3 * size + 1e-6
