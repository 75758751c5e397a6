"""One of several training processes: runs the configs that it is given, one after another."""

import sys
from pathlib import Path

from syncflow.training import runner
from syncflow.training.distributed import groups
from syncflow.training.tasks.flow import FlowTraining

POISON = 3  # the step of a run called "poison" whose data are not numbers


def main() -> None:
    plain = FlowTraining.batch

    def batch(self, step):
        made = plain(self, step)
        if step == POISON and self.config.out.endswith("poison"):
            made["video"] = made["video"] * float("nan")
        return made

    FlowTraining.batch = batch
    group = groups.join("cpu", minutes=2)
    for config in sys.argv[1:]:
        runner.run(Path(config), progress=False, group=group)
    groups.leave()


if __name__ == "__main__":
    main()
