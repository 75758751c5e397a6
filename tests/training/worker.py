"""One of several training processes: runs the configs that it is given, one after another."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from syncflow.training import batches, runner
from syncflow.training.distributed import groups, spikes
from syncflow.training.tasks.flow import FlowTraining

POISON = 3  # the step of a run called "poison" whose data are not numbers


def main() -> None:
    plain = FlowTraining.batch

    def batch(self, step):
        made = plain(self, step)
        if step == POISON and self.config.out.endswith("poison"):
            made["video"] = made["video"] * float("nan")
        if step == POISON and self.config.out.endswith("spike"):
            made["video"] = made["video"] * 1e3
        return made

    FlowTraining.batch = batch
    spikes._ENOUGH = 2
    enter = batches.Batches.__enter__

    def begin(self):
        # Told to stop before its first step.
        if Path(self.task.config.out).name.startswith("early"):
            os.kill(os.getpid(), signal.SIGTERM)
        return enter(self)

    batches.Batches.__enter__ = begin
    group = groups.join("cpu", minutes=2)
    for config in sys.argv[1:]:
        with suppress(SystemExit):
            runner.run(Path(config), progress=False, group=group)
    groups.leave()


if __name__ == "__main__":
    main()
