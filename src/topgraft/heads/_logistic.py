"""Logistic regression, fast enough to be fitted hundreds of times.

Standardised features of a few photos are badly conditioned, and plain L-BFGS takes hundreds of steps. Here
the steps are taken along the axes of the covariance, each scaled by how curved the loss is there (a known
matrix bounds that: Böhning 1992), which makes it nearly round; each strength starts where the stronger ones
lead, and a handful of steps remain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import minimize

from topgraft.errors import UsageError
from topgraft.heads._base import Setting
from topgraft.heads._layers import Array
from topgraft.heads._linear import Linear, known_depths, with_depths
from topgraft.heads._rows import Array64, TrainingRows

FLAT = 1e-3  # the least mean curvature: where all photos are answered surely, there is hardly any
CLOSE, LOOSEST = 1e-11, 1e-4
"""A step that lowers the loss by less than this share of it, times the square of the number of photos, is the
last; and the largest such share. Few photos are cheap to answer exactly; on 9,144 of 102 classes a
hundredth of it takes more than twice the steps, and moves the log loss of unseen ones by 0.0003 at C=0.03
and by 0.002 at C=1."""
MANY = 2**24  # numbers of z, 64 MB, from which it is not copied
TIE = 1e-6  # a pull on the bias, so that a class without rows stays finite


class LogisticRegression(Linear):
    """Logistic regression with an L2 penalty.

    Minimises C·(sum over photos of the mean loss of their views) + |w|²/2: C means the same with and without
    views, and what it means in scikit-learn. Two classes share one weight vector, more get a softmax, several
    labels per photo one sigmoid each.

    Args:
        C: inverse strength of the penalty, above 0.
        depths: what share the last layer and the blocks have, a name of `SHARES`.
    """

    name: ClassVar[str] = "logistic"
    simplicity: ClassVar[int] = 3
    reads_depths: ClassVar[tuple[str, ...]] = ("last", "equal")
    """More shares change nothing that is measurable and are most of a comparison's time (docs/heads.md)."""

    def __init__(self, C: float = 0.01, depths: str = "last") -> None:
        if not C > 0:
            raise UsageError(f"head logistic: C must be above 0, got {C}. Try C=0.01.")
        self.C, self.depths = C, known_depths(self.name, depths)

    @property
    def setting(self) -> Setting:
        """The inverse strength, and the depths where they are more than the last layer."""
        return with_depths({"C": self.C}, self.depths)

    @classmethod
    def grid(cls) -> list[Setting]:
        """From a strong penalty to a weak one."""
        return [{"C": value} for value in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)]

    @classmethod
    def solve(cls, rows: TrainingRows, settings: Sequence[Setting]) -> list[tuple[Array64, Array64]]:
        """Follow the path from the strongest penalty to the weakest."""
        binary = rows.classes == 2 and not rows.multilabel
        loss = _Loss(rows, binary=binary)
        order = sorted(range(len(settings)), key=lambda i: float(settings[i]["C"]))
        found: dict[int, tuple[Array64, Array64]] = {}
        path = [(-np.inf, np.zeros((rows.z.shape[1], loss.columns)), loss.prior)]
        for i in order:
            at = float(np.log(settings[i]["C"]))
            weight, bias = loss.minimise(*_ahead(path[-2:], at), penalty=np.exp(-at))
            path.append((at, weight, bias))
            plain = loss.axes @ weight
            found[i] = (
                (np.hstack([-plain, plain]) / 2, np.array([-bias[0], bias[0]]) / 2)
                if binary
                else (plain, bias)
            )
        return [found[i] for i in range(len(settings))]


def _ahead(path: Sequence[tuple[float, Array64, Array64]], at: float) -> tuple[Array64, Array64]:
    """Return where to start: on the straight line through the last two minima, which saves steps.

    Args:
        path: of the last one or two, the logarithm of C (-inf: nothing learned), weight and bias.
        at: the logarithm of the C to come.
    """
    (before, *old), (now, *new) = path[0], path[-1]
    share = (at - now) / (now - before) if now > before else 0.0
    return new[0] + share * (new[0] - old[0]), new[1] + share * (new[1] - old[1])


class _Loss:
    """The loss of some rows on the axes of their covariance, and how to minimise it."""

    def __init__(self, rows: TrainingRows, *, binary: bool) -> None:
        # single precision: any orthonormal axes would do, and along these the loss is to be nearly round
        gram = (rows.gram * rows.photos).astype(np.float32)
        values, self.axes = eigh(gram, check_finite=False, overwrite_a=True, driver="evd")
        self.values = np.maximum(values.astype(np.float64), 0)[:, None]
        self.z: Array = rows.z
        self.turn: Array | None = rows.roots[:, None] * self.axes
        if rows.z.size <= MANY:  # more are left as they are, and weights turned instead: a copy is as large
            self.z, self.turn = rows.z @ self.turn, None
        self.weight = rows.weight[:, None].astype(np.float32)
        self.target = (rows.indicators[:, 1:] if binary else rows.indicators).astype(np.float32)
        self.softmax = not binary and not rows.multilabel
        self.columns = self.target.shape[1]
        self.photos = rows.photos
        share = (rows.weight @ self.target + 0.5) / (rows.photos + 1)
        self.prior = np.asarray(np.log(share) if self.softmax else np.log(share / (1 - share)))

    def losses(self, weight: Array64, bias: Array64) -> tuple[Array64, Array64]:
        """Return the loss of every row (R,) and the probabilities (R, columns)."""
        single = weight.astype(np.float32)
        turned = single if self.turn is None else self.turn @ single
        logits = (self.z @ turned).astype(np.float64)
        logits += bias
        if self.softmax:  # in place, which is a fifth of the time on many photos of many classes
            logits -= logits.max(axis=1, keepdims=True)
            own = np.einsum("rc,rc->r", logits, self.target)
            total = np.exp(logits, out=logits).sum(axis=1, keepdims=True)
            logits /= total
            return np.log(total[:, 0]) - own, logits
        loss = np.logaddexp(0, logits) - logits * self.target
        return loss.sum(axis=1), 0.5 * (1 + np.tanh(logits / 2))

    def minimise(self, weight: Array64, bias: Array64, penalty: float) -> tuple[Array64, Array64]:
        """Return the weight (r, columns) and bias (columns,) at the minimum, starting from these."""
        _, probabilities = self.losses(weight, bias)
        curvature = (self.weight * probabilities * (1 - probabilities)).sum(axis=0) / self.photos
        curvature = np.maximum(curvature, FLAT / self.columns)
        scale = 1 / np.sqrt(self.values * curvature + penalty)
        bias_scale = 1 / np.sqrt(curvature * self.photos + TIE)

        def unpack(point: Array64) -> tuple[Array64, Array64]:
            flat = point[: weight.size].reshape(weight.shape)
            return flat * scale, self.prior + point[weight.size :] * bias_scale

        def loss_and_grad(point: Array64) -> tuple[float, Array64]:
            w, b = unpack(point)
            loss, probabilities = self.losses(w, b)
            error = np.subtract(probabilities, self.target, out=probabilities)
            error *= self.weight
            grad = (error.T.astype(np.float32) @ self.z).T
            grad = (grad if self.turn is None else self.turn.T @ grad) + penalty * w
            offset = b - self.prior
            total = float(loss @ self.weight[:, 0]) + penalty / 2 * float((w * w).sum())
            total += TIE / 2 * float(offset @ offset)
            bias_grad = (error.sum(axis=0) + TIE * offset) * bias_scale
            return total, np.concatenate([(grad * scale).ravel(), bias_grad])

        start = np.concatenate([(weight / scale).ravel(), (bias - self.prior) / bias_scale])
        found = minimize(
            loss_and_grad,
            start,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 200, "ftol": min(CLOSE * self.photos**2, LOOSEST), "gtol": 3e-5},
        )
        weight, bias = unpack(found.x)
        # No softmax sees what all classes' biases have in common: nothing but TIE would say how much it is.
        return weight, bias - (bias - self.prior).mean() if self.softmax else bias
