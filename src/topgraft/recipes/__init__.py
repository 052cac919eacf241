"""Recipes that come along, each a TOML file that opens with its command and what to expect of it."""

from __future__ import annotations

from pathlib import Path

from topgraft.errors import UnknownNameError

SHIPPED = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}
"""By the names that stand for their paths."""


def find_recipe(name: str | Path) -> Path:
    """Return the file of a recipe: a path, or the name of one that comes along.

    Raises:
        UnknownNameError: for a name that is no path and no recipe.
    """
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        return path
    if str(name) not in SHIPPED:
        raise UnknownNameError("recipe", str(name), SHIPPED)
    return SHIPPED[str(name)]
