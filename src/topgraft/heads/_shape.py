"""The shape of a small network: what two networks must share to train together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What two networks must share to train together.

    Attributes:
        widths: units of the hidden layers, first to last; empty is a linear head.
        norm: BatchNorm after every hidden layer.
        drop_input: Dropout on the features.
        drop_hidden: Dropout after every hidden layer.
    """

    widths: tuple[int, ...] = ()
    norm: bool = False
    drop_input: bool = False
    drop_hidden: bool = False
