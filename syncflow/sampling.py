"""How to sample: every option once, with its type, default, bounds and meaning.

Whoever offers these options reads them here: the settings of a model folder and of training's
samples (``config.SamplingConfig``), ``generate``, the command line, sweeps and the demo. The module
is light, so that the command line can answer ``--help`` at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

from syncflow.ranges import Range, Real, Whole


@dataclass(frozen=True)
class Option:
    """``default`` is the paper's (section 4); None = as ``help`` says. A number is at least
    ``least`` or more than ``above``, and at most ``most``. ``kind`` and ``choices`` are filled in
    from the annotation."""

    default: float | str | None
    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    kind: type = str
    choices: tuple[str, ...] = ()

    @property
    def range(self) -> Range[int] | Range[float]:
        """The numbers that it may be."""
        low = self.least if self.above is None else self.above
        assert low is not None and self.most is not None, self
        return (Whole if self.kind is int else Real)(low, self.most, above=self.above is not None)

    def check(self, name: str, value: object) -> float | str:
        """``value`` as Python's own; raises ValueError, with name and value, where it is not one of
        the option's values."""
        if not self.choices:
            return self.range.check(name, value)
        if not isinstance(value, str) or value not in self.choices:
            known = ", ".join(self.choices)
            raise ValueError(f"unknown {name} {value!r}; known are {known}")
        return value


class SamplingOptions(TypedDict, total=False):
    """What ``generate`` takes by these names; None or left out = as the model's folder says."""

    steps: Annotated[int | None, Option(50, "solver steps", least=1, most=10_000)]
    audio_steps: Annotated[
        int | None,
        Option(
            None,
            "audio solver steps when audio is sampled separately (cascade or --video); "
            "follows --steps unless the model sets its own",
            least=1,
            most=10_000,
        ),
    ]
    guidance: Annotated[
        float | None,
        Option(
            6.0,
            "guidance strength; 1 turns it off, which halves the work of the steps that have it",
            least=0,
            most=1000,
        ),
    ]
    audio_guidance: Annotated[
        float | None,
        Option(
            None,
            "guidance strength for the audio; follows --guidance unless the model sets its own",
            least=0,
            most=1000,
        ),
    ]
    solver: Annotated[
        Literal["euler", "midpoint", "heun", "ab2", "2m"] | None,
        Option(
            "euler",
            "ab2 is Adams-Bashforth, 2m DPM-Solver++ (2M); euler and 2m take --eta",
        ),
    ]
    eta: Annotated[
        float | None,
        Option(
            0.0,
            "how much of the picture's noise is replaced at every step: 0 = none, 1 = as much as "
            "DDIM's, 1000 = all",
            least=0,
            most=1e6,
        ),
    ]
    eta_start: Annotated[
        float | None,
        Option(
            0.0,
            "time from which the picture's noise is replaced; 0 is noise, 1 the clip: later keeps "
            "more of what the first noise decides",
            least=0,
            most=1,
        ),
    ]
    guidance_start: Annotated[
        float | None,
        Option(0.0, "time from which guidance is applied; 0 is noise, 1 the clip", least=0, most=1),
    ]
    guidance_end: Annotated[
        float | None,
        Option(
            1.0, "time up to which guidance is applied; 0 is noise, 1 the clip", least=0, most=1
        ),
    ]
    schedule: Annotated[
        Literal["joint", "cascade"] | None,
        Option(
            "joint",
            "joint: video and audio are sampled together; cascade: the video first",
        ),
    ]
    shift: Annotated[
        float | None,
        Option(
            1.0,
            "time shift of the video; above 1, more of the steps are near noise",
            above=0,
            most=1000,
        ),
    ]
    cache: Annotated[
        Literal["off", "video", "audio", "both"] | None,
        Option(
            "off",
            "first-block cache of which towers: where the first block says much the same as at the "
            "last whole pass, the rest is what it was then",
        ),
    ]
    cache_threshold: Annotated[
        float | None,
        Option(
            0.1,
            "change of the first block, relative to itself, below which the cache is used",
            least=0,
            most=10,
        ),
    ]
    candidates: Annotated[
        int | None,
        Option(
            1,
            "generate a clip again, up to this many in all, until every contact (a moment when "
            "things touch) has its sound and there are as many as the prompt says",
            least=1,
            most=100,
        ),
    ]


def _options() -> dict[str, Option]:
    found = {}
    for name, hint in get_type_hints(SamplingOptions, include_extras=True).items():
        kinds, option = get_args(hint)
        inner = [kind for kind in get_args(kinds) if kind is not NoneType]
        assert get_origin(kinds) in (Union, UnionType) and len(inner) == 1, name
        if get_origin(inner[0]) is Literal:
            found[name] = replace(option, choices=get_args(inner[0]))
        else:
            found[name] = replace(option, kind=inner[0])
    return found


#: By name.
OPTIONS = _options()
