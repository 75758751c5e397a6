"""Damaged files of every kind, thousands of them: python -m tests.fuzz.run --models 500 --seed 0

Every case is one line of FILE.jsonl when ``--out FILE.jsonl`` is given; a case comes back alone by
``--only TARGET NUMBER`` with the same seed. The exit code is 1 where there was a fault.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.data import toy
from tests.fuzz import forked
from tests.fuzz.forked import FAULTS, Outcome
from tests.fuzz.targets import TARGETS, copy


def cases(
    target: str, numbers: range, seed: int, folder: Path
) -> Iterator[tuple[int, str, Outcome]]:
    """(number, what was damaged, what became of it) of each case."""
    chosen = TARGETS[target]
    _import_once()
    goods = _made(target, folder / "good")
    right = {}
    for good in list(goods):
        outcome = forked.run(chosen.use, copy(good, folder / "whole"))
        right[good.name] = outcome.value
        if outcome.kind != "accepted":
            goods.remove(good)
            yield -1, f"{good.name} undamaged", Outcome("traceback", told=outcome.told)
    for number in numbers if goods else ():
        rng = random.Random(f"{target} {seed} {number}")
        good = rng.choice(goods)
        place = folder / "case"
        path = copy(good, place)
        said = f"{good.name}/{chosen.damage(rng, path)}"
        outcome = forked.run(chosen.use, path)
        if outcome.kind == "accepted" and outcome.value != right[good.name]:
            outcome = Outcome("accepted wrong", told="other tensors than the undamaged input's")
        shutil.rmtree(place)
        yield number, said, outcome


def _import_once() -> None:
    """Everything that every child would import by itself."""
    import av  # noqa: F401
    import scipy.optimize  # noqa: F401
    import torch
    from torch.utils import tensorboard  # noqa: F401

    import syncflow.data.prepare
    import syncflow.generation.pipeline
    import syncflow.train
    import syncflow.training.loop
    import syncflow.training.runner
    import syncflow.training.tasks.flow  # noqa: F401

    torch.set_num_threads(1)  # a fork has one thread, and must not wait for others
    toy.encoders()


def _made(target: str, folder: Path) -> list[Path]:
    """The good inputs, made in a child: what it starts (decoders' threads) must not be forked."""
    folder.mkdir(parents=True)

    def make(path: Path) -> str:
        return json.dumps([str(each) for each in TARGETS[target].make(path)])

    outcome = forked.run(make, folder)
    assert outcome.kind == "accepted" and outcome.value, f"{target}: {outcome}"
    return [Path(each) for each in json.loads(outcome.value)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz.run", description=__doc__)
    for name in TARGETS:
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help=f"cases of {name}")
    parser.add_argument("--seed", type=int, default=0, help="the same seed damages alike")
    parser.add_argument("--out", type=Path, help="a line of JSON for every case")
    parser.add_argument("--only", nargs=2, metavar=("TARGET", "NUMBER"), help="one case alone")
    args = parser.parse_args(argv)
    wanted = {name: range(getattr(args, name)) for name in TARGETS}
    if args.only:
        number = int(args.only[1])
        wanted = {args.only[0]: range(number, number + 1)}
    lines, faulty = [], 0
    for target, numbers in wanted.items():
        if not numbers:
            continue
        begun, counts = time.monotonic(), Counter()
        with tempfile.TemporaryDirectory() as folder:
            for number, said, outcome in cases(target, numbers, args.seed, Path(folder)):
                counts[outcome.kind] += 1
                case = {"target": target, "number": number, "seed": args.seed, "damage": said}
                lines.append({**case, "kind": outcome.kind, "told": outcome.told})
                if outcome.kind in FAULTS or args.only:
                    print(f"{target} {number}: {outcome.kind}: {said}", flush=True)
                    print(f"    {outcome.told}", flush=True)
        faulty += sum(counts[kind] for kind in FAULTS)
        told = ", ".join(f"{counts[kind]} {kind}" for kind in ("refused", "accepted", *FAULTS))
        print(f"{target}: {len(numbers)} in {time.monotonic() - begun:.0f} s: {told}", flush=True)
    if args.out:
        args.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return int(faulty > 0)


if __name__ == "__main__":
    sys.exit(main())
