"""Heads and the unknown answer as ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import numpy as np

from topgraft.nodes import largest, unit_rows
from topgraft.trust.unknown import Energy, NearestDistance, WhitenedDistance

if TYPE_CHECKING:
    from topgraft.heads import Head
    from topgraft.nodes import Nodes
    from topgraft.trust.unknown import Measure


def add_head(g: Nodes, head: Head, features: str, maps: str) -> str:
    """Add a head's layers.

    Args:
        g: takes the nodes.
        head: a fitted head.
        features: name of the features, (N, D).
        maps: name of the map, (N, C, h, w); used by heads on maps.

    Returns:
        The name of the logits, (N, C).
    """
    value = maps if head.on_map else features
    for layer in head.layers():
        value = layer.add(g, value)
    return value


def add_distance(g: Nodes, how: Measure | None, features: str, logits: str, out: str) -> None:
    """Add how far a picture lies from the training photos: (1,), 0 where there is no unknown answer."""
    match how:
        case None:
            distance = g("Identity", np.zeros(1, np.float32))
        case NearestDistance():
            likeness = g("MatMul", unit_rows(g, features), how.rows.T)
            mean = g("ReduceSum", largest(g, likeness, how.count), [1], keepdims=0)
            distance = g("Sub", 1.0, g("Div", mean, float(how.count)))
        case WhitenedDistance():
            point = g("Add", g("MatMul", features, how.weight), how.bias)
            apart = g("Sub", point, how.points)  # (C, D)
            squares = g("ReduceSum", g("Mul", apart, apart), [1], keepdims=0)
            distance = g("Neg", largest(g, g("Neg", squares), 1))
        case Energy():
            scaled = g("Div", logits, float(how.temperature))
            highest = largest(g, scaled, 1)
            total = g("ReduceSum", g("Exp", g("Sub", scaled, highest)), [1], keepdims=1)
            distance = g("Neg", g("Add", g("Log", total), highest))
        case _:
            assert_never(how)
    g("Reshape", distance, [1], out=out)
