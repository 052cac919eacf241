"""Labelled photos: which there are, what they are called, and which belong together."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft import files, notebook
from topgraft.errors import DataError, DecodeError, UnknownNameError, UsageError
from topgraft.fingerprint import digest
from topgraft.photos.decode import decode
from topgraft.photos.entries import (
    Entry,
    class_name,
    in_folder,
    in_table,
    is_missing,
    shown,
    unique,
    unnameable,
)
from topgraft.photos.grouping import Grouping
from topgraft.photos.looks import ALIKE, Alike, Look, twins
from topgraft.photos.opening import look_at, unopened
from topgraft.photos.sample import Refused, Sample, sizes
from topgraft.progress import watched
from topgraft.settings import Settings
from topgraft.types import Image, Labels, Progress, auto, silent


@dataclass(frozen=True)
class Dataset:
    """Labelled photos whose files were all opened once.

    Make one with `from_folder`, `from_csv` or `from_pairs`. Photos that cannot be read are in `refused`,
    never silently gone.

    Attributes:
        samples: in the order of their ids.
        classes: class names; a label is an index into them.
        root: the folder or URL that paths are relative to.
        refused: files that are no usable photos.
        ignored: files beside the photos whose names say they are something else.
        looks: what each photo looks like, by digest.
        source: the folder or table they were listed in, as it was given; empty for pairs.
        empty: class folders that hold no photo.
        duplicates: what joins photos into groups beside those that came with them: `looks` (near-duplicates),
            `exact` (the same pixels) or `off`.
        grouping: what came of joining photos by their path or EXIF, in a sentence; empty without.
        grouped_by: what joined them so, where something did.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    root: str
    refused: tuple[Refused, ...] = ()
    ignored: tuple[str, ...] = ()
    looks: dict[str, Look] = field(default_factory=dict, repr=False)
    source: str = ""
    empty: tuple[str, ...] = ()
    duplicates: Alike = "looks"
    grouping: str = ""
    grouped_by: Grouping | None = None

    @property
    def is_folder(self) -> bool:
        """Whether the root is a folder of photos, and not just where a table's paths begin."""
        return self.source == self.root

    @property
    def place(self) -> str:
        """What to call it in messages."""
        return self.source or self.root

    def __repr__(self) -> str:
        return f"Dataset({self.place!r}: {len(self.samples):,} photos of {len(self.classes)} classes)"

    def _repr_html_(self) -> str:
        """Show what there is, in a notebook."""
        return notebook.facts(
            "Dataset",
            [
                ("photos", f"{len(self.samples):,} in {self.place}"),
                ("classes", notebook.listed(sizes(self.samples, self.classes))),
                ("refused", f"{len(self.refused)}, first {self.refused[0].id}" if self.refused else ""),
                ("ignored", len(self.ignored) or ""),
            ],
        )

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, a photo a row: id, label, group, split, digest.

        Raises:
            MissingPandasError: where pandas is not installed.
        """
        return notebook.frame(
            {
                "id": sample.id,
                "label": sample.named(self.classes),
                "group": sample.group,
                "split": sample.split,
                "digest": sample.digest,
            }
            for sample in self.samples
        )

    @classmethod
    @watched
    def from_folder(
        cls,
        path: str | Path,
        *,
        duplicates: str | None = None,
        group_by: str | None = None,
        within: str | float | None = None,
        settings: Settings | None = None,
        progress: Progress = auto,
    ) -> Dataset:
        """Read `path/<class>/*.jpg`, or the same under `train/`, `val/` and `test/`.

        Args:
            path: a local folder or an fsspec URL. A `.csv` file is read by `from_csv`.
            duplicates: what joins photos into groups: `looks`, `exact` (the same pixels) or `off`.
            group_by: what joins them besides: a regular expression that is looked for in their paths (site,
                animal, camera, date), or `exif:TAG`; what a table says of a photo's group goes first.
            within: with `exif:DateTimeOriginal`, seconds or a text as `60s`: photos taken so soon after
                another are of its group.
            settings: where looks are kept, how many threads read, whether a socket may be opened.
            progress: told of the photos as they are read.

        Raises:
            OfflineError: for a URL where no socket may be opened.
            DataError: for no folder, no photos in it, or a folder beside train/, val/ and test/.
            UsageError: for a grouping that is none, or that no photo has.
        """
        joined, grouping = _alike(duplicates), Grouping.of(group_by, within)
        if str(path).lower().endswith(".csv"):
            return cls.from_csv(
                path,
                duplicates=duplicates,
                group_by=group_by,
                within=within,
                settings=settings,
                progress=progress,
            )
        settings = settings or Settings.load()
        files.stay_here(path, offline=settings.offline)
        entries, ignored, empty = in_folder(str(path))
        data = open_entries(entries, str(path), ignored, settings=settings, progress=progress)
        data = replace(data, source=str(path), empty=tuple(map(shown, empty)), duplicates=joined)
        return data if grouping is None else data.grouped(grouping, settings=settings)

    @classmethod
    @watched
    def from_csv(
        cls,
        path: str | Path,
        *,
        duplicates: str | None = None,
        group_by: str | None = None,
        within: str | float | None = None,
        settings: Settings | None = None,
        progress: Progress = auto,
    ) -> Dataset:
        """Read a table with the columns `path`, `label` and, if wanted, `split` and `group`.

        Paths are relative to the table's folder. Several labels of one photo are a quoted list:
        `"[""rice"", ""fish""]"` (JSON) or `"rice;fish"`.

        Raises:
            DataError: for a missing table or column, and, with the line, for an empty cell, one too many, a
                path that cannot be, or an unknown split.
        """
        settings = settings or Settings.load()
        files.stay_here(path, offline=settings.offline)
        table, joined, grouping = str(path), _alike(duplicates), Grouping.of(group_by, within)
        data = open_entries(in_table(table), files.parent(table)[0], settings=settings, progress=progress)
        data = replace(data, source=table, duplicates=joined)
        return data if grouping is None else data.grouped(grouping, settings=settings)

    @classmethod
    @watched
    def from_pairs(
        cls,
        paths: Sequence[str | Path],
        labels: Sequence[object],
        *,
        groups: Sequence[object] | None = None,
        settings: Settings | None = None,
        progress: Progress = auto,
    ) -> Dataset:
        """Take paths or URLs and their labels, as scikit-learn users have them.

        Raises:
            DataError: where the lengths differ, there is nothing, a label is no name, or some paths are URLs
                and others are not.
        """
        paths, labels = list(paths), list(labels)  # by position: a pandas Series is read by its index
        groups = None if groups is None else list(groups)
        for what, given in (("labels", labels), ("groups", groups)):
            if given is not None and len(given) != len(paths):
                raise DataError(
                    f"expected as many {what} as paths, got {len(paths)} paths and {len(given)} {what}."
                )
        if not paths:
            raise DataError("expected at least one path, got none.")
        names = []
        for i, label in enumerate(labels):
            try:
                names.append(class_name(label))
            except ValueError as error:
                raise DataError(
                    f"{paths[i]}: expected a label, got {label!r}. Leave the photo out."
                ) from error
        root, inside = _common([str(path) for path in paths])
        keys = [
            path if group is None or is_missing(group) else group
            for path, group in zip(inside, groups or [None] * len(inside), strict=True)
        ]
        settings = settings or Settings.load()
        files.stay_here(root, offline=settings.offline)
        entries = [
            Entry(path, path, (name,), str(key), None)
            for path, name, key in zip(inside, names, keys, strict=True)
        ]
        return open_entries(entries, root, settings=settings, progress=progress)

    def __len__(self) -> int:
        """Count the usable photos."""
        return len(self.samples)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids, in order."""
        return tuple(sample.id for sample in self.samples)

    @property
    def multilabel(self) -> bool:
        """Whether a photo may carry several labels."""
        return any(sample.labels for sample in self.samples)

    @cached_property
    def labels(self) -> Labels:
        """(N,) class indices; of several labels the first."""
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """(N,) group numbers: given groups, with near-duplicates merged into them."""
        return twins(
            [self.looks[sample.digest] for sample in self.samples],
            [sample.group for sample in self.samples],
            self.duplicates,
        )

    def read(self, i: int) -> bytes:
        """Read the bytes of photo i as they are now.

        Raises:
            DecodeError: where the file is gone or cannot be opened.
        """
        sample = self.samples[i]
        try:
            return files.read(self.root, sample.path)
        except OSError as error:
            raise DecodeError(sample.id, unopened(error)) from error

    def read_checked(self, i: int) -> bytes:
        """Read photo i, which must be the one that was opened when the dataset was made.

        Raises:
            DecodeError: where the file is gone or cannot be opened.
            DataError: where it changed meanwhile.
        """
        raw = self.read(i)
        if digest(raw) != self.samples[i].digest:
            raise DataError(f"{self.samples[i].id}: the file changed after it was checked. Run again.")
        return raw

    def image(self, i: int) -> Image:
        """Decode photo i: (H, W, 3) uint8 RGB."""
        return decode(self.read(i), self.samples[i].id)

    def location(self, i: int) -> str:
        """Return the full path or URL of photo i."""
        path = self.samples[i].path
        return f"{self.root.rstrip('/')}/{path}" if files.is_url(self.root) else str(Path(self.root, path))

    def keep_out(self, *places: str | Path | None) -> None:
        """Refuse to write among the photos, or to where a folder of photos would be replaced.

        Photos lie in the folder that was named and, of a table or pairs, in the folders of the files alone:
        beside a table is not among its photos.

        Args:
            places: where something shall be written; None and URLs are passed over.

        Raises:
            UsageError: for a place in a folder that holds photos, or one that holds such a folder.
        """
        keep_out(self.root, [sample.path for sample in self.samples], *places, is_folder=self.is_folder)

    def grouped(self, grouping: Grouping, *, settings: Settings | None = None) -> Dataset:
        """Return the photos joined into groups by their paths or EXIF; groups that came with them stay.

        Raises:
            UsageError: where no photo has what they are grouped by.
        """
        lone = {sample.id: sample.path for sample in self.samples if sample.group == sample.id}

        def read(name: str) -> bytes:
            try:
                return files.read(self.root, lone[name])
            except OSError:
                return b""

        keys = grouping.keys(list(lone), read, (settings or Settings.load()).threads)
        samples = tuple(replace(sample, group=keys.get(sample.id, sample.group)) for sample in self.samples)
        said = grouping.said(keys, len(lone))
        return replace(self, samples=samples, grouping=said, grouped_by=grouping)

    def subset(self, ids: Iterable[str]) -> Dataset:
        """Keep the samples with these ids; classes, and so labels, stay as they are.

        Raises:
            DataError: for an id that is not here.
        """
        wanted = set(ids)
        kept = tuple(sample for sample in self.samples if sample.id in wanted)
        if len(kept) != len(wanted):
            lost = sorted(wanted - {sample.id for sample in kept})
            raise DataError(f"{self.root}: no photo has the id {lost[0]!r}. Was it renamed or removed?")
        return replace(self, samples=kept, refused=(), ignored=())


def keep_out(
    root: str,
    paths: Iterable[str],
    *places: str | Path | None,
    is_folder: bool,
    instead: str = "Give a folder elsewhere.",
) -> None:
    """Refuse to write among photos, whose `paths` begin at `root`, and say what `instead`; see `Dataset`."""
    root = files.local(root)
    if files.is_url(root):
        return
    folders = {str(Path(root, path).parent) for path in paths} | ({root} if is_folder else set())
    inside = {Path(folder).resolve(): folder for folder in sorted(folders)}
    for place in (files.local(given) for given in places if given is not None):
        target = Path(place).resolve()
        for real, folder in () if files.is_url(place) else inside.items():
            if target.is_relative_to(real):
                raise UsageError(
                    f"{place}: lies in the photo folder {folder}, where nothing is ever written. {instead}"
                )
            if real.is_relative_to(target):
                raise UsageError(f"{place}: holds photos ({folder}). Give a folder of its own.")


def open_entries(
    entries: Sequence[Entry],
    root: str,
    ignored: Sequence[str] = (),
    *,
    settings: Settings,
    progress: Progress = silent,
) -> Dataset:
    """Open photos that were listed, and number their classes.

    Args:
        entries: of the photos.
        root: the folder or URL that their paths are relative to.
        ignored: files beside them.
        settings: how many threads read, and where looks at photos are kept.
        progress: told of photos.

    Raises:
        DataError: for two of one id.
    """
    refused = [Refused(shown(entry.id), reason) for entry in entries if (reason := unnameable(entry))]
    entries = sorted((entry for entry in entries if not unnameable(entry)), key=lambda entry: entry.id)
    unique(entries, root)
    digests, looks = look_at(entries, root, settings, progress)
    classes = tuple(sorted({name for entry in entries for name in entry.names}, key=natural))
    index = {name: i for i, name in enumerate(classes)}
    multilabel = any(len(entry.names) > 1 for entry in entries)
    samples = []
    for entry in entries:
        found = digests[entry.id]
        reason = found[1] or looks[found[0]].reason
        if reason:
            refused.append(Refused(entry.id, reason))
            continue
        labels = tuple(sorted(index[name] for name in entry.names))
        samples.append(
            Sample(
                entry.id,
                entry.path,
                labels[0],
                entry.group,
                found[0],
                entry.split,
                labels if multilabel else (),
                looks[found[0]].pixels,
            )
        )
    refused.sort(key=lambda file: file.id)
    beside = tuple(sorted(map(shown, ignored)))
    return Dataset(tuple(samples), classes, root, tuple(refused), beside, looks)


def _alike(name: str | None) -> Alike:
    for known in ALIKE:
        if known == (name or "looks"):
            return known
    raise UnknownNameError("way of finding duplicates", str(name), ALIKE)


def _common(paths: list[str]) -> tuple[str, list[str]]:
    """Find the folder or URL that paths have in common, and what they are below it.

    Raises:
        DataError: where they have none.
    """
    protocols = {path.partition("://")[0] if files.is_url(path) else "" for path in paths}
    if len(protocols) > 1:
        raise DataError(
            f"expected all photos in one place, got {' and '.join(sorted(protocols))} beside others."
        )
    before = f"{protocol}://" if (protocol := protocols.pop()) else ""
    whole = [path.removeprefix(before) if before else os.path.abspath(path) for path in paths]  # noqa: PTH100
    root = os.path.commonpath([os.path.dirname(path) for path in whole])  # noqa: PTH120  resolve() follows links
    return before + root, [Path(os.path.relpath(path, root)).as_posix() for path in whole]


def natural(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort class 10 after class 9, and 01 before 1: text and numbers alternate, then the name decides."""
    parts = enumerate(re.split(r"(\d+)", name))
    # Numbers by their length, then their digits: int() takes 4,300 digits at most.
    return [(len(n := part.lstrip("0")), n) if i % 2 else part for i, part in parts], name
