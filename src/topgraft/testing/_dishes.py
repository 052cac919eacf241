"""What lies on the plates of the drawn photos: sushi, sandwiches, and what goes with either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from topgraft.testing._scene import (
    Colour,
    Points,
    Scene,
    as_colour,
    capsule,
    circle,
    mixed,
    rounded,
    shaded,
    wavy,
)

if TYPE_CHECKING:
    from collections.abc import Callable

RICE, NORI = (240, 236, 224), (34, 44, 36)
SALMON, TUNA, EGG, SHRIMP = (244, 132, 88), (196, 52, 62), (246, 208, 84), (240, 160, 128)
CUCUMBER, AVOCADO, WASABI, ROE = (110, 168, 78), (170, 196, 92), (146, 186, 96), (246, 110, 36)
LETTUCE, TOMATO, HAM, CHEESE = (112, 170, 62), (212, 62, 46), (232, 148, 140), (250, 196, 66)
WHITE_BREAD, BROWN_BREAD, CRUST = (244, 222, 178), (188, 140, 88), (172, 108, 52)


@dataclass
class Pen:
    """Where and how one piece is drawn.

    Attributes:
        scene: what is drawn on.
        rng: this piece's own dice.
        at: its place on the table.
        rotation: how far it is turned, radians.
        size: its size, 1 being usual.
        base: the height it stands on.
    """

    scene: Scene
    rng: np.random.Generator
    at: tuple[float, float]
    rotation: float
    size: float
    base: float = 0.04

    def place(self, outline: Points) -> Points:
        """Bring an outline from the piece's own coordinates to the table."""
        cos, sin = np.cos(self.rotation), np.sin(self.rotation)
        x, y = outline[:, 0] * self.size, outline[:, 1] * self.size
        return np.stack([self.at[0] + x * cos - y * sin, self.at[1] + x * sin + y * cos], axis=1)

    def tint(self, colour: Colour, amount: float = 14) -> Colour:
        """Vary a colour."""
        return as_colour(np.clip(np.asarray(colour) + self.rng.normal(0, amount, 3), 0, 255))

    def prism(
        self, outline: Points, low: float, high: float, side: Colour, top: Colour | None = None
    ) -> None:
        """Paint a body; heights count from the base, in the piece's size."""
        ends = (self.base + low * self.size, self.base + high * self.size)
        self.scene.prism(self.place(outline), *ends, side, side if top is None else top)

    def flat(self, outline: Points, height: float, colour: Colour) -> None:
        """Fill an outline at a height."""
        self.scene.flat(self.place(outline), self.base + height * self.size, colour)

    def line(self, points: Points, height: float, colour: Colour, width: float) -> None:
        """Draw a line at a height."""
        self.scene.line(self.place(points), self.base + height * self.size, colour, width * self.size)

    def dots(self, points: Points, height: float, radius: float, colours: list[Colour]) -> None:
        """Draw dots at a height."""
        self.scene.dots(self.place(points), self.base + height * self.size, radius * self.size, colours)

    def inside(self, count: int, x: float, y: float) -> Points:
        """Draw points in an ellipse."""
        angle, far = self.rng.uniform(0, 2 * np.pi, count), np.sqrt(self.rng.uniform(0, 1, count))
        return np.stack([x * far * np.cos(angle), y * far * np.sin(angle)], axis=1)


def pick(pen: Pen, *colours: Colour) -> Colour:
    """Choose one of some colours and vary it."""
    return pen.tint(colours[pen.rng.integers(len(colours))])


# --- sushi -----------------------------------------------------------------------------------------------


def maki(pen: Pen) -> None:
    """A slice of a roll: nori around rice around two or three fillings; or rice and sesame outside."""
    rice, nori = pen.tint(RICE, 6), pen.tint(NORI, 8)
    inverted = pen.rng.random() < 0.3
    high = pen.rng.uniform(0.2, 0.34)
    pen.prism(circle(0.25), 0, high, rice if inverted else nori)
    pen.flat(circle(0.225), high, rice)
    grains(pen, 16, 0.2, high, rice)
    if inverted:
        seeds = circle(0.25, 18) + pen.rng.normal(0, 0.008, (18, 2))
        pen.dots(seeds, high * 0.6, 0.012, [(228, 196, 128), ROE, (60, 52, 44)])
        pen.flat(circle(0.125), high, nori)
        pen.flat(circle(0.105), high, rice)
    count = int(pen.rng.integers(1, 4))
    for angle in np.arange(count) * 2 * np.pi / count + pen.rng.uniform(0, 6):
        centre = 0.055 * (count > 1) * np.array([np.cos(angle), np.sin(angle)])
        colour = pick(pen, SALMON, TUNA, CUCUMBER, AVOCADO, EGG)
        pen.flat(circle(0.05 + 0.03 * (count == 1), 9) + centre, high, shaded(colour, 0.85))
        pen.flat(circle(0.04 + 0.03 * (count == 1), 9) + centre + 0.004, high, colour)


def grains(pen: Pen, count: int, radius: float, height: float, rice: Colour) -> None:
    """Grains of rice, lighter and darker."""
    pen.dots(pen.inside(count, radius, radius), height, 0.016, [shaded(rice, 0.9), shaded(rice, 1.5)])


def nigiri(pen: Pen) -> None:
    """A bar of rice under a slice of fish, egg or shrimp."""
    rice, topping = pen.tint(RICE, 6), pick(pen, SALMON, SALMON, TUNA, EGG, SHRIMP)
    pen.prism(capsule(0.3, 0.13), 0, 0.15, rice)
    pen.dots(pen.inside(14, 0.28, 0.15), 0.08, 0.018, [shaded(rice, 0.88), shaded(rice, 1.5)])
    pen.prism(capsule(0.4, 0.15), 0.14, 0.21, shaded(topping, 0.85), topping)
    pen.flat(capsule(0.34, 0.09) - np.array([0, 0.03]), 0.21, shaded(topping, 1.12))
    if pen.rng.random() < 0.75:
        for x in np.arange(-0.24, 0.25, 0.08):
            bend = np.array([[x - 0.03, -0.12], [x + 0.02, 0.0], [x - 0.03, 0.12]])
            pen.line(bend, 0.21, shaded(topping, 1.55), 0.014)
    if pen.rng.random() < 0.3:
        band = np.array([[-0.04, -0.15], [0.04, -0.15], [0.04, 0.15], [-0.04, 0.15]])
        pen.prism(band, 0.02, 0.22, pen.tint(NORI, 8))


def gunkan(pen: Pen) -> None:
    """A boat of nori filled with roe."""
    pen.prism(capsule(0.2, 0.15), 0, 0.26, pen.tint(NORI, 8))
    roe = pick(pen, ROE, ROE, TUNA, WASABI)
    pen.flat(capsule(0.19, 0.13), 0.26, shaded(roe, 0.8))
    pen.dots(pen.inside(26, 0.21, 0.12), 0.27, 0.03, [roe, shaded(roe, 1.2), shaded(roe, 0.9)])
    pen.dots(pen.inside(10, 0.2, 0.1), 0.28, 0.009, [(255, 244, 226)])


def onigiri(pen: Pen) -> None:
    """A triangle of rice with a nori band, or wholly wrapped: it looks like a sandwich from afar."""
    rice = pen.tint(RICE, 6)
    outline = rounded(circle(0.3, 3), 0.3)
    pen.prism(outline, 0, 0.2, shaded(rice, 0.94), rice)
    pen.dots(pen.inside(26, 0.2, 0.2), 0.2, 0.018, [shaded(rice, 0.9), shaded(rice, 1.5)])
    band = np.array([[-0.2, -0.1], [0.02, -0.1], [0.02, 0.1], [-0.2, 0.1]])
    pen.prism(band, 0.0, 0.205, pen.tint(NORI, 8))


# --- sandwiches ------------------------------------------------------------------------------------------


def layers(pen: Pen, outline: Points, low: float) -> float:
    """Stack fillings from a height on; returns the height they reach."""
    for _ in range(pen.rng.integers(2, 5)):
        kind = pen.rng.integers(5)
        thick = pen.rng.uniform(0.03, 0.06)
        if kind == 0:
            leaf = pen.tint(LETTUCE)
            frill = wavy(outline * 1.07, pen.rng, 0.06)
            pen.flat(frill, low, shaded(leaf, 0.7))
            pen.flat(frill, low + thick * 0.7, leaf)
            pen.prism(outline, low, low + thick, leaf)
        elif kind == 1:
            red = pen.tint(TOMATO)
            pen.prism(outline * 0.97, low, low + thick, shaded(red, 0.9), red)
        else:
            colour = pick(pen, HAM, CHEESE, EGG, SALMON, (250, 244, 232), AVOCADO, (150, 96, 60))
            pen.prism(outline * 1.02, low, low + thick, colour)
        low += thick
    return low


def slice_of_bread(
    pen: Pen, outline: Points, low: float, *, thick: float, bread: Colour, crust: Colour
) -> float:
    """A slice with its crust around it and pores in it; returns the height it reaches."""
    pen.prism(outline, low, low + thick, mixed(bread, crust, 0.35), crust)
    pen.flat(outline * 0.92, low + thick, bread)
    extent = np.abs(outline).max(axis=0) * 0.62
    pen.dots(pen.inside(12, *extent), low + thick, 0.012, [shaded(bread, 0.9), shaded(bread, 1.25)])
    return low + thick


def stack(pen: Pen, outline: Points) -> None:
    """Bread, fillings, bread; now and then twice; grilled, or with a stick and an olive."""
    bread = pick(pen, WHITE_BREAD, WHITE_BREAD, BROWN_BREAD)
    crust = pen.tint(CRUST)
    thick = pen.rng.uniform(0.07, 0.11)
    high = slice_of_bread(pen, outline, 0, thick=thick, bread=bread, crust=crust)
    for _ in range(1 + (pen.rng.random() < 0.25)):
        high = layers(pen, outline * 0.96, high)
        high = slice_of_bread(pen, outline, high, thick=thick, bread=bread, crust=crust)
    if pen.rng.random() < 0.3:
        extent = np.abs(outline).max() * 0.5
        for y in np.linspace(-extent, extent, 4):
            pen.line(np.array([[-extent, y], [extent, y]]), high, shaded(crust, 0.75), 0.03)
    if pen.rng.random() < 0.25:
        centre = np.zeros((1, 2))
        for step in np.linspace(0, 0.3, 12):
            pen.dots(centre, high + step, 0.012, [(214, 178, 120)])
        pen.dots(centre, high + 0.12, 0.06, [AVOCADO])
        pen.dots(centre, high + 0.3, 0.03, [TOMATO])


def triangle(pen: Pen) -> None:
    """Half a sandwich, cut corner to corner."""
    stack(pen, rounded(np.array([[-0.4, -0.2], [0.4, -0.2], [0.0, 0.26]]), 0.06))


def square(pen: Pen) -> None:
    """A whole sandwich."""
    stack(pen, rounded(np.array([[-0.34, -0.32], [0.34, -0.32], [0.34, 0.32], [-0.34, 0.32]]), 0.14))


def roll(pen: Pen) -> None:
    """A long or round roll, its upper half domed."""
    bread, crust = pick(pen, CRUST, (206, 142, 74), (224, 168, 96)), pen.tint(WHITE_BREAD)
    outline = capsule(pen.rng.choice([0.0, 0.5, 0.7]), pen.rng.uniform(0.2, 0.27))
    pen.prism(outline, 0, 0.12, mixed(bread, crust, 0.4), crust)
    high = layers(pen, outline, 0.12)
    for step in np.linspace(0, 1, 6):
        rim = outline * np.sqrt(1 - 0.8 * step * step)
        pen.prism(rim, high + 0.2 * step, high + 0.2 * step + 0.04, shaded(bread, 0.82 + 0.25 * step))
    if pen.rng.random() < 0.5:
        extent = np.abs(outline).max(axis=0) * 0.5
        pen.dots(pen.inside(18, *extent), high + 0.24, 0.013, [(250, 236, 204)])


def pinwheel(pen: Pen) -> None:
    """A slice of a rolled wrap: it looks like maki from afar."""
    wrap, filling = pen.tint((238, 214, 164), 8), pick(pen, HAM, CHEESE, SALMON, LETTUCE)
    high = pen.rng.uniform(0.2, 0.3)
    pen.prism(circle(0.25), 0, high, shaded(wrap, 0.93), wrap)
    for radius in (0.2, 0.13, 0.06):
        pen.flat(circle(radius, 16), high, filling if radius != 0.13 else pen.tint(LETTUCE))
        pen.flat(circle(radius - 0.03, 16), high, wrap)


SUSHI: tuple[Callable[[Pen], None], ...] = (maki, maki, maki, nigiri, nigiri, gunkan, onigiri)
SANDWICH: tuple[Callable[[Pen], None], ...] = (triangle, triangle, triangle, square, roll, roll, pinwheel)


# --- what goes with either -------------------------------------------------------------------------------


def bowl(pen: Pen) -> None:
    """A small bowl of sauce."""
    china = pick(pen, (236, 236, 232), (70, 96, 140), (60, 60, 64))
    pen.prism(circle(0.22), 0, 0.12, shaded(china, 0.85), china)
    pen.flat(circle(0.18), 0.12, pick(pen, (58, 32, 22), (190, 48, 36), (238, 220, 150)))
    pen.dots(np.array([[0.06, -0.07]]), 0.12, 0.025, [(250, 246, 240)])


def cup(pen: Pen) -> None:
    """A cup of tea or coffee."""
    china = pick(pen, (240, 240, 236), (164, 92, 70), (92, 120, 104))
    pen.prism(circle(0.2), 0, 0.32, china, shaded(china, 1.2))
    pen.flat(circle(0.165), 0.32, pick(pen, (92, 56, 34), (160, 168, 84)))


def slices(pen: Pen) -> None:
    """Slices of tomato, cucumber or lemon."""
    colour = pick(pen, TOMATO, CUCUMBER, (246, 222, 92))
    for step in range(3):
        centre = np.array([0.12 * step, 0.03 * step])
        height = 0.02 * step
        pen.prism(circle(0.13, 18) + centre, height, height + 0.02, shaded(colour, 0.85), colour)
        pen.flat(circle(0.1, 18) + centre, height + 0.02, shaded(colour, 1.35))
        pen.dots(circle(0.055, 6) + centre, height + 0.02, 0.02, [colour])


def leaf(pen: Pen) -> None:
    """A leaf of salad or shiso."""
    green = pen.tint(LETTUCE)
    pen.flat(wavy(capsule(0.2, 0.14), pen.rng, 0.12), 0.0, shaded(green, 0.75))
    pen.flat(wavy(capsule(0.18, 0.12), pen.rng, 0.12), 0.03, green)
    pen.line(np.array([[-0.2, 0.0], [0.2, 0.02]]), 0.03, shaded(green, 1.4), 0.012)


def heap(pen: Pen) -> None:
    """A heap of ginger, wasabi or crisps."""
    colour = pick(pen, WASABI, (246, 196, 180), (240, 204, 110))
    for x, y in pen.inside(7, 0.12, 0.1):
        patch = wavy(circle(0.08, 9), pen.rng, 0.2) + np.array([x, y])
        pen.flat(patch, 0.02, shaded(colour, 0.82))
        pen.flat(patch * 0.9, 0.05, pen.tint(colour, 6))


SIDES: tuple[Callable[[Pen], None], ...] = (bowl, cup, slices, leaf, heap)
