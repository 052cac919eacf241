"""A run: one folder with the choices, the numbers and the predictor."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import shutil
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from topgraft.errors import DataError, UsageError

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
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder}: expected a folder for the run, found a file. Choose another name.")
        held = {one.name for one in folder.iterdir()} if folder.is_dir() else set()
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
            UsageError: as `judge`, or where the folder cannot be made.
        """
        folder = cls.judge(path, overwrite=overwrite, resume=resume)
        try:
            if overwrite and folder.is_dir():
                shutil.rmtree(folder.resolve())  # not the link that leads there
            folder.resolve().mkdir(parents=True, exist_ok=True)
            (folder / MARK).touch()
        except OSError as error:
            raise UsageError(f"{folder}: the run's folder cannot be made ({error.strerror}).") from error
        return cls(folder)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a finished run.

        Raises:
            DataError: where the folder is no run.
        """
        folder = Path(path)
        if not (folder / "metrics.json").is_file():
            what = "no metrics.json in it" if folder.is_dir() else "no such folder"
            raise DataError(f"{folder}: expected a run made by `topgraft train`, found {what}.")
        return cls(folder)

    def __fspath__(self) -> str:
        """Stand wherever a folder is wanted: `tg.load(run)`."""
        return str(self.path)

    @property
    def model(self) -> Path:
        """The predictor's folder."""
        return self.path / "model"

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers."""
        return self.read("metrics.json")

    @property
    def config(self) -> dict[str, Any]:
        """The resolved choices."""
        return tomllib.loads((self.path / "config.toml").read_text(encoding="utf-8"))

    def read(self, name: str) -> dict[str, Any]:
        """Read one of the JSON files; an absent one is empty.

        Raises:
            DataError: for a damaged file.
        """
        try:
            found: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise DataError(f"{self.path / name}: is damaged ({error}). Train again.") from error
        return found

    def write(self, name: str, text: str) -> Path:
        """Write a text file so that a crash leaves the old one or the new one, never half."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.{os.getpid()}")
        half.write_text(text, encoding="utf-8")
        half.replace(path)
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
        table = csv.writer(text, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
        return self.write(name, text.getvalue())

    def table(self, name: str) -> list[dict[str, str]]:
        """Read a CSV table; an absent one is empty."""
        path = self.path / name
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))) if path.is_file() else []


def versions() -> dict[str, str]:
    """Say what made the numbers: Python, the machine, and the libraries that touch them."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _next_free(folder: Path) -> Path:
    number = 1
    while (folder / f"{number:03d}").exists():
        number += 1
    return folder / f"{number:03d}"
