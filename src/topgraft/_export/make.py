"""Write a run's predictor for another runtime, and let it answer there before anyone relies on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from topgraft import files
from topgraft._export import forms, graphs
from topgraft._export.agree import Agreement, compare
from topgraft._export.runtimes import open_named
from topgraft.errors import BackboneError, DataError, UnknownNameError, UsageError
from topgraft.files import is_file
from topgraft.photos.dataset import Dataset
from topgraft.predictor import load
from topgraft.progress import watched
from topgraft.run import Run
from topgraft.run.origin import is_noted, read_photos
from topgraft.run.predictions import read_predictions
from topgraft.settings import Settings
from topgraft.types import Progress, auto

Form = Literal["onnx", "openvino", "web"]
Precision = Literal["f32", "f16", "int8"]

PHOTOS = 200
"""So many photos go through the exported files, spread evenly over the run's."""
HALF, OLD = ".topgraft-half", ".topgraft-old"
"""Folders in an export's own: the new files until they are whole, the old ones until those are in place."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: the folder.
        format: `onnx`, `openvino` or `web`.
        precision: of its weights.
        agreement: with the run, in the files' own runtime.
        notes: what should be known, in sentences.
    """

    path: Path
    format: Form
    precision: Precision
    agreement: Agreement
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "path": str(self.path),
            "format": self.format,
            "precision": self.precision,
            "agreement": self.agreement.as_dict(),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        size = sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        return "\n".join([str(self.agreement), *self.notes, f"{self.path}  {size / 1e6:.1f} MB"])


@watched
def export(
    run: Run | str | Path,
    out: str | Path,
    *,
    format: Form = "onnx",  # noqa: A002  what it is called everywhere
    precision: Precision = "f32",
    photos: Dataset | str | Path | None = None,
    runtime: str | Path | None = None,
    overwrite: bool = False,
    settings: Settings | None = None,
    progress: Progress = auto,
) -> Exported:
    """Write a run's predictor for another runtime.

    Up to 200 of the run's photos go through the written files in their own runtime: onnxruntime, OpenVINO,
    or onnxruntime-web in Node.js. In f32 every label must be the run's, and every probability and distance
    within 1e-3; in f16 and int8 the loss is measured, and bounded (`topgraft._export.agree.BOUNDS`).

    Args:
        run: a finished run, or its folder.
        out: a folder that is not there yet, or empty.
        format: `onnx` (one file for any runtime), `openvino` (its own form), or `web` (a page that
            classifies in the browser).
        precision: `f32`; `f16` stores weights in half the space; `int8` computes in 8 bits (extra `int8`).
        photos: those of the run, where its config names none or they lie elsewhere now.
        runtime: for `web`, the folder with onnxruntime-web's files; None looks for node_modules.
        overwrite: replace an export that is there.
        settings: how many cores to use, and where looks at photos are kept.
        progress: told of the photos checked.

    Raises:
        UsageError: for a folder that is in the way, or a precision the run cannot have.
        DataError: where there is no run, or none of its photos can be read.
        MissingExtraError: without onnxruntime, or without the `int8` extra.
        BackboneError: where the files do not agree with the run, naming the first photo; nothing is left.
    """
    for what, given, known in (("format", format, Form), ("precision", precision, Precision)):
        if given not in get_args(known):
            raise UnknownNameError(what, given, get_args(known))
    run = run if isinstance(run, Run) else Run.open(run)
    settings = settings or Settings.load()
    predictor = load(run.path, settings=settings)
    if not is_file(run.model / "model.onnx"):
        raise DataError(
            f"{run.path}: expected model.onnx, which exports are made of, found OpenVINO's own form. Give the"
            " run that it was exported from."
        )
    if precision != "f32" and predictor.card.backbone.precision == "int8":
        raise UsageError(f"{run.path}: its backbone is int8 already. Leave --precision out.")
    folder = _judge(Path(out), overwrite=overwrite)
    named = open_named(format, runtime)  # a missing runtime is said before the work
    data = photos if isinstance(photos, Dataset) else _photos(run, photos, settings, progress)
    data.keep_out(folder)
    graph = (run.model / "model.onnx").read_bytes()
    if precision == "f16":
        graph = graphs.halve(graph)
    elif precision == "int8":
        graph = graphs.quantize(graph, data, _learned(run, data))
    with _whole(folder) as half:
        forms.write(half, format, graph, predictor.card, named)
        spread = np.unique(np.linspace(0, len(data) - 1, min(PHOTOS, len(data))).astype(int))
        with named.open(half) as ask:
            agreement = compare(
                predictor, data, [int(i) for i in spread], ask, named.name, precision, progress=progress
            )
        if agreement.broken:
            raise BackboneError(f"{folder}: {agreement.broken} Nothing was written.")
        facts = {"format": format, "precision": precision, "agreement": agreement.as_dict()}
        text = json.dumps({**numbers_of(run), "export": facts}, indent=1, ensure_ascii=False)
        (half / "metrics.json").write_text(text + "\n", encoding="utf-8")
        forms.write_readme(half, format, precision, predictor.card, agreement, run, named)
    return Exported(folder, format, precision, agreement, named.notes)


def _judge(folder: Path, *, overwrite: bool) -> Path:
    """Find the folder to write, and touch nothing."""
    try:
        held = list(folder.iterdir()) if folder.is_dir() else [folder] if folder.exists() else []
    except OSError as error:
        raise UsageError(f"{folder}: cannot hold an export ({error.strerror}). Choose another.") from error
    held = [entry for entry in held if entry.name != HALF]  # of a process that was killed
    if held and not (overwrite and folder.is_dir()):
        raise UsageError(
            f"{folder}: expected an empty folder for the export, found something."
            " Choose another, or give --overwrite."
        )
    if held and not (_is_export(folder) or _is_export(folder / OLD)):
        raise UsageError(f"{folder}: is not an export, so nothing in it is touched. Choose another folder.")
    return folder


def _is_export(folder: Path) -> bool:
    try:
        return "export" in json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Yield where to write an export, which then takes the place of what is there, whole or not at all.

    A folder that is there stays: it may be a mount point, as of a Docker volume, which nothing can rename or
    remove, and beside which nothing may be written. So the new files are written inside of it, and the old
    ones are set aside until all of the new ones are in their place.
    """
    there = folder.exists()
    half, old = (folder / HALF, folder / OLD) if there else (folder.parent / f".{folder.name}.half", None)
    with files.guarded(folder):
        shutil.rmtree(half, ignore_errors=True)  # of a process that was killed
        half.mkdir(parents=True)
        try:
            yield half
            if old is None:
                half.rename(folder)
            else:
                _swap(folder, half, old)
        finally:
            shutil.rmtree(half, ignore_errors=True)


def _swap(folder: Path, new: Path, old: Path) -> None:
    """Move what a folder holds aside and the new files in; where that fails the old ones come back."""
    aside = sorted(entry for entry in folder.iterdir() if entry not in (new, old))
    shutil.rmtree(old, ignore_errors=True)  # of a process that was killed
    old.mkdir()
    moved: list[tuple[Path, Path]] = []
    try:
        for entries, to in ((aside, old), (sorted(new.iterdir()), folder)):
            for entry in entries:
                after = entry.rename(to / entry.name)
                moved.append((entry, after))
    except BaseException:
        for entry, after in reversed(moved):
            after.rename(entry)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def _photos(run: Run, photos: str | Path | None, settings: Settings, progress: Progress) -> Dataset:
    data = (
        Dataset.from_folder(photos, settings=settings, progress=progress)
        if photos and not is_noted(run, photos)
        else read_photos(run, photos, settings=settings, progress=progress)
    )
    if not len(data):
        raise DataError(f"{data.place}: none of its photos can be read. Give the run's photos.")
    return data


def numbers_of(run: Run) -> dict[str, Any]:
    """Return the run's numbers without the names of its photos."""
    facts = run.metrics.as_dict()
    return facts | {"trust": facts["trust"] | {"label_issues": []}}


def _learned(run: Run, data: Dataset) -> list[int]:
    """Return which photos the run learned from; all where it does not say."""
    seen = {row.digest for row in read_predictions(run, run.metrics.classes) if row.split != "test"}
    return [i for i, sample in enumerate(data.samples) if sample.digest in seen] or list(range(len(data)))
