"""A realistic run folder from random numbers, for tests of what reads runs.

What training writes its files with writes them here, too: a form that changes is missed by name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from topgraft._check import Health
from topgraft.config import Config
from topgraft.fingerprint import digest
from topgraft.metrics import summary
from topgraft.photos.sample import Sample
from topgraft.run import Metrics, Run
from topgraft.run.predictions import write_predictions
from topgraft.run.results import Answers, Side, rounded

POLICIES = ["rotate(30) | hflip", "shift(0.1)", "zoom(0.8,1.2) | vflip"]


def draw_photos(folder: Path, ids: Sequence[str], side: int = 320) -> None:
    """Write photos with smooth random colours: they compress about as real ones do."""
    for i, name in enumerate(ids):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        picture = np.asarray(coarse.resize((side, side * 3 // 4), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(picture + rng.integers(-14, 15, picture.shape), 0, 255).astype(np.uint8)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path, quality=90)


def write_run(
    folder: Path,
    *,
    photos: int = 60,
    classes: Sequence[str] = ("sandwich", "sushi"),
    skill: float = 2.2,
    test: float = 0.2,
    seed: int = 0,
    policies: Sequence[str] = (),
    photo_folder: Path | None = None,
    with_photos: bool = True,
    health: dict[str, Any] | None = None,
    curves: bool = True,
) -> Path:
    """Write a run whose classifier is right as often as its skill makes it.

    Args:
        folder: the run's.
        photos: how many.
        classes: names.
        skill: how much higher the logit of the true class lies.
        test: share held out; 0 has no test.
        seed: of the numbers.
        policies: what the run says it drew.
        photo_folder: where the photos lie; None puts them beside the run.
        with_photos: False does not write them, as if they had gone.
        health: entries that replace those of a healthy folder.
        curves: whether something was trained step by step.
    """
    rng = np.random.default_rng(seed)
    C = len(classes)
    labels = np.sort(rng.permutation(np.arange(photos) % C))
    logits = rng.normal(size=(photos, C)) + skill * np.eye(C)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = [f"{classes[label]}/{i:04d}.jpg" for i, label in enumerate(labels)]
    held = np.zeros(photos, bool)
    held[rng.permutation(photos)[: round(test * photos)]] = True
    distance = rng.gamma(4, 0.25, photos)
    scores = {
        "cross_validation": {
            "folds": 5,
            "repeats": 1,
            **summary(labels[~held], probabilities[~held], list(classes), out_of_fold=True),
        },
        "test": summary(labels[held], probabilities[held], list(classes)) if held.any() else None,
    }
    metrics = {
        "schema": 1,
        "classes": list(classes),
        "counts": {
            "photos": photos,
            "refused": 1,
            "duplicates": 2,
            "views": 1 + len(policies),
            "train": int((~held).sum()),
            "test": int(held.sum()),
            "per_class": {
                name: {"train": int((~held & (labels == i)).sum()), "test": int((held & (labels == i)).sum())}
                for i, name in enumerate(classes)
            },
        },
        "backbone": {
            "name": "tf_efficientnet_lite0.in1k",
            "fingerprint": "0123456789abcdef0123456789abcdef",
            "features": 1280,
            "precision": "f32",
        },
        "policies": list(policies),
        "seed": seed,
        "head": {"name": "logistic", "setting": "C=0.01", "temperature": 1.3},
        **scores,
        "leaderboard": leaderboard(scores["cross_validation"]),
        "trust": trust(labels[~held], probabilities[~held], np.array(ids)[~held], list(classes)),
        "worth": worth(policies) if policies else None,
        "notes": ["Class weights balance the classes."],
    }
    place = photo_folder or folder.parent / f"{folder.name}-photos"
    if with_photos:
        draw_photos(place, ids)
    digests = [
        digest((place / name).read_bytes()) if with_photos else f"{i:032x}" for i, name in enumerate(ids)
    ]
    run = Run.create(folder)
    run.write_config(Config.of(photos=place, test=test, seed=seed))
    run.write_json("timings.json", {"read and check photos": 0.41, "choose the backbone": 33.6, "train": 4.2})
    run.write_json("versions.json", {"python": "3.11.2", "topgraft": "0.1.0", "numpy": "2.4.6"})
    healthy = Health(
        photos=photos,
        classes={name: int((labels == i).sum()) for i, name in enumerate(classes)},
        refused=[],
        ignored=[],
        duplicates=[],
        cross_class_duplicates=[],
        leaks=[],
        tiny=[],
        odd_sizes=[],
        remarks=[],
        warnings=[],
        failed="",
    )
    run.write_json("health.json", replace(healthy, **(health or {})).as_dict())
    if curves:
        run.write_json("curves.json", {"series": series(rng)})
    fold = np.where(held, -1, np.arange(photos) % 5)
    samples = [
        Sample(name, name, int(label), name, address, pixels=digest(f"pixels of {address}".encode()))
        for name, label, address in zip(ids, labels, digests, strict=True)
    ]

    def answers(rows: Any) -> Answers:
        side = Side(rows, tuple(samples[i] for i in rows), labels[rows], rows)
        return Answers(side, probabilities[None, rows], fold[rows], distance[rows])

    sides = {"cv": np.flatnonzero(~held), "test": np.flatnonzero(held)}
    write_predictions(run, classes, {split: answers(rows) for split, rows in sides.items()})
    run.write_metrics(Metrics.model_validate(rounded(metrics)))
    return folder


def leaderboard(scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Rank five heads below the measured one."""
    names = [
        ("ridge", "alpha=100"),
        ("logistic", "C=0.01"),
        ("ridge", "alpha=10"),
        ("knn", "k=5"),
        ("mean", ""),
    ]
    rows = []
    for place, (head, setting) in enumerate(names):
        row: dict[str, Any] = {"head": head, "setting": setting}
        for key in ("accuracy", "balanced_accuracy", "macro_f1"):
            row[key] = {part: max(0.0, at - 0.025 * place) for part, at in scores[key].items()}
        row["log_loss"] = {part: at + 0.04 * place for part, at in scores["log_loss"].items()}
        row["difference"] = {
            "value": -0.025 * place,
            "low": -0.025 * place - 0.03,
            "high": 0.03 - 0.02 * place,
        }
        row["chosen"] = place == 0
        rows.append(row)
    return rows


def trust(labels: Any, probabilities: Any, ids: Any, classes: list[str]) -> dict[str, Any]:
    """Say how far the probabilities can be believed."""
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = []
    for low in np.arange(0, 1, 0.1):
        inside = (top > low) & (top <= low + 0.1)
        bins.append(
            {
                "low": round(float(low), 1),
                "high": round(float(low + 0.1), 1),
                "count": int(inside.sum()),
                "confidence": float(top[inside].mean()) if inside.any() else 0.0,
                "accuracy": float(right[inside].mean()) if inside.any() else 0.0,
            }
        )
    doubtful = [i for i in np.argsort(-top) if not right[i]][:4]
    return {
        "temperature": 1.3,
        "ece": {"value": 0.041, "low": 0.02, "high": 0.07},
        "reliability": bins,
        "unknown": {"method": "mahalanobis", "threshold": 1.9, "accepted": 0.96},
        "label_issues": [
            {
                "id": str(ids[i]),
                "label": classes[labels[i]],
                "suggested": classes[int(probabilities[i].argmax())],
                "probability": float(top[i]),
            }
            for i in doubtful
        ],
    }


def worth(policies: Sequence[str]) -> dict[str, Any]:
    """Say what the policies add, as the worth of stored features has it."""

    def gap(value: float) -> dict[str, Any]:
        return {
            name: {"value": value, "low": value - 0.03, "high": value + 0.02}
            for name in ("log_loss", "accuracy")
        }

    levels = [term for policy in policies for term in policy.split(" | ")]
    return {
        "head": "ridge",
        "view_0": gap(0.31),
        "all": gap(0.27),
        "difference": gap(-0.04),
        "levels": [
            {
                "level": level,
                "views": 1,
                "to_view_0": gap(0.02 * i - 0.05),
                "to_the_rest": gap(0.01 * i - 0.01),
            }
            for i, level in enumerate(levels)
        ],
        "policies": [{"policy": one, "to_view_0": gap(-0.01), "to_the_rest": gap(0.0)} for one in policies],
    }


def series(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Make learning curves as fine-tuning writes them."""
    x = list(range(1, 13))
    fall = np.exp(-np.array(x) / 4)
    return [
        {"name": "training loss", "x": x, "y": (0.1 + fall).tolist(), "kind": "loss"},
        {
            "name": "validation loss",
            "x": x,
            "y": (0.3 + 0.6 * fall + rng.normal(0, 0.01, 12)).tolist(),
            "kind": "loss",
        },
        {"name": "training accuracy", "x": x, "y": (1 - 0.4 * fall).tolist(), "kind": "accuracy"},
        {"name": "validation accuracy", "x": x, "y": (0.92 - 0.4 * fall).tolist(), "kind": "accuracy"},
        {"name": "learning rate", "x": x, "y": (1e-3 * fall).tolist(), "kind": "rate"},
    ]


def load(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
