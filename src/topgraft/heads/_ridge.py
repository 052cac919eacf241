"""Ridge regression onto the classes: closed form, from rows or from sums over rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from topgraft.errors import UsageError
from topgraft.heads._base import Setting
from topgraft.heads._linear import Linear
from topgraft.heads._rows import Matrix, Rows, standardise

STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
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

    def __init__(self, strength: float | str = 0.1) -> None:
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
        """Solve the normal equations, one Cholesky factor a strength."""
        z, target = rows.z.astype(np.float64), 2 * rows.table - 1
        centre, offset = rows.weight @ z / rows.photos, rows.weight @ target / rows.photos
        pull = np.sqrt(rows.weight / rows.photos)[:, None]
        z = (z - centre) * pull
        gram, moment = z.T @ z, z.T @ ((target - offset) * pull)
        asked = [setting["strength"] for setting in settings]
        if "loo" in asked:
            best = STRENGTHS[int(np.argmin(left_out(rows, STRENGTHS)))]
            asked = [best if one == "loo" else one for one in asked]
        solved = []
        for strength in asked:
            weight = _solve(gram, moment, float(strength))
            solved.append((weight, offset - centre @ weight))
        return solved

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
        gram = (sums.xtx / n - np.outer(mean, mean)) * np.outer(inverse, inverse)
        offset = 2 * sums.counts / n - 1
        moment = (2 * sums.xty / n - np.outer(mean, offset + 1)) * inverse[:, None]
        found = []
        for strength in strengths:
            plain = _solve(gram, moment, strength) * inverse[:, None]
            found.append(cls(strength).keep(plain, offset - mean @ plain, several=False))
        return found


def _solve(gram: Matrix, moment: Matrix, strength: float) -> Matrix:
    """Solve for the weights; gram is the correlation of standardised rows, its trace D."""
    penalty = strength * max(float(np.trace(gram)), 1e-12)
    factor = cho_factor(gram + penalty * np.eye(len(gram)), check_finite=False, overwrite_a=True)
    return np.asarray(cho_solve(factor, moment, check_finite=False))


def left_out(rows: Rows, strengths: Sequence[float]) -> Matrix:
    """Give the mean squared error on view 0 of photos left out one at a time with all their views.

    Nothing is fitted again: with H the hat matrix, the errors without photo i are (I - H_ii)⁻¹ times those
    with it, H_ii being the block of its views (Cook & Weisberg 1982, section 3.4). The standardisation
    stays.

    Returns:
        (len(strengths),).
    """
    z, target = rows.z.astype(np.float64), 2 * rows.table - 1
    n, V = rows.photos, rows.views
    pull = np.sqrt(rows.weight / n)[:, None]
    centre, offset = rows.weight @ z / n, rows.weight @ target / n
    z, target = (z - centre) * pull, (target - offset) * pull
    values, axes = np.linalg.eigh(z.T @ z)
    values = np.maximum(values, 0)
    turned = (z @ axes).reshape(V, n, -1).transpose(1, 0, 2)
    moment = np.einsum("ivd,ivc->dc", turned, target.reshape(V, n, -1).transpose(1, 0, 2))
    ones = pull.reshape(V, n, 1).transpose(1, 0, 2)
    errors = []
    for strength in strengths:
        shrink = 1 / (values + strength * values.sum())
        residual = target.reshape(V, n, -1).transpose(1, 0, 2) - turned @ (shrink[:, None] * moment)
        hat = (turned * shrink) @ turned.transpose(0, 2, 1) + ones @ ones.transpose(0, 2, 1)
        free = np.linalg.solve(np.eye(V) - hat, residual)[:, 0] / ones[:, 0]
        errors.append(float((rows.weight[:n, None] * free**2).sum() / rows.weight[:n].sum()))
    return np.array(errors)
