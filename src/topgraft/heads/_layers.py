"""The plain layers a fitted head comes down to; each writes itself as ONNX, so no head can lack an export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from topgraft.nodes import Nodes

Array = NDArray[np.float32]
"""A weight as it is stored and exported."""


class Layer(ABC):
    """One step on the way from features to logits. `HeadSuite` holds all steps together to `Head.logits`."""

    @abstractmethod
    def add(self, g: Nodes, x: str) -> str:
        """Add the layer's nodes to a graph.

        Args:
            g: takes the nodes.
            x: name of the input.

        Returns:
            The name of the output.
        """


@dataclass(frozen=True)
class Affine(Layer):
    """`x @ weight + bias`: (N, D) to (N, E). weight (D, E), bias (E,)."""

    weight: Array
    bias: Array

    def add(self, g: Nodes, x: str) -> str:
        """Add a product and a sum."""
        return g("Add", g("MatMul", x, self.weight), self.bias)


@dataclass(frozen=True)
class Relu(Layer):
    """`max(x, 0)`."""

    def add(self, g: Nodes, x: str) -> str:
        """Add one node."""
        return g("Relu", x)


@dataclass(frozen=True)
class Flatten(Layer):
    """A map as one row, channels first: (N, C, h, w) to (N, C·h·w)."""

    def add(self, g: Nodes, x: str) -> str:
        """Add one node."""
        return g("Flatten", x, axis=1)
