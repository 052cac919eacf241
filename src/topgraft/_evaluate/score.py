"""How good runs are by what they said, alone and together."""

from __future__ import annotations

from typing import Any

from topgraft import metrics
from topgraft.run import Run
from topgraft.run.evaluation import Result
from topgraft.selection.ensemble import ensemble, paired, weights_of
from topgraft.types import Labels, Probabilities


def score(
    runs: list[Run],
    labels: Labels,
    answered: list[Probabilities],
    classes: tuple[str, ...],
    *,
    groups: Labels,
    seed: int,
) -> tuple[tuple[Result, ...], tuple[Result, ...]]:
    """Score every run alone, and of several their plain mean and the one weighted by their log losses.

    Args:
        runs: what was asked.
        labels: (n,) class indices, or 0/1 indicators (n, C).
        answered: (n, C) of every run.
        classes: names.
        groups: (n,) photos that are drawn together.
        seed: of the intervals.

    Returns:
        One result a run, and the ensembles; none of one run.
    """
    names = [run.path.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.path) for run in runs]
    shares = weights_of([run.metrics.cross_validation.log_loss.value for run in runs])
    members = tuple(
        Result(name, _scores(labels, answers, classes, groups, seed), float(share))
        for name, answers, share in zip(names, answered, shares, strict=True)
    )
    if len(runs) == 1:
        return members, ()
    together = {"mean": ensemble(answered), "weighted": ensemble(answered, shares.tolist())}
    return members, tuple(
        Result(
            name,
            _scores(labels, answers, classes, groups, seed),
            against={
                member: paired(labels, answers, other, groups=groups)
                for member, other in zip(names, answered, strict=True)
            },
        )
        for name, answers in together.items()
    )


def _scores(
    labels: Labels, probabilities: Probabilities, classes: tuple[str, ...], groups: Labels, seed: int
) -> dict[str, Any]:
    if labels.ndim == 1:
        return metrics.summary(labels, probabilities, classes, seed=seed, groups=groups)
    losses = metrics.losses(labels, probabilities)[None]
    brief = metrics.brief(labels, probabilities[None], losses=losses, groups=groups, seed=seed)
    return {"n": len(labels), **brief}
