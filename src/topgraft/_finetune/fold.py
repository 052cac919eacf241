"""BatchNorm in inference mode costs nothing: its factor goes into the convolution's weights, step by step.

Both stay trainable. The gradient of the folded weights, a few numbers, becomes by the chain rule that of the
convolution, the gain and the shift; the maps are neither normalised forward nor backward. Where BatchNorm
learns its statistics, it runs as it always did.
"""

from __future__ import annotations

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, fx, nn
from torch.nn import functional


class Folded(nn.Module):  # type: ignore[misc]
    """A convolution with its BatchNorm, and what timm's BatchNorms do after it.

    Args:
        conv: without a norm of its own.
        norm: what follows.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.parts = (conv, norm)  # in a tuple: the network holds them already, under their own names

    def forward(self, value: Tensor) -> Tensor:
        """Run both: (n, C, h, w) to (n, K, h', w')."""
        conv, norm = self.parts
        if norm.training:
            return norm(conv(value))
        slope = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        before = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
        value = functional.conv2d(
            value,
            conv.weight * slope[:, None, None, None],
            norm.bias - before * slope,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
        )
        return norm.act(norm.drop(value)) if isinstance(norm, BatchNormAct2d) else value


def fold(part: fx.GraphModule) -> fx.GraphModule:
    """Fold every BatchNorm that directly follows a convolution; gives the same part, changed in place."""
    for node in list(part.graph.nodes):
        conv, norm = (_module(part, place) for place in (_source(node), node))
        if type(conv) is nn.Conv2d and type(norm) in (nn.BatchNorm2d, BatchNormAct2d) and _plain(conv, norm):
            name = f"folded_{node.name}"
            part.add_submodule(name, Folded(conv, norm))
            with part.graph.inserting_after(node):
                both = part.graph.call_module(name, (node.args[0].args[0],))
            node.replace_all_uses_with(both)
            source = node.args[0]
            part.graph.erase_node(node)
            part.graph.erase_node(source)
    part.recompile()
    return part


def _source(node: fx.Node) -> fx.Node | None:
    """Return the only thing an operation reads, where nobody else reads it."""
    (source, *more) = node.all_input_nodes or [None]
    return source if source is not None and not more and len(source.users) == 1 else None


def _module(part: fx.GraphModule, node: fx.Node | None) -> nn.Module | None:
    return part.get_submodule(str(node.target)) if node is not None and node.op == "call_module" else None


def _plain(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Tell whether both are what they are by default: zeros for padding, a gain, a shift and statistics."""
    return bool(conv.padding_mode == "zeros" and norm.affine and norm.track_running_stats)
