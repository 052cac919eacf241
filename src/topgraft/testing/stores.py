"""What every kind of place for a feature store must do, and a store's model to compare it with.

class TestMyPlace(StoreSuite):
    def place(self, folder):
        return f"s3://bucket/{folder.name}"
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from topgraft.backbones.card import Card
from topgraft.backbones.depths import Depth
from topgraft.errors import StoreError
from topgraft.files import filesystem
from topgraft.fingerprint import digest
from topgraft.photos.sample import Sample
from topgraft.policies.policy import Policy
from topgraft.store import FeatureStore
from topgraft.store.place import Place
from topgraft.store.rows import BLOCK
from topgraft.store.table import Part, Table, views_of
from topgraft.types import Features

WIDTH = 5
DEPTHS = (Depth(name="first", channels=2), Depth(name="second", channels=1, token=True))
POLICIES = (Policy(rotation=10), Policy(hflip=True), Policy(zoom=(0.5, 1.5)))


def a_card(name: str = "drawn.test") -> Card:
    """Describe a backbone nobody runs; its block features do not fit float16."""
    return Card(
        name=name,
        input_size=(8, 8),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        features=WIDTH,
        depths=DEPTHS,
        float32=("blocks",),
        source="fake",
    )


def a_table(
    photos: Mapping[str, int],
    policies: Sequence[Policy] = (),
    *,
    seed: int = 0,
    precision: str = "f32",
    card: Card | None = None,
    root: str = "photos",
    depths: bool = False,
    plain: Sequence[str] = (),
) -> Table:
    """Say what a store is to be of.

    Args:
        photos: {id: a number standing for the file's content}. Even contents are of class `even`.
        policies: one view each.
        seed: of the views.
        precision: the engine's.
        card: of the backbone.
        root: where the photos lie.
        depths: whether block features are asked for, too.
        plain: ids that are asked for as they are alone; those that are no photo count for nothing.
    """
    samples = tuple(
        Sample(name, name, photos[name] % 2, name, digest(b"%d" % photos[name])) for name in sorted(photos)
    )
    groups = tuple(range(len(samples)))
    views = views_of(policies, seed)
    bare = tuple(sorted(photos.keys() & set(plain))) if len(views) > 1 else ()
    return Table(card or a_card(), precision, views, ("even", "odd"), samples, groups, root, depths, bare)


def a_row(address: str, photo: str, width: int = WIDTH, dtype: str = "float16") -> Features:
    """Return the row an engine would: it depends on the address and the photo alone."""
    raw = hashlib.blake2b(f"{address}{photo}".encode(), digest_size=2 * width).digest()
    return (np.frombuffer(raw, np.int16) / (256 if dtype == "float16" else 1e-3)).astype(dtype)


def rows_of(part: Part, photos: Sequence[str]) -> Features:
    """Return the rows of some photos, as they are to lie in the store."""
    return np.array([a_row(part.address, photo, part.width, part.dtype) for photo in photos], part.dtype)


def expected(part: Part, table: Table) -> Features:
    """Return what a store reads of a part: NaN where it has no row of a photo."""
    rows = rows_of(part, [sample.digest for sample in table.samples])
    photos = set(table.digests_of(part))
    rows[[sample.digest not in photos for sample in table.samples]] = np.nan
    return rows


def fill(path: str | Path, table: Table, stop: int | None = None) -> int:
    """Do what `embed` does, with drawn rows; after `stop` written blocks break off as a killed process would.

    Returns:
        How many rows were written.
    """
    store = FeatureStore.create(path)
    work = store.begin(table)
    writes = [(block, part) for block in work for part in block.parts]
    written = 0
    for block, part in islice(writes, stop):
        store.rows.write(part.address, block.plan, block.index, rows_of(part, block.digests))
        written += len(block.digests)
    if stop is None or stop >= len(writes):
        store.commit(table)
    return written


def contents(path: str | Path) -> dict[str, bytes]:
    """Read every file of a store: {key: bytes}."""
    place = Place.at(path)
    if place.remote:
        system, base = filesystem(place.path)
        return {
            str(name)[len(base) :].lstrip("/"): bytes(system.cat_file(name)) for name in system.find(base)
        }
    top = Path(place.path)
    return {file.relative_to(top).as_posix(): file.read_bytes() for file in top.rglob("*") if file.is_file()}


def spoil(path: str | Path, key: str, data: bytes | None) -> None:
    """Put other bytes where a file of a store is or may be; None takes the file away."""
    place = Place.at(path)
    if place.remote:
        system, base = filesystem(place.path)
        system.rm_file(f"{base}/{key}") if data is None else system.pipe_file(f"{base}/{key}", data)
    elif data is None:
        Path(place.path, key).unlink()
    else:
        Path(place.path, key).write_bytes(data)


def agrees(path: str | Path, table: Table) -> None:
    """Compare all a store says with what its table asked for.

    Raises:
        AssertionError: where they differ.
    """
    store = FeatureStore.open(path)
    assert store.samples == table.samples
    assert store.views == table.views
    assert (store.card, store.precision) == (table.card, table.precision)
    assert store.missing() == 0
    for part in table.parts:
        found = store.features(part.view) if part.kind == "features" else store.blocks(part.view)
        assert found.dtype == part.dtype
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected(part, table))
    if not table.depths:
        assert store.blocks().shape == (len(table.samples), 0)


class StoreSuite(ABC):
    """Inherit, say where, and run with pytest."""

    MANY: ClassVar = {f"a/{i:03}.jpg": i for i in range(2 * BLOCK + 7)}
    FEW: ClassVar = {f"b/{i}.jpg": i for i in range(5)}

    @abstractmethod
    def place(self, folder: Path) -> str:
        """Return a path or URL where nothing is yet.

        Args:
            folder: an empty folder of the test's own; its name is used once.
        """

    def test_features_come_in_the_order_of_the_samples(self, tmp_path: Path) -> None:
        table, place = a_table(self.MANY, POLICIES), self.place(tmp_path)
        assert fill(place, table) == len(self.MANY) * 4
        agrees(place, table)

    def test_block_features_lie_beside_the_features_in_a_dtype_that_holds_them(self, tmp_path: Path) -> None:
        table, place = a_table(self.MANY, POLICIES, depths=True), self.place(tmp_path)
        assert fill(place, table) == len(self.MANY) * 4 * 2
        agrees(place, table)
        store = FeatureStore.open(place)
        assert store.depths == table.card.columns
        assert (str(store.features().dtype), str(store.blocks().dtype)) == ("float16", "float32")
        assert np.abs(store.blocks()).max() > np.finfo(np.float16).max
        facts = store.info()
        assert facts["rows"] == {"features": "float16", "blocks": "float32"}
        assert facts["block_features"] == store.blocks().shape[1]
        for kind, row_bytes in (("features", 2 * WIDTH), ("blocks", 4 * store.depths.extra)):
            assert facts["bytes_of"][kind] > row_bytes * len(self.MANY) * 4
        assert sum(facts["bytes_of"].values()) < facts["bytes"]

    def test_of_plain_photos_there_is_view_0_alone_until_they_are_wanted(self, tmp_path: Path) -> None:
        place = self.place(tmp_path)
        bare = list(self.MANY)[::3]
        table = a_table(self.MANY, POLICIES[:2], plain=bare)
        assert fill(place, table) == len(self.MANY) * 3 - len(bare) * 2
        agrees(place, table)
        assert np.isnan(FeatureStore.open(place).features(1)[::3]).all()
        whole = a_table(self.MANY, POLICIES[:2])
        assert fill(place, whole) == len(bare) * 2
        agrees(place, whole)
        fill(place, table)
        assert FeatureStore.open(place).info()["stale_rows"] == len(bare) * 2

    def test_what_a_store_lacks_of_block_features_is_added_and_no_feature_made_again(
        self, tmp_path: Path
    ) -> None:
        place, fresh = self.place(tmp_path / "older"), self.place(tmp_path / "fresh")
        older, table = a_table(self.MANY, POLICIES[:1]), a_table(self.MANY, POLICIES[:1], depths=True)
        fill(place, older)
        assert FeatureStore.open(place).depths.blocks == ()
        work = FeatureStore.create(place).begin(table)
        assert {part.kind for block in work for part in block.parts} == {"blocks"}
        assert fill(place, table) == len(self.MANY) * 2
        agrees(place, table)
        fill(fresh, table)
        assert contents(place) == contents(fresh)
        fill(place, older)  # asked for without them again
        assert FeatureStore.open(place).info()["stale_rows"] == len(self.MANY) * 2
        FeatureStore.open(place).prune()
        agrees(place, older)

    def test_block_features_are_read_when_they_are_wanted_alone(self, tmp_path: Path) -> None:
        place, table = self.place(tmp_path), a_table(self.MANY, depths=True)
        fill(place, table)
        (segment,) = FeatureStore.open(place).rows.segments(table.part(0, "blocks").address)
        spoil(place, f"{segment.key}/c.1.0", None)
        store = FeatureStore.open(place)
        assert len(store.features()) == len(self.MANY)
        with raises(StoreError, "64 of 135 photos have no block features of view 0.*again"):
            store.blocks()
        assert store.missing() == BLOCK
        assert fill(place, table) == BLOCK
        agrees(place, table)

    def test_other_depths_of_the_same_backbone_are_other_rows(self, tmp_path: Path) -> None:
        place, table = self.place(tmp_path), a_table(self.FEW, depths=True)
        fill(place, table)
        card = table.card.model_copy(update={"depths": DEPTHS[:1]})
        other = a_table(self.FEW, card=card, depths=True)
        assert fill(place, other) == len(self.FEW)  # their block features alone
        agrees(place, other)

    def test_broken_off_with_block_features_it_ends_in_the_same_bytes(self, tmp_path: Path) -> None:
        table = a_table(self.MANY, POLICIES[:1], depths=True)
        whole, broken = self.place(tmp_path / "whole"), self.place(tmp_path / "broken")
        fill(whole, table)
        for stop in (0, 1, 3, 2):
            fill(broken, table, stop)
        fill(broken, table)
        assert contents(broken) == contents(whole)

    def test_one_picture_under_two_names_is_two_samples_and_one_row(self, tmp_path: Path) -> None:
        table, place = a_table(self.FEW | {"copy.jpg": 3, "again.jpg": 3}), self.place(tmp_path)
        assert fill(place, table) == len(self.FEW)
        agrees(place, table)

    def test_only_new_photos_and_new_views_are_computed(self, tmp_path: Path) -> None:
        place = self.place(tmp_path)
        fill(place, a_table(self.MANY, POLICIES[:1]))
        assert fill(place, a_table(self.MANY | self.FEW | {"new": 1000}, POLICIES[:1])) == 2
        assert fill(place, a_table(self.MANY, POLICIES[:2])) == len(self.MANY)
        assert fill(place, a_table(self.MANY, POLICIES[1::-1])) == 0
        assert fill(place, a_table(self.MANY, POLICIES[:1] * 2)) == len(
            self.MANY
        )  # another index, another draw
        agrees(place, a_table(self.MANY, POLICIES[:1] * 2))

    def test_what_decides_a_row_keeps_rows_apart(self, tmp_path: Path) -> None:
        place = self.place(tmp_path)
        fill(place, a_table(self.FEW, POLICIES))
        others = (
            a_table(self.FEW, POLICIES, precision="int8"),
            a_table(self.FEW, POLICIES, card=a_card("another.test")),
        )
        for other in others:
            assert fill(place, other) == len(self.FEW) * 4
            agrees(place, other)
        assert fill(place, a_table(self.FEW, POLICIES, seed=1)) == len(self.FEW) * 3  # view 0 has no draw
        assert fill(place, a_table(self.FEW, POLICIES, root="moved")) == 0
        agrees(place, a_table(self.FEW, POLICIES, root="moved"))

    def test_wherever_it_is_broken_off_it_ends_in_the_same_bytes(self, tmp_path: Path) -> None:
        table = a_table(self.MANY, POLICIES)
        whole, broken = self.place(tmp_path / "whole"), self.place(tmp_path / "broken")
        fill(whole, table)
        computed = [fill(broken, table, stop) for stop in (0, 1, 3, 3)]
        assert computed[:2] == [0, BLOCK]
        assert FeatureStore.open(broken).missing() == 4 * len(self.MANY) - sum(computed)
        assert fill(broken, table) == 4 * len(self.MANY) - sum(computed)
        assert contents(broken) == contents(whole)

    def test_a_first_embed_that_is_unfinished_says_so(self, tmp_path: Path) -> None:
        place = self.place(tmp_path)
        fill(place, a_table(self.MANY), stop=1)
        store = FeatureStore.open(place)
        assert store.info()["finished"] is False
        with raises(StoreError, "7[0-9]* of 135 photos have no features of view 0.*again"):
            store.features()

    def test_a_finished_table_stays_readable_until_the_next_is_finished(self, tmp_path: Path) -> None:
        place, old, new = self.place(tmp_path), a_table(self.FEW), a_table(self.MANY, POLICIES)
        fill(place, old)
        for stop in (0, 2, 5):
            fill(place, new, stop)
            np.testing.assert_array_equal(
                FeatureStore.open(place).features(),
                [a_row(old.addresses[0], sample.digest) for sample in old.samples],
            )
            assert FeatureStore.open(place).missing() > 0
        fill(place, new)
        agrees(place, new)

    def test_plans_whose_photos_are_gone_are_dropped_and_their_rows_kept(self, tmp_path: Path) -> None:
        place = self.place(tmp_path)
        fill(place, a_table(self.MANY, POLICIES), stop=4)  # the first block of each view
        first = set(a_table(self.MANY).digests[:BLOCK])
        table = a_table({name: i for name, i in self.MANY.items() if i % 3}, POLICIES)
        assert fill(place, table) == 4 * len(set(table.digests) - first)
        agrees(place, table)

    def test_prune_leaves_the_bytes_of_a_store_made_in_one_go(self, tmp_path: Path) -> None:
        place, fresh = self.place(tmp_path / "grown"), self.place(tmp_path / "fresh")
        fill(place, a_table(dict(islice(self.MANY.items(), 100)), POLICIES))
        fill(place, a_table(self.MANY, POLICIES, seed=1))
        last = a_table(dict(islice(self.MANY.items(), 50, 125)), POLICIES[:2])
        fill(place, last)
        fill(fresh, last)
        before = FeatureStore.open(place)
        assert before.info()["stale_rows"] == sum((len(self.MANY) - 75, 50 * 2, 100, len(self.MANY) * 3))
        assert before.fingerprint() == FeatureStore.open(fresh).fingerprint()
        size = before.info()["bytes"]
        assert before.prune() == size - before.info()["bytes"] > 0
        assert contents(place) == contents(fresh)
        agrees(place, last)

    def test_prune_waits_for_an_unfinished_embed(self, tmp_path: Path) -> None:
        place = self.place(tmp_path)
        fill(place, a_table(self.FEW))
        fill(place, a_table(self.MANY), stop=1)
        with raises(StoreError, "unfinished"):
            FeatureStore.open(place).prune()

    def test_prune_goes_by_the_table_that_is_there_not_by_an_older_handle(self, tmp_path: Path) -> None:
        place = self.place(tmp_path)
        fill(place, a_table(self.FEW))
        older, unfinished = FeatureStore.open(place), FeatureStore.open(place)
        fill(place, last := a_table(self.MANY, POLICIES))
        older.prune()
        agrees(place, last)
        assert older.table == last
        np.testing.assert_array_equal(older.features(1), FeatureStore.open(place).features(1))
        fill(place, a_table(self.MANY, POLICIES, seed=1), stop=1)
        with raises(StoreError, "unfinished"):
            unfinished.prune()

    def test_names_that_are_none_of_ours_count_for_nothing(self, tmp_path: Path) -> None:
        place, fresh, table = self.place(tmp_path / "a"), self.place(tmp_path / "b"), a_table(self.MANY)
        fill(place, a_table(self.MANY, POLICIES))
        segment = FeatureStore.open(place).rows.segments(table.addresses[0])[0].key
        strays = [f"{folder}/.DS_Store" for folder in ("plans", "rows", segment, Path(segment).parent)]
        strays += [f"{segment}/{name}" for name in ("c.0 (1).0", "c.1.0~", "c.x.0")]
        for stray in strays:
            spoil(place, stray, b"x")
        agrees(place, a_table(self.MANY, POLICIES))
        spoil(place, f"{segment}/c.1.0", None)
        assert FeatureStore.open(place).missing() == BLOCK
        assert fill(place, table) == BLOCK
        FeatureStore.open(place).prune()
        fill(fresh, table)
        assert {key: data for key, data in contents(place).items() if key not in strays} == contents(fresh)

    def test_a_block_that_vanishes_before_it_is_read_is_an_error(self, tmp_path: Path) -> None:
        place, table = self.place(tmp_path), a_table(self.MANY)
        fill(place, table)
        rows = FeatureStore.open(place).rows
        (segment,) = rows.segments(table.addresses[0])
        there = rows.done(segment)
        spoil(place, f"{segment.key}/c.1.0", None)  # as `prune` in another process does
        with raises(StoreError, "vanished while it was read"):
            list(rows.stream(segment, there))

    def test_a_damaged_block_is_named_and_a_short_one_made_again(self, tmp_path: Path) -> None:
        place, whole, table = self.place(tmp_path / "a"), self.place(tmp_path / "b"), a_table(self.MANY)
        fill(place, table)
        fill(whole, table)
        (segment,) = FeatureStore.open(place).rows.segments(table.addresses[0])
        key = f"{segment.key}/c.1.0"
        block = contents(place)[key]
        for damaged in (bytes(len(block)), block[:-5] + bytes([block[-5] ^ 1]) + block[-4:]):
            spoil(place, key, damaged)
            with raises(StoreError, f"{segment.key} is damaged.*Delete that folder"):
                FeatureStore.open(place).features()
        spoil(place, key, block[:-1])
        with raises(StoreError, "64 of 135 photos have no features of view 0.*again"):
            FeatureStore.open(place).features()
        assert fill(place, table) == BLOCK
        assert contents(place) == contents(whole)

    def test_damaged_plans_and_arrays_are_made_again(self, tmp_path: Path) -> None:
        place, whole = self.place(tmp_path / "a"), self.place(tmp_path / "b")
        table = a_table(self.MANY, POLICIES[:1])
        fill(place, table)
        fill(whole, table)
        (segment,) = FeatureStore.open(place).rows.segments(table.addresses[1])
        plan = contents(place)[chunk := f"plans/{segment.plan}/c.0.0"]
        damage = [(chunk, plan[:-1]), (chunk, bytes(len(plan))), (chunk, None)]
        for key in (f"plans/{segment.plan}/zarr.json", f"{segment.key}/zarr.json"):
            damage += [(key, data) for data in (b"", b"{}", b"[]", b"xx", b"\xff", None)]
        for key, data in damage:
            spoil(place, key, data)
            with raises(StoreError, "135 photos have no features of view 1.*again"):
                FeatureStore.open(place).features(1)
            assert FeatureStore.open(place).info()["missing_rows"] > 0
            assert fill(place, table) in (len(self.MANY), 2 * len(self.MANY))
            assert contents(place) == contents(whole)

    def test_a_damaged_head_of_the_store_is_one_line(self, tmp_path: Path) -> None:
        place = self.place(tmp_path)
        fill(place, a_table(self.FEW))
        for text in (b"", b"[]", b"{}", b"xx"):
            spoil(place, "zarr.json", text)
            for use in (FeatureStore.open, FeatureStore.create):
                with raises(StoreError, "zarr.json cannot be read.*-o|found another zarr group"):
                    use(place)

    def test_rows_without_checksums_as_older_stores_have_them_are_read_and_added_to(
        self, tmp_path: Path
    ) -> None:
        import zarr

        place, table = self.place(tmp_path), a_table(self.MANY)
        fill(place, table)
        (segment,) = FeatureStore.open(place).rows.segments(table.addresses[0])
        rows = np.array([a_row(segment.address, photo) for photo in segment.digests])
        zarr.create_array(
            Place.at(place).zarr(),
            name=segment.key,
            data=rows,
            chunks=(BLOCK, WIDTH),
            compressors=None,
            filters=None,
            fill_value=0,
            chunk_key_encoding={"name": "default", "separator": "."},
            overwrite=True,
        )
        agrees(place, table)
        more = a_table(self.MANY | {"new": 1000})
        assert fill(place, more) == 1
        agrees(place, more)

    def test_rows_of_zeros_are_rows(self, tmp_path: Path) -> None:
        place, table = self.place(tmp_path), a_table(self.FEW)
        (work,) = FeatureStore.create(place).begin(table)
        another = FeatureStore.open(place)  # as a worker does, who did not plan
        another.rows.write(table.addresses[0], work.plan, 0, np.zeros((5, WIDTH), np.float16))
        store = FeatureStore.create(place)
        assert store.begin(table) == []
        store.commit(table)
        assert not store.features().any()

    def test_numbers_float16_cannot_hold_are_refused(self, tmp_path: Path) -> None:
        place, table = self.place(tmp_path), a_table(self.FEW)
        store = FeatureStore.create(place)
        (work,) = store.begin(table)
        with raises(StoreError, "not a finite float16"):
            store.rows.write(table.addresses[0], work.plan, 0, np.full((5, WIDTH), np.inf, np.float16))
        with raises(StoreError, "5 rows are missing"):
            store.commit(table)

    def test_a_newer_schema_is_refused_with_the_version(self, tmp_path: Path) -> None:
        place = self.place(tmp_path)
        fill(place, a_table(self.FEW))
        for schema, words in ((99, "schema 99.*schema 1.*Update"), ("two", "number for the schema.*'two'")):
            change_schema(place, schema)
            for use in (FeatureStore.open, FeatureStore.create):
                with raises(StoreError, words):
                    use(place)

    def test_what_is_no_store_is_refused(self, tmp_path: Path) -> None:
        with raises(StoreError, "expected a feature store, found none"):
            FeatureStore.open(self.place(tmp_path))


def change_schema(path: str | Path, schema: object) -> None:
    """Pretend that another Topgraft wrote a store."""
    import zarr

    zarr.open_group(Place.at(path).zarr(), mode="r+").attrs.update({"schema": schema})


@contextmanager
def raises(kind: type[Exception], pattern: str) -> Iterator[None]:
    """Expect an error whose one line matches; pytest is not needed to ship this.

    Raises:
        AssertionError: where nothing is raised, or with other words.
    """
    try:
        yield
    except kind as error:
        text = str(error)
        assert re.search(pattern, text), f"expected {pattern!r} in: {text}"
        assert "\n" not in text, f"expected one line, got: {text}"
    else:
        raise AssertionError(f"expected {kind.__name__}, nothing was raised")


def store_machine(places: Callable[[], str]) -> Any:
    """Make a hypothesis state machine that drives a store and a model of it side by side.

    Args:
        places: gives a path or URL where nothing is yet, a new one each time.

    Returns:
        A `RuleBasedStateMachine`; its `.TestCase` runs with pytest.
    """
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

    asked = st.builds(
        a_table,
        st.dictionaries(st.sampled_from("abcdefghij"), st.integers(0, 3 * BLOCK), min_size=1).map(_many),
        st.lists(st.sampled_from(POLICIES), max_size=2),
        seed=st.integers(0, 1),
        precision=st.sampled_from(["f32", "int8"]),
        root=st.sampled_from(["here", "there"]),
        depths=st.booleans(),
        plain=st.lists(st.sampled_from([f"{name}/{i}" for name in "abcdefghij" for i in (0, 3, 9)])),
    )

    class Machine(RuleBasedStateMachine):
        """Rows that are there are a set; the table is the last finished one."""

        def __init__(self) -> None:
            super().__init__()
            self.place = places()
            self.rows: set[tuple[str, str]] = set()
            self.table: Table | None = None
            self.asked: Table | None = None

        def _missing(self, table: Table) -> set[tuple[str, str]]:
            return _named(table) - self.rows

        @rule(table=asked)
        def embed(self, table: Table) -> None:
            self._finish(table)

        @precondition(lambda self: self.asked is not None)
        @rule()
        def embed_the_same_again(self) -> None:
            assert self.asked is not None
            self._finish(self.asked)

        def _finish(self, table: Table) -> None:
            missing = self._missing(table)
            computed = fill(self.place, table)
            # a block that was planned for views asked before may hold rows that are there already
            assert len(missing) <= computed <= len(missing) + BLOCK * len(table.parts)
            self.rows |= missing
            self.table, self.asked = table, None

        @rule(table=asked, stop=st.integers(0, 4))
        def embed_and_be_killed(self, table: Table, stop: int) -> None:
            before = self._missing(table)
            fill(self.place, table, stop)
            store = FeatureStore.create(self.place)
            there = {(part.address, photo) for part in table.parts for photo in store.rows.have(part.address)}
            self.rows |= before & there
            if self._missing(table):
                self.asked = table
            else:
                self._finish(table)

        @precondition(lambda self: self.table is not None and self.asked is None)
        @rule()
        def prune(self) -> None:
            assert self.table is not None
            FeatureStore.open(self.place).prune()
            self.rows &= _named(self.table)
            fresh = places()
            fill(fresh, self.table)
            assert contents(self.place) == contents(fresh)

        @invariant()
        def says_what_the_model_says(self) -> None:
            if self.table is not None:
                store = FeatureStore.open(self.place)
                assert store.table == self.table
                for part in self.table.parts:
                    found = store.features(part.view) if part.kind == "features" else store.blocks(part.view)
                    np.testing.assert_array_equal(found, expected(part, self.table))
                lost = _pairs(self.asked, self._missing(self.asked)) if self.asked else set()
                assert store.missing() == len(lost)

    return Machine


def _named(table: Table) -> set[tuple[str, str]]:
    """List the rows that a table names: (address, photo)."""
    return {(part.address, photo) for part in table.parts for photo in table.digests_of(part)}


def _pairs(table: Table, rows: set[tuple[str, str]]) -> set[tuple[int, str]]:
    """Say of which views and photos these (address, photo) are."""
    views = {part.address: part.view for part in table.parts}
    return {(views[address], photo) for address, photo in rows}


def _many(names: dict[str, int]) -> dict[str, int]:
    """Return a run of ten photos for each name, so that segments have several blocks."""
    return {f"{name}/{i}": first + i for name, first in names.items() for i in range(10)}
