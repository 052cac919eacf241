"""What should be said of a photo that was decoded all the same."""

from __future__ import annotations

import numpy as np
import simplejpeg

from topgraft.photos.decode import SIXTEEN_BITS, TWELVE_BITS, full_scale, opened, said_bits
from topgraft.types import Image

DARK = 12
"""A photo without any brighter level (of 255) is nearly black."""
TWELVE = "holds 12 bits in 16 and is scaled by its 12"
SIXTEEN = "holds 16 bits"
"""How a deep grey photo was taken; the second is worth a word beside the first alone."""


def remark(data: bytes, image: Image) -> str:
    """Return what is odd about a decoded file, to be read after its name; empty where nothing is.

    libjpeg repairs a damaged JPEG without a word to Pillow: 38 of 40 with 512 bytes zeroed, a twentieth of
    their pixels wrong. So it is read again, an eighth of its size, by a decoder that hands the warning on;
    it takes 8 ms, once a photo, and found the same 38.

    Args:
        data: the file's bytes.
        image: (H, W, 3) uint8, what they were decoded to.
    """
    if data.startswith(b"\xff\xd8"):
        try:
            simplejpeg.decode_jpeg(data, "GRAY", min_factor=8, strict=True)
        except ValueError as error:
            if "Unsupported" not in str(error):  # CMYK: a kind, no damage
                return f"is damaged and was repaired ({error})"
    if image.max(initial=0) <= DARK:
        return "is nearly black"
    return _depth(data)


def _depth(data: bytes) -> str:
    """Say how a deep grey channel was scaled where its file does not say."""
    with opened(data) as picture:
        if not picture.mode.startswith("I") or said_bits(picture, data):
            return ""
        top = full_scale(np.asarray(picture), picture.mode)
    return {TWELVE_BITS: TWELVE, SIXTEEN_BITS: SIXTEEN}.get(top, "")
