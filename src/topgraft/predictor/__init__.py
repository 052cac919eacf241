"""Predictors: fit, backbone, head and temperature in one ONNX graph, from decoded pixels to probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from topgraft.predictor._card import PredictorCard, UnknownCard
from topgraft.predictor._predictor import COLUMNS, Prediction, Predictions, Predictor, load

if TYPE_CHECKING:
    from topgraft.predictor._build import build

__all__ = [
    "COLUMNS",
    "Prediction",
    "Predictions",
    "Predictor",
    "PredictorCard",
    "UnknownCard",
    "build",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import `build` when it is asked for: whoever predicts builds nothing."""
    if name != "build":
        raise AttributeError(f"module 'topgraft.predictor' has no attribute {name!r}")
    from topgraft.predictor._build import build

    return build
