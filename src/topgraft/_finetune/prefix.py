"""The frozen prefix for the CPU engine, cut out of the graph that made the head's features.

What is trained is PyTorch's network; the backbone's ONNX graph computes the same values under other names,
and on a CPU much faster. So the values at the cut are found by what they are: among all values of the graph
with the right shape, those that equal PyTorch's on pictures. Statistics of blocks are columns of its output
`blocks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from topgraft import files
from topgraft._finetune.cut import Cut
from topgraft._finetune.pixels import normalised
from topgraft.backbones._pictures import pictures
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Card
from topgraft.backbones.depths import Depth
from topgraft.engines._openvino import compile_model
from topgraft.fingerprint import digest

if TYPE_CHECKING:
    import onnx

CLOSE = 1e-3
"""How far the graph's value may be from PyTorch's, as a share of the largest number in it."""
PICTURES = 2
BLOCKS = "blocks"


def in_graph(backbone: Backbone, cut: Cut, path: Path) -> Backbone | None:
    """Return the prefix as a backbone whose features are the activations at the cut, packed as `pack` does.

    Args:
        backbone: the whole, in f32.
        cut: of its network, on the CPU.
        path: where the prefix is kept, and found the next time.

    Returns:
        None where the graph holds no such values: then PyTorch has to run the prefix.
    """
    card = backbone.card.model_copy(update={"features": cut.width, "map_size": None, "depths": ()})
    if not _is_whole(path):
        made = _write(backbone, cut)
        if made is None:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, made)
        files.write(path.with_suffix(".sum"), digest(made).encode())  # last: it is what makes the graph count
    return Backbone(card, path)


def _is_whole(path: Path) -> bool:
    """Tell whether a kept graph is there and the one that was written."""
    try:
        return digest(path.read_bytes()).encode() == path.with_suffix(".sum").read_bytes()
    except OSError:
        return False


def _write(backbone: Backbone, cut: Cut) -> bytes | None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnx.utils import Extractor

    model = onnx.shape_inference.infer_shapes(onnx.load(str(backbone.graph)))
    names = _at_the_cut(model, backbone, cut)
    if names is None:
        return None
    part = Extractor(model).extract_model(["images"], list(dict.fromkeys(names)))
    flat = []
    for i, (name, shape, block) in enumerate(zip(names, cut.shapes, cut.blocks, strict=True)):
        last = name
        if block:
            which = numpy_helper.from_array(_columns(backbone.card, block), f"cut/{i}/columns")
            part.graph.initializer.append(which)
            last = f"cut/{i}/block"
            part.graph.node.append(helper.make_node("Gather", [BLOCKS, which.name], [last], axis=1))
        if len(shape) == 3:  # a map: channels last, as `pack` has it
            last = f"cut/{i}/last"
            part.graph.node.append(helper.make_node("Transpose", [name], [last], perm=[0, 2, 3, 1]))
        flat.append(f"cut/{i}/flat")
        part.graph.node.append(helper.make_node("Flatten", [last], [flat[-1]], axis=1))
    part.graph.node.append(helper.make_node("Concat", flat, ["features"], axis=1))
    del part.graph.output[:]
    part.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", cut.width]))
    return bytes(part.SerializeToString())


def _columns(card: Card, block: Depth) -> NDArray[np.int64]:
    """Return which columns of `blocks` are a block's means and spreads."""
    of_row = [card.columns.columns(block.name, statistic) for statistic in ("means", "spreads")]
    return np.concatenate([np.arange(at.start, at.stop) for at in of_row]) - card.features


def _at_the_cut(model: onnx.ModelProto, backbone: Backbone, cut: Cut) -> list[str] | None:
    """Name the graph's values at the cut; for statistics the output that they are columns of."""
    shown = pictures(PICTURES, *backbone.card.input_size, seed=2)
    with torch.inference_mode():
        wanted = [
            value.numpy() for value in cut.prefix(normalised(shown, backbone.card, torch.device("cpu")))
        ]
    plain = {value.shape[1:] for value, block in zip(wanted, cut.blocks, strict=True) if block is None}
    like = _shaped(model, plain)
    read = [value for value in model.graph.output if value.name == BLOCKS]
    if not like or (any(cut.blocks) and not read):
        return None
    asked = type(model)()
    asked.CopyFrom(model)
    del asked.graph.output[:]
    asked.graph.output.extend([*like, *read])
    given = {"images": list(shown.shape)}
    answers = compile_model(asked.SerializeToString(), shape=given)({"images": shown})
    values = {value.name: answers[value.name] for value in like}
    names = []
    for target, block in zip(wanted, cut.blocks, strict=True):
        own = {BLOCKS: answers[BLOCKS][:, _columns(backbone.card, block)]} if block else values
        names.append(_nearest(target, own))
    return names if all(names) else None


def _shaped(model: onnx.ModelProto, shapes: set[tuple[int, ...]]) -> list[onnx.ValueInfoProto]:
    """List the float values of a graph that have one of these shapes, but for the batch."""
    made = {name for node in model.graph.node for name in node.output}
    found = []
    for value in (*model.graph.value_info, *model.graph.output):
        kind = value.type.tensor_type
        sizes = tuple(side.dim_value for side in kind.shape.dim[1:])
        if value.name in made and kind.elem_type == 1 and sizes in shapes:
            found.append(value)
    return found


def _nearest(target: np.ndarray, values: dict[str, np.ndarray]) -> str:
    """Name the value nearest to another of its shape; "" where none is near enough."""
    gaps = {
        name: float(np.abs(value - target).max())
        for name, value in values.items()
        if value.shape == target.shape
    }
    name = min(gaps, key=gaps.__getitem__, default="")
    return name if name and gaps[name] <= CLOSE * float(np.abs(target).max()) else ""
