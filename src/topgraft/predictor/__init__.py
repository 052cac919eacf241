"""Predictors: fit, backbone, head and temperature in one ONNX graph, from decoded pixels to probabilities."""

from __future__ import annotations

from topgraft.predictor._build import build
from topgraft.predictor._card import PredictorCard, UnknownCard
from topgraft.predictor._predictor import COLUMNS, Prediction, Predictions, Predictor, load

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
