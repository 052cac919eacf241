"""The leading principal axes of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from topgraft.heads._layers import Array

SPARE = 16
"""Directions the search for axes carries beyond those it keeps (Halko and others 2011, section 4.3)."""
POWER_ITERATIONS = 3
"""Power iterations of that search."""


def thinned(count: int, photos: int, most: int) -> NDArray[np.int64]:
    """Choose `most` rows for the axes of count rows: all of view 0, then evenly from the other views."""
    if count <= max(most, photos):
        return np.arange(count)
    rest = max(most - photos, 0)
    return np.concatenate([np.arange(photos), np.linspace(photos, count - 1, rest).astype(np.int64)])


def principal(rows: Array, axes: int) -> Array:
    """Find the leading principal axes (D, K) of centred rows.

    Where fewer than a quarter are kept, by randomised subspace iteration (Halko, Martinsson and Tropp 2011,
    "Finding structure with randomness", algorithm 4.4); else all are solved for, in single precision: any
    axes near the leading ones would do.
    """
    width = min(*rows.shape, axes)
    if width == rows.shape[1]:
        return np.eye(width, dtype=np.float32)
    found = _searched(rows, width) if 4 * width < rows.shape[1] else _solved(rows)
    found = found[:, :width]
    largest = found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])]
    # The sign of an axis is arbitrary: fix it, so that the same rows give the same network.
    return np.asarray(found * np.sign(largest), np.float32)


def _searched(rows: Array, axes: int) -> Array:
    """Search for the leading axes, and a few more; where most are kept it is quicker to solve for all."""
    start = np.random.default_rng(0x70F5).standard_normal((rows.shape[1], min(axes + SPARE, rows.shape[1])))
    basis = _orthonormal(start.astype(np.float32))
    for _ in range(POWER_ITERATIONS):
        basis = _orthonormal(rows.T @ (rows @ basis))
    return np.asarray(basis @ _leading(rows @ basis)[1])


def _solved(rows: Array) -> Array:
    """Solve for all axes (D, D), the leading first; for all at once is quicker than for most of them."""
    return np.asarray(eigh(rows.T @ rows, check_finite=False, driver="evd")[1][:, ::-1])


def span(rows: Array) -> Array:
    """Return orthonormal columns (D, K) that span few rows (n, D), n below D, all but what is rounding."""
    wide = rows.astype(np.float64)
    values, vectors = np.linalg.eigh(wide @ wide.T)
    kept = values > max(values[-1], 1e-30) * 1e-10
    if not kept.any():
        return np.eye(rows.shape[1], 1, dtype=np.float32)
    return np.asarray(wide.T @ (vectors[:, kept] / np.sqrt(values[kept])), np.float32)


def _orthonormal(columns: Array) -> Array:
    """Span the same space with orthonormal columns: many times faster than a QR of a tall matrix."""
    values, vectors = _leading(columns)
    kept = values > values[0] * 1e-10
    return np.asarray(columns @ (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32))


def _leading(columns: Array) -> tuple[NDArray[np.float64], Array]:
    """Return the eigenvalues and eigenvectors of the columns' inner products, the largest first."""
    tall = columns.astype(np.float64)
    values, vectors = np.linalg.eigh(tall.T @ tall)
    return values[::-1], vectors[:, ::-1].astype(np.float32)
