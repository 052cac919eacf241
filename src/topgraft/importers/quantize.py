"""INT8 where it loses nothing: quantise a backbone on the user's own photos, and judge whether to keep it."""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from topgraft.backbones._cache import CARD, GRAPH, find, keep, remember
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Card
from topgraft.errors import UsageError
from topgraft.fingerprint import digest
from topgraft.settings import Settings
from topgraft.telemetry import import_silently
from topgraft.types import Image, Images

if TYPE_CHECKING:
    import onnx

PICTURES = 128
"""More than so many pictures say nothing new about the ranges of activations."""


def spread(photos: int) -> list[int]:
    """Return which of so many photos show the ranges, in the order of their ids: of all classes."""
    return [int(i) for i in np.linspace(0, photos - 1, min(PICTURES, photos))]


def quantize(backbone: Backbone, images: Images, *, settings: Settings | None = None) -> Backbone:
    """Return a backbone in 8-bit arithmetic, with the ranges that these pictures show (NNCF, post-training).

    The ONNX graph itself is quantised (QuantizeLinear and DequantizeLinear), so the predictor stays one file
    that any runtime reads. Weights use half of the 8-bit range: processors without VNNI add pairs of products
    in 16 bits, where the full range overflows and the features are others (measured in docs/backbones.md).
    Kept in the cache by backbone and pictures.

    Args:
        backbone: in f32.
        images: (N, H, W, 3) uint8, fitted training photos; 128 spread evenly over them count.
        settings: where the graph is kept.

    Returns:
        A backbone whose card says `int8`.

    Raises:
        MissingExtraError: without the `int8` extra.
        UsageError: for a backbone that is quantised already, or no pictures.
    """
    settings = settings or Settings.load()
    if backbone.card.precision == "int8":
        raise UsageError(f"{backbone.card.name}: is int8 already.")
    if not len(images):
        raise UsageError("quantize: expected at least one training photo, got none.")
    images = np.ascontiguousarray(images[spread(len(images))])
    request = {
        "int8 of": backbone.card.folder(),
        "pictures": digest(images.tobytes()),
        "weights": "7 bits",
    }
    place = find(settings.cache_dir, request)
    if place and (here := Backbone.kept(place)):
        return here
    place = keep(settings.cache_dir, lambda folder: _write(folder, backbone, images, request))
    remember(settings.cache_dir, request, place)
    return Backbone.open(place, ours=True)


def to_int8(
    model: onnx.ModelProto, inputs: Mapping[str, Callable[[], Image]], name: str, keep: Sequence[str] = ()
) -> onnx.ModelProto:
    """Quantise a graph with the ranges that some inputs show.

    Args:
        model: in f32.
        inputs: makers of (…) uint8 arrays by any name; each is made when its turn comes.
        name: of the graph's input.
        keep: regular expressions; nodes whose whole name one of them matches stay as they are.

    Raises:
        MissingExtraError: without the `int8` extra.
    """
    nncf = import_silently("nncf", "int8", "--precision int8")
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own way silences whoever listens to it, too
    with redirect_stdout(sys.stderr):  # it draws progress bars where results go
        return nncf.quantize(
            model,
            nncf.Dataset(list(inputs), lambda key: {name: inputs[key]()}),
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(patterns=list(keep), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
        )


def _write(folder: Path, backbone: Backbone, images: Images, request: dict[str, str]) -> Card:
    import onnx

    pictures = {str(i): partial(np.expand_dims, image, 0) for i, image in enumerate(images)}
    exact = onnx.load(backbone.graph)
    statistics = [re.escape(name) for name in _statistics(exact)]
    onnx.save(to_int8(exact, pictures, "images", keep=statistics), folder / GRAPH)
    # The name of what went in, not the hash of what came out: another NNCF may write other bytes.
    weights = hashlib.sha256(f"{backbone.card.weights_sha256} {request}".encode()).hexdigest()
    card = backbone.card.model_copy(update={"precision": "int8", "weights_sha256": weights})
    (folder / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
    return card


def _statistics(model: onnx.ModelProto) -> list[str]:
    """Name the nodes that make nothing but the statistics of blocks: these stay float32, they cost little."""
    makers = {value: node for node in model.graph.node for value in node.output}

    def behind(outputs: list[str]) -> set[str]:
        found, left = set(), list(outputs)
        while left:
            node = makers.get(left.pop())
            if node is not None and node.name not in found:
                found.add(node.name)
                left.extend(node.input)
        return found

    outputs = [output.name for output in model.graph.output]
    others = behind([name for name in outputs if name != "blocks"])
    return sorted(behind([name for name in outputs if name == "blocks"]) - others)
