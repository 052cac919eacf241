"""Learning curves: the fit is exact where the fall is, parts grow, and forecasts hold on drawn rows."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

import topgraft as tg
from commands import topgraft
from topgraft.config import Config
from topgraft.errors import DataError, UsageError
from topgraft.run import Run
from topgraft.run.results import rounded
from topgraft.selection.curve import SHARES, STRENGTHS, _fit, _parts, _ridge, curve, in_points
from topgraft.settings import Settings
from topgraft.testing.drawing import draw_photos


@given(
    floor=st.floats(0, 0.5),
    slope=st.floats(0, 5),
    power=st.floats(0.2, 1.0),
    first=st.floats(5, 500),
)
def test_a_fall_of_the_form_is_found_again(floor: float, slope: float, power: float, first: float) -> None:
    learned = first * np.array([1.0, 2, 3, 4, 5])
    found = _fit(learned, (floor + slope * learned**-power)[None], np.array([power]))
    for n in (first, 10 * first):
        assert found.at(n)[0] == pytest.approx(floor + slope * n**-power, abs=2e-4)


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5), st.floats(0.2, 1.0))
def test_no_fall_rises_or_ends_below_nothing(errors: list[float], power: float) -> None:
    found = _fit(np.array([10.0, 20, 30, 40, 50]), np.array([errors]), np.array([power]))
    assert found.floor[0] >= 0
    assert found.slope[0] >= 0
    assert found.at(1e6)[0] <= found.at(50)[0] + 1e-12


def test_very_many_photos_are_dealt_into_fewer_folds(monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    rows = (rng.standard_normal((60, 8)) + np.eye(3, 8)[labels]).astype(np.float32)
    assert curve(rows, labels, classes=list("abc")).numbers["folds"] == 10
    monkeypatch.setattr("topgraft.selection.curve.SCORED", 59)
    many = curve(rows, labels, classes=list("abc")).numbers
    assert many["folds"] == 5
    assert many["sizes"][-1]["photos"] == 48  # of four fifths
    assert many["repeats"] == 2


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), min_size=1, max_size=60), st.integers(0, 99))
def test_parts_grow_and_hold_every_class(photos: list[tuple[int, int]], seed: int) -> None:
    labels, groups = np.array(photos).T
    rng = np.random.default_rng(seed)
    counts = np.bincount(labels, minlength=4)
    sizes = np.maximum(np.outer(SHARES, counts - rng.integers(0, 2, 4)), 1).astype(np.int64)
    parts = _parts(labels, groups, sizes, rng)
    for before, after in pairwise(parts):
        assert set(before) <= set(after)
    for part, size in zip(parts, sizes, strict=True):
        assert np.bincount(labels[part], minlength=4).tolist() == np.minimum(size, counts).tolist()


def test_a_class_of_a_handful_is_learned_from_as_much_as_the_others_whichever_fold_is_scored() -> None:
    features, labels = rows(20, 0)
    found = curve(features, labels, classes=["a", "b", "c", "d"]).numbers
    assert [size["photos"] for size in found["sizes"]] == [4, 8, 8, 12, 16]  # of 5 each, one may be scored


@pytest.mark.parametrize("shape", [(12, 40), (60, 7)])
def test_the_ridge_is_the_ridge(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    z, held, target = rng.normal(size=shape), rng.normal(size=(5, shape[1])), rng.normal(size=(shape[0], 3))
    weight = rng.uniform(0.5, 2, shape[0])
    weight /= weight.mean()
    total = (weight[:, None] * (z - weight @ z / len(z)) ** 2).sum()
    single = _ridge(z.astype(np.float32), target, held.astype(np.float32), weight)
    for strength, answer, near in zip(STRENGTHS, _ridge(z, target, held, weight), single, strict=True):
        expected = Ridge(alpha=strength * total).fit(z, target, sample_weight=weight).predict(held)
        np.testing.assert_allclose(answer, expected, atol=1e-10)
        np.testing.assert_allclose(near, expected, atol=1e-6)


def rows(n: int, seed: int, classes: int = 4, width: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Draw features whose classes overlap: more of them are learned from with profit."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = np.arange(n) % classes
    return (1.0 * centres[labels] + rng.normal(size=(n, width)) * 3.2).astype(np.float32), labels


def test_the_forecast_holds_on_drawn_rows() -> None:
    held, truth = rows(4000, 10_000)
    inside, names = 0, [f"class {c}" for c in range(4)]
    for seed in range(8):
        features, labels = rows(160, seed)
        found = curve(features[:80], labels[:80], classes=names, seed=seed, settings=Settings(threads=1))
        right = []
        for n in (80, 160):
            z, target = features[:n].astype(np.float64), 2.0 * np.eye(4)[labels[:n]] - 1
            answers = _ridge(z, target, held.astype(np.float64), np.ones(n))
            right.append(max(float((answer.argmax(axis=1) == truth).mean()) for answer in answers))
        gain = found.numbers["gain"]["twice"]
        inside += gain["low"] <= right[1] - right[0] <= gain["high"]
        assert 0 <= gain["low"] <= gain["value"] <= gain["high"]
        assert [size["photos"] for size in found.numbers["sizes"]] == sorted(
            size["photos"] for size in found.numbers["sizes"]
        )
    assert inside >= 6


def test_equal_calls_are_equal_and_near_duplicates_are_never_on_both_sides() -> None:
    features, labels = rows(60, 0)
    doubled, twice = np.concatenate([features, features]), np.concatenate([labels, labels])
    names = ["a", "b", "c", "d"]
    alone = curve(doubled, twice, classes=names)
    assert curve(doubled, twice, classes=names).numbers == alone.numbers
    grouped = curve(doubled, twice, np.tile(np.arange(60), 2), classes=names)
    # a copy of a photo on the other side gives it away
    assert grouped.numbers["sizes"][-1]["accuracy"]["value"] < alone.numbers["sizes"][-1]["accuracy"]["value"]


def test_a_class_that_is_hardly_known_gains_most() -> None:
    features, labels = rows(160, 1)
    keep = (labels != 3) | (np.arange(160) < 32)
    found = curve(features[keep], labels[keep], classes=["a", "b", "c", "rare"])
    first = found.numbers["classes"][0]
    assert first["class"] == "rare"
    assert first["photos"] == 8
    assert "Ten more photos of one class would bring it the most of: rare +" in str(found)


def test_classes_weigh_as_they_did_for_the_head_in_use() -> None:
    features, labels = rows(160, 1)
    keep = (labels != 3) | (np.arange(160) < 48)
    names = ["a", "b", "c", "rare"]
    found = {
        mode: curve(features[keep], labels[keep], classes=names, class_weight=mode).numbers
        for mode in ("auto", "on", "off")
    }
    assert found["auto"]["sizes"] == found["on"]["sizes"] != found["off"]["sizes"]
    rare = {mode: next(one for one in of["classes"] if one["class"] == "rare") for mode, of in found.items()}
    assert rare["off"]["found"] < rare["on"]["found"]  # where it weighs no more than the others


def test_gains_scale_with_the_errors_of_the_head_in_use() -> None:
    features, labels = rows(80, 2)
    names = ["a", "b", "c", "d"]
    plain = curve(features, labels, classes=names).numbers
    half = curve(features, labels, classes=names, error=0.1).numbers
    fall = plain["gain"]["twice"]["value"] / half["gain"]["twice"]["value"]
    assert fall > 1.5  # a head that errs on a tenth has less to gain
    assert half["gain"]["four_times"]["high"] <= 0.1
    scale = 0.1 / plain["error"]
    known = {entry["class"]: entry for entry in plain["classes"]}
    for entry in half["classes"]:  # and so it is said class by class
        assert 1 - entry["found"] == pytest.approx(scale * (1 - known[entry["class"]]["found"]))
        assert entry["gain"]["value"] <= scale * known[entry["class"]]["gain"]["value"] + 1e-9


def test_what_cannot_be_told_is_refused() -> None:
    features, labels = rows(40, 0)
    with pytest.raises(UsageError, match="one label per photo"):
        curve(features, np.eye(4)[labels].astype(np.int64), classes=list("abcd"))
    with pytest.raises(DataError, match="at least 20 photos that differ, got 4"):
        curve(features, labels, np.arange(40) % 4, classes=list("abcd"))


def test_points_are_written_for_people() -> None:
    assert in_points({"value": 0.021, "low": 0.005, "high": 0.0349}) == "+2.1 points (0.5 to 3.5)"
    assert in_points({"value": 0.12, "low": 0.05, "high": 0.2}) == "+12 points (5 to 20)"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("curve")
    data = tg.Dataset.from_folder(draw_photos(folder / "photos", 20, seed=2))
    store = tg.embed(data, folder / "run" / "features.zarr")
    uneven = tg.split(data.subset([*data.ids[:20], *data.ids[20:32]]), test=0.25)
    options = {"heads": ["ridge"], "folds": 3, "seed": 1, "class_weight": "off"}
    return tg.train(store, uneven, out=folder / "other", **options)


def test_a_run_has_its_curve_and_a_command_shows_it(run: Run) -> None:
    store = run.path.parent / "run" / "features.zarr"
    facts = json.loads((run.path / "metrics.json").read_text())
    assert facts["curve"]["photos"] == facts["counts"]["train"]
    assert any(note.startswith("Twice the photos") for note in facts["notes"])
    found = tg.curve(run, store=store)
    assert rounded(found.numbers["sizes"]) == facts["curve"]["sizes"]
    weighted = Run(shutil.copytree(run.path, run.path.parent / "weighted"))
    weighted.write_config(Config.load(heads__class_weight="on"))  # a run of photos says so in its config
    assert tg.curve(weighted, store=store).numbers["sizes"] != found.numbers["sizes"]
    with pytest.raises(DataError, match=r"expected features\.zarr in the run, found none"):
        tg.curve(run)
    told = topgraft("curve", run.path, "--store", store)
    assert told.returncode == 0
    assert found.sentences[0] in told.stdout
    assert "10 more would bring" in told.stdout
    whole = tg.curve(store)
    assert whole.numbers["photos"] == facts["counts"]["photos"]


def test_the_report_shows_it(run: Run) -> None:
    text = Path(tg.report(run)).read_text(encoding="utf-8")
    assert 'id="more"' in text
    assert 'data-metric="/curve/gain/twice/value"' in text
