"""What an op is: one object for each thing that a policy may do to a picture.

A field of `Policy` names its limit and its op. All else follows from the two: which values are refused, how
the term is read and written, what is drawn, what happens to pixels, and the table in docs/policies.md. The
ops themselves stand in `geometry` and `photometry`, each below its pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from topgraft.types import Image

Matrix = NDArray[np.float64]
"""(3, 3), output point to source point, in (x, y, 1)."""

Values = tuple[Any, ...]
"""Values of an op's fields, in the order of the fields."""


@dataclass(frozen=True)
class Number:
    """What a field may be: a number, least and most allowed.

    Attributes:
        least, most: the ends.
        unit: how they are read: `0 to 360 degrees`.
        whole: whether it must be a whole number.
    """

    least: float
    most: float
    unit: str
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.least} to {self.most} {self.unit}"

    def problem(self, value: Any) -> str:
        """Return what a value must do to be allowed; empty if it is."""
        if not _within(value, self.least, self.most):
            return f"be {self}"
        return "be a whole number" if self.whole and value != round(value) else ""

    def plain(self, value: Any) -> float:
        """Return an allowed value as Python's own number."""
        return round(value) if self.whole else _plain(value)


@dataclass(frozen=True)
class Pair:
    """What a field may be: (low, high), two numbers within the same ends.

    Attributes:
        least, most, unit: as for `Number`.
    """

    least: float
    most: float
    unit: str

    def __str__(self) -> str:
        return f"{self.least} to {self.most} {self.unit}"

    def problem(self, value: Any) -> str:
        """Return what a value must do to be allowed; empty if it is."""
        if not (isinstance(value, tuple) and len(value) == 2):
            return "be a pair (low, high)"
        if not all(_within(end, self.least, self.most) for end in value):
            return f"be {self}"
        return "go from low to high" if value[0] > value[1] else ""

    def plain(self, value: Any) -> tuple[float, float]:
        """Return an allowed value as two of Python's own numbers."""
        low, high = value
        return _plain(low), _plain(high)


@dataclass(frozen=True)
class Choice:
    """What a field may be: one of a few values.

    Attributes:
        options: those values.
    """

    options: tuple[Any, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.options))

    def problem(self, value: Any) -> str:
        """Return what a value must do to be allowed; empty if it is."""
        return "" if value in self.options else f"be one of {self}"

    def plain(self, value: Any) -> Any:
        """Return the option that a value equals: True for numpy's True."""
        return self.options[self.options.index(value)]


Limit = Number | Pair | Choice


def _within(value: Any, least: float, most: float) -> bool:
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return is_number and bool(least <= value <= most)


def _plain(value: float) -> float:
    return float(value) + 0.0  # numpy's numbers print in their own way, and so does -0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Op:
    """What may happen to a picture: a term of policy strings, its draws and its pixels.

    Attributes:
        forms: how the term is written; errors and the docs show them.
        says: what may happen, for the docs.
        read: takes the words between the brackets, returns field values; ValueError if they are none.
        write: takes field values, returns the words between the brackets; none for a bare term.
        slots: which of a view's uniform numbers the op draws from. They are its own for good: with others,
            people's stored features would no longer belong to their address.
        draw: takes the uniforms of the slots, then field values; returns the numbers for move or paint.
        move: takes height and width in pixels, then the drawn numbers; returns a matrix about the centre.
        paint: takes the image, then the drawn numbers; returns a new image.
        canonical: takes field values, returns those that say the same in the one way.
        reveals: whether points from beyond the border can come into sight, so that the fill matters.
    """

    forms: tuple[str, ...]
    says: str
    read: Callable[[Sequence[str]], Values]
    write: Callable[..., Sequence[str]]
    slots: tuple[int, ...] = ()
    draw: Callable[..., Values] | None = None
    move: Callable[..., Matrix] | None = None
    paint: Callable[..., Image] | None = None
    canonical: Callable[..., Values] = lambda *values: values
    reveals: bool = False

    @functools.cached_property
    def term(self) -> str:
        """The name of the term: `rotate` of `rotate(degrees)`."""
        return self.forms[0].partition("(")[0]

    def text(self, values: Values) -> str:
        """Return the term as it is printed: `rotate(60)`."""
        words = self.write(*values)
        return f"{self.term}({','.join(words)})" if words else self.term


def either_way(
    form: str,
    says: str,
    *,
    slot: int,
    move: Callable[[float], Matrix] | None = None,
    paint: Callable[[Image, float], Image] | None = None,
) -> Op:
    """Return an op with one number, drawn uniformly from minus to plus it."""
    return Op(
        forms=(form,),
        says=says,
        read=read_number,
        write=write_numbers,
        slots=(slot,),
        draw=lambda u, most: (between(-most, most, u[0]),),
        move=move and (lambda _height, _width, amount: move(amount)),
        paint=paint,
        reveals=move is not None,
    )


def up_to(form: str, says: str, *, slot: int, paint: Callable[[Image, float], Image]) -> Op:
    """Return an op with one number, drawn uniformly from 0 to it."""
    return Op(
        forms=(form,),
        says=says,
        read=read_number,
        write=write_numbers,
        slots=(slot,),
        draw=lambda u, most: (u[0] * most,),
        paint=paint,
    )


def factor_between(form: str, says: str, *, slot: int, paint: Callable[[Image, float], Image]) -> Op:
    """Return an op with a pair (low, high), drawn uniformly between the two; 1 changes nothing."""
    return Op(
        forms=(form,),
        says=says,
        read=read_pair,
        write=write_pair,
        slots=(slot,),
        draw=lambda u, pair: (between(pair[0], pair[1], u[0]),),
        paint=paint,
    )


def between(low: float, high: float, u: float) -> float:
    """Return the point between low and high at u, 0 to 1."""
    return low + (high - low) * u


def read_number(words: Sequence[str]) -> Values:
    """Read `60`."""
    (value,) = words
    return (float(value),)


def read_pair(words: Sequence[str]) -> Values:
    """Read `0.7,1.3`; a single number z means 1 - z to 1 + z, as in Keras."""
    if len(words) == 1:
        return ((1 - float(words[0]), 1 + float(words[0])),)
    low, high = map(float, words)
    return ((low, high),)


def write_numbers(*values: float) -> list[str]:
    """Write each number in the shortest exact way, 60.0 as `60`."""
    return [repr(value).removesuffix(".0") for value in values]


def write_pair(pair: tuple[float, float]) -> list[str]:
    """Write both ends."""
    return write_numbers(*pair)
