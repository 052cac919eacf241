"""Heads: the small classifiers on features, how they are compared, and how far they can be trusted."""

from __future__ import annotations

from topgraft.heads._base import HEADS, Head, Setting, head_class, setting_text, to_probabilities

__all__ = ["HEADS", "Head", "Setting", "head_class", "setting_text", "to_probabilities"]
