"""Light and colour on pixels: functions from (H, W, 3) uint8 RGB to the same that leave their input alone.

What maps one level to one level goes through a table of 256, and the sums are sums of whole numbers: fast,
and the same on every processor. Each op stands below its pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from topgraft.policies.ops import Op, Values, either_way, factor_between, read_number, up_to, write_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topgraft.types import Image

LEVELS = np.arange(256, dtype=np.float64)
LUMA = np.array([0.299, 0.587, 0.114])
"""How bright red, green and blue look (ITU-R BT.601, the weights Pillow and OpenCV use)."""


def shift_channels(image: Image, levels: float) -> Image:
    """Add grey levels to all channels, within the picture's own darkest and brightest (as Keras does)."""
    return _through(image, np.clip(LEVELS + levels, image.min(), image.max()))


CHANNEL_SHIFT = either_way(
    "channel_shift(levels)", "grey levels added to all channels, either way", slot=10, paint=shift_channels
)


def brightness(image: Image, factor: float) -> Image:
    """Multiply the light: 0 is black, 1 leaves the picture as it is."""
    return _through(image, LEVELS * factor)


BRIGHTNESS = factor_between(
    "brightness(low,high)", "light times a factor; 1 changes nothing", slot=11, paint=brightness
)


def contrast(image: Image, factor: float) -> Image:
    """Spread the levels about the picture's mean luminance: 0 is flat grey, 1 leaves it as it is."""
    mean = float(mean_colour(image) @ LUMA)
    return _through(image, mean + factor * (LEVELS - mean))


CONTRAST = factor_between(
    "contrast(low,high)",
    "distance from the mean light times a factor; 1 changes nothing",
    slot=12,
    paint=contrast,
)


def saturation(image: Image, factor: float) -> Image:
    """Spread each pixel's channels about its own luminance: 0 is greyscale, 1 leaves it as it is."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    mixed: Image = cv2.addWeighted(image, factor, grey, 1 - factor, 0)
    return mixed


SATURATION = factor_between(
    "saturation(low,high)", "distance from grey times a factor; 1 changes nothing", slot=13, paint=saturation
)


def blur(image: Image, sigma_px: float) -> Image:
    """Blur with a Gaussian of sigma_px pixels, the border mirrored; 0 leaves the picture as it is."""
    if not sigma_px:
        return image
    blurred: Image = cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    return blurred


BLUR = up_to(
    "blur(fraction)",
    "Gaussian, its sigma up to this fraction of the shorter side",
    slot=14,
    paint=lambda image, sigma: blur(image, sigma * min(image.shape[:2])),
)


def erase(image: Image, left: float, top: float, width: float, height: float) -> Image:
    """Paint a rectangle, given in fractions of the sides, with the picture's mean colour.

    Random erasing (Zhong et al. 2020, section 3) with the mean for a filling: an empty patch, not an odd one.
    """
    rows, columns = image.shape[:2]
    x, y = round(left * columns), round(top * rows)
    erased = image.copy()
    erased[y : y + round(height * rows), x : x + round(width * columns)] = np.rint(mean_colour(image))
    return erased


def _draw_erase(u: Sequence[float], most: float) -> Values:
    width, height = u[0] * most, u[1] * most
    return u[2] * (1 - width), u[3] * (1 - height), width, height


ERASE = Op(
    forms=("erase(fraction)",),
    says="a rectangle with sides up to this fraction is painted with the mean colour",
    read=read_number,
    write=write_numbers,
    slots=(15, 16, 17, 18),
    draw=_draw_erase,
    paint=erase,
)


def mean_colour(image: Image) -> NDArray[np.float64]:
    """Return the mean of each channel. Shape (3,), levels 0 to 255."""
    sums = np.array(cv2.sumElems(image)[:3], dtype=np.float64)
    mean: NDArray[np.float64] = sums / (image.shape[0] * image.shape[1])
    return mean


def _through(image: Image, table: NDArray[np.floating[Any]]) -> Image:
    mapped: Image = cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8))
    return mapped
