"""What of somebody's films becomes training data: the options of `syncflow prepare` and their
bounds. The module is light, so that the command line can answer ``--help`` at once."""

from __future__ import annotations

from dataclasses import dataclass

from syncflow.ranges import SEED, Range, Real, Whole

#: What may be kept although training seldom wants it.
KEEPABLE = ("static", "silent", "no audio")

#: By option.
RANGES: dict[str, Range] = {
    "test_share": Real(0, 1, above=True, below=True),
    "per_segment": Whole(1, 1_000_000, "windows"),
    "segment_s": Real(0, 86_400, "s", above=True),
    "seed": SEED,
    "min_motion": Real(0, 255, "grey levels"),
    "min_db": Real(-1000, 100, "dB"),
}
WORKERS = Whole(0, 4096, "processes")
BATCH = Whole(1, 1_000_000, "windows")
PARTS = Whole(1, 1_000_000, "parts")


@dataclass(frozen=True)
class Options:
    """What of the sources becomes training data, beside their geometry.

    layout, videos: as in ``sources.find``. split, test_share: as in ``splits.choose``. caption:
    what is said of clips of which nothing else is. recaption: the captioning model says something
    of every window, whatever else is said. windows: "random" places in training (the
    paper's), "fixed" ones for evaluation; per_segment: at most so many windows from a segment of
    ``segment_s`` s (None: as many as fit side by side). seed: of the random places. keep,
    min_motion (grey levels of 255), min_db (dB of full scale): filters.

    Raises:
        ValueError: a value that is none of these; the message has its name.
    """

    layout: str = "auto"
    videos: str | None = None
    split: str | None = None
    test_share: float | None = None
    caption: str | None = None
    recaption: bool = False
    windows: str = "random"
    per_segment: int | None = None
    segment_s: float | None = None
    seed: int = 0
    keep: tuple[str, ...] = ()
    min_motion: float = 8.0
    min_db: float = -50.0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("windows", self.windows, ("random", "fixed")),
            *(("keep", kind, KEEPABLE) for kind in self.keep),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        for name, within in RANGES.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, within.check(name, getattr(self, name)))
