"""Heads: the small classifiers on features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topgraft.heads._base import HEADS, Head, Setting, head_class, setting_text, to_probabilities

if TYPE_CHECKING:
    from topgraft.heads._sklearn import HeadClassifier

__all__ = ["HEADS", "Head", "HeadClassifier", "Setting", "head_class", "setting_text", "to_probabilities"]


def __getattr__(name: str) -> Any:
    """Import scikit-learn only for those who ask for an estimator."""
    if name == "HeadClassifier":
        from topgraft.heads._sklearn import HeadClassifier

        return HeadClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
