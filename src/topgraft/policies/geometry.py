"""Plane geometry on pixels: small matrices, composed, and one warp.

A matrix is (3, 3) float64 and takes an output point to the source point it shows, in (x, y, 1): x to the
right, y down, in pixels, about the centre of the picture. Composing is multiplying; the leftmost factor is
nearest to the source. `about_centre` moves the finished product to pixel coordinates.

The order rotation · shift · shear · zoom, and each factor's form, are those of Keras' ImageDataGenerator
(`apply_affine_transform`), so that its recipes keep their meaning. Its centre for pictures that are not
square (height and width exchanged) is not copied. Each op stands below its matrix.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from topgraft.policies.ops import (
    Matrix,
    Op,
    Values,
    between,
    either_way,
    read_pair,
    write_numbers,
    write_pair,
)

if TYPE_CHECKING:
    from topgraft.types import Image

Fill = Literal["constant", "nearest", "reflect", "wrap"]
"""What lies beyond the border: a grey level; the border pixel; the picture mirrored; the picture again."""

FILLS: dict[Fill, int] = {
    "constant": cv2.BORDER_CONSTANT,
    "nearest": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT,
    "wrap": cv2.BORDER_WRAP,
}

MOST_AREA = 9
"""A picture whose border would make it larger than so many of itself has its border looked up, not drawn."""


def rotation(degrees: float) -> Matrix:
    """Return the matrix that turns by an angle: counterclockwise as one sees it."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


ROTATE = either_way("rotate(degrees)", "turned by up to so much, either way", slot=0, move=rotation)


def shift(x_px: float, y_px: float) -> Matrix:
    """Return the matrix that looks x_px to the right and y_px down of the centre."""
    return np.array([[1.0, 0.0, x_px], [0.0, 1.0, y_px], [0.0, 0.0, 1.0]])


def _read_shift(words: Sequence[str]) -> Values:
    x, y = [*words, *words] if len(words) == 1 else words
    return float(x), float(y)


SHIFT = Op(
    forms=("shift(fraction)", "shift(x,y)"),
    says="moved by up to this fraction of the width and the height, either way",
    read=_read_shift,
    write=lambda x, y: write_numbers(x) if x == y else write_numbers(x, y),
    slots=(1, 2),
    draw=lambda u, x, y: (between(-x, x, u[0]), between(-y, y, u[1])),
    move=lambda height, width, x, y: shift(x * width, y * height),
    reveals=True,
)


def shear(degrees: float) -> Matrix:
    """Return the matrix that leans by an angle, keeping the length of the sides as Keras does."""
    angle = math.radians(degrees)
    return np.array([[1.0, -math.sin(angle), 0.0], [0.0, math.cos(angle), 0.0], [0.0, 0.0, 1.0]])


SHEAR = either_way("shear(degrees)", "leant by up to so much, either way", slot=3, move=shear)


def zoom(x: float, y: float) -> Matrix:
    """Return the matrix that shows x times the width, y times the height: below 1 enlarges, -1 flips."""
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


ZOOM = Op(
    forms=("zoom(low,high)",),
    says="so many times the width and the height are shown, drawn apart; below 1 enlarges",
    read=read_pair,
    write=write_pair,
    slots=(4, 5),
    draw=lambda u, pair: tuple(between(pair[0], pair[1], v) for v in u),
    move=lambda _height, _width, x, y: zoom(x, y),
    reveals=True,
)


def _flip(form: str, says: str, *, slot: int, x: float, y: float) -> Op:
    return Op(
        forms=(form,),
        says=says,
        read=_read_flip,
        write=lambda _on: (),
        slots=(slot,),
        draw=lambda u, _on: (u[0] < 0.5,),
        move=lambda _height, _width, flipped: zoom(x, y) if flipped else np.eye(3),
    )


def _read_flip(words: Sequence[str]) -> Values:
    () = words
    return (True,)


HFLIP = _flip("hflip", "mirrored left-right: half of the photos", slot=6, x=-1.0, y=1.0)
VFLIP = _flip("vflip", "mirrored upside-down: half of the photos", slot=7, x=1.0, y=-1.0)


def _read_crop(words: Sequence[str]) -> Values:
    mode, fraction = words
    return mode, float(fraction)


def _draw_crop(u: Sequence[float], mode: str, fraction: float) -> Values:
    free = (1 - fraction) if mode == "random" else 0.0
    return free * (u[0] - 0.5), free * (u[1] - 0.5), fraction


CROP = Op(
    forms=("crop(center,fraction)", "crop(random,fraction)"),
    says="this fraction of each side is kept and enlarged to the whole",
    read=_read_crop,
    write=lambda mode, fraction: [mode, *write_numbers(fraction)],
    slots=(8, 9),
    draw=_draw_crop,
    move=lambda height, width, x, y, kept: shift(x * width, y * height) @ zoom(kept, kept),
    canonical=lambda mode, fraction: ("none", 1.0) if mode == "none" or fraction == 1 else (mode, fraction),
)


def _read_fill(words: Sequence[str]) -> Values:
    mode, level = [*words, "0"] if len(words) == 1 else words
    return mode, int(level)


FILL = Op(
    forms=("fill(nearest)", "fill(reflect)", "fill(wrap)", "fill(constant,level)"),
    says="what lies beyond the border",
    read=_read_fill,
    write=lambda mode, level: [mode, str(level)] if level else [mode],
    canonical=lambda mode, level: (mode, level if mode == "constant" else 0),
)
"""What `warp` shows beyond the border: it does nothing of its own and is on where another op reveals that."""


def compose(*matrices: Matrix) -> Matrix:
    """Return the product from left to right; of no matrix at all, the identity. Shape (3, 3)."""
    return functools.reduce(np.matmul, matrices) if matrices else np.eye(3)


def about_centre(matrix: Matrix, height: int, width: int) -> Matrix:
    """Return a matrix about the true centre, (side - 1) / 2, in pixel coordinates. Shape (3, 3).

    The last digits of sines and products differ between maths libraries; they are rounded off (1e-9 px),
    so that every machine warps by the very same numbers.
    """
    x, y = (width - 1) / 2, (height - 1) / 2
    moved: Matrix = np.round(shift(x, y) @ matrix @ shift(-x, -y), 9)
    return moved


def warp(image: Image, matrix: Matrix, fill: Fill = "reflect", cval: int = 0) -> Image:
    """Warp a picture through one matrix, bilinear, in its own size.

    Args:
        image: (H, W, 3) uint8.
        matrix: (3, 3) in pixel coordinates, as `about_centre` returns it.
        fill: what lies beyond the border.
        cval: the level, 0 to 255, of all three channels where fill is constant.

    Returns:
        A new array, (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    left, right, top, bottom = _beyond(matrix, height, width)
    # Four channels and nothing beyond the border are what OpenCV is quick at: about half the time.
    colours = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    level = (cval, cval, cval, cval)
    if (left + width + right) * (top + height + bottom) <= MOST_AREA * height * width:
        colours = cv2.copyMakeBorder(colours, top, bottom, left, right, FILLS[fill], value=level)
        matrix = shift(left, top) @ matrix
    warped = cv2.warpAffine(
        colours,
        matrix[:2],
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=FILLS[fill],
        borderValue=level,
    )
    shown: Image = cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)
    return shown


def _beyond(matrix: Matrix, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the pixels shown beyond the left, right, top and bottom border, and one more for rounding."""
    corners = np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1]])
    x, y = matrix[:2] @ corners
    return (
        max(0, 1 - math.floor(x.min())),
        max(0, math.ceil(x.max()) + 2 - width),
        max(0, 1 - math.floor(y.min())),
        max(0, math.ceil(y.max()) + 2 - height),
    )
