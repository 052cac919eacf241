"""Fit a photo to a backbone: resize and crop in one go, the same pixels everywhere.

Training, prediction and exports all use this fit; `predictor/_fit.py` writes the same arithmetic in ONNX.

The sizes are those of timm's evaluation transforms (`transforms_imagenet_eval`): with S the side the
backbone wants and S' = floor(S / crop_fraction),

    center   the short side becomes S', the middle S × S is kept
    squash   both sides become S' (the ratio is lost), the middle is kept
    border   the long side becomes S', the middle is kept, what is missing gets the card's mean colour

Only the part around the crop is ever computed: Pillow's antialiased resize is given a box in the photo's
own coordinates. Its filter still sees the pixels beyond the box, so the result is that of resizing
everything and cropping afterwards. It may be one level off timm's for three reasons:

- Rows are always resized first. Pillow up to 12 does so too; later ones take the columns first where the
  height shrinks much more than the width, and levels are rounded in between, so the same photo would get
  other features under another Pillow.
- Pillow keeps the box in single precision, which would flip exact halves; so the box is widened to where
  the two grids meet and the excess is cut off. Only for very long photos (more than 4 backbone sides
  after the resize) it stays between pixels, 1e-7 of the side off.
- Where a resized side falls exactly between two whole numbers it may be one pixel off timm's, which
  divides twice in floating point.

Source of the filters: Pillow, `src/libImaging/Resample.c` (precompute_coeffs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image as Pillow

if TYPE_CHECKING:
    from topgraft.backbones.card import Card
    from topgraft.types import Image

FILTERS: Final = {
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Axis:
    """How one side of a photo meets one side of the backbone's input, in pixels.

    Attributes:
        source: the photo's side.
        resized: the side after the resize.
        first: where the kept part begins in the resized side; negative where a border is needed.
        kept: the backbone's side.
    """

    source: int
    resized: int
    first: int
    kept: int

    @property
    def low(self) -> int:
        """The first resized pixel that is both there and kept."""
        return max(self.first, 0)

    @property
    def high(self) -> int:
        """One past the last resized pixel that is both there and kept."""
        return min(self.first + self.kept, self.resized)

    @property
    def span(self) -> tuple[int, int]:
        """The resized pixels to compute: low to high, widened to where both grids meet if that is near."""
        step = self.resized // math.gcd(self.source, self.resized)
        low, high = self.low - self.low % step, min(self.resized, self.high + -self.high % step)
        return (low, high) if high - low <= 4 * self.kept else (self.low, self.high)


def axes(height: int, width: int, card: Card) -> tuple[Axis, Axis]:
    """Return how a photo of this size meets the card's input: (vertical, horizontal).

    Sizes are timm's; in whole-number arithmetic, so that the graph can repeat it.
    """
    kept_h, kept_w = card.input_size
    whole_h, whole_w = math.floor(kept_h / card.crop_fraction), math.floor(kept_w / card.crop_fraction)
    if card.crop_mode == "squash":
        resized_h, resized_w = whole_h, whole_w
    else:
        tall = height * whole_w >= width * whole_h
        by_width = tall if card.crop_mode == "center" else not tall
        # torchvision truncates for a square input, timm's ResizeKeepRatio rounds to even for the rest
        scale = _floor_ratio if card.crop_mode == "center" and whole_h == whole_w else _round_ratio
        resized_h = max(1, scale(height * whole_w, width)) if by_width else whole_h
        resized_w = whole_w if by_width else max(1, scale(width * whole_h, height))
    return (
        Axis(height, resized_h, _first(resized_h, kept_h), kept_h),
        Axis(width, resized_w, _first(resized_w, kept_w), kept_w),
    )


def _floor_ratio(a: int, b: int) -> int:
    return a // b


def _round_ratio(a: int, b: int) -> int:
    """Round a / b to the nearest whole number, halves to even."""
    quotient, twice = a // b, 2 * (a % b)
    return quotient + (twice > b or (twice == b and quotient % 2 == 1))


def _first(resized: int, kept: int) -> int:
    """Centre as torchvision and timm do: the crop rounds halves to even, the padding rounds down."""
    return round((resized - kept) / 2) if resized >= kept else -((kept - resized) // 2)


def border_colour(card: Card) -> tuple[int, int, int]:
    """Return the colour of what is missing in `border` mode: the card's mean, as timm has it."""
    red, green, blue = (round(255 * value) for value in card.mean)
    return red, green, blue


def fit(image: Image | Pillow.Image, card: Card) -> Image:
    """Return a photo resized and cropped to a backbone's input size.

    Args:
        image: (h, w, 3) uint8 RGB of any size, or a Pillow image in mode RGB, whose pixels are not copied.
        card: the backbone's facts; all of the preprocessing but `std` counts.

    Returns:
        (H, W, 3) uint8 RGB, where (H, W) is `card.input_size`.
    """
    picture = image if isinstance(image, Pillow.Image) else Pillow.fromarray(image)
    vertical, horizontal = axes(picture.height, picture.width, card)
    if card.interpolation == "nearest":
        part = np.asarray(image)[_nearest(vertical)[:, None], _nearest(horizontal)[None, :]]
    else:
        part = _resample(picture, vertical, horizontal, FILTERS[card.interpolation])
    if part.shape[:2] == card.input_size:
        return part
    whole = np.empty((*card.input_size, 3), np.uint8)
    whole[:] = border_colour(card)
    y, x = vertical.low - vertical.first, horizontal.low - horizontal.first
    whole[y : y + part.shape[0], x : x + part.shape[1]] = part
    return whole


def _resample(picture: Pillow.Image, vertical: Axis, horizontal: Axis, method: Pillow.Resampling) -> Image:
    """Resize one axis at a time, rows first: newer Pillows choose the order by how much each shrinks."""
    (top, bottom), (left, right) = vertical.span, horizontal.span
    height, width = vertical.source, horizontal.source
    across = (left * width / horizontal.resized, 0, right * width / horizontal.resized, height)
    down = (0, top * height / vertical.resized, right - left, bottom * height / vertical.resized)
    picture = picture.resize((right - left, height), method, across)
    picture = picture.resize((right - left, bottom - top), method, down)
    rows = slice(vertical.low - top, vertical.high - top)
    return np.array(picture)[rows, horizontal.low - left : horizontal.high - left].copy()


def _nearest(axis: Axis) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the photo's pixel under each kept pixel's centre, without Pillow's rounding of the box."""
    kept = np.arange(axis.low, axis.high, dtype=np.int64)
    return (2 * kept + 1) * axis.source // (2 * axis.resized)
