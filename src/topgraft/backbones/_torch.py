"""A backbone's network in PyTorch again, from the weights in its folder."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from topgraft.backbones import _builtin
from topgraft.backbones._cache import TIMM
from topgraft.backbones._torch_depths import blocks, statistics
from topgraft.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from topgraft.backbones.backbone import Backbone
    from topgraft.backbones.card import Card


@contextmanager
def system_errors() -> Iterator[None]:
    """Let what the system said to safetensors be an OSError, as it is for any other file."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def torch_model(backbone: Backbone) -> torch.nn.Module:
    """Return a backbone's network again, with its weights and without a classifier, in evaluation mode.

    Raises:
        BackboneError: for a backbone that is nothing but a graph.
    """
    import timm

    if backbone.card.source == "builtin":
        return _builtin_model(_builtin.named(backbone.card.name))
    folder = backbone.graph.parent / TIMM
    if not folder.is_dir():
        raise BackboneError(
            f"{backbone.card.name}: it is a graph without PyTorch weights, which this needs. "
            "Choose a timm backbone, or the openvino engine."
        )
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def _builtin_model(lite: _builtin.Lite) -> torch.nn.Module:
    import timm

    model = timm.create_model(lite.name.partition(".")[0])
    names = model.state_dict()
    tensors = _builtin.read_weights(lite).values()  # in the same order, under other names
    model.load_state_dict(
        {name: torch.from_numpy(np.array(t)) for name, t in zip(names, tensors, strict=True)}
    )
    model.reset_classifier(0)
    return model.eval()


class FromPixels(torch.nn.Module):  # type: ignore[misc]
    """A network with its normalisation in front, from (N, H, W, 3) uint8.

    Returns tensors in the order of `outputs`: features (N, D), map (N, C, h, w) and blocks (N, B), those that
    the card has.
    """

    def __init__(self, model: torch.nn.Module, card: Card) -> None:
        super().__init__()
        self.model = model
        self.mapped, self.depths = card.map_size is not None, card.depths
        self.outputs = ["features", *["map"] * self.mapped, *["blocks"] * bool(card.depths)]
        self.channels_last = self.mapped and getattr(model, "output_fmt", "NCHW") == "NHWC"
        mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (card.mean, card.std))
        self.register_buffer("pixel_mean", mean * 255, persistent=False)
        self.register_buffer("scale", 1 / (std * 255), persistent=False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Normalise, run, and pool."""
        levels = images.permute(0, 3, 1, 2).float()
        with statistics(self.model, self.depths) as found:
            maps = self.model.forward_features((levels - self.pixel_mean) * self.scale)
            given = [self.model.forward_head(maps, pre_logits=True)]
        if self.mapped:
            given.append(maps.permute(0, 3, 1, 2) if self.channels_last else maps)
        if self.depths:
            given.append(blocks(found, self.depths))
        return tuple(given)


def groups(model: torch.nn.Module) -> list[tuple[str, list[str]]]:
    """Return the blocks that fine-tuning can unfreeze, first to last, and the names of their parameters.

    They are the groups of timm's own matcher, at its finer grain, without the stem, which stays frozen; none
    where timm has no matcher for the model.
    """
    from timm.models import group_parameters

    if not hasattr(model, "group_matcher"):
        return []
    matcher = model.group_matcher(coarse=False)
    found = group_parameters(model, matcher)
    blocks = [names for layer, names in sorted(found.items()) if layer > 0]
    short = [_prefix(names) for names in blocks]
    longer = [_prefix(names, deeper=1) for names in blocks]
    unique = [a if short.count(a) == 1 else b for a, b in zip(short, longer, strict=True)]
    return list(zip(unique, blocks, strict=True))


def _prefix(names: list[str], deeper: int = 0) -> str:
    """Return the longest dotted start a block's first parameters share, and more parts of the first's."""
    paths = [name.split(".")[:-1] for name in names if name.split(".")[0] == names[0].split(".")[0]]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join([*shared, *paths[0][len(shared) : len(shared) + deeper]])
