"""What a row of every depth holds: the last layer, then statistics of every block's output.

    last (D)  |  means of all blocks  |  spreads of all blocks

A block's mean and spread (standard deviation) are taken over its map, each channel by itself; over its tokens
where it has no map, and then its class token lies beside the mean where there is one.

Source of the idea: Evci and others, Head2Toe (arXiv:2201.03529).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Statistic = Literal["means", "spreads"]


class Depth(BaseModel):
    """One block whose output is read.

    Attributes:
        name: timm's module path or group name, for example `blocks.6.0`; the tensor's in an ONNX file.
        channels: how many means it gives, and how many spreads.
        token: whether its class token, as wide again, lies behind its means.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    channels: int = Field(gt=0)
    token: bool = False

    def width(self, statistic: Statistic) -> int:
        """Return how many columns of a statistic are this block's."""
        return self.channels * (2 if self.token and statistic == "means" else 1)


@dataclass(frozen=True)
class Depths:
    """Which columns of a row are which.

    Attributes:
        last: D, the width of the last layer's features.
        blocks: the blocks that are read, first to last; none where the last layer is all there is.
    """

    last: int
    blocks: tuple[Depth, ...] = ()

    @property
    def width(self) -> int:
        """How many columns a row has: D + B."""
        return self.last + self.extra

    @property
    def extra(self) -> int:
        """B, how many columns are the blocks'."""
        return sum(block.width("means") + block.width("spreads") for block in self.blocks)

    def groups(self) -> dict[str, slice]:
        """Return the columns of `last`, `means` and `spreads`; those alone that there are."""
        means = self.last + sum(block.width("means") for block in self.blocks)
        found = {"last": slice(0, self.last)}
        if self.blocks:
            found |= {"means": slice(self.last, means), "spreads": slice(means, self.width)}
        return found

    def columns(self, block: str, statistic: Statistic) -> slice:
        """Return the columns of one block's means (and class token) or spreads.

        Raises:
            KeyError: for a block that is not read.
        """
        start = self.groups()[statistic].start if self.blocks else 0
        for depth in self.blocks:
            end = start + depth.width(statistic)
            if depth.name == block:
                return slice(start, end)
            start = end
        raise KeyError(block)
