"""Write ONNX nodes as if they were calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


@dataclass
class Nodes:
    """A part of a graph in the making. Operators are those of opset 13 and later, the same in all of them.

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
            inputs: names of values, or constants: a Python float becomes float32, an int or list int64.
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
        array = value if isinstance(value, np.ndarray) else _constant(value)
        name = f"{self.prefix}.c{len(self.constants)}"
        self.constants[name] = array
        return name

    def protos(self) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Return the nodes and initialisers."""
        from onnx import helper, numpy_helper

        nodes = []
        for operator, inputs, out, attributes in self.calls:
            outs = [out, f"{out}.index"] if operator == "TopK" else [out]
            nodes.append(helper.make_node(operator, inputs, outs, name=out, **attributes))
        return nodes, [numpy_helper.from_array(array, name) for name, array in self.constants.items()]


def _constant(value: float | list[int]) -> NDArray[Any]:
    if isinstance(value, float):
        return np.asarray(value, np.float32)
    return np.asarray(value, np.int64)
