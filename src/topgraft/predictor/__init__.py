"""Predictors: fit, backbone, head and temperature in one ONNX graph, from decoded pixels to probabilities."""

from __future__ import annotations

from topgraft.predictor._build import build
from topgraft.predictor._card import PredictorCard, UnknownCard
from topgraft.predictor._predictor import Prediction, Predictor, load

__all__ = ["Prediction", "Predictor", "PredictorCard", "UnknownCard", "build", "load"]
