"""Heads: the small classifiers on features, how they are compared, and how far they can be trusted."""

from __future__ import annotations

from topgraft.heads._base import HEADS, Head, Setting, head_class, setting_text, to_probabilities
from topgraft.heads._calibrate import calibrate
from topgraft.heads._compare import Choice, Comparison, FeatureSource, compare, fit_chosen, stack

__all__ = [
    "HEADS",
    "Choice",
    "Comparison",
    "FeatureSource",
    "Head",
    "Setting",
    "calibrate",
    "compare",
    "fit_chosen",
    "head_class",
    "setting_text",
    "stack",
    "to_probabilities",
]
