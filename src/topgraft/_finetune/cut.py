"""Cut a network in two where training begins: a frozen prefix that is run once, and a tail that is trained.

The network is traced into a graph of operations. The tail is every operation that depends on a trained
weight; the prefix is all that the tail needs from before; the values that pass from one to the other are the
activations at the cut. Nothing is assumed about the architecture but that it can be traced. The two parts
hold the network's own modules, so training the tail trains the network.

Where the head reads every depth, the statistics of each block are operations of the graph like others: those
of blocks before the cut are activations that are kept, those behind it belong to the tail.

Source of what must stay whole in a trace: timm, `timm/layers/_fx.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn

from topgraft._finetune.depths import every_depth, statistics
from topgraft._finetune.fold import fold
from topgraft.backbones._torch_depths import layout
from topgraft.backbones.depths import Depth
from topgraft.errors import BackboneError, UsageError
from topgraft.fingerprint import fingerprint

TOLERANCE = 1e-4
"""How far prefix and tail together may be from the whole, as a share of the largest feature."""


@dataclass(frozen=True)
class Cut:
    """A network in two parts: `tail(*prefix(images))` are its features, or rows of every depth.

    Attributes:
        prefix: images (N, 3, H, W) float32 to the activations at the cut, a tuple of tensors.
        tail: the activations to features (N, D), or to rows (N, D + B).
        shapes: of each activation, without the batch.
        names: of the operations that make them.
        blocks: for each the block whose statistics it is; None where it is no such thing.
        trained: hash of the names of the trained weights.
    """

    prefix: fx.GraphModule
    tail: fx.GraphModule
    shapes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    blocks: tuple[Depth | None, ...]
    trained: str

    @property
    def width(self) -> int:
        """How many numbers one picture has at the cut."""
        return sum(torch.Size(shape).numel() for shape in self.shapes)


def cut(
    model: nn.Module, trained: Collection[str], size: tuple[int, int], depths: Sequence[Depth] = ()
) -> Cut:
    """Cut a network where the first of its trained weights is used.

    Args:
        model: in evaluation mode, giving features (N, D).
        trained: names of the weights to be trained.
        size: (height, width) of its input in pixels.
        depths: the blocks whose statistics are wanted beside the features.

    Raises:
        UsageError: where nothing is to be trained.
        BackboneError: where the network cannot be traced, or the two parts are not the whole.
    """
    name = type(model).__name__
    graph, read = _trace(model, depths)
    weights = frozenset(trained)
    tail = _following(graph, lambda node: _uses(model, node, weights))
    if not tail:
        raise UsageError(f"{name}: expected weights to train, got none that it uses.")
    images = next(iter(graph.nodes))  # any further input is an option with a default
    varying = _following(graph, lambda node: node is images)
    image = torch.linspace(-2, 2, 3 * size[0] * size[1]).reshape(1, 3, *size)
    image = image.to(next(model.parameters()).device)
    with torch.no_grad():
        values = _Values(fx.GraphModule(model, graph))
        whole = values.run(image)
        border = _border(model, graph, tail, varying, values.kept)
        parts = Cut(
            _prefix(model, graph, border),
            _tail(model, graph, border),
            tuple(tuple(values.kept[node].shape[1:]) for node in border),
            tuple(node.name for node in border),
            tuple(read.get(node) for node in border),
            fingerprint(sorted(weights)),
        )
        apart = float((parts.tail(*parts.prefix(image)) - whole).abs().max())
    if not apart <= TOLERANCE * float(whole.abs().max()):
        raise BackboneError(f"{name}: its two parts give other features than the whole. Try other --blocks.")
    return parts


class _Tracer(fx.Tracer):  # type: ignore[misc]
    """Traces timm models: what timm says cannot be traced, and every BatchNorm, stays one operation.

    Where a block ends its statistics are taken, before what follows may change its output in place.
    """

    def __init__(self, depths: Sequence[Depth]) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self._whole = (*get_notrace_modules(), nn.BatchNorm2d)
        self._depths = {depth.name: depth for depth in depths}
        self.read: dict[fx.Node, Depth] = {}

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        if depth := self._depths.get(self.path_of_module(m)):
            taken = self.create_proxy("call_function", statistics, (output,), layout(self.root, depth))
            self.read[taken.node] = depth
        return output

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._whole) or super().is_leaf_module(m, module_qualified_name)


class _Values(fx.Interpreter):  # type: ignore[misc]
    """Runs a graph and keeps what every operation gave."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.kept: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.kept[n] = super().run_node(n)
        return self.kept[n]


def _trace(model: nn.Module, depths: Sequence[Depth]) -> tuple[fx.Graph, dict[fx.Node, Depth]]:
    """Return the network's operations, and which of them are statistics of which block."""
    tracer = _Tracer(depths)
    try:
        graph = tracer.trace(model)
    except Exception as error:
        # tracing runs the model's own code, which may raise anything
        raise BackboneError(
            f"{type(model).__name__}: cannot be traced to be cut ({error}). Fine-tune another backbone."
        ) from error
    if not depths:
        return graph, {}
    nodes = {depth.name: node for node, depth in tracer.read.items()}
    if lost := [depth.name for depth in depths if depth.name not in nodes]:
        raise BackboneError(
            f"{type(model).__name__}: the block {lost[0]} cannot be traced, and the head reads it."
            " Fine-tune a run that was trained with --depths last."
        )
    output = next(node for node in graph.nodes if node.op == "output")
    with graph.inserting_before(output):
        blocks = [nodes[depth.name] for depth in depths]
        rows = graph.call_function(
            every_depth, (*output.args, blocks, [depth.width("means") for depth in depths])
        )
    output.args = (rows,)
    return graph, tracer.read


def _uses(model: nn.Module, node: fx.Node, weights: frozenset[str]) -> bool:
    if node.op == "call_module":
        held = model.get_submodule(str(node.target)).named_parameters(prefix=str(node.target))
        return any(name in weights for name, _ in held)
    return node.op == "get_attr" and node.target in weights


def _following(graph: fx.Graph, begins: Callable[[fx.Node], bool]) -> set[fx.Node]:
    """Collect the operations where something begins, and all that depend on them."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if begins(node) or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _border(
    model: nn.Module, graph: fx.Graph, tail: set[fx.Node], varying: set[fx.Node], values: dict[fx.Node, Any]
) -> list[fx.Node]:
    """Find the tensors that vary with the image and flow into the tail, in the order they are made.

    A number (a size) is not kept but computed again in the tail, and so is what follows from kept tensors
    without a weight (a pooling): that costs little and saves its place in the cache. Statistics of a block
    are kept: they are small, and take time.
    """
    needed = {source for node in tail for source in node.all_input_nodes if source not in tail} & varying
    for node in reversed(graph.nodes):
        if node in needed and node.op != "placeholder":
            sources = set(node.all_input_nodes) & varying
            if (_bare(model, node) and sources <= needed) or not isinstance(values[node], Tensor):
                needed.remove(node)
                needed |= sources
    return [node for node in graph.nodes if node in needed]


def _bare(model: nn.Module, node: fx.Node) -> bool:
    """Tell whether an operation has no weights, and is cheap."""
    if node.target is statistics:
        return False
    if node.op == "call_module":
        return not list(model.get_submodule(str(node.target)).parameters())
    return node.op in ("call_function", "call_method")


def _prefix(model: nn.Module, graph: fx.Graph, border: list[fx.Node]) -> fx.GraphModule:
    wanted = set(border)
    for node in reversed(graph.nodes):
        if node in wanted:
            wanted.update(node.all_input_nodes)
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in wanted:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(tuple(copies[node] for node in border))
    return fold(fx.GraphModule(model, part, "Prefix"))


def _tail(model: nn.Module, graph: fx.Graph, border: list[fx.Node]) -> fx.GraphModule:
    part = fx.Graph()
    copies = {node: part.placeholder(node.name) for node in border}
    for node in _needed(graph, border):
        copies[node] = part.node_copy(node, copies.__getitem__)
    return fold(fx.GraphModule(model, part, "Tail"))


def _needed(graph: fx.Graph, border: list[fx.Node]) -> list[fx.Node]:
    """List what makes the output from the border on, in order."""
    wanted = {node for node in graph.nodes if node.op == "output"}
    for node in reversed(graph.nodes):
        if node in wanted:
            wanted.update(source for source in node.all_input_nodes if source not in border)
    return [node for node in graph.nodes if node in wanted]
