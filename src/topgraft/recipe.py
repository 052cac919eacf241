"""One recipe, all stages: photos in, a finished run out.

check → split → draw policies → embed, compare heads: the photos as they are, then views while they pay →
refit → evaluate once → report, predictor
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, overload

import numpy as np

from topgraft import files
from topgraft._check import Health, check
from topgraft._grow import Work
from topgraft._learn import Lesson, learn, options_of
from topgraft._split import split
from topgraft._try_backbones import best_of, to_try, tried_in_words
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.fit import fit
from topgraft.config import FAMILY, Config
from topgraft.engines import open_engine
from topgraft.errors import DataError, UnknownNameError, UsageError
from topgraft.files import is_file
from topgraft.heads import HEADS, Head, head_class
from topgraft.photos.correct import Corrected, correct, read_as_asked
from topgraft.photos.dataset import Dataset, sizes
from topgraft.photos.grouping import Grouping
from topgraft.policies.grid import draw
from topgraft.progress import watched
from topgraft.run import Run
from topgraft.run.origin import noted
from topgraft.run.results import Side, indicators
from topgraft.selection.brought import brought
from topgraft.selection.precision import worth_keeping
from topgraft.settings import Settings
from topgraft.speed import adds_bytes
from topgraft.splits import Split
from topgraft.store import FeatureStore
from topgraft.text import counted, duration, flat
from topgraft.trust.unknown import say_of_unknown
from topgraft.types import Features, Images, Progress, auto, silent

GROUPS = ("linear", "all")
"""Names that stand for several heads."""
AT_ONCE = 512
"""Training photos that lie in memory at once, where INT8 is compared with f32."""
MANY = 20_000
"""Views below which INT8 is not even tried by `auto`: they take a minute or two."""
QUICKER = 1.3
"""How many times as fast as f32 INT8 must be for `auto` to take it."""
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
        options = {"duplicates": photos.duplicates} | options
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
    # First all that can be wrong: a start that fails leaves nothing behind and replaces no run.
    named = [_head(name) for name in config.heads.names if name not in GROUPS]
    policies = draw(config.policies.most, seed=config.seed, grid=config.policies.grid)
    place = Run.judge(out, overwrite=overwrite, resume=resume)
    files.stay_here(config.data.photos, store, offline=settings.offline)
    FeatureStore.judge(store or place / "features.zarr")
    if resume:
        _same_choices(place, config)
    before = _unknown_before(place, config)
    begun = time.perf_counter()
    data, corrected = _photos(config, data, settings, progress)
    data.keep_out(place, store)
    health, sides = _judged(config, data)
    checked = time.perf_counter() - begun
    here = [backbone] if backbone else to_try(config, settings, progress)
    run = Run.create(out, overwrite=overwrite, resume=resume)

    used: set[Path] = set()

    def work_with(backbone: Backbone) -> Work:
        return Work(config, data, sides, backbone, policies, run, store, settings, progress, used=used)

    with run.locked():
        run.reopen()
        run.write_config(lasting(config))
        run.write_json("health.json", health.as_dict())
        run.note_time("read and check photos", checked)
        backbone, first = here[0], None
        if len(here) > 1:
            with run.timed("choose the backbone"):
                backbone, first = _chosen(here, config, run, work_with, begun, settings)
        rows = len(data) * (len(policies) + 1)
        if config.backbone.precision == "int8" or (
            config.backbone.precision == "auto" and _may_pay(backbone, rows)
        ):
            with run.timed("quantise"):
                kept = _quantized(backbone, data, sides, run, config.heads.depths, settings, progress)
            first = first if kept is backbone else None  # INT8 gives other features
            backbone = kept

        work = work_with(backbone)
        features, lesson, by_views = work.grow(begun, first)
        maps = None
        if any(head.on_map for head in named):
            with run.timed("embed maps"):
                maps = work.embedded(len(features.views) - 1, maps=True)
        say(f"all features are there after {duration(time.perf_counter() - begun)}")
        tried = run.read("backbones.json").get("tried", ())
        notes = [
            *_of_corrections(corrected, features, sides, config.seed),
            *([tried_in_words(tried, larger=_larger(config))] if len(tried) > 1 else ()),
        ]
        learn(
            features,
            sides,
            notes=notes,
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


def _judged(config: Config, data: Dataset) -> tuple[Health, Split]:
    """Check the photos and part them, and say what there is before anything long begins."""
    health = check(data)
    if config.answers.right is not None and data.multilabel:
        raise UsageError(
            "right: is a share of answers that name one label, and these photos carry several. Give"
            " --answer-above, or leave --right out."
        )
    sides = split(data, test=config.data.test, val=config.data.val, seed=config.seed)
    _announce(data, health, sides)
    if any(sample.split for sample in data.samples) and config.data.model_fields_set & {"test", "val"}:
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
    """Try backbones on the photos as they are and take one; a run that is gone on in keeps the one it took.

    The first answer is said once the smallest is done.
    """
    before = run.read("backbones.json").get("chosen")
    for backbone in here:
        if backbone.card.fingerprint() == before:
            return backbone, None
    said: list[Lesson] = []

    def compared(backbone: Backbone) -> Lesson:
        work = work_with(backbone)
        lesson = work.first()
        if not said:
            work.say_first(lesson, begun)
            said.append(lesson)
        return lesson

    best = best_of(
        here,
        compared,
        larger=_larger(config),
        seconds=config.backbone.seconds,
        seed=config.seed,
        settings=settings,
    )
    rows = [row.as_dict() for row in best.tried]
    run.write_json("backbones.json", {"chosen": best.backbone.card.fingerprint(), "tried": rows})
    say(tried_in_words(rows, larger=_larger(config)))
    return best.backbone, best.lesson


def _may_pay(backbone: Backbone, rows: int) -> bool:
    """Say whether INT8 is worth trying: making it takes half a minute."""
    why = ""
    if backbone.card.precision == "int8":
        why = "the backbone is INT8 already"
    elif rows < MANY:
        why = f"{rows:,} views at most are soon embedded"
    elif adds_bytes() is False:
        why = "this processor has no VNNI, and would gain nothing"
    elif find_spec("nncf") is None:
        why = "INT8 needs the extra int8: pip install 'topgraft[int8]'"
    if why:
        say(f"precision auto: {backbone.card.precision} ({why})")
    return not why


def _quantized(
    backbone: Backbone,
    data: Dataset,
    sides: Split,
    run: Run,
    depths: str,
    settings: Settings,
    progress: Progress,
) -> Backbone:
    """Quantise on the training photos, and keep INT8 only where it loses nothing on the same folds.

    Where the choice is left to Topgraft, it has to be quicker, too.
    """
    from topgraft.importers.quantize import quantize, spread

    learn = data.subset(sides.train)

    def pictures(rows: Sequence[int]) -> Images:
        return np.stack([fit(learn.image(i), backbone.card) for i in rows])

    coarse = quantize(backbone, pictures(spread(len(learn))), settings=settings)
    columns = backbone.card.columns if depths != "last" and coarse.card.depths else None
    features: tuple[list[Features], list[Features]] = ([], [])
    took = [0.0, 0.0]
    with ExitStack() as stack:
        engines = [
            stack.enter_context(
                open_engine(one, precision=one.card.precision, depths=columns is not None, settings=settings)
            )
            for one in (backbone, coarse)
        ]
        for start in range(0, len(learn), AT_ONCE):
            rows = range(start, min(start + AT_ONCE, len(learn)))
            shown = pictures(rows)
            for which, engine in enumerate(engines):
                begun = time.perf_counter()
                features[which].append(engine.embed(shown))
                took[which] += time.perf_counter() - begun
            progress("compare f32 and INT8", rows[-1] + 1, len(learn))
    labels = indicators(learn.samples, len(learn.classes)) if learn.multilabel else learn.labels
    exact, rounded = map(np.concatenate, features)
    verdict = worth_keeping(exact, rounded, labels, learn.groups, columns=columns, settings=settings)
    run.write_json("int8.json", verdict.as_dict())
    times = took[0] / took[1]
    say(f"{verdict.sentence} On this processor it is {times:.1f} times as fast.")
    if (run.config or Config()).backbone.precision == "auto" and times < QUICKER:
        say("That is too little to be worth other features, so f32 is kept.")
        return backbone
    return coarse if verdict.keep else backbone
