"""Names for the arrays and callbacks that pass between modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""(H, W, 3) RGB."""
Images = NDArray[np.uint8]
"""(N, H, W, 3) RGB."""
Features = NDArray[np.floating[Any]]
"""(N, D) float16 at rest, float32 at work."""
Logits = NDArray[np.float64]
"""(N, C)."""
Probabilities = NDArray[np.float64]
"""(N, C), rows sum to 1."""
Labels = NDArray[np.int64]
"""(N,) class indices."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much is done, how much there is)."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Report no progress."""


def auto(_what: str, _done: int, _total: int) -> None:
    """Stand for bars where somebody watches, on a terminal or in a notebook, and silence elsewhere."""
