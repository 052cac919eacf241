"""Training network heads together: one computation over folds, strengths and seeds.

Every tensor of weights has a leading model axis M, every Dense layer is one batched matrix product, and a
model sees only the rows of its own fold, has its own BatchNorm statistics, its own early stopping and its own
best weights. What a model draws (first weights, order, view of a photo, dropped units) is a function of its
seed, the epoch and the photo, never of its neighbours, so a model comes out the same whether it is trained
alone or among hundreds.

Each epoch shows every photo once, in one of its views: that is what augmenting means when views are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from topgraft.engines._torch import device
from topgraft.errors import DataError
from topgraft.heads._axes import Inputs, prepare_all
from topgraft.heads._parallel import Compute
from topgraft.heads._shape import Shape
from topgraft.heads._torch_feed import START, Job, StackBatches, Task, draw
from topgraft.heads._torch_stack import Optimizer, Stack, losses
from topgraft.types import Features, Labels

Dense = tuple[NDArray[np.float32], NDArray[np.float32]]
"""A layer's weight (D, E) and bias (E,)."""

TOGETHER = 5, 10
"""Folds in a piece: ten of small networks, five of others. Pieces run side by side, one core each, and do not
depend on how many cores there are."""
SMALL, PLACES = 2**18, 2**22
"""Weights in a piece. Below the first, calling takes longer than computing; more than the second fit in no
processor's cache and train no faster together."""


def train(
    features: Features,
    jobs: Sequence[Job],
    folds: Sequence[Labels],
    task: Task,
    *,
    groups: Labels | None = None,
    positions: int = 1,
    compute: Compute,
) -> list[tuple[Dense, ...]]:
    """Train all jobs, those of one shape together.

    Args:
        features: (V, N, D).
        jobs: the models.
        folds: the photos each fold is fitted on, as indices.
        task: labels, weights and plan.
        groups: (N,) photos that stay together in the inner split.
        positions: how many numbers in a row share a channel's statistics: h·w of a flattened map.
        compute: cores and device.

    Returns:
        For each job its Dense layers on plain features, first to last.

    Raises:
        DataError: where all photos of a fold weigh nothing, or the loss is never a finite number.
    """
    # A batch of photos that weigh nothing has no mean loss; they are not there.
    folds = [fold[task.weight[fold] > 0] for fold in folds]
    if not all(map(len, folds)):
        raise DataError("sample_weight: expected a photo that weighs something in every fold, got none.")
    strata = task.labels.astype(np.int64) if task.multilabel else task.labels.argmax(axis=1)
    keys = [(job.fold, job.seed) for job in jobs]
    ready = prepare_all(features, strata, groups, folds, keys, positions=positions, compute=compute)

    where = device(compute.settings)

    def fitted(members: list[int]) -> list[tuple[int, tuple[Dense, ...]]]:
        inputs = [ready[jobs[i].fold, jobs[i].seed] for i in members]
        found = _Training(features, [jobs[i] for i in members], inputs, task, where).run().plain()
        return [
            (i, _on_features(layers, given)) for i, layers, given in zip(members, found, inputs, strict=True)
        ]

    with one_core_each():
        trained = dict(chain.from_iterable(compute.map(fitted, _pieces(jobs, ready, task))))
    return [trained[i] for i in range(len(jobs))]


@contextmanager
def one_core_each() -> Iterator[None]:
    """Let torch use one core a piece: small products gain nothing from more, and crawl on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _on_features(
    layers: list[tuple[NDArray[np.float64], NDArray[np.float64]]], given: Inputs
) -> tuple[Dense, ...]:
    """Fold the standardisation and the projection onto the axes into the first layer."""
    (weight, bias), *rest = layers
    first = given.projection.astype(np.float64) @ weight
    whole = [(first, bias - given.centre.astype(np.float64) @ first), *rest]
    return tuple((weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in whole)


def _pieces(jobs: Sequence[Job], ready: dict[tuple[int, int], Inputs], task: Task) -> list[list[int]]:
    """Divide jobs into pieces that train as one: one shape, a few folds, equal strengths side by side."""
    alike: dict[tuple[Shape, int, int, bool], dict[tuple[int, int], list[int]]] = {}
    for i, job in enumerate(jobs):
        inputs = ready[job.fold, job.seed]
        steps = task.plan.steps_of(len(inputs.rows))
        kinds = alike.setdefault((job.shape, inputs.projection.shape[1], steps, len(inputs.stop) > 0), {})
        kinds.setdefault((job.fold, job.seed), []).append(i)
    pieces = []
    for (shape, width, _, _), kinds in alike.items():
        places = sum(a * b for a, b in pairwise([width, *shape.widths, task.labels.shape[1]]))
        most = max(len(members) for members in kinds.values())
        share = min(int(np.clip(SMALL // (places * most), *TOGETHER)), max(PLACES // (places * most), 1))
        folds = list(kinds.values())
        for start in range(0, len(folds), share):
            members = list(chain.from_iterable(folds[start : start + share]))
            pieces.append(sorted(members, key=lambda i: (jobs[i].rate, jobs[i].decay)))
    return pieces


class _Training:
    """Models of one shape on their way from first weights to best ones."""

    def __init__(
        self,
        features: Features,
        jobs: Sequence[Job],
        inputs: Sequence[Inputs],
        task: Task,
        where: torch.device,
    ) -> None:
        self.task, self.feed = task, StackBatches(features, jobs, inputs, task, where)
        self.strengths = [(job.rate, job.decay) for job in jobs]
        self.stops = len(inputs[0].stop) > 0
        shape = jobs[0].shape
        sizes = [inputs[0].projection.shape[1], *shape.widths, task.labels.shape[1]]
        drawn = [
            {seed: draw(seed, START + layer).random((a + 1, b), np.float32) for seed in self.feed.seeds}
            for layer, (a, b) in enumerate(pairwise(sizes))
        ]
        first = [np.stack([layer[job.seed] for job in jobs]) for layer in drawn]
        begun = Stack.start(shape, [features.shape[2], *shape.widths], first)
        self.stack = begun.like(begun.values.to(self.feed.device), begun.stats.to(self.feed.device))

    def run(self) -> Stack:
        """Train to the end; return every model's best weights, in the order of the jobs."""
        plan, feed, stack, multilabel = self.task.plan, self.feed, self.stack, self.task.multilabel
        factors = plan.rates(plan.epochs * feed.steps)
        best = stack.like(stack.values.clone(), stack.stats.clone())
        models = torch.arange(len(self.strengths), device=feed.device)
        lowest = torch.full((len(models),), torch.inf, device=feed.device)
        since = torch.zeros_like(models)
        grads = stack.like(torch.empty_like(stack.values), stack.stats)
        optimizer = Optimizer(stack.values, grads.values, self.strengths)
        rows, labels, weight = feed.held()
        for epoch in range(plan.epochs):
            for batch in feed.epoch(epoch):
                stack.learn(batch, grads, multilabel=multilabel)
                optimizer.step(factors[optimizer.steps])
            if not self.stops:
                continue
            now = losses(stack.forward(rows), labels, weight, multilabel=multilabel)
            better = now < lowest
            lowest = torch.where(better, now, lowest)
            since = torch.where(better, 0, since + 1)
            for kept, new in ((best.values, stack.values), (best.stats, stack.stats)):
                kept[models[better]] = new[better]
            alive = since < plan.patience
            _require_finite(torch.isfinite(lowest[~alive]))
            if not alive.any():
                break
            if not alive.all():  # finished models cost as much as others: go on without them
                chosen = alive.nonzero()[:, 0]
                stack = stack.like(stack.values[chosen], stack.stats[chosen])
                grads = stack.like(torch.empty_like(stack.values), stack.stats)
                optimizer = optimizer.only(stack.values, grads.values, chosen)
                models, lowest, since = models[chosen], lowest[chosen], since[chosen]
                feed.only(chosen)
                rows, labels, weight = feed.held()
        _require_finite(torch.isfinite(lowest if self.stops else stack.values))
        return best if self.stops else stack


def _require_finite(finite: torch.Tensor) -> None:
    if not finite.all():
        raise DataError(
            "network heads: the loss is not a finite number. Look for features or weights that are huge or"
            " not numbers, or try a lower rate."
        )
