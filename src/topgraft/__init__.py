"""Topgraft: a folder of labelled photos in, a classifier with honest numbers out.

    import topgraft as tg

    data = tg.Dataset.from_folder("photos/")
    split = tg.split(data, test=0.2, seed=0)
    store = tg.embed(data, "features.zarr", policies=tg.draw(16, seed=0))
    run = tg.train(store, split)
    print(tg.evaluate(run, data, split.test))
    tg.load(run).predict(["lunch.jpg"])

Names are imported when they are first used, so that `import topgraft` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topgraft._check import Health, check
    from topgraft._compare_heads import compare_heads
    from topgraft._curve import curve
    from topgraft._demo import demo
    from topgraft._doctor import doctor
    from topgraft._embed import embed
    from topgraft._evaluate import evaluate
    from topgraft._export import export
    from topgraft._finetune import finetune
    from topgraft._predict import predict
    from topgraft._preview import preview
    from topgraft._report import report
    from topgraft._run_recipe import run_recipe
    from topgraft._split import split
    from topgraft._try_backbones import try_backbones
    from topgraft._worth import worth
    from topgraft.backbones.backbone import Backbone
    from topgraft.backbones.card import Card
    from topgraft.estimator import TopgraftClassifier
    from topgraft.importers._catalogue import list_backbones
    from topgraft.importers.load import fetch, load_backbone
    from topgraft.photos.dataset import Dataset
    from topgraft.photos.sample import Sample
    from topgraft.policies.grid import Grid, draw
    from topgraft.policies.policy import Policy, View
    from topgraft.predictor import Prediction, Predictor, load
    from topgraft.recipe import train
    from topgraft.run import Run
    from topgraft.serve.start import review
    from topgraft.settings import Settings
    from topgraft.splits import Split
    from topgraft.store import FeatureStore

__all__ = [
    "Backbone",
    "Card",
    "Dataset",
    "FeatureStore",
    "Grid",
    "Health",
    "Policy",
    "Prediction",
    "Predictor",
    "Run",
    "Sample",
    "Settings",
    "Split",
    "TopgraftClassifier",
    "View",
    "check",
    "compare_heads",
    "curve",
    "demo",
    "doctor",
    "draw",
    "embed",
    "evaluate",
    "export",
    "fetch",
    "finetune",
    "list_backbones",
    "load",
    "load_backbone",
    "predict",
    "preview",
    "report",
    "review",
    "run_recipe",
    "split",
    "train",
    "try_backbones",
    "worth",
]

__version__ = "0.2.0"

_HOMES = {
    "Backbone": "backbones.backbone",
    "Card": "backbones.card",
    "Dataset": "photos.dataset",
    "FeatureStore": "store",
    "Grid": "policies.grid",
    "Health": "_check",
    "Policy": "policies.policy",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "Run": "run",
    "Sample": "photos.sample",
    "Settings": "settings",
    "Split": "splits",
    "TopgraftClassifier": "estimator",
    "View": "policies.policy",
    "check": "_check",
    "compare_heads": "_compare_heads",
    "curve": "_curve",
    "demo": "_demo",
    "doctor": "_doctor",
    "draw": "policies.grid",
    "embed": "_embed",
    "evaluate": "_evaluate",
    "export": "_export",
    "fetch": "importers.load",
    "finetune": "_finetune",
    "list_backbones": "importers._catalogue",
    "load": "predictor",
    "load_backbone": "importers.load",
    "predict": "_predict",
    "preview": "_preview",
    "report": "_report",
    "review": "serve.start",
    "run_recipe": "_run_recipe",
    "split": "_split",
    "train": "recipe",
    "try_backbones": "_try_backbones",
    "worth": "_worth",
}


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'topgraft' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"topgraft.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
