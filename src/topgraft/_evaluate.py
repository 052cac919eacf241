"""Measure finished runs on labelled photos: each alone, and several together as an ensemble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft import metrics
from topgraft.errors import DataError, DecodeError, UsageError
from topgraft.metrics import Estimate
from topgraft.photos.dataset import Dataset, Refused, Sample
from topgraft.policies.policy import Policy, render_all
from topgraft.predictor import PredictorCard, load
from topgraft.progress import watched
from topgraft.run import Run
from topgraft.run.evaluation import Evaluation, Result, Shown
from topgraft.run.origin import Origin
from topgraft.run.predictions import read_predictions
from topgraft.run.results import Answers, Side
from topgraft.selection.ensemble import ensemble, paired, paired_loss, weights_of
from topgraft.settings import Settings
from topgraft.store.table import views_of
from topgraft.text import counted
from topgraft.trust.coverage import in_words
from topgraft.trust.harder import Harder, harder
from topgraft.trust.trust import judge, label_issues
from topgraft.types import Labels, Probabilities, Progress, auto, silent

BATCH = 8
"""Photos held in memory at once, all their views with them."""
OWN_THRESHOLDS = (
    "The threshold below which a run is unsure is of its own probabilities, and not applied to their mean."
    " Evaluate that run alone to see what it does."
)


@dataclass(frozen=True)
class _Answers:
    """What one run said.

    Attributes:
        probabilities: (N, C); nan where the photo could not be read.
        plain: (N, C) the same of the photo as it is, without augmented views.
        unknown: (N,) whether it called the photo unknown.
        distance: (N,) how far the photo lies from the training photos.
    """

    probabilities: Probabilities
    plain: Probabilities
    unknown: NDArray[np.bool_]
    distance: NDArray[np.float64]

    def of(self, read: NDArray[np.bool_]) -> _Answers:
        """Return the answers for some of the photos."""
        return _Answers(self.probabilities[read], self.plain[read], self.unknown[read], self.distance[read])


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
    runs = _opened(run)
    classes = _classes_of(runs)
    if tta < 0:
        raise UsageError(f"tta must be 0 or more views, got {tta}.")
    data = data if ids is None else data.subset(ids)
    chosen, notes, known_before = _choose(runs, data, split, given=ids is not None)
    multilabel = _takes_multilabel(runs)
    if not multilabel:
        _refuse_several(runs[0], data, chosen)
    named = {i: [data.classes[label] for label in data.samples[i].every_label] for i in chosen}
    known = [i for i in chosen if set(named[i]) <= set(classes)]
    strange = [i for i in chosen if not set(named[i]) <= set(classes)]
    if not known:
        raise DataError(
            f"{data.root}: expected photos of {', '.join(classes[:5])}, found none of"
            f" {'them' if chosen else 'the split asked for'}. Check the folders' names or --split."
        )
    answers = [
        _ask(member, data, known, classes, tta=tta, settings=settings, progress=progress) for member in runs
    ]
    read: NDArray[np.bool_] = np.asarray(
        ~np.isnan([answer.probabilities for answer in answers]).any(axis=(0, 2))
    )
    refused = _refused(data, known, read)
    if not read.any():
        raise DataError(
            f"{data.root}: none of the {len(known)} photos can be read. Look at `topgraft check`."
        )
    labels = _labels(named, [i for i, ok in zip(known, read, strict=True) if ok], classes, multilabel)
    groups = data.groups[known][read]
    answers = [answer.of(read) for answer in answers]
    members, ensembles = _score(
        runs, labels, [answer.probabilities for answer in answers], classes, groups=groups, seed=seed
    )
    odd = [_ask(member, data, strange, classes, settings=settings) for member in runs]
    flagged = int(np.all([answer.unknown for answer in odd], axis=0).sum())
    counts = Counter(name for i in strange for name in named[i] if name not in classes)
    said = ensemble([answer.probabilities for answer in answers])
    cards = [PredictorCard.read(member.model / "card.json") for member in runs]
    card = cards[0] if len(cards) == 1 else None  # what is one run's own, the mean of several has not
    believed, answered = judge(labels, said, groups, seed=seed, out_of_fold=False)
    beside = None if known_before else _harder(runs, members[0], answers[0], labels, groups, seed)
    augmented = _augmented(labels, said, ensemble([answer.plain for answer in answers]), tta, groups, seed)
    told = ([_of_tta(augmented)] if augmented else []) + ([str(beside)] if beside else [])
    notes += filter(None, [metrics.silent(labels)])
    notes += told
    if card and card.answer_above is not None and answered is not None:
        notes.append(in_words(answered.at(card.answer_above)))
    elif not card and any(one.answer_above is not None for one in cards):
        notes.append(OWN_THRESHOLDS)
    notes += _strangers(counts, flagged, len(runs)) + _worse(members, ensembles)
    if refused:
        notes.append(f"{len(refused)} unreadable photos are in no number (first: {refused[0].id}).")
    ids = [data.samples[i].id for i, ok in zip(known, read, strict=True) if ok]
    names = {sample.id: sample.path for sample in data.samples}
    unlike = ensemble([answer.probabilities for answer in odd])
    seen: NDArray[np.bool_] = np.asarray(~np.isnan(unlike).any(axis=1))
    far, odd_far = (answers[0].distance, odd[0].distance[seen]) if card else (None, None)
    return Evaluation(
        classes,
        members,
        ensembles,
        dict(sorted(counts.items())),
        flagged,
        refused,
        tuple(notes),
        trust={
            "temperature": card.temperature if card else None,
            **believed,
            "unknown": card.unknown.model_dump() if card and card.unknown else None,
            "label_issues": _issues(labels, said, ids, classes),
        },
        harder=beside.as_dict() if beside else None,
        tta=augmented,
        shown=Shown(
            runs=tuple(runs),
            answers={
                "test": _as_answers(data, known, read, said, far),
                "stranger": _as_answers(data, strange, seen, unlike[seen], odd_far),
            },
            classes=data.classes,
            origin=Origin(data.root, listed=names),
            place=data.place,
            notes=tuple(told),
        ),
    )


def _labels(
    named: dict[int, list[str]], photos: list[int], classes: tuple[str, ...], multilabel: bool
) -> Labels:
    """Return labels by the runs' classes: (N,), or a 0/1 table (N, C)."""
    shown = np.array([[name in named[i] for name in classes] for i in photos])
    return shown.astype(np.int64) if multilabel else np.asarray(shown.argmax(axis=1))


def _as_answers(
    data: Dataset,
    photos: list[int],
    read: NDArray[np.bool_],
    probabilities: Probabilities,
    distance: NDArray[np.float64] | None,
) -> Answers:
    rows = np.array(photos, np.int64)[read]
    side = Side(rows, tuple(data.samples[i] for i in rows.tolist()), data.labels[rows], data.groups[rows])
    return Answers(side, probabilities[None], np.full(len(rows), -1, np.int64), distance)


def _issues(
    labels: Labels, probabilities: Probabilities, ids: list[str], classes: tuple[str, ...]
) -> list[dict[str, Any]]:
    """List photos whose label looks wrong, in the form of metrics.json."""
    found = [] if labels.ndim == 2 else label_issues(labels, probabilities)
    return [
        {"id": ids[i], "label": classes[labels[i]], "suggested": classes[other], "probability": chance}
        for i, other, chance in found
    ]


def _harder(
    runs: list[Run], member: Result, answers: _Answers, labels: Labels, groups: Labels, seed: int
) -> Harder | None:
    """Hold the photos against those the run was trained on, where it says how far those lie."""
    run = runs[0].metrics
    there = [
        row.distance
        for row in read_predictions(runs[0], run.classes)
        if row.split == "cv" and row.distance is not None
    ]
    if len(runs) > 1 or labels.ndim == 2 or not there:
        return None
    return harder(
        Estimate(**member.scores["accuracy"]),
        run.cross_validation.accuracy,
        answers.distance,
        np.array(there),
        groups,
        seed=seed,
    )


def _augmented(
    labels: Labels, said: Probabilities, plain: Probabilities, tta: int, groups: Labels, seed: int
) -> dict[str, Any] | None:
    """Say what test-time augmentation changed; None without."""
    if not tta:
        return None
    return {
        "views": tta,
        "accuracy": paired(labels, said, plain, groups=groups).as_dict(),
        "log_loss": paired_loss(labels, said, plain, groups=groups, seed=seed).as_dict(),
    }


def _of_tta(found: dict[str, Any]) -> str:
    gap, loss = Estimate(**found["accuracy"]), Estimate(**found["log_loss"])
    better = gap.low > 0 or (loss.high < 0 and gap.value >= 0)
    worse = gap.high < 0 or (loss.low > 0 and gap.value <= 0)
    verdict = "made it better" if better else "made it worse" if worse else "made no measurable difference"
    return (
        f"Test-time augmentation with {counted(found['views'], 'view')} {verdict}: accuracy"
        f" {gap.value:+.3f} [{gap.low:+.2f}, {gap.high:+.2f}], log loss"
        f" {loss.value:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}] on the same photos without it."
    )


def _opened(run: Run | str | Path | Sequence[Run | str | Path]) -> list[Run]:
    given = [run] if isinstance(run, Run | str | Path) else list(run)
    if not given:
        raise UsageError("expected at least one run to evaluate, got none.")
    return [member if isinstance(member, Run) else Run.open(member) for member in given]


def _classes_of(runs: list[Run]) -> tuple[str, ...]:
    first = tuple(runs[0].metrics.classes)
    for other in runs[1:]:
        if tuple(other.metrics.classes) != first:
            raise UsageError(
                f"runs of one ensemble must have the same classes: {runs[0].path} has {', '.join(first)},"
                f" {other.path} has {', '.join(other.metrics.classes)}. Evaluate them one by one."
            )
    return first


def _choose(
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


def _ask(
    run: Run,
    data: Dataset,
    indices: list[int],
    classes: tuple[str, ...],
    *,
    tta: int = 0,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> _Answers:
    """Let one run's predictor look at photos, and at some augmented views of each."""
    names = run.metrics.policies
    if tta > len(names):
        raise UsageError(f"{run.path}: tta must be 0 to {len(names)}, the run's policies, got {tta}.")
    views = views_of([Policy.parse(name) for name in names[:tta]], run.metrics.seed)
    predictor = load(run.path, settings=settings)
    shape = (len(indices), len(classes))
    found = _Answers(
        np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape[0], bool), np.full(shape[0], np.nan)
    )
    for start in range(0, len(indices), BATCH):
        places, seen = [], []
        for place, i in enumerate(indices[start : start + BATCH], start):
            try:
                image = data.image(i)
            except DecodeError:
                continue
            # Views are made of the photo itself: the predictor fits each to its backbone, as any photo.
            seen += render_all(image, views, data.samples[i].digest)
            places.append(place)
        said = predictor.predict(seen)
        answers = np.reshape(
            [[prediction.probabilities[name] for name in classes] for prediction in said],
            (len(places), len(views), len(classes)),
        )
        found.probabilities[places], found.plain[places] = answers.mean(axis=1), answers[:, 0]
        found.unknown[places] = [prediction.unknown for prediction in said[:: len(views)]]
        found.distance[places] = [prediction.distance for prediction in said[:: len(views)]]
        progress(f"evaluating {run.path.name}", min(start + BATCH, len(indices)), len(indices))
    return found


def _refused(data: Dataset, known: list[int], read: NDArray[np.bool_]) -> tuple[Refused, ...]:
    gone = [
        Refused(data.samples[i].id, "cannot be read any more")
        for i, ok in zip(known, read, strict=True)
        if not ok
    ]
    return tuple(sorted([*data.refused, *gone], key=lambda file: file.id))


def _takes_multilabel(runs: list[Run]) -> bool:
    """Tell whether the runs' predictors give several labels a photo; all of them or none must."""
    kinds = [PredictorCard.read(run.model / "card.json").multilabel for run in runs]
    if len(set(kinds)) > 1:
        single, other = runs[kinds.index(False)], runs[kinds.index(True)]
        raise UsageError(
            f"runs of one ensemble must be alike: {single.path} gives one label a photo, {other.path}"
            " several. Evaluate them one by one."
        )
    return kinds[0]


def _refuse_several(run: Run, data: Dataset, chosen: list[int]) -> None:
    """Refuse photos with several labels for a run that gives one: none of them alone would be the truth."""
    several = [sample.id for sample in map(data.samples.__getitem__, chosen) if len(sample.labels) > 1]
    if several:
        raise UsageError(
            f"{data.place}: expected one label a photo, as {run.path} gives, got several of"
            f" {counted(len(several), 'photo')} (first: {several[0]}). Evaluate a run trained on such photos."
        )


def _scores(
    labels: Labels, probabilities: Probabilities, classes: tuple[str, ...], groups: Labels, seed: int
) -> dict[str, Any]:
    if labels.ndim == 1:
        return metrics.summary(labels, probabilities, classes, seed=seed, groups=groups)
    losses = metrics.losses(labels, probabilities)[None]
    brief = metrics.brief(labels, probabilities[None], losses=losses, groups=groups, seed=seed)
    return {"n": len(labels), **brief}


def _score(
    runs: list[Run],
    labels: Labels,
    answered: list[Probabilities],
    classes: tuple[str, ...],
    *,
    groups: Labels,
    seed: int,
) -> tuple[tuple[Result, ...], tuple[Result, ...]]:
    names = [run.path.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.path) for run in runs]
    shares = weights_of([run.metrics.cross_validation.log_loss.value for run in runs])
    members = tuple(
        Result(name, _scores(labels, answers, classes, groups, seed), float(share))
        for name, answers, share in zip(names, answered, shares, strict=True)
    )
    if len(runs) == 1:
        return members, ()
    together = {"mean": ensemble(answered), "weighted": ensemble(answered, shares.tolist())}
    return members, tuple(
        Result(
            name,
            _scores(labels, answers, classes, groups, seed),
            against={
                member: paired(labels, answers, other, groups=groups)
                for member, other in zip(names, answered, strict=True)
            },
        )
        for name, answers in together.items()
    )


def _strangers(counts: Counter[str], flagged: int, runs: int) -> list[str]:
    if not counts:
        return []
    listed = ", ".join(f"{name} {n}" for name, n in sorted(counts.items())[:8])
    total = counts.total()
    said = f"{total} photos are of classes the run does not know ({listed}); they are in no number,"
    return [f"{said} and {flagged} of {total} are called unknown{' by every run' if runs > 1 else ''}."]


def _worse(members: tuple[Result, ...], ensembles: tuple[Result, ...]) -> list[str]:
    """Say it where an ensemble is worse than one of its members."""
    notes = []
    for together in ensembles:
        for member in members:
            gap = (together.against or {})[member.name]
            if gap.value < 0:
                notes.append(
                    f"The {together.name} ensemble is worse than {member.name} alone: accuracy"
                    f" {gap.value:+.3f} [{gap.low:+.2f}, {gap.high:+.2f}] on the same photos."
                )
    return notes
