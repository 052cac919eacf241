"""Heads: the small classifiers on features, how they are compared, and how far they can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topgraft.heads._base import HEADS, Head, Setting, head_class, setting_text, to_probabilities
from topgraft.heads._calibrate import calibrate
from topgraft.heads._compare import Choice, Comparison, FeatureSource, compare, fit_chosen, stack
from topgraft.heads._trust import Trust, trust
from topgraft.heads._unknown import Energy, NearestDistance, Unknown, WhitenedDistance
from topgraft.heads._worth import Worth, worth

if TYPE_CHECKING:
    from topgraft.heads._sklearn import HeadClassifier

__all__ = [
    "HEADS",
    "Choice",
    "Comparison",
    "Energy",
    "FeatureSource",
    "Head",
    "HeadClassifier",
    "NearestDistance",
    "Setting",
    "Trust",
    "Unknown",
    "WhitenedDistance",
    "Worth",
    "calibrate",
    "compare",
    "fit_chosen",
    "head_class",
    "setting_text",
    "stack",
    "to_probabilities",
    "trust",
    "worth",
]


def __getattr__(name: str) -> Any:
    """Import scikit-learn only for those who ask for an estimator."""
    if name == "HeadClassifier":
        from topgraft.heads._sklearn import HeadClassifier

        return HeadClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
