"""Heads and the unknown answer as ONNX, from the plain layers they are written down in."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import numpy as np

from topgraft.heads._base import Affine, ChannelAffine, Flatten, MeanPool, Neighbours, Relu
from topgraft.trust.unknown import Energy, NearestDistance, WhitenedDistance

if TYPE_CHECKING:
    from topgraft.heads import Head
    from topgraft.heads._base import Layer
    from topgraft.predictor._nodes import Nodes
    from topgraft.trust.unknown import Measure


def add_head(g: Nodes, head: Head, features: str, maps: str) -> str:
    """Add a head's layers.

    Args:
        g: takes the nodes.
        head: a fitted head.
        features: name of the features, (1, D).
        maps: name of the map, (1, C, h, w); used by heads on maps.

    Returns:
        The name of the logits, (1, C).
    """
    value = maps if head.on_map else features
    for layer in head.layers():
        value = _add_layer(g, layer, value)
    return value


def _add_layer(g: Nodes, layer: Layer, x: str) -> str:
    match layer:
        case Affine():
            return g("Add", g("MatMul", x, _f32(layer.weight)), _f32(layer.bias))
        case Relu():
            return g("Relu", x)
        case ChannelAffine():
            scale, shift = (_f32(value).reshape(1, -1, 1, 1) for value in (layer.scale, layer.shift))
            return g("Add", g("Mul", x, scale), shift)
        case MeanPool():
            return g("Flatten", g("GlobalAveragePool", x), axis=1)
        case Flatten():
            return g("Flatten", x, axis=1)
        case Neighbours():
            return _add_neighbours(g, layer, x)
        case _:
            assert_never(layer)


def _add_neighbours(g: Nodes, layer: Neighbours, x: str) -> str:
    unit = _unit(g, g("Mul", g("Sub", x, _f32(layer.centre)), _f32(layer.scale)))
    likeness = g("MatMul", unit, _f32(layer.rows.T))
    nearest = _top(g, likeness, layer.count)
    votes = g("Gather", _f32(layer.votes), f"{nearest}.index", axis=0)  # (1, k, C)
    weights = g("Add", g("ReduceSum", votes, [1], keepdims=0), float(layer.smoothing))
    return g("Log", g("Div", weights, g("ReduceSum", weights, [1], keepdims=1)))


def add_distance(g: Nodes, how: Measure | None, features: str, logits: str, out: str) -> None:
    """Add how strange a picture is: (1,), 0 where there is no unknown answer."""
    match how:
        case None:
            distance = g("Identity", np.zeros(1, np.float32))
        case NearestDistance():
            likeness = g("MatMul", _unit(g, features), _f32(how.rows.T))
            mean = g("ReduceSum", _top(g, likeness, how.count), [1], keepdims=0)
            distance = g("Sub", 1.0, g("Div", mean, float(how.count)))
        case WhitenedDistance():
            point = g("Add", g("MatMul", features, _f32(how.weight)), _f32(how.bias))
            apart = g("Sub", point, _f32(how.points))  # (C, D)
            squares = g("ReduceSum", g("Mul", apart, apart), [1], keepdims=0)
            distance = g("Neg", _top(g, g("Neg", squares), 1))
        case Energy():
            scaled = g("Div", logits, float(how.temperature))
            highest = _top(g, scaled, 1)
            total = g("ReduceSum", g("Exp", g("Sub", scaled, highest)), [1], keepdims=1)
            distance = g("Neg", g("Add", g("Log", total), highest))
        case _:
            assert_never(how)
    g("Reshape", distance, [1], out=out)


def _unit(g: Nodes, x: str) -> str:
    """Bring rows to length 1."""
    length = g("Sqrt", g("ReduceSum", g("Mul", x, x), [1], keepdims=1))
    return g("Div", x, g("Max", length, 1e-12))


def _top(g: Nodes, x: str, count: int) -> str:
    """Return the largest values along the last axis; their places are under `<name>.index`."""
    return g("TopK", x, [count], axis=-1)


def _f32(
    value: np.ndarray[tuple[int, ...], np.dtype[np.floating]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.ascontiguousarray(value, np.float32)
