"""Tracking notes what the run measured, beside the run, and only when asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import topgraft
from run_folder import load, write_run
from tiny import TINY
from topgraft import _track
from topgraft.errors import DataError, MissingExtraError, StoreError, UnknownNameError
from topgraft.testing.drawing import draw_photos

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, Any]]:
    """A run, the name that it was tracked under, and who reads it there: MLflow takes seconds to begin."""
    mlflow = pytest.importorskip("mlflow", reason="needs the track extra")
    place = tmp_path_factory.mktemp("tracked")
    folder = write_run(place / "first", photos=40, classes=("rice & fish", "bread"), with_photos=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(place)
        number = _track.track(folder)
        yield folder, number, mlflow.MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")


def test_mlflow_gets_the_runs_numbers_choices_and_files(tracked: tuple[Path, str, Any]) -> None:
    folder, number, client = tracked
    noted = client.get_run(number)
    metrics = load(folder / "metrics.json")
    assert noted.info.status == "FINISHED"
    assert noted.data.metrics["test/accuracy"] == metrics["test"]["accuracy"]["value"]
    assert noted.data.metrics["test/accuracy/low"] == metrics["test"]["accuracy"]["low"]
    assert noted.data.metrics["seconds/train"] == 4.2
    recall = metrics["cross_validation"]["per_class"]["rice & fish"]["recall"]["value"]
    assert noted.data.metrics["cross_validation/per_class/rice _ fish/recall"] == recall
    assert noted.data.params["head/name"] == "logistic"
    assert noted.data.params["config/data/test"] == "0.2"
    assert {one.path for one in client.list_artifacts(number)} >= {
        "metrics.json",
        "config.toml",
        "predictions.csv",
    }
    assert not (folder.parent / "mlruns").exists()


def test_runs_share_an_experiment_and_one_that_cannot_be_noted_is_not_shown_running(
    tracked: tuple[Path, str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, number, client = tracked
    monkeypatch.chdir(tmp_path)  # it is kept beside the run, wherever one stands
    numbers = {number, _track.track(folder)}
    experiment = client.get_experiment_by_name("topgraft").experiment_id
    assert {one.info.run_id for one in client.search_runs([experiment])} == numbers
    (folder / "timings.json").write_text('{"embed": []}')
    with pytest.raises(DataError, match=r"timings\.json: is damaged"):
        _track.track(folder)
    (third,) = (one for one in client.search_runs([experiment]) if one.info.run_id not in numbers)
    assert third.info.status == "FAILED"


def test_a_server_that_does_not_answer_is_one_line_after_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="needs the track extra")
    run = write_run(tmp_path / "run", photos=30, with_photos=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match=r"^http://127\.0\.0\.1:9: the run cannot be noted .*--resume"):
        _track.track(run, uri="http://127.0.0.1:9")
    with pytest.raises(StoreError, match="foo://bar: the run cannot be noted there"):
        _track.track(run, uri="foo://bar")
    with pytest.raises(StoreError, match="No such file"):
        _track.track(run, uri=f"sqlite:////proc/{tmp_path.name}/mlflow.db")
    photos = draw_photos(tmp_path / "photos", 6, seed=0)
    line = ["train", photos, "-o", tmp_path / "new", "--backbone", TINY, "--policies", 0, "--heads", "ridge"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = topgraft(*line, "--track", "mlflow", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["classes"] == ["sandwich", "sushi"]
    assert "topgraft: http://127.0.0.1:9: the run cannot be noted there" in done.stderr.splitlines()[-1]
    again = topgraft(*line, "--resume", "--track", "mlflow")  # as the line says: nothing is trained anew
    assert again.returncode == 1
    assert "cross-validated" in again.stdout


def test_a_tracker_that_cannot_be_is_said_before_the_training(tmp_path: Path) -> None:
    done = topgraft("train", tmp_path, "-o", tmp_path / "new", "--track", "mlfow")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean mlflow" in done.stderr
    assert not (tmp_path / "new").exists()


def test_mistakes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "run", photos=30, with_photos=False)
    with pytest.raises(UnknownNameError, match="Did you mean mlflow"):
        _track.track(folder, "mlfow")
    with pytest.raises(DataError, match="expected a run"):
        _track.track(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"topgraft\[track\]"):
        _track.track(folder)
