"""The fit as ONNX: the arithmetic of `topgraft.backbones.fit` on a picture of any size.

ONNX's own Resize is no way: OpenVINO ignores its `antialias`. Here every output row is a weighted sum of
picture rows, and every column of columns: two matrix products, whose weights are made from the picture's size
inside the graph. As Pillow does it: rows of pixels first, weights in whole 2^-22ths, and whole levels after
each product.

Sizes are computed in whole numbers, and places relative to the picture's middle, so that float32 suffices for
pictures up to 30,000 pixels a side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from topgraft.backbones.fit import border_colour

if TYPE_CHECKING:
    from topgraft.backbones.card import Card
    from topgraft.nodes import Nodes

UNIT = float(1 << 22)
"""Pillow's weights are whole multiples of its inverse (PRECISION_BITS in Resample.c)."""

INT64, FLOAT, UINT8 = 7, 1, 2
"""onnx.TensorProto's numbers of types."""


@dataclass(frozen=True)
class _Side:
    """The values of `topgraft.backbones.fit.Axis` in the graph; whole numbers but for `kept`."""

    source: str
    resized: str
    first: str
    kept: int


def add_fit(g: Nodes, card: Card, image: str, out: str) -> None:
    """Add the nodes of the fit.

    Args:
        g: takes the nodes.
        card: the backbone's facts.
        image: name of the picture, (h, w, 3) uint8.
        out: name of the result, (1, H, W, 3) uint8.
    """
    vertical, horizontal = _sides(g, card, image)
    by_channel = g("Cast", g("Transpose", image, perm=[0, 2, 1]), to=FLOAT)  # (h, 3, w)
    across = g("Transpose", _weights(g, horizontal, card.interpolation), perm=[1, 0])
    rows = _levels(g, g("MatMul", by_channel, across))  # (h, 3, W)
    flat = g("Reshape", rows, [-1, 3 * horizontal.kept])
    fitted = _levels(g, g("MatMul", _weights(g, vertical, card.interpolation), flat))  # (H, 3 · W)
    fitted = g("Reshape", fitted, [1, vertical.kept, 3, horizontal.kept])
    fitted = g("Transpose", fitted, perm=[0, 1, 3, 2])
    if card.crop_mode == "border":
        there = g(
            "And",
            g("Reshape", _there(g, vertical), [1, -1, 1, 1]),
            g("Reshape", _there(g, horizontal), [1, 1, -1, 1]),
        )
        colour = np.array(border_colour(card), np.float32)
        fitted = g("Where", there, fitted, colour)
    g("Cast", fitted, to=UINT8, out=out)


def _sides(g: Nodes, card: Card, image: str) -> tuple[_Side, _Side]:
    """Repeat `topgraft.backbones.fit.axes`."""
    shape = g("Shape", image)
    height, width = g("Gather", shape, 0), g("Gather", shape, 1)
    kept_h, kept_w = card.input_size
    whole_h, whole_w = math.floor(kept_h / card.crop_fraction), math.floor(kept_w / card.crop_fraction)
    if card.crop_mode == "squash":
        resized_h, resized_w = g("Identity", whole_h), g("Identity", whole_w)
    else:
        tall_by, wide_by = g("Mul", height, whole_w), g("Mul", width, whole_h)
        by_width = g("GreaterOrEqual", tall_by, wide_by)
        if card.crop_mode == "border":
            by_width = g("Not", by_width)
        ratio = _floor_ratio if card.crop_mode == "center" and whole_h == whole_w else _round_ratio
        resized_h = g("Where", by_width, g("Max", ratio(g, tall_by, width), 1), whole_h)
        resized_w = g("Where", by_width, whole_w, g("Max", ratio(g, wide_by, height), 1))
    return (
        _Side(height, resized_h, _first(g, resized_h, kept_h), kept_h),
        _Side(width, resized_w, _first(g, resized_w, kept_w), kept_w),
    )


def _floor_ratio(g: Nodes, a: str, b: str) -> str:
    return g("Div", a, b)


def _round_ratio(g: Nodes, a: str, b: str) -> str:
    """Round a / b to the nearest whole number, halves to even."""
    quotient = g("Div", a, b)
    twice = g("Mul", g("Sub", a, g("Mul", quotient, b)), 2)
    half_up = g("And", g("Equal", twice, b), g("Equal", _odd(g, quotient), 1))
    return g("Add", quotient, g("Cast", g("Or", g("Greater", twice, b), half_up), to=INT64))


def _odd(g: Nodes, a: str) -> str:
    return g("Sub", a, g("Mul", g("Div", a, 2), 2))


def _first(g: Nodes, resized: str, kept: int) -> str:
    """Centre the kept part: halves of the crop to even, of the border down."""
    spare = g("Sub", resized, kept)
    crop = g("Max", spare, 0)
    half = g("Div", crop, 2)
    crop_first = g("Add", half, g("Mul", _odd(g, crop), _odd(g, half)))
    border = g("Div", g("Max", g("Neg", spare), 0), 2)
    return g("Sub", crop_first, border)


def _weights(g: Nodes, side: _Side, interpolation: str) -> str:
    """Return what every picture pixel counts for every kept pixel: (kept, source) float32."""
    source, resized = (g("Cast", value, to=FLOAT) for value in (side.source, side.resized))
    pixels = g("Cast", g("Range", 0, side.source, 1), to=FLOAT)
    # from the picture's middle, a kept pixel's centre is place / (2 · resized) = whole + rest / (2 · resized)
    kept = g("Add", g("Cast", side.first, to=FLOAT), np.arange(side.kept, dtype=np.float32) + 0.5)
    place = g("Mul", g("Sub", g("Mul", kept, 2.0), resized), source)
    unit = g("Mul", resized, 2.0)
    whole = g("Floor", g("Div", place, unit))
    rest = g("Sub", place, g("Mul", whole, unit))
    # a picture pixel's centre less that, in quarters of 1 / resized: whole numbers, so nothing is rounded
    centre = g("Sub", g("Add", g("Mul", pixels, 2.0), 1.0), source)
    away = g("Sub", g("Unsqueeze", centre, [0]), g("Unsqueeze", g("Mul", whole, 2.0), [1]))
    away = g("Sub", g("Mul", away, unit), g("Unsqueeze", g("Mul", rest, 2.0), [1]))
    if interpolation == "nearest":
        under = g("And", g("Greater", away, g("Neg", unit)), g("LessOrEqual", away, unit))
        return g("Cast", under, to=FLOAT)
    scale = g("Mul", g("Max", source, resized), 4.0)  # a reduction stretches the filter
    weight = FILTERS[interpolation](g, g("Abs", away), scale)
    weight = g("Div", weight, g("ReduceSum", weight, [1], keepdims=1))
    return g("Div", g("Floor", g("Add", g("Mul", weight, UNIT), 0.5)), UNIT)


def _bilinear(g: Nodes, away: str, scale: str) -> str:
    return g("Max", g("Sub", scale, away), 0.0)


def _bicubic(g: Nodes, away: str, scale: str) -> str:
    """Keys 1981 with a = -0.5, as Pillow has it."""
    t = g("Min", g("Div", away, scale), 2.0)
    square = g("Mul", t, t)
    near = g("Add", g("Mul", g("Sub", g("Mul", t, 1.5), 2.5), square), 1.0)
    far = g("Sub", g("Mul", g("Add", g("Mul", g("Sub", t, 5.0), t), 8.0), t), 4.0)
    return g("Where", g("Less", t, 1.0), near, g("Mul", far, -0.5))


def _lanczos(g: Nodes, away: str, scale: str) -> str:
    """A sinc of three lobes."""
    t = g("Div", away, scale)
    angle = g("Mul", g("Max", g("Min", t, 3.0), 1e-6), math.pi)
    third = g("Div", angle, 3.0)
    product = g("Div", g("Mul", g("Sin", angle), g("Sin", third)), g("Mul", angle, third))
    product = g("Where", g("Less", t, 1e-5), 1.0, product)
    return g("Where", g("Less", t, 3.0), product, 0.0)


FILTERS = {"bilinear": _bilinear, "bicubic": _bicubic, "lanczos": _lanczos}


def _levels(g: Nodes, value: str) -> str:
    """Round to whole levels, halves up, within 0..255."""
    return g("Clip", g("Floor", g("Add", value, 0.5)), 0.0, 255.0)


def _there(g: Nodes, side: _Side) -> str:
    """Return which kept pixels lie in the resized picture: (kept,) bool."""
    place = g("Add", side.first, np.arange(side.kept, dtype=np.int64))
    return g("And", g("GreaterOrEqual", place, 0), g("Less", place, side.resized))
