"""Which backbone for these photos: each embeds them as they are, and heads are compared on the same folds."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft._check import check
from topgraft._embed import embed
from topgraft._learn import Lesson, compare_side, judges_of, options_of
from topgraft._split import split as split_of
from topgraft.backbones import _builtin
from topgraft.backbones.backbone import Backbone
from topgraft.config import AUTO, FAMILY, Config
from topgraft.engines import open_engine
from topgraft.errors import UsageError
from topgraft.importers._catalogue import kept, note_pace
from topgraft.importers.load import load_backbone, load_named
from topgraft.metrics import Estimate
from topgraft.photos.correct import read_as_asked
from topgraft.photos.dataset import Dataset
from topgraft.progress import watched
from topgraft.selection.payoff import gap, losses_of, scores_of
from topgraft.settings import Settings
from topgraft.splits import Split
from topgraft.text import duration
from topgraft.types import Progress, auto, silent

say = logging.getLogger(__name__).info


@dataclass(frozen=True)
class Tried:
    """What a backbone is good for on some photos.

    Attributes:
        name: of the backbone.
        accuracy, log_loss: out of fold, of photos as they are.
        difference: in log loss from the best of those tried, with a paired 95 % interval; above 0 is worse.
        ms: a photo takes, in milliseconds, in the engine on all cores.
        mb: of its graph, in megabytes.
        features: how many numbers a photo becomes, the block features among them.
        chosen: the quickest that no slower one beats by more than a standard error.
    """

    name: str
    accuracy: Estimate
    log_loss: Estimate
    difference: Estimate
    ms: float
    mb: float
    features: int
    chosen: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        scores = {name: getattr(self, name).as_dict() for name in ("accuracy", "log_loss", "difference")}
        rest = {name: getattr(self, name) for name in ("ms", "mb", "features", "chosen")}
        return {"name": self.name, **scores, **rest}


@dataclass(frozen=True)
class _Trial:
    """A backbone, the milliseconds a photo takes, the seconds all of it took, and what came out."""

    backbone: Backbone
    ms: float
    took: float
    lesson: Lesson

    @property
    def losses(self) -> NDArray[np.float64]:
        """Return each photo's log loss out of fold, (N,)."""
        return losses_of(self.lesson.found, self.lesson.training.labels)


@dataclass(frozen=True)
class Best:
    """The backbone to take, the heads compared on its features, and all that were tried, the best first."""

    backbone: Backbone
    lesson: Lesson
    tried: list[Tried]


@watched
def try_backbones(
    photos: str | Path | Dataset,
    names: Sequence[str] = (),
    *,
    seconds: float | None = None,
    store: str | Path | None = None,
    config: Config | None = None,
    settings: Settings | None = None,
    progress: Progress = auto,
) -> list[Tried]:
    """Return how good each backbone is on some photos, the best first.

    Photos that `train` would hold out with the same choices are left out, so that its test stays one.

    Args:
        photos: a folder, URL or table of photos, or a Dataset.
        names: what `load_backbone` takes; none for all that are on this machine.
        seconds: begin none that would end later; the smallest is always tried.
        store: where features are kept; None keeps none.
        config: how photos are read and split, and heads compared.
        settings: cores and cache.
        progress: told of everything that takes long.

    Raises:
        DataError: for photos that cannot be trained on.
        UsageError: for a name that is there twice.
        BackboneError: for a backbone that cannot be loaded.
    """
    settings = settings or Settings.load()
    config = Config.of(config)
    data = (
        photos
        if isinstance(photos, Dataset)
        else read_as_asked(config.data, photos, settings=settings, progress=progress)[0]
    )
    check(data)
    sides = split_of(data, test=config.data.test, val=config.data.val, seed=config.seed)
    backbones = found_here(names, settings, progress)
    learn = Split(train=(*sides.train, *sides.val))
    chosen = data.subset(learn.train)
    with tempfile.TemporaryDirectory(prefix="topgraft-") as folder:
        place = store or Path(folder, "features.zarr")

        def compared(backbone: Backbone) -> Lesson:
            features = embed(
                chosen,
                place,
                backbone=backbone,
                precision=backbone.card.precision,
                depths=config.heads.depths,
                settings=settings,
                progress=progress,
            )
            return compare_side(
                features,
                learn,
                heads=judges_of(config) or ("linear",),
                **options_of(config),
                settings=settings,
                progress=progress,
            )

        return best_of(backbones, compared, seconds=seconds, seed=config.seed, settings=settings).tried


def found_here(names: Sequence[str], settings: Settings, progress: Progress = silent) -> list[Backbone]:
    """Load backbones by name; without names, all that are on this machine.

    Raises:
        UsageError: for a name that is there twice.
    """
    if len(set(names)) < len(names):
        raise UsageError(f"backbones: expected each name once, got {', '.join(names)}.")
    if names:
        return [load_backbone(name, settings=settings, progress=progress) for name in names]
    return on_this_machine(settings, progress)


def to_try(config: Config, settings: Settings, progress: Progress = silent) -> list[Backbone]:
    """Return the backbones that a recipe's choice stands for: one, or those that are tried."""
    if config.backbone.name == AUTO:
        return on_this_machine(settings, progress)
    if config.backbone.name == FAMILY:
        return [
            load_backbone(lite.name, settings=settings, progress=progress)
            for lite in (_builtin.LITE0, _builtin.LITE2)
        ]
    return [load_named(config, settings=settings, progress=progress)]


def on_this_machine(settings: Settings, progress: Progress = silent) -> list[Backbone]:
    """Return the backbones that need no network, by name: those that pip brought and those in the cache.

    Random weights are left out, and what is made of another that is here: INT8, maps, other sides, joins.
    """
    found = {
        lite.name: load_backbone(lite.name, settings=settings, progress=progress)
        for lite in _builtin.BUILTINS.values()
        if _builtin.here(lite)
    }
    for card in kept(settings.cache_dir):
        made = card.source == "joined" or "@" in card.name or ".random" in card.name
        usable = card.precision == "f32" and card.output == "features" and not made
        if (
            usable
            and card.name not in found
            and (here := Backbone.kept(settings.cache_dir / "backbones" / card.folder()))
        ):
            found[card.name] = here
    return [found[name] for name in sorted(found)]


def best_of(
    backbones: Sequence[Backbone],
    compared: Callable[[Backbone], Lesson],
    *,
    larger: bool = False,
    seconds: float | None = None,
    seed: int = 0,
    settings: Settings,
) -> Best:
    """Try backbones, the smallest first, and take the quickest that no slower one really beats.

    Args:
        backbones: to try.
        compared: embeds photos with one of them and compares heads; the same photos and folds for all.
        larger: take the largest that no smaller one really beats. No clock has a say in that, so the same
            photos come to the same one everywhere.
        seconds: begin none that would end later; the smallest is always tried.
        seed: of the intervals.
        settings: cores and cache.
    """
    begun = time.perf_counter()
    trials: list[_Trial] = []
    for backbone in sorted(backbones, key=_size):
        left = float("inf") if seconds is None or not trials else seconds - (time.perf_counter() - begun)
        if left <= 0:
            say(f"{backbone.card.name}: not tried, the time is over")
            continue
        since = time.perf_counter()
        if trials:
            ms = _ms(backbone, settings)
            photos = len(trials[-1].lesson.store)  # those held out are embedded, too
            about = trials[-1].took + photos * (ms - trials[-1].ms) / 1000
            if about > left:
                say(f"{backbone.card.name}: not tried, it would take about {duration(about)}")
                continue
            lesson = compared(backbone)
        else:  # the first answer does not wait for a clock
            lesson, ms = compared(backbone), _ms(backbone, settings)
        trials.append(_Trial(backbone, ms, time.perf_counter() - since, lesson))
        if len(trials) > 1:
            row = _row(trials[-1], trials[0], trials[-1], seed)
            say(
                f"{row.name}: accuracy {row.accuracy}, log loss {row.log_loss},"
                f" {row.difference.value:+.3f} against {trials[0].backbone.card.name}, at"
                f" {row.ms / trials[0].ms:.1f} times the time a photo"
            )
    order = trials[::-1] if larger else sorted(trials, key=lambda trial: trial.ms)
    taken = order[0]
    for trial in order[1:]:
        better, error = _gap(taken, trial, seed)
        taken = trial if better.value < -error else taken  # by more than a standard error
    best = min(trials, key=lambda trial: trial.losses.mean())
    rows = [_row(trial, best, taken, seed) for trial in trials]
    return Best(taken.backbone, taken.lesson, sorted(rows, key=lambda row: row.log_loss.value))


def _gap(before: _Trial, after: _Trial, seed: int) -> tuple[Estimate, float]:
    """Return the paired difference in log loss, `after` minus `before`, and its standard error."""
    side = before.lesson.training
    return gap(before.lesson.found, after.lesson.found, side.labels, side.groups, seed=seed)


def tried_in_words(rows: Sequence[Mapping[str, Any]], *, larger: bool) -> str:
    """Return what trying came to, in a sentence.

    Args:
        rows: as `Tried.as_dict` has them, the best first.
        larger: as `best_of` was told.
    """
    said = []
    for place, row in enumerate(rows):
        by, words = row["difference"], f"{row['name']} {row['log_loss']['value']:.3f}"
        if place:
            words += f" ({by['value']:+.3f} [{by['low']:+.3f}, {by['high']:+.3f}])"
        said.append(words)
    taken = next(place for place, row in enumerate(rows) if row["chosen"])
    other = "the larger is better more often" if larger else "it is quicker"
    why = f": what {rows[0]['name']} is better by may be chance, and {other}" if taken else ""
    return (
        f"Backbones on the photos as they are, log loss out of fold: {'; '.join(said)}."
        f" {rows[taken]['name']} is taken{why}."
    )


def _size(backbone: Backbone) -> tuple[int, str]:
    """Return the bytes of a backbone's graph, and its name where two are as large."""
    return backbone.graph.stat().st_size, backbone.card.name


def _ms(backbone: Backbone, settings: Settings) -> float:
    """Measure how many milliseconds a photo takes, and note it for the list of backbones."""
    with open_engine(backbone, precision=backbone.card.precision, settings=settings) as engine:
        pace = engine.images_per_second(8 * settings.threads)
    note_pace(settings.cache_dir, backbone.card, pace)
    return 1000 / pace


def _row(trial: _Trial, best: _Trial, taken: _Trial, seed: int) -> Tried:
    card, side, found = trial.backbone.card, trial.lesson.training, trial.lesson.found
    scores = scores_of(found, side.labels, side.groups, seed=seed)
    return Tried(
        card.name,
        scores["accuracy"],
        scores["log_loss"],
        _gap(best, trial, seed)[0],
        trial.ms,
        _size(trial.backbone)[0] / 1e6,
        card.features + (found.columns.extra if found.columns else 0),
        chosen=trial is taken,
    )
