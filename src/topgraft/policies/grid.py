"""Tables of policies on offer, and the seeded choice from them.

A grid is a product of named axes; each level of an axis is a piece of a policy string. The last axis runs
fastest.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import overload

import numpy as np

from topgraft import files
from topgraft.errors import UnknownNameError, UsageError
from topgraft.policies import terms
from topgraft.policies.policy import OPS, Policy, uniforms


@dataclass(frozen=True)
class Grid(Sequence[Policy]):
    """A table of policies: a sequence that makes its cells when asked.

    Attributes:
        name: what it is called.
        axes: (name, levels) pairs, slowest first; a level is a policy string, `none` for nothing.

    Raises:
        UsageError: for an axis without levels, or levels that cannot stand together.
    """

    name: str
    axes: tuple[tuple[str, tuple[str, ...]], ...]

    def __post_init__(self) -> None:
        for axis, levels in self.axes:
            if not levels:
                raise UsageError(f"grid {self.name}: axis {axis} has no levels. Give it at least `none`.")
        sets: list[tuple[str, set[str]]] = []
        for axis, levels in self.axes:
            fields: set[str] = set()
            for level in levels:
                try:
                    Policy.parse(level)
                except UsageError as error:
                    raise UsageError(f"grid {self.name}, axis {axis}: {error}") from error
                fields |= terms.read(level, OPS).keys()
            sets.append((axis, fields))
        for (one, its), (other, theirs) in itertools.combinations(sets, 2):
            if both := sorted(its & theirs):  # found here, not in the middle of a draw
                raise UsageError(
                    f"grid {self.name}: the axes {one} and {other} both set {' and '.join(both)}."
                    " Leave that to one of them."
                )

    def __len__(self) -> int:
        return math.prod(len(levels) for _, levels in self.axes)

    @overload
    def __getitem__(self, index: int) -> Policy: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Policy, ...]: ...
    def __getitem__(self, index: int | slice) -> Policy | tuple[Policy, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(len(self))[index])
        return Policy.parse(" | ".join(self.levels(index).values()))

    def __iter__(self) -> Iterator[Policy]:
        cells = itertools.product(*(levels for _, levels in self.axes))
        return (Policy.parse(" | ".join(cell)) for cell in cells)

    def levels(self, index: int) -> dict[str, str]:
        """Return the level of every axis in the cell at an index."""
        rest = range(len(self))[index]
        taken = {}
        for axis, levels in reversed(self.axes):
            rest, place = divmod(rest, len(levels))
            taken[axis] = levels[place]
        return {axis: taken[axis] for axis, _ in self.axes}

    def distinct(self) -> tuple[Policy, ...]:
        """List the policies that differ, each where it first stands (a fill says nothing on its own)."""
        return tuple(dict.fromkeys(self))

    @classmethod
    def load(cls, name_or_path: str | Path) -> Grid:
        """Take a grid by its name, or read one from a TOML file.

        ```toml
        name = "mine"
        [axes]                                # the last one runs fastest
        rotation = ["none", "rotate(30)"]
        flip = ["hflip"]
        ```

        Raises:
            UsageError: for a file that is no grid; UnknownNameError for a name nobody knows.
        """
        if str(name_or_path) in GRIDS:
            return GRIDS[str(name_or_path)]
        path = Path(name_or_path)
        if path.suffix != ".toml":
            raise UnknownNameError("grid", str(name_or_path), GRIDS)
        try:
            table = tomllib.loads(files.text(path).replace("\r\n", "\n"))
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{path}: no grid can be read here ({files.said(error)}).") from error
        return cls(str(table.get("name", path.stem)), _axes(path, table.get("axes")))


def draw(
    n: int, seed: int = 0, grid: str | Path | Grid = "grid288", replace: bool = False
) -> tuple[Policy, ...]:
    """Return n policies chosen from a grid.

    A larger n only adds to what a smaller one chose, so that features made for 16 policies serve for 32 too.
    Without replacement, policies that say the same as one already chosen come last.

    Args:
        n: how many.
        seed: another seed, another choice.
        grid: a Grid, the name of one, or a TOML file.
        replace: whether a cell may be chosen again.

    Raises:
        UsageError: for more than there are without replacement; it says how many there are.
    """
    table = grid if isinstance(grid, Grid) else Grid.load(grid)
    if n < 0:
        raise UsageError(f"policies must be 0 or more, got {n}.")
    if replace:
        return tuple(table[int(u * len(table))] for u in uniforms(["draw", seed, "again"], n))
    cells = len(table)
    if n > cells:
        raise UsageError(
            f"grid {table.name} has {cells} policies ({len(table.distinct())} of them distinct), "
            f"{n} were asked for. Ask for {cells} at most, or draw with replacement."
        )
    policies = _cells(table)
    shuffled = [policies[int(i)] for i in np.argsort(uniforms(["draw", seed], cells), kind="stable")]
    first = list(dict.fromkeys(shuffled))
    repeats = Counter(shuffled) - Counter(first)
    return tuple([*first, *repeats.elements()][:n])


@cache
def _cells(table: Grid) -> tuple[Policy, ...]:
    """Return a grid's policies, parsed once: hundreds of strings."""
    return tuple(table)


def _axes(path: Path, found: object) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(found, dict) or not found:
        raise UsageError(f"{path}: expected a table [axes] with a list of policy strings each.")
    for axis, levels in found.items():
        if not isinstance(levels, list) or not all(isinstance(level, str) for level in levels):
            raise UsageError(f"{path}: axis {axis} must be a list of policy strings, got {levels!r}.")
    return tuple((axis, tuple(levels)) for axis, levels in found.items())


GRIDS: dict[str, Grid] = {
    table.name: table
    for table in (
        Grid(
            "grid288",
            (
                ("rotation", ("none", "rotate(60)", "rotate(120)")),
                # shear is the shift's number read as radians: 0.3 and 0.6 rad
                ("shift", ("none", "shift(0.3) | shear(17.19)", "shift(0.6) | shear(34.38)")),
                ("zoom", ("none", "zoom(0.7,1.3)", "zoom(0.4,1.6)", "zoom(0.1,1.9)")),
                ("channel_shift", ("none",)),
                ("flip", ("hflip", "vflip")),
                ("fill", ("fill(constant)", "fill(nearest)", "fill(reflect)", "fill(wrap)")),
            ),
        ),
        Grid(
            "gentle",
            (
                ("rotation", ("none", "rotate(10)", "rotate(20)")),
                ("shift", ("none", "shift(0.05)", "shift(0.1)")),
                ("zoom", ("none", "zoom(0.9,1.1)", "zoom(0.8,1.2)")),
                ("crop", ("none", "crop(random,0.85)")),
                ("flip", ("hflip",)),
            ),
        ),
        Grid(
            "photo",
            (
                ("rotation", ("none", "rotate(15)")),
                ("crop", ("none", "crop(random,0.85)", "crop(random,0.7)")),
                ("light", ("none", "brightness(0.7,1.3)", "brightness(0.8,1.2) | contrast(0.7,1.4)")),
                ("colour", ("none", "saturation(0.5,1.5)")),
                ("detail", ("none", "blur(0.01)", "erase(0.4)")),
                ("flip", ("hflip",)),
            ),
        ),
        Grid(
            "any-angle",
            (
                ("rotation", ("rotate(180)",)),
                ("shift", ("none", "shift(0.1)", "shift(0.2)")),
                ("zoom", ("none", "zoom(0.8,1.2)", "zoom(0.6,1.4)")),
                ("shear", ("none", "shear(10)")),
                ("light", ("none", "brightness(0.8,1.2)")),
                ("flip", ("hflip",)),
            ),
        ),
    )
}
"""The grids that come with Topgraft: the classic one, and three for photos of things as they stand, for light
and lens as well, and for pictures that have no up (seen from above, or through a microscope)."""
