"""Two backbones or more as one: a graph that gives what all of them say of a picture, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from topgraft import files
from topgraft.backbones._cache import CARD, GRAPH
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Card
from topgraft.backbones.depths import Depth, Statistic
from topgraft.errors import BackboneError
from topgraft.fingerprint import fingerprint
from topgraft.nodes import opset


def write(folder: Path, parts: Sequence[Backbone]) -> Card:
    """Write the folder of several backbones that take pictures of one size.

    A row is the last layers of all, part by part. The blocks of all lie behind them as `Depths` wants it,
    those that lie early in their network before those that lie late, whichever network it is.

    Args:
        folder: an empty folder.
        parts: the backbones; the last one's card says how pictures are fitted.

    Raises:
        BackboneError: for graphs that cannot be put into one.
    """
    card = card_of([part.card for part in parts])
    model = _merged([onnx.load(part.graph) for part in parts], card.name)
    _join_outputs(model.graph, [part.card for part in parts], card)
    onnx.checker.check_model(model)
    onnx.save(model, folder / GRAPH)
    (folder / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
    return card


def card_of(cards: Sequence[Card]) -> Card:
    """Return the card of several backbones as one.

    Raises:
        BackboneError: for backbones that cannot be one.
    """
    for card in cards:
        if card.input_size != cards[-1].input_size:
            raise BackboneError(
                f"{card.name}: takes pictures of {card.input_size[0]} pixels a side, and {cards[-1].name} of"
                f" {cards[-1].input_size[0]}. Give both of one side, as NAME@SIDE."
            )
        if card.precision != "f32" or card.output != "features":
            raise BackboneError(f"{card.name}: expected features in float32. Join others.")
    maps = [card.map_size for card in cards if card.map_size]
    same = len(maps) == len(cards) and len({size[1:] for size in maps}) == 1
    return cards[-1].model_copy(
        update={
            "name": "+".join(card.name for card in cards),
            "features": sum(card.features for card in cards),
            "map_size": (sum(size[0] for size in maps), *maps[0][1:]) if same else None,
            "blocks": (),
            "depths": tuple(_by_depth(cards)),
            "float32": tuple(sorted({kind for card in cards for kind in card.float32})),
            "licence": " and ".join(dict.fromkeys(card.licence for card in cards)),
            "origin": " + ".join(card.origin for card in cards),
            "weights_sha256": fingerprint([card.fingerprint() for card in cards]),
            "source": "joined",
        }
    )


def _by_depth(cards: Sequence[Card]) -> list[Depth]:
    """Order the blocks of all by how deep in their network they lie, and name each with its part's place.

    None are read unless all parts have some: a row of one network's inner layers alone would be lopsided.
    """
    if not all(card.depths for card in cards):
        return []
    found = [
        ((number + 0.5) / len(card.depths), part, depth.model_copy(update={"name": f"{part}/{depth.name}"}))
        for part, card in enumerate(cards)
        for number, depth in enumerate(card.depths)
    ]
    return [depth for _, _, depth in sorted(found, key=lambda entry: entry[:2])]


def _merged(models: list[onnx.ModelProto], name: str) -> onnx.ModelProto:
    """Put graphs beside each other, the names of each behind its number, all on one input."""
    newest = max(map(opset, models))

    def made_alike(part: int) -> onnx.ModelProto:
        given = models[part]
        model = given if opset(given) == newest else onnx.version_converter.convert_version(given, newest)
        model = compose.add_prefix(model, f"{part}/")
        model.ir_version = max(one.ir_version for one in models)
        del model.metadata_props[:]
        return model

    try:
        whole = made_alike(0)
        for part in range(1, len(models)):
            whole = compose.merge_models(whole, made_alike(part), io_map=[])
    except (ValueError, RuntimeError) as error:
        raise BackboneError(
            f"{name}: their graphs cannot be joined ({files.said(error)}). Choose others."
        ) from error
    theirs = {f"{part}/images" for part in range(len(models))}
    for node in whole.graph.node:
        for place, value in enumerate(node.input):
            if value in theirs:
                node.input[place] = "images"
    whole.graph.input[0].name = "images"
    del whole.graph.input[1:]
    return whole


def _join_outputs(graph: onnx.GraphProto, cards: Sequence[Card], card: Card) -> None:
    """Give `features`, `map` and `blocks` of all parts together."""
    del graph.output[:]
    kinds: dict[str, list[int | str]] = {"features": ["N", card.features]}
    if card.map_size:
        kinds["map"] = ["N", *card.map_size]
    if card.depths:
        kinds["blocks"] = ["N", card.columns.extra]
    for kind, shape in kinds.items():
        beside = "beside" if kind == "blocks" else kind
        names = [f"{part}/{kind}" for part in range(len(cards))]
        graph.node.append(helper.make_node("Concat", names, [beside], name=f"join/{kind}", axis=1))
        graph.output.append(helper.make_tensor_value_info(kind, TensorProto.FLOAT, shape))
    if card.depths:
        graph.initializer.append(numpy_helper.from_array(_order(cards, card), "join/order"))
        graph.node.append(
            helper.make_node("Gather", ["beside", "join/order"], ["blocks"], name="join/order", axis=1)
        )


def _order(cards: Sequence[Card], card: Card) -> NDArray[np.int64]:
    """(B,) where each column of the joined blocks lies among those of the parts, one behind the other."""
    starts = np.cumsum([0, *(one.columns.extra for one in cards)])
    found = np.empty(card.columns.extra, np.int64)
    for depth in card.depths:
        part, _, name = depth.name.partition("/")
        theirs = cards[int(part)].columns
        for statistic in get_args(Statistic):
            ours, source = card.columns.columns(depth.name, statistic), theirs.columns(name, statistic)
            start = int(starts[int(part)]) - theirs.last
            found[ours.start - card.features : ours.stop - card.features] = np.arange(
                start + source.start, start + source.stop
            )
    return found
