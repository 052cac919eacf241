"""Pixels as the network takes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from topgraft.backbones.card import Card
from topgraft.types import Images


def normalised(images: Images, card: Card, device: torch.device) -> Tensor:
    """Turn pictures (N, H, W, 3) into what the network takes: (N, 3, H, W) float32, channels last in memory.

    The arithmetic of the backbone's own graph, so that activations are those of the head's features.
    """
    mean, std = (
        torch.tensor(numbers, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        for numbers in (card.mean, card.std)
    )
    levels = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float()
    return (levels - mean * 255) * (1 / (std * 255))
