"""Open-Sora v1.2 in miniature, with weights from a seed; and the digest of what it computes.

``python tests/interop/miniature.py`` prints the digest anew. The numbers in ``digest.json`` are
those of a state of the code that met the golden files; they pin it where those are not present.
"""

import json
from pathlib import Path
from zlib import crc32

import torch

from syncflow.config import OpenSoraVAEConfig, VideoTowerConfig
from syncflow.interop import opensora, opensora_sampler
from syncflow.models.video_tower import VideoTower
from syncflow.models.video_vae import VideoVAE

DIGEST = Path(__file__).with_name("digest.json")
TOWER = {
    "hidden_size": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2.0, "caption_channels": 16,
    "model_max_length": 20,
}  # fmt: skip
SPATIAL = {
    "block_out_channels": [4, 4, 8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
TEMPORAL = {
    "filters": 4,
    "num_res_blocks": 1,
    "channel_multipliers": [1, 2, 2],
    "temporal_downsample": [True, True],
    "num_groups": 2,
    "latent_embed_dim": 4,
    "embed_dim": 4,
}
T5 = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}


def fill(module: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """A state dict in which nothing is silent, the same whatever order a module is built in."""
    state = {}
    for key, value in module.state_dict().items():
        g = torch.Generator().manual_seed(crc32(key.encode()) + seed)
        scale = 0.3 if value.ndim < 2 else value[0].numel() ** -0.5
        noise = scale * torch.randn(value.shape, generator=g)
        state[key] = 1 + noise if "norm" in key and key.endswith("weight") else noise
    if "rope.freqs" in state:
        head_dim = 2 * len(state["rope.freqs"])
        state["rope.freqs"] = 1e4 ** (-torch.arange(0, head_dim, 2) / head_dim)
    if "shift" in state:
        state["shift"] = torch.tensor([-0.1, 0.34, 0.27, 0.98]).view(1, -1, 1, 1, 1)
        state["scale"] = torch.tensor([3.85, 2.32, 2.33, 3.06]).view(1, -1, 1, 1, 1)
    return state


def summary(x: torch.Tensor) -> list[float]:
    """Mean, spread, extremes and eight values from all over."""
    x = x.detach().flatten().double()
    picked = x[torch.linspace(0, len(x) - 1, 8).long()]
    numbers = [x.mean(), x.std(), x.min(), x.max(), *picked]
    return [float(f"{number:.6g}") for number in numbers]


@torch.no_grad()
def digest() -> dict[str, list[float]]:
    """Numbers of tower, sampler, clock and VAE, with and without the original's defects."""
    out: dict[str, list[float]] = {}
    with torch.device("meta"):
        tower = VideoTower(VideoTowerConfig(**TOWER))
        vae = VideoVAE(OpenSoraVAEConfig(spatial=SPATIAL, temporal=TEMPORAL))
    g = torch.Generator().manual_seed(1)
    x, t = torch.randn(2, 4, 3, 5, 6, generator=g), torch.tensor([0.15, 0.8])
    text = torch.randn(2, 20, 16, generator=g)
    mask = torch.arange(20)[None] < torch.tensor([[4], [9]])
    noisy = torch.tensor([[False, True, True], [True, True, False]])
    size = {"fps": 16, "height": 40, "width": 48}
    for compat in (None, "opensora-1.2"):
        name = compat or "default"
        model = opensora.video_tower(fill(tower, 0), 3, compat)
        velocity, features = model(x, t, text, mask, frame_mask=noisy, **size)
        out[f"tower {name}"] = summary(velocity)
        for layer, feature in enumerate(features):
            out[f"layer {layer} {name}"] = summary(feature)
        path = opensora_sampler.times(3, (256, 256, 32), compat)
        out[f"times {name}"] = summary(path)
        latents = opensora_sampler.sample(
            model, x, text, mask, guidance=4.0, path=path, compat=compat, **size
        )
        out[f"sample {name}"] = summary(latents)
    out["tower without masks"] = summary(model(x, t, text, None, **size)[0])
    model = opensora.video_vae(fill(vae, 0), SPATIAL, TEMPORAL)
    video = torch.rand(1, 3, 21, 16, 24, generator=g) * 2 - 1
    for chunk in (None, 17):
        latent = model.encode(video, micro_frame_size=chunk).mode()
        out[f"latent, chunks of {chunk}"] = summary(latent)
        recon = model.decode(latent, num_frames=21, micro_frame_size=chunk)
        out[f"video, chunks of {chunk}"] = summary(recon)
    return out


if __name__ == "__main__":
    rows = (f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in digest().items())
    print("{\n" + ",\n".join(rows) + "\n}")
