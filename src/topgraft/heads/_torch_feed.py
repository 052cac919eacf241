"""What networks see while they are trained: which photos, in which view, with what dropped, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from topgraft.heads._axes import Inputs
from topgraft.heads._shape import Shape
from topgraft.heads._torch_stack import Batch
from topgraft.schedules import cosine
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
        warmup: share of the steps in which the learning rate rises to its peak; a cosine follows.
    """

    epochs: int = 60
    patience: int = 12
    batch: int = 32
    steps: int = 32
    warmup: float = 0.05

    def rates(self, steps: int) -> list[float]:
        """Return the learning rate of every step as a share of the peak."""
        return [cosine(step, steps, self.warmup) for step in range(steps)]

    def steps_of(self, photos: int) -> int:
        """Return the number of steps of an epoch over so many photos."""
        return min(max(round(photos / self.batch), FEWEST), self.steps, photos)


@dataclass(frozen=True)
class Task:
    """What all models of a comparison share.

    Attributes:
        labels: (N, C) 0/1.
        weight: (N,) of a photo in the loss.
        multilabel: a sigmoid for each class in place of a softmax.
        plan: how to train.
    """

    labels: NDArray[np.float64]
    weight: NDArray[np.float64]
    multilabel: bool = False
    plan: Plan = field(default_factory=Plan)


def draw(seed: int, purpose: int, epoch: int = 0) -> np.random.Generator:
    """Return a source of random numbers that is a function of the arguments, whatever was drawn before."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, 0, epoch]))


class StackBatches:
    """Batches for models of one shape. Those on one fold with one seed and Dropout see the very same rows.

    Args:
        features: (V, N, D).
        jobs, inputs: the models and their folds' inputs.
        task: labels, weights and plan.
        device: where they are trained.
    """

    def __init__(
        self,
        features: Features,
        jobs: Sequence[Job],
        inputs: Sequence[Inputs],
        task: Task,
        device: torch.device,
    ) -> None:
        self.features, self.shape, self.device = features, jobs[0].shape, device
        keys = [(job.fold, job.seed) for job in jobs]
        self.kinds = dict(zip(keys, inputs, strict=True))
        self.seeds = list(dict.fromkeys(job.seed for job in jobs))
        self.steps, self.axes = task.plan.steps_of(len(inputs[0].rows)), inputs[0].projection.shape[1]
        self.order = list(self.kinds)
        self.kind = self._tensor(np.array([self.order.index(key) for key in keys]))
        self.seed = self._tensor(np.array([self.seeds.index(job.seed) for job in jobs]))
        self.keep = self._tensor(np.array([[[1 - job.dropout]] for job in jobs]))
        self.drops = any(job.dropout for job in jobs)
        self.labels, self.weight = self._tensor(task.labels), self._tensor(task.weight)
        self.stop = self._stop()

    def only(self, chosen: torch.Tensor) -> None:
        """Go on with some of the models."""
        self.kind, self.seed, self.keep = self.kind[chosen], self.seed[chosen], self.keep[chosen]

    def held(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return view 0 of every model's inner split: rows (M, m, K), labels (M, m, C), weight (M, m, 1)."""
        rows, labels, weight = self.stop
        return rows[self.kind], labels[self.kind], weight[self.kind]

    def epoch(self, number: int) -> Iterator[Batch]:
        """Deal every photo of every model once, in one of its views."""
        (rows, spread), photos, real = self._deal(number)
        scatter = self._normal(number, rows.shape[-1]) if self.drops and self.shape.drop_input else None
        widths = self.shape.widths if self.drops and self.shape.drop_hidden else ()
        chances = [self._uniform(number, layer + 1, width) for layer, width in enumerate(widths)]
        noise_scale = ((1 - self.keep) / self.keep).sqrt()
        seed, photo, present = self.seed[:, None], photos[self.kind], real[self.kind]  # (M, steps, B)
        count = present.sum(dim=2, keepdim=True)
        share, bessel = present / count, count / (count - 1).clamp(min=1)
        weight = self.weight[photo] * present
        weight = weight / weight.sum(dim=2, keepdim=True)
        for step in range(self.steps):
            seen, shown = rows[self.kind, step], photo[:, step]
            if scatter is not None:
                seen = seen.addcmul_(spread[self.kind, step], scatter[seed, shown].mul_(noise_scale))
            yield Batch(
                rows=seen,
                labels=self.labels[shown],
                weight=weight[:, step, :, None],
                share=share[:, step, :, None],
                bessel=bessel[:, step, :, None],
                drops=[(chance[seed, shown] < self.keep) / self.keep for chance in chances],
            )

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        kind = np.float32 if array.dtype.kind == "f" else np.int64
        return torch.from_numpy(np.ascontiguousarray(array, kind)).to(self.device)

    def _stop(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Fill the inner splits up to one length, (kinds, m, ...); what fills up has weight 0."""
        longest = max(len(given.stop) for given in self.kinds.values())
        rows = torch.zeros(len(self.kinds), longest, self.axes, device=self.device)
        photos = torch.zeros(len(self.kinds), longest, dtype=torch.int64, device=self.device)
        weight = torch.zeros(len(self.kinds), longest, device=self.device)
        for slot, given in enumerate(self.kinds.values()):
            count = len(given.stop)
            rows[slot, :count] = self._tensor(given.project(self.features[0, given.stop])[0])
            photos[slot, :count] = self._tensor(given.stop)
            weight[slot, :count] = self.weight[photos[slot, :count]]
        share = weight / weight.sum(dim=1, keepdim=True)
        return rows, self.labels[photos], share[:, :, None]

    def _deal(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return rows and spread (2, kinds, steps, B, K), their photos (kinds, steps, B), 1 for real ones."""
        longest = max(-(-len(given.rows) // self.steps) for given in self.kinds.values())
        shape = (len(self.kinds), self.steps, longest)
        rows = np.zeros((2, *shape, self.axes), np.float32)
        photos, real = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        views, count, _ = self.features.shape
        orders: dict[int, NDArray[np.float64]] = {}
        chosen: dict[int, NDArray[np.int64]] = {}
        for seed in self.seeds:
            orders[seed] = draw(seed, ORDER, number).random((count,))
            chosen[seed] = draw(seed, VIEW, number).integers(views, size=(count,))
        for slot in set(self.kind.tolist()):  # kinds whose models have all stopped are left out
            (_, seed), given = self.order[slot], self.kinds[self.order[slot]]
            places = np.argsort(orders[seed][given.rows], kind="stable")
            seen = given.coordinates_of(self.features, chosen[seed][given.rows[places]], places)
            for step, part in enumerate(np.array_split(np.arange(len(places)), self.steps)):
                rows[:, slot, step, : len(part)] = seen[0][part], seen[1][part]
                photos[slot, step, : len(part)] = given.rows[places[part]]
                real[slot, step, : len(part)] = 1
        return self._tensor(rows), self._tensor(photos), self._tensor(real)

    def _normal(self, number: int, units: int) -> torch.Tensor:
        """Draw for every seed, photo and axis (seeds, N, K) where Dropout on the features moves it."""
        size = (len(self.labels), units)
        drawn = [draw(seed, DROP, number).standard_normal(size, np.float32) for seed in self.seeds]
        return self._tensor(np.stack(drawn))

    def _uniform(self, number: int, layer: int, units: int) -> torch.Tensor:
        """Draw for every seed, photo and hidden unit (seeds, N, units) what decides whether it is dropped."""
        size = (len(self.labels), units)
        return self._tensor(
            np.stack([draw(seed, DROP + layer, number).random(size, np.float32) for seed in self.seeds])
        )
