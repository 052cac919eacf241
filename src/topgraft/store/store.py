"""A feature store: a zarr v3 group in a folder or behind a URL.

    zarr.json     attributes: {"topgraft": "feature store", "schema": 1}
    table/        attributes: what the last finished `embed` asked for: card, precision, views, samples
    pending/      the same of an `embed` that has not finished; there is none otherwise
    plans/ rows/  features by content (see rows.py)

`table` changes in one rename, when every row it names is there. So what was readable stays readable while an
`embed` runs, after it was killed, and when the disk is full.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from topgraft import notebook
from topgraft.backbones.card import Card
from topgraft.backbones.depths import Depths
from topgraft.errors import StoreError
from topgraft.fingerprint import digest, fingerprint
from topgraft.photos.sample import Sample, sizes
from topgraft.policies.policy import View
from topgraft.settings import Settings
from topgraft.store.adopt import lacking
from topgraft.store.place import Place
from topgraft.store.rows import BROKEN, Rows, Segment
from topgraft.store.table import Part, Table
from topgraft.text import first_mistake, pasted, shortened
from topgraft.types import Features, Labels

SCHEMA = 1
FORMAT = "feature store"
ROOT = {"topgraft": FORMAT, "schema": SCHEMA}
IN_MEMORY = 1 << 30
"""Bytes of features, over all views, up to which they are held in memory; above, views are memory-mapped."""
CHUNK = 1 << 24
"""Bytes of a file that are written at once."""


@dataclass(frozen=True)
class Work:
    """One block of photos and the views of them that are to come.

    Attributes:
        plan: the segment's name, equal for all its views.
        index: of the block in the segment.
        digests: the photos.
        parts: what is to be written of them.
    """

    plan: str
    index: int
    digests: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def views(self) -> tuple[int, ...]:
        """Indices of the views to compute."""
        return tuple(sorted({part.view for part in self.parts}))

    @property
    def rows(self) -> int:
        """How many rows are computed."""
        return len(self.digests) * len(self.views)


class FeatureStore:
    """Features of photos, and all that is needed to learn from them.

    Open one with `FeatureStore.open`, make one with `topgraft.embed`.

    Attributes:
        path: the folder or URL.
        table: what it is of.
        pending: what an unfinished `embed` asked for, or None.
        settings: where features lie that do not fit into memory.
    """

    def __init__(
        self, place: Place, table: Table | None, pending: Table | None, settings: Settings | None = None
    ) -> None:
        self.place, self.pending = place, pending
        self.settings = settings or Settings.load()
        self._table = table
        self.rows = Rows(place)
        self._read: dict[Part, Features] = {}

    @property
    def path(self) -> str:
        """The folder or URL."""
        return self.place.path

    @classmethod
    def open(cls, path: str | Path, *, settings: Settings | None = None) -> Self:
        """Open a store for reading.

        Args:
            path: a folder or URL.
            settings: the cache folder, for features that do not fit into memory.

        Raises:
            StoreError: where there is none, or it was written by a newer Topgraft.
        """
        place = Place.at(path)
        if not place.exists("zarr.json"):
            hint = "Make one with `topgraft embed`."
            if place.exists("features.zarr/zarr.json"):
                hint = f"Did you mean {pasted(f'{path}/features.zarr')}?"
            raise StoreError(f"{path}: expected a feature store, found none. {hint}")
        _check_schema(place)
        table, pending = _read_table(place, "table"), _read_table(place, "pending")
        if table is None and pending is None:
            raise StoreError(
                f"{path}: the feature store is empty: `embed` was stopped before it began. Run it again."
            )
        return cls(place, table, pending, settings)

    @classmethod
    def create(cls, path: str | Path, *, settings: Settings | None = None) -> Self:
        """Open a store for writing, or begin a new one; see `open`.

        Raises:
            StoreError: where it was written by a newer Topgraft, is something else, or cannot be written.
        """
        import zarr

        place = cls.judge(path)
        with place.guarded():
            if not place.exists("zarr.json"):
                zarr.create_group(place.zarr(), attributes=ROOT)
        return cls(place, _read_table(place, "table"), _read_table(place, "pending"), settings)

    @classmethod
    def judge(cls, path: str | Path) -> Place:
        """Say whether a store is or can be at a place, and touch nothing.

        Raises:
            StoreError: where it was written by a newer Topgraft, or is something else.
        """
        place = Place.at(path)
        with place.guarded():
            if place.exists("zarr.json"):
                _check_schema(place)
            elif place.names():
                raise StoreError(
                    f"{path}: expected a feature store or nothing, found other files."
                    " Give another place with `-o`."
                )
        return place

    # what it is of

    @property
    def table(self) -> Table:
        """What the last finished `embed` asked for; before the first one finished, what it asks for."""
        found = self._table or self.pending
        if found is None:
            raise StoreError(f"{self.path}: the feature store is empty. Run `topgraft embed` into it.")
        return found

    @property
    def card(self) -> Card:
        """The backbone's facts."""
        return self.table.card

    @property
    def depths(self) -> Depths:
        """Which columns of a row of every depth are which; without block rows, the last layer's alone."""
        return Depths(self.card.features, self.card.depths if self.table.depths else ())

    @property
    def precision(self) -> str:
        """The engine's precision."""
        return self.table.precision

    @property
    def views(self) -> tuple[View, ...]:
        """All views; view 0 is the photo as it is."""
        return self.table.views

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples, sorted by id: the order of every array here."""
        return self.table.samples

    @property
    def plain(self) -> frozenset[str]:
        """Ids of the photos that were embedded as they are alone, beside others that have more views."""
        return frozenset(self.table.plain)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.table.classes

    @property
    def root(self) -> str:
        """Where the photos lay when they were embedded."""
        return self.table.root

    @property
    def ids(self) -> tuple[str, ...]:
        """(N,) the samples' ids."""
        return tuple(sample.id for sample in self.samples)

    @cached_property
    def labels(self) -> Labels:
        """(N,) class indices."""
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """(N,) group numbers: samples of one group stay on one side of a split."""
        return np.array(self.table.groups, dtype=np.int64)

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.samples)

    def __repr__(self) -> str:
        return (
            f"FeatureStore({self.path!r}: {len(self)} photos x {len(self.views)} views, {self.card.name},"
            f" {self.precision})"
        )

    def _repr_html_(self) -> str:
        """Show what it is of, in a notebook."""
        return notebook.facts(
            "FeatureStore",
            [
                ("folder", self.path),
                ("photos", f"{len(self):,} of {len(self.classes)} classes"),
                ("views", len(self.views)),
                ("backbone", f"{self.card.name}, {self.card.features:,} features, {self.precision}"),
            ],
        )

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, a photo a row in the order of the features: id, label, group, digest.

        Raises:
            MissingPandasError: where pandas is not installed.
        """
        return notebook.frame(
            {
                "id": sample.id,
                "label": sample.named(self.classes),
                "group": int(group),
                "digest": sample.digest,
            }
            for sample, group in zip(self.samples, self.groups, strict=True)
        )

    # reading

    def features(self, view: int = 0) -> Features:
        """Return the features of all samples in one contiguous array, read once and then kept.

        Up to 1 GiB over all views it lies in memory, above that in a memory-mapped temporary file in the
        cache folder, which the system removes with the process. Do not write into it.

        Args:
            view: index into `views`.

        Returns:
            (N, D) float16, in the order of `samples`; (N, C, h, w) in a store of maps. Float32 where the card
            says that float16 does not hold them. Photos that are `plain` have no view but 0: their rows of
            another are NaN.

        Raises:
            StoreError: where rows are missing because an `embed` did not finish.
        """
        rows = self._rows(self.table.part(view, "features"))
        return rows.reshape(len(rows), *self.card.row)

    def blocks(self, view: int = 0) -> Features:
        """Return the block features of all samples in one contiguous array, held as `features` are.

        Args:
            view: index into `views`.

        Returns:
            (N, B) float16 or float32: the columns of `depths` behind the last layer's. B is 0 in a store of
            the last layer alone.

        Raises:
            StoreError: where rows are missing because an `embed` did not finish.
        """
        if not self.table.depths:
            return np.empty((len(self), 0), np.float16)
        return self._rows(self.table.part(view, "blocks"))

    def _rows(self, part: Part) -> Features:
        if part not in self._read:
            shape, dtype = (len(self), part.width), np.dtype(part.dtype)
            large = dtype.itemsize * shape[0] * shape[1] * len(self.views) > IN_MEMORY
            out = _mapped(self.settings.cache_dir, shape, dtype) if large else np.empty(shape, dtype)
            photos = set(self.table.digests_of(part))
            wanted = {digest: at for digest, at in self._wanted.items() if digest in photos}
            if len(wanted) < len(self._wanted):
                out[:] = np.nan
            found = self.rows.scatter(part.address, wanted, out)
            if found < len(wanted):
                kind = "features" if part.kind == "features" else "block features"
                raise StoreError(
                    f"{self.path}: {len(wanted) - found} of {len(wanted)} photos have no {kind}"
                    f" of view {part.view} ({self.views[part.view].key})."
                    " Run the same `topgraft embed` again."
                )
            out.flags.writeable = False
            self._read[part] = out
        return self._read[part]

    @cached_property
    def _wanted(self) -> dict[str, NDArray[np.int64]]:
        places: dict[str, list[int]] = defaultdict(list)
        for i, sample in enumerate(self.samples):
            places[sample.digest].append(i)
        return {photo: np.array(at, dtype=np.int64) for photo, at in places.items()}

    def missing(self) -> int:
        """Count the rows (photos x views) that the last `embed` asked for and that are not there, or half."""
        return lacking(self.path, self.pending or self.table)

    def fingerprint(self) -> str:
        """Hash all that is learned from: samples, views and features; neither path nor photo folder.

        The order in which photos were added does not show in it.
        """
        hashes = [digest(self.features(view).data.cast("B")) for view in range(len(self.views))]
        return fingerprint([self.table.identity(), hashes])

    def info(self) -> dict[str, Any]:
        """Say what is in it, as plain data: `topgraft info`."""
        live: dict[str, set[str]] = defaultdict(set)
        for table in filter(None, (self.table, self.pending)):
            for part in table.parts:
                live[part.address] |= set(table.digests_of(part))
        stale = sum(len(self.rows.have(at).keys() - live.get(at, set())) for at in self.rows.addresses())
        return {
            "path": self.path,
            "schema": SCHEMA,
            "photos": len(self),
            "different_photos": len(self.table.digests),
            "classes": sizes(self.samples, self.classes),
            "views": [view.key for view in self.views],
            "backbone": self.card.name,
            "card": self.card.fingerprint(),
            "features": self.card.features,
            "block_features": self.depths.extra,
            "rows": {part.kind: part.dtype for part in self.table.parts},
            "output": self.card.output,
            "precision": self.precision,
            "root": self.root,
            "bytes": self.place.size(),
            "bytes_of": self._sizes(),
            "finished": self.pending is None,
            "missing_rows": self.missing(),
            "stale_rows": stale,
        }

    def _sizes(self) -> dict[str, int]:
        """Add up the bytes of what the table names, by the kind of rows."""
        sizes: dict[str, int] = defaultdict(int)
        for part in self.table.parts:
            sizes[part.kind] += self.place.size(f"rows/{part.address}")
        return dict(sizes)

    # writing

    def begin(self, table: Table) -> list[Work]:
        """Plan what a table needs and the store has not: nothing is computed yet.

        Plans of an `embed` that was interrupted are taken up where all their photos are still there; what
        else it finished is kept, its other plans are dropped.

        Returns:
            The blocks to compute; empty where there is nothing to do.
        """
        todo: dict[tuple[str, int], tuple[Segment, list[Part]]] = {}
        fresh: list[tuple[Part, list[str]]] = []
        for part in table.parts:
            address, wanted = part.address, set(table.digests_of(part))
            missing = wanted - self.rows.have(address).keys()
            open_blocks = [
                (s, i) for s in self.rows.segments(address) for i in set(range(s.blocks)) - self.rows.done(s)
            ]
            if any(not wanted.issuperset(segment.block(i)) for segment, i in open_blocks):
                have = self.rows.have(address).keys()
                self.rows.compact(table.facts_of(part.view, part.kind), address, have)
                open_blocks = []
            for segment, i in open_blocks:
                if not missing.isdisjoint(segment.block(i)):
                    todo.setdefault((segment.plan, i), (segment, []))[1].append(part)
                    missing -= set(segment.block(i))
            if missing:
                fresh.append((part, sorted(missing)))
        if (todo or fresh) and self.pending != table:
            self._put("pending", table)
            self.pending = table
        for part, digests in fresh:
            facts = table.facts_of(part.view, part.kind)
            segment = self.rows.plan(facts, digests, part.width, part.dtype)
            for i in range(segment.blocks):
                todo.setdefault((segment.plan, i), (segment, []))[1].append(part)
        return [
            Work(plan, i, segment.block(i), tuple(parts))
            for (plan, i), (segment, parts) in sorted(todo.items(), key=lambda item: item[0])
        ]

    def commit(self, table: Table) -> None:
        """Make a table the current one; all its rows must be there.

        Raises:
            StoreError: where rows are missing.
        """
        if self._table != table:
            for part in table.parts:
                if lost := len(set(table.digests_of(part)) - self.rows.have(part.address).keys()):
                    raise StoreError(f"{self.path}: {lost} rows are missing. Run the same command again.")
            self._put("table", table)
        if self.pending is not None:
            self.place.delete("pending")
        self._now(table, None)

    def _now(self, table: Table | None, pending: Table | None) -> None:
        """Be of another table, and forget what was read of the one before."""
        self._table, self.pending = table, pending
        self._read.clear()
        for name in ("labels", "groups", "_wanted"):
            self.__dict__.pop(name, None)

    def prune(self) -> int:
        """Drop every row the table does not name: of removed photos, other views, seeds and backbones.

        The table is the one that lies there now, whatever it was when this store was opened. Afterwards the
        bytes are those of a store that was embedded in one go.

        Returns:
            Bytes freed.

        Raises:
            StoreError: while an `embed` is unfinished, or another process writes.
        """
        with self.place.locked():
            # Only now does no other process change them.
            self._now(_read_table(self.place, "table"), _read_table(self.place, "pending"))
            self.rows = Rows(self.place)
            if self.pending is not None:
                raise StoreError(
                    f"{self.path}: an `embed` into it is unfinished. Run it again to its end, then prune."
                )
            before = self.place.size()
            self.place.sweep()
            for part in self.table.parts:
                facts = self.table.facts_of(part.view, part.kind)
                self.rows.compact(facts, part.address, self.table.digests_of(part))
            for address in set(self.rows.addresses()) - {part.address for part in self.table.parts}:
                self.rows.drop(f"rows/{address}")
            self.rows.drop_unused_plans()
            return before - self.place.size()

    def _put(self, key: str, table: Table) -> None:
        import zarr

        with self.place.guarded():
            if self.place.exists(f"{key}/zarr.json"):
                zarr.open_group(self.place.zarr(), path=key, mode="r+", zarr_format=3).attrs.put(
                    table.facts()
                )
            else:
                zarr.create_group(self.place.zarr(), path=key, attributes=table.facts())


def _check_schema(place: Place) -> None:
    """Refuse what is no feature store, or a newer one.

    Raises:
        StoreError: saying which schema it needs.
    """
    import zarr

    with place.guarded():
        try:
            facts = dict(zarr.open_group(place.zarr(), mode="r", zarr_format=3).attrs)
        except BROKEN as error:
            raise StoreError(
                f"{place.path}: its zarr.json cannot be read"
                f" ({type(error).__name__}: {shortened(str(error))})."
                " Bring that file back from a copy, or embed into another place with `-o`."
            ) from error
    if facts.get("topgraft") != FORMAT:
        raise StoreError(
            f"{place.path}: expected a feature store, found another zarr group. Give another place."
        )
    if not isinstance(facts.get("schema"), int):
        raise StoreError(
            f"{place.path}: expected a number for the schema in its zarr.json, got"
            f" {shortened(repr(facts.get('schema')))}."
            f" This Topgraft writes {SCHEMA}."
        )
    if facts["schema"] > SCHEMA:
        raise StoreError(
            f"{place.path}: written with schema {shortened(str(facts['schema']))}, this Topgraft reads up to"
            f" schema {SCHEMA}."
            " Update Topgraft: pip install -U topgraft."
        )


def _read_table(place: Place, key: str) -> Table | None:
    import zarr

    if not place.exists(f"{key}/zarr.json"):
        return None
    with place.guarded():
        try:
            return Table.from_facts(
                dict(zarr.open_group(place.zarr(), path=key, mode="r", zarr_format=3).attrs)
            )
        except FileNotFoundError:
            return None  # the `embed` that was pending is finished since
        except ValidationError as error:
            raise StoreError(
                f"{place.path}: {key}/zarr.json is damaged ({first_mistake(error)})."
                f" Delete {key}/ and run `topgraft embed` again: rows are kept."
            ) from error
        except BROKEN as error:
            raise StoreError(
                f"{place.path}: {key}/zarr.json is damaged ({type(error).__name__}: {shortened(str(error))})."
                f" Delete {key}/ and run `topgraft embed` again: rows are kept."
            ) from error


def _mapped(folder: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> Features:
    """Map a temporary file that has no name: it is gone with the process, however that ends."""
    size = dtype.itemsize * shape[0] * shape[1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Without the space, writing into the map would end the process and say nothing.
            for left in range(size, 0, -CHUNK):
                file.write(bytes(min(left, CHUNK)))
            file.flush()
            mapped: Features = np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise StoreError(
            f"{folder}: no room for {size / 1e9:.1f} GB of features that do not fit into"
            f" memory ({error.strerror or error}). Name another cache folder with TOPGRAFT_CACHE_DIR."
        ) from error
    return mapped
