"""The video VAE with LPIPS and a discriminator of patches, on films and with a made-up VGG16."""

import numpy as np
import pytest
import torch
from made import VAE_LOOP, assert_same, lines, run, told, whole_and_cut
from safetensors.torch import load_file, save_file

from syncflow.data import media
from syncflow.training.losses import perceptual
from syncflow.training.losses.discriminators import PatchDiscriminator
from syncflow.training.losses.perceptual import Perceptual
from syncflow.training.settings import TrainConfig
from syncflow.training.tasks.video_vae import VideoVAETraining

SPATIAL = {
    "block_out_channels": [4, 4, 8, 8], "layers_per_block": 1, "norm_num_groups": 2,
}  # fmt: skip
TEMPORAL = {
    "filters": 4, "num_res_blocks": 1, "channel_multipliers": [1, 2, 2],
    "temporal_downsample": [True, True], "num_groups": 2,
}  # fmt: skip
SMALL = {"kind": "opensora", "spatial": SPATIAL, "temporal": TEMPORAL}
NARROW = ((4, 4), (4, 4), (8, 8, 8), (8, 8, 8), (8, 8, 8))


@pytest.fixture
def narrow(monkeypatch):
    """VGG16 of fewer channels: what is tested is where they come from and what becomes of them."""
    monkeypatch.setattr(perceptual, "_STAGES", NARROW)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    for index in range(3):
        video = np.zeros((16, 3, 16, 16), np.uint8)
        colour = rng.integers(80, 255, 3).astype(np.uint8)
        for frame in range(16):
            video[frame, :, frame : frame + 6, 4 * index : 4 * index + 6] = colour[:, None, None]
        media.write(folder / f"{index}.mp4", torch.from_numpy(video), None, 16, 48000)
    (folder / "broken.mp4").write_bytes(b"no film")
    return folder


def vgg(path, widths=NARROW, seed=0):
    torch.manual_seed(seed)
    layers, before = [], 3
    for stage in widths:
        for width in stage:
            layers += [torch.nn.Conv2d(before, width, 3, padding=1), torch.nn.ReLU()]
            before = width
        layers.append(torch.nn.MaxPool2d(2))
    features = torch.nn.Sequential(*layers)
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    torch.save({**state, "classifier.0.weight": torch.zeros(3)}, path)
    return features, path


def config(films, out, loop=None, **changes):
    settings = {**VAE_LOOP, "lr": 0.003, **(loop or {})}
    return {
        "task": "video_vae", "out": str(out), "data": str(films), "validation": str(films),
        "model": SMALL, "frames": 4, "fps": 16, "height": 16, "width": 16, "kl_weight": 1e-6,
        "reconstruction": "l1", "adversarial": {"filters": 4, "lr": 0.001}, "loop": settings,
        **changes,
    }  # fmt: skip


def test_lpips_is_what_its_definition_says(tmp_path, narrow):
    features, path = vgg(tmp_path / "vgg16.pth")
    heads = {f"lin{i}.model.1.weight": torch.rand(1, w[-1], 1, 1) for i, w in enumerate(NARROW)}
    save_file(heads, tmp_path / "heads.safetensors")
    ours, theirs = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    found = Perceptual(path, tmp_path / "heads.safetensors")(ours, theirs)
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    total, x, y = 0.0, (ours - shift) / scale, (theirs - shift) / scale
    stage, ends = 0, [4, 9, 16, 23, 30]  # after the last ReLU of each stage
    with torch.no_grad():
        for index, layer in enumerate(features):
            x, y = layer(x), layer(y)
            if index + 1 == ends[stage]:
                a, b = (z / (z.square().sum(1, keepdim=True).sqrt() + 1e-10) for z in (x, y))
                weight = heads[f"lin{stage}.model.1.weight"].view(1, -1, 1, 1)
                total = total + ((a - b).square() * weight).sum(1).mean((1, 2))
                stage = min(stage + 1, 4)
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-6)
    plain = Perceptual(path)
    assert plain(ours, ours).abs().max() == 0 and plain(ours, theirs).min() > 0
    black = torch.zeros_like(ours, requires_grad=True)
    plain(black, theirs).sum().backward()
    assert torch.isfinite(black.grad).all()
    assert not any(parameter.requires_grad for parameter in plain.parameters())


@pytest.mark.parametrize("what", ["nothing", "another", "other sizes", "heads"])
def test_what_is_no_vgg_is_refused_in_one_line(films, tmp_path, narrow, what):
    heads = None
    if what == "nothing":
        path, error, said = tmp_path / "no.pth", FileNotFoundError, "no file with the weights"
    elif what == "another":
        path, error, said = tmp_path / "other.safetensors", ValueError, "no features.0.weight"
        save_file({"a": torch.zeros(1)}, path)
    elif what == "other sizes":
        (_, path), error = vgg(tmp_path / "wide.pth", ((6, 6), *NARROW[1:])), ValueError
        said = "is not a VGG16: size mismatch"
    else:
        (_, path), error, said = vgg(tmp_path / "vgg.pth"), ValueError, "has no lin0.model.1.weight"
        heads = str(tmp_path / "vgg.pth")
    values = config(films, tmp_path / "run", perceptual={"backbone": str(path), "heads": heads})
    with pytest.raises(error, match=said) as caught:
        VideoVAETraining(TrainConfig.parse({"run": values}).run)
    assert "\n" not in str(caught.value)


def test_patches_are_judged_in_space_and_time():
    judge = PatchDiscriminator(4)
    ((verdict, features),) = judge(torch.rand(2, 3, 8, 32, 32))
    assert verdict.shape == (2, 1, 2, 4, 4) and len(features) == 4
    one, two = torch.rand(2, 3, 8, 32, 32).requires_grad_(), torch.rand(1, 3, 8, 32, 32)
    together = judge(one)[0][0][:1]
    torch.testing.assert_close(judge(one[:1])[0][0], together)  # no clip sees another
    assert judge(two)[0][0].shape == (1, 1, 2, 4, 4)


def test_it_trains_on_films_and_goes_on_bit_for_bit(films, tmp_path, narrow):
    _, path = vgg(tmp_path / "vgg16.pth")
    options = {"perceptual": {"backbone": str(path)}, "samples_every": 4}
    assert_same(*whole_and_cut(lambda out, loop: config(films, out, loop, **options), tmp_path))
    said = lines(tmp_path / "whole")
    assert {"recon", "lpips", "adversarial", "features", "kl"} <= set(said[0])
    assert {"val_psnr", "val_lpips"} <= set(said[-1]) | set(said[-2])
    assert not any("perceptual" in k or "critic" in k for k in load_file(
        tmp_path / "whole" / "model.safetensors"))  # fmt: skip
    film = media.read(tmp_path / "whole" / "samples" / "00000004-0.mp4", fps=16)[0]
    assert film.shape == (4, 3, 16, 32)


def test_it_learns_the_films(films, tmp_path):
    values = config(films, tmp_path / "run", {"steps": 40, "ema": 0}, adversarial=None)
    fresh = VideoVAETraining(TrainConfig.parse({"run": values}).run)
    with torch.no_grad():
        before = fresh.validate(fresh.module)["psnr"]
    run(values, tmp_path)
    assert told(tmp_path / "run", "val_psnr")[-1] > before + 1
