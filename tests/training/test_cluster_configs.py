"""What a config says for a cluster: the paper's stages, and DeepSpeed's own block."""

import json
from pathlib import Path

import pytest

from syncflow.training import runner, settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"train_batch_size": 8}, "set by loop.batch_size"),
        ({"fp16": {"enabled": True}}, "set by loop.precision"),
        ({"zero_optimisation": {"stage": 1}}, "nearest is 'zero_optimization'"),
        ({"zero_optimization": {"stage": 4}}, "stage must be 1, 2 or 3, got 4"),
        ({"zero_optimization": {"stage": 1}, "data_types": {"grad_accum_dtype": "fp32"}},
         "use stage 2"),
        ({}, "got None"),
    ],
)  # fmt: skip
def test_the_deepspeed_block_is_strict(block, message):
    loop = {"steps": 1, "batch_size": 1, "deepspeed": block}
    with pytest.raises(ValueError, match=message):
        settings.LoopConfig.parse(loop)


def test_deepspeeds_blocks_of_types_and_recomputation_are_taken():
    block = {
        "zero_optimization": {"stage": 2}, "data_types": {"grad_accum_dtype": "fp32"},
        "activation_checkpointing": {"partition_activations": False},
    }  # fmt: skip
    assert settings.LoopConfig.parse({"steps": 1, "batch_size": 1, "deepspeed": block})


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_papers_stages(stage):
    config = runner.read(ROOT / f"configs/stage{stage}.json")
    assert config.train == {1: "video", 2: "audio", 3: "both"}[stage]
    assert (config.model.video.hidden_size, config.model.video.depth) == (1152, 28)
    assert config.text_dropout == 0.1 and config.coupling == "ot" and config.time_kind == "uniform"
    paper = {2: (150_000, 16 * 32), 3: (20_000, 2 * 32)}
    if stage in paper:
        assert (config.loop.steps, config.loop.batch_size) == paper[stage]
    # Complete: nothing but what is off is left to a default.
    data = json.loads((ROOT / f"configs/stage{stage}.json").read_text())
    left = set(type(config).model_fields) - data.keys()
    assert left <= {
        "alignment",
        "distillation",
        "init",
        "init_video",
        "loss_weighting",
        "lora",
        "samples",
        "time_mean",
        "time_std",
        "time_shift",
        "uniform_share",
        "clean_video",
        "clean_noise",
        "decoupled",
        "draws",
        "statistics",
        "condition_share",
        "cache",
        "shuffle_shards",
        "window",
        "events",
    }
