"""The command line: parse, call one public function, print. Results go to stdout, all else to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from copy import copy
from dataclasses import asdict
from importlib import import_module
from inspect import signature
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption
from typer.main import get_command_name

from topgraft.errors import DataError, TopgraftError, UsageError
from topgraft.settings import usable_cores
from topgraft.show import (
    json_list,
    listen,
    print_backbones,
    print_comparison,
    print_curve,
    print_findings,
    print_json,
    print_prediction,
    print_stop,
    print_store,
    print_tried,
    print_verdict,
    print_worth,
    progress,
)
from topgraft.text import counted, one_line

STOPPED = 130
"""The exit code of a command that Ctrl-C ended."""
UNREAD = 141
"""The exit code where nobody reads what is printed, as behind `| head -1`: what a shell says of SIGPIPE."""

app = typer.Typer(
    name="topgraft",
    help="A folder of labelled photos in, a classifier with honest numbers out.",
    epilog="Start with `topgraft demo`, then `topgraft train PHOTOS -o runs/first`."
    " Exit codes: 0 ok, 1 the data or model failed a check, 2 wrong usage, 3 a missing extra.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
stores = typer.Typer(help="Look after feature stores.", no_args_is_help=True)
app.add_typer(stores, name="store")

Photos = Annotated[
    str, typer.Argument(help="Folder with one folder of photos a class, or a CSV table.", show_default=False)
]
RunFolder = Annotated[Path, typer.Argument(help="A run made by `topgraft train`.", show_default=False)]
StorePath = Annotated[str, typer.Argument(help="A feature store.", show_default=False)]
NewRun = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the run. [default: runs/001 …]")]
BackboneName = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="architecture.tag, local-dir:PATH, a folder, or an ONNX file; A+B joins two."
        " [default: tf_efficientnet_lite0.in1k]",
    ),
]
BackboneChoice = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="architecture.tag, local-dir:PATH, a folder or an ONNX file; or tried on your photos:"
        " tf_efficientnet_lite (0 and 2 of them), auto (all that are here). A+B joins two.",
    ),
]
CardFile = Annotated[Path | None, typer.Option("--card", help="The card of a bare ONNX file.")]
Weights = Annotated[str | None, typer.Option(help="`pretrained`, `random`, or a weights file.")]
Size = Annotated[int | None, typer.Option(help="Side of the pictures in pixels. [default: the backbone's]")]
Policies = Annotated[int | None, typer.Option(help="How many augmentation policies to draw.")]
MostPolicies = Annotated[
    str | None,
    typer.Option(help="Augmentation policies, at most: added in steps while they pay. `16!` for exactly 16."),
]
GridName = Annotated[str, typer.Option("--grid", help="{grids} or a TOML grid.")]
GridChoice = Annotated[str | None, typer.Option("--grid", help="{grids} or a TOML grid.")]
HeadNames = Annotated[str | None, typer.Option("--heads", help="linear, all, or of {heads}, with commas.")]
Folds = Annotated[
    int | None,
    typer.Option(help="Folds of the cross-validation; of heads 10 for up to 500 photos, else 5."),
]
Repeats = Annotated[int | None, typer.Option(help="How often the folds are drawn anew.")]
WithTest = Annotated[bool, typer.Option("--with-test", help="Take in photos that were held out, too.")]
ReadDepths = Annotated[
    str | None, typer.Option("--depths", help="auto, last or all: how deep heads read the backbone.")
]
Rule = Annotated[
    str | None, typer.Option(help="Chosen is the mean of the best, lowest, or one-standard-error.")
]
ClassWeight = Annotated[str | None, typer.Option(help="auto, on or off: weigh rare classes more.")]
AnswerAbove = Annotated[float | None, typer.Option(help="Answers less probable are unsure.")]
Duplicates = Annotated[
    str | None,
    typer.Option(help="What keeps photos on one side of a split: {duplicates} (exact: the same pixels)."),
]
CorrectionsTable = Annotated[
    Path | None, typer.Option("--corrections", help="Table of labels that `topgraft review` writes.")
]
GroupBy = Annotated[
    str | None,
    typer.Option(help="Photos that stay together: a regex on paths (site, animal, date), or exif:TAG."),
]
Within = Annotated[
    str | None, typer.Option(help="With exif:DateTimeOriginal: taken so soon after another, as 60s.")
]
Seed = Annotated[
    int | None, typer.Option(help="Decides all that is drawn: sides, policies, views, folds.", min=0)
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on in the run that is there.")]
Threads = Annotated[int | None, typer.Option(help="Cores to use. [default: all]")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Offline = Annotated[bool | None, typer.Option("--offline", help="Never open a socket.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

VERBS = {
    "check": "check",
    "preview": "preview",
    "embed": "embed",
    "info": "FeatureStore.info",
    "store prune": "FeatureStore.prune",
    "train": "train",
    "heads": "compare_heads",
    "worth": "worth",
    "curve": "curve",
    "finetune": "finetune",
    "predict": "predict",
    "serve": "serve.serve",
    "review": "review",
    "evaluate": "evaluate",
    "export": "export",
    "report": "report",
    "run": "run_recipe",
    "demo": "demo",
    "backbones": "list_backbones",
    "fetch": "fetch",
    "doctor": "doctor",
}
"""The public function behind each verb, of the same name but where a folder of the package has that name."""
RECIPE = ("check", "preview", "embed", "train")
"""Verbs whose options are choices of the recipe."""


class Verb(TyperCommand):
    """A command whose help says what the registries hold, and the defaults of the function behind it.

    Both are looked up when help is asked for: what they need takes longer to import than all else here.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, with names and defaults filled in."""
        for option in self.params:
            if isinstance(option, TyperOption | TyperArgument):
                left = isinstance(option, TyperOption) and option.default is None
                option.help = _filled(option.help or "", self.name or "", option.name if left else "")
        super().format_options(ctx, formatter)


def public_function(verb: str) -> Callable[..., Any]:
    """Return the function behind a verb, as `import topgraft` gives it."""
    import topgraft

    place, _, name = VERBS[verb].rpartition(".")
    owner = import_module("topgraft.serve") if place == "serve" else topgraft
    found: Callable[..., Any] = attrgetter(name if place == "serve" else VERBS[verb])(owner)
    return found


def _filled(text: str, verb: str, option: str | None) -> str:
    """Return an option's help with the names that registries know, and the default it is left to."""
    if "{" in text:
        from topgraft.engines._open import ENGINES
        from topgraft.heads import HEADS
        from topgraft.photos.looks import ALIKE
        from topgraft.policies.grid import GRIDS
        from topgraft.recipes import SHIPPED

        text = text.format(
            grids=", ".join(GRIDS),
            heads=", ".join(HEADS),
            engines=", ".join(("auto", *ENGINES)),
            duplicates=", ".join(ALIKE),
            recipes=", ".join(SHIPPED),
        )
    default = _default(verb, option) if option and "[default: " not in text else None
    return f"{text} [default: {default}]" if default else text


def _default(verb: str, option: str) -> str:
    """Return the default of an option that is left to the recipe, or to the function behind the verb."""
    from topgraft.config import OPTIONS, Config

    value: object = None
    if verb in RECIPE and option in OPTIONS:
        value = Config().option(option)
    elif verb in VERBS:
        parameter = signature(public_function(verb)).parameters.get(option)
        value = parameter.default if parameter and parameter.default is not parameter.empty else None
    if value is None or value is False:
        return ""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _given(**options: Any) -> dict[str, Any]:
    """Keep the options that were given: the others are the function's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _with_command(name: str) -> typer.Typer:
    """Return the application with one command alone, where it is one's name: to read all takes 50 ms."""
    own = [
        info
        for info in app.registered_commands
        if info.callback and get_command_name(info.callback.__name__) == name
    ]
    if not own:
        return app
    alone = copy(app)
    alone.registered_commands, alone.registered_groups = own, []
    return alone


def main() -> None:
    """Run the command line; a user's mistake is one line and an exit code."""
    verbose = any(flag in sys.argv[1:] for flag in ("-v", "--verbose"))
    sys.argv[1:] = [word for word in sys.argv[1:] if word not in ("-v", "--verbose")]
    listen(verbose)
    # No command needs plugins of pydantic, which looks for them in the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Pillow gives a picture's memory back to the system and asks for it anew, a tenth of the time that photos
    # of 12 megapixels take. Three blocks of 16 MB, which hold one, are kept for each core.
    os.environ.setdefault("PILLOW_BLOCKS_MAX", str(3 * usable_cores()))
    stdout = sys.stdout
    try:
        _run(verbose)
    finally:
        if sys.stdout is not stdout or not _flushed():  # typer puts another there where a pipe broke
            sys.exit(UNREAD)


def _run(verbose: bool) -> None:
    """Run the command that was asked for, and exit."""
    try:
        _with_command(sys.argv[1] if sys.argv[1:] else "")()
    except SystemExit as end:
        if end.code == STOPPED:
            print_stop(sys.argv[1:])
        raise
    except TopgraftError as error:
        if verbose:
            raise
        print(f"topgraft: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if verbose:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"topgraft: {place}{error.strerror or error}. -v says where.", file=sys.stderr)
        sys.exit(1)


def _flushed() -> bool:
    """Tell whether somebody read what was printed last: what is short is only written here."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return False
    except (OSError, ValueError, AttributeError):
        pass  # a full disk, or closed: Python says so when it ends
    return True


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(metadata.version("topgraft"))
        raise typer.Exit


@app.callback()
def topgraft(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show an error's traceback.")] = False,
) -> None:
    """A folder of labelled photos in, a classifier with honest numbers out."""


@app.command(cls=Verb)
def check(
    photos: Photos,
    duplicates: Duplicates = None,
    group_by: GroupBy = None,
    within: Within = None,
    as_json: AsJson = False,
) -> None:
    """Look for unreadable, duplicate or leaking photos.

    Fails, with exit code 1, for fewer than two classes, a class with fewer than two readable photos, or more
    than 20 % unreadable files: `train` would refuse them too. Whatever else is found is said, and no failure.
    """
    from topgraft._check import check as look
    from topgraft.photos.dataset import Dataset

    with progress() as bar:
        data = Dataset.from_folder(
            photos, duplicates=duplicates, group_by=group_by, within=within, progress=bar
        )
    health = look(data, strict=False)
    if as_json:
        print_json(health.as_dict())
    else:
        counts = ", ".join(f"{name} {n}" for name, n in health.classes.items())
        print(one_line(f"{counted(health.photos, 'photo')}: {counts}"))
        if data.grouping:
            print(one_line(data.grouping))
        for line in health.warnings or ([] if health.failed else ["Nothing to complain about."]):
            print(one_line(line))
        for file in health.refused:
            print(one_line(f"  {file['id']} {file['reason']}"))
    if health.failed:
        raise DataError(health.failed)


@app.command(cls=Verb)
def preview(
    photos: Annotated[str, typer.Argument(help="Photo folder, CSV table or one photo.", show_default=False)],
    policies: Annotated[int, typer.Option(help="How many policies to draw.")] = 30,
    grid: GridName = "grid288",
    out: Annotated[Path, typer.Option("--out", "-o", help="The contact sheet to write.")] = Path(
        "preview.png"
    ),
    save_to: Annotated[Path | None, typer.Option(help="New folder for every single view.")] = None,
    test: Annotated[float, typer.Option(help="Share that `train` would hold out; not shown.")] = 0.2,
    duplicates: Duplicates = None,
    corrections: CorrectionsTable = None,
    group_by: GroupBy = None,
    within: Within = None,
    seed: Annotated[int, typer.Option(help="Decides split, draw and views.", min=0)] = 0,
) -> None:
    """Draw what the augmentation policies do to your photos.

    One training photo under each policy, and several under one, on one sheet. With the options that `train`
    gets, no photo is shown that it holds out.
    """
    from topgraft import _preview
    from topgraft._split import split
    from topgraft.photos.correct import correct
    from topgraft.photos.dataset import Dataset
    from topgraft.photos.decode import SUFFIXES

    if Path(photos).suffix.lower() in SUFFIXES:
        _preview.preview([photos], n=policies, grid=grid, seed=seed, out=out, save_to=save_to)
    else:
        with progress() as bar:
            data = Dataset.from_folder(
                photos, duplicates=duplicates, group_by=group_by, within=within, progress=bar
            )
            if corrections:
                data = correct(data, corrections, progress=bar).data
        shown = split(data, test=test, seed=seed).train
        _preview.preview(data, n=policies, grid=grid, seed=seed, ids=shown, out=out, save_to=save_to)
    print(out)


@app.command(cls=Verb)
def embed(
    photos: Photos,
    out: Annotated[
        str, typer.Option("--out", "-o", help="Feature store to make or add to: a folder or URL.")
    ] = "features.zarr",
    backbone: BackboneName = None,
    card: CardFile = None,
    weights: Weights = None,
    maps: Annotated[
        bool, typer.Option("--maps", help="Keep the maps before pooling, for the head `flat`; large.")
    ] = False,
    policies: Policies = None,
    grid: GridChoice = None,
    seed: Seed = None,
    duplicates: Duplicates = None,
    group_by: GroupBy = None,
    within: Within = None,
    depths: Annotated[
        str,
        typer.Option(help="all keeps statistics of every block, last none; auto all where there are any."),
    ] = "auto",
    engine: Annotated[str, typer.Option(help="{engines}.")] = "auto",
    workers: Annotated[
        str | None, typer.Option(help="Threads that decode, or ray[:ADDRESS]. [default: all cores]")
    ] = None,
    threads: Threads = None,
    offline: Offline = None,
    as_json: AsJson = False,
) -> None:
    """Push photos through the backbone into a feature store.

    Once per view; what the store has is not computed again.
    """
    from topgraft._embed import embed as into_store
    from topgraft.config import Config
    from topgraft.importers.load import DEFAULT, load_named
    from topgraft.photos.dataset import Dataset
    from topgraft.policies.grid import draw
    from topgraft.settings import Settings

    chosen = Config.of(
        photos=photos,
        backbone=backbone or DEFAULT,  # a store is of one; training may try some
        card=card,
        weights=weights,
        policies=policies,
        grid=grid,
        seed=seed,
        duplicates=duplicates,
        group_by=group_by,
        within=within,
    )
    settings = Settings.load(threads=threads, offline=offline)
    with progress() as bar:
        data = Dataset.from_folder(
            photos,
            duplicates=chosen.data.duplicates,
            group_by=chosen.data.group_by,
            within=chosen.data.within,
            settings=settings,
            progress=bar,
        )
        loaded = load_named(chosen, settings=settings, progress=bar)
        store = into_store(
            data,
            out,
            backbone=loaded.maps() if maps else loaded,
            policies=draw(chosen.policies.most, seed=chosen.seed, grid=chosen.policies.grid),
            seed=chosen.seed,
            precision=loaded.card.precision,
            depths=depths,
            engine=engine,
            workers=workers,
            settings=settings,
            progress=bar,
        )
    for file in data.refused:
        print(one_line(f"topgraft: left out {file.id}: {file.reason}"), file=sys.stderr)
    facts = store.info()
    print_json(facts) if as_json else print_store(facts)


@app.command(cls=Verb)
def info(store: StorePath, as_json: AsJson = False) -> None:
    """Say what is in a feature store, and what is missing."""
    from topgraft.store import FeatureStore

    facts = FeatureStore.open(store).info()
    print_json(facts) if as_json else print_store(facts)


@stores.command(cls=Verb)
def prune(store: StorePath) -> None:
    """Drop features that no photo or view of the store needs any more."""
    from topgraft.store import FeatureStore

    freed = FeatureStore.open(store).prune()
    print(f"{freed / 1e6:.1f} MB freed")


@app.command(cls=Verb)
def train(
    photos: Photos,
    out: NewRun = None,
    config: Annotated[Path | None, typer.Option(help="A TOML recipe; flags overrule it.")] = None,
    backbone: BackboneChoice = None,
    time: Annotated[str | None, typer.Option(help="How long backbones may be tried, as 5m.")] = None,
    card: CardFile = None,
    weights: Weights = None,
    precision: Annotated[str | None, typer.Option(help="f32, int8 where it loses nothing, or auto.")] = None,
    policies: MostPolicies = None,
    grid: GridChoice = None,
    heads: HeadNames = None,
    worth: Annotated[
        bool | None, typer.Option("--worth", help="Measure what every policy is worth, too.")
    ] = None,
    folds: Folds = None,
    repeats: Repeats = None,
    test: Annotated[float | None, typer.Option(help="Share held out for the one test; 0 for none.")] = None,
    class_weight: ClassWeight = None,
    answer_above: AnswerAbove = None,
    right: Annotated[
        float | None,
        typer.Option(help="Answer only as sure as it takes for this share to be right, as 0.99."),
    ] = None,
    depths: ReadDepths = None,
    rule: Rule = None,
    seed: Seed = None,
    duplicates: Duplicates = None,
    corrections: CorrectionsTable = None,
    group_by: GroupBy = None,
    within: Within = None,
    store: Annotated[
        str | None, typer.Option(help="Feature store to use and add to. [default: in the run]")
    ] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    threads: Threads = None,
    offline: Offline = None,
    track: Annotated[
        str | None, typer.Option(help="Note the finished run in mlflow as well. [default: nowhere]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a classifier: the whole job, from folder to report.

    Check, split, embed, compare heads, test once, report.
    """
    from topgraft.config import Config
    from topgraft.settings import Settings

    choices = Config.of(
        config,
        photos=photos,
        test=test,
        backbone=backbone,
        time=time,
        card=card,
        weights=weights,
        precision=precision,
        policies=policies,
        grid=grid,
        worth=worth,
        heads=heads,
        folds=folds,
        repeats=repeats,
        class_weight=class_weight,
        answer_above=answer_above,
        right=right,
        depths=depths,
        rule=rule,
        seed=seed,
        duplicates=duplicates,
        corrections=corrections,
        group_by=group_by,
        within=within,
    )
    settings = Settings.load(threads=threads, offline=offline)
    if track:
        from topgraft import _track

        _track.judge(track, settings=settings)
    from topgraft.recipe import train as do  # after the options were judged: it takes a second

    if out and not overwrite and not resume:
        out = _offered(out)
    with progress() as bar:
        run = do(
            photos,
            config=choices,
            out=out,
            store=store,
            overwrite=overwrite,
            resume=resume,
            settings=settings,
            progress=bar,
        )
    if as_json:
        print((run.path / "metrics.json").read_text(encoding="utf-8"), end="")
    else:
        print_verdict(run)
    if track:  # last: the result was said, whatever becomes of its note
        _track.track(run, track, settings=settings)


def _offered(out: Path) -> Path:
    """Offer the next name where a finished run lies, if somebody is there to be asked."""
    from topgraft.run.run import is_finished, next_name

    if not is_finished(out) or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return out
    other = next_name(out)
    said = f"{out} holds a finished run. Train into {other}, with its features?"
    return other if typer.confirm(said, default=True, err=True) else out


@app.command(cls=Verb)
def heads(
    store: StorePath,
    heads: HeadNames = None,
    maps: Annotated[
        str | None, typer.Option(help="A store of the same photos' maps: `flat` takes part. [default: none]")
    ] = None,
    folds: Folds = None,
    repeats: Repeats = None,
    class_weight: ClassWeight = None,
    depths: ReadDepths = None,
    rule: Rule = None,
    seed: Seed = None,
    with_test: WithTest = False,
    threads: Threads = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Compare heads on stored features; no model is kept."""
    from topgraft._compare_heads import compare_heads
    from topgraft.settings import Settings

    options = _given(
        heads=heads.split(",") if heads else None,
        maps=maps,
        folds=folds,
        repeats=repeats,
        class_weight=class_weight,
        depths=depths,
        rule=rule,
        seed=seed,
        with_test=with_test,
    )
    with progress() as bar:
        found = compare_heads(
            store,
            settings=Settings.load(threads=threads, device=device),
            progress=bar,
            **options,
        )
    if as_json:
        print_json({"leaderboard": found.rows, "notes": found.notes, "seconds": found.seconds})
    else:
        print_comparison(found)


@app.command(cls=Verb)
def worth(
    store: StorePath,
    folds: Folds = None,
    repeats: Repeats = None,
    seed: Seed = None,
    with_test: WithTest = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Say what each augmentation policy is worth, from a store."""
    from topgraft._worth import worth as measure
    from topgraft.settings import Settings

    options = _given(folds=folds, repeats=repeats, seed=seed, with_test=with_test)
    with progress() as bar:
        found = measure(store, settings=Settings.load(threads=threads), progress=bar, **options)
    if as_json:
        print_json({**found.numbers, "sentences": found.sentences})
    else:
        print_worth(found)


@app.command(cls=Verb)
def curve(
    run: Annotated[str, typer.Argument(help="A run, or a feature store.", show_default=False)],
    store: Annotated[
        str | None, typer.Option(help="Where the run's features lie. [default: in the run]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides folds and draws. [default: the run's; 0 of a store]", min=0)
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Say what more photos would bring, from stored features.

    Heads on a fifth to all of the photos; twice as many, and ten more of each class, with intervals.
    """
    from topgraft._curve import curve as measure
    from topgraft.settings import Settings

    with progress() as bar:
        found = measure(
            run, store=store, settings=Settings.load(threads=threads), progress=bar, **_given(seed=seed)
        )
    if as_json:
        print_json({**found.numbers, "sentences": found.sentences})
    else:
        print_curve(found)


@app.command(cls=Verb)
def finetune(
    run: RunFolder,
    photos: Annotated[
        str | None, typer.Argument(help="The photos it was trained from. [default: as its config says]")
    ] = None,
    blocks: Annotated[
        str, typer.Option(help="How many of the last blocks to train; auto keeps 0 where nothing is gained.")
    ] = "3",
    out: NewRun = None,
    backbone: Annotated[
        str | None, typer.Option(help="The run's backbone, where it is found no more. [default: as noted]")
    ] = None,
    views: Annotated[
        int, typer.Option(help="How many of the run's augmented views to train on beside each photo.")
    ] = 0,
    folds: Annotated[
        int | None, typer.Option(help="1: judge on one of the run's folds. [default: all of them]")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The same as --folds 1.")] = False,
    to_the_end: Annotated[
        bool, typer.Option("--to-the-end", help="Go on where no gain is in sight any more.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(help="How often each photo is shown, at most. [default: 30]")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Photos looked at before each change of weights. [default: 32]")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="How far each change goes: learning rate of the last block. [default: 1e-4]"),
    ] = None,
    batch_norm: Annotated[
        str | None,
        typer.Option(help="BatchNorm layers: frozen, or train to learn their statistics. [default: frozen]"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides order and photos kept apart. [default: the run's]", min=0)
    ] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    threads: Threads = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Train the last blocks of a run's backbone, too (extra timm).

    Takes minutes where `train` takes seconds; says how long first. Stops where no gain is in sight.
    """
    from topgraft._finetune import finetune as tune
    from topgraft._report import report
    from topgraft.importers.load import load_backbone
    from topgraft.run import Run
    from topgraft.run.origin import read_photos
    from topgraft.settings import Settings

    options = _given(epochs=epochs, batch=batch, rate=rate, batch_norm=batch_norm, seed=seed)
    settings = Settings.load(threads=threads, device=device)
    with progress() as bar:
        made = tune(
            run,
            read_photos(Run.open(run), photos, settings=settings, progress=bar) if photos else None,
            backbone=load_backbone(backbone, settings=settings, progress=bar) if backbone else None,
            blocks=int(blocks) if blocks.isdecimal() else blocks,  # type: ignore[arg-type]
            views=views,
            folds=1 if quick else folds,
            to_the_end=to_the_end,
            out=out,
            overwrite=overwrite,
            resume=resume,
            settings=settings,
            progress=bar,
            **options,
        )
        report(made, photos=photos, settings=settings)
    if as_json:
        print((made.path / "metrics.json").read_text(encoding="utf-8"), end="")
    else:
        print_verdict(made)


@app.command(cls=Verb)
def predict(
    run: RunFolder,
    photos: Annotated[
        list[str],
        typer.Argument(help="Photos, folders, or - for a list of paths on stdin.", show_default=False),
    ],
    as_json: AsJson = False,
    lines: Annotated[bool, typer.Option("--nl", help="Print one JSON object a line, as they come.")] = False,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Write a table, too: a line a photo.", show_default=False)
    ] = None,
    sort_into: Annotated[
        Path | None,
        typer.Option(help="Copy photos into a folder a class, unknown/ and unsure/.", show_default=False),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Link in place of copying.")] = False,
    answer_above: AnswerAbove = None,
    threads: Threads = None,
) -> None:
    """Say what is on photos the model has not seen.

    An answer is a class, or unknown (unlike all it learned), or unsure (less probable than --answer-above).
    Fails, with exit code 1, where a photo could not be read.
    """
    from topgraft._predict import Sorter, load_for, writing
    from topgraft._predict import predict as answers
    from topgraft.settings import Settings

    settings = Settings.load(threads=threads)
    places = [] if photos == ["-"] else photos
    given = places or (line.rstrip("\r\n") for line in sys.stdin if line.strip())
    predictor = load_for(run, given, settings=settings)
    sorter = Sorter(sort_into, predictor.classes, photos=places, link=link) if sort_into else None
    failed = 0
    with progress() as bar, writing(table) as write, json_list(wanted=as_json) as listed:
        for prediction in answers(
            predictor, given, answer_above=answer_above, settings=settings, progress=bar
        ):
            failed += bool(prediction.error)
            write(prediction)
            if sorter:
                sorter.add(prediction)
            if as_json:
                listed(prediction.as_dict())
            elif lines:
                print(json.dumps(prediction.as_dict(), ensure_ascii=False, allow_nan=False), flush=True)
            else:
                print_prediction(prediction)
    if sorter:
        print(f"topgraft: {sorter}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command(cls=Verb)
def serve(
    run: RunFolder,
    host: Annotated[
        str, typer.Option(help="Where to listen; anything but loopback needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.", min=0, max=65535)] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that requests must carry.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that share the cores.")] = 1,
    threads: Threads = None,
) -> None:
    """Answer photos by HTTP, and show a page for them (extra serve).

    Ctrl-C finishes what was taken.
    """
    from topgraft.serve.start import serve as listen_at
    from topgraft.settings import Settings

    listen_at(
        run,
        host=host,
        port=port,
        token_file=token_file,
        workers=workers,
        settings=Settings.load(threads=threads),
    )


@app.command(cls=Verb)
def review(
    run: RunFolder,
    photos: Annotated[
        str | None,
        typer.Argument(help="Folder of photos without labels. [default: none]", show_default=False),
    ] = None,
    corrections: CorrectionsTable = None,
    port: Annotated[int, typer.Option(help="Where to listen.", min=0, max=65535)] = 8010,
    export_to: Annotated[
        Path | None,
        typer.Option(help="New folder for the photos as corrected, one folder a class; then no page."),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Link in place of copying.")] = False,
    threads: Threads = None,
) -> None:
    """Correct labels and label new photos by keyboard (extra serve).

    Shows likely label errors, near-duplicates with different labels, photos unlike the others, and those of
    PHOTOS that teach most, most useful first. Every decision is kept at once in a table: the one that the
    run was trained with, or one beside the run. No photo is changed or moved. `train --corrections TABLE`
    learns from it.
    """
    from topgraft.settings import Settings

    settings = Settings.load(threads=threads)
    with progress() as bar:
        if export_to is not None:
            from topgraft._relabel import corrected_photos, table_of, write_layout
            from topgraft.run import Run

            opened = Run.open(run)
            data = corrected_photos(opened, table_of(opened, corrections), settings=settings, progress=bar)
            print(write_layout(data, export_to, link=link, progress=bar))
            return
        from topgraft.serve.start import review as ask

        ask(run, photos, corrections=corrections, port=port, settings=settings, progress=bar)


@app.command(cls=Verb)
def evaluate(
    places: Annotated[
        list[str],
        typer.Argument(
            help="One run or several (an ensemble), then the photos; without photos, those of the first run.",
            show_default=False,
            metavar="RUN... [PHOTOS]",
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(help="test or all. [default: test for photos the runs were trained from, else all]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the page, too: like a run's report.", show_default=False),
    ] = None,
    tta: Annotated[int, typer.Option(help="Average the photo with so many of the run's policies.")] = 0,
    group_by: GroupBy = None,
    within: Within = None,
    seed: Seed = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Measure runs on labelled photos, alone and together.

    Says whether these photos are harder than those it was trained on. -o PAGE.html shows every mistake.
    """
    from topgraft._evaluate import evaluate as measure
    from topgraft._report import place_of, report
    from topgraft.photos.dataset import Dataset
    from topgraft.photos.grouping import Grouping
    from topgraft.run import Run
    from topgraft.run.origin import is_noted, read_photos, read_place
    from topgraft.run.run import MARK
    from topgraft.settings import Settings

    *runs, last = places
    named = bool(runs) and not any((Path(last) / name).is_file() for name in (MARK, "metrics.json"))
    runs = runs if named else places
    opened = [Run.open(run) for run in runs]  # before photos are read
    page = place_of(out) if out else None
    grouping, settings = Grouping.of(group_by, within), Settings.load(threads=threads)
    with progress() as bar:
        if not named:
            data = read_photos(opened[0], settings=settings, progress=bar)
        elif is_noted(opened[0], last):
            # its own photos and those that came since, with the groups and corrections that it learned
            data = read_place(opened[0], last, settings=settings, progress=bar)
        else:
            data = Dataset.from_folder(last, settings=settings, progress=bar)
        if grouping:
            data = data.grouped(grouping, settings=settings)
        data.keep_out(page)
        found = measure(
            opened, data, split=split, tta=tta, settings=settings, progress=bar, **_given(seed=seed)
        )
    if page:
        report(found, out=page, settings=settings)
    if as_json:
        print_json(found.as_dict())
    else:
        print("\n".join(map(one_line, str(found).splitlines())))
        if page:
            print(f"page       {page}")


@app.command(cls=Verb)
def export(
    run: RunFolder,
    photos: Annotated[
        str | None, typer.Argument(help="The photos it was trained from. [default: as its config says]")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the export.")] = Path("export"),
    form: Annotated[
        str, typer.Option("--format", help="onnx, openvino or web (a page for browsers).")
    ] = "onnx",
    precision: Annotated[
        str, typer.Option(help="f32, f16 (half the file) or int8 (extra int8); what it loses is measured.")
    ] = "f32",
    runtime: Annotated[
        Path | None, typer.Option(help="onnxruntime-web's files, for web. [default: in node_modules]")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write the model for another runtime, checked in that runtime.

    Up to 200 of the run's photos go through the files; where they disagree with the run, nothing is left.
    """
    from topgraft._export import export as write

    with progress() as bar:
        made = write(
            run,
            out,
            format=form,  # type: ignore[arg-type]
            precision=precision,  # type: ignore[arg-type]
            photos=photos,
            runtime=runtime,
            overwrite=overwrite,
            progress=bar,
        )
    print_json(made.as_dict()) if as_json else print(made)


@app.command(cls=Verb)
def report(
    runs: Annotated[list[Path], typer.Argument(help="Runs made by `topgraft train`.", show_default=False)],
    compare: Annotated[
        bool, typer.Option("--compare", help="Put the runs side by side in one page.")
    ] = False,
    photos: Annotated[
        str | None,
        typer.Option(
            help="Where the photos are; another machine is asked if named here. [default: as noted]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page. [default: in the run's folder]")
    ] = None,
) -> None:
    """Write a run's report again, or one page for several runs."""
    from topgraft._report import report as write

    if compare:
        if photos is not None:
            raise UsageError("--photos is for the report of one run: --compare shows none. Leave it away.")
        print(write(list(runs), out=out))
        return
    if out is not None and len(runs) > 1:
        raise UsageError(f"--out names one page, got {len(runs)} runs. Add --compare or leave --out away.")
    for run in runs:
        print(write(run, photos=photos, out=out))


@app.command(cls=Verb)
def run(
    recipe: Annotated[
        str,
        typer.Argument(help="A TOML recipe, or one that comes along: {recipes}.", show_default=False),
    ],
    photos: Annotated[
        str | None, typer.Argument(help="Folder or CSV table of photos. [default: as the recipe says]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for all stages. [default: runs/RECIPE]")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="In place of the recipe's. [default: as the recipe says]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="In place of the recipe's. [default: as the recipe says]", min=0)
    ] = None,
    overwrite: Overwrite = False,
    threads: Threads = None,
    device: Device = None,
    offline: Offline = None,
    as_json: AsJson = False,
) -> None:
    """Do all stages of a recipe; what is done is passed over.

    Train, then fine-tune and export where the recipe has a section for it.
    """
    from topgraft.recipes import find_recipe
    from topgraft.settings import Settings

    find_recipe(recipe)  # a misspelt name is told before what takes seconds to import
    settings = Settings.load(threads=threads, device=device, offline=offline)
    from topgraft._run_recipe import run_recipe

    with progress() as bar:
        made = run_recipe(
            recipe,
            photos,
            out=out,
            overwrite=overwrite,
            settings=settings,
            progress=bar,
            **_given(backbone=backbone, seed=seed),
        )
    if as_json:
        print((made.path / "metrics.json").read_text(encoding="utf-8"), end="")
    else:
        print_verdict(made)


@app.command(cls=Verb)
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the photos and the run.")] = Path(
        "demo"
    ),
    each: Annotated[int, typer.Option(help="Photos to draw for each class.", min=10)] = 60,
) -> None:
    """Draw a small photo set and do the whole job with it.

    Nothing is downloaded.
    """
    from topgraft._demo import demo as do

    with progress() as bar:
        run = do(out, each=each, progress=bar)
    print_verdict(run)


@app.command(cls=Verb)
def backbones(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="One of them: its card and the blocks fine-tuning can unfreeze. With --try, those to try.",
        ),
    ] = None,
    photos: Annotated[
        str | None,
        typer.Option("--try", help="Photos to try them on: by default all that are on this machine."),
    ] = None,
    card: CardFile = None,
    weights: Weights = None,
    size: Size = None,
    threads: Threads = None,
    offline: Offline = None,
    as_json: AsJson = False,
) -> None:
    """List backbones, describe one, or try some on your photos.

    Trying embeds the photos that `train` would learn from, as they are, and cross-validates heads on the same
    folds: how good each is, against the best, how long a photo takes and how large it is.
    """
    from topgraft.importers._catalogue import list_backbones
    from topgraft.importers.load import load_backbone
    from topgraft.settings import Settings

    settings = Settings.load(threads=threads, offline=offline)
    if photos is not None:
        if card or weights or size:
            raise UsageError("--try takes backbones by name alone. Leave --card, --weights and --size out.")
        from topgraft._try_backbones import try_backbones

        with progress() as bar:
            tried = try_backbones(photos, names or (), settings=settings, progress=bar)
        print_json([row.as_dict() for row in tried]) if as_json else print_tried(tried)
        return
    if names and len(names) > 1:
        raise UsageError(f"backbones: expected one name to describe, got {len(names)}. Add --try PHOTOS.")
    if names:
        name = names[0]
        with progress() as bar:
            found = load_backbone(
                name, card=card, weights=weights or "pretrained", size=size, settings=settings, progress=bar
            ).card
        if as_json:
            print(found.model_dump_json(indent=1))
            return
        print(f"{found.name}  {found.features} features  {found.preprocessing()}")
        print(f"licence {found.licence}  origin {found.origin}  sha256 {found.weights_sha256[:16]}…")
        columns = found.columns
        if columns.blocks:
            ends = f"{columns.blocks[0].name} to {columns.blocks[-1].name}"
            print(f"{columns.extra} block features: means and spreads of {len(columns.blocks)}, {ends}")
        print(f"{len(found.blocks)} blocks that fine-tuning can unfreeze, the last first:")
        for block in reversed(found.blocks):
            print(f"  {block.name:40} {block.parameters:12,} parameters")
        return
    listed = list_backbones(settings)
    if as_json:
        print_json([asdict(entry) for entry in listed])
    else:
        print_backbones(listed)


@app.command(cls=Verb)
def fetch(
    name: Annotated[str, typer.Argument(help="What --backbone takes.", show_default=False)],
    to: Annotated[Path, typer.Option(help="A folder that does not exist yet.", show_default=False)],
    card: CardFile = None,
    weights: Weights = None,
    size: Size = None,
    offline: Offline = None,
) -> None:
    """Write a backbone's folder for a machine without a network.

    There, give it as --backbone FOLDER.
    """
    from topgraft.importers.load import fetch as write
    from topgraft.settings import Settings

    with progress() as bar:
        place = write(
            name,
            to,
            card=card,
            weights=weights or "pretrained",
            size=size,
            settings=Settings.load(offline=offline),
            progress=bar,
        )
    print(place)


@app.command(cls=Verb)
def doctor(offline: Offline = None, as_json: AsJson = False) -> None:
    """Say whether this machine can do the work, and how fast."""
    from topgraft._doctor import doctor as look
    from topgraft.settings import Settings

    findings = look(Settings.load(offline=offline))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_findings(findings)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
