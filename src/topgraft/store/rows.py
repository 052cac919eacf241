"""Feature rows by content: under each address (all that decides a row but the photo) rows by photo digest.

    plans/<plan>             (n, 16) uint8: digests, sorted, none twice
    rows/<address>/<plan>    (n, D) float16: their features; BLOCK rows a chunk, and its CRC32C

Block features are rows like these at addresses of their own; what float16 does not hold is float32.

A segment is planned first, its digests written, then filled block by block. A block is one chunk, and so
one file: it is there whole or not at all, and its being there is what says it is done. A plan is named by
the hash of its digests. So the bytes of a finished segment depend on what was asked for alone: not on the
order of files, the number of workers, or how often the work was interrupted.

What is damaged so that it shows without reading the rows (a plan that is not that of its name, an array that
does not open, a block of the wrong size) counts as absent: the next `embed` makes it again. The rest is found
when rows are read: a block has its checksum, and one that vanished meanwhile reads as NaN, which no row has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft.errors import StoreError
from topgraft.fingerprint import fingerprint
from topgraft.store.place import Place
from topgraft.types import Features

BLOCK = 64
"""Rows a chunk: what a killed process loses of each view. 160 KB at 1280 features."""

READ = 64 * BLOCK
"""Rows read in one go."""

COPY = 1024 * BLOCK
"""Rows held at once while rows move to another segment."""

CHECKSUM = {"name": "crc32c"}
"""All that is done to a block: features hardly compress, and uncompressed they are read at disk speed."""

UNCOMPRESSED: dict[str, Any] = {
    "filters": None,
    "chunk_key_encoding": {"name": "default", "separator": "."},
    "config": {"write_empty_chunks": True},  # a block of zeros is done too
}


HASH = re.compile(r"[0-9a-f]{32}")
CHUNK = re.compile(r"c\.(\d+)\.0")
"""The names that count; a file manager leaves others beside them."""

BROKEN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, FileNotFoundError)
"""What zarr raises for metadata that are damaged, or gone."""


@dataclass(frozen=True)
class Segment:
    """Rows that were planned together.

    Attributes:
        address: hash of what decides the rows.
        plan: hash of the digests.
        digests: sorted; row i is of photo `digests[i]`.
    """

    address: str
    plan: str
    digests: tuple[str, ...]

    @property
    def key(self) -> str:
        """Where it lies in the store."""
        return f"rows/{self.address}/{self.plan}"

    @property
    def blocks(self) -> int:
        """How many blocks it has."""
        return -(-len(self.digests) // BLOCK)

    def block(self, index: int) -> tuple[str, ...]:
        """The digests of one block."""
        return self.digests[index * BLOCK : (index + 1) * BLOCK]


class Rows:
    """All rows of one store.

    Args:
        place: where the store lies.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._arrays: dict[str, Any] = {}
        self._segments: dict[str, Segment] = {}

    def addresses(self) -> list[str]:
        """All addresses there are rows for."""
        return self._hashes("rows")

    def segments(self, address: str) -> list[Segment]:
        """The segments of an address, by name. One not planned to its end, or damaged, is none."""
        found = (self._segment(address, plan) for plan in self._hashes(f"rows/{address}"))
        return [segment for segment in found if segment is not None]

    def _hashes(self, key: str) -> list[str]:
        return sorted(name for name in self.place.names(key) if HASH.fullmatch(name))

    def _segment(self, address: str, plan: str) -> Segment | None:
        key = f"rows/{address}/{plan}"
        if key not in self._segments:
            same = next((segment for segment in self._segments.values() if segment.plan == plan), None)
            digests = same.digests if same else self._digests(plan)
            array = self._array(key)
            if digests is None or array is None or array.shape[0] != len(digests):
                return None
            self._segments[key] = Segment(address, plan, digests)
        return self._segments[key]

    def _digests(self, plan: str) -> tuple[str, ...] | None:
        """Read the digests of a plan; None where they are not there, or not those it is named by."""
        with self.place.guarded():
            try:
                array = self._array(f"plans/{plan}")
                text = "" if array is None else array[:].tobytes().hex()
            except BROKEN:
                return None
        digests = tuple(text[i : i + 32] for i in range(0, len(text), 32))
        return digests if fingerprint(list(digests)) == plan else None

    def _array(self, key: str) -> Any:
        """Open an array of ours; None where there is none, or a damaged one."""
        if key not in self._arrays:
            if not self.place.remote and not self.place.exists(f"{key}/zarr.json"):
                return None  # nor is a pipe of that name one, which would be waited for
            import zarr

            with self.place.guarded():
                try:
                    opened = zarr.open_array(self.place.zarr(), path=key, mode="r+", zarr_format=3)
                except BROKEN:
                    return None
            if len(opened.shape) != 2:
                return None
            self._arrays[key] = opened.with_config(UNCOMPRESSED["config"])  # open_array ignores it
        return self._arrays[key]

    def done(self, segment: Segment) -> set[int]:
        """Which blocks of a segment are there."""
        return self.present(segment.address, segment.plan)

    def present(self, address: str, plan: str) -> set[int]:
        """The same, for a segment's names alone. A block that was cut short is not there."""
        key = f"rows/{address}/{plan}"
        array = self._array(key)
        if array is None:
            return set()
        whole = BLOCK * array.shape[1] * array.dtype.itemsize + 4 * len(array.compressors)
        sizes = self.place.sizes(key).items()
        return {int(chunk[1]) for name, size in sizes if size == whole and (chunk := CHUNK.fullmatch(name))}

    def form(self, segment: Segment) -> tuple[int, str]:
        """How many numbers a row has, and their dtype."""
        array = self._array(segment.key)
        return int(array.shape[1]), str(array.dtype)

    def have(self, address: str) -> dict[str, tuple[Segment, int]]:
        """Find every finished row of an address: {digest: (segment, row)}."""
        found: dict[str, tuple[Segment, int]] = {}
        for segment in self.segments(address):
            for index in sorted(self.done(segment)):
                for row, digest in enumerate(segment.block(index), start=index * BLOCK):
                    found.setdefault(digest, (segment, row))
        return found

    def plan(
        self, facts: Mapping[str, Any], digests: Sequence[str], width: int, dtype: str = "float16"
    ) -> Segment:
        """Write down which rows are to come, before the first is computed.

        Args:
            facts: what decides the rows; its fingerprint is the address.
            digests: sorted, none twice.
            width: D.
            dtype: of the numbers.
        """
        import zarr

        segment = Segment(fingerprint(dict(facts)), fingerprint(list(digests)), tuple(digests))
        with self.place.guarded():
            store = self.place.zarr()
            for path, said in (("plans", {}), ("rows", {}), (f"rows/{segment.address}", dict(facts))):
                if not self.place.exists(f"{path}/zarr.json"):
                    zarr.create_group(store, path=path, attributes=said)
            plan = f"plans/{segment.plan}"
            if not self._planned(segment):
                raw = np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 16)
                self._arrays[plan] = zarr.create_array(
                    store,
                    name=plan,
                    data=raw,
                    chunks=raw.shape,
                    compressors=None,
                    overwrite=True,
                    **UNCOMPRESSED,
                )
            # Last, for it is what makes the plan count.
            self._arrays[segment.key] = zarr.create_array(
                store,
                name=segment.key,
                shape=(len(digests), width),
                chunks=(BLOCK, width),
                dtype=dtype,
                compressors=CHECKSUM,
                fill_value=np.nan,  # what a block that is gone reads as
                overwrite=True,  # what lies there is damaged, or it would have been taken up
                **UNCOMPRESSED,
            )
        self._segments[segment.key] = segment
        return segment

    def _planned(self, segment: Segment) -> bool:
        """Tell whether the digests are there, whole; other addresses may depend on them."""
        if any(known.plan == segment.plan for known in self._segments.values()):
            return True
        return self._digests(segment.plan) == segment.digests

    def write(self, address: str, plan: str, index: int, rows: Features) -> None:
        """Write one block, whole.

        Args:
            address: of the rows.
            plan: the segment's.
            index: of the block.
            rows: (BLOCK or fewer at the end, D) in the segment's dtype.

        Raises:
            StoreError: for a number that this dtype cannot hold, and where the place cannot be written.
        """
        if not np.isfinite(rows).all():
            raise StoreError(
                f"{self.place.path}: a feature is not a finite {rows.dtype} number. Is the backbone's graph"
                " sound?"
            )
        key, start = f"rows/{address}/{plan}", index * BLOCK
        array = self._array(key)
        if array is None:
            raise StoreError(f"{self.place.path}: {key} is gone or damaged. Run the same command again.")
        with self.place.guarded():
            array[start : start + len(rows)] = rows

    def stream(self, segment: Segment, done: Iterable[int] | None = None) -> Iterator[tuple[int, Features]]:
        """Read a segment's finished blocks in order, many at a time.

        Yields:
            (row number of the first row, (n, D)).

        Raises:
            StoreError: for a damaged block, and for one that is gone since it was seen.
        """
        blocks = sorted(self.done(segment) if done is None else done)
        array = self._array(segment.key)
        while blocks:
            run = [block for i, block in enumerate(blocks[: READ // BLOCK]) if block == blocks[0] + i]
            blocks = blocks[len(run) :]
            with self.place.guarded():
                try:
                    rows = array[run[0] * BLOCK : (run[-1] + 1) * BLOCK]
                except ValueError as error:
                    raise StoreError(
                        f"{self.place.path}: a block of {segment.key} is damaged ({error})."
                        " Delete that folder and run `topgraft embed` again."
                    ) from error
            if np.isnan(rows[:, 0]).any():
                raise StoreError(
                    f"{self.place.path}: a block of {segment.key} vanished while it was read. Does another"
                    " process prune or embed? Read again when it is done."
                )
            yield run[0] * BLOCK, rows

    def scatter(self, address: str, wanted: Mapping[str, NDArray[np.int64]], out: Features) -> int:
        """Copy rows to where they are wanted.

        Args:
            address: of the rows.
            wanted: {digest: rows of `out` that get it}.
            out: (N, D), filled.

        Returns:
            How many of the wanted digests were found.
        """
        left = dict(wanted)
        for segment in self.segments(address):
            if left.keys().isdisjoint(segment.digests):
                continue
            for start, rows in self.stream(segment):
                known = segment.digests[start : start + len(rows)]
                here = [(i, left.pop(digest)) for i, digest in enumerate(known) if digest in left]
                if here:
                    source = np.repeat([i for i, _ in here], [len(to) for _, to in here])
                    out[np.concatenate([to for _, to in here])] = rows[source]
        return len(wanted) - len(left)

    def compact(self, facts: Mapping[str, Any], address: str, keep: Iterable[str]) -> None:
        """Bring the finished rows of an address that are in `keep` into one segment and drop all others."""
        segments = self.segments(address)
        have = self.have(address)
        kept = sorted(have.keys() & set(keep))
        whole = Segment(address, fingerprint(kept), tuple(kept))
        if not kept:
            self.drop(f"rows/{address}")
            return
        existing = next((segment for segment in segments if segment.plan == whole.plan), None)
        if existing is None or len(self.done(existing)) < existing.blocks:
            form = self.form(have[kept[0]][0])
            target = existing or self.plan(facts, kept, *form)
            self._copy(address, target, form)
        for plan in self._hashes(f"rows/{address}"):
            if plan != whole.plan:
                self.drop(f"rows/{address}/{plan}")

    def _copy(self, address: str, target: Segment, form: tuple[int, str]) -> None:
        for first in range(0, target.blocks, COPY // BLOCK):
            digests = target.digests[first * BLOCK : first * BLOCK + COPY]
            rows = np.empty((len(digests), form[0]), form[1])
            self.scatter(address, {digest: np.array([i]) for i, digest in enumerate(digests)}, rows)
            for start in range(0, len(rows), BLOCK):
                self.write(address, target.plan, first + start // BLOCK, rows[start : start + BLOCK])

    def drop(self, key: str) -> None:
        """Remove a segment, an address or a plan."""
        self.place.delete(key)
        self._arrays = {k: v for k, v in self._arrays.items() if not f"{k}/".startswith(f"{key}/")}
        self._segments = {k: v for k, v in self._segments.items() if not f"{k}/".startswith(f"{key}/")}

    def drop_unused_plans(self) -> None:
        """Remove the plans that no segment has."""
        used = {plan for address in self.addresses() for plan in self._hashes(f"rows/{address}")}
        for plan in set(self._hashes("plans")) - used:
            self.drop(f"plans/{plan}")
