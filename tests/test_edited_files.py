"""Files of runs, stores and predictors that somebody edited: they are used, or refused in one line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edits import edits
from embedding import a_backbone, embed_here
from photos import paint_folder
from run_folder import POLICIES, write_run
from topgraft import FeatureStore, report
from topgraft.errors import DataError, StoreError, TopgraftError
from topgraft.predictor.modelcard import model_card
from topgraft.run import Run
from topgraft.run.predictions import held_out, learned
from topgraft.settings import Settings
from topgraft.show import print_verdict

SETTINGS = Settings.load(threads=1)
EDITS = 20
"""Of each file, drawn; `make nightly` tries 30 times as many."""
MANY = pytest.param(30 * EDITS, marks=pytest.mark.nightly)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(
        tmp_path_factory.mktemp("edited") / "run", photos=16, policies=POLICIES, with_photos=False
    )
    facts = json.loads((folder / "metrics.json").read_text())
    at = {"value": 0.8, "low": 0.6, "high": 0.9}
    facts["trust"]["coverage"] = {
        "area": at,
        "table": [{"above": above, "answered": at, "right": at} for above in (0.5, 0.9)],
        "curve": [{"above": 0.9, "answered": 0.5, "right": 0.9}, {"above": 0.5, "answered": 1, "right": 0.8}],
    }
    facts["curve"] = {
        "photos": 12,
        "sizes": [{"photos": 6.0, "accuracy": at}],
        "fitted": [{"photos": n, "accuracy": at} for n in (6.0, 48.0)],
        "gain": {"half_more": at, "twice": at, "four_times": at},
        "more": 10,
        "classes": [{"class": "sushi", "photos": 6, "found": 0.8, "gain": at}],
    }
    (folder / "metrics.json").write_text(json.dumps(facts))
    return folder


def read_run(folder: Path) -> None:
    """Do all that reads a run without asking its predictor."""
    run = Run.open(folder)
    report(run, out=folder.parent / "report.html", settings=SETTINGS)
    report([run, run], out=folder.parent / "compare.html", settings=SETTINGS)
    model_card(run)
    print_verdict(run)


def try_edits(file: Path, read: Callable[[], object], most: int) -> int:
    """Edit a file in many ways and read it; returns how many were refused, each in one line that names it."""
    good, refusals = file.read_bytes(), list[str]()
    try:
        for said, text in edits(file, most):
            file.write_text(text, encoding="utf-8")
            try:
                read()
            except TopgraftError as error:
                refusals.append(str(error))
            except Exception as error:
                raise AssertionError(f"{file.name}: {said}") from error
    finally:
        file.write_bytes(good)
    assert [text for text in refusals if "\n" in text or len(text) > 500] == []
    return len(refusals)


@pytest.mark.parametrize("most", [EDITS, MANY])
@pytest.mark.parametrize(
    "name", ["metrics.json", "health.json", "timings.json", "curves.json", "versions.json"]
)
def test_edited_files_of_a_run_are_one_line(run: Path, name: str, most: int) -> None:
    def read() -> None:
        if name == "metrics.json":
            read_run(run)
        else:
            report(run, out=run.parent / "report.html", settings=SETTINGS)

    read()
    assert try_edits(run / name, read, most)


@pytest.mark.parametrize(
    ("name", "edit", "said"),
    [
        ("metrics.json", '"value": NaN', r"metrics\.json: is damaged \(NaN is no number\)\. Train again"),
        ("metrics.json", '"value": 1e999', r"metrics\.json: is damaged \(1e999 is no number\)"),
        ("timings.json", '"train": -Infinity', r"timings\.json: is damaged \(-Infinity is no number\)"),
    ],
)
def test_numbers_that_are_none_are_refused(run: Path, name: str, edit: str, said: str) -> None:
    good = (run / name).read_text()
    (run / name).write_text(re.sub(rf"{edit.partition(' ')[0]} [\d.e-]+", edit, good, count=1))
    try:
        with pytest.raises(DataError, match=said):
            read_run(run)
    finally:
        (run / name).write_text(good)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        *(("probability", cell) for cell in ("nan", "1.5", "-0.1", "")),
        *(("fold", cell) for cell in ("9" * 30, "2147483647", "-2", "x")),
        ("split", "train"),
        *(("distance", cell) for cell in ("nan", "1e999")),
        ("p_sandwich", "inf"),
        ("label", "tuna"),
        ("predicted", ""),
    ],
)
def test_edited_predictions_are_one_line(run: Path, column: str, cell: str) -> None:
    file = run / "predictions.csv"
    good = file.read_text()
    head, first, *rest = good.splitlines()
    cells = first.split(",")
    cells[head.split(",").index(column)] = cell
    file.write_text("\n".join([head, ",".join(cells), *rest]))
    try:
        with pytest.raises(DataError, match=r"predictions\.csv: is damaged \("):
            read_run(run)
    finally:
        file.write_text(good)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('data = {photos = "a\\u0000b"}', r"config\.toml: is damaged \(data\.photos: "),
        ("data = {photos = 3}", r"data\.photos: Input should be a valid string"),
        ("seed = -1", r"seed: Input should be greater"),
        ("policies = {count = 1e9}", r"policies\.count: .*how many policies at most"),
        ("nonsense = 1", r"nonsense: Extra inputs are not permitted"),
    ],
)
def test_edited_choices_are_one_line(run: Path, config: str, said: str) -> None:
    file = run / "config.toml"
    good = file.read_text()
    file.write_text(config)
    try:
        with pytest.raises(DataError, match=said):
            read_run(run)
    finally:
        file.write_text(good)


@pytest.mark.parametrize("most", [EDITS, MANY])
@pytest.mark.parametrize("name", ["zarr.json", "table/zarr.json"])
def test_edited_stores_are_one_line(tmp_path: Path, name: str, most: int) -> None:
    photos = paint_folder(tmp_path / "photos", apple=3, pear=3)
    embed_here(str(photos), str(tmp_path / "s.zarr"), a_backbone(tmp_path / "backbone"))

    def read() -> None:
        store = FeatureStore.open(tmp_path / "s.zarr", settings=SETTINGS)
        store.info()
        assert len(store.features(0)) == len(store.blocks(0)) == len(store) == len(store.labels)
        assert held_out(store) == frozenset()
        assert len(learned(store).labels) == len(store)

    read()
    assert try_edits(tmp_path / "s.zarr" / name, read, most)


@pytest.mark.parametrize("most", [EDITS, MANY])
def test_edited_arrays_of_a_store_are_one_line(tmp_path: Path, most: int) -> None:
    photos = paint_folder(tmp_path / "photos", apple=3, pear=3)
    embed_here(str(photos), str(tmp_path / "s.zarr"), a_backbone(tmp_path / "backbone"))
    for file in sorted((tmp_path / "s.zarr").glob("*/**/zarr.json")):
        if json.loads(file.read_text())["node_type"] == "array":
            try_edits(file, lambda: FeatureStore.open(tmp_path / "s.zarr").features(0), most // 4)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize(
    "name", ["zarr.json", "table/zarr.json", "plans/*/zarr.json", "rows/*/*/zarr.json", "rows/*/*/c.0.0"]
)
def test_a_pipe_in_a_store_is_not_waited_for(tmp_path: Path, name: str) -> None:
    photos = paint_folder(tmp_path / "photos", apple=3, pear=3)
    embed_here(str(photos), str(tmp_path / "s.zarr"), a_backbone(tmp_path / "backbone"))
    for file in list((tmp_path / "s.zarr").glob(name)):
        file.unlink()
        os.mkfifo(file)
        os.mkfifo(file.with_name(".zattrs")) if file.name == "zarr.json" else None
    with pytest.raises(StoreError):
        FeatureStore.open(tmp_path / "s.zarr").features(0)
