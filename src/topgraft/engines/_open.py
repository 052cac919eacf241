"""Choosing an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topgraft.engines._base import Engine
from topgraft.errors import UnknownNameError
from topgraft.settings import Settings

if TYPE_CHECKING:
    from topgraft.backbone import Backbone

ENGINES = ("openvino", "torch", "fake")


def open_engine(
    backbone: Backbone, *, engine: str = "auto", precision: str = "f32", settings: Settings | None = None
) -> Engine:
    """Open an engine on a backbone.

    Args:
        backbone: what to run.
        engine: `auto`, `openvino`, `torch` or `fake`.
        precision: `f32`.
        settings: cores and device.
    """
    from topgraft.engines._openvino import OpenVINOEngine

    if engine not in ("auto", "openvino"):
        raise UnknownNameError("engine", engine, ("auto", *ENGINES))
    return OpenVINOEngine(backbone, precision=precision, settings=settings)
