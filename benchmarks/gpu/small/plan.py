"""How large the model is, how the minutes are shared out, and what the clips are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from syncflow.clip import ClipSpec
from syncflow.config import (
    AdaptorConfig,
    AudioTowerConfig,
    BytesTextConfig,
    DDiTConfig,
    GeometryConfig,
    ModelConfig,
    PatchVAEConfig,
    SamplingConfig,
    SpectralVAEConfig,
    VideoTowerConfig,
)

SPEC = ClipSpec(seconds=2.0, fps=16, height=64, width=64, sample_rate=48000)

#: Captions of a clip, tokens of a caption and times of contacts that a training sample may have.
CAPTIONS, TOKENS, EVENTS = 4, 32, 8
#: In so many parts a latent frame is told when things touch.
BINS = 8


@dataclass(frozen=True)
class Plan:
    """Sizes and shares of one run.

    ``text``, ``video_vae``, ``audio_vae`` and ``decoder`` are shares of the whole time; the towers
    have what is left but for ``reserve`` seconds, which the last export needs. Batches are clips.
    ``raw`` and ``latents`` are how many clips are kept as pixels and samples, and as latents.
    ``levels``: how likely a clip is of level 1, 2, 3, 4.
    """

    text: float = 0.045
    video_vae: float = 0.17
    audio_vae: float = 0.10
    decoder: float = 0.08
    reserve: float = 8.0
    text_batch: int = 512
    video_vae_batch: int = 32
    audio_vae_batch: int = 64
    decoder_batch: int = 24
    tower_batch: int = 256
    encode_batch: int = 384
    raw: int = 30_000
    latents: int = 80_000
    slots: int = 512
    held_out: int = 256
    captions_first: int = 1500
    levels: tuple[float, float, float, float] = (0.32, 0.30, 0.20, 0.18)
    export_seconds: float = 60.0
    report_seconds: float = 10.0


FULL = Plan()
TINY = Plan(
    reserve=4.0, text_batch=16, video_vae_batch=2, audio_vae_batch=2, decoder_batch=2,
    tower_batch=4, encode_batch=8, raw=64, latents=96, slots=8, held_out=8, captions_first=64,
    export_seconds=5.0, report_seconds=2.0,
)  # fmt: skip


def model_config(tiny: bool = False) -> ModelConfig:
    """The second generation: 12 video latent channels, asked times, casefolded bytes."""
    text, video_channels, audio_channels = 128, 12, 32
    width, depth, heads = 192, 5, 3
    upsampler, vae_width, audio_width, audio_depth, oscillators = 112, 72, 256, 4, 192
    layers, hidden = 4, 256
    if tiny:
        text, width, depth, heads = 32, 32, 2, 2
        upsampler, vae_width, audio_width, audio_depth, oscillators = 16, 16, 64, 1, 32
        layers, hidden = 2, 64
    encoder = BytesTextConfig(
        max_length=128,
        d_model=text,
        d_kv=text // 4,
        d_ff=hidden,
        num_layers=layers,
        num_heads=4,
        pool="word",
        casefold=True,
        word_layers=layers // 2,
    )
    video = VideoTowerConfig(
        hidden_size=width,
        depth=depth,
        num_heads=heads,
        in_channels=video_channels,
        caption_channels=text,
        model_max_length=encoder.max_length // 2 + 1,
        pred_sigma=False,
        input_sq_size=64,
    )
    audio = AudioTowerConfig(
        hidden_size=width,
        num_heads=heads,
        in_channels=audio_channels,
        mlp_ratio=3.0,
        condition="both",
        norm_init=0.3,
        upsampler_patches=16,
        upsampler_width=upsampler,
    )
    adaptor = AdaptorConfig(axis="full", num_heads=heads)
    return ModelConfig(
        name="impacts-64-second" if not tiny else "impacts-64-tiny",
        geometry=GeometryConfig(seconds=2.0, fps=16, height=64, width=64, sample_rate=48000),
        ddit=DDiTConfig(video=video, adaptor=adaptor, audio=audio, event_bins=BINS),
        video_vae=PatchVAEConfig(latent_channels=video_channels, width=vae_width),
        audio_vae=SpectralVAEConfig(
            latent_channels=audio_channels,
            width=audio_width,
            depth=audio_depth,
            oscillators=oscillators,
        ),
        text_encoder=encoder,
        # What measured best on the first small model (benchmarks/results/sampler-impacts-64.json);
        # these weights' own settings are for a sweep to choose.
        sampling=SamplingConfig(
            steps=40,
            audio_steps=6,
            guidance=2.0,
            audio_guidance=1.0,
            eta=1000.0,
            schedule="cascade",
            shift=3.0,
            null_caption="prompt",
        ),
    )


def going_on(plan: Plan) -> Plan:
    """The plan of a run that starts from trained weights: encoders stay as they are."""
    return replace(plan, text=0.0, video_vae=0.0, audio_vae=0.0)
