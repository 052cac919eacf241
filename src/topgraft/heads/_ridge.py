"""Ridge regression onto the classes: closed form, from rows or from sums over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from topgraft.errors import UsageError
from topgraft.heads._base import Setting
from topgraft.heads._linear import Linear
from topgraft.heads._rows import Array64, TrainingRows, standardise

STRENGTHS = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""From a strong penalty to a weak one."""
CHUNK = 4096
"""Rows taken to double precision at once."""


class Sums(Protocol):
    """Sums over rows X (n, D) of C classes, as `selection.gram` adds them up."""

    @property
    def xtx(self) -> Array64:
        """(D, D)."""
        ...

    @property
    def xty(self) -> Array64:
        """(D, C)."""
        ...

    @property
    def sums(self) -> Array64:
        """(D,)."""
        ...

    @property
    def counts(self) -> NDArray[np.int64]:
        """(C,)."""
        ...


class Ridge(Linear):
    """Least squares onto -1 and 1 for each class, with an L2 penalty.

    Args:
        strength: the penalty as a share of the features' total variance, above 0: 0.1 adds a tenth of the
            sum of all eigenvalues to each of them. `loo` takes the one of `STRENGTHS` with the least squared
            error on photos left out one at a time; it knows no groups, so near-duplicates of a photo stay in
            and speak for a weak penalty.
    """

    name: ClassVar[str] = "ridge"
    simplicity: ClassVar[int] = 1

    def __init__(self, strength: float | str = 0.01) -> None:
        if strength != "loo" and not (isinstance(strength, float | int) and strength > 0):
            raise UsageError(f"head ridge: strength must be above 0 or loo, got {strength!r}.")
        self.strength = strength

    @property
    def setting(self) -> Setting:
        """The strength."""
        return {"strength": self.strength}

    @classmethod
    def grid(cls) -> list[Setting]:
        """From a strong penalty to a weak one, then the choice by leaving out."""
        return [{"strength": value} for value in (*STRENGTHS, "loo")]

    @classmethod
    def solve(cls, rows: TrainingRows, settings: Sequence[Setting]) -> list[tuple[Array64, Array64]]:
        """Solve the normal equations for all strengths at once, on the axes of the features' covariance."""
        path = _Path.of(rows)
        asked = [setting["strength"] for setting in settings]
        if "loo" in asked:
            # Without one photo of one there is nobody to ask: the strongest penalty.
            best = STRENGTHS[int(np.argmin(path.leave_one_out_errors(STRENGTHS))) if rows.photos > 1 else 0]
            asked = [best if strength == "loo" else strength for strength in asked]
        return [path.solve(float(strength)) for strength in asked]

    @classmethod
    def path_from_sums(cls, sums: Sums, strengths: Sequence[float]) -> list[Self]:
        """Fit several strengths from sums over rows alone: all photos and views weigh the same."""
        n = float(sums.counts.sum())
        mean, inverse = standardise(sums.sums, np.diagonal(sums.xtx), n)
        gram = sums.xtx / n
        gram -= np.outer(mean, mean)
        gram *= inverse
        gram *= inverse[:, None]
        offset = 2 * sums.counts / n - 1
        moment = (2 * sums.xty / n - np.outer(mean, offset + 1)) * inverse[:, None]
        found = []
        for strength in strengths:
            plain = _solve(gram, moment, strength) * inverse[:, None]
            found.append(cls(strength).keep(plain, offset - mean @ plain, multilabel=False))
        return found


def _solve(gram: Array64, moment: Array64, strength: float) -> Array64:
    """Return the weights; gram is the correlation of standardised rows, its trace D."""
    raised = gram.copy()
    raised[np.diag_indices_from(raised)] += strength * max(float(np.trace(gram)), 1e-12)
    factor = cho_factor(raised, check_finite=False, overwrite_a=True)
    return np.asarray(cho_solve(factor, moment, check_finite=False))


@dataclass(frozen=True)
class _Path:
    """Weighted rows of one fit, and the axes of their covariance, where every strength is a division.

    Attributes:
        rows: as they are given.
        values: (r,) the covariance's eigenvalues.
        axes: (r, r) its eigenvectors.
        moment: (r, C) rows times target, on the axes.
        centre, offset: weighted means of rows (r,) and target (C,).
    """

    rows: TrainingRows
    values: Array64
    axes: Array64
    moment: Array64
    centre: Array64
    offset: Array64

    @classmethod
    def of(cls, rows: TrainingRows) -> Self:
        """Sum over the rows, some at a time: they are many, and double precision is wide."""
        width, share = rows.z.shape[1], rows.weight / rows.photos
        gram, moment = np.zeros((width, width)), np.zeros((width, rows.classes))
        centre, offset = share @ rows.z, share @ (2 * rows.indicators - 1)
        for at in range(0, len(rows.z), CHUNK):
            some = slice(at, at + CHUNK)
            z = rows.z[some] - centre
            weighted = z * share[some, None]
            gram += z.T @ weighted
            moment += weighted.T @ (2 * rows.indicators[some] - 1 - offset)
        values, axes = np.linalg.eigh(gram)
        return cls(rows, np.maximum(values, 0), axes, axes.T @ moment, centre, offset)

    def _shrink(self, strength: float) -> Array64:
        return np.asarray(1 / (self.values + strength * max(self.values.sum(), 1e-12)))[:, None]

    def solve(self, strength: float) -> tuple[Array64, Array64]:
        """Return the weight (r, C) and bias (C,) on the rows as they are given."""
        weight = self.axes @ (self._shrink(strength) * self.moment)
        return weight, self.offset - self.centre @ weight

    def leave_one_out_errors(self, strengths: Sequence[float]) -> Array64:
        """Return the mean squared error on view 0 of photos left out one at a time with all their views.

        Nothing is fitted again: with H the hat matrix, the errors without photo i are (I - H_ii)⁻¹ times
        those with it, H_ii being the block of its views (Cook & Weisberg 1982, section 3.4). The
        standardisation stays.

        Returns:
            One number a strength.
        """
        V, n = self.rows.views, self.rows.photos
        stack, indicators = self.rows.z.reshape(V, n, -1), self.rows.indicators.reshape(V, n, -1)
        shares = (self.rows.weight / n).reshape(V, n)
        total = np.zeros(len(strengths))
        for at in range(0, n, max(1, CHUNK // V)):
            some = slice(at, at + max(1, CHUNK // V))
            root = np.sqrt(shares[:, some].T)[:, :, None]
            on_axes = (stack[:, some].swapaxes(0, 1) - self.centre) @ self.axes * root
            target = (2 * indicators[:, some].swapaxes(0, 1) - 1 - self.offset) * root
            for index, strength in enumerate(strengths):
                shrink = self._shrink(strength)
                residual = target - on_axes @ (shrink * self.moment)
                hat = (on_axes * shrink[:, 0]) @ on_axes.swapaxes(1, 2) + root @ root.swapaxes(1, 2)
                total[index] += (np.linalg.solve(np.eye(V) - hat, residual)[:, 0] ** 2).sum()
        return np.asarray(total / shares[0].sum())
