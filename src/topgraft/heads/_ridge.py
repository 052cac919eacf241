"""Ridge regression onto the classes: closed form, from rows or from sums over rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from topgraft.errors import UsageError
from topgraft.heads._base import Setting
from topgraft.heads._linear import Linear, known_depths, with_depths
from topgraft.heads._rows import CHUNK, SHARES, Array64, TrainingRows, floored, moments

STRENGTHS = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""From a strong penalty to a weak one. Of few photos the last is often taken, since it makes no difference:
with 3e-5 and 1e-5 beside it the mean's log loss changed by -0.02 ± 0.01 % and its accuracy by -0.01 points
(80 draws of the five development sets)."""


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
        depths: what share the last layer and the blocks have, a name of `SHARES`.
    """

    name: ClassVar[str] = "ridge"
    simplicity: ClassVar[int] = 1
    reads_depths: ClassVar[tuple[str, ...]] = tuple(SHARES)

    def __init__(self, strength: float | str = 0.01, depths: str = "last") -> None:
        if strength != "loo" and not (isinstance(strength, float | int) and strength > 0):
            raise UsageError(f"head ridge: strength must be above 0 or loo, got {strength!r}.")
        self.strength, self.depths = strength, known_depths(self.name, depths)

    @property
    def setting(self) -> Setting:
        """The strength, and the depths where they are more than the last layer."""
        return with_depths({"strength": self.strength}, self.depths)

    @classmethod
    def grid(cls) -> list[Setting]:
        """From a strong penalty to a weak one."""
        return [{"strength": value} for value in STRENGTHS]

    @classmethod
    def solve(cls, rows: TrainingRows, settings: Sequence[Setting]) -> list[tuple[Array64, Array64]]:
        """Solve the normal equations, one Cholesky factor a strength."""
        asked = [setting["strength"] for setting in settings]
        if "loo" in asked:
            # Without one photo of one there is nobody to ask: the strongest penalty.
            errors = leave_one_out_errors(rows, STRENGTHS) if rows.photos > 1 else np.zeros(1)
            asked = [STRENGTHS[int(np.argmin(errors))] if value == "loo" else value for value in asked]
        offset, moment = _moment(rows)
        solved = [_solve(rows.covariance, moment, float(strength)) for strength in asked]
        return [(weight, offset - rows.centre @ weight) for weight in solved]

    @classmethod
    def path_from_sums(cls, sums: Sums, strengths: Sequence[float]) -> list[Self]:
        """Fit several strengths from sums over rows alone: all photos and views weigh the same."""
        n = float(sums.counts.sum())
        mean, variance = moments(sums.sums, np.diagonal(sums.xtx), n)
        inverse = floored(variance, [slice(0, len(mean))])
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
    """Return the weights; gram is the covariance of standardised rows."""
    raised = gram.copy()
    raised[np.diag_indices_from(raised)] += strength * max(float(np.trace(gram)), 1e-12)
    factor = cho_factor(raised, check_finite=False, overwrite_a=True)
    return np.asarray(cho_solve(factor, moment, check_finite=False))


def _moment(rows: TrainingRows) -> tuple[Array64, Array64]:
    """Return the weighted mean of the targets (C,), -1 and 1, and their covariance with the rows (r, C)."""
    share = rows.weight / rows.photos
    target = 2 * rows.indicators - 1
    offset = share @ target
    weighted = (target - offset) * share[:, None]
    # The mean of the rows drops out: weighted targets sum to 0.
    return offset, rows.sums(weighted)


def leave_one_out_errors(rows: TrainingRows, strengths: Sequence[float]) -> Array64:
    """Return the mean squared error on view 0 of photos left out one at a time with all their views.

    Nothing is fitted again: with H the hat matrix, the errors without photo i are (I - H_ii)⁻¹ times those
    with it, H_ii being the block of its views (Cook & Weisberg 1982, section 3.4). The standardisation stays.

    Returns:
        One number a strength.
    """
    V, n = rows.views, rows.photos
    values, axes = np.linalg.eigh(rows.covariance)
    values = np.maximum(values, 0)
    offset, moment = _moment(rows)
    moment = axes.T @ moment
    stack, indicators = rows.z.reshape(V, n, -1), rows.indicators.reshape(V, n, -1)
    shares = (rows.weight / n).reshape(V, n)
    total = np.zeros(len(strengths))
    for at in range(0, n, max(1, CHUNK // V)):
        some = slice(at, at + max(1, CHUNK // V))
        root = np.sqrt(shares[:, some].T)[:, :, None]
        on_axes = (stack[:, some].swapaxes(0, 1) * rows.roots - rows.centre) @ axes * root
        target = (2 * indicators[:, some].swapaxes(0, 1) - 1 - offset) * root
        for index, strength in enumerate(strengths):
            shrink = (1 / (values + strength * max(values.sum(), 1e-12)))[:, None]
            residual = target - on_axes @ (shrink * moment)
            hat = (on_axes * shrink[:, 0]) @ on_axes.swapaxes(1, 2) + root @ root.swapaxes(1, 2)
            total[index] += (np.linalg.solve(np.eye(V) - hat, residual)[:, 0] ** 2).sum()
    return np.asarray(total / shares[0].sum())
