"""Light and colour on pixels: each function takes and gives (H, W, 3) uint8 RGB and leaves its input alone.

What maps one level to one level goes through a table of 256, and the sums are sums of whole numbers: fast,
and the same on every processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topgraft.types import Image

LEVELS = np.arange(256, dtype=np.float64)
LUMA = np.array([0.299, 0.587, 0.114])
"""How bright red, green and blue look (ITU-R BT.601, the weights Pillow and OpenCV use)."""


def shift_channels(image: Image, levels: float) -> Image:
    """Add grey levels to all channels, within the picture's own darkest and brightest (as Keras does)."""
    return _through(image, np.clip(LEVELS + levels, image.min(), image.max()))


def brightness(image: Image, factor: float) -> Image:
    """Multiply the light: 0 is black, 1 leaves the picture as it is."""
    return _through(image, LEVELS * factor)


def contrast(image: Image, factor: float) -> Image:
    """Spread the levels about the picture's mean luminance: 0 is flat grey, 1 leaves it as it is."""
    mean = float(mean_colour(image) @ LUMA)
    return _through(image, mean + factor * (LEVELS - mean))


def saturation(image: Image, factor: float) -> Image:
    """Spread each pixel's channels about its own luminance: 0 is greyscale, 1 leaves it as it is."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    mixed: Image = cv2.addWeighted(image, factor, grey, 1 - factor, 0)
    return mixed


def blur(image: Image, sigma_px: float) -> Image:
    """Blur with a Gaussian of sigma_px pixels, the border mirrored."""
    blurred: Image = cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    return blurred


def erase(image: Image, left: float, top: float, width: float, height: float) -> Image:
    """Paint a rectangle, given in fractions of the sides, with the picture's mean colour.

    Random erasing (Zhong et al. 2020, section 3) with the mean for a filling: an empty patch, not an odd one.
    """
    rows, columns = image.shape[:2]
    x, y = round(left * columns), round(top * rows)
    erased = image.copy()
    erased[y : y + round(height * rows), x : x + round(width * columns)] = np.rint(mean_colour(image))
    return erased


def mean_colour(image: Image) -> NDArray[np.float64]:
    """Average each channel. Shape (3,), levels 0 to 255."""
    sums = np.array(cv2.sumElems(image)[:3], dtype=np.float64)
    mean: NDArray[np.float64] = sums / (image.shape[0] * image.shape[1])
    return mean


def _through(image: Image, table: NDArray[np.floating[Any]]) -> Image:
    mapped: Image = cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8))
    return mapped
