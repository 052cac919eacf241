"""Measure finished runs on labelled photos: each alone, and several together as an ensemble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft import metrics, notebook
from topgraft.errors import DataError, DecodeError, UsageError
from topgraft.metrics import Estimate
from topgraft.photos.dataset import Dataset, Refused, Sample
from topgraft.policies.policy import Policy, render_all
from topgraft.predictor import PredictorCard, load
from topgraft.progress import watched
from topgraft.run import Run
from topgraft.run.predictions import read_predictions
from topgraft.selection.ensemble import ensemble, paired, weights_of
from topgraft.settings import Settings
from topgraft.store.table import views_of
from topgraft.text import counted
from topgraft.types import Labels, Probabilities, Progress, auto, silent

BATCH = 8
"""Photos held in memory at once, all their views with them."""
HEADLINES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "log_loss": "log loss",
    "roc_auc": "ROC AUC",
}


@dataclass(frozen=True)
class Result:
    """The scores of one run, or of an ensemble of them.

    Attributes:
        name: the run's folder, or `mean` or `weighted`.
        scores: as in metrics.json.
        weight: a run's share in the weighted ensemble.
        against: an ensemble's accuracy minus each member's, by the member's name.
    """

    name: str
    scores: dict[str, Any]
    weight: float | None = None
    against: dict[str, Estimate] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        facts: dict[str, Any] = {"name": self.name}
        if self.weight is not None:
            facts["weight"] = self.weight
        if self.against is not None:
            facts["against"] = {name: estimate.as_dict() for name, estimate in self.against.items()}
        return facts | {"scores": self.scores}


@dataclass(frozen=True)
class Evaluation:
    """How good runs are on some photos. Print it, or take `as_dict()`.

    Attributes:
        classes: names.
        members: one result a run.
        ensembles: the plain and the weighted mean; none for one run.
        strangers: photos of classes the runs do not know, by class; in no score.
        flagged: how many of those the first run calls unknown.
        refused: photos that could not be read; in no score.
        notes: what should be known, in sentences.
    """

    classes: tuple[str, ...]
    members: tuple[Result, ...]
    ensembles: tuple[Result, ...]
    strangers: dict[str, int]
    flagged: int
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]

    @property
    def results(self) -> tuple[Result, ...]:
        """Members and ensembles."""
        return self.members + self.ensembles

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: numbers only, so that equal evaluations are equal bytes."""
        return {
            "schema": 1,
            "classes": list(self.classes),
            "members": [result.as_dict() for result in self.members],
            "ensembles": [result.as_dict() for result in self.ensembles],
            "strangers": {"classes": self.strangers, "flagged": self.flagged},
            "refused": [{"id": file.id, "reason": file.reason} for file in self.refused],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        width = max(len(result.name) for result in self.results)
        lines = [f"{result.name:{width}}  {_headline(result.scores)}" for result in self.results]
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        first = self.results[0].scores
        return f"Evaluation(accuracy {Estimate(**first['accuracy'])}, {first['n']:,} photos)"

    def _repr_html_(self) -> str:
        """Show the headline numbers and the notes, in a notebook."""
        shown = [(row["name"], row["n"], *(_said(row, key) for key in HEADLINES)) for row in self._rows()]
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return notebook.table("Evaluation", ("", "photos", *HEADLINES.values()), shown) + notes

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: a run or ensemble a row, each score with its `_low` and `_high`.

        Raises:
            MissingPandasError: where pandas is not installed.
        """
        return notebook.frame(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        """Return the scores flat, one row a result."""
        return [
            {"name": result.name, "n": result.scores["n"]}
            | {
                key if part == "value" else f"{key}_{part}": number
                for key in HEADLINES
                for part, number in (result.scores.get(key) or {}).items()
            }
            for result in self.results
        ]


def _said(row: dict[str, Any], key: str) -> str:
    return str(Estimate(row[key], row[f"{key}_low"], row[f"{key}_high"])) if key in row else "–"


def _headline(scores: dict[str, Any]) -> str:
    parts = [
        f"{said} {Estimate(**scores[key])}" if scores[key] else f"{said} –"
        for key, said in HEADLINES.items()
        if key in scores
    ]
    return f"{'  '.join(parts)}  ({scores['n']} photos)"


@dataclass(frozen=True)
class _Answers:
    """What one run said.

    Attributes:
        probabilities: (N, C); nan where the photo could not be read.
        unknown: (N,) whether it called the photo unknown.
    """

    probabilities: Probabilities
    unknown: NDArray[np.bool_]


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
        UsageError: for runs of different classes, or a negative `tta`.
        DataError: where no photo is left to measure.
    """
    runs = _opened(run)
    classes = _classes_of(runs)
    if tta < 0:
        raise UsageError(f"tta must be 0 or more views, got {tta}.")
    data = data if ids is None else data.subset(ids)
    chosen, notes = _choose(runs, data, split, given=ids is not None)
    multilabel = _takes_multilabel(runs)
    named = {i: _names(data, i, multilabel=multilabel) for i in chosen}
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
    read: NDArray[np.bool_] = np.asarray(~np.isnan(answers[0].probabilities).any(axis=1))
    refused = _refused(data, known, read)
    if not read.any():
        raise DataError(
            f"{data.root}: none of the {len(known)} photos can be read. Look at `topgraft check`."
        )
    shown = np.array([[name in named[i] for name in classes] for i in known])[read]
    labels: Labels = shown.astype(np.int64) if multilabel else shown.argmax(axis=1)
    groups = data.groups[known][read]
    answered = [answer.probabilities[read] for answer in answers]
    members, ensembles = _score(runs, labels, answered, classes, groups=groups, seed=seed)
    flagged = int(_ask(runs[0], data, strange, classes, settings=settings).unknown.sum())
    counts = Counter(name for i in strange for name in named[i] if name not in classes)
    notes += filter(None, [metrics.silent(labels)])
    notes += _strangers(counts, flagged) + _worse(members, ensembles)
    if refused:
        notes.append(f"{len(refused)} unreadable photos are in no number (first: {refused[0].id}).")
    return Evaluation(
        classes, members, ensembles, dict(sorted(counts.items())), flagged, refused, tuple(notes)
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


def _choose(runs: list[Run], data: Dataset, split: str | None, *, given: bool) -> tuple[list[int], list[str]]:
    """Choose the photos to measure, in the order of their content; say where that flatters."""
    if split not in (None, "test", "all"):
        raise UsageError(f"split must be test or all, got {split!r}.")
    sides = [_sides(run) for run in runs]
    notes = []
    held = set.intersection(
        *({address for address, side in photos.items() if side == "test"} for photos in sides)
    )
    seen = {address for photos in sides for address, side in photos.items() if side == "cv"}
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
    return chosen, notes


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
    probabilities, unknown = np.full((len(indices), len(classes)), np.nan), np.zeros(len(indices), bool)
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
        answers = [[prediction.probabilities[name] for name in classes] for prediction in said]
        shape = (len(places), len(views), len(classes))
        probabilities[places] = np.reshape(answers, shape).mean(axis=1)
        unknown[places] = [prediction.unknown for prediction in said[:: len(views)]]
        progress(f"evaluating {run.path.name}", min(start + BATCH, len(indices)), len(indices))
    return _Answers(probabilities, unknown)


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


def _names(data: Dataset, i: int, *, multilabel: bool) -> list[str]:
    sample = data.samples[i]
    return [
        data.classes[label] for label in (sample.labels if multilabel and sample.labels else (sample.label,))
    ]


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


def _strangers(counts: Counter[str], flagged: int) -> list[str]:
    if not counts:
        return []
    listed = ", ".join(f"{name} {n}" for name, n in sorted(counts.items())[:8])
    total = counts.total()
    said = f"{total} photos are of classes the run does not know ({listed}); they are in no number,"
    return [f"{said} and {flagged} of {total} are called unknown."]


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
