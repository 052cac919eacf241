"""Policies: recipes of augmentation, how they are written, drawn and applied."""
