"""Any ONNX file with a picture as its input, brought to the one form that engines run."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pydantic
from onnx import TensorProto, compose, helper, numpy_helper

from topgraft import files
from topgraft.backbones._cache import CARD, GRAPH
from topgraft.backbones._float16 import beyond_float16
from topgraft.backbones._statistics import Output, add_blocks
from topgraft.backbones.card import Card
from topgraft.backbones.depths import Depth
from topgraft.errors import BackboneError, UsageError
from topgraft.nodes import OLDEST, opset, weight_elsewhere
from topgraft.text import first_mistake
from topgraft.types import Features

PICTURES = 4
FACTS = ("input_size", "interpolation", "mean", "std")


def read_facts(graph: Path, card: Path | None) -> dict[str, Any]:
    """Read what the user says of a graph.

    Raises:
        UsageError: where there is no card, or it lacks one of the four facts a graph cannot tell.
    """
    example = (
        '{"input_size": [224, 224], "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], "std": [...]}'
    )
    if card is None:
        raise UsageError(
            f"{graph}: an ONNX file needs a card with four facts, {', '.join(FACTS)}. Write "
            f"{example} to a file and give it as --card."
        )
    try:
        facts = json.loads(files.text(card))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{card}: expected a JSON card, got {files.said(error)}.") from error
    missing = [fact for fact in FACTS if fact not in facts] if isinstance(facts, dict) else FACTS
    if missing:
        raise UsageError(f"{card}: lacks {', '.join(missing)}. Write them as in {example}.")
    return dict(facts)


def write(folder: Path, graph: Path, facts: dict[str, Any]) -> Card:
    """Write a graph's folder: normalisation and layout inside, outputs named, checked by running it.

    Args:
        folder: an empty folder.
        graph: the ONNX file. Its input is (N, 3, H, W) or (N, H, W, 3), float32 (normalised by the card's
            mean and std before it) or uint8 (taken as it is). Features are the output named `features`, else
            the first of shape (N, D); a graph that ends in a map (N, C, h, w) is pooled by its mean.
        facts: of the card, at least `input_size`, `interpolation`, `mean` and `std`. `depths` names the
            tensors whose statistics are to be given beside the features: maps (N, C, h, w) or (N, h, w, C),
            or tokens (N, T, C).

    Raises:
        UsageError: for a fact of the wrong form.
        BackboneError: where the graph does not have this form or cannot be run.
    """
    try:
        data = files.read_local(graph)
        model = onnx.load_from_string(data)
        if weight := weight_elsewhere(data):
            raise ValueError(
                f"its weight {weight} lies in another file: save it with onnx.save(model, path) as one"
            )
        onnx.checker.check_model(model)
    except Exception as error:
        raise BackboneError(f"{graph}: is not an ONNX file ({files.said(error)}).") from error
    if (version := opset(model)) < OLDEST:
        raise BackboneError(
            f"{graph}: expected operators of opset {OLDEST} or later, got {version}. Export it again."
        )
    names = _named(facts, graph)
    made = _card(graph, facts, hashlib.sha256(data).hexdigest())
    model = compose.add_prefix(model, "net/")
    _give_pixels(model, graph, made)
    _name_outputs(model, graph)
    outputs = _outputs(model, graph, names, made.input_size)
    depths = tuple(
        Depth(name=name, channels=output.channels, token=output.prefix > 0)
        for name, output in zip(names, outputs, strict=True)
    )
    if depths:
        add_blocks(model.graph, outputs)
    rows, map_size = _try(model, graph, made.input_size)
    made = made.model_copy(
        update={
            "features": rows["features"].shape[1],
            "map_size": map_size,
            "depths": depths,
        }
    )
    whole = np.concatenate([rows[name] for name in ("features", "blocks") if name in rows], axis=1)
    made = made.model_copy(update={"float32": beyond_float16(whole, made.columns)})
    (folder / GRAPH).write_bytes(model.SerializeToString(deterministic=True))
    (folder / CARD).write_text(made.model_dump_json(indent=1), encoding="utf-8")
    return made


def _card(graph: Path, facts: dict[str, Any], sha256: str) -> Card:
    """Return the card, but for what only a run of the graph can tell."""
    told = {"name": graph.stem, "origin": f"file:{graph.name}", **facts, "depths": ()}
    try:
        return Card.model_validate({**told, "features": 1, "weights_sha256": sha256, "source": "onnx"})
    except pydantic.ValidationError as error:
        raise UsageError(f"card of {graph}: {first_mistake(error)}.") from error


def _give_pixels(model: onnx.ModelProto, place: Path, card: Card) -> None:
    """Put a uint8 (N, H, W, 3) input in front, with the card's normalisation where the graph wants floats."""
    graph, size = model.graph, card.input_size
    held = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in held]
    del graph.input[:]  # weights may be listed there as well, as defaults that nobody gives
    shape = _shape(inputs[0]) if len(inputs) == 1 else []
    kind = inputs[0].type.tensor_type.elem_type if inputs else 0
    planes = len(shape) == 4 and shape[1] == 3
    if len(shape) != 4 or 3 not in (shape[1], shape[3]) or kind not in (TensorProto.FLOAT, TensorProto.UINT8):
        told = ", ".join(f"{value.name.removeprefix('net/')} {_shape(value)}" for value in inputs)
        raise BackboneError(
            f"{place}: expected one picture input, float32 or uint8, (N, 3, H, W) or (N, H, W, 3), "
            f"got {told}."
        )
    sides = shape[2:] if planes else shape[1:3]
    if any(isinstance(side, int) and side != wanted for side, wanted in zip(sides, size, strict=True)):
        raise BackboneError(
            f"{place}: its input is {sides[0]} x {sides[1]}, its card says {size[0]} x {size[1]}."
        )
    nodes, x = [], "images"
    if kind == TensorProto.FLOAT:
        levels = np.asarray([card.mean, card.std], np.float32) * np.float32(255)
        graph.initializer.append(numpy_helper.from_array(levels[0], "middle"))
        graph.initializer.append(numpy_helper.from_array(1 / levels[1], "scale"))
        nodes += [
            helper.make_node("Cast", [x], ["levels"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["levels", "middle"], ["centred"]),
            helper.make_node("Mul", ["centred", "scale"], ["normalised"]),
        ]
        x = "normalised"
    if planes:
        nodes.append(helper.make_node("Transpose", [x], ["planes"], perm=[0, 3, 1, 2]))
        x = "planes"
    nodes.append(helper.make_node("Identity", [x], [inputs[0].name]))
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *size, 3]))
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _name_outputs(model: onnx.ModelProto, place: Path) -> None:
    """Name the features and the map; all other outputs are dropped."""
    graph = model.graph
    sizes = {value.name: _shape(value) for value in graph.output}
    maps = [name for name, shape in sizes.items() if len(shape) == 4 and shape[2:] != [1, 1]]
    rows = [name for name, shape in sizes.items() if name not in maps and len(shape) in (2, 4)]
    rows.sort(key=lambda name: name != "net/features")
    if not rows and not maps:
        told = ", ".join(f"{name.removeprefix('net/')} {shape}" for name, shape in sizes.items())
        raise BackboneError(f"{place}: expected an output (N, D) or (N, C, h, w), got {told}.")
    del graph.output[:]
    if rows:
        source = rows[0]
    else:
        graph.node.append(helper.make_node("GlobalAveragePool", [maps[0]], ["pooled"]))
        source = "pooled"
    graph.node.append(helper.make_node("Flatten", [source], ["features"]))
    graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", None]))
    if maps:
        graph.node.append(helper.make_node("Identity", [maps[0]], ["map"]))
        graph.output.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", None, None, None]))


def _named(facts: dict[str, Any], graph: Path) -> list[str]:
    """Read the names of the tensors whose statistics are wanted.

    Raises:
        UsageError: where they are not a list of names, each once.
    """
    names = facts.get("depths", [])
    if isinstance(names, list):  # a card of Topgraft's own says more of each than its name
        names = [name["name"] if isinstance(name, dict) and "name" in name else name for name in names]
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) < len(names)
    ):
        raise UsageError(f"card of {graph}: depths: expected names of tensors, each once, got {names!r}.")
    return names


def _outputs(model: onnx.ModelProto, place: Path, names: list[str], size: tuple[int, ...]) -> list[Output]:
    """Run a picture to learn the shapes of the tensors whose statistics are wanted.

    Raises:
        UsageError: for a name the graph does not have, or whose tensor is neither map nor tokens.
    """
    from topgraft.engines._openvino import compile_model

    if not names:
        return []
    made = {name.removeprefix("net/") for node in model.graph.node for name in node.output}
    if unknown := [name for name in names if name not in made]:
        close = difflib.get_close_matches(unknown[0], made, n=3, cutoff=0.3)
        raise UsageError(
            f"card of {place}: depths: the graph makes no tensor {unknown[0]!r}. Close: {', '.join(close)}."
        )
    asked = type(model)()
    asked.CopyFrom(model)
    asked.graph.output.extend(onnx.ValueInfoProto(name=f"net/{name}") for name in names)
    found = compile_model(asked.SerializeToString(), shape={"images": [1, *size, 3]})
    values = found(np.zeros((1, *size, 3), np.uint8))
    outputs = []
    for name in names:
        value = values[f"net/{name}"]
        if value.dtype != np.float32 or value.ndim not in (3, 4) or value[0].size <= max(value.shape[1:]):
            raise UsageError(
                f"card of {place}: depths: {name!r} must be a float32 map (N, C, h, w) or tokens (N, T, C), "
                f"got {value.dtype} {value.shape}."
            )
        outputs.append(_output(f"net/{name}", value.shape[1:]))
    return outputs


def _output(tensor: str, shape: tuple[int, ...]) -> Output:
    """Tell channels from places: a map is mostly square, and tokens are a square of patches."""
    if len(shape) == 3:
        return Output(tensor, shape, last=shape[0] == shape[1] != shape[2])
    patches = shape[0]
    return Output(tensor, shape, last=True, prefix=int(math.isqrt(patches) ** 2 == patches - 1))


def _try(
    model: onnx.ModelProto, place: Path, size: tuple[int, ...]
) -> tuple[dict[str, Features], tuple[int, ...] | None]:
    """Run pictures alone and together; gives their features and blocks, and the size of the map.

    Raises:
        BackboneError: where the graph takes one picture only, or its rows depend on each other.
    """
    from topgraft.backbones._pictures import pictures
    from topgraft.engines._openvino import compile_model

    shown = pictures(PICTURES, *size)
    data = model.SerializeToString()
    together = compile_model(data, shape={"images": [PICTURES, *size, 3]})(shown)
    alone = compile_model(data, shape={"images": [1, *size, 3]})(shown[-1:])
    made = {output.name for output in model.graph.output}
    rows: dict[str, Features] = {name: together[name] for name in ("features", "blocks") if name in made}
    if any(
        len(found) != PICTURES or not np.allclose(found[-1:], alone[name], rtol=1e-3, atol=1e-4)
        for name, found in rows.items()
    ):
        raise BackboneError(
            f"{place}: a picture's features must not depend on its batch. Export it with a free N."
        )
    return rows, tuple(together["map"].shape[1:]) if "map" in made else None


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    """Return a tensor's sides: numbers where they are fixed, names where they are free."""
    return [side.dim_value or side.dim_param or "?" for side in value.type.tensor_type.shape.dim]
