"""Choosing an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topgraft.backbones.card import why_no_depths
from topgraft.engines._base import Engine
from topgraft.errors import BackboneError, UnknownNameError, UsageError
from topgraft.settings import Settings

if TYPE_CHECKING:
    from topgraft.backbones.backbone import Backbone

ENGINES = ("openvino", "torch", "fake")
PRECISIONS = ("f32", "f16", "int8")


def resolve_engine(engine: str, precision: str, settings: Settings) -> tuple[str, str]:
    """Return the engine and precision that `open_engine` would use; nothing heavy is imported but for CUDA.

    `auto` is openvino, or torch where the device is `cuda`. On CUDA, torch computes in float16 where that
    is safe (autocast), whatever was asked for, and says so in its precision.

    Raises:
        UnknownNameError: for a name that is not an engine or precision.
        UsageError: for a precision the engine does not have.
    """
    if engine not in ("auto", *ENGINES):
        raise UnknownNameError("engine", engine, ("auto", *ENGINES))
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    if engine == "auto":
        engine = "torch" if settings.device == "cuda" else "openvino"
    if engine == "torch":
        from topgraft.engines._torch import device

        cuda = device(settings).type == "cuda"
        if precision == "f16" and not cuda:
            raise UsageError("torch engine: precision f16 needs a CUDA device. Use --precision f32.")
        if precision == "f32" and cuda:
            precision = "f16"
    if (precision == "f16" and engine != "torch") or (precision == "int8" and engine == "torch"):
        raise UsageError(
            f"{engine} engine: precision {precision} is not one of its own. Use --precision f32."
        )
    return engine, precision


def open_engine(
    backbone: Backbone,
    *,
    engine: str = "auto",
    precision: str = "f32",
    depths: bool = False,
    settings: Settings | None = None,
) -> Engine:
    """Return an engine opened on a backbone.

    Args:
        backbone: what to run.
        engine: `auto`, `openvino`, `torch` or `fake`.
        precision: `f32`, or `int8` for a backbone that `quantize` made; see `resolve_engine` for CUDA.
        depths: whether rows hold the statistics of every block beside the features.
        settings: cores and device.

    Raises:
        BackboneError: where depths are asked of a backbone that has none.
        UsageError: for a name, or an engine and precision, that do not go together.
        MissingExtraError: for the torch engine without the `timm` extra.
        BackboneError: where the graph cannot be run.
    """
    settings = settings or Settings.load()
    engine, precision = resolve_engine(engine, precision, settings)
    if (precision == "int8") != (backbone.card.precision == "int8"):
        raise UsageError(
            f"{backbone.card.name}: precision {precision} was asked for, its graph is "
            f"{backbone.card.precision}. Give the graph's own precision."
        )
    if depths and not backbone.card.depths:
        raise BackboneError(why_no_depths(backbone.card))
    if engine == "fake":
        from topgraft.engines._fake import FakeEngine

        return FakeEngine(backbone, precision=precision, depths=depths)
    if engine == "torch":
        from topgraft.engines._torch import TorchEngine

        return TorchEngine(backbone, depths=depths, settings=settings)
    from topgraft.engines._openvino import OpenVINOEngine

    return OpenVINOEngine(backbone, depths=depths, settings=settings)
