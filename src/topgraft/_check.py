"""Check the photos before anything is learned from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any
from unicodedata import normalize

from topgraft.errors import DataError
from topgraft.photos.dataset import Dataset
from topgraft.photos.entries import SPLITS
from topgraft.text import counted

TINY = 5
"""A class with fewer photos is named in a warning."""
MAX_REFUSED = 0.2
"""More unreadable files than this share stop the work: something is wrong with the whole folder."""
ODD_RATIO, ODD_SIDE_PX = 4.0, 64
"""Longer than this ratio of sides, or a shorter side than this, is an odd size."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of the photos' health; ids throughout.

    Attributes:
        photos: usable photos.
        classes: photos a class.
        refused: unreadable files with their reasons.
        ignored: files that are no photos by their name.
        duplicates: groups of near-duplicates.
        cross_class_duplicates: those groups whose photos carry different labels.
        leaks: groups that lie on several sides of a given split.
        tiny: classes with fewer than 5 photos.
        odd_sizes: very long or very small photos.
        warnings: all of it in sentences.
        failed: why nothing can be trained on them; empty where it can.
    """

    photos: int
    classes: dict[str, int]
    refused: list[dict[str, str]]
    ignored: list[str]
    duplicates: list[list[str]]
    cross_class_duplicates: list[list[str]]
    leaks: list[list[str]]
    tiny: list[str]
    odd_sizes: list[dict[str, Any]]
    warnings: list[str]
    failed: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def check(data: Dataset, *, strict: bool = True) -> Health:
    """Look for what makes numbers wrong: unreadable files, duplicates, leaks, tiny classes.

    Args:
        data: the photos, already opened once by `Dataset`.
        strict: raise for what cannot be trained on; False only describes it.

    Raises:
        DataError: for fewer than two classes, a class with fewer than two photos, or more than 20 %
            unreadable files.
    """
    counts = Counter(
        name for sample in data.samples for name in _names(data, sample.labels or (sample.label,))
    )
    classes = {name: counts.get(name, 0) for name in data.classes}
    duplicates, crossing, leaks = _groups(data)
    tiny = [name for name, n in classes.items() if n < TINY]
    health = Health(
        photos=len(data),
        classes=classes,
        refused=[asdict(file) for file in data.refused],
        ignored=list(data.ignored),
        duplicates=duplicates,
        cross_class_duplicates=crossing,
        leaks=leaks,
        tiny=tiny,
        odd_sizes=_odd(data),
        warnings=[],
        failed=_failure(data, classes),
    )
    health.warnings.extend([*_of_folders(data), *_sentences(health)])
    if strict and health.failed:
        raise DataError(health.failed)
    return health


def _names(data: Dataset, labels: tuple[int, ...]) -> list[str]:
    return [data.classes[i] for i in labels]


def _groups(data: Dataset) -> tuple[list[list[str]], list[list[str]], list[list[str]]]:
    """Collect groups of more than one photo: all, those across classes, those across given splits."""
    members: dict[int, list[int]] = {}
    for i, group in enumerate(data.groups):
        members.setdefault(int(group), []).append(i)
    shared = [group for group in members.values() if len(group) > 1]
    samples = data.samples
    # A group the user named is no duplicate; only photos that look alike are.
    alike = [group for group in shared if len({samples[i].group for i in group}) > 1]
    crossing = [group for group in alike if len({samples[i].label for i in group}) > 1]
    split = any(sample.split for sample in samples)  # without a given split nothing can leak across it
    leaks = [group for group in alike if split and len({samples[i].split or "train" for i in group}) > 1]
    as_ids = [[[samples[i].id for i in group] for group in found] for found in (alike, crossing, leaks)]
    return as_ids[0], as_ids[1], as_ids[2]


def _odd(data: Dataset) -> list[dict[str, Any]]:
    odd = []
    for sample in data.samples:
        seen = data.looks[sample.digest]
        short, long = sorted((seen.width, seen.height))
        if short < ODD_SIDE_PX or long > ODD_RATIO * short:
            odd.append({"id": sample.id, "width": seen.width, "height": seen.height})
    return odd


def _sentences(health: Health) -> list[str]:
    said = []
    if health.refused:
        first = health.refused[0]
        said.append(
            f"{len(health.refused)} unreadable {_files(health.refused)} left out, for example"
            f" {first['id']}, which {first['reason']}."
        )
    if health.ignored:
        said.append(f"{len(health.ignored)} {_files(health.ignored)} ignored: no photo by name or place"
                    f" (first: {health.ignored[0]}).")  # fmt: skip
    said += [
        f"Class {name} has only {health.classes[name]} photos; its numbers will say little."
        for name in health.tiny
        if health.classes[name] > 1
    ]
    if health.duplicates:
        said.append(
            f"{counted(len(health.duplicates), 'group')} of near-duplicates;"
            " each is kept on one side of every split."
        )
    said += [
        f"{group[0]} and {group[1]} look the same but carry different labels; check them."
        for group in health.cross_class_duplicates[:5]
    ]
    if health.leaks:
        said.append(
            f"{counted(len(health.leaks), 'group')} of near-duplicates on both sides of the given split"
            f" (first: {', '.join(health.leaks[0][:2])}); they are moved to the test side."
        )
    if health.odd_sizes:
        said.append(
            f"Very small or very long: {counted(len(health.odd_sizes), 'photo')}"
            f" (first: {health.odd_sizes[0]['id']})."
        )
    return said


def _files(found: list[Any]) -> str:
    return "file is" if len(found) == 1 else "files are"


def _of_folders(data: Dataset) -> list[str]:
    """Say what the names and contents of folders suggest."""
    said = [f"Folder {name} holds no photo and is no class." for name in data.empty]
    written: dict[str, str] = {}
    for name in data.classes:
        alike = written.setdefault(normalize("NFC", name).casefold(), name)
        if alike != name:
            said.append(f"Classes {alike!a} and {name!a} are written alike but are two. Is one a slip?")
    splits = [name for name in data.classes if name.lower() in SPLITS]
    if data.is_folder and splits and all(sample.id.count("/") > 1 for sample in data.samples):
        said.append(
            f"The classes are named {' and '.join(data.classes[:5])}, and photos lie in folders below them."
            " Did you mean train, val and test? Then rename the folders."
        )
    return said


def _failure(data: Dataset, classes: dict[str, int]) -> str:
    total = len(data) + len(data.refused)
    if len(data.refused) > MAX_REFUSED * total:
        first = data.refused[0]
        return (
            f"{data.place}: at most 20 % of the files may be unreadable, got {len(data.refused)} of {total}."
            f" The first, {first.id}, {first.reason}. `topgraft check` lists them all."
        )
    if len(classes) < 2:
        only = next(iter(classes), "none")
        what = "a folder with photos" if data.is_folder else "photos"
        return (
            f"{data.place}: expected photos of at least 2 classes, got one ({only})."
            f" Add {what} of what it is not."
        )
    poor = [name for name, n in classes.items() if n < 2]
    if poor:
        return (
            f"{data.place}: every class needs at least 2 readable photos, got {classes[poor[0]]} of"
            f" {poor[0]!r}. Add photos or remove the {'folder' if data.is_folder else 'class'}."
        )
    return ""
