"""Put a fit, a backbone, a head and its temperature into one ONNX graph."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from topgraft.errors import BackboneError, UsageError
from topgraft.nodes import OLDEST, Nodes, opset
from topgraft.predictor._fit import add_fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from topgraft.backbones.backbone import Backbone
    from topgraft.backbones.card import Card
    from topgraft.heads import Head
    from topgraft.trust.unknown import Unknown

ROWS = "rows"
"""The name of features and block features side by side."""


def build(
    backbone: Backbone,
    head: Head,
    *,
    classes: Sequence[str],
    temperature: float = 1.0,
    unknown: Unknown | None = None,
) -> onnx.ModelProto:
    """Return the graph of a predictor.

    Args:
        backbone: gives the features the head was fitted on.
        head: a fitted head.
        classes: C names in the order of the head's logits.
        temperature: divides the logits.
        unknown: the answer "none of these classes"; None is never given.

    Returns:
        A graph from `image` (h, w, 3) uint8 RGB of any size to `probabilities` (1, C), `features` (1, D) and
        `distance` (1,) from the training photos; `map` (1, C', h', w') where the backbone has one; and
        `blocks` (1, B) where the head reads them.

    Raises:
        UsageError: where classes and head disagree, or the head needs a map the backbone has not.
        BackboneError: where the backbone's graph cannot take part.
    """
    import onnx
    from onnx import TensorProto, helper

    from topgraft.predictor._head import add_distance, add_head

    card = backbone.card
    if len(classes) != head.classes:
        raise UsageError(
            f"classes: expected {head.classes} names for head {head.name!r}, got {len(classes)}."
        )
    if head.on_map and card.map_size is None:
        raise UsageError(
            f"head {head.name!r} needs a backbone with a map; {card.name} has none. Choose another head."
        )
    model = onnx.load(str(backbone.graph))
    deep = head.width > card.features
    _check(model, card, width=head.width)
    fit, top = Nodes("fit"), Nodes("head")
    add_fit(fit, card, "image", "images")
    rows = top("Concat", "features", "blocks", axis=1, out=ROWS) if deep else "features"
    logits = add_head(top, head, rows, "map")
    scaled = top("Div", logits, float(temperature), out="logits")
    last = ("Sigmoid", {}) if head.multilabel else ("Softmax", {"axis": -1})
    top(last[0], scaled, out="probabilities", **last[1])
    add_distance(top, unknown.how if unknown else None, "features", logits, "distance")
    (fit_nodes, fit_weights), (top_nodes, top_weights) = fit.protos(), top.protos()
    graph = helper.make_graph(
        [*fit_nodes, *model.graph.node, *top_nodes],
        "topgraft",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["h", "w", 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, len(classes)]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, card.features]),
            helper.make_tensor_value_info("distance", TensorProto.FLOAT, [1]),
            *(
                [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, *card.map_size])]
                if card.map_size
                else []
            ),
            *(
                [helper.make_tensor_value_info("blocks", TensorProto.FLOAT, [1, card.columns.extra])]
                if deep
                else []
            ),
        ],
        [*fit_weights, *model.graph.initializer, *top_weights],
    )
    whole = helper.make_model(
        graph,
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
        functions=list(model.functions),
        producer_name="topgraft",
    )
    helper.set_model_props(whole, {"classes": json.dumps(list(classes)), "backbone": card.name})
    onnx.checker.check_model(whole)
    return whole


def head_part(graph: bytes) -> bytes | None:
    """Return the part of a predictor's graph from a row (N, D) to `logits` (N, C), temperature inside.

    Its one input is `features`, or `rows` (N, D + B) where the head reads blocks as well. None for a head
    that reads the map.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(graph)
    makers = {out: i for i, node in enumerate(model.graph.node) for out in node.output}
    needed: set[int] = set()
    asked, given = ["logits"], "features"
    while asked:
        value = asked.pop()
        if value == "map":
            return None
        if value in ("features", ROWS):
            given = value
        elif value in makers and makers[value] not in needed:  # a value on several ways is followed once
            needed.add(makers[value])
            asked.extend(model.graph.node[makers[value]].input)
    nodes = [model.graph.node[i] for i in sorted(needed)]
    used = {value for node in nodes for value in node.input}
    part = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, ["N", None])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", None])],
        [weight for weight in model.graph.initializer if weight.name in used],
    )
    whole = helper.make_model(part, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    return bytes(whole.SerializeToString())


def _check(model: onnx.ModelProto, card: Card, width: int) -> None:
    """Check what a backbone's graph must be to be built into another.

    Raises:
        BackboneError: for another input, an operator set that is too old, or block features that are missing.
    """
    name = card.name
    inputs = [value.name for value in model.graph.input]
    outputs = {value.name for value in model.graph.output}
    version = opset(model)
    if inputs != ["images"] or "features" not in outputs:
        raise BackboneError(
            f"{name}: expected a graph from `images` to `features`, got {inputs} to {sorted(outputs)}. "
            "Fetch it again."
        )
    if width > card.features and ("blocks" not in outputs or width != card.columns.width):
        raise BackboneError(
            f"{name}: the head reads {width} columns, {card.columns.width} is all the backbone gives of every"
            " depth. Train again with the backbone's own features, or with --depths last."
        )
    if version < OLDEST:
        raise BackboneError(
            f"{name}: expected operators of opset {OLDEST} or later, got {version}. Export it again."
        )
