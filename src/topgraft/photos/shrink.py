"""A picture made small, for pages."""

from __future__ import annotations

import io

from PIL import Image as Pillow

from topgraft.types import Image


def shrink(image: Image, side: int, quality: int = 62) -> tuple[int, int, bytes]:
    """Make a picture small: (width, height, WebP bytes).

    Args:
        image: (H, W, 3) RGB.
        side: its longest side, px.
        quality: of WebP, 0 to 100.
    """
    picture = Pillow.fromarray(image)
    picture.thumbnail((side, side), Pillow.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=quality, method=4)
    return picture.width, picture.height, out.getvalue()
