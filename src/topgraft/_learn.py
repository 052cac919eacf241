"""Compare heads on the training side, refit the best, test it once, and write the run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topgraft import metrics
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.depths import Depths
from topgraft.config import Config
from topgraft.heads import HEADS, Head, setting_text, to_probabilities
from topgraft.heads._base import last_layer
from topgraft.importers.load import find_backbone
from topgraft.predictor import Predictor
from topgraft.run import Run, versions
from topgraft.run.metrics import SCHEMA, Metrics
from topgraft.run.predictions import write_predictions
from topgraft.run.results import (
    Answers,
    Side,
    backbone_facts,
    check_disjoint,
    counts,
    rounded,
    same_work,
)
from topgraft.selection.compare import FEWER, Comparison, compare, fit_chosen
from topgraft.selection.curve import FEWEST, Curve, curve
from topgraft.selection.leaning import lean_in_words, leaning
from topgraft.selection.nested import ENOUGH
from topgraft.selection.payoff import in_words as views_in_words
from topgraft.selection.source import columns_of, stack, view_0
from topgraft.selection.worth import Worth
from topgraft.selection.worth import worth as measure_worth
from topgraft.settings import Settings
from topgraft.splits import Split
from topgraft.store import FeatureStore
from topgraft.trust.coverage import SAID_ABOVE, in_words
from topgraft.trust.trust import Trust, judge, trust
from topgraft.types import Features, Labels, Progress, silent

say = logging.getLogger(__name__).info


@dataclass(frozen=True)
class Lesson:
    """Heads that were compared on the training side of a store, and what they were compared on.

    Attributes:
        store: features of all photos.
        maps: maps of them, for heads that read maps.
        training: the photos that are learned from.
        columns: which columns of a row are which; None for the last layer alone.
        views: (V, n, D) of them.
        mapped: (V, n, C, h, w) of them.
        found: what came out.
    """

    store: FeatureStore
    maps: FeatureStore | None
    training: Side
    columns: Depths | None
    views: Features
    mapped: Features | None
    found: Comparison


def compare_side(
    store: FeatureStore,
    split: Split,
    *,
    maps: FeatureStore | None = None,
    depths: str = "auto",
    settings: Settings,
    progress: Progress = silent,
    **options: Any,
) -> Lesson:
    """Compare heads on the training side of a split; see `learn` for the options.

    Cross-validation does a validation side's work, so its photos are learned from like the others.
    """
    training, columns = Side.of(store, (*split.train, *split.val)), columns_of(store, depths)
    views = stack(store, training.rows, columns)
    mapped = None if maps is None else stack(maps, training.rows)
    found = compare(
        views,
        training.labels,
        training.groups,
        maps=mapped,
        classes=len(store.classes),
        columns=columns,
        depths=depths,
        settings=settings,
        progress=progress,
        **options,
    )
    return Lesson(store, maps, training, columns, views, mapped, found)


def options_of(config: Config) -> dict[str, Any]:
    """Return how heads are compared, whichever they are."""
    heads = config.heads
    return {
        "folds": heads.folds,
        "repeats": heads.repeats,
        "class_weight": heads.class_weight,
        "depths": heads.depths,
        "rule": heads.rule,
        "seed": config.seed,
    }


def judges_of(config: Config) -> tuple[str, ...]:
    """Return the heads that say what views and backbones are worth: the quick ones of those asked for."""
    names = config.heads.names
    if "all" in names:
        return ("linear",)
    return tuple(name for name in names if name == "linear" or not HEADS[name].requires)


def learn(
    store: FeatureStore,
    split: Split | None = None,
    *,
    maps: FeatureStore | None = None,
    heads: str | Sequence[str] = "linear",
    folds: int | None = None,
    repeats: int = 1,
    class_weight: str = "auto",
    depths: str = "auto",
    rule: str = "mean",
    worth: bool = False,
    seed: int = 0,
    answer_above: float | None = None,
    right: float | None = None,
    refused: int = 0,
    notes: Sequence[str] = (),
    lesson: Lesson | None = None,
    brought: dict[str, Any] | None = None,
    out: str | Path | Run | None = None,
    backbone: Backbone | None = None,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Run:
    """Train a classifier on stored features.

    Heads are compared by grouped, stratified cross-validation on the training side alone; the chosen one is
    fitted again on all of it and meets the test side once.

    Args:
        store: features of all photos.
        split: which photos are for what; None trains on all and tests on none.
        maps: a store of maps of the same photos and views, for heads that read maps (`flat`).
        heads: `linear` (all that need no PyTorch), `all`, or names.
        folds: of the cross-validation; None: 10 of up to 500 photos, 5 of more.
        repeats: how often the folds are dealt anew.
        class_weight: `auto`, `on` or `off`.
        depths: `auto` lets cross-validation say how much the blocks' features count where the store has them,
            `last` reads the last layer alone, `all` always reads them.
        rule: how one is chosen: `mean`, `lowest` or `one-standard-error`.
        worth: measure what every policy is worth, too.
        seed: of the folds and of heads that draw.
        answer_above: labels less probable than this are no answer but unsure; None answers always.
        right: in place of it, the share of out-of-fold answers that shall be right.
        refused: unreadable files that were left out, for the record.
        notes: sentences that shall stand first among the run's.
        lesson: heads that were compared already, with the same options, on this store.
        brought: what views brought, where they were added in steps (`selection/payoff.py`).
        out: the run's folder; None takes the next free number in `runs/`.
        backbone: what made the features; None finds it by the store's card.
        settings: cores and cache.
        progress: told of every head.

    Returns:
        The run, with its predictor in `model/`; no report yet.

    Raises:
        DataError: for a split whose photos are not in the store, or fewer than two that differ.
        UsageError: for options out of range, or a split with a photo or a group on both sides.
    """
    settings = settings or Settings.load()
    Config.of(answer_above=answer_above, right=right)  # what is wrong is said before the work
    split = split or Split(train=tuple(sample.id for sample in store.samples))
    test = Side.of(store, split.test)
    check_disjoint(Side.of(store, (*split.train, *split.val)), test)
    if maps is not None:
        same_work(store, maps)
    backbone = backbone or find_backbone(store.card, settings=settings, progress=progress)
    run = out if isinstance(out, Run) else Run.create(out)
    run.reopen()
    if lesson is None:
        with run.timed("compare heads"):
            lesson = compare_side(
                store,
                split,
                maps=maps,
                heads=heads,
                folds=folds,
                repeats=repeats,
                seed=seed,
                class_weight=class_weight,
                depths=depths,
                rule=rule,
                settings=settings,
                progress=progress,
            )
    pupil = _Pupil(lesson, run, seed, settings, progress)
    head, fitted = pupil.fitted()
    judged = fitted.answering(answer_above, right)
    grown = pupil.curve(class_weight)
    measured = pupil.worth(folds) if worth else None
    answers = pupil.answers(head, judged, test)
    leans = leaning(head, lesson.views[0], lesson.columns)
    scores = _learned(lesson.found, answers, store.classes, seed, leans)
    facts = {
        "schema": SCHEMA,
        "classes": list(store.classes),
        "counts": counts(store, lesson.training, test, refused),
        "backbone": backbone_facts(store.card, store.precision),
        "policies": [str(view.policy) for view in store.views[1:]],
        "views": brought,
        "seed": seed,
        **scores,
        "trust": judged.numbers,
        "curve": grown.numbers if grown else None,
        "worth": measured.numbers if measured else None,
        "notes": [
            *notes,
            *_notes(lesson.found, leans),
            *([views_in_words(brought)] if brought else []),
            *_of_validation(split),
            *filter(None, [metrics.silent(test.labels)]),
            *judged.notes,
            *_sure_when_tested(scores, answers, judged.answer_above, seed),
            *(grown.sentences if grown else ()),
            *(measured.brief if measured else ()),
        ],
    }
    write_predictions(run, store.classes, answers)
    run.write_json("versions.json", versions())
    with run.timed("predictor"):
        built = Predictor.build(
            backbone,
            head,
            classes=store.classes,
            temperature=lesson.found.temperature,
            unknown=judged.unknown,
        )
        if judged.answer_above is not None:
            built = built.answering_above(judged.answer_above)
        built.save(run.model)
    run.write_metrics(Metrics.model_validate(rounded(facts)))
    return run


@dataclass(frozen=True)
class _Pupil:
    """What was chosen on the training side, and what is asked of it.

    Attributes:
        lesson: heads that were compared.
        run: where it goes, and what notes how long each stage took.
        seed: of all that draws.
        settings, progress: as `learn` has them.
    """

    lesson: Lesson
    run: Run
    seed: int
    settings: Settings
    progress: Progress

    def fitted(self) -> tuple[Head, Trust]:
        """Fit the chosen head on all photos that are learned from, and say how far it can be trusted."""
        lesson, training, found = self.lesson, self.lesson.training, self.lesson.found
        with self.run.timed("refit"):
            spent = {name: round(seconds, 6) for name, seconds in found.seconds.items()}
            self.run.write_json("fits.json", spent)
            head = fit_chosen(
                found,
                lesson.views,
                training.labels,
                training.groups,
                maps=lesson.mapped,
                classes=len(self.lesson.store.classes),
                seed=self.seed,
                settings=self.settings,
            )
            judged = trust(
                found,
                lesson.views[0],
                training.labels,
                training.groups,
                ids=[sample.id for sample in training.samples],
                classes=self.lesson.store.classes,
                seed=self.seed,
                settings=self.settings,
            )
        return head, judged

    def answers(self, head: Head, judged: Trust, test: Side) -> dict[str, Answers]:
        """Return the answers out of fold, `cv`, and where there is a test side those for it, `test`."""
        training, found = self.lesson.training, self.lesson.found
        answers = {"cv": Answers(training, found.oof, _fold_of(found, len(training.rows)), judged.distances)}
        if len(test.rows):
            answers["test"] = _test(self.lesson, head, judged, test)
        return answers

    def worth(self, folds: int | None) -> Worth | None:
        """Measure what policies are worth, where there are any and every photo has one label."""
        training = self.lesson.training
        if len(self.lesson.store.views) < 2 or training.labels.ndim == 2:
            return None
        with self.run.timed("worth of policies"):
            return measure_worth(
                self.lesson.store,
                training.labels,
                training.groups,
                photos=training.rows,
                # what policies change needs no better level
                folds=min(folds or FEWER, len(self.lesson.found.folds[0])),
                seed=self.seed,
                settings=self.settings,
                progress=self.progress,
            )

    def curve(self, class_weight: str) -> Curve | None:
        """Measure what more photos would bring, where that can be told."""
        training, columns = self.lesson.training, self.lesson.columns
        if training.labels.ndim == 2 or len(np.unique(training.groups)) < FEWEST:
            return None
        wrong = self.lesson.found.oof[0].argmax(axis=1) != training.labels
        with self.run.timed("learning curve"):
            return curve(
                view_0(self.lesson.store, training.rows, columns),
                training.labels,
                training.groups,
                classes=self.lesson.store.classes,
                columns=columns,
                error=float(wrong.mean()),
                class_weight=class_weight,
                seed=self.seed,
                settings=self.settings,
                progress=self.progress,
            )


def _fold_of(found: Comparison, n: int) -> Labels:
    """(n,) the fold each photo was scored in, in the first repeat."""
    fold = np.full(n, -1, dtype=np.int64)
    for number, (_, scored) in enumerate(found.folds[0]):
        fold[scored] = number
    return fold


def _test(lesson: Lesson, head: Head, judged: Trust, test: Side) -> Answers:
    """Answer for the test side, once, on the photos as they are."""
    columns, maps = lesson.columns, lesson.maps
    rows = view_0(lesson.store, test.rows, columns).astype(np.float32)
    read = rows if maps is None or not head.on_map else view_0(maps, test.rows).astype(np.float32)
    logits = head.logits(read)
    answers = to_probabilities(logits, multilabel=head.multilabel, temperature=judged.numbers["temperature"])
    nowhere = np.full(len(test.rows), -1, dtype=np.int64)
    distances = judged.unknown.distance(last_layer(rows, columns), logits)
    return Answers(test, answers[None], nowhere, distances)


def _learned(
    found: Comparison,
    answers: dict[str, Answers],
    classes: Sequence[str],
    seed: int,
    depths: list[dict[str, Any]],
) -> dict[str, Any]:
    """Say what was chosen and how good it is."""
    return {
        "head": {
            "name": found.chosen.head,
            "setting": setting_text(found.chosen.setting),
            "temperature": found.temperature,
            "depths": depths,
        },
        "cross_validation": {
            "folds": len(found.folds[0]),
            "repeats": len(found.folds),
            **answers["cv"].scores(classes, seed),
        },
        "test": answers["test"].scores(classes, seed) if "test" in answers else None,
        "leaderboard": found.rows,
    }


def _sure_when_tested(
    scores: dict[str, Any], answers: dict[str, Answers], above: float | None, seed: int
) -> list[str]:
    """Say how sure answers are on the test, where that is believed and the cross-validation is not."""
    if "test" not in answers or answers["test"].side.labels.ndim == 2:
        return []
    crossed, tested = (metrics.Estimate(**scores[name]["accuracy"]) for name in ("cross_validation", "test"))
    side = answers["test"].side
    found = metrics.headline(crossed, tested, len(side.rows))
    if found.key != "test" or not found.why:
        return []
    _, answered = judge(
        side.labels, answers["test"].probabilities[0], side.groups, seed=seed, out_of_fold=False
    )
    assert answered is not None  # noqa: S101 - every photo has one label
    said = in_words(answered.at(SAID_ABOVE if above is None else above))
    return [f"How sure it may be was learned from the cross-validated photos, too. On those held out: {said}"]


def _of_validation(split: Split) -> list[str]:
    if not split.val:
        return []
    return [f"{len(split.val)} validation photos were learned from too: cross-validation does their work."]


def _notes(found: Comparison, depths: list[dict[str, Any]]) -> list[str]:
    repeats, folds = len(found.folds), len(found.folds[0])
    times = f", {repeats} times" if repeats > 1 else ""
    among = f"of {len(found.rows)} head settings in {folds}-fold cross-validation{times}"
    chosen = f"Chosen: {found.chosen}: {found.why}, {among}."
    honest = (
        "The cross-validated numbers do not flatter the choice: each fold is answered by what the other folds"
        " alone would have chosen, and their intervals allow for other photos having been learned from."
    )
    leans = lean_in_words(depths)
    return [
        chosen,
        *([honest] if folds >= ENOUGH else []),
        *filter(None, [leans]),
        *found.notes,
    ]
