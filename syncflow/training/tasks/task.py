"""What the loop asks of whatever is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

from torch import Tensor, nn

from syncflow.clip import Clip
from syncflow.training.settings import AdversarialConfig
from syncflow.training.tasks.randomness import Source

Batch = TypeVar("Batch")


class Task(ABC, Generic[Batch]):
    """A module and how it is trained: three methods of its own, and defaults for the rest.

    A public method that the loop does not know is refused when the class is made: it would be a
    misspelt one of these, silently without effect. Helpers begin with an underscore.
    """

    #: What is trained and saved.
    module: nn.Module
    #: Steps between sample clips; 0 = none.
    clips_every: int = 0
    #: What is trained against the module, where there is such a thing, and how (lr, betas,
    #: update_share).
    critic: nn.Module | None = None
    critic_settings: AdversarialConfig | None = None

    @abstractmethod
    def batch(self, index: int) -> Batch:
        """The batch of a pass, this process's share of it; decided by ``index`` alone."""

    @abstractmethod
    def loss(self, batch: Batch, source: Source) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The scalar to minimise and what is told beside it; ``source`` is all its randomness."""

    @abstractmethod
    def validate(self, module: nn.Module) -> dict[str, float]:
        """Numbers by name, of ``module`` with its averaged weights."""

    def judge(self) -> Tensor | None:
        """The critic's own loss for what the last ``loss`` saw; None = it has no say yet."""
        return None

    def drawn(self, batch: Batch, source: Source) -> Batch:
        """The batch with those of its step's random numbers that do not depend on the module: made
        by the thread that makes batches ahead, and then not drawn by ``loss``."""
        return batch

    def places(self, index: int) -> range | None:
        """The numbers of the clips of a pass of all processes, counted through the run; None =
        ``batch_size`` at a time."""
        return None

    def names(self, index: int) -> list[str]:
        """What the clips of a pass of all processes are called, for messages."""
        return []

    def flops(self, index: int) -> float | None:
        """Floating point operations of one training sample of a pass; None = not known."""
        return None

    def clips(self, module: nn.Module) -> list[Clip]:
        """Finished clips to look at, in the process that leads."""
        return []

    def finish(self, values: dict[str, Tensor], out: Path) -> dict[str, Tensor]:
        """The final weights as they are saved in ``out``."""
        return values

    @property
    def provenance(self) -> dict[str, str]:
        """What the weights are tied to, for the weights' file."""
        return {}

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        for name, value in vars(cls).items():
            known = name.startswith("_") or hasattr(Task, name)
            if not known and (callable(value) or isinstance(value, property)):
                raise TypeError(f"{cls.__name__}.{name} is nothing that the loop calls; see Task")
