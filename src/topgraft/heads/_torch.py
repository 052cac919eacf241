"""Training network heads together: one computation over folds, strengths and seeds.

Every tensor of weights has a leading model axis M, every Dense layer is one batched matrix product, and a
model sees only the rows of its own fold, has its own BatchNorm statistics, its own early stopping and its own
best weights. What a model draws (first weights, order, view of a photo, dropped units) is a function of its
seed, the epoch and the photo, never of its neighbours, so a model comes out the same whether it is trained
alone or among hundreds.

Each epoch shows every photo once, in one of its views: that is what augmenting means when views are stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from topgraft.heads._axes import Inputs, prepare
from topgraft.heads._network import Shape
from topgraft.heads._torch_stack import Batch, Optimizer, Stack, losses
from topgraft.schedules import Schedule
from topgraft.settings import Settings
from topgraft.types import Features, Labels

Dense = tuple[NDArray[np.float32], NDArray[np.float32]]
"""A layer's weight (D, E) and bias (E,)."""

PLACES = 2**22
"""Weights trained at once: more than fit in the processor's cache train no faster together."""
ORDER, VIEW, DROP, START = 0, 1, 2, 1000
"""What a draw is for; layer k starts from START + k and its input is dropped by DROP + k."""


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
        axes: principal axes of the fold's rows that are kept.
        schedule: of the learning rate, over all epochs.
    """

    epochs: int = 60
    patience: int = 12
    batch: int = 32
    steps: int = 32
    axes: int = 128
    schedule: Schedule = field(default_factory=lambda: Schedule(name="cosine", warmup=0.05))

    def steps_of(self, photos: int) -> int:
        """Give the steps of an epoch over so many photos."""
        return min(max(round(photos / self.batch), 1), self.steps)


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


def train(
    features: Features,
    jobs: Sequence[Job],
    folds: Sequence[Labels],
    task: Task,
    *,
    groups: Labels | None = None,
) -> list[tuple[Dense, ...]]:
    """Train all jobs, those of one shape together.

    Args:
        features: (V, N, D).
        jobs: the models.
        folds: the photos each fold is fitted on, as indices.
        task: targets and plan.
        groups: (N,) photos that stay together in the inner split.

    Returns:
        For each job its Dense layers on plain features, first to last.
    """
    labels = task.targets.astype(np.int64) if task.several else task.targets.argmax(axis=1)
    ready = {
        (fold, seed): prepare(features, labels, groups, folds[fold], axes=task.plan.axes, seed=seed)
        for fold, seed in sorted({(job.fold, job.seed) for job in jobs})
    }
    trained: dict[int, tuple[Dense, ...]] = {}
    for members in _together(jobs, ready, task):
        inputs = [ready[jobs[i].fold, jobs[i].seed] for i in members]
        found = _Training([jobs[i] for i in members], inputs, task).run()
        for i, layers, given in zip(members, found.plain(), inputs, strict=True):
            trained[i] = _on_features(layers, given)
    return [trained[i] for i in range(len(jobs))]


def _on_features(
    layers: list[tuple[NDArray[np.float64], NDArray[np.float64]]], given: Inputs
) -> tuple[Dense, ...]:
    """Fold the standardisation and the turn onto the axes into the first layer."""
    (weight, bias), *rest = layers
    first = given.turn.astype(np.float64) @ weight
    whole = [(first, bias - given.centre.astype(np.float64) @ first), *rest]
    return tuple((weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in whole)


def _together(jobs: Sequence[Job], ready: dict[tuple[int, int], Inputs], task: Task) -> Iterator[list[int]]:
    """Group jobs that can share a computation, equal strengths side by side, in pieces that fit the cache."""
    alike: dict[tuple[Shape, int, int, bool], list[int]] = defaultdict(list)
    for i, job in enumerate(jobs):
        inputs = ready[job.fold, job.seed]
        steps = task.plan.steps_of(len(inputs.rows))
        alike[job.shape, inputs.views.shape[2], steps, len(inputs.stop) > 0].append(i)
    for (shape, width, _, _), members in alike.items():
        sizes = [width, *shape.widths, task.targets.shape[1]]
        share = max(PLACES // sum(a * b for a, b in pairwise(sizes)), 1)
        members.sort(key=lambda i: (jobs[i].rate, jobs[i].decay))
        for start in range(0, len(members), share):
            yield members[start : start + share]


def draw(seed: int, purpose: int, epoch: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw uniform numbers in [0, 1): a function of the arguments, whatever was drawn before."""
    generator = np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, 0, epoch]))
    return generator.random(shape, dtype=np.float32)


def device() -> torch.device:
    """Give where to train: what the settings say, else a GPU where there is one."""
    wanted = Settings.load().device
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted)


class _Feed:
    """What every model sees, epoch by epoch. Models on the same fold with the same seed see the same."""

    def __init__(self, jobs: Sequence[Job], inputs: Sequence[Inputs], task: Task) -> None:
        keys = [(job.fold, job.seed) for job in jobs]
        self.kinds = list(dict.fromkeys(keys))
        self.seeds = list(dict.fromkeys(job.seed for job in jobs))
        self.of_kind = dict(zip(keys, inputs, strict=True))
        self.shape, self.plan, self.device = jobs[0].shape, task.plan, device()
        self.steps = task.plan.steps_of(len(inputs[0].rows))
        self.kind = self._tensor(np.array([self.kinds.index(key) for key in keys]))
        self.seed = self._tensor(np.array([self.seeds.index(job.seed) for job in jobs]))
        self.keep = self._tensor(np.array([[[1 - job.dropout]] for job in jobs]))
        self.targets, self.weight = self._tensor(task.targets), self._tensor(task.weight)
        self.rows = self._tensor(
            np.concatenate(
                [self.of_kind[key].views.reshape(-1, inputs[0].views.shape[2]) for key in self.kinds]
            )
        )
        self._hold_stop()

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        kind = np.float32 if array.dtype.kind == "f" else np.int64
        return torch.from_numpy(np.ascontiguousarray(array, kind)).to(self.device)

    def _hold_stop(self) -> None:
        """Pad the inner splits (kinds, m, K) to one length; weight 0 fills up."""
        longest = max(len(given.stop) for given in self.of_kind.values())
        rows = torch.zeros(len(self.kinds), longest, self.rows.shape[1], device=self.device)
        photos = torch.zeros(len(self.kinds), longest, dtype=torch.int64, device=self.device)
        weight = torch.zeros(len(self.kinds), longest, device=self.device)
        for slot, key in enumerate(self.kinds):
            given = self.of_kind[key]
            count = len(given.stop)
            rows[slot, :count] = self._tensor(given.stop_view)
            photos[slot, :count] = self._tensor(given.stop)
            weight[slot, :count] = self.weight[photos[slot, :count]]
        self.stop = (rows, self.targets[photos], weight)

    def only(self, chosen: torch.Tensor) -> None:
        """Go on with some of the models."""
        self.kind, self.seed, self.keep = self.kind[chosen], self.seed[chosen], self.keep[chosen]

    def held(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give view 0 of every model's inner split: rows (M, m, K), targets (M, m, C), weight (M, m)."""
        rows, targets, weight = self.stop
        return rows[self.kind], targets[self.kind], weight[self.kind]

    def epoch(self, number: int) -> Iterator[Batch]:
        """Deal every photo of every model once, in one of its views."""
        places, photos, real = (self._tensor(table) for table in self._deal(number))
        units = [self.rows.shape[1] if self.shape.drop_input else 0]
        units += [width if self.shape.drop_hidden else 0 for width in self.shape.widths]
        chances = [self._chances(number, layer, width) for layer, width in enumerate(units)]
        for step in range(self.steps):
            photo = photos[self.kind, step]
            present = real[self.kind, step]
            yield Batch(
                rows=self.rows[places[self.kind, step]],
                targets=self.targets[photo],
                weight=self.weight[photo] * present,
                real=present[:, :, None],
                drops=[None if chance is None else self._drop(chance, photo) for chance in chances],
            )

    def _deal(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Give the rows' places, their photos, and which of them are real: (kinds, steps, B) each."""
        longest = max(-(-len(given.rows) // self.steps) for given in self.of_kind.values())
        places = np.zeros((len(self.kinds), self.steps, longest), np.int64)
        photos, real = np.zeros_like(places), np.zeros(places.shape, np.float32)
        offset = 0
        for slot, (fold, seed) in enumerate(self.kinds):
            given = self.of_kind[fold, seed]
            views, count = given.views.shape[:2]
            order = np.argsort(draw(seed, ORDER, number, (len(self.targets),))[given.rows], kind="stable")
            view = (draw(seed, VIEW, number, (len(self.targets),))[given.rows] * views).astype(np.int64)
            for step, part in enumerate(np.array_split(order, self.steps)):
                places[slot, step, : len(part)] = offset + view[part] * count + part
                photos[slot, step, : len(part)] = given.rows[part]
                real[slot, step, : len(part)] = 1
            offset += views * count
        return places, photos, real

    def _chances(self, number: int, layer: int, units: int) -> torch.Tensor | None:
        """Draw for every seed, photo and unit (seeds, N, units) what decides whether it is dropped."""
        if not units or bool((self.keep == 1).all()):
            return None
        shape = (len(self.targets), units)
        return self._tensor(np.stack([draw(seed, DROP + layer, number, shape) for seed in self.seeds]))

    def _drop(self, chances: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
        return (chances[self.seed[:, None], photo] < self.keep) / self.keep


class _Training:
    """Models of one shape on their way from first weights to best ones."""

    def __init__(self, jobs: Sequence[Job], inputs: Sequence[Inputs], task: Task) -> None:
        self.task, self.feed = task, _Feed(jobs, inputs, task)
        self.strengths = [(job.rate, job.decay) for job in jobs]
        self.stops = len(inputs[0].stop) > 0
        shape = jobs[0].shape
        sizes = [inputs[0].views.shape[2], *shape.widths, task.targets.shape[1]]
        drawn = [
            {seed: draw(seed, START + layer, 0, (a + 1, b)) for seed in self.feed.seeds}
            for layer, (a, b) in enumerate(pairwise(sizes))
        ]
        first = [np.stack([layer[job.seed] for job in jobs]) for layer in drawn]
        self.stack = Stack.start(shape, sizes, first).map(lambda tensor: tensor.to(self.feed.device))

    def run(self) -> Stack:
        """Train to the end; give every model's best weights, in the order of the jobs."""
        plan, feed, stack = self.task.plan, self.feed, self.stack
        factors = plan.schedule.factors(plan.epochs * feed.steps)
        best = stack.map(torch.clone)
        models = torch.arange(len(self.strengths), device=feed.device)
        lowest = torch.full((len(models),), torch.inf, device=feed.device)
        since = torch.zeros_like(models)
        optimizer = Optimizer(stack.trained(), self.strengths)
        held = feed.held()
        for epoch in range(plan.epochs):
            for batch in feed.epoch(epoch):
                logits = stack.forward(batch.rows, batch)
                loss = losses(logits, batch.targets, batch.weight, several=self.task.several).sum()
                optimizer.step(loss, factors[optimizer.steps])
            if not self.stops:
                continue
            with torch.no_grad():
                rows, targets, weight = held
                now = losses(stack.forward(rows), targets, weight, several=self.task.several)
            better = (now < lowest) & (since < plan.patience)
            lowest = torch.where(better, now, lowest)
            since = torch.where(better, 0, since + 1)
            best.put(models[better], stack, better)
            alive = since < plan.patience
            if not alive.any():
                break
            if alive.sum() <= 0.75 * len(alive):  # finished models cost as much as others: go on without them
                chosen = alive.nonzero()[:, 0]
                stack = stack.map(lambda tensor, chosen=chosen: tensor.detach()[chosen])
                optimizer = optimizer.only(stack.trained(), chosen)
                models, lowest, since = models[chosen], lowest[chosen], since[chosen]
                feed.only(chosen)
                held = feed.held()
        return best if self.stops else stack
