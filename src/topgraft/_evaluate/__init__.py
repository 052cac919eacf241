"""Measure finished runs on labelled photos: each alone, and several together as an ensemble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from topgraft import metrics
from topgraft._evaluate.ask import Heard, hear
from topgraft._evaluate.choose import choose, classes_of, opened, refuse_several, takes_multilabel
from topgraft._evaluate.remarks import (
    at_threshold,
    augmented,
    held_beside,
    of_strangers,
    of_thresholds,
    of_tta,
    worse,
)
from topgraft._evaluate.score import score
from topgraft.errors import DataError, UsageError
from topgraft.photos.dataset import Dataset
from topgraft.photos.sample import Refused
from topgraft.predictor import PredictorCard
from topgraft.progress import watched
from topgraft.run import Run
from topgraft.run.evaluation import Evaluation, Shown
from topgraft.run.origin import Origin
from topgraft.settings import Settings
from topgraft.trust.trust import judge, label_issues
from topgraft.types import Labels, Probabilities, Progress, auto


@watched
def evaluate(
    run: Run | str | Path | Sequence[Run | str | Path],
    data: Dataset,
    ids: Iterable[str] | None = None,
    *,
    split: str | None = None,
    tta: int = 0,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Progress = auto,
) -> Evaluation:
    """Measure runs on labelled photos; several runs are measured alone and as ensembles.

    The order of the photos does not matter: they are sorted by content before anything is summed.

    Args:
        run: a run or its folder, or several.
        data: photos with labels. Labels are compared by class name; unknown classes are reported, not scored.
        ids: only these samples.
        split: `test` takes only photos every run held out; `all` takes all. None is `test` where the photos
            are those the run was trained from, else `all`.
        tta: test-time augmentation: averages the photo as it is with so many of the run's own policies.
        seed: of the intervals.
        settings: cores.
        progress: told of photos done.

    Raises:
        UsageError: for runs of different classes, photos with several labels for a run that gives one, or a
            negative `tta`.
        DataError: where no photo is left to measure.
    """
    runs = opened(run)
    classes = classes_of(runs)
    if tta < 0:
        raise UsageError(f"tta must be 0 or more views, got {tta}.")
    data = data if ids is None else data.subset(ids)
    chosen, notes, known_before = choose(runs, data, split, given=ids is not None)
    cards = [PredictorCard.read(member.model / "card.json") for member in runs]
    multilabel = takes_multilabel(runs, cards)
    if not multilabel:
        refuse_several(runs[0], data, chosen)
    known, strange = _parted(data, chosen, classes)

    heard = hear(runs, data, known, classes, tta=tta, settings=settings, progress=progress)
    if not len(heard.rows):
        raise DataError(
            f"{data.root}: none of the {len(known)} photos can be read. Look at `topgraft check`."
        )
    odd = hear(runs, data, strange, classes, settings=settings)
    labels, groups, said = _labels(heard, classes, multilabel), heard.groups, heard.mean
    each = [answers.probabilities for answers in heard.each]
    members, ensembles = score(runs, labels, each, classes, groups=groups, seed=seed)
    believed, answered = judge(labels, said, groups, seed=seed, out_of_fold=False)
    if limit := at_threshold(cards, answered):
        believed["coverage"]["chosen"] = limit
    beside = None if known_before else held_beside(runs, members[0], heard, labels, seed)
    changed = augmented(labels, said, heard.plain, tta, groups, seed)
    strangers = Counter(name for i in strange for name in _names(data, i) if name not in classes)
    flagged = int(odd.unknown.sum())
    refused = _refused(data, heard)

    card = cards[0] if len(cards) == 1 else None  # what is one run's own, the mean of several has not
    told = ([of_tta(changed)] if changed else []) + ([str(beside)] if beside else [])
    notes += [
        *filter(None, [metrics.silent(labels)]),
        *told,
        *of_thresholds(cards, limit),
        *of_strangers(strangers, len(strange), flagged, len(runs)),
        *worse(members, ensembles),
    ]
    if refused:
        notes.append(f"{len(refused)} unreadable photos are in no number (first: {refused[0].id}).")
    return Evaluation(
        classes,
        members,
        ensembles,
        dict(sorted(strangers.items())),
        len(strange),
        flagged,
        refused,
        tuple(notes),
        trust={
            "temperature": card.temperature if card else None,
            **believed,
            "unknown": card.unknown.model_dump() if card and card.unknown else None,
            "label_issues": _issues(labels, said, heard, classes),
        },
        harder=beside.as_dict() if beside else None,
        tta=changed,
        shown=Shown(
            runs=tuple(runs),
            answers={"test": heard.answers(), "stranger": odd.answers()},
            classes=data.classes,
            origin=Origin(data.root, listed={sample.id: sample.path for sample in data.samples}),
            place=data.place,
            notes=tuple(told),
        ),
    )


def _names(data: Dataset, photo: int) -> list[str]:
    """Return the names of a photo's labels."""
    return [data.classes[label] for label in data.samples[photo].every_label]


def _parted(data: Dataset, chosen: list[int], classes: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """Return the photos whose labels the runs know, and the others.

    Raises:
        DataError: where they know none.
    """
    known = [i for i in chosen if set(_names(data, i)) <= set(classes)]
    if not known:
        raise DataError(
            f"{data.root}: expected photos of {', '.join(classes[:5])}, found none of"
            f" {'them' if chosen else 'the split asked for'}. Check the folders' names or --split."
        )
    there = set(known)
    return known, [i for i in chosen if i not in there]


def _labels(heard: Heard, classes: tuple[str, ...], multilabel: bool) -> Labels:
    """Return labels by the runs' classes: (n,), or a 0/1 table (n, C)."""
    named = [_names(heard.data, i) for i in heard.rows.tolist()]
    shown = np.array([[name in names for name in classes] for names in named])
    return shown.astype(np.int64) if multilabel else np.asarray(shown.argmax(axis=1))


def _refused(data: Dataset, heard: Heard) -> tuple[Refused, ...]:
    """Return the files that were refused when the photos were read, and those that are gone since."""
    gone = [Refused(sample.id, "cannot be read any more") for sample in heard.lost]
    return tuple(sorted([*data.refused, *gone], key=lambda file: file.id))


def _issues(
    labels: Labels, probabilities: Probabilities, heard: Heard, classes: tuple[str, ...]
) -> list[dict[str, Any]]:
    """List photos whose label looks wrong, in the form of metrics.json."""
    found, samples = [] if labels.ndim == 2 else label_issues(labels, probabilities), heard.samples
    return [
        {"id": samples[i].id, "label": classes[labels[i]], "suggested": classes[other], "probability": chance}
        for i, other, chance in found
    ]
