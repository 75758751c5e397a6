"""The benchmark of video-to-audio counts what is run."""

import importlib.util
from pathlib import Path

import pytest

from tests.small_model import build, picture, run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def v2a():
    spec = importlib.util.spec_from_file_location("v2a", ROOT / "benchmarks/v2a.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_flops_are_counted_by_part(v2a):
    model = build()

    def flops(**options):
        return v2a.counted(model.ddit, lambda: run(model, **options))

    one, paper = flops(video=picture()), flops(video=picture(), v2a="paper")
    assert paper["video tower"] == 3 * one["video tower"] > 0
    assert paper["adaptors"] == 3 * one["adaptors"] > 0
    assert paper["audio tower"] == one["audio tower"] > 0
    assert (
        one["everything"]
        > one["towers"]
        == sum(one[part] for part in ("video tower", "adaptors", "audio tower"))
    )
    takes = flops(audio_takes=4, rank=None)
    single = flops()
    assert takes["video tower"] == single["video tower"]
    assert takes["audio tower"] == 4 * single["audio tower"]


@pytest.mark.slow
def test_the_paper_sized_model_is_counted_without_weights(v2a):
    parts = v2a.xl2("temporal")
    paper, single = parts["v2a paper"], parts["v2a one-pass"]
    assert paper["video tower"] == 50 * single["video tower"]
    assert parts["generate, 8 takes"]["video tower"] == parts["generate, 1 take"]["video tower"]
    assert paper["towers"] > 10 * single["towers"]
