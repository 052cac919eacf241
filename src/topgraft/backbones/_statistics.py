"""The means and spreads of blocks' outputs as nodes of an ONNX graph: the output `blocks` (N, B).

Where a map is large its pixels say much the same as their neighbours: every `STEP`th row and column of it is
read. On the development sets that changed no accuracy (0.0 ± 0.1 points), and the first maps are most of the
cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

LARGE, STEP = 28, 4
"""A map whose shorter side is at least so many pixels is read at every so many rows and columns."""


def step(height: int, width: int) -> int:
    """Return how many rows and columns of a map go by from one that is read to the next."""
    return STEP if min(height, width) >= LARGE else 1


@dataclass(frozen=True)
class Output:
    """A block's output.

    Attributes:
        tensor: its name in the graph.
        shape: without the batch: (C, h, w), (h, w, C) or (tokens, C).
        last: whether the channels come last.
        prefix: how many tokens stand before those of the picture; the first of them is the class token.
    """

    tensor: str
    shape: tuple[int, ...]
    last: bool = False
    prefix: int = 0

    @property
    def channels(self) -> int:
        """C."""
        return self.shape[-1] if self.last else self.shape[0]


def add_blocks(graph: onnx.GraphProto, outputs: Sequence[Output]) -> None:
    """Add the output `blocks` to a graph: all means (with class tokens), then all spreads.

    Args:
        graph: is changed.
        outputs: of the blocks.
    """
    write = _Writer(graph)
    means, variances = [], []
    for output in outputs:
        planes, token = write.planes(output)
        mean = write("GlobalAveragePool", planes)
        apart = write("Sub", planes, mean)  # not the mean of squares less the square: small spreads drown
        means += [write("Flatten", row) for row in (mean, token) if row]
        variances.append(write("Flatten", write("GlobalAveragePool", write("Mul", apart, apart))))
    write("Concat", *means, write("Sqrt", write("Concat", *variances, axis=1)), axis=1, out="blocks")
    width = sum(output.channels * (3 if output.prefix else 2) for output in outputs)
    graph.output.append(helper.make_tensor_value_info("blocks", TensorProto.FLOAT, ["N", width]))


class _Writer:
    """Leaves nodes behind whose names begin with `depths/`."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph, self.count = graph, 0

    def __call__(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        self.count += 1
        out = out or f"depths/{self.count}"
        name = f"depths/{kind}/{self.count}"
        self.graph.node.append(helper.make_node(kind, list(inputs), [out], name=name, **attributes))
        return out

    def numbers(self, *values: int) -> str:
        """Write whole numbers down as a constant."""
        self.count += 1
        name = f"depths/{self.count}"
        self.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def planes(self, output: Output) -> tuple[str, str]:
        """Bring an output to (N, C, …), the pixels or tokens that are read, and its class token to (N, C)."""
        x, token = output.tensor, ""
        if output.prefix:
            one = self.numbers(1)
            token = self("Flatten", self("Slice", x, self.numbers(0), one, one))
            x = self("Slice", x, self.numbers(output.prefix), self.numbers(output.shape[0]), one)
        if output.last:
            x = self("Transpose", x, perm=[0, 3, 1, 2] if len(output.shape) == 3 else [0, 2, 1])
        if len(output.shape) == 3:
            height, width = output.shape[:2] if output.last else output.shape[1:]
            if (by := step(height, width)) > 1:
                x = self("MaxPool", x, kernel_shape=[1, 1], strides=[by, by])
        return x, token
