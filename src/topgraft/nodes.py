"""ONNX nodes written as if they were calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


OLDEST = 13
"""The first opset that has all operators as they are written here."""


@dataclass
class Nodes:
    """A part of a graph in the making. Operators are those of `OLDEST` and later, the same in all of them.

    Attributes:
        prefix: begins the names of all its values, so that they meet no others.
    """

    prefix: str
    calls: list[tuple[str, list[str], str, dict[str, Any]]] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __call__(
        self,
        operator: str,
        *inputs: str | float | list[int] | NDArray[Any],
        out: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node.

        Args:
            operator: ONNX's name.
            inputs: names of values, or constants: floats and arrays of them become float32, ints int64.
            out: the name of its first output where it matters.
            attributes: ONNX's.

        Returns:
            The name of its first output.
        """
        out = out or f"{self.prefix}.{len(self.calls)}"
        self.calls.append((operator, [self._name(value) for value in inputs], out, attributes))
        return out

    def _name(self, value: str | float | list[int] | NDArray[Any]) -> str:
        if isinstance(value, str):
            return value
        name = f"{self.prefix}.c{len(self.constants)}"
        self.constants[name] = _constant(value)
        return name

    def protos(self) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Return the nodes and initialisers."""
        from onnx import helper, numpy_helper

        nodes = []
        for operator, inputs, out, attributes in self.calls:
            outs = [out, f"{out}.index"] if operator == "TopK" else [out]
            nodes.append(helper.make_node(operator, inputs, outs, name=out, **attributes))
        return nodes, [numpy_helper.from_array(array, name) for name, array in self.constants.items()]


def unit_rows(g: Nodes, x: str) -> str:
    """Add what brings rows (N, D) to length 1."""
    length = g("Sqrt", g("ReduceSum", g("Mul", x, x), [1], keepdims=1))
    return g("Div", x, g("Max", length, 1e-12))


def largest(g: Nodes, x: str, count: int) -> str:
    """Add the largest values along the last axis; their places are under `<name>.index`."""
    return g("TopK", x, [count], axis=-1)


def _constant(value: float | list[int] | NDArray[Any]) -> NDArray[Any]:
    array = np.asarray(value)
    kinds = {"f": np.float32, "i": np.int64}
    return np.asarray(array, kinds.get(array.dtype.kind, array.dtype))


def opset(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model names; 0 where it names none."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def weight_elsewhere(graph: bytes) -> str:
    """Return the name of a weight that a graph keeps in another file; "" where all are in it.

    A runtime would read it from wherever the graph says, so that a stranger's graph could name any file.

    Args:
        graph: a serialised ONNX model; of what is none, nothing is said.
    """
    if b"location" not in graph:  # the key of every such entry; parsing takes ten times as long
        return ""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import external_data_helper

    try:
        model = onnx.load_from_string(graph)
    except DecodeError:
        return ""
    weights = external_data_helper._get_all_tensors(model)  # noqa: SLF001  those of nested graphs, too
    return next((weight.name for weight in weights if external_data_helper.uses_external_data(weight)), "")
