"""Backbones as values: a card, a graph, the fit of a photo to it, and the default weights."""
