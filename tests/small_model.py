"""A model of a few thousand parameters with every part a real one has, and random weights."""

import torch

from syncflow.clip import Clip
from syncflow.config import ModelConfig
from syncflow.generation import pipeline

CONFIG = {
    "name": "tiny",
    "geometry": {"seconds": 1.0, "fps": 16, "height": 32, "width": 32},
    "ddit": {
        "video": dict(
            hidden_size=32,
            depth=2,
            num_heads=2,
            in_channels=4,
            caption_channels=16,
            model_max_length=8,
            pred_sigma=False,
        ),
        "adaptor": dict(num_heads=2),
        "audio": dict(
            hidden_size=16,
            num_heads=2,
            in_channels=6,
            condition="both",
            upsampler_patches=4,
            upsampler_width=16,
        ),
    },
    "video_vae": dict(kind="patch", latent_channels=4, width=8, depth=1),
    "audio_vae": dict(kind="spectral", latent_channels=6, width=16, depth=1, oscillators=8),
    "text_encoder": dict(
        kind="bytes",
        max_length=40,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        pool="word",
    ),
    "sampling": dict(steps=3, guidance=2.0, audio_guidance=1.5, schedule="cascade"),
    "latent_mean_video": [0.1, 0.0, -0.1, 0.2],
    "latent_std_video": [0.5, 0.4, 0.3, 0.6],
    "latent_mean_audio": [0.0] * 6,
    "latent_std_audio": [0.5] * 6,
}
PROMPT = "a metal ball bounces twice on stone"


def build(seed: int = 0, **changes) -> pipeline.SyncFlow:
    from syncflow.models.ddit import DDiT
    from syncflow.models.text.encoder import TextEncoder
    from syncflow.models.vae import build_audio_vae, build_video_vae

    torch.manual_seed(seed)
    config = ModelConfig.parse({**CONFIG, **changes})
    ddit = DDiT(config.ddit)
    with torch.no_grad():  # so that nothing is silent
        for p in ddit.parameters():
            p.copy_(torch.randn_like(p) * (0.3 if p.ndim < 2 else p[0].numel() ** -0.5))
    return pipeline.SyncFlow(
        config,
        ddit,
        build_video_vae(config.video_vae),
        build_audio_vae(config.audio_vae),
        TextEncoder(config.text_encoder),
    )


def run(model, prompt=PROMPT, **options):
    """``generate`` without a bar."""
    return model.generate(prompt, progress=False, **options)


def same(a: Clip, b: Clip) -> bool:
    return torch.equal(a.video, b.video) and torch.equal(a.audio, b.audio)


def picture(frames: int = 16, size: int = 32, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 3, size, size), generator=g, dtype=torch.uint8)
