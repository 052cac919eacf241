"""Folds side by side: one core each.

Matrix products on all cores at once would make the last bits depend on how many cores there are, and crawl
where others use them too. One fold per thread and one core per product does neither.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from topgraft.fingerprint import digest
from topgraft.settings import Settings

Item = TypeVar("Item")
Result = TypeVar("Result")


@functools.cache
def _libraries() -> ThreadpoolController:
    """Return the matrix libraries of numpy and scipy: once, for it takes milliseconds."""
    import scipy.linalg  # noqa: F401 - so that its library is there to be found

    return ThreadpoolController()


@contextmanager
def one_core() -> Iterator[None]:
    """Let every matrix product use one core, so that its last bits do not depend on how many there are."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


def content(arrays: Iterable[NDArray[Any]], of: str = "") -> str:
    """Return a name for what is made of these arrays, by their numbers, shapes and types.

    Args:
        arrays: of any shape.
        of: what else it depends on.
    """
    each = (f"{array.shape} {array.dtype.str} {digest(np.ascontiguousarray(array).data)}" for array in arrays)
    return digest(" ".join([of, *each]).encode())


@dataclass(frozen=True)
class Compute:
    """Where heads are fitted, and what one of them prepared that the next asks for, too.

    Attributes:
        settings: cores and device.
        prepared: by content, kept as long as this is: for one comparison.
    """

    settings: Settings = field(default_factory=Settings.load)
    prepared: dict[str, Any] = field(default_factory=dict, repr=False)

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Do the same work on every item, as many at once as there are cores; results in their order.

        The work must release the interpreter lock where it is long (numpy and scipy do).
        """
        with one_core(), ThreadPoolExecutor(self.settings.threads) as pool:
            return list(pool.map(work, items))
