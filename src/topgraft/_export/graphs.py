"""A predictor's graph in fewer bits; the fit stays exact."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from topgraft.importers.quantize import spread, to_int8
from topgraft.text import one_line

if TYPE_CHECKING:
    from topgraft.photos.dataset import Dataset

SMALL = 16
"""Constants of fewer values save nothing."""
OUTSIDE = (r"fit\..*", r"head\..*", "images", "logits", "probabilities", "distance")
"""Nodes around the backbone: little work, and where a rounded value changes an answer."""


def halve(graph: bytes) -> bytes:
    """Store the weights of backbone and head as float16; they are float32 again before anything is computed.

    Half the file, and no runtime needs to know half-precision arithmetic, which few have on processors.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(graph)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name.startswith("fit."):
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < SMALL or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=one_line(f"{name}.whole"), to=1))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def quantize(graph: bytes, data: Dataset, learned: Sequence[int]) -> bytes:
    """Turn the backbone's arithmetic to 8 bits, with the ranges that photos show.

    Args:
        graph: a predictor's.
        data: its photos.
        learned: those it learned from; 128 spread evenly over them count.

    Raises:
        MissingExtraError: without the `int8` extra.
    """
    import onnx

    photos = {str(i): partial(data.image, learned[i]) for i in spread(len(learned))}
    made = to_int8(onnx.load_from_string(graph), photos, "image", keep=OUTSIDE)
    return bytes(made.SerializeToString(deterministic=True))
