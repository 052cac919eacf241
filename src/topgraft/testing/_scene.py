"""A table seen through a camera: flat shapes and upright bodies, painted from the back to the front."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from topgraft.types import Image

Points = NDArray[np.float64]
"""(n, 2) on the table, or (n, 3) above it; 1 is about the radius of a plate."""
Colour = tuple[float, float, float]
"""RGB levels."""

SUBPIXEL = 4  # bits of a coordinate behind the point in OpenCV's drawing functions


def circle(radius: float = 1.0, count: int = 28) -> Points:
    """Return a circle's outline (count, 2)."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def capsule(length: float, radius: float) -> Points:
    """Return the outline of a bar with round ends, along x."""
    outline = circle(radius)
    outline[:, 0] += np.where(outline[:, 0] >= 0, length / 2, -length / 2)
    return outline


def rounded(corners: Points, radius: float) -> Points:
    """Round a convex outline's corners: every corner becomes a circle, and their hull is the outline."""
    shape = (corners[:, None] * (1 - radius) + circle(radius, 12)[None]).reshape(-1, 2)
    return hull(shape)


def wavy(outline: Points, rng: np.random.Generator, amount: float) -> Points:
    """Make a leaf's edge of an outline: finer, and pushed in and out."""
    fine = np.repeat(outline, 3, axis=0)
    fine = (fine + np.roll(fine, -1, axis=0) + np.roll(fine, -2, axis=0)) / 3
    return fine * (1 + rng.uniform(-amount, amount, (len(fine), 1)))


def hull(points: Points) -> Points:
    """Return the convex outline around points (n, 2)."""
    found = cv2.convexHull(points.astype(np.float32))[:, 0]
    return np.asarray(found, np.float64)


def as_colour(levels: NDArray[np.generic]) -> Colour:
    """Return an array (3,) as plain numbers."""
    red, green, blue = (float(level) for level in levels)
    return red, green, blue


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """Mix two colours; share 0 gives the first."""
    red, green, blue = (a + (b - a) * share for a, b in zip(colour, other, strict=True))
    return red, green, blue


def shaded(colour: Colour, factor: float) -> Colour:
    """Make a colour darker (below 1) or lighter."""
    return mixed((0, 0, 0), colour, factor) if factor <= 1 else mixed(colour, (255, 255, 255), factor - 1)


@dataclass
class Scene:
    """A picture in the making.

    Attributes:
        image: (h, w, 3) uint8, painted in place.
        centre: the table's middle in the picture, pixels.
        scale: pixels for 1 on the table.
        rotation: how far the table is turned, radians.
        tilt: how far the camera is from straight above, radians.
        light: (2,) where shadows fall for a height of 1.
        waiting: what stands on the table, painted from the back to the front.
    """

    image: Image
    centre: tuple[float, float]
    scale: float
    rotation: float
    tilt: float
    light: tuple[float, float]
    waiting: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def project(self, points: Points, height: float = 0.0) -> Points:
        """Return the pixel coordinates (n, 2) of points (n, 2) at a height, or of points (n, 3)."""
        above = points[:, 2] if points.shape[1] == 3 else height
        cos, sin = np.cos(self.rotation), np.sin(self.rotation)
        right = points[:, 0] * cos - points[:, 1] * sin
        near = points[:, 0] * sin + points[:, 1] * cos
        down = near * np.cos(self.tilt) - above * np.sin(self.tilt)
        return np.stack([self.centre[0] + right * self.scale, self.centre[1] + down * self.scale], axis=1)

    def fill(self, pixels: Points, colour: Colour) -> None:
        """Fill an outline given in pixels."""
        corners = np.round(pixels * (1 << SUBPIXEL)).astype(np.int32)
        cv2.fillPoly(self.image, [corners], colour, cv2.LINE_AA, SUBPIXEL)

    def flat(self, outline: Points, height: float, colour: Colour) -> None:
        """Fill an outline lying at a height."""
        self.fill(self.project(outline, height), colour)

    def prism(self, outline: Points, low: float, high: float, side: Colour, top: Colour) -> None:
        """Paint an upright body: a convex outline between two heights."""
        upper = self.project(outline, high)
        lower = self.project(outline, low)
        centre = self.project(outline, (low + high) / 2)
        self.fill(hull(np.concatenate([upper, lower])), shaded(side, 0.86))
        self.fill(hull(np.concatenate([upper, centre])), side)
        self.fill(upper, top)

    def line(self, points: Points, height: float, colour: Colour, width: float) -> None:
        """Draw a line through points (n, 2), as wide as `width` on the table."""
        corners = np.round(self.project(points, height) * (1 << SUBPIXEL)).astype(np.int32)
        thick = max(1, round(width * self.scale))
        cv2.polylines(self.image, [corners], False, colour, thick, cv2.LINE_AA, SUBPIXEL)

    def dots(self, points: Points, height: float, radius: float, colours: list[Colour]) -> None:
        """Draw small round dots, one colour after the other."""
        size = max(1, round(radius * self.scale * (1 << SUBPIXEL)))
        for index, (x, y) in enumerate(np.round(self.project(points, height) * (1 << SUBPIXEL)).astype(int)):
            place = (int(x), int(y))
            cv2.circle(self.image, place, size, colours[index % len(colours)], -1, cv2.LINE_AA, SUBPIXEL)

    def shadows(self, outlines: list[tuple[Points, float]], strength: float) -> None:
        """Darken the table where bodies (outline, height) keep the light off, softly."""
        rows, columns = self.image.shape[:2]
        mask = np.zeros((rows // 4, columns // 4), np.uint8)
        for outline, height in outlines:
            fallen = outline + height * np.asarray(self.light)
            shape = hull(np.concatenate([self.project(outline), self.project(fallen)])) / 4
            cv2.fillPoly(mask, [np.round(shape * 16).astype(np.int32)], 255, cv2.LINE_AA, SUBPIXEL)
        soft = cv2.resize(cv2.GaussianBlur(mask, (0, 0), 2.2), (columns, rows))
        darker = 255 - (soft * strength).astype(np.uint8)
        self.image[:] = cv2.multiply(self.image, cv2.merge([darker] * 3), scale=1 / 255)

    def put(self, place: tuple[float, float], paint: Callable[[], None]) -> None:
        """Let something stand on the table; `paint_all` paints it in its turn."""
        depth = place[0] * np.sin(self.rotation) + place[1] * np.cos(self.rotation)
        self.waiting.append((float(depth), paint))

    def paint_all(self) -> None:
        """Paint what stands on the table from the back to the front."""
        for _, paint in sorted(self.waiting, key=lambda pair: pair[0]):
            paint()
        self.waiting.clear()
