"""Which depths of the backbone the head leans on."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from topgraft._report.numbers import Numbers, pointer
from topgraft.selection.leaning import ALONE, thirds


@dataclass(frozen=True)
class Depths:
    """Shares of what moves the answers.

    Attributes:
        last: of the last layer, traceable.
        alone: whether that is all of it.
        parts: early, middle and late blocks and the last layer: name, what they know, share, length of bar.
        blocks: the same of every block, as a photo passes through them: name and share.
    """

    last: Markup
    alone: bool
    parts: list[tuple[str, str, Markup, float]]
    blocks: list[tuple[str, Markup]]


PARTS = (
    ("Early blocks", "colour, texture"),
    ("Middle blocks", "patterns, parts"),
    ("Late blocks", "parts, shapes"),
)


def depths(metrics: Numbers) -> Depths | None:
    """Sum up the depths; None where the head had only the last layer to read."""
    shares = metrics.facts.get("head", {}).get("depths") or []
    if len(shares) <= len(PARTS):
        return None
    at, groups = [pointer("head", "depths", i, "share") for i in range(len(shares))], thirds(shares)
    sums = [sum(shares[i]["share"] for i in group) for group in groups]
    last = shares[0]["share"]
    largest = max(*sums, last)
    parts = [
        (name, knows, metrics.sum([at[i] for i in group], "whole"), max(total, 0.0) / largest)
        for (name, knows), group, total in zip(PARTS, groups, sums, strict=True)
    ]
    parts.append(("Last layer", "whole things", metrics(at[0], "whole"), last / largest))
    blocks = [(shares[i]["block"], metrics(at[i], "percent")) for i in range(1, len(shares))]
    return Depths(
        metrics(at[0], "whole"), last >= ALONE, parts, [*blocks, ("last layer", metrics(at[0], "percent"))]
    )
