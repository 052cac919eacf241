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
from topgraft.heads._rows import Matrix, Rows, standardise

STRENGTHS = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""From a strong penalty to a weak one."""


class Sums(Protocol):
    """Sums over rows X (n, D) of C classes, as `FeatureStore.gram` hands them out."""

    @property
    def xtx(self) -> Matrix:
        """(D, D)."""
        ...

    @property
    def xty(self) -> Matrix:
        """(D, C)."""
        ...

    @property
    def sums(self) -> Matrix:
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
        sum of
            all eigenvalues to each of them. `loo` takes the one of `STRENGTHS` with the least squared error
            on photos left out one at a time.
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
    def solve(cls, rows: Rows, settings: Sequence[Setting]) -> list[tuple[Matrix, Matrix]]:
        """Solve the normal equations for all strengths at once, on the axes of the features' covariance."""
        path = _Path.of(rows)
        asked = [setting["strength"] for setting in settings]
        if "loo" in asked:
            best = STRENGTHS[int(np.argmin([path.left_out(one) for one in STRENGTHS]))]
            asked = [best if one == "loo" else one for one in asked]
        return [path.solve(float(strength)) for strength in asked]

    @classmethod
    def from_sums(cls, sums: Sums, strength: float) -> Self:
        """Fit from sums over rows alone: all photos and views weigh the same.

        Args:
            sums: over the rows to fit on.
            strength: see the class.
        """
        (head,) = cls.path_from_sums(sums, [strength])
        return head

    @classmethod
    def path_from_sums(cls, sums: Sums, strengths: Sequence[float]) -> list[Self]:
        """Fit several strengths from the same sums."""
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
            found.append(cls(strength).keep(plain, offset - mean @ plain, several=False))
        return found


def _solve(gram: Matrix, moment: Matrix, strength: float) -> Matrix:
    """Solve for the weights; gram is the correlation of standardised rows, its trace D."""
    raised = gram.copy()
    raised[np.diag_indices_from(raised)] += strength * max(float(np.trace(gram)), 1e-12)
    factor = cho_factor(raised, check_finite=False, overwrite_a=True)
    return np.asarray(cho_solve(factor, moment, check_finite=False))


@dataclass(frozen=True)
class _Path:
    """Weighted, centred rows of one fit on the axes of their covariance, where every strength is a division.

    Attributes:
        rows: (n, V, r) the rows on the axes.
        target: (n, V, C) -1 and 1, centred.
        pull: (n, V, 1) square root of what each row weighs; the squares sum to 1.
        values: (r,) the covariance's eigenvalues.
        axes: (r, r) its eigenvectors.
        moment: (r, C) rows times target.
        centre, offset: what was subtracted from rows (r,) and target (C,).
    """

    rows: Matrix
    target: Matrix
    pull: Matrix
    values: Matrix
    axes: Matrix
    moment: Matrix
    centre: Matrix
    offset: Matrix

    @classmethod
    def of(cls, rows: Rows) -> Self:
        z, target, share = rows.z.astype(np.float64), 2 * rows.table - 1, rows.weight / rows.photos
        pull, centre, offset = np.sqrt(share)[:, None], share @ z, share @ target
        z, target = (z - centre) * pull, (target - offset) * pull
        values, axes = np.linalg.eigh(z.T @ z)
        turned = z @ axes

        def by_photo(x: Matrix) -> Matrix:
            return np.ascontiguousarray(x.reshape(rows.views, rows.photos, -1).swapaxes(0, 1))

        return cls(
            by_photo(turned),
            by_photo(target),
            by_photo(pull),
            np.maximum(values, 0),
            axes,
            turned.T @ target,
            centre,
            offset,
        )

    def _shrink(self, strength: float) -> Matrix:
        return np.asarray(1 / (self.values + strength * max(self.values.sum(), 1e-12)))[:, None]

    def solve(self, strength: float) -> tuple[Matrix, Matrix]:
        """Give the weight (r, C) and bias (C,) on the rows before they were turned and centred."""
        weight = self.axes @ (self._shrink(strength) * self.moment)
        return weight, self.offset - self.centre @ weight

    def left_out(self, strength: float) -> float:
        """Give the mean squared error on view 0 of photos left out one at a time with all their views.

        Nothing is fitted again: with H the hat matrix, the errors without photo i are (I - H_ii)⁻¹ times
        those with it, H_ii being the block of its views (Cook & Weisberg 1982, section 3.4). The
        standardisation stays.
        """
        shrink = self._shrink(strength)
        residual = self.target - self.rows @ (shrink * self.moment)
        hat = (self.rows * shrink[:, 0]) @ self.rows.swapaxes(1, 2) + self.pull @ self.pull.swapaxes(1, 2)
        free = np.linalg.solve(np.eye(hat.shape[1]) - hat, residual)[:, 0]
        return float((free**2).sum() / (self.pull[:, 0] ** 2).sum())
