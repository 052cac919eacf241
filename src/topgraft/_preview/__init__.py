"""Look at policies before anything is trained: a contact sheet of what they do to the photos at hand."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from PIL import Image as Pillow

from topgraft import files
from topgraft._preview.contact import Section, Tile, columns_for, lay_out
from topgraft.backbones.card import Card
from topgraft.backbones.views import views_of_photo
from topgraft.errors import DataError, DecodeError, UsageError
from topgraft.fingerprint import digest
from topgraft.photos.dataset import Dataset
from topgraft.policies.grid import Grid, draw
from topgraft.policies.policy import Policy, View
from topgraft.store.table import views_of
from topgraft.text import safe_cell
from topgraft.types import Image

CARD = Card(name="preview", input_size=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3, features=1)
"""How photos are fitted where no backbone is named: as for EfficientNet-Lite0."""

SHEETS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class _Picture:
    """One photo under one view."""

    photo: str
    view: View
    image: Image


def preview(
    photos: Dataset | Sequence[str | Path],
    *,
    policies: Sequence[Policy] | None = None,
    grid: str | Path | Grid = "grid288",
    n: int = 30,
    seed: int = 0,
    ids: Iterable[str] | None = None,
    card: Card = CARD,
    out: str | Path | None = None,
    save_to: str | Path | None = None,
    side_px: int = 180,
) -> Pillow.Image:
    """Draw one photo under each policy, and several photos under the first one.

    Views are those `embed` makes of the same photos with the same policies and seed.

    Args:
        photos: a dataset, or the paths of a few photos.
        policies: what to show; drawn if left out.
        grid: where to draw from: a Grid, the name of one, or a TOML file.
        n: how many to draw.
        seed: decides the draw and the views.
        ids: of a dataset, the photos that may be shown, best the training side: `split.train`; the first one
            is shown under each policy. Without it, those that the data itself does not set apart for
            validation or test.
        card: the backbone that the photos are fitted for.
        out: where to write the sheet: .png, .jpg or .webp.
        save_to: a new or empty folder for every single view, as PNG, with a table of what is what.
        side_px: the side of a picture on the sheet.

    Returns:
        The sheet, RGB.

    Raises:
        UsageError: for more policies than the grid has, or a place that cannot or must not be written.
        DataError: where there is no photo to show, an id is not there, or a photo cannot be read.
    """
    source = None if policies is not None else grid if isinstance(grid, Grid) else Grid.load(grid)
    chosen = tuple(policies or ()) if source is None else draw(n, seed, source)
    if isinstance(photos, Dataset):
        photos.keep_out(out, save_to)
    if out is not None and Path(out).suffix.lower() not in SHEETS:
        raise UsageError(f"{out}: a contact sheet must end in {', '.join(SHEETS)}. Try preview.png.")
    columns = columns_for(len(chosen) + 1)
    views = views_of(chosen, seed)
    shown = [
        [
            _Picture(name, view, image)
            for view, image in zip(wanted, views_of_photo(raw, name, digest(raw), wanted, card), strict=True)
        ]
        for i, (name, raw) in enumerate(_read(photos, ids, columns))
        for wanted in [views[: None if i == 0 else 2]]
    ]
    by_policy, by_photo = shown[0], [picture for pictures in shown for picture in pictures[1:2]]
    if save_to is not None:
        with _written(save_to):
            _save(Path(save_to), {"policy": by_policy, "photo": by_photo})
    origin = f"drawn from the grid {source.name}, seed {seed}" if source else f"seed {seed}"
    sections = [
        Section(
            f"One photo, {len(chosen)} {'policy' if len(chosen) == 1 else 'policies'}",
            f"{by_policy[0].photo}: {origin}. The captions are ranges, the pictures one draw from them.",
            [
                Tile(picture.image, str(picture.view.policy) if i else "as it is")
                for i, picture in enumerate(by_policy)
            ],
            columns,
        )
    ]
    if len(shown) > 1 and chosen:
        sections.append(
            Section(
                f"One policy, {len(shown)} photos",
                f"{chosen[0]}: above as they are, below one view of each.",
                [Tile(pictures[0].image, pictures[0].photo, "/") for pictures in shown]
                + [Tile(picture.image) for picture in by_photo],
                len(shown),
            )
        )
    sheet = lay_out(sections, side_px)
    if out is not None:
        with _written(out):
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            sheet.save(out, quality=92)
    return sheet


@contextmanager
def _written(place: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{place}: cannot be written ({files.said(error)}). Give another place.") from error


def _read(
    photos: Dataset | Sequence[str | Path], ids: Iterable[str] | None, most: int
) -> list[tuple[str, bytes]]:
    """Read as many photos as are needed, one class after the other: their names and bytes."""
    if not isinstance(photos, Dataset):
        read = [(Path(path).name, _bytes(Path(path))) for path in photos[:most]]
    else:
        at = {sample.id: i for i, sample in enumerate(photos.samples)}
        wanted = (
            list(ids)
            if ids is not None
            else [i for i in at if photos.samples[at[i]].split in (None, "train")]
        )
        photos.subset(wanted)  # says which id is not there
        classes: dict[int, list[str]] = {}
        for id_ in wanted:
            classes.setdefault(photos.samples[at[id_]].label, []).append(id_)
        by_class = [id_ for ids_ in zip_longest(*classes.values()) for id_ in ids_ if id_][:most]
        read = [(id_, photos.read(at[id_])) for id_ in by_class]
    if not read:
        raise DataError("preview: there is no training photo to show. Give photos, or other ids.")
    return read


def _bytes(path: Path) -> bytes:
    try:
        return files.read_local(path)
    except OSError as error:
        raise DecodeError(str(path), f"cannot be opened ({error.strerror or error})") from error


def _save(folder: Path, shown: dict[str, list[_Picture]]) -> None:
    """Write every view as PNG, and `views.csv`: which file is which photo under which policy."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: expected a new or empty folder for the views. Name another one.")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "views.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "photo", "policy", "index", "seed"])
        for kind, views in shown.items():
            for i, picture in enumerate(views):
                name = f"{kind}-{i:03d}.png"
                Pillow.fromarray(picture.image).save(folder / name)
                rows.writerow(
                    [
                        name,
                        safe_cell(picture.photo),
                        picture.view.policy,
                        picture.view.index,
                        picture.view.seed,
                    ]
                )
