"""The one owner of turning a file into pixels.

Rules, in order: the header is read and the size judged before any pixel is allocated; the first frame
of an animation counts; EXIF orientation is applied; 16 bits are scaled to 8; alpha lies over white;
CMYK, greyscale and palettes become RGB. What cannot be read is refused with a reason a person can act on.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from topgraft import files
from topgraft.errors import DecodeError
from topgraft.text import pasted
from topgraft.types import Image

MAX_PIXELS = 100_000_000
"""Larger pictures are refused: 100 megapixels are 300 MB of pixels, five times a phone's best."""

LARGE_PIXELS = 20_000_000
"""Larger pictures are decoded one at a time, however many threads read: a deep one takes 12 bytes a pixel."""

MAX_SCANS, MAX_PASSES = 200, 2_000_000_000
"""A progressive JPEG has about ten scans; each is a pass over all pixels, and 9,999 of them took 90 seconds
that no Ctrl-C could end. So many scans, and scans times pixels, are decoded: that takes some 20 seconds."""

MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The beginning of a JPEG's segment: within a scan, other bytes behind 0xFF are pixels or a restart."""
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
MAX_SEGMENTS = 100_000
"""More segments than any picture has: to pass over them all would take seconds."""

PNG = b"\x89PNG\r\n\x1a\n"
BEGINNINGS = {b"\xff\xd8\xff": ("JPEG",), PNG: ("PNG",)}
"""Nearly all photos begin so, and no other format does: whoever reads one can do without the plugins of all
others, which take longer to import than a photo to be decoded."""
TEXTS = (b"iCCP", b"iTXt", b"zTXt", b"tEXt")
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
TWELVE_BITS, SIXTEEN_BITS = 4095.0, 65535.0

UNIT = 1.1
"""Floats up to here are of the range 0..1: resampling overshoots it a little."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".avif"}
    | {".heic", ".heif"}  # read with the extra heic, and refused with a word about it without
)
"""File names that are taken for photos; anything else in a photo folder is listed, not read."""

TURNS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
"""What makes a picture upright, by EXIF orientation (EXIF 2.32, tag 0x0112)."""

_one_large = threading.Lock()

# Pillow warns of odd metadata; pixels are what counts here. Once and for all: catch_warnings around every
# decoding is not safe in threads, it may leave a filter behind that silences everything.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(source: str | Path | bytes, place: str = "", *, most: int = MAX_PIXELS) -> Image:
    """Return the pixels of a photo, (H, W, 3) uint8 RGB, upright; see `read_picture`.

    Raises:
        DecodeError: with `.reason`, for anything that is not a whole, reasonable picture.
    """
    try:
        # np.array, not asarray: the result must own its memory and be writable
        return np.array(read_picture(source, place, most=most), dtype=np.uint8)
    except MemoryError as error:
        raise DecodeError(_named(source, place), "does not fit into memory") from error


def read_picture(source: str | Path | bytes, place: str = "", *, most: int = MAX_PIXELS) -> Pillow.Image:
    """Decode a photo to RGB, as `fit` takes it without copying its pixels.

    Args:
        source: a local path, or the file's bytes.
        place: what to call it in errors; the path where there is one.
        most: pixels; a larger picture is refused.

    Returns:
        A picture in mode RGB, upright, whose pixels are all there.

    Raises:
        DecodeError: with `.reason`, for anything that is not a whole, reasonable picture.
    """
    place = _named(source, place)
    try:
        data = source if isinstance(source, bytes) else files.read_local(Path(source))
    except IsADirectoryError as error:
        raise DecodeError(place, f"is a folder; give its photos: {pasted(place)}/*.jpg") from error
    except OSError as error:
        raise DecodeError(place, f"cannot be opened ({error.strerror or error})") from error
    if not data:
        raise DecodeError(place, "is empty (0 bytes)")
    try:
        with opened(data) as picture:
            _judge(picture.size, place, most)
            _judge_scans(data, picture.size, place)
            with _one_large if picture.width * picture.height > LARGE_PIXELS else nullcontext():
                return _upright(picture, said_bits(picture, data))
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        if data[4:8] == b"ftyp" and data[8:12] in HEIC:
            raise DecodeError(
                place, "is HEIC; install it with: pip install 'topgraft[heic]', or save it as JPEG"
            ) from error
        raise DecodeError(place, "is not a picture in a known format") from error
    except Pillow.DecompressionBombError as error:
        raise DecodeError(place, f"is larger than {most:,} pixels") from error
    except MemoryError as error:
        raise DecodeError(place, "does not fit into memory") from error
    except Exception as error:  # a broken file can make a decoder raise anything
        raise DecodeError(place, f"is damaged ({files.said(error)})") from error


def _named(source: str | Path | bytes, place: str) -> str:
    return place or ("photo" if isinstance(source, bytes) else str(source))


def from_pillow(picture: Pillow.Image, place: str = "photo") -> Pillow.Image:
    """Return an open Pillow image as `read_picture` would: upright, RGB, 8 bits.

    Raises:
        DecodeError: for no pixels, too many, or what cannot be read any more.
    """
    try:
        _judge(picture.size, place, MAX_PIXELS)
        return _upright(picture, said_bits(picture))
    except DecodeError:
        raise
    except Exception as error:  # a broken file behind it can make a decoder raise anything
        raise DecodeError(place, f"is damaged ({files.said(error)})") from error


def opened(data: bytes) -> Pillow.Image:
    """Open a file's bytes in Pillow, by the decoders of photos alone; no pixel is decoded yet."""
    formats = next((own for beginning, own in BEGINNINGS.items() if data.startswith(beginning)), None)
    return Pillow.open(io.BytesIO(_without_text(data)), formats=formats or all_formats())


@cache
def all_formats() -> tuple[str, ...]:
    """Name the formats of `SUFFIXES`: no other decoder, and none that starts a program, sees a file."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    known = Pillow.registered_extensions()
    return tuple(sorted({known[suffix] for suffix in SUFFIXES if suffix in known} & Pillow.OPEN.keys()))


def _judge(size: tuple[int, int], place: str, most: int) -> None:
    width, height = size
    if width * height > most:
        raise DecodeError(place, f"is {width} x {height}, larger than {most:,} pixels; make it smaller")
    if width < 1 or height < 1:
        raise DecodeError(place, "has no pixels")


def _judge_scans(data: bytes, size: tuple[int, int], place: str) -> None:
    if not data.startswith(b"\xff\xd8"):
        return
    most = min(MAX_SCANS, MAX_PASSES // (size[0] * size[1]))
    if (scans := _scans(data)) > most:
        raise DecodeError(place, f"is a JPEG of {scans:,} scans, more than {most}; save it anew")


def _scans(data: bytes) -> int:
    """Count the scans of a JPEG, up to its end: telephones put a film behind the picture.

    What a segment holds, a thumbnail say, is passed over. More segments than any writer makes count as if
    each were a scan.
    """
    at, scans = 2, 0
    for _ in range(MAX_SEGMENTS):
        found = MARKER.search(data, at)
        if found is None or (kind := data[found.end() - 1]) == END_OF_IMAGE:
            return scans
        scans += kind == START_OF_SCAN
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return MAX_SEGMENTS


def _without_text(data: bytes) -> bytes:
    """Leave out what a PNG holds beside its pixels and orientation; other files stay as they are.

    Pillow refuses a picture whose texts or profile unpack to over a megabyte; no pixel depends on them.
    """
    if not data.startswith(PNG):
        return data
    kept, at = [PNG], len(PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind not in TEXTS:
            kept.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join([*kept, data[at:]])


def _orientation(picture: Pillow.Image) -> int:
    """Read the orientation alone: what else stands in the EXIF data may be broken and decides no pixel."""
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001  a broken block can make its reader raise anything
        return 1


def said_bits(picture: Pillow.Image, data: bytes = b"") -> int:
    """Return how many bits of a deep grey channel are used, as its file says; 0 where it does not.

    Args:
        picture: opened; a TIFF may name the largest value (MaxSampleValue, tag 281).
        data: the file's bytes; a PNG may have a chunk sBIT.
    """
    if data.startswith(PNG):
        at = data.find(b"\0\0\0\1sBIT", 0, max(data.find(b"IDAT"), 0))
        return data[at + 8] if at > 0 else 0
    largest = getattr(picture, "tag_v2", {}).get(281, 0)
    largest = max(largest, default=0) if isinstance(largest, tuple) else largest  # one a channel
    return largest.bit_length() if isinstance(largest, int) else 0


def _upright(picture: Pillow.Image, bits: int = 0) -> Pillow.Image:
    picture.load()  # before a PNG is asked for its EXIF data: that loads it too, and says of damage only once
    turn = TURNS.get(_orientation(picture))
    if turn is not None:
        picture = picture.transpose(turn)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        return Pillow.fromarray(_from_deep(picture, bits))
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Pillow.new("RGBA", rgba.size, (255, 255, 255, 255))
        picture = Pillow.alpha_composite(white, rgba)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    if turn is not None:
        picture.info = {}  # what it says of its orientation is done
    return picture


def _from_deep(picture: Pillow.Image, bits: int) -> Image:
    """Scale one deep grey channel to 8 bits: from 12 or 16 bits, from floats in 0..1, or as it is."""
    values = np.asarray(picture)
    top = full_scale(values, picture.mode, bits)
    grey = np.empty(values.shape, np.uint8)
    for rows in np.array_split(np.arange(len(values)), max(1, values.size // 1_000_000)):  # floats are large
        finite = np.nan_to_num(values[rows].astype(np.float32), nan=0, posinf=top, neginf=0)
        grey[rows] = np.clip(np.rint(finite / top * 255.0), 0, 255)
    return np.repeat(grey[:, :, None], 3, axis=2)


def full_scale(values: NDArray[Any], mode: str, bits: int = 0) -> float:
    """Return the level of a deep grey channel that is white.

    12 bits are often stored in 16 (cameras, microscopes), and where no tag says how many are used, a channel
    that stays below 4096 is taken for one. As 16 bits it would be nearly black, 17 of 256 levels.

    Args:
        values: (H, W) of the channel.
        mode: Pillow's name for its kind: `I`, `F`, or `I;16` and its like.
        bits: in use, as the file says (`said_bits`); 0 where it does not.
    """
    highest = float(values.max(initial=0, where=np.isfinite(values)))
    if mode == "F" and highest <= UNIT:
        return 1.0
    if highest <= 255 and not mode.startswith("I;"):
        return 255.0
    if 8 < bits <= 16 and highest < 2**bits:
        return float(2**bits - 1)
    return TWELVE_BITS if 255 < highest <= TWELVE_BITS else SIXTEEN_BITS
