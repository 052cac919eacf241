"""What notebooks show of Topgraft's things: a small table, or a data frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from topgraft.errors import MissingPandasError

MOST = 20
"""Rows of a table that are shown."""


def facts(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a table of facts as HTML: a name and a value a row; empty values are left out."""
    left = ' style="text-align:left"'
    lines = "".join(
        f"<tr><th{left}>{escape(name)}</th><td{left}>{escape(str(value))}</td></tr>"
        for name, value in rows
        if value not in ("", None)
    )
    return f"<table><caption>{escape(title)}</caption>{lines}</table>"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows under their names as HTML; what is too long is cut, and the number left out is said."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows[:MOST]
    )
    more = f"<p>and {len(rows) - MOST:,} more</p>" if len(rows) > MOST else ""
    return f"<table><caption>{escape(title)}</caption><tr>{head}</tr>{lines}</table>{more}"


def frame(rows: Iterable[Mapping[str, object]]) -> Any:
    """Return rows as a pandas DataFrame.

    Raises:
        MissingPandasError: where pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise MissingPandasError from error
    return pd.DataFrame.from_records(list(rows))


def listed(counts: Mapping[str, int], most: int = 8) -> str:
    """Write counts by name; of many, the first."""
    names = ", ".join(f"{name} {n:,}" for name, n in list(counts.items())[:most])
    return f"{names} and {len(counts) - most} more" if len(counts) > most else names
