"""Where a comparison reads features from, and which columns it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, get_args

import numpy as np

from topgraft.backbones.depths import Depths
from topgraft.config import DepthsChoice
from topgraft.errors import UnknownNameError, UsageError
from topgraft.heads._rows import SHARES
from topgraft.types import Features, Labels


class FeatureSource(Protocol):
    """What features are read from: a feature store, for one.

    Where it has `depths` (a `Depths` with blocks) and `blocks(view)`, block features are read as well.
    """

    @property
    def views(self) -> Sequence[Any]:
        """The views; 0 is the photo as it is."""
        ...

    def features(self, view: int = 0) -> Features:
        """Return (N, D), or maps (N, C, h, w)."""
        ...


def columns_of(source: FeatureSource | Features, depths: str = "auto") -> Depths | None:
    """Return which columns are read of a source; None where there is the last layer alone.

    Args:
        source: a store, or an array.
        depths: `auto` reads blocks where there are any, `last` never, `all` asks for them.

    Raises:
        UsageError: for `all` where there are no block features, or an unknown word.
    """
    if depths not in get_args(DepthsChoice):
        raise UnknownNameError("depths", depths, get_args(DepthsChoice))
    found: Depths | None = getattr(source, "depths", None)
    if found is None or not found.blocks:
        if depths == "all":
            raise UsageError(
                f"{getattr(source, 'path', 'features')}: --depths all expected block features, found the last"
                " layer's alone. Embed again with --depths all, or give --depths auto."
            )
        return None
    return None if depths == "last" else found


def combinations(columns: Depths | None, depths: str = "auto") -> list[str]:
    """Return the settings of `depths` that are compared: what share each group of columns has."""
    if columns is None or not columns.blocks or depths == "last":
        return ["last"]
    return [name for name in SHARES if depths == "auto" or name != "last"]


def stack(
    source: FeatureSource | Features, photos: Labels | None = None, columns: Depths | None = None
) -> Features:
    """Read all views of some photos into an array, in the precision they had.

    Args:
        source: a store, or an array.
        photos: (n,) which; None for all.
        columns: as `columns_of` gives them: with blocks, rows are of every depth.

    Returns:
        (V, n, D), (V, n, D + B) or (V, n, C, h, w).

    Raises:
        UsageError: for photos that were embedded as they are alone, where there are more views.
    """
    if isinstance(source, np.ndarray):
        everything = source[None] if source.ndim in (2, 4) else source
        return everything if photos is None else everything[:, photos]
    refuse_plain(source, photos)
    first = view_0(source, photos, columns)
    found = np.empty((len(source.views), *first.shape), first.dtype)
    found[0] = first
    for view in range(1, len(found)):
        found[view] = _view(source, view, photos, columns)
    return found


def refuse_plain(source: FeatureSource, photos: Labels | None = None) -> None:
    """Refuse to learn from photos that were embedded as they are alone, where others have more views.

    Raises:
        UsageError: counting them, with the next step.
    """
    plain: frozenset[str] = getattr(source, "plain", frozenset())
    if not plain or len(source.views) < 2:
        return
    ids = np.array(source.ids)[slice(None) if photos is None else photos]  # type: ignore[attr-defined]
    if bare := len(plain.intersection(ids.tolist())):
        raise UsageError(
            f"{getattr(source, 'path', 'features')}: {bare} photos were held out and have no view but 0."
            " Leave them out, or give them theirs: `topgraft embed` into this store with the same --policies."
        )


def view_0(
    source: FeatureSource | Features, photos: Labels | None = None, columns: Depths | None = None
) -> Features:
    """Return the photos as they are: the first of what `stack` returns."""
    if isinstance(source, np.ndarray):
        seen: Features = stack(source, photos, columns)[0]
        return seen
    return _view(source, 0, photos, columns)


def _view(source: FeatureSource, view: int, photos: Labels | None, columns: Depths | None) -> Features:
    parts: list[Features] = [source.features(view)]
    if columns is not None and columns.blocks:
        parts.append(source.blocks(view))  # type: ignore[attr-defined]
    if photos is not None:
        parts = [part[photos] for part in parts]
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
