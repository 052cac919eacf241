"""The whole job on drawn photos: nothing is downloaded."""

from __future__ import annotations

import logging
from pathlib import Path

from topgraft import files
from topgraft.config import Config
from topgraft.errors import UsageError
from topgraft.importers.load import DEFAULT
from topgraft.progress import watched
from topgraft.recipe import follow
from topgraft.run import MARK, Run
from topgraft.settings import Settings
from topgraft.testing.drawing import draw_photos
from topgraft.types import Progress, auto

say = logging.getLogger(__name__).info


@watched
def demo(
    out: str | Path = "demo",
    *,
    each: int = 60,
    settings: Settings | None = None,
    progress: Progress = auto,
) -> Run:
    """Draw a small photo set and train on it.

    Args:
        out: holds the photos, in `photos/`, and the run, in `run/`; an earlier demo's are replaced.
        each: photos to draw for each of two classes.
        settings: cores, cache and the like.
        progress: told of everything that takes long.

    Raises:
        UsageError: for a folder with anything in it that is not from a demo.
    """
    folder = Path(out)
    held = folder.is_dir() and any(not inside.name.startswith(".") for inside in folder.iterdir())
    if held and not (folder / "run" / MARK).is_file():
        raise UsageError(f"{folder}: holds something, and not from a demo. Give another -o.")
    with files.guarded(folder):
        photos = draw_photos(folder / "photos", each, seed=0)
    say(f"Drew {2 * each} photos of sushi and sandwiches into {photos}.")
    # Drawn photos need no larger backbone; views are shown whether they pay or not.
    config = Config.of(photos=photos, backbone=DEFAULT, policies="16!")
    return follow(config, folder / "run", overwrite=True, settings=settings, progress=progress)
