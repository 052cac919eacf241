"""The feature store: what `embed` writes and training reads."""

from __future__ import annotations

from topgraft.store.store import FeatureStore, Work

__all__ = ["FeatureStore", "Work"]
