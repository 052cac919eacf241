"""Statistics of every block's output in PyTorch, as `_statistics.py` writes them in ONNX."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from topgraft.backbones._statistics import step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from topgraft.backbones.depths import Depth

    Found = dict[str, list[torch.Tensor]]


@contextmanager
def statistics(model: torch.nn.Module, depths: Sequence[Depth]) -> Iterator[Found]:
    """Collect what the blocks give while the network runs.

    Taken where a block ends, for what comes behind it may change its output in place.

    Yields:
        {name: [means (N, C), spreads (N, C)]}, class tokens with the means; filled while the model runs.
    """
    found: Found = {}

    def take(depth: Depth) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: object, _given: object, output: torch.Tensor) -> None:
            found[depth.name] = _statistics(output, depth, model)

        return model.get_submodule(depth.name).register_forward_hook(hook)

    handles = [take(depth) for depth in depths]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def blocks(found: Found, depths: Sequence[Depth]) -> torch.Tensor:
    """Put collected statistics into rows (N, B), as `Depths` has them."""
    return torch.cat([found[depth.name][i] for i in (0, 1) for depth in depths], 1)


def shapes(model: torch.nn.Module, names: Sequence[str], size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Run a black picture and tell the shapes, without the batch, of the outputs that have statistics.

    Those are maps and tokens of more than one place, given once; a module that holds another of the names is
    left out, for it ends where that one does.
    """
    modules = dict(model.named_modules())
    inner = [name for name in names if not any(other.startswith(f"{name}.") for other in names)]
    seen: dict[str, list[object]] = {}

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: object, _given: object, output: object) -> None:
            seen.setdefault(name, []).append(output)

        return modules[name].register_forward_hook(hook)

    handles = [watch(name) for name in inner if name in modules]
    try:
        with torch.inference_mode():
            model.forward_head(model.forward_features(torch.zeros(1, 3, *size)), pre_logits=True)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name in inner:
        output = seen[name][0] if len(seen.get(name, ())) == 1 else None
        if isinstance(output, torch.Tensor) and output.ndim in (3, 4):
            shape = tuple(output.shape[1:])
            if torch.Size(shape).numel() > channels(model, shape):
                found[name] = shape
    return found


def channels(model: torch.nn.Module, shape: tuple[int, ...]) -> int:
    """Return how many channels an output of this shape has."""
    return shape[0] if len(shape) == 3 and not _last(model) else shape[-1]


def token(model: torch.nn.Module, shape: tuple[int, ...]) -> bool:
    """Tell whether an output of this shape has a class token."""
    return len(shape) == 2 and getattr(model, "cls_token", None) is not None and _prefix(model) > 0


def planes(
    output: torch.Tensor, *, token: bool, prefix: int, last: bool
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return a block's output as (N, C, h, w) or (N, C, tokens), and its class token (N, C) where it has one.

    Args:
        output: (N, C, h, w), (N, h, w, C) or (N, tokens, C).
        token: whether there is a class token.
        prefix: how many tokens stand before those of the picture.
        last: whether a map has its channels last.
    """
    output = output.float()
    if output.ndim == 3:
        return output[:, prefix:].transpose(1, 2), [output[:, 0]] if token else []
    return output.permute(0, 3, 1, 2) if last else output, []


def layout(model: torch.nn.Module, depth: Depth) -> dict[str, Any]:
    """Return how a block's output lies, as `planes` asks for it."""
    return {"token": depth.token, "prefix": _prefix(model), "last": _last(model)}


def _last(model: torch.nn.Module) -> bool:
    return getattr(model, "output_fmt", "NCHW") == "NHWC"


def _prefix(model: torch.nn.Module) -> int:
    """Return how many tokens stand before those of the picture."""
    return int(getattr(model, "num_prefix_tokens", 0))


def _statistics(output: torch.Tensor, depth: Depth, model: torch.nn.Module) -> list[torch.Tensor]:
    pixels, token = planes(output, **layout(model, depth))
    if pixels.ndim == 4 and (by := step(*pixels.shape[2:])) > 1:
        pixels = functional.max_pool2d(pixels, 1, by)
    pixels = pixels.flatten(2)
    mean = pixels.mean(2, keepdim=True)
    spread = (pixels - mean).square().mean(2).sqrt()
    return [torch.cat([mean.flatten(1), *token], 1), spread]
