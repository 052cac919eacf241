"""How much of a fine-tuning is left: all folds and the last training together."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from topgraft.types import Progress, silent


@dataclass
class Left:
    """Counts epochs of all trainings, so that one bar says when everything is done.

    Attributes:
        trainings: how many there will be at most: every fold's and that on all photos, twice where each is
            done again once its best epoch is known.
        epochs: of one, at most.
        tell: told of epochs done and of all there are.
        seconds: what all are expected to take at most, before the first is done.
    """

    trainings: int
    epochs: int
    tell: Progress = silent
    seconds: float = 0.0
    done: int = 0
    _begun: float = field(default_factory=time.perf_counter)
    _shown: int = 0

    def epoch(self, number: int) -> None:
        """Note that so many epochs of the present training are done."""
        self._shown += 1
        self.tell("fine-tuning", self.done * self.epochs + number, self.trainings * self.epochs)

    def training(self) -> None:
        """Note that a training is done, however early it stopped."""
        self.done += 1
        self.tell("fine-tuning", min(self.done, self.trainings) * self.epochs, self.trainings * self.epochs)

    def at_most(self) -> float:
        """Return the seconds that are left where nothing stops early: by the pace of the epochs so far."""
        rest = max(self.trainings - self.done, 0)
        if not self._shown:
            return self.seconds * rest / max(self.trainings, 1)
        return (time.perf_counter() - self._begun) / self._shown * rest * self.epochs
