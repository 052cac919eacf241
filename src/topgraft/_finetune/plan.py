"""What a fine-tuning is asked to do, and whether that can be done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf
from typing import Any, Literal

from topgraft.backbones.card import Card
from topgraft.errors import BackboneError, UsageError

Blocks = int | Literal["auto"]
Line = dict[str, Any]
"""What is known of one epoch: epoch, rate, train_loss, loss and accuracy on photos kept apart, seconds."""
TRIED = (1, 2, 3, 5)
"""How many blocks `auto` tries beside none."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a tail is trained.

    Attributes:
        epochs: at most.
        batch: photos a step.
        rate: peak learning rate of the last block.
        depth: every block deeper has this times the rate of the one above it, in (0, 1].
        head_rate: peak learning rate of the head.
        blend: share of the way from the weights it began with to the trained ones at which the result lies.
        weight_decay: of AdamW.
        warmup: share of the steps spent rising to the peak.
        patience: epochs without a better loss on the photos kept apart, until it stops.
        held: share of the training side kept apart to stop by.
        refit: once the best epoch is known, train again for so many epochs on all photos, those kept apart
            included; without it the weights of the best epoch are the result.
        batch_norm: `frozen` leaves BatchNorm in inference mode, `train` lets it learn its statistics.
        seed: decides order, views and which photos are kept apart.
    """

    epochs: int = 30
    batch: int = 32
    rate: float = 1e-4
    depth: float = 0.5
    head_rate: float = 1e-4
    blend: float = 0.25
    weight_decay: float = 0.01
    warmup: float = 0.1
    patience: int = 5
    held: float = 0.2
    refit: bool = True
    batch_norm: Literal["frozen", "train"] = "frozen"
    seed: int = 0

    def __post_init__(self) -> None:
        right = {
            "epochs": self.epochs >= 1,
            "batch": self.batch >= 1,
            "rate": 0 < self.rate < inf,
            "depth": 0 < self.depth <= 1,
            "head_rate": 0 < self.head_rate < inf,
            "blend": 0 < self.blend <= 1,
            "weight_decay": 0 <= self.weight_decay < inf,
            "warmup": 0 <= self.warmup < 1,
            "patience": self.patience >= 1,
            "held": 0 < self.held < 1,
            "batch_norm": self.batch_norm in ("frozen", "train"),
        }
        wanted = {
            "depth": "above 0 and at most 1",
            "blend": "above 0 and at most 1",
            "held": "between 0 and 1",
            "weight_decay": "at least 0",
            "warmup": "at least 0 and below 1",
            "batch_norm": "frozen or train",
        }
        for name, good in right.items():
            if not good:
                least = "at least 1" if isinstance(getattr(self, name), int) else "above 0"
                raise UsageError(f"{name} must be {wanted.get(name, least)}, got {getattr(self, name)!r}.")

    def facts(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def choices(card: Card, blocks: Blocks | str) -> list[int]:
    """Say how many last blocks are to be tried, each in its turn.

    Raises:
        BackboneError: for a backbone without PyTorch weights or named blocks.
        UsageError: for a number of blocks it does not have.
    """
    if card.source not in ("timm", "builtin"):
        raise BackboneError(
            f"{card.name}: it is a graph without PyTorch weights, so it cannot be fine-tuned."
            " Train a run on a timm backbone first."
        )
    if card.precision != "f32":
        raise BackboneError(
            f"{card.name}: its graph is {card.precision}, which cannot be fine-tuned."
            " Train with --precision f32."
        )
    most = len(card.blocks)
    if not most:
        raise BackboneError(
            f"{card.name}: it has no named blocks, so none can be unfrozen. Fine-tune another backbone."
        )
    if blocks == "auto":
        return [k for k in TRIED if k <= most]
    count = int(blocks) if str(blocks).isdecimal() else -1
    if not 0 <= count <= most:
        raise UsageError(
            f"`blocks` must be 0 to {most} for {card.name}, or auto, got {blocks}."
            f" Try `--blocks {min(3, most)}`."
        )
    return [count] if count else []
