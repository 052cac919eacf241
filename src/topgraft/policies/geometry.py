"""Plane geometry on pixels: small matrices, composed, and one warp.

A matrix is (3, 3) float64 and takes an output point to the source point it shows, in (x, y, 1): x to the
right, y down, in pixels, about the centre of the picture. Composing is multiplying; the leftmost factor is
nearest to the source. `about_centre` moves the finished product to pixel coordinates.

The order rotation · shift · shear · zoom, and each factor's form, are those of Keras' ImageDataGenerator
(`apply_affine_transform`), so that its recipes keep their meaning. Its centre for pictures that are not
square (height and width exchanged) is not copied.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from topgraft.types import Image

Matrix = NDArray[np.float64]
"""(3, 3), output point to source point."""

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
    """Turn by an angle: counterclockwise as one sees it."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def shift(x_px: float, y_px: float) -> Matrix:
    """Look x_px to the right and y_px down of the centre."""
    return np.array([[1.0, 0.0, x_px], [0.0, 1.0, y_px], [0.0, 0.0, 1.0]])


def shear(degrees: float) -> Matrix:
    """Lean by an angle, keeping the length of the sides as Keras does."""
    angle = math.radians(degrees)
    return np.array([[1.0, -math.sin(angle), 0.0], [0.0, math.cos(angle), 0.0], [0.0, 0.0, 1.0]])


def zoom(x: float, y: float) -> Matrix:
    """Show x times the width and y times the height: below 1 enlarges, -1 flips."""
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def compose(*matrices: Matrix) -> Matrix:
    """Multiply from left to right; no matrix at all leaves everything in its place. Shape (3, 3)."""
    return functools.reduce(np.matmul, matrices) if matrices else np.eye(3)


def about_centre(matrix: Matrix, height: int, width: int) -> Matrix:
    """Move a matrix from the true centre, (side - 1) / 2, to pixel coordinates. Shape (3, 3).

    The last digits of sines and products differ between maths libraries; they are rounded off (1e-9 px),
    so that every machine warps by the very same numbers.
    """
    x, y = (width - 1) / 2, (height - 1) / 2
    moved: Matrix = np.round(shift(x, y) @ matrix @ shift(-x, -y), 9)
    return moved


def warp(image: Image, matrix: Matrix, fill: Fill = "reflect", cval: int = 0) -> Image:
    """Draw a picture again through one matrix, bilinear, in its own size.

    Args:
        image: (H, W, 3) uint8.
        matrix: (3, 3) in pixel coordinates, as `about_centre` gives it.
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
    """Count the pixels shown beyond the left, right, top and bottom border, and one more for rounding."""
    corners = np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1]])
    x, y = matrix[:2] @ corners
    return (
        max(0, 1 - math.floor(x.min())),
        max(0, math.ceil(x.max()) + 2 - width),
        max(0, 1 - math.floor(y.min())),
        max(0, math.ceil(y.max()) + 2 - height),
    )
