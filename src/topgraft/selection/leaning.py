"""Which depths of the backbone a head leans on: texture and colour lie early, shapes and things late."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from topgraft.backbones.depths import Depths
from topgraft.heads._average import centred
from topgraft.heads._base import Head
from topgraft.heads._linear import AffineHead
from topgraft.types import Features

ALONE = 0.995
"""From this share on, the last layer does all."""


def leaning(head: Head, rows: Features, columns: Depths | None) -> list[dict[str, Any]]:
    """Return what share of the logits' variance comes from the last layer, and from every block.

    The logits are a sum over columns, so their variance over photos is a sum of covariances: that of a
    block's part with the whole is its share. Shares sum to 1; a block below 0 speaks against the others.

    Args:
        head: a fitted head.
        rows: (N, D + B) of photos, view 0.
        columns: which columns are which; None where only the last layer was on offer.

    Returns:
        The last layer first: `{"block": "", "means": …, "spreads": …, "share": …}`; empty where there is
        nothing to share: no block features, or a head that is no affine layer.
    """
    if columns is None or not columns.blocks or not isinstance(head, AffineHead):
        return []
    weight = np.zeros((columns.width, len(head.bias)))
    weight[: len(head.weight)] = centred(head.weight.astype(np.float64), multilabel=head.multilabel)
    x = rows.astype(np.float64)
    x -= x.mean(axis=0)
    whole = x @ weight
    # of each column: its covariance with the logits it helps to make, summed over the classes
    shares = ((x.T @ whole) * weight).sum(axis=1)
    shares /= max(float(shares.sum()), 1e-30)
    found = [{"block": "", "means": 0.0, "spreads": 0.0, "share": float(shares[: columns.last].sum())}]
    for block in columns.blocks:
        means, spreads = (
            float(shares[columns.columns(block.name, statistic)].sum()) for statistic in ("means", "spreads")
        )
        found.append({"block": block.name, "means": means, "spreads": spreads, "share": means + spreads})
    return found


def thirds(shares: list[dict[str, Any]]) -> list[range]:
    """Return the places of early, middle and late blocks among the shares, the last layer being the first."""
    cuts = [1 + round((len(shares) - 1) * third / 3) for third in range(4)]
    return [range(low, high) for low, high in itertools.pairwise(cuts)]


def lean_in_words(shares: list[dict[str, Any]]) -> str:
    """Return one sentence about it; empty where there is nothing to say."""
    if not shares:
        return ""
    last = shares[0]["share"]
    if last >= ALONE:
        return "The head reads the last layer alone: cross-validation found no use for the inner blocks."
    early, middle, late = (sum(shares[i]["share"] for i in third) for third in thirds(shares))
    return (
        f"The head leans to {last:.0%} on the last layer, to {early:.0%} on early blocks (colour, texture),"
        f" to {middle:.0%} on those in the middle and to {late:.0%} on late ones (parts, shapes)."
    )
