"""Whether rows may be stored in float16: decided once for a backbone, on pictures."""

from __future__ import annotations

import numpy as np

from topgraft.backbones.card import Kind
from topgraft.backbones.depths import Depths
from topgraft.types import Features

ROOM = 16
"""How many times larger a photo's numbers may be than those of the pictures."""
LOSS = 0.01
"""The largest rounding that is let pass, as a share of what tells the pictures apart."""


def beyond_float16(rows: Features, depths: Depths) -> tuple[Kind, ...]:
    """Name the parts of rows that have to be stored in float32.

    Args:
        rows: (N, D + B) float32 of a few different pictures.
        depths: which columns are which.

    Returns:
        `features` or `blocks` where one of their numbers comes near to what float16 holds (65504), or so much
        is lost to rounding that the pictures would look alike.
    """
    parts: dict[Kind, Features] = {"features": rows[:, : depths.last], "blocks": rows[:, depths.last :]}
    return tuple(name for name, part in parts.items() if part.size and not _fits(part))


def _fits(rows: Features) -> bool:
    rows = rows.astype(np.float64)
    if ROOM * np.abs(rows).max() > np.finfo(np.float16).max:
        return False
    apart = np.linalg.norm(rows - rows.mean(axis=0))
    return bool(np.linalg.norm(rows.astype(np.float16) - rows) <= LOSS * apart)
