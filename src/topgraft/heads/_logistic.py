"""Logistic regression, fast enough to be fitted hundreds of times.

Standardised features of a few photos are badly conditioned, and plain L-BFGS takes hundreds of steps. Here
the steps are taken in coordinates in which the loss is nearly round (its curvature is bounded by a known
matrix: Böhning 1992), each strength starts where the stronger one ended, and a handful of steps remain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

from topgraft.errors import UsageError
from topgraft.heads._base import Setting
from topgraft.heads._linear import Linear, known_depths, with_depths
from topgraft.heads._rows import Array64, TrainingRows

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
        weight, bias = np.zeros((rows.z.shape[1], loss.columns)), loss.prior.copy()
        for i in order:
            weight, bias = loss.minimise(weight, bias, penalty=1 / float(settings[i]["C"]))
            found[i] = (
                (np.hstack([-weight, weight]) / 2, np.array([-bias[0], bias[0]]) / 2)
                if binary
                else (weight, bias)
            )
        return [found[i] for i in range(len(settings))]


class _Loss:
    """The loss of some rows, and how to minimise it."""

    def __init__(self, rows: TrainingRows, *, binary: bool) -> None:
        self.z = rows.z
        self.weight = rows.weight[:, None].astype(np.float32)
        self.target = (rows.indicators[:, 1:] if binary else rows.indicators).astype(np.float32)
        self.softmax = not binary and not rows.multilabel
        self.columns = self.target.shape[1]
        self.photos = rows.photos
        share = (rows.weight @ self.target + 0.5) / (rows.photos + 1)
        self.prior = np.asarray(np.log(share) if self.softmax else np.log(share / (1 - share)))
        self.gram = rows.gram * rows.photos

    def losses(self, weight: Array64, bias: Array64) -> tuple[Array64, Array64]:
        """Return the loss of every row (R,) and the probabilities (R, columns)."""
        logits = (self.z @ weight.astype(np.float32)).astype(np.float64) + bias
        if self.softmax:
            top = logits.max(axis=1, keepdims=True)
            exponent = np.exp(logits - top)
            total = exponent.sum(axis=1, keepdims=True)
            loss = np.log(total[:, 0]) + top[:, 0] - (logits * self.target).sum(axis=1)
            return loss, exponent / total
        loss = np.logaddexp(0, logits) - logits * self.target
        return loss.sum(axis=1), 0.5 * (1 + np.tanh(logits / 2))

    def minimise(self, weight: Array64, bias: Array64, penalty: float) -> tuple[Array64, Array64]:
        """Return the weight (r, columns) and bias (columns,) at the minimum, starting from these."""
        _, probabilities = self.losses(weight, bias)
        curvature = float(
            (self.weight * probabilities * (1 - probabilities)).sum() / self.photos / self.columns
        )
        curvature = max(curvature, 1e-3)
        lower = cholesky(
            curvature * self.gram + penalty * np.eye(len(self.gram)), lower=True, check_finite=False
        )
        bias_scale = 1 / np.sqrt(curvature * self.photos + TIE)
        shape = weight.shape

        def unpack(point: Array64) -> tuple[Array64, Array64]:
            flat = point[: weight.size].reshape(shape)
            plain = solve_triangular(lower, flat, lower=True, trans=1, check_finite=False)
            return plain, self.prior + point[weight.size :] * bias_scale

        def loss_and_grad(point: Array64) -> tuple[float, Array64]:
            w, b = unpack(point)
            loss, probabilities = self.losses(w, b)
            error = self.weight * (probabilities - self.target)
            grad = (self.z.T @ error.astype(np.float32)).astype(np.float64) + penalty * w
            offset = b - self.prior
            total = float(loss @ self.weight[:, 0]) + penalty / 2 * float((w * w).sum())
            total += TIE / 2 * float(offset @ offset)
            bias_grad = (error.sum(axis=0) + TIE * offset) * bias_scale
            return total, np.concatenate(
                [solve_triangular(lower, grad, lower=True, check_finite=False).ravel(), bias_grad]
            )

        start = np.concatenate([(lower.T @ weight).ravel(), (bias - self.prior) / bias_scale])
        found = minimize(
            loss_and_grad,
            start,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 200, "ftol": 1e-7, "gtol": 1e-4},
        )
        return unpack(found.x)
