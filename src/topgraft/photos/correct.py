"""Apply a person's corrections to a dataset: other labels, photos left out, labelled ones taken in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from topgraft import files
from topgraft.config import Data
from topgraft.errors import DataError, UsageError
from topgraft.photos.corrections import (
    Correction,
    current,
    read_corrections,
    standing,
    without_line_ends,
)
from topgraft.photos.dataset import Dataset, natural
from topgraft.photos.looks import Look
from topgraft.photos.sample import Sample
from topgraft.settings import Settings
from topgraft.text import counted
from topgraft.types import Progress, silent


@dataclass(frozen=True)
class Corrected:
    """What corrections did to a dataset.

    Attributes:
        data: the dataset with them applied.
        changed: the class that each relabelled photo had before, by id.
        confirmed: photos whose label a person saw and kept.
        removed: ids of photos of no class, which are left out.
        added: ids of photos that came with a label from another folder.
        lost: decisions on photos that are nowhere to be found.
    """

    data: Dataset
    changed: dict[str, str]
    confirmed: int
    removed: tuple[str, ...]
    added: tuple[str, ...]
    lost: int

    def __str__(self) -> str:
        said = [
            f"{counted(len(self.changed), 'label')} changed",
            f"{self.confirmed} confirmed",
            f"{counted(len(self.removed), 'photo')} of no class left out",
            f"{counted(len(self.added), 'labelled photo')} added",
        ]
        return ", ".join(said) + (f"; {counted(self.lost, 'photo')} not found any more" if self.lost else "")


def read_as_asked(
    asked: Data,
    place: str | Path | None = None,
    *,
    add: bool = True,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> tuple[Dataset, Corrected | None]:
    """Read photos as a recipe's section `[data]` says: joined into groups, and with the corrections it names.

    Args:
        asked: the section.
        place: the folder, URL or table, where it is not the one that the section names.
        add: as for `correct`.
        settings: cores and cache.
        progress: told of photos.

    Returns:
        The photos, and what corrections did to them; None where there are none.

    Raises:
        DataError: for photos that cannot be read, or a table of corrections that is none.
    """
    data = Dataset.from_folder(
        asked.photos if place is None else place,
        duplicates=asked.duplicates,
        group_by=asked.group_by,
        within=asked.within,
        settings=settings,
        progress=progress,
    )
    if not asked.corrections:
        return data, None
    corrected = correct(data, asked.corrections, add=add, settings=settings, progress=progress)
    return corrected.data, corrected


def correct(
    data: Dataset,
    table: str | Path | Sequence[Correction],
    *,
    add: bool = True,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Corrected:
    """Return a dataset with corrections applied; the photos' files stay as they are.

    A photo is known by its path and content. Where a photo was moved, every photo of its content that carries
    the label it had is meant, or that earlier corrections gave that label.

    Args:
        data: the photos.
        table: a table that `topgraft review` wrote, or its lines.
        add: take in photos that were labelled in other folders.
        settings: how many threads read those, and whether a socket may be opened.
        progress: told of them.

    Raises:
        DataError: for a table that is none.
        UsageError: for photos that carry several labels.
    """
    if data.multilabel:
        raise UsageError(f"{data.place}: its photos carry several labels, and corrections give one each.")
    lines = read_corrections(table) if isinstance(table, str | Path) else table
    decided = [line for line in current(lines) if line.decision in ("label", "none")]
    places: dict[str, list[int]] = defaultdict(list)
    for i, sample in enumerate(data.samples):
        places[sample.digest].append(i)
    names = {i: data.classes[sample.label] for i, sample in enumerate(data.samples)}
    called = dict(names)  # what a run learned that was trained with the decisions so far
    meant: dict[tuple[str, str], list[int]] = {}
    for line in standing(lines):
        alike = [(i, data.samples[i].id, names[i], called[i]) for i in places.get(line.digest, ())]
        meant[line.photo] = meant.get(line.photo) or _meant(line, alike)
        if line.decision == "label":
            called |= dict.fromkeys(meant[line.photo], line.label)
    words = {i: line for line in decided for i in meant[line.photo]}
    elsewhere = [line for line in decided if not meant[line.photo]]
    changed = {
        data.samples[i].id: names[i]
        for i, line in words.items()
        if line.decision == "label" and line.label != names[i]
    }
    names |= {i: line.label for i, line in words.items() if line.decision == "label"}
    out = {i for i, line in words.items() if line.decision == "none"}
    wanted = [line for line in elsewhere if line.decision == "label" and not line.before] if add else []
    found = _from_elsewhere(data, wanted, settings, progress)
    gone = [line for line in elsewhere if line.before]
    kept = [(sample, names[i]) for i, sample in enumerate(data.samples) if i not in out]
    return Corrected(
        data=_with(
            data,
            [*kept, *((sample, name) for sample, name, _ in found)],
            {sample.digest: look for sample, _, look in found},
        ),
        changed=changed,
        confirmed=sum(line.decision == "label" for line in words.values()) - len(changed),
        removed=tuple(sorted(data.samples[i].id for i in out)),
        added=tuple(sorted(sample.id for sample, _, _ in found)),
        lost=len(gone) + len(wanted) - len(found),
    )


def _meant(line: Correction, alike: list[tuple[int, str, str, str]]) -> list[int]:
    """Find which of the photos of its content a correction means: by path, label, or what it was called."""
    here = [i for i, name, _, _ in alike if without_line_ends(name) == line.photo[0]]
    labelled = [i for i, _, label, _ in alike if line.before in ("", label)]
    return here or labelled or [i for i, _, _, called in alike if line.before == called]


def _from_elsewhere(
    data: Dataset, lines: Sequence[Correction], settings: Settings | None, progress: Progress
) -> list[tuple[Sample, str, Look]]:
    """Read the photos that were labelled in other folders, with labels and looks; not those that are gone."""
    there = [line for line in lines if line.root and not files.is_url(line.root)]
    paths = [Path(line.root, line.path).resolve() for line in there]
    pairs = {str(path): line.label for path, line in zip(paths, there, strict=True) if files.is_file(path)}
    if not pairs:
        return []
    if files.is_url(data.root):
        raise DataError(
            f"{data.root}: photos on another machine cannot be put together with labelled photos of this one"
            f" (first: {next(iter(pairs))}). Copy them there."
        )
    read = Dataset.from_pairs(list(pairs), list(pairs.values()), settings=settings, progress=progress)
    meant = {line.digest for line in there}
    return [
        (
            replace(sample, id=path, path=path, group=path),
            read.classes[sample.label],
            read.looks[sample.digest],
        )
        for sample in read.samples
        for path in [Path(read.root, sample.path).as_posix()]
        if sample.digest in meant
    ]


def _with(data: Dataset, photos: Iterable[tuple[Sample, str]], looks: dict[str, Look]) -> Dataset:
    """Return the dataset of these photos and labels; a class that is left without photos is none any more."""
    photos = sorted(photos, key=lambda photo: photo[0].id)
    classes = tuple(sorted({name for _, name in photos}, key=natural))
    index = {name: i for i, name in enumerate(classes)}
    samples = tuple(replace(sample, label=index[name]) for sample, name in photos)
    return replace(data, samples=samples, classes=classes, looks=data.looks | looks)
