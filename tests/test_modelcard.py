"""The model card says what the run measured, and no more."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from run_folder import load, write_run
from topgraft.errors import DataError
from topgraft.metrics import summary
from topgraft.predictor.modelcard import write_model_card


def _card(folder: Path, **facts: object) -> str:
    (folder / "model").mkdir(exist_ok=True)
    backbone = {"name": "tf_efficientnet_lite0.in1k", "licence": "Apache-2.0", "origin": "a package"}
    (folder / "model" / "card.json").write_text(json.dumps({"backbone": backbone} | facts))
    path = write_model_card(folder)
    assert path == folder / "model" / "README.md"
    return path.read_text(encoding="utf-8")


def test_a_score_that_says_nothing_is_a_dash(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", photos=60, with_photos=False)
    metrics = load(folder / "metrics.json")
    metrics["test"] = summary(np.zeros(8, np.int64), np.tile([0.8, 0.2], (8, 1)), metrics["classes"])
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert "| balanced accuracy | – |" in _card(folder)


def test_it_tells_data_numbers_limits_and_licence(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", photos=60, with_photos=False, policies=["hflip", "rotation(30)"])
    text, metrics = _card(folder), load(folder / "metrics.json")
    accuracy = metrics["test"]["accuracy"]
    shown = f"{100 * accuracy['value']:.1f} % ({100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f})"
    assert f"| accuracy | {shown} |" in text
    assert f"Measured on {metrics['test']['n']} photos held out" in text
    for name, sides in metrics["counts"]["per_class"].items():
        assert f"| {name} | {sides['train']} | {sides['test']} |" in text
    assert "licence: Apache-2.0, from a package" in text
    assert "the intervals are wide for that reason" in text
    assert "2 augmented views" in text
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# sandwich, sushi", "## Data", "## Numbers", "## Limits", "## Backbone",
    ]  # fmt: skip


def test_without_a_test_it_says_so(tmp_path: Path) -> None:
    text = _card(write_run(tmp_path / "run", photos=40, test=0, with_photos=False))
    assert "No photos were held out" in text
    assert "by cross-validation" in text


def test_weak_and_small_classes_are_among_the_limits(tmp_path: Path) -> None:
    classes = [f"kind {i}" for i in range(8)]
    folder = write_run(tmp_path / "run", photos=48, skill=0.5, classes=classes, with_photos=False)
    text, metrics = _card(folder), load(folder / "metrics.json")
    weak = [name for name, of in metrics["test"]["per_class"].items() if of["recall"]["value"] < 0.8]
    assert weak
    said = next(line for line in text.splitlines() if line.startswith("- Classes it often misses"))
    assert re.findall(r"kind \d", said) == weak
    assert "Fewer than 10 training photos: kind 0, kind 1" in text


def test_names_cannot_break_the_tables(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", photos=40, classes=("a|b", "<script>"), with_photos=False)
    text = _card(folder)
    assert r"| a\|b |" in text
    assert "<script>" not in text.replace(r"\<script\>", "")


def test_no_run_no_card(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a run"):
        write_model_card(tmp_path)
