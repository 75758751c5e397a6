"""What the numbers of configs, manifests and headers are: their unit and the bounds of their sense.

A bound is generous: it is there so that a slip of the keyboard, or of another program, is told in a
line and not by a full memory, an endless loop or NaN.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from syncflow.clip import RANGES
from syncflow.ranges import Real, Whole

Channels = Annotated[int, Whole(1, 65_536, "channels")]
Heads = Annotated[int, Whole(1, 1024, "heads")]
Layers = Annotated[int, Whole(1, 1000, "layers")]
Groups = Annotated[int, Whole(1, 1024, "groups")]
Tokens = Annotated[int, Whole(1, 65_536, "tokens")]
Patch = Annotated[int, Whole(1, 64, "latents")]
Ratio = Annotated[float, Real(0, 64, above=True)]
Multiplier = Annotated[int, Whole(1, 64)]

Seconds = Annotated[float, RANGES["seconds"]]
Minutes = Annotated[float, Real(0, 100_000, "minutes")]
FramesPerSecond = Annotated[float, RANGES["fps"]]
Frames = Annotated[int, Whole(1, 1_000_000, "frames")]
Pixels = Annotated[int, RANGES["height"]]
Hertz = Annotated[int, RANGES["sample_rate"]]
TurnsPerSecond = Annotated[float, Real(0, 24_000, "turns/s", above=True)]

Clips = Annotated[int, Whole(1, 10**9, "clips")]
Batch = Annotated[int, Whole(1, 1_000_000, "clips")]
Steps = Annotated[int, Whole(1, 10**9, "steps")]
#: How often something is done; 0 = never.
Every = Annotated[int, Whole(0, 10**9, "steps (0 = never)")]
Count = Annotated[int, Whole(1, 1_000_000)]
CountOrNone = Annotated[int, Whole(0, 1_000_000)]
#: Rows, latents, or places, of whole data sets.
Total = Annotated[int, Whole(0, 2**53)]
#: Of training and of rendered worlds; those of ``generate`` are longer (``ranges.SEED``).
Seed = Annotated[int, Whole(0, 2**32 - 1)]

Share = Annotated[float, Real(0, 1)]
#: A share, or a flow time, that is neither end.
Between = Annotated[float, Real(0, 1, above=True, below=True)]
#: How much a term of a loss counts.
Weight = Annotated[float, Real(0, 1e6)]
#: Of an optimizer or an average: 1 would never learn.
Decay = Annotated[float, Real(0, 1, below=True)]
LearningRate = Annotated[float, Real(0, 10)]
#: A latent, or a mean of latents.
Latent = Annotated[float, Real(-1e6, 1e6)]
#: A standard deviation of latents, or a factor that divides them.
Deviation = Annotated[float, Real(0, 1e6, above=True)]


def multiple_of(number: int) -> AfterValidator:
    """What an annotation has after its range, where a whole number must also be a multiple."""

    def check(value: int) -> int:
        if value % number:
            raise ValueError(f"must be a multiple of {number}, got {value}")
        return value

    return AfterValidator(check)
