"""Check the photos before anything is learned from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from unicodedata import normalize

from topgraft.errors import DataError
from topgraft.photos.dataset import Dataset
from topgraft.photos.entries import SPLITS
from topgraft.photos.grouping import exif
from topgraft.photos.remarks import SIXTEEN, TWELVE
from topgraft.photos.sample import Sample, sizes
from topgraft.text import counted

SPACES = re.compile(r"[\s_-]+")
TINY = 5
"""A class with fewer photos is named in a warning."""
MANY_ALIKE, LARGE_GROUP = 0.1, 5
"""More photos in groups than this share, and a larger group than this, put grouping itself in doubt."""
SEQUENCES, STEMS = 3, 3
"""So many rows of near-duplicates whose names follow one another look like bursts; so many beginnings of
names a class tell more than the class."""
BEFORE = re.compile(r"([^/]*?)[-_ ]?(\d+)\.\w+$")
STEM = r"([^/]*?)[-_ ]?\d+\.\w+$"
MAX_REFUSED = 0.2
"""More unreadable files than this share stop the work: something is wrong with the whole folder."""
BACKSLASHES = " Write paths with forward slashes, as photos/a.jpg."
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
        remarks: photos that were read but are odd: repaired, nearly black, 12 bits in 16.
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
    remarks: list[dict[str, str]]
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
    classes = sizes(data.samples, data.classes)
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
        remarks=_remarks(data),
        warnings=[],
        failed=_failure(data, classes),
    )
    health.warnings.extend(
        [*_of_folders(data), *_sentences(health), *_of_sequences(data, duplicates), *_in_one_group(data)]
    )
    if strict and health.failed:
        raise DataError(health.failed)
    return health


def _groups(data: Dataset) -> tuple[list[list[str]], list[list[str]], list[list[str]]]:
    """Collect groups of more than one photo: all, those across classes, those across given splits."""
    members: dict[int, list[int]] = {}
    for i, group in enumerate(data.groups):
        members.setdefault(int(group), []).append(i)
    shared = [group for group in members.values() if len(group) > 1]
    samples = data.samples
    # A group the user named is no duplicate; only photos that look alike are.
    alike = [group for group in shared if len({samples[i].group for i in group}) > 1]
    crossing = [
        _disagreeing_first(group, samples)
        for group in alike
        if len({samples[i].every_label for i in group}) > 1
    ]
    split = any(sample.split for sample in samples)  # without a given split nothing can leak across it
    leaks = [group for group in shared if split and len({samples[i].split or "train" for i in group}) > 1]
    as_ids = [[[samples[i].id for i in group] for group in found] for found in (alike, crossing, leaks)]
    return as_ids[0], as_ids[1], as_ids[2]


def _in_one_group(data: Dataset) -> list[str]:
    """Say which classes cannot be measured: their photos are never on two sides of a split."""
    groups: dict[int, list[int]] = {}
    for sample, group in zip(data.samples, data.groups.tolist(), strict=True):
        for label in sample.every_label:
            groups.setdefault(label, []).append(group)
    lumped = [
        (data.classes[label], len(found))
        for label, found in sorted(groups.items())
        if len(found) > 1 and len(set(found)) == 1
    ]
    if not lumped:
        return []
    name, photos = lumped[0]
    if len(lumped) == 1:
        which = f"All {photos} photos of {name} are in one group: it"
    else:
        which = f"Of {len(lumped)} classes ({_named(lumped)}) all photos are in one group each: they"
    what = (
        "Add photos from other places or times, or name smaller groups; if they only look alike by nature,"
        " say `--duplicates exact`."
    )
    return [f"{which} can be learned, but not measured. {what}"]


def _disagreeing_first(group: list[int], samples: Sequence[Sample]) -> list[int]:
    """Put a photo of another label second: two that agree explain nothing."""
    first, *others = group
    return [first, *sorted(others, key=lambda i: samples[i].every_label == samples[first].every_label)]


def _odd(data: Dataset) -> list[dict[str, Any]]:
    odd = []
    for sample in data.samples:
        seen = data.looks[sample.digest]
        short, long = sorted((seen.width, seen.height))
        if short < ODD_SIDE_PX or long > ODD_RATIO * short:
            odd.append({"id": sample.id, "width": seen.width, "height": seen.height})
    return odd


def _remarks(data: Dataset) -> list[dict[str, str]]:
    """Collect what is odd about photos; 16 bits are, beside photos that were taken for 12."""
    said = [(sample.id, data.looks[sample.digest].remark) for sample in data.samples]
    usual = ("",) if any(remark == TWELVE for _, remark in said) else ("", SIXTEEN)
    return [{"id": id_, "remark": remark} for id_, remark in said if remark not in usual]


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
    said += _of_tiny({name: health.classes[name] for name in health.tiny if health.classes[name] > 1})
    if health.duplicates:
        said.append(
            f"{counted(len(health.duplicates), 'group')} of near-duplicates;"
            " each is kept on one side of every split."
        )
    together = sum(map(len, health.duplicates))
    largest = max(map(len, health.duplicates), default=0)
    if together > MANY_ALIKE * health.photos and largest > LARGE_GROUP:
        said.append(
            f"{together:,} of {counted(health.photos, 'photo')} look like another, {largest} of them in the"
            " largest group; every group counts as one photo in the intervals. If such photos only look alike"
            " by nature, say `--duplicates exact`, or `off`."
        )
    if health.cross_class_duplicates:
        photo, other = health.cross_class_duplicates[0][:2]
        said.append(
            f"{photo} and {other} look the same but carry different labels"
            f"{_and_more(len(health.cross_class_duplicates), 'such group')}; check them."
        )
    if health.leaks:
        said.append(
            f"{counted(len(health.leaks), 'group')} of photos that belong together or look alike on several"
            f" sides of the given split (first: {', '.join(health.leaks[0][:2])}); each goes whole to the"
            " side that must stay clean most: test, then val."
        )
    if health.odd_sizes:
        said.append(
            f"Very small or very long: {counted(len(health.odd_sizes), 'photo')}"
            f" (first: {health.odd_sizes[0]['id']})."
        )
    alike: dict[str, list[str]] = {}
    for odd in health.remarks:
        alike.setdefault(odd["remark"], []).append(odd["id"])
    said += [f"{ids[0]} {remark}{_and_more(len(ids), 'such photo')}." for remark, ids in alike.items()]
    if {TWELVE, SIXTEEN} <= alike.keys():
        said.append(
            "If one camera made these photos of 12 and of 16 bits, the first are only dim, and are shown 16"
            " times brighter than the others: save all in 8 bits, scaled alike."
        )
    return said


def _of_sequences(data: Dataset, duplicates: list[list[str]]) -> list[str]:
    """Propose how to group, where near-duplicates follow one another: bursts, or frames of a film."""
    runs = [run for group in duplicates if (run := _in_a_row(group))]
    if data.grouping or len(runs) < SEQUENCES:
        return []
    first = runs[0]
    found = (
        f"Near-duplicates follow one another {len(runs)} times (first: {first[0]} to {first[-1]}), as in"
        " bursts, of which other photos are no independent witnesses either."
    )
    place = {sample.id: i for i, sample in enumerate(data.samples)}
    if all(exif(data.read(place[name]), "DateTimeOriginal") for name in first):
        return [f"{found} `--group-by exif:DateTimeOriginal --within 60s` keeps each on one side."]
    stems = {stem for sample in data.samples if (stem := _numbered(sample.id)[0])}
    if len(stems) >= STEMS * len(data.classes):  # what stands before the number tells photos apart
        return [f"{found} `--group-by '{STEM}'` keeps what is named alike on one side."]
    return [f"{found} Name what they share in their paths (site, animal, camera, date): `--group-by REGEX`."]


def _in_a_row(group: list[str]) -> list[str]:
    """Return the photos of a group whose names follow one another, none where fewer than two do."""
    known = {_numbered(name): name for name in group}
    row = [
        name
        for (stem, number), name in sorted(known.items())
        if {(stem, number - 1), (stem, number + 1)} & known.keys()
    ]
    return row if len(row) > 1 else []


def _numbered(name: str) -> tuple[str, int]:
    """Part a name into what stands before its last number, and the number; -9 without one."""
    found = BEFORE.search(name)
    return (found[1], int(found[2][:15])) if found else (name, -9)


def _of_tiny(classes: dict[str, int]) -> list[str]:
    if not classes:
        return []
    named = _named(list(classes.items()))
    which, whose = ("1 class has", "its") if len(classes) == 1 else (f"{len(classes)} classes have", "their")
    return [f"{which} fewer than {TINY} photos ({named}); {whose} numbers will say little."]


def _named(counts: list[tuple[str, int]]) -> str:
    """List classes with their photos, the first eight of them."""
    more = f" and {len(counts) - 8} more" if len(counts) > 8 else ""
    return ", ".join(f"{name} {n}" for name, n in counts[:8]) + more


def _and_more(n: int, what: str) -> str:
    return f" ({counted(n, what)} in all)" if n > 1 else ""


def _files(found: list[Any]) -> str:
    return "file is" if len(found) == 1 else "files are"


def _of_folders(data: Dataset) -> list[str]:
    """Say what the names and contents of folders suggest."""
    said = [
        f"Folder {name} holds no photo and is no class{_and_more(len(data.empty), 'such folder')}."
        for name in data.empty[:1]
    ]
    written: dict[str, str] = {}
    for name in data.classes:
        alike = written.setdefault(SPACES.sub("", normalize("NFC", name).casefold()), name)
        if alike != name:
            said.append(f"Classes {alike!a} and {name!a} are written alike but are two. Is one a slip?")
    splits = [name for name in data.classes if name.lower() in SPLITS]
    if data.is_folder and splits and all(sample.id.count("/") > 1 for sample in data.samples):
        said.append(
            f"The classes are named {' and '.join(data.classes[:5])}, and photos lie in folders below them."
            " Did you mean train, val and test? Then rename the folders."
        )
    return said


def _nested(data: Dataset) -> str:
    """Point at the folder below, where it is what holds the classes."""
    tops = {sample.id.split("/")[0] for sample in data.samples}
    below = {sample.id.split("/")[1] for sample in data.samples if sample.id.count("/") > 1}
    return f" Or did you mean {data.root}/{tops.pop()}?" if len(tops) == 1 and len(below) > 1 else ""


def _failure(data: Dataset, classes: dict[str, int]) -> str:
    total = len(data) + len(data.refused)
    if len(data.refused) > MAX_REFUSED * total:
        first = data.refused[0]
        return (
            f"{data.place}: at most 20 % of the files may be unreadable, got {len(data.refused)} of {total}."
            f" The first, {first.id}, {first.reason}. `topgraft check` lists them all."
            + (BACKSLASHES if "\\" in first.id else "")
        )
    if len(classes) < 2:
        only = next(iter(classes), "none")
        what = "a folder with photos" if data.is_folder else "photos"
        return (
            f"{data.place}: expected photos of at least 2 classes, got one ({only})."
            f" Add {what} of what it is not.{_nested(data)}"
        )
    poor = [name for name, n in classes.items() if n < 2]
    if poor:
        return (
            f"{data.place}: every class needs at least 2 readable photos, got {classes[poor[0]]} of"
            f" {poor[0]!r}. Add photos or remove the {'folder' if data.is_folder else 'class'}."
        )
    return ""
