"""The one owner of turning a file into pixels.

Rules, in order: the header is read and the size judged before any pixel is allocated; the first frame
of an animation counts; EXIF orientation is applied; 16 bits are scaled to 8; alpha lies over white;
CMYK, greyscale and palettes become RGB. What cannot be read is refused with a reason a person can act on.
"""

from __future__ import annotations

import io
import shlex
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from topgraft import files
from topgraft.errors import DecodeError
from topgraft.types import Image

MAX_PIXELS = 100_000_000
"""Larger pictures are refused: 100 megapixels are 300 MB of pixels, five times a phone's best."""

UNIT = 1.1
"""Floats up to here are of the range 0..1: resampling overshoots it a little."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".avif"}
)
"""File names that are taken for photos; anything else in a photo folder is listed, not read."""


# Pillow warns of odd metadata; pixels are what counts here. Once and for all: catch_warnings around every
# decoding is not safe in threads, it may leave a filter behind that silences everything.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(source: str | Path | bytes, place: str = "") -> Image:
    """Decode a photo to RGB.

    Args:
        source: a local path, or the file's bytes.
        place: what to call it in errors; the path where there is one.

    Returns:
        (H, W, 3) uint8, upright.

    Raises:
        DecodeError: with `.reason`, for anything that is not a whole, reasonable picture.
    """
    place = place or ("photo" if isinstance(source, bytes) else str(source))
    try:
        data = source if isinstance(source, bytes) else files.read_local(Path(source))
    except IsADirectoryError as error:
        raise DecodeError(place, f"is a folder; give its photos: {shlex.quote(place)}/*.jpg") from error
    except OSError as error:
        raise DecodeError(place, f"cannot be opened ({error.strerror or error})") from error
    if not data:
        raise DecodeError(place, "is empty (0 bytes)")
    try:
        with Pillow.open(io.BytesIO(data), formats=_formats()) as picture:
            _judge(picture.size, place)
            return _pixels(picture)
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError(place, "is not a picture in a known format") from error
    except Pillow.DecompressionBombError as error:
        raise DecodeError(place, f"is larger than {MAX_PIXELS:,} pixels") from error
    except MemoryError as error:
        raise DecodeError(place, "does not fit into memory") from error
    except Exception as error:  # a broken file can make a decoder raise anything
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DecodeError(place, f"is damaged ({text})") from error


@cache
def _formats() -> tuple[str, ...]:
    """Name the formats of `SUFFIXES`: no other decoder, and none that starts a program, sees a file."""
    known = Pillow.registered_extensions()
    return tuple(sorted({known[suffix] for suffix in SUFFIXES if suffix in known} & Pillow.OPEN.keys()))


def _judge(size: tuple[int, int], place: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise DecodeError(place, f"is {width} x {height}, larger than {MAX_PIXELS:,} pixels; make it smaller")
    if width < 1 or height < 1:
        raise DecodeError(place, "has no pixels")


def _pixels(picture: Pillow.Image) -> Image:
    ImageOps.exif_transpose(picture, in_place=True)  # in place, and no conversion of RGB: copies take as long
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        return _from_deep(picture)
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Pillow.new("RGBA", rgba.size, (255, 255, 255, 255))
        picture = Pillow.alpha_composite(white, rgba)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    # np.array, not asarray: the result must own its memory and be writable
    return np.array(picture, dtype=np.uint8)


def _from_deep(picture: Pillow.Image) -> Image:
    """Scale one deep grey channel to 8 bits: from 16 bits, from floats in 0..1, or as it is."""
    values = np.asarray(picture).astype(np.float64)
    highest = values.max(initial=0, where=np.isfinite(values))
    top = 65535.0 if highest > 255 or picture.mode.startswith("I;") else 255.0
    if picture.mode == "F" and highest <= UNIT:
        top = 1.0
    finite = np.nan_to_num(values, nan=0, posinf=top, neginf=0)
    grey = np.clip(np.rint(finite / top * 255.0), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
