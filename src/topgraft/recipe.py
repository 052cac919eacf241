"""One recipe, all stages: photos in, a finished run out.

check → split → draw policies → embed, compare heads: the photos as they are, then views while they pay →
refit → evaluate once → report, predictor
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from topgraft import files
from topgraft._check import Health, check
from topgraft._grow import Work
from topgraft._learn import Lesson, learn, options_of
from topgraft._split import split
from topgraft._try_backbones import best_of, to_try, tried_in_words
from topgraft._try_int8 import in_precision
from topgraft.backbones.backbone import Backbone
from topgraft.config import FAMILY, Config
from topgraft.errors import DataError, UnknownNameError, UsageError
from topgraft.files import is_file
from topgraft.heads import HEADS, Head, head_class
from topgraft.photos.correct import Corrected, correct, read_as_asked
from topgraft.photos.dataset import Dataset
from topgraft.photos.grouping import Grouping
from topgraft.photos.sample import sizes
from topgraft.policies.grid import draw
from topgraft.progress import watched
from topgraft.run import Run
from topgraft.run.origin import noted
from topgraft.run.results import Side
from topgraft.selection.brought import brought
from topgraft.settings import Settings
from topgraft.splits import Split
from topgraft.store import FeatureStore
from topgraft.text import counted, duration, flat
from topgraft.trust.unknown import say_of_unknown
from topgraft.types import Progress, auto, silent

GROUPS = ("linear", "all")
"""Names that stand for several heads."""
FOLLOW = ("out", "store", "overwrite", "resume", "settings", "progress")
"""What `train` hands on as it is; all else is a choice of the recipe."""

say = logging.getLogger(__name__).info


@overload
def train(
    photos: FeatureStore,
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
    out: str | Path | Run | None = None,
    backbone: Backbone | None = None,
    settings: Settings | None = None,
    progress: Progress = auto,
) -> Run: ...


@overload
def train(
    photos: str | Path | Dataset,
    *,
    config: str | Path | Config | None = None,
    test: float | None = None,
    val: float | None = None,
    duplicates: str | None = None,
    corrections: str | Path | None = None,
    group_by: str | None = None,
    within: str | float | None = None,
    backbone: str | Backbone | None = None,
    time: str | None = None,
    card: str | Path | None = None,
    weights: str | None = None,
    precision: str | None = None,
    policies: int | str | None = None,
    grid: str | None = None,
    worth: bool | None = None,
    heads: str | Sequence[str] | None = None,
    folds: int | None = None,
    repeats: int | None = None,
    class_weight: str | None = None,
    depths: str | None = None,
    rule: str | None = None,
    answer_above: float | None = None,
    right: float | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    store: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    settings: Settings | None = None,
    progress: Progress = auto,
) -> Run: ...


@watched
def train(
    photos: str | Path | Dataset | FeatureStore,
    split: Split | None = None,
    *,
    config: str | Path | Config | None = None,
    **options: Any,
) -> Run:
    """Train a classifier: from photos the whole job, as `topgraft train` does it; from features its core.

    Photos are checked, split and embedded, heads compared, the best one tested once, and a report is written.
    From a feature store, heads are compared by grouped, stratified cross-validation on the training side
    alone; the chosen one is fitted again on all of it and meets the test side once.

    Args:
        photos: a folder, URL or table of photos, or a Dataset; or a feature store.
        split: with a store alone: which photos are for what; None trains on all and tests on none.
        config: with photos: a recipe, a TOML file or a Config; options overrule it.
        **options: with photos: any choice of the recipe by its short name (`topgraft.config.OPTIONS`);
            `out`, the run's folder; `store`, where features lie, in the run's folder by default; `overwrite`
            or `resume` the run that is there. With a store: `maps`, a store of maps of the same photos and
            views, for heads that read maps (`flat`); `heads`, `folds`, `repeats`, `class_weight`, `depths`,
            `rule`, `worth`, `answer_above`, `right`, `seed`; `refused`, unreadable files that were left out,
            for the record; `out`; `backbone`, what made the features, found by the store's card by default.
            With both: `settings` and `progress`.

    Returns:
        The run, with its predictor in `model/`; from a store without a report.

    Raises:
        DataError: for photos that cannot be trained on, or a split whose photos are not in the store.
        UsageError: for options out of range, an output folder that is not empty or lies among the photos, and
            a split with a photo or a group on both sides.
        StoreError: where another process is at work in the run's folder.
    """
    if isinstance(photos, FeatureStore):
        if config is not None:
            raise UsageError("config: a recipe is for photos. Give the choices as options beside a store.")
        return learn(photos, split, **options)
    if split is not None:
        raise UsageError("split: a split is for a feature store. Beside photos give test=0.2 and a seed.")
    rest = {name: options.pop(name) for name in FOLLOW if name in options}
    backbone = options.get("backbone")
    if isinstance(backbone, Backbone):
        options["backbone"] = backbone.card.name
        rest["backbone"] = backbone
    if isinstance(photos, Dataset):
        if options.get("duplicates") is None and photos.duplicates != Config().data.duplicates:
            options["duplicates"] = photos.duplicates
        if (known := photos.grouped_by) and options.get("group_by") is None:
            options |= {"group_by": known.by, "within": known.within}
        rest["data"] = photos
    place = photos.place if isinstance(photos, Dataset) else photos
    return follow(Config.of(config, photos=place, **options), **rest)


def follow(
    config: Config,
    out: str | Path | None = None,
    *,
    data: Dataset | None = None,
    backbone: Backbone | None = None,
    store: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Run:
    """Do the whole job as a recipe says.

    Args:
        config: the choices.
        out: the run's folder; None takes the next free number in `runs/`.
        data: the photos, where they are read already.
        backbone: the backbone, where it is open already.
        store: where features lie; None keeps them in the run's folder.
        overwrite: replace the run that is there.
        resume: go on in the run's folder, with the same choices; stored features of unchanged photos are
            used again, and photos may have come or gone.
        settings: cores, cache and the like.
        progress: told of everything that takes long.

    Raises:
        UsageError: for an output folder that is not empty, or lies among the photos, and for a run to go on
            in that was begun with other choices.
        DataError: for photos that cannot be trained on.
        StoreError: where another process is at work in the run's folder.
        OfflineError: for photos or a store on another machine where no socket may be opened.
    """
    for later in ("finetune", "export"):
        if getattr(config, later) is not None:
            raise UsageError(
                f"{later}: is done after training, got a section [{later}]. Give the recipe to"
                " `topgraft run`, which does all stages; or take the section out, and give the run to"
                f" `topgraft {later}`."
            )
    settings = settings or Settings.load()
    place = _startable(config, out, store, overwrite=overwrite, resume=resume, settings=settings)
    policies = draw(config.policies.most, seed=config.seed, grid=config.policies.grid)
    before = _unknown_before(place, config)
    begun = time.perf_counter()
    data, corrected = _photos(config, data, settings, progress)
    data.keep_out(place, store)
    health, sides = _judged(config, data)
    checked = time.perf_counter() - begun
    here = [backbone] if backbone else to_try(config, settings, progress)
    run = Run.create(out, overwrite=overwrite, resume=resume)
    told: set[object] = set()

    def work_with(backbone: Backbone) -> Work:
        return Work(config, data, sides, backbone, policies, run, store, settings, progress, told=told)

    with run.locked():
        run.reopen()
        run.write_config(lasting(config))
        run.write_json("health.json", health.as_dict())
        run.note_time("read and check photos", checked)
        taken, first = _chosen(here, config, run, work_with, begun, settings)
        views = len(data) * (len(policies) + 1)
        backbone = in_precision(
            taken, data, sides, config, run, views=views, settings=settings, progress=progress
        )
        work = work_with(backbone)
        # INT8 gives other features, so what was compared on the photos as they are is of no use to it
        features, lesson, by_views = work.grow(begun, first if backbone is taken else None)
        maps = _maps(work, features) if _read_maps(config) else None
        say(f"all features are there after {duration(time.perf_counter() - begun)}")
        learn(
            features,
            sides,
            notes=[*_of_corrections(corrected, features, sides, config.seed), *_of_trial(run, config)],
            maps=maps,
            lesson=lesson,
            brought=by_views,
            heads=config.heads.names,
            **options_of(config),
            worth=config.policies.worth,
            answer_above=config.answers.above,
            right=config.answers.right,
            refused=len(data.refused),
            out=run,
            backbone=backbone,
            settings=settings,
            progress=progress,
        )
        say_of_unknown(before, run.unknown_method())
        _reported(run, config, settings)
        return run


def _startable(
    config: Config,
    out: str | Path | None,
    store: str | Path | None,
    *,
    overwrite: bool,
    resume: bool,
    settings: Settings,
) -> Path:
    """Return where the run will lie, once all that can be wrong is looked at.

    A start that fails leaves nothing behind and replaces no run.
    """
    for name in config.heads.names:
        if name not in GROUPS:
            _head(name)
    place = Run.judge(out, overwrite=overwrite, resume=resume)
    files.stay_here(config.data.photos, store, offline=settings.offline)
    FeatureStore.judge(store or place / "features.zarr")
    if resume:
        _same_choices(place, config)
    return place


def _read_maps(config: Config) -> bool:
    """Tell whether a head that is asked for by name reads maps."""
    return any(_head(name).on_map for name in config.heads.names if name not in GROUPS)


def _maps(work: Work, features: FeatureStore) -> FeatureStore:
    """Embed the maps before pooling, of the same photos and views."""
    with work.run.timed("embed maps"):
        return work.embedded(len(features.views) - 1, maps=True)


def _judged(config: Config, data: Dataset) -> tuple[Health, Split]:
    """Check the photos and part them, and say what there is before anything long begins."""
    health = check(data)
    if config.answers.right is not None and data.multilabel:
        raise UsageError(
            "right: is a share of answers that name one label, and these photos carry several. Give"
            " --answer-above, or leave --right out."
        )
    sides = split(data, test=config.data.test, val=config.data.val, seed=config.seed)
    if config.policies.worth and (data.multilabel or not config.policies.most):
        lack = "photos carry several labels" if data.multilabel else "there are no policies"
        raise UsageError(f"worth: {lack}, so that nothing can be measured. Leave --worth out.")
    _announce(data, health, sides)
    usual = Config().data
    asked = (config.data.test, config.data.val) != (usual.test, usual.val)
    if asked and any(sample.split for sample in data.samples):
        say("  ! the photos came with a split, which is kept: --test and --val are not used")
    return health, sides


def _reported(run: Run, config: Config, settings: Settings) -> None:
    """Write the pages for people; what draws them is imported now, for the first answer can do without."""
    from topgraft._report import report
    from topgraft.predictor.modelcard import write_model_card

    write_model_card(run)
    with run.timed("report"):
        report(run, photos=config.data.photos, settings=settings)


def lasting(config: Config) -> Config:
    """Return the choices as a run notes them: photos and corrections are found from any working directory."""
    named = {name: getattr(config.data, name) for name in ("photos", "corrections")}
    places = {name: files.absolute(place) for name, place in named.items() if place}
    return config.model_copy(update={"data": config.data.model_copy(update=places)})


def _unknown_before(place: Path, config: Config) -> str:
    """Return by which distance photos were called unknown before; "" where nothing came before.

    By the run that is there, which will be replaced or gone on in; else by the newest beside it on the same
    photos.
    """
    if method := Run(place).unknown_method():
        return method
    photos = files.absolute(config.data.photos)
    beside = [Run(found.parent) for found in place.parent.glob("*/metrics.json") if is_file(found)]
    beside.sort(key=lambda run: (run.path / "metrics.json").stat().st_mtime, reverse=True)
    return next((run.unknown_method() for run in beside if _photos_noted(run) == photos), "")


def _photos_noted(run: Run) -> str:
    try:
        return noted(run)
    except DataError:
        return ""  # its config is damaged; it is no run to compare with


def _photos(
    config: Config, data: Dataset | None, settings: Settings, progress: Progress
) -> tuple[Dataset, Corrected | None]:
    """Return the photos joined into groups and corrected as the choices say, read unless they are already."""
    asked, corrected = config.data, None
    if data is None:
        data, corrected = read_as_asked(asked, settings=settings, progress=progress)
    else:
        data = replace(data, duplicates=asked.duplicates)
        grouping = Grouping.of(asked.group_by, asked.within)
        if grouping and grouping != data.grouped_by:
            data = data.grouped(grouping, settings=settings)
        if asked.corrections:
            corrected = correct(data, asked.corrections, settings=settings, progress=progress)
            data = corrected.data
    if corrected is not None:
        say(f"corrections of {asked.corrections}: {corrected}")
    return data, corrected


def _of_corrections(
    corrected: Corrected | None, store: FeatureStore, sides: Split, seed: int
) -> tuple[str, ...]:
    """Say what a person's corrections changed, and what that brought on the training side."""
    if corrected is None:
        return ()
    notes = [f"Corrections: {corrected}."]
    if tested := len({*sides.test} & {*corrected.changed}):
        notes.append(
            f"{counted(tested, 'label')} of the test side changed, too: its photos are judged by them."
        )
    side = Side.of(store, (*sides.train, *sides.val))
    known = dict(zip(store.classes, range(len(store.classes)), strict=True))
    for name in corrected.changed.values():
        known.setdefault(name, len(known))  # a class that has no photo any more
    before = side.labels.copy()
    for row, sample in enumerate(side.samples):
        if sample.id in corrected.changed:
            before[row] = known[corrected.changed[sample.id]]
        elif sample.id in corrected.added:
            before[row] = -1
    if (before != side.labels).any():
        found = brought(store.features()[side.rows], side.labels, before, side.groups, seed=seed)
        notes += [str(found)] if found else []
    return tuple(notes)


def _head(name: str) -> type[Head]:
    """Find a head by name, among the groups of heads too where the name is close to one of theirs."""
    if name not in HEADS:
        raise UnknownNameError("head", name, [*GROUPS, *HEADS])
    return head_class(name)


def _same_choices(place: Path, config: Config) -> None:
    """Refuse to go on in a run that was begun with other choices: its numbers would be of two minds.

    Where the photos lie decides nothing, and which there are may change.

    Raises:
        UsageError: naming the first choice that differs.
    """
    if not is_file(place / "config.toml"):
        return
    before, now = (flat(lasting(one).as_dict()) for one in (Run(place).config or Config(), config))
    for key in sorted(before.keys() | now.keys()):
        if key != ("data", "photos") and before.get(key) != now.get(key):
            raise UsageError(
                f"{place}: the run was begun with {'.'.join(key)} = {before.get(key)!r}, got"
                f" {now.get(key)!r}. Give the same to --resume, or --overwrite to begin anew."
            )


def _announce(data: Dataset, health: Health, sides: Split) -> None:
    say(f"{len(data)} photos of {len(data.classes)} classes in {data.place}")
    named = {"train": sides.train, "val": sides.val, "test": sides.test}
    for name, ids in named.items():
        if ids:
            counts = sizes(data.subset(ids).samples, data.classes)
            listed = ", ".join(f"{of} {n}" for of, n in list(counts.items())[:8])
            more = f" and {len(data.classes) - 8} more classes" if len(data.classes) > 8 else ""
            say(f"  {name:5} {len(ids):5}  ({listed}{more})")
    if sides.val:
        say("  validation photos are learned from too: cross-validation does their work")
    if data.grouping:
        say(f"  {data.grouping}")
    for line in health.warnings:
        say(f"  ! {line}")


def _larger(config: Config) -> bool:
    """Say whether the larger backbone is taken in doubt: it mostly is better, and few photos cannot tell."""
    return config.backbone.name == FAMILY


def _chosen(
    here: Sequence[Backbone],
    config: Config,
    run: Run,
    work_with: Callable[[Backbone], Work],
    begun: float,
    settings: Settings,
) -> tuple[Backbone, Lesson | None]:
    """Try backbones on the photos as they are and take one; of one alone nothing is tried.

    The first answer is said once the smallest is done. A run that is gone on in keeps the one it took, unless
    other photos are learned from now.
    """
    if len(here) == 1:
        return here[0], None
    learned = work_with(here[0]).learned
    before = run.read("backbones.json")
    for backbone in here:
        if (backbone.card.fingerprint(), learned) == (before.get("chosen"), before.get("learned")):
            return backbone, None

    def compared(backbone: Backbone) -> Lesson:
        work = work_with(backbone)
        lesson = work.first()
        work.say_first(lesson, begun)
        return lesson

    with run.timed("choose the backbone"):
        best = best_of(
            here,
            compared,
            larger=_larger(config),
            seconds=config.backbone.seconds,
            seed=config.seed,
            settings=settings,
        )
    rows = [row.as_dict() for row in best.tried]
    chosen = best.backbone.card.fingerprint()
    run.write_json("backbones.json", {"chosen": chosen, "learned": learned, "tried": rows})
    say(tried_in_words(rows, larger=_larger(config)))
    return best.backbone, best.lesson


def _of_trial(run: Run, config: Config) -> list[str]:
    """Say what trying backbones came to, where there were several."""
    tried = run.read("backbones.json").get("tried", ())
    return [tried_in_words(tried, larger=_larger(config))] if len(tried) > 1 else []
