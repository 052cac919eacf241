"""Drawn photos of two classes, sushi and sandwich, for the demo and for tests that need photos of our own.

They vary in what is on the plate, colour, size, angle, light, background, clutter, cover, focus, noise and
JPEG quality, and some of either class look like the other from afar, so that a classifier is neither at
chance nor perfect on them. A photo depends on (seed, class, index) alone: asking for more photos leaves the
first ones as they were.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from topgraft.testing._dishes import SANDWICH, SIDES, SUSHI, Pen
from topgraft.testing._scene import Points, Scene, as_colour, capsule, circle, rounded, shaded

if TYPE_CHECKING:
    from topgraft.types import Image

CLASSES = ("sandwich", "sushi")
FOOD = {"sushi": SUSHI, "sandwich": SANDWICH}
SIZES = ((360, 360), (320, 400), (400, 320), (340, 380), (300, 400))
"""(height, width) in pixels."""
_WOOD, _STONE = [[186, 142, 96], [112, 78, 54], [206, 184, 160]], [[222, 210, 190], [70, 74, 80]]
_CLOTH, _CHINA = [[188, 98, 84], [150, 170, 176], [236, 234, 228], [96, 116, 92]], [[244, 243, 239]]
TABLES = np.array([*_WOOD, *_STONE, *_CLOTH])
PLATES = np.array([*_CHINA, *_CHINA, [226, 218, 200], [54, 58, 64], [110, 146, 168], [176, 128, 82]])


def draw_photos(folder: Path | str, n_per_class: int = 40, seed: int = 0) -> Path:
    """Write `folder/<class>/<class>_000.jpg` and so on, as many for each class.

    Args:
        folder: made if it is not there; files of the same names are replaced.
        n_per_class: photos of each class.
        seed: another seed, other photos.

    Returns:
        The folder.
    """
    folder = Path(folder)
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(n_per_class):
            (folder / name / f"{name}_{index:03}.jpg").write_bytes(draw_jpeg(name, index, seed))
    return folder


def draw_jpeg(name: str, index: int, seed: int = 0) -> bytes:
    """Return one photo as a JPEG file, of a quality that varies."""
    quality = int(np.random.default_rng([seed, CLASSES.index(name), index, 1]).integers(45, 93))
    image = cv2.cvtColor(draw_photo(name, index, seed), cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def draw_photo(name: str, index: int, seed: int = 0) -> Image:
    """Draw one photo.

    Args:
        name: `sushi` or `sandwich`.
        index: which of them.
        seed: of the set.

    Returns:
        (h, w, 3) uint8 RGB, 300 to 400 pixels a side.
    """
    rng = np.random.default_rng([seed, CLASSES.index(name), index])
    scene = _table(rng)
    _plate(scene, rng)
    _serve(scene, rng, name)
    if rng.random() < 0.55:
        _cutlery(scene, rng, sticks=rng.random() < (0.65 if name == "sushi" else 0.35))
    if rng.random() < 0.25:
        _cover(scene, rng)
    return _camera(scene.image, rng)


def _table(rng: np.random.Generator) -> Scene:
    """Look at an empty table: plain, of planks, chequered or speckled."""
    height, width = SIZES[rng.integers(len(SIZES))]
    colour = np.clip(TABLES[rng.integers(len(TABLES))] + rng.normal(0, 12, 3), 20, 245)
    image = np.empty((height, width, 3), np.uint8)
    image[:] = colour
    angle = rng.uniform(0, 2 * np.pi)
    scene = Scene(
        image=image,
        centre=(width * rng.uniform(0.4, 0.6), height * rng.uniform(0.42, 0.62)),
        scale=min(height, width) * rng.uniform(0.34, 0.62),
        rotation=rng.uniform(0, 2 * np.pi),
        tilt=rng.uniform(0.15, 1.05),
        light=(0.9 * np.cos(angle), 0.9 * np.sin(angle)),
    )
    kind, tone = rng.integers(4), as_colour(colour)
    if kind == 1:
        for x in np.arange(-4.0, 4.0, 0.45):
            plank = np.array([[x, -5.0], [x + 0.43, -5.0], [x + 0.43, 5.0], [x, 5.0]])
            scene.flat(plank, 0, shaded(tone, rng.uniform(0.88, 1.1)))
            grain = np.stack(
                [x + rng.uniform(0.05, 0.38) + rng.normal(0, 0.015, 12), np.linspace(-4, 4, 12)], axis=1
            )
            scene.line(grain, 0, shaded(tone, 0.85), 0.01)
    elif kind == 2:
        for x in np.arange(-4.0, 4.0, 0.5):
            scene.line(np.array([[x, -5.0], [x, 5.0]]), 0, shaded(tone, 1.35), 0.2)
            scene.line(np.array([[-5.0, x], [5.0, x]]), 0, shaded(tone, 0.85), 0.12)
    elif kind == 3:
        scene.dots(rng.uniform(-3, 3, (150, 2)), 0, 0.02, [shaded(tone, 0.85), shaded(tone, 1.3)])
    return scene


def _plate(scene: Scene, rng: np.random.Generator) -> None:
    """Put down a plate, a board, or nothing."""
    kind = rng.integers(5)
    if kind == 0:
        return
    colour = as_colour(PLATES[rng.integers(len(PLATES))])
    outline: Points = circle(1.0, 48)
    if kind > 2:
        sides = np.array([rng.uniform(0.9, 1.2), rng.uniform(0.6, 0.85)])
        outline = (
            rounded(np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 1.0, rng.uniform(0.02, 0.3)) * sides
        )
    scene.shadows([(outline, 0.12)], 0.45)
    scene.prism(outline, 0, 0.04, shaded(colour, 0.8), colour)
    if kind <= 2:
        scene.flat(circle(0.97, 48), 0.04, shaded(colour, 1.25))
        scene.flat(circle(0.72, 40), 0.04, shaded(colour, 0.93))
        scene.flat(circle(0.7, 40), 0.04, colour)


def _serve(scene: Scene, rng: np.random.Generator, name: str) -> None:
    """Lay out the food, sides around it, and sometimes a morsel of the other class."""
    kinds = FOOD[name]
    count = int(rng.choice([1, 2, 3, 4, 6]))
    chosen = [kinds[k] for k in rng.integers(len(kinds), size=1 + (rng.random() < 0.5))]
    size = float(rng.uniform(0.8, 1.35)) * (1.35, 1.2, 1.0, 0.95, 0, 0.8)[count - 1]
    rotation = rng.uniform(0, 2 * np.pi)
    places = _places(rng, count, 0.5 * size)
    pieces = [
        (chosen[k % len(chosen)], place, rotation + rng.normal(0, 0.5), size)
        for k, place in enumerate(places)
    ]
    for _ in range(rng.integers(0, 4)):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.3)
        place = (far * np.cos(angle), far * np.sin(angle))
        pieces.append((SIDES[rng.integers(len(SIDES))], place, rng.uniform(0, 6), rng.uniform(0.7, 1.2)))
    if rng.random() < 0.25:
        other = FOOD["sandwich" if name == "sushi" else "sushi"]
        angle = rng.uniform(0, 2 * np.pi)
        place = (1.15 * np.cos(angle), 1.15 * np.sin(angle))
        pieces.append((other[rng.integers(len(other))], place, rng.uniform(0, 6), rng.uniform(0.6, 0.85)))
    scene.shadows([(circle(0.26 * size) + place, 0.3 * size) for _, place, _, size in pieces], 0.5)
    for paint, place, turned, large in pieces:
        pen = Pen(scene, np.random.default_rng(rng.integers(2**32)), place, turned, large)
        scene.put(place, lambda paint=paint, pen=pen: paint(pen))  # type: ignore[misc]
    scene.paint_all()


def _places(rng: np.random.Generator, count: int, apart: float) -> list[tuple[float, float]]:
    """Place pieces in a row, a grid, a ring or alone, a little out of line."""
    if count == 1:
        spots = np.zeros((1, 2))
    elif count == 3 or rng.random() < 0.4:
        spots = circle(0.62 * apart * max(1.0, count / 3.2), count)
    else:
        spots = np.array([[k % 2 - 0.5, k // 2 - (count // 2 - 1) / 2] for k in range(count)]) * apart * 1.1
    spots = spots + rng.normal(0, 0.05, spots.shape)
    return [(float(x), float(y)) for x, y in spots]


def _cutlery(scene: Scene, rng: np.random.Generator, *, sticks: bool) -> None:
    """Lay chopsticks, or a knife, beside or across the food."""
    angle, far = rng.uniform(0, np.pi), rng.uniform(-1.0, 1.0)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    centre = far * across + rng.uniform(-0.3, 0.3) * along
    ends = np.array([centre - 1.1 * along, centre + 1.1 * along])
    if sticks:
        colour = ((150, 90, 52), (40, 34, 36), (214, 180, 126), (168, 40, 38))[rng.integers(4)]
        for shift in (0.0, rng.uniform(0.07, 0.14)):
            scene.line(ends + shift * across + [[0, 0], across * 0.05], 0.3, colour, 0.045)
            scene.line(ends + shift * across + [[0, 0], across * 0.05], 0.32, shaded(colour, 1.3), 0.012)
    else:
        scene.line(ends, 0.1, (176, 180, 186), 0.1)
        scene.line(ends, 0.11, (226, 230, 234), 0.04)
        scene.line(np.array([ends[0], centre - 0.3 * along]), 0.11, (64, 48, 42), 0.11)


def _cover(scene: Scene, rng: np.random.Generator) -> None:
    """Let a napkin, a menu or an arm's sleeve hide a side of the picture."""
    height, width = scene.image.shape[:2]
    corner = np.array([width * rng.choice([0.0, 1.0]), height * rng.choice([0.0, 1.0])])
    colour = TABLES[rng.integers(len(TABLES))] * rng.uniform(0.7, 1.05)
    sheet = capsule(1.0, 0.5) if rng.random() < 0.5 else circle(0.85, 4)
    pixels = sheet * min(height, width) * rng.uniform(0.3, 0.6)
    angle = rng.uniform(0, np.pi)
    pixels = pixels @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) + corner
    tone = as_colour(colour)
    scene.fill(pixels + np.array([4, 5]), shaded(tone, 0.55))
    scene.fill(pixels, tone)


def _camera(image: Image, rng: np.random.Generator) -> Image:
    """Photograph the scene: light from one side, its colour and strength, focus, shake and noise."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height:8, 0:width:8].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)) * rng.uniform(0.1, 0.6)
    light = cv2.resize((1 + slope).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    cast = rng.normal(1, 0.06, 3) * rng.uniform(0.65, 1.12)
    picture = image * (light[..., None] * cast.astype(np.float32))
    contrast = np.float32(rng.uniform(0.7, 1.1))
    picture = (picture - 120) * contrast + np.float32(120 + rng.normal(0, 8))
    blur = rng.choice([0.0, 0.6, 1.2, 2.2, 3.5], p=[0.34, 0.32, 0.2, 0.1, 0.04])
    if blur:
        picture = cv2.GaussianBlur(picture, (0, 0), float(blur))
    noise = np.empty((height, width), np.int16)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.randn(noise, 0, float(rng.choice([2.0, 4.0, 7.0, 12.0])))
    picture += noise[..., None]
    return np.asarray(np.clip(picture, 0, 255).astype(np.uint8))
