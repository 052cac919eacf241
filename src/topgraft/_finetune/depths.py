"""Statistics of blocks as operations of the trained network, through which gradients flow.

The numbers are those of `backbones/_torch_depths.py`; two things differ for training's sake. A map is thinned
by slicing, which keeps nothing for the way back that a later operation could overwrite. And the spread of a
channel that does not vary has a gradient: that of a square root is infinite at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from topgraft.backbones._statistics import step
from topgraft.backbones._torch_depths import planes

STILL = 1e-12
"""A variance below it has no gradient, and its root as spread."""


def statistics(output: Tensor, *, token: bool, prefix: int, last: bool) -> Tensor:
    """Return one block's means (its class token behind them) and spreads (N, w); see `planes`."""
    pixels, first = planes(output, token=token, prefix=prefix, last=last)
    if pixels.ndim == 4 and (by := step(*pixels.shape[2:])) > 1:
        pixels = pixels[:, :, ::by, ::by]
    pixels = pixels.flatten(2)
    mean = pixels.mean(2, keepdim=True)
    spread = (pixels - mean).square().mean(2).clamp(min=STILL).sqrt()
    return torch.cat([mean.flatten(1), *first, spread], 1)


def every_depth(features: Tensor, blocks: Sequence[Tensor], means: Sequence[int]) -> Tensor:
    """Return rows (N, D + B) as `Depths` has them.

    Args:
        features: (N, D).
        blocks: of each block what `statistics` gives.
        means: how many of its columns are no spreads.
    """
    parts = [
        block.split([width, block.shape[1] - width], 1) for block, width in zip(blocks, means, strict=True)
    ]
    return torch.cat([features, *(part for part, _ in parts), *(part for _, part in parts)], 1)
