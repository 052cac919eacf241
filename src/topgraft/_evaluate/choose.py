"""Which photos runs are measured on, and whether these runs can be measured together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from topgraft.errors import UsageError
from topgraft.photos.dataset import Dataset
from topgraft.photos.sample import Sample
from topgraft.predictor import PredictorCard
from topgraft.run import Run
from topgraft.run.predictions import read_predictions
from topgraft.text import counted


def opened(run: Run | str | Path | Sequence[Run | str | Path]) -> list[Run]:
    """Open one run or several.

    Raises:
        UsageError: for none.
    """
    given = [run] if isinstance(run, Run | str | Path) else list(run)
    if not given:
        raise UsageError("expected at least one run to evaluate, got none.")
    return [member if isinstance(member, Run) else Run.open(member) for member in given]


def classes_of(runs: list[Run]) -> tuple[str, ...]:
    """Return the classes that all runs have.

    Raises:
        UsageError: where they have others.
    """
    first = tuple(runs[0].metrics.classes)
    for other in runs[1:]:
        if tuple(other.metrics.classes) != first:
            raise UsageError(
                f"runs of one ensemble must have the same classes: {runs[0].path} has {', '.join(first)},"
                f" {other.path} has {', '.join(other.metrics.classes)}. Evaluate them one by one."
            )
    return first


def takes_multilabel(runs: list[Run], cards: list[PredictorCard]) -> bool:
    """Tell whether the runs' predictors give several labels a photo; all of them or none must."""
    kinds = [card.multilabel for card in cards]
    if len(set(kinds)) > 1:
        single, other = runs[kinds.index(False)], runs[kinds.index(True)]
        raise UsageError(
            f"runs of one ensemble must be alike: {single.path} gives one label a photo, {other.path}"
            " several. Evaluate them one by one."
        )
    return kinds[0]


def refuse_several(run: Run, data: Dataset, chosen: list[int]) -> None:
    """Refuse photos with several labels for a run that gives one: none of them alone would be the truth."""
    several = [sample.id for sample in map(data.samples.__getitem__, chosen) if len(sample.labels) > 1]
    if several:
        raise UsageError(
            f"{data.place}: expected one label a photo, as {run.path} gives, got several of"
            f" {counted(len(several), 'photo')} (first: {several[0]}). Evaluate a run trained on such photos."
        )


def choose(
    runs: list[Run], data: Dataset, split: str | None, *, given: bool
) -> tuple[list[int], list[str], int]:
    """Choose the photos to measure, in the order of their content; say where that flatters.

    Returns:
        Indices, notes, and how many of the photos were used for training.
    """
    if split not in (None, "test", "all"):
        raise UsageError(f"split must be test or all, got {split!r}.")
    sides = [_sides(run) for run in runs]
    notes = []
    held = set.intersection(
        *({address for address, side in photos.items() if side == "test"} for photos in sides)
    )
    seen = {address for photos in sides for address, side in photos.items() if side != "test"}
    if split is None:
        ours = any(_is_in(sample, seen) for sample in data.samples)
        split = "test" if held and ours and not given else "all"
    order = sorted(range(len(data)), key=lambda i: (data.samples[i].digest, data.samples[i].id))
    chosen = [i for i in order if split == "all" or _is_in(data.samples[i], held)]
    unsaid = [str(run.path) for run, photos in zip(runs, sides, strict=True) if not photos]
    trained = sum(_is_in(data.samples[i], seen) for i in chosen)
    copies = sum(sample.digest not in seen | held and _is_in(sample, seen | held) for sample in data.samples)
    if copies:
        notes.append(
            f"{counted(copies, 'photo')} of these have the pixels of photos the run knows in other files, and"
            " count as those."
        )
    if trained:
        notes.append(f"{trained} of these photos were used for training: these numbers flatter.")
    elif split == "test":
        out = sum(_is_in(sample, seen) for sample in data.samples)
        rest = f" {out} more were used for training and are left out." if out else ""
        notes.append(f"Measured on the {len(chosen)} photos that were held out from training.{rest}")
    notes += [
        f"{path} does not say which photos it was trained from: where these are among them, it flatters."
        for path in unsaid
    ]
    return chosen, notes, trained


def _sides(run: Run) -> dict[str, str]:
    """Say by content, of the file and of its pixels, on which side its photos lay: `cv` or `test`."""
    rows = read_predictions(run, run.metrics.classes)
    return {address: row.split for row in rows for address in (row.digest, row.pixels) if address}


def _is_in(sample: Sample, addresses: set[str]) -> bool:
    return sample.digest in addresses or sample.pixels in addresses
