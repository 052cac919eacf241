"""Heads: the small classifiers on features, how they are compared, and how far they can be trusted."""

from __future__ import annotations

from topgraft.heads._base import HEADS, Head, Setting, head_class, setting_text, to_probabilities
from topgraft.heads._calibrate import calibrate
from topgraft.heads._compare import Choice, Comparison, FeatureSource, compare, fit_chosen, stack
from topgraft.heads._trust import Trust, trust
from topgraft.heads._unknown import Energy, NearestDistance, Unknown, WhitenedDistance
from topgraft.heads._worth import Worth, worth

__all__ = [
    "HEADS",
    "Choice",
    "Comparison",
    "Energy",
    "FeatureSource",
    "Head",
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
