"""A head's setting, scored by cross-validation, and how two of them compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft import metrics
from topgraft.backbones.depths import Depths
from topgraft.heads._base import Fold, Head, Setting, as_indicators, setting_text, to_probabilities
from topgraft.heads._linear import with_depths
from topgraft.heads._parallel import Compute
from topgraft.heads._rows import SHARES
from topgraft.metrics import Estimate
from topgraft.selection.calibrate import calibrate, cross_calibrate
from topgraft.types import Features, Labels, Logits, Probabilities

GLANCE = 2
"""Folds that all settings are fitted on where photos are many."""
CLEAR = 2.0
"""Standard errors of the difference, photo by photo, that a setting is worse by to go no further."""


@dataclass(frozen=True)
class Candidate:
    """One setting of one head, scored on photos it was not fitted on.

    Attributes:
        head: its name.
        setting: what it is made with.
        order: simplest first, between candidates that are equally good.
        logits: (R, N, C) out-of-fold, before any temperature.
        losses: (R, N) log losses, each fold's temperature from the other folds.
        loss: their mean.
        loss_by_fold, right_by_fold: (R·F,) mean log loss and accuracy of each fold.
    """

    head: str
    setting: Setting
    order: tuple[int, int]
    logits: Logits
    losses: NDArray[np.float64]
    loss: float
    loss_by_fold: NDArray[np.float64]
    right_by_fold: NDArray[np.float64]

    @property
    def depths(self) -> str:
        """What it reads, where that is a setting of the head."""
        return str(self.setting.get("depths", "last"))


@dataclass(frozen=True)
class Bench:
    """What all heads of a comparison are fitted and scored on.

    Attributes:
        given: features, and maps under True where there are any: (V, N, …).
        labels, groups, weight: of the photos, as in `compare`.
        classes: C.
        dealt: R lists of folds.
        columns: which columns of features are which.
        read: the settings of `depths` that are compared.
        glance: there are many photos: settings that are clearly worse on the first folds go no further.
        seed: of heads that draw.
        compute: cores, and what one head prepared for the next.
    """

    given: dict[bool, Features]
    labels: Labels
    groups: Labels | None
    weight: NDArray[np.float64] | None
    classes: int
    dealt: list[list[Fold]]
    columns: Depths | None
    read: list[str]
    glance: bool
    seed: int
    compute: Compute

    def candidates(self, kind: type[Head], promising: Mapping[str, bool]) -> tuple[list[Candidate], int]:
        """Fit and score every setting of a head at all depths that it can read, and count the fits.

        Of many photos, only those settings are fitted on all folds that stand a chance after the first ones.

        Args:
            kind: the head.
            promising: whether a head before it found a depth not clearly worse, of those that were asked: of
                many photos the others are left out, or all but the nearest, where it can read no better.
        """
        names = [name for name in self.read if name in kind.reads_depths] or ["last"]
        if self.glance:
            good = [name for name, its in promising.items() if its]
            names = [name for name in names if promising.get(name, True)] or [
                name for name in names if any(name in _nearest(names, to) for to in good)
            ]
        settings = [with_depths(setting, name) for name in names for setting in kind.grid()]
        flat = [fold for folds in self.dealt for fold in folds]
        kept, scored = list(range(len(settings))), []
        if self.glance and len(flat) > GLANCE and len(settings) > 1:
            glanced = self._sweep(kind, settings, flat[:GLANCE])
            held = np.concatenate([score for _, score in flat[:GLANCE]])
            kept = self._promising(np.concatenate(glanced, axis=1), held)
            scored = [logits[kept] for logits in glanced]
        fits = len(settings) * len(scored) + len(kept) * (len(flat) - len(scored))
        scored += self._sweep(kind, [settings[i] for i in kept], flat[len(scored) :])
        logits = np.empty((len(kept), len(self.dealt), len(self.labels), self.classes))
        for number, (_, held) in enumerate(flat):
            logits[:, number // len(self.dealt[0]), held] = scored[number]

        def judge(index: int) -> Candidate:
            place = (kind.simplicity, kept[index])
            return score(kind.name, settings[kept[index]], place, logits[index], self.labels, self.dealt)

        return self.compute.map(judge, range(len(kept))), fits

    def _sweep(self, kind: type[Head], settings: list[Setting], folds: list[Fold]) -> list[Logits]:
        """Return the logits (S, n, C) of each fold's held-out photos."""
        return kind.sweep(
            self.given[kind.on_map],
            self.labels,
            folds,
            settings,
            classes=self.classes,
            sample_weight=self.weight,
            groups=self.groups,
            depths=None if kind.on_map else self.columns,
            seed=self.seed,
            compute=self.compute,
        )

    def _promising(self, logits: Logits, photos: Labels) -> list[int]:
        """Return which settings' logits (S, n, C) of some photos are not clearly worse than the best."""
        labels, multilabel = self.labels[photos], self.labels.ndim == 2
        count = metrics.effective(None if self.groups is None else self.groups[photos], len(photos))

        def losses(own: Logits) -> NDArray[np.float64]:
            temperature = calibrate(own, labels, multilabel=multilabel)
            return metrics.losses(
                labels, to_probabilities(own, multilabel=multilabel, temperature=temperature)
            )

        found = np.stack(self.compute.map(losses, logits))
        gap = found - found[found.mean(axis=1).argmin()]
        chance = CLEAR * gap.std(axis=1) / np.sqrt(count)
        return np.flatnonzero(gap.mean(axis=1) <= chance).tolist()

    def rows(self, candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
        """Return the leaderboard's rows of candidates, the best of them first: plain data."""

        def row(candidate: Candidate) -> dict[str, Any]:
            gap, _ = difference(candidate.loss_by_fold, candidates[0].loss_by_fold, self.dealt)
            probabilities = answers(candidate.logits, self.labels, self.dealt)
            return {
                "head": candidate.head,
                "setting": setting_text(candidate.setting),
                **metrics.brief(
                    self.labels,
                    probabilities,
                    losses=candidate.losses,
                    groups=self.groups,
                    seed=self.seed,
                    out_of_fold=True,
                ),
                "difference": gap.as_dict(),
            } | ({"several": True} if self.labels.ndim == 2 else {})

        return self.compute.map(row, candidates)


def _nearest(names: Sequence[str], to: str) -> list[str]:
    """Return which names of depths are nearest to one of them, in the order of `SHARES`: two where level."""
    order = list(SHARES)
    apart = [abs(order.index(name) - order.index(to)) for name in names]
    return [name for name, steps in zip(names, apart, strict=True) if steps == min(apart)]


def worth_a_row(own: Sequence[Candidate]) -> list[Candidate]:
    """Return a head's candidates that are listed: all at the best depths, the best of each other depths.

    All would be a hundred rows, and as many arrays to keep.
    """
    best: dict[str, Candidate] = {}
    for candidate in own:
        if candidate.depths not in best or candidate.loss < best[candidate.depths].loss:
            best[candidate.depths] = candidate
    chosen = min(best.values(), key=lambda candidate: candidate.loss).depths
    return [
        candidate for candidate in own if candidate.depths == chosen or candidate is best[candidate.depths]
    ]


def score(
    head: str,
    setting: Setting,
    order: tuple[int, int],
    logits: Logits,
    labels: Labels,
    dealt: Sequence[list[Fold]],
) -> Candidate:
    """Score out-of-fold logits (R, N, C); dealt are R lists of folds."""
    probabilities = answers(logits, labels, dealt)
    losses = np.stack([metrics.losses(labels, repeat) for repeat in probabilities])
    right = (
        ((probabilities > 0.5) == (labels > 0)).mean(axis=2)
        if labels.ndim == 2
        else (probabilities.argmax(axis=2) == labels)
    )
    places = [(repeat, scored) for repeat, folds in enumerate(dealt) for _, scored in folds]
    return Candidate(
        head,
        setting,
        order,
        logits,
        losses,
        float(losses.mean()),
        np.array([losses[place].mean() for place in places]),
        np.array([right[place].mean() for place in places], np.float64),
    )


def answers(logits: Logits, labels: Labels, dealt: Sequence[list[Fold]]) -> Probabilities:
    """Return the probabilities of out-of-fold logits (R, N, C), as a finished predictor would give them."""
    multilabel = labels.ndim == 2
    return np.stack(
        [
            cross_calibrate(repeat, labels, folds, multilabel=multilabel)
            for repeat, folds in zip(logits, dealt, strict=True)
        ]
    )


def difference(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], dealt: Sequence[list[Fold]]
) -> tuple[Estimate, float]:
    """Return the mean difference of two scores over folds with its 95 % interval, and its standard error.

    The corrected resampled t of Nadeau & Bengio 2003: variance (1/J + n_scored/n_fitted)·s² over the J =
    folds × repeats differences, because folds are fitted on mostly the same photos.

    Args:
        ours: (J,) one score a fold.
        theirs: (J,).
        dealt: the folds, repeat by repeat.
    """
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    gaps = ours - theirs
    J = len(gaps)
    shares = [len(score) / len(fit) for folds in dealt for fit, score in folds]
    error = float(np.sqrt((1 / J + np.mean(shares)) * gaps.var(ddof=1)))
    half_width = float(stdtrit(J - 1, 0.975)) * error
    mean = float(gaps.mean())
    return Estimate(mean, mean - half_width, mean + half_width), error


def prior_log_loss(labels: Labels, classes: int) -> float:
    """Return the log loss of always answering the share each class has, which asks for no photo at all."""
    from scipy.special import entr

    shares = as_indicators(labels, classes).mean(axis=0)
    if labels.ndim == 2:
        return float((entr(shares) + entr(1 - shares)).mean())
    return float(entr(shares).sum())
