"""A contact sheet: pictures in even rows, captions below them, drawn with Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    from topgraft.types import Image

PAPER, INK, FAINT, FRAME = "#ffffff", "#1f2328", "#59636e", "#d1d9e0"
MARGIN_PX, GAP_PX, AIR_PX = 32, 18, 9
TITLE_PX, CAPTION_PX = 22, 13
LINE_PX = 17


@dataclass(frozen=True)
class Tile:
    """One picture on the sheet.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        caption: what stands below it, if anything.
        joint: where a caption that is too long is broken.
    """

    image: Image
    caption: str = ""
    joint: str = " | "


@dataclass(frozen=True)
class Section:
    """A heading, a line that explains it, and the pictures below, so many in a row."""

    title: str
    explained: str
    tiles: Sequence[Tile]
    columns: int


def columns_for(tiles: int, least: int = 5, most: int = 8) -> int:
    """Choose so many columns that the last row is as full as can be; the widest of equals."""
    if tiles <= least:
        return max(tiles, 1)
    return min(range(least, most + 1), key=lambda columns: (-tiles % columns, -columns))


def lay_out(sections: Sequence[Section], side_px: int) -> Pillow.Image:
    """Draw the sheet.

    Args:
        sections: one below the other.
        side_px: the side of a picture on the sheet.

    Returns:
        An RGB picture; its width follows from the columns and the side, its height from the captions.
    """
    columns = max(section.columns for section in sections)
    width = 2 * MARGIN_PX + columns * side_px + (columns - 1) * GAP_PX
    rows = [_rows(section, side_px) for section in sections]
    height = MARGIN_PX
    for section, inner in zip(sections, rows, strict=True):
        height += _head_px(section, width) + sum(side_px + _below_px(row) for row in inner) + GAP_PX
    sheet = Pillow.new("RGB", (width, height), PAPER)
    pen, y = ImageDraw.Draw(sheet), MARGIN_PX
    for section, inner in zip(sections, rows, strict=True):
        y = _head(pen, section, y, width)
        for row in inner:
            for column, (tile, lines) in enumerate(row):
                x = MARGIN_PX + column * (side_px + GAP_PX)
                pen.rectangle((x - 1, y - 1, x + side_px, y + side_px), outline=FRAME)  # white photos end too
                sheet.paste(_scaled(tile.image, side_px), (x, y))
                for i, line in enumerate(lines):
                    _write(pen, (x, y + side_px + AIR_PX + i * LINE_PX), line, CAPTION_PX, INK)
            y += side_px + _below_px(row)
        y += GAP_PX
    return sheet


TileRow = list[tuple[Tile, list[str]]]


def _rows(section: Section, side_px: int) -> list[TileRow]:
    laid = [(tile, _lines(tile.caption, side_px, tile.joint, CAPTION_PX)) for tile in section.tiles]
    return [laid[i : i + section.columns] for i in range(0, len(laid), section.columns)]


def _below_px(row: TileRow) -> int:
    most = max(len(lines) for _, lines in row)
    return (AIR_PX + most * LINE_PX if most else 0) + GAP_PX


def _head_px(section: Section, width: int) -> int:
    lines = len(_lines(section.explained, width - 2 * MARGIN_PX, " ", CAPTION_PX + 1))
    return TITLE_PX + AIR_PX + lines * (LINE_PX + 2) + GAP_PX


def _head(pen: ImageDraw.ImageDraw, section: Section, y: int, width: int) -> int:
    _write(pen, (MARGIN_PX, y), section.title, TITLE_PX, INK)
    lines = _lines(section.explained, width - 2 * MARGIN_PX, " ", CAPTION_PX + 1)
    for i, line in enumerate(lines):
        place = (MARGIN_PX, y + TITLE_PX + AIR_PX + i * (LINE_PX + 2))
        _write(pen, place, line, CAPTION_PX + 1, FAINT)
    return y + _head_px(section, width)


def _lines(text: str, width: int, joint: str, size: int) -> list[str]:
    """Break a text at its joints so that every line fits; what does not fit even so is cut in the middle."""
    lines: list[str] = []
    for part in filter(None, text.split(joint)):
        longer = f"{lines[-1]}{joint}{part}" if lines else part
        if lines and _font(longer, size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_cut(part, width, size))
    return lines


def _cut(text: str, width: int, size: int) -> str:
    keep, short = len(text), text
    while keep > 1 and _font(short, size).getlength(short) > width:
        keep -= 1
        short = f"{text[: keep // 2]}...{text[len(text) - keep // 2 :]}"
    return short


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, colour: str) -> None:
    pen.text(place, text, font=_font(text, size), fill=colour)


def _font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Take Pillow's own font, the same everywhere; other letters than ASCII's need another one."""
    return _load("" if text.isascii() else "DejaVuSans.ttf", size)


@cache
def _load(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return ImageFont.load_default(size)


def _scaled(image: Image, side_px: int) -> Pillow.Image:
    return ImageOps.pad(Pillow.fromarray(image), (side_px, side_px), Pillow.Resampling.LANCZOS, color=PAPER)
