"""An early audio layer is led towards a frozen audio encoder; finished weights have no trace."""

import numpy as np
import pytest
import torch
from made import flow_config, run, told, write_latents
from safetensors.torch import load_file

from syncflow.config import EncodecVAEConfig
from syncflow.models.audio_vae import AudioVAE
from syncflow.models.ddit import DDiT
from syncflow.training.checkpoints import checkpoint, weights
from syncflow.training.settings import FeaturesTask, TrainConfig
from syncflow.training.tasks import alignment
from syncflow.training.tasks.flow import FlowTraining


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Latents, a tiny wav2vec2 with random weights, and what it hears in them."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    folder = tmp_path_factory.mktemp("alignment")
    write_latents(folder / "latents", 6)
    torch.manual_seed(0)
    sizes = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        conv_dim=(8, 8), conv_kernel=(10, 4), conv_stride=(10, 16), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2Model(sizes).save_pretrained(folder / "encoder")
    Wav2Vec2FeatureExtractor(sampling_rate=16000).save_pretrained(folder / "encoder")
    task = FeaturesTask(
        task="features", out=str(folder / "features"), latents=str(folder / "latents"),
        audio_vae="unused", encoder=str(folder / "encoder"),
    )  # fmt: skip
    model = {"latent_channels": 3, "num_filters": 2, "num_lstm_layers": 1}
    codec = AudioVAE(EncodecVAEConfig(**model)).eval()
    alignment.make_features(task, codec, torch.device("cpu"))
    return folder


def config(made, out, loop=None, train="audio", **changes):
    aligned = {"features": str(made / "features"), "layer": 1, "weight": 2.0}
    return flow_config(
        made / "latents", out, train, loop, **{"alignment": aligned, "clean_video": 0, **changes}
    )


def test_the_loss_is_one_minus_the_cosine_at_the_latents_rate(made, tmp_path):
    training = FlowTraining(TrainConfig.parse({"run": config(made, tmp_path, draws=2)}).run)
    training.module.train()
    batch = training.batch(0)
    source = torch.Generator().manual_seed(0)
    seen = []
    training.module.audio_tower.layers[0].register_forward_hook(lambda *a: seen.append(a[2]))
    total, parts = training.loss(batch, source)
    head = training.module.get_submodule("alignment")
    features = np.load(made / "features" / "features.npy")
    assert features.shape[0] == 6 and len(np.unique(features[:, 0, 0])) == 6
    rows = training.plan.at(0).rows
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(features[rows]).float().movedim(1, 2), seen[0].shape[1], mode="linear"
    ).movedim(1, 2)
    cosine = torch.cosine_similarity(head(seen[0]), wanted.repeat_interleave(2, 0), dim=-1)
    assert parts["alignment"].item() == pytest.approx(1 - cosine.mean().item(), abs=1e-5)
    assert total.item() == pytest.approx((parts["audio"] + 2 * parts["alignment"]).item(), rel=1e-5)


def test_it_learns_and_the_finished_weights_have_no_head(made, tmp_path):
    values = config(made, tmp_path / "run", {"steps": 30, "lr": 0.01, "log_every": 1})
    run(values, tmp_path)
    apart = told(tmp_path / "run", "alignment")
    assert np.mean(apart[-3:]) < 0.7 * apart[0]
    final = load_file(tmp_path / "run" / "model.safetensors")
    assert not any(key.startswith("alignment") for key in final)
    saved = checkpoint.folders(tmp_path / "run")[0]
    assert any(key.startswith("model/alignment.") for key in checkpoint.Saved(saved))
    DDiT(TrainConfig.parse({"run": values}).run.model).load_state_dict(weights.load(saved))


def test_a_resumed_run_has_its_head_back(made, tmp_path):
    for name, steps in (("whole", 4), ("cut", 2), ("cut", 4)):
        loop = {"steps": steps, "checkpoint_every": 2, "decay": 0.0, "randomness": "sample"}
        run(config(made, tmp_path / name, loop), tmp_path)
    one, two = (checkpoint.newest(tmp_path / name) for name in ("whole", "cut"))
    assert set(one) == set(two) and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": "video"}, "alignment is of an audio layer"),
        ({"alignment": {"features": "nowhere"}}, "no finished features in nowhere"),
        ({"layer": 9}, "alignment.layer is 9, and there are 1"),
        ({"latents": "others"}, "features of other latents"),
    ],
)
def test_what_cannot_be_aligned_is_refused(made, tmp_path, changes, said):
    values = config(made, tmp_path / "run", train=changes.pop("train", "audio"))
    values["alignment"]["layer"] = changes.pop("layer", 1)
    if changes.pop("latents", None):
        values["data"] = str(write_latents(tmp_path / "others", 5))
    values.update(changes)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        FlowTraining(TrainConfig.parse({"run": values}).run)


def test_no_encoder_is_one_line(made, tmp_path):
    task = FeaturesTask(task="features", out=str(tmp_path / "f"), latents=str(made / "latents"),
                        audio_vae="unused", encoder=str(tmp_path / "none"))  # fmt: skip
    with pytest.raises(FileNotFoundError, match="no audio encoder in"):
        alignment.make_features(task, torch.nn.Identity(), torch.device("cpu"))
    assert not (tmp_path / "f" / "features.json").exists()
