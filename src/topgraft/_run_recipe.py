"""Do all stages of a recipe: train, fine-tune, export. What is done already is passed over."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from topgraft._export import export
from topgraft._export.make import numbers_of
from topgraft._export.runtimes import open_named
from topgraft._finetune import finetune
from topgraft._report import report
from topgraft.config import Config
from topgraft.errors import UsageError, need
from topgraft.files import is_file
from topgraft.photos.correct import read_as_asked
from topgraft.recipe import follow, lasting
from topgraft.recipes import find_recipe
from topgraft.run import Run
from topgraft.settings import Settings
from topgraft.types import Progress, silent

say = logging.getLogger(__name__).info


def run_recipe(
    recipe: str | Path,
    photos: str | Path | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    settings: Settings | None = None,
    progress: Progress = silent,
    **options: Any,
) -> Run:
    """Do all stages of a recipe, and pass over those that are done.

    Args:
        recipe: a TOML file, or the name of a recipe that comes along (`quick`).
        photos: a folder, URL or table; None takes what the recipe names.
        out: the folder for all stages, `train/`, `finetune/` and `export/` in it; None is `runs/` and the
            recipe's name.
        overwrite: do all stages anew.
        settings: cores, cache, device.
        progress: told of everything that takes long.
        **options: choices that overrule the recipe's, by their short names (`topgraft.config.OPTIONS`).

    Returns:
        The last run: the fine-tuned one where the recipe has a section `[finetune]`.

    Raises:
        UsageError: for a mistake in the recipe, or a folder that another recipe began, naming the first
            choice that differs.
        DataError: for photos that cannot be trained on.
        MissingExtraError: where a stage needs an extra.
    """
    path = find_recipe(recipe)
    config = Config.of(path, photos=photos, **options)
    if not config.data.photos:
        raise UsageError(f"{path.stem}: names no photos. Give them: topgraft run {recipe} PHOTOS")
    settings = settings or Settings.load()
    place = Path("runs", path.stem) if out is None else Path(out)
    _judge(config)

    first = config.model_copy(update={"finetune": None, "export": None})
    trained = lasting(first)
    told: dict[str, Any] = {"settings": settings, "progress": progress}
    fresh = overwrite or not _is_done(place / "train", trained)
    if fresh:
        run = follow(first, place / "train", overwrite=overwrite, resume=not overwrite, **told)
    else:
        run = _passed_over(place / "train")
    if config.finetune is not None:
        asked = config.finetune.model_dump(exclude_none=True, exclude_unset=True, exclude={"run"})
        # What began with an older training is of no use; what was only interrupted goes on.
        replace, fresh = fresh, fresh or not _is_done(place / "finetune", trained, asked)
        if fresh:
            data, _ = read_as_asked(config.data, **told)
            where = place / "finetune"
            run = finetune(run, data, out=where, overwrite=replace, resume=not replace, **told, **asked)
            report(run, photos=config.data.photos, settings=settings)
        else:
            run = _passed_over(place / "finetune")
    if config.export is not None:
        wanted = config.export.model_dump()
        there = Run(place / "export").read("metrics.json")
        made = there.pop("export", {})
        ours = there == numbers_of(run)  # else it is of a run before, or of one not yet fine-tuned
        if fresh or not ours or any(made.get(key) != value for key, value in wanted.items()):
            wanted |= told | {"photos": read_as_asked(config.data, **told)[0]}
            say(str(export(run, place / "export", overwrite=True, **wanted)))
        else:
            say(f"{place / 'export'}: is there already")
    return run


def _judge(config: Config) -> None:
    """Say what the later stages lack before the first one takes its time."""
    if config.finetune is not None:
        for module in ("torch", "timm"):
            need(module, "timm", "fine-tuning")
    if config.export is not None:
        open_named(config.export.format, None)


def _is_done(place: Path, trained: Config, finetune: dict[str, Any] | None = None) -> bool:
    """Tell whether a run is finished, to its report, and was made by these choices."""
    if not (is_file(place / "metrics.json") and is_file(place / "report.html")):
        return False
    config = Run(place).config
    if config is None or config.model_copy(update={"finetune": None}) != trained:
        return False
    facts = config.finetune.model_dump() if config.finetune else {}
    return all(facts.get(key) == value for key, value in (finetune or {}).items())


def _passed_over(place: Path) -> Run:
    """Open a run that is done, and say so."""
    say(f"{place}: is there already; --overwrite makes it anew")
    return Run.open(place)
