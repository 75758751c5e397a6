"""Numbers from outside: of the right kind, finite, bounded, and refused by name."""

import importlib
import json
import math
import pkgutil
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
from pydantic import BaseModel

import syncflow
from syncflow.clip import ClipSpec
from syncflow.config import GeometryConfig, ModelConfig, SamplingConfig
from syncflow.generation.arguments import checked
from syncflow.ranges import SEED, Range, Real, Whole
from syncflow.sampling import OPTIONS
from syncflow.training.settings import LoopConfig, TrainConfig
from tests.small_model import PROMPT, build

NONE = (math.nan, math.inf, -math.inf, "1", True, None, 1j, [1], np.bool_(True), Decimal(1))


def models() -> list[type[BaseModel]]:
    """Every schema of the package: configs, manifests and headers."""
    for module in pkgutil.walk_packages(syncflow.__path__, "syncflow."):
        if module.name != "syncflow.__main__" and not module.name.startswith("syncflow._C"):
            importlib.import_module(module.name)
    found, waiting = [], [BaseModel]
    while waiting:
        below = [c for c in waiting.pop().__subclasses__() if c not in found]
        waiting += below
        found += [c for c in below if c.__module__.startswith("syncflow.")]
    return found


def numbers_without_bounds(kind: Any, metadata: tuple[Any, ...] = ()) -> list[Any]:
    """The numeric types within an annotation that no finite range bounds."""
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *more = get_args(kind)
        return numbers_without_bounds(inner, (*metadata, *more))
    if kind in (int, float, complex):
        return [] if any(isinstance(each, Range) for each in metadata) else [kind]
    if origin in (Union, UnionType):
        return [n for arm in get_args(kind) for n in numbers_without_bounds(arm, metadata)]
    if origin is Literal or kind in (NoneType, Ellipsis):
        return []
    return [n for inner in get_args(kind) for n in numbers_without_bounds(inner)]


def test_every_number_of_every_schema_has_bounds() -> None:
    found = models()
    names = {model.__name__ for model in found}
    assert {"ModelConfig", "LoopConfig", "FlowTask", "SamplingConfig", "RenderTask"} <= names
    bare = [
        f"{model.__name__}.{name}"
        for model in found
        for name, field in model.model_fields.items()
        if numbers_without_bounds(field.annotation, tuple(field.metadata))
    ]
    assert not bare
    assert all(model.model_config.get("allow_inf_nan") is False for model in found)


def test_the_walk_sees_what_has_none() -> None:
    bounded = Annotated[int, Whole(0, 9)]
    assert not numbers_without_bounds(list[bounded | None])
    for bare in (int, float | None, list[int], dict[str, list[float]], tuple[bounded, int]):
        assert numbers_without_bounds(bare), bare


def test_numbers_of_any_library_are_pythons() -> None:
    whole, real = Whole(0, 2**40), Real(-5, 5)
    for value in (3, np.int64(3), np.uint8(3)):
        assert whole.check("x", value) == 3 and type(whole.check("x", value)) is int
    for value in (3, 3.0, np.float32(3), np.int8(3), Fraction(6, 2)):
        assert real.check("x", value) == 3.0 and type(real.check("x", value)) is float


@pytest.mark.parametrize("value", [*NONE, 10**400, -1, 11, 10.5])
def test_what_is_no_number_of_the_range_is_named(value) -> None:
    for within in (Whole(0, 10, "px"), Real(0, 10, "px")):
        with pytest.raises(ValueError, match=r"size must be a .*between 0 and 10 px, got "):
            within.check("size", value)


def test_open_ends_and_texts() -> None:
    share = Real(0, 1, above=True, below=True)
    assert share.parse(" .5 ") == 0.5 and Whole(1, 9).parse("7") == 7
    for text in ("0", "1", "nan", "inf", "1e400", "x", "", "0x1"):
        with pytest.raises(ValueError, match="more than 0 and less than 1, got"):
            share.parse(text)
    for text in ("1.0", "0", "10", "9" * 5000, "²"):
        with pytest.raises(ValueError, match="a whole number between 1 and 9, got"):
            Whole(1, 9).parse(text)


LOOP = {"steps": 1, "batch_size": 1}
WRONG = [
    ("ema", math.nan), ("ema", 1e308), ("ema", 1), ("lr", 1e308), ("lr", math.inf), ("clip", -1),
    ("steps", 1e12), ("steps", 10**12), ("batch_size", 0), ("batch_size", True), ("warmup", -1),
    ("betas", [0.9, math.nan]), ("betas", [1.0, 0.9]), ("weight_decay", math.inf), ("seed", -1),
    ("seed", 2**32), ("threads", 0), ("checkpoint_minutes", math.nan), ("log_every", -1),
    ("validate_every", 1e300), ("max_nonfinite", -1), ("peak_tflops", 0), ("decay", "0.4"),
    ("deepspeed", {"zero_optimization": {"stage": 2, "reduce_bucket_size": math.nan}}),
    ("deepspeed", {"zero_optimization": 2}), ("deepspeed", {"zero_optimization": {"stage": True}}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG, ids=str)
def test_a_config_names_the_key_of_a_number_that_is_none(key: str, value: Any) -> None:
    config = {"task": "text", "out": "o", "model": {"kind": "bytes"}, "levels": [1]}
    with pytest.raises(ValueError, match=rf"^c\.json: run\.text\.loop\.{key}[.:]"):
        TrainConfig.parse({"run": {**config, "loop": {**LOOP, key: value}}}, "c.json")


def places(value: Any, before: tuple = ()) -> Iterator[tuple]:
    yield before
    if isinstance(value, dict | list):
        for key, found in value.items() if isinstance(value, dict) else list(enumerate(value))[:2]:
            yield from places(found, (*before, key))


@pytest.mark.parametrize("name", ["syncflow/pretrained/config.json", "configs/tiny/lora.json",
                                  "configs/impacts/audio_vae.json"])  # fmt: skip
def test_any_value_of_a_config_may_be_anything(name: str) -> None:
    """It is taken, or refused in one line: never another exception."""
    text = (Path(__file__).parents[1] / name).read_text()
    taken: list[tuple] = []
    for place in places(json.loads(text)):
        for wrong in (0, -1, 1e12, 10**30, math.nan, math.inf, "1", None, True, [], {"a": 1}):
            config = {"run": json.loads(text)}
            inner = config
            for key in ("run", *place)[:-1]:
                inner = inner[key]
            inner[("run", *place)[-1]] = wrong
            try:
                if "pretrained" in name:
                    ModelConfig.parse(config["run"])
                else:
                    TrainConfig.parse(config)
            except ValueError as error:
                assert "\n" not in str(error)
            else:
                taken.append((place, wrong))
    assert not [each for each in taken if type(each[1]) is float], "NaN, infinity or 1e12 is taken"


def test_numbers_of_a_file_are_those_of_a_config(tmp_path) -> None:
    """JSON as Python reads it has NaN and Infinity."""
    path = tmp_path / "config.json"
    for name, value in (("seconds", "NaN"), ("fps", "Infinity"), ("height", "1e999")):
        path.write_text(f'{{"geometry": {{"{name}": {value}}}}}')
        with pytest.raises(ValueError, match=rf"config\.json: geometry\.{name}: must be"):
            ModelConfig.load(path)
    path.write_text('{"latent_mean_video": [0, 0, 0, NaN]}')
    with pytest.raises(ValueError, match=r"latent_mean_video\.3: must be"):
        ModelConfig.load(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        ModelConfig.load(path)


def test_configs_keep_what_they_had() -> None:
    """A whole number where a real one is meant is written as before: hashes of configs stay."""
    loop = LoopConfig.parse({**LOOP, "lr": 1, "steps": np.int64(3)})
    assert '"lr":1.0,' in loop.model_dump_json() and '"steps":3,' in loop.model_dump_json()
    assert json.loads(GeometryConfig().model_dump_json())["fps"] == 16
    assert SamplingConfig.model_fields["steps"].description


@pytest.mark.parametrize("value", [*NONE[:-3], -1, 10**12, 1e30])
def test_no_number_of_generate_may_be_another(value) -> None:
    for name in ("seed", "audio_takes", "seconds", "height", "width"):
        if (value is None and name not in ("seed", "audio_takes")) or (
            name == "seed" and value == 10**12
        ):
            continue
        with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
            checked(**{name: value})
    for name, option in OPTIONS.items():
        if not option.choices and value is not None:
            with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
                option.check(name, value)


@pytest.mark.parametrize("value", [math.inf, math.nan, 0, -1, True, "2", 10**12])
def test_a_clips_geometry_is_made_of_numbers(value) -> None:
    for name in ("seconds", "fps", "height", "width", "sample_rate"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            ClipSpec(**{name: value})
    assert type(ClipSpec(height=np.int64(64)).height) is int


@pytest.fixture(scope="module")
def model():
    return build()


def test_nothing_is_made_of_a_number_that_is_none(model, monkeypatch) -> None:
    monkeypatch.setattr(
        "syncflow.generation.pipeline.encode_captions",
        lambda *_, **__: pytest.fail("the prompt was read"),
    )
    for options in (
        {"guidance": math.inf}, {"guidance": 1e30}, {"steps": 10**12}, {"seed": -1},
        {"seed": 2**63}, {"seed": 1.0}, {"seed": True}, {"audio_takes": True}, {"eta": 1e300},
        {"seconds": math.inf}, {"height": 32.0},
    ):  # fmt: skip
        (name,) = options
        with pytest.raises(ValueError, match=f"{name} must be"):
            model.generate(PROMPT, progress=False, **options)


def test_numpys_numbers_make_the_same_clip(model) -> None:
    few = {"steps": 2, "audio_steps": 2, "progress": False}
    plain = model.generate(PROMPT, seed=3, guidance=2.0, **few)
    numpys = {"steps": np.int64(2), "audio_steps": np.uint8(2), "seed": np.uint32(3)}
    same = model.generate(PROMPT, guidance=np.float64(2), progress=False, **numpys)
    assert plain.video.equal(same.video) and plain.audio.equal(same.audio)


def test_sampling_that_leaves_the_numbers_says_so(model, monkeypatch) -> None:
    """Never a clip of NaN without a word."""
    step = syncflow.flow.integrate

    def broken(*arguments: Any) -> Any:
        video, audio = step(*arguments)
        return video, audio * math.nan

    monkeypatch.setattr("syncflow.generation.pipeline.flow.integrate", broken)
    with pytest.raises(ValueError, match="sampling left the numbers"):
        model.generate(PROMPT, progress=False)


@pytest.mark.parametrize("value", ["-1", "1.5", "nan", str(2**63), "x"])
def test_the_command_line_refuses_the_seeds_that_python_refuses(capsys, value) -> None:
    from syncflow.cli import main

    assert main(["generate", "x", "--seed", value]) == 2
    assert f"--seed: it must be {SEED}, got {value}" in capsys.readouterr().err
