"""What a gallery of photos holds."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Shot:
    """One photo as it is shown: its id, what stands under it, and what a screen reader says."""

    id: str
    caption: Markup
    alt: str


@dataclass(frozen=True)
class Gallery:
    """Photos with something in common, and a sentence why they are worth a look.

    Attributes:
        also: those of them that a gallery above shows already.
        left_out: how many more there are.
    """

    anchor: str
    title: str
    why: str
    shots: list[Shot]
    left_out: int = 0
    also: tuple[Shot, ...] = ()
