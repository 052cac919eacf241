"""A run: one folder with the choices, the numbers and the predictor."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import re
import shutil
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from topgraft import files, notebook
from topgraft.config import Config
from topgraft.errors import DataError, UsageError
from topgraft.files import is_file
from topgraft.run.forms import FORMS, finite
from topgraft.run.metrics import SCHEMA, Metrics, Scores
from topgraft.text import bare_cell, counted, first_mistake, safe_cell, shortened

LIBRARIES = (
    "topgraft",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "openvino",
    "onnx",
    "scikit-learn",
    "zarr",
)
AGAIN = "run the same command again with --resume: what is done is kept"
COUNTED = re.compile(r"-\d+$")
MARK = ".topgraft-run"
"""A folder that holds this file is a run; no other folder is ever overwritten or gone on in."""


@dataclass(frozen=True)
class Run:
    """A folder: config.toml, metrics.json, timings.json, health.json, predictions.csv, report.html, model/.

    `metrics.json` holds numbers only, no times and no paths, so that equal runs are equal bytes.
    """

    path: Path

    @classmethod
    def judge(cls, path: str | Path | None, *, overwrite: bool = False, resume: bool = False) -> Path:
        """Find the folder a run would go to, and touch nothing.

        Raises:
            UsageError: where it is not empty and neither may be replaced nor gone on in.
        """
        folder = _next_free(Path("runs")) if path is None else Path(path)
        try:
            if os.path.lexists(folder) and not folder.is_dir():
                raise UsageError(
                    f"{folder}: expected a folder for the run, found a file. Choose another name."
                )
            held = {entry.name for entry in folder.iterdir()} - {files.LOCK} if folder.is_dir() else set()
        except OSError as error:
            raise UsageError(
                f"{folder}: cannot hold a run ({error.strerror}). Choose another name."
            ) from error
        if {MARK, "metrics.json"} <= held and not (overwrite or resume):
            raise UsageError(
                f"{folder}: holds a finished run, which stays as it is. Give `-o {next_name(folder)}`: its"
                " features are used again. Or --overwrite."
            )
        if held and not (overwrite or resume):
            raise UsageError(
                f"{folder}: expected an empty folder for the run, found {len(held)} files in it."
                " Choose another name, or give --overwrite or --resume."
            )
        if held and MARK not in held:
            raise UsageError(f"{folder}: is not a run, so nothing in it is touched. Choose another name.")
        return folder

    @classmethod
    def create(cls, path: str | Path | None = None, *, overwrite: bool = False, resume: bool = False) -> Run:
        """Make a run's folder; without a path, `runs/` and the next free number.

        Raises:
            UsageError: as `judge`.
            StoreError: where the folder cannot be made, or another process is at work in it.
        """
        folder = (
            _numbered(Path("runs")) if path is None else cls.judge(path, overwrite=overwrite, resume=resume)
        )
        with files.locked(folder), files.guarded(folder, AGAIN):
            if overwrite:
                # What is in the folder, not the folder: it holds the lock, and may be behind a link.
                for entry in folder.iterdir():
                    if entry.name == files.LOCK:
                        continue
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            (folder / MARK).touch()
        return cls(folder)

    def locked(self) -> AbstractContextManager[None]:
        """Keep a second process out of the folder while the block runs; a StoreError where one is in it."""
        return files.locked(self.path)

    def reopen(self) -> None:
        """Take the numbers away: until they are made anew, the run is unfinished."""
        with files.guarded(self.path, AGAIN):
            (self.path / "metrics.json").unlink(missing_ok=True)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a finished run.

        Raises:
            DataError: where the folder is no run.
        """
        folder = Path(path)
        if not is_file(folder / "metrics.json"):
            raise DataError(
                f"{folder}: expected a run made by `topgraft train`, found {what_is_there(folder)}"
            )
        return cls(folder)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Show the numbers that count, in a notebook; of an unfinished run, that it is not finished."""
        if not is_file(self.path / "metrics.json"):
            return notebook.facts("Run", [("folder", self.path), ("state", "not finished")])
        metrics = self.metrics
        report = self.path / "report.html"
        return notebook.facts(
            "Run",
            [
                ("folder", self.path),
                ("cross-validated accuracy", _of(metrics.cross_validation)),
                ("held-out accuracy", _of(metrics.test) if metrics.test else ""),
                ("head", f"{metrics.head.name} {metrics.head.setting}".strip()),
                ("backbone", metrics.backbone.name),
                ("policies", len(metrics.policies)),
                ("report", report if is_file(report) else ""),
            ],
        )

    def to_frame(self) -> Any:
        """Return predictions.csv as a pandas DataFrame: an answer a photo, by a head not fitted on it.

        Raises:
            MissingPandasError: where pandas is not installed.
            DataError: for a damaged table.
        """
        shares = [f"p_{name}" for name in self.metrics.classes]
        rows: list[dict[str, object]] = []
        for line in self.read_table("predictions.csv"):
            row: dict[str, object] = dict(line)
            for name in ("probability", "distance", *shares):
                row[name] = float(line[name]) if line.get(name) else None
            rows.append(row)
        return notebook.frame(rows)

    def __fspath__(self) -> str:
        """Stand wherever a folder is wanted: `tg.load(run)`."""
        return str(self.path)

    @property
    def model(self) -> Path:
        """The predictor's folder; an exported folder is one itself."""
        inside = self.path / "model"
        return inside if inside.is_dir() or not is_file(self.path / "card.json") else self.path

    @property
    def metrics(self) -> Metrics:
        """The numbers.

        Raises:
            DataError: where the run is not finished, or the file is damaged or of a newer Topgraft.
        """
        path, facts = self.path / "metrics.json", self.read("metrics.json")
        if not facts:
            raise DataError(
                f"{self.path}: expected a run made by `topgraft train`, found {what_is_there(self.path)}"
            )
        schema = facts.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise DataError(
                f"{path}: written with schema {shortened(str(schema))}, this Topgraft reads up to schema"
                f" {SCHEMA}."
                " Update Topgraft: pip install -U topgraft."
            )
        try:
            return Metrics.model_validate(facts)
        except ValidationError as error:
            raise DataError(f"{path}: is damaged ({first_mistake(error)}). Train again.") from error

    def unknown_method(self) -> str:
        """By which distance it calls photos unknown; empty where it is not finished, or damaged."""
        try:
            return self.metrics.trust.unknown.method
        except DataError:
            return ""

    def write_metrics(self, metrics: Metrics) -> Path:
        """Write the numbers; last, for they are what makes a run a finished one."""
        return self.write_json("metrics.json", metrics.as_dict())

    @property
    def config(self) -> Config | None:
        """The resolved choices; None for a run that was trained from features.

        Raises:
            DataError: where the file is damaged.
        """
        path = self.path / "config.toml"
        try:
            return Config.model_validate(tomllib.loads(files.text(path).replace("\r\n", "\n")))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise DataError(f"{path}: is damaged ({first_mistake(error)}). Train again.") from error
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: is damaged ({files.said(error)}). Train again.") from error

    def write_config(self, config: Config) -> Path:
        """Write the resolved choices."""
        return self.write("config.toml", tomli_w.dumps(config.as_dict()))

    def read(self, name: str) -> dict[str, Any]:
        """Read one of the JSON files; an absent one is empty.

        Raises:
            DataError: for a damaged file, and one that lacks what is read of it.
        """
        try:
            found = finite(files.text(self.path / name))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{self.path / name}: is damaged ({files.said(error)}). Train again.") from error
        if not isinstance(found, dict):
            raise DataError(
                f"{self.path / name}: expected an object, got {type(found).__name__}. Train again."
            )
        try:
            FORMS.get(name, dict)(found)
        except ValidationError as error:
            raise DataError(
                f"{self.path / name}: is damaged ({first_mistake(error)}). Train again."
            ) from error
        return found

    def write(self, name: str, text: str) -> Path:
        """Write a text file so that a crash leaves the old one or the new one, never half.

        Raises:
            StoreError: where it cannot be written.
        """
        path = self.path / name
        with files.guarded(path, AGAIN):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, text.encode())
        return path

    def write_json(self, name: str, facts: Any) -> Path:
        """Write plain data as JSON, in one way only."""
        return self.write(name, json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long a stage takes, in timings.json."""
        begun = time.perf_counter()
        yield
        self.note_time(stage, time.perf_counter() - begun)

    def note_time(self, stage: str, seconds: float) -> None:
        """Note how long a stage took, in timings.json."""
        spent = self.read("timings.json")
        spent[stage] = round(seconds, 3)
        self.write_json("timings.json", spent)

    def write_table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
        """Write a CSV table."""
        text = io.StringIO()
        lines = [list(columns), *([safe_cell(str(cell)) for cell in row] for row in rows)]
        # A lone carriage return ends a line for who reads, but is not quoted of itself.
        returns = any("\r" in cell for line in lines for cell in line)
        table = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL)
        table.writerows(lines)
        return self.write(name, text.getvalue())

    def read_table(self, name: str) -> list[dict[str, str]]:
        """Read a CSV table that `write_table` wrote; an absent one is empty.

        Raises:
            DataError: for what is no table.
        """
        path = self.path / name
        try:
            lines = csv.DictReader(io.StringIO(files.text(path), newline=""), restval="")
            return [
                {key: bare_cell(cell) for key, cell in line.items() if isinstance(cell, str)}
                for line in lines
            ]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{path}: is damaged ({files.said(error)}). Train again.") from error


def _of(scores: Scores) -> str:
    return f"{scores.accuracy} ({counted(scores.n, 'photo')})"


def versions() -> dict[str, str]:
    """Say what made the numbers: Python, the machine, and the libraries that touch them."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _numbered(folder: Path) -> Path:
    """Make the next free folder; of two processes at once, each makes its own."""
    with files.guarded(folder):
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            with suppress(FileExistsError):
                (free := _next_free(folder)).mkdir()
                return free


def is_finished(folder: Path) -> bool:
    """Tell whether a finished run lies in a folder."""
    return is_file(folder / MARK) and is_file(folder / "metrics.json")


def next_name(folder: Path) -> Path:
    """Return the next free name after a run's: 002 after 001, first-2 after first, first-3 after first-2."""
    if folder.name.isdecimal():
        return _next_free(folder.parent)
    stem, number = COUNTED.sub("", folder.name), 2
    while os.path.lexists(folder.with_name(f"{stem}-{number}")):
        number += 1
    return folder.with_name(f"{stem}-{number}")


def beside(folder: Path, photos: str) -> list[Path]:
    """Return the feature stores of runs on the same photos that lie beside a run's folder, by name."""
    found = []
    for other in sorted(folder.absolute().parent.glob(f"*/{MARK}")):
        try:
            config = Run(other.parent).config
        except DataError:  # a damaged neighbour has nothing to give
            continue
        store = other.parent / "features.zarr"
        same = config is not None and files.absolute(config.data.photos) == files.absolute(photos)
        if same and other.parent != folder.absolute() and is_file(store / "zarr.json"):
            found.append(store)
    return found


def _next_free(folder: Path) -> Path:
    number = 1
    while (folder / f"{number:03d}").exists():
        number += 1
    return folder / f"{number:03d}"


def what_is_there(folder: Path) -> str:
    """Say what is in place of a finished run, and what to do about it; with a full stop."""
    if not os.path.isdir(folder):  # noqa: PTH112  Path.is_dir raises for a name that is too long
        return "a file." if os.path.lexists(folder) else "no such folder."
    if is_file(folder / MARK):
        return "one that is not finished. Give --resume to the command that began it."
    return "a folder of something else."
