"""The settings of an export: what trained parts are put together into a model folder."""

from __future__ import annotations

from typing import Annotated, Literal

from syncflow.config import Config, SamplingConfig
from syncflow.config.units import Between, Count
from syncflow.ranges import Real, Whole


class BlendConfig(Config):
    """Another d-DiT, a run or a model folder, of which a model has ``share`` in every weight that
    both have: what two runs from one start learnt, averaged."""

    ddit: str
    share: Between


class RhythmsTask(Config):
    """Of the first ``clips`` in the folder ``latents`` whose captions have one of ``words`` and say
    at least ``counts`` numbers (``RhythmsConfig``)."""

    latents: str
    words: list[str] = []
    counts: Count = 1
    clips: Annotated[int, Whole(1, 10_000, "clips")]


class ExportTask(Config):
    """Puts trained parts together into a model folder that ``syncflow.load`` reads.

    ``audio_gain_db``: how much louder the spectral audio VAE decodes from then on. ``blend``:
    weights of another d-DiT averaged in. ``rhythms``: of so many first clips of ``latents`` the
    times of contacts go along (``ModelConfig.rhythms``). ``rhythms_of``: and of captions of one
    sort, for those.
    """

    task: Literal["export"]
    out: str
    name: str
    latents: str
    video_vae: str
    audio_vae: str
    text_encoder: str
    ddit: str
    sampling: SamplingConfig
    audio_gain_db: Annotated[float, Real(-20, 20, "dB")] = 0.0
    blend: BlendConfig | None = None
    rhythms: Annotated[int, Whole(0, 10_000, "clips")] = 0
    rhythms_of: list[RhythmsTask] = []
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
