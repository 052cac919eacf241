"""What networks see while they are trained: which photos, in which view, with what dropped, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from topgraft.heads._axes import Inputs
from topgraft.heads._network import Shape
from topgraft.heads._torch_stack import Batch
from topgraft.schedules import Schedule
from topgraft.settings import Settings
from topgraft.types import Features

ORDER, VIEW, DROP, START = 0, 1, 2, 1000
"""What a draw is for; layer k starts from START + k and its input is dropped by DROP + k."""


FEWEST = 3
"""Steps an epoch at least: so that a few dozen photos, too, are seen in enough steps."""


@dataclass(frozen=True)
class Job:
    """One model: a shape on a fold with its strengths and seed."""

    fold: int
    shape: Shape
    dropout: float = 0.5
    rate: float = 0.003
    decay: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """How models are trained; the same for all of them.

    Attributes:
        epochs: at most.
        patience: epochs without a lower log loss on the inner split before a model stops.
        batch: photos a step.
        steps: steps an epoch at most; many photos make larger batches.
        schedule: of the learning rate, over all epochs.
    """

    epochs: int = 60
    patience: int = 12
    batch: int = 32
    steps: int = 32
    schedule: Schedule = field(default_factory=lambda: Schedule(name="cosine", warmup=0.05))

    def steps_of(self, photos: int) -> int:
        """Give the steps of an epoch over so many photos."""
        return min(max(round(photos / self.batch), FEWEST), self.steps, photos)


@dataclass(frozen=True)
class Task:
    """What all models of a comparison share.

    Attributes:
        targets: (N, C) 0/1.
        weight: (N,) of a photo in the loss.
        several: a sigmoid for each class in place of a softmax.
        plan: how to train.
    """

    targets: NDArray[np.float64]
    weight: NDArray[np.float64]
    several: bool = False
    plan: Plan = field(default_factory=Plan)


def draw(seed: int, purpose: int, epoch: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw uniform numbers in [0, 1): a function of the arguments, whatever was drawn before."""
    generator = np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, 0, epoch]))
    return generator.random(shape, dtype=np.float32)


def device() -> torch.device:
    """Give where to train: what the settings say, else a GPU where there is one."""
    wanted = Settings.load().device
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted)


class Feed:
    """Batches for models of one shape. Those on one fold with one seed and Dropout see the very same rows.

    Args:
        features: (V, N, D).
        jobs, inputs: the models and their folds' inputs.
        task: targets and plan.
    """

    def __init__(self, features: Features, jobs: Sequence[Job], inputs: Sequence[Inputs], task: Task) -> None:
        self.features, self.shape, self.device = features, jobs[0].shape, device()
        keys = [(job.fold, job.seed, job.dropout if self.shape.drop_input else 0.0) for job in jobs]
        self.kinds = dict(zip(keys, inputs, strict=True))
        self.seeds = list(dict.fromkeys(job.seed for job in jobs))
        self.steps = task.plan.steps_of(len(inputs[0].rows))
        order = list(self.kinds)
        self.kind = self._tensor(np.array([order.index(key) for key in keys]))
        self.seed = self._tensor(np.array([self.seeds.index(job.seed) for job in jobs]))
        self.keep = self._tensor(np.array([[[1 - job.dropout]] for job in jobs]))
        self.drops = self.shape.drop_hidden and any(job.dropout for job in jobs)
        self.targets, self.weight = self._tensor(task.targets), self._tensor(task.weight)
        self.turns = [(self._tensor(given.turn), given) for given in self.kinds.values()]
        self.stop = self._stop()

    def only(self, chosen: torch.Tensor) -> None:
        """Go on with some of the models."""
        self.kind, self.seed, self.keep = self.kind[chosen], self.seed[chosen], self.keep[chosen]

    def held(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give view 0 of every model's inner split: rows (M, m, K), targets (M, m, C), weight (M, m)."""
        rows, targets, weight = self.stop
        return rows[self.kind], targets[self.kind], weight[self.kind]

    def epoch(self, number: int) -> Iterator[Batch]:
        """Deal every photo of every model once, in one of its views."""
        rows, photos, real = self._deal(number)
        chances = [self._chances(number, layer + 1, width) for layer, width in enumerate(self.shape.widths)]
        for step in range(self.steps):
            photo, present = photos[self.kind, step], real[self.kind, step]
            yield Batch(
                rows=rows[self.kind, step],
                targets=self.targets[photo],
                weight=self.weight[photo] * present,
                real=present[:, :, None],
                drops=[self._drop(chance, photo) for chance in chances if chance is not None],
            )

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        kind = np.float32 if array.dtype.kind == "f" else np.int64
        return torch.from_numpy(np.ascontiguousarray(array, kind)).to(self.device)

    def _stop(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Fill the inner splits up to one length, (kinds, m, ...); what fills up has weight 0."""
        longest = max(len(given.stop) for given in self.kinds.values())
        rows = torch.zeros(len(self.kinds), longest, self.turns[0][0].shape[1], device=self.device)
        photos = torch.zeros(len(self.kinds), longest, dtype=torch.int64, device=self.device)
        weight = torch.zeros(len(self.kinds), longest, device=self.device)
        for slot, (turn, given) in enumerate(self.turns):
            count = len(given.stop)
            rows[slot, :count] = self._tensor(self.features[0, given.stop] - given.centre) @ turn
            photos[slot, :count] = self._tensor(given.stop)
            weight[slot, :count] = self.weight[photos[slot, :count]]
        return rows, self.targets[photos], weight

    def _deal(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give rows (kinds, steps, B, K), their photos (kinds, steps, B), and 1 for those that are real."""
        longest = max(-(-len(given.rows) // self.steps) for given in self.kinds.values())
        shape = (len(self.kinds), self.steps, longest)
        rows = torch.zeros(*shape, self.turns[0][0].shape[1], device=self.device)
        photos, real = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        views, count, width = self.features.shape
        wanted, drawn = set(self.kind.tolist()), {}
        for slot, ((_, seed, dropout), (turn, given)) in enumerate(zip(self.kinds, self.turns, strict=True)):
            if slot not in wanted:  # all of its models have stopped
                continue
            photo = given.rows[np.argsort(draw(seed, ORDER, number, (count,))[given.rows], kind="stable")]
            view = (draw(seed, VIEW, number, (count,))[photo] * views).astype(np.int64)
            seen = self.features[view, photo] - given.centre
            if dropout:
                if seed not in drawn:
                    drawn[seed] = draw(seed, DROP, number, (count, width))
                seen *= (drawn[seed][photo] >= dropout) / np.float32(1 - dropout)
            turned = self._tensor(seen) @ turn
            for step, part in enumerate(np.array_split(np.arange(len(photo)), self.steps)):
                rows[slot, step, : len(part)] = turned[part[0] : part[-1] + 1]
                photos[slot, step, : len(part)] = photo[part]
                real[slot, step, : len(part)] = 1
        return rows, self._tensor(photos), self._tensor(real)

    def _chances(self, number: int, layer: int, units: int) -> torch.Tensor | None:
        """Draw for every seed, photo and hidden unit (seeds, N, units) what decides whether it is dropped."""
        if not self.drops:
            return None
        shape = (len(self.targets), units)
        return self._tensor(np.stack([draw(seed, DROP + layer, number, shape) for seed in self.seeds]))

    def _drop(self, chances: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
        return (chances[self.seed[:, None], photo] < self.keep) / self.keep
