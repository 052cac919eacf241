"""Note a finished run in MLflow, for those who keep their experiments there. Off unless asked for."""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from topgraft.errors import MissingExtraError, OfflineError, StoreError, TopgraftError, UnknownNameError
from topgraft.files import AGAIN, said
from topgraft.run import Run
from topgraft.settings import Settings
from topgraft.telemetry import import_silently
from topgraft.text import flat

TRACKERS = ("mlflow",)
ARTEFACTS = ("config.toml", "metrics.json", "health.json", "predictions.csv", "report.html", "model")
LOCAL = ("sqlite:", "file:", "/", ".")
"""How places on this machine begin, to MLflow."""
LONGEST = 6000
"""MLflow refuses longer parameters."""


def track(
    run: Run | str | Path,
    to: str = "mlflow",
    *,
    uri: str | None = None,
    experiment: str = "topgraft",
    settings: Settings | None = None,
) -> str:
    """Log a finished run's choices, numbers and files.

    Numbers are read from the run's files, nothing is measured again. Nothing leaves the machine unless `uri`
    or the environment variable MLFLOW_TRACKING_URI names a server.

    Args:
        run: a finished run, or its folder.
        to: `mlflow`.
        uri: where MLflow keeps its experiments; None is MLFLOW_TRACKING_URI, else `mlflow.db` (SQLite) beside
            the run's folder.
        experiment: MLflow's name for a collection of runs.
        settings: whether a socket may be opened.

    Returns:
        MLflow's id of the run.

    Raises:
        UnknownNameError: for another tracker.
        MissingExtraError: without the `track` extra.
        DataError: where the folder is no run.
        OfflineError: for a server where no socket may be opened.
        StoreError: where MLflow cannot be reached, or does not take it.
    """
    judge(to, uri, settings=settings)
    run = run if isinstance(run, Run) else Run.open(run)
    place = _server(uri) or f"sqlite:///{run.path.resolve().parent / 'mlflow.db'}"
    mlflow = import_silently("mlflow", "track", "tracking")
    try:
        return _note(mlflow.MlflowClient(tracking_uri=place), run, experiment, place)
    except TopgraftError:
        raise
    except Exception as error:  # its own, those of its server's client, of its database and of its storage
        raise StoreError(
            f"{place}: the run cannot be noted there ({said(error)}). {run.path} is whole. See to the address"
            f" and the right to write, then {AGAIN}."
        ) from error


def judge(to: str, uri: str | None = None, *, settings: Settings | None = None) -> None:
    """See, before a run is trained, that it could be noted; nobody is asked yet.

    Raises:
        UnknownNameError: for another tracker.
        MissingExtraError: without the `track` extra.
        OfflineError: for a server where no socket may be opened.
    """
    if to not in TRACKERS:
        raise UnknownNameError("tracker", to, TRACKERS)
    if importlib.util.find_spec("mlflow") is None:  # its import takes seconds
        raise MissingExtraError("track", "tracking")
    place = _server(uri)
    if place and (settings or Settings.load()).offline and not place.startswith(LOCAL):
        raise OfflineError(
            f"{place}: offline, so no server is asked. Unset MLFLOW_TRACKING_URI to note the run beside its"
            " folder."
        )


def _server(uri: str | None) -> str | None:
    return uri or os.environ.get("MLFLOW_TRACKING_URI")


def _note(client: Any, run: Run, experiment: str, place: str) -> str:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        beside = run.path.resolve().parent
        local = (beside / "mlartifacts").as_uri() if place.startswith("sqlite:") else None
        number = client.create_experiment(experiment, artifact_location=local)
    else:
        number = found.experiment_id
    noted = str(client.create_run(number, run_name=run.path.name).info.run_id)
    try:
        _log(client, noted, run)
    except BaseException:
        with suppress(Exception):  # what failed first is what is said
            client.set_terminated(noted, status="FAILED")  # or MLflow shows it running for ever
        raise
    client.set_terminated(noted)
    return noted


def _log(client: Any, number: str, run: Run) -> None:
    metrics, config = run.metrics.as_dict(), run.config
    facts = {
        "config": config.as_dict() if config else {},
        "head": metrics["head"],
        "backbone": metrics["backbone"],
    }
    for name, value in _named(facts).items():
        client.log_param(number, name, str(value)[:LONGEST])
    scores = {key: metrics.get(key) for key in ("cross_validation", "test", "trust", "counts")}
    for name, value in _named({key: part for key, part in scores.items() if part}).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            client.log_metric(number, name, float(value))
    for stage, spent in run.read("timings.json").items():
        if not isinstance(spent, str):  # older runs name the machine, too
            client.log_metric(number, f"seconds/{_plain(stage)}", float(spent))
    for name in ARTEFACTS:
        path = run.path / name
        if path.is_dir():
            client.log_artifacts(number, str(path), name)
        elif path.is_file():
            client.log_artifact(number, str(path))


def _named(facts: dict[str, Any]) -> dict[str, Any]:
    """Write nested plain data as `a/b/c: value`; an estimate's value stands for it."""
    return {
        "/".join(_plain(str(key)) for key in keys).removesuffix("/value"): value
        for keys, value in flat(facts).items()
    }


def _plain(name: str) -> str:
    """Keep what MLflow allows in a name."""
    return "".join(letter if letter.isalnum() or letter in "_-. " else "_" for letter in name)
