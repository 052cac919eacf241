"""The work of embedding: read, decode once, fit, warp every view, run the backbone, write whole blocks.

One machine and many call the same `compute`: the partition says which blocks.

Reader threads turn photos into pictures while the engine runs: decoding, fit and warp are C code that lets
Python's lock go. OpenCV's own threads are switched off meanwhile: the readers are the parallelism, and cores
given to both are taken from the backbone. Nothing forks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Self, TypeVar

import numpy as np

from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Card, Kind
from topgraft.backbones.views import views_of_photo
from topgraft.engines import open_engine
from topgraft.errors import DataError
from topgraft.photos.dataset import Dataset
from topgraft.photos.readers import in_order, one_opencv_thread
from topgraft.settings import Settings
from topgraft.store import Work
from topgraft.store.place import Place
from topgraft.store.rows import Rows
from topgraft.store.table import Table
from topgraft.types import Features, Image, Images

BATCH = 32
"""Pictures handed to the engine at once."""

WRITES = 4
"""Blocks that may wait for the writer."""

Tell = Callable[[int], None]
"""Called with how many rows are done."""


@dataclass(frozen=True)
class Partition:
    """A share of embedding work, and all that is needed to do it anywhere.

    Attributes:
        store: the store's folder or URL; its plans are written.
        table: what the store is to be of; of its samples nothing is read here.
        work: the blocks to compute. No other partition has them.
        data: photos; each digest in `work` is one of theirs.
        backbone: what to run.
        engine: by which engine.
        precision: to be asked of the engine.
        readers: threads that read, decode and warp.
        batch: pictures handed to the engine at once.
        settings: cores and device.
    """

    store: str
    table: Table
    work: tuple[Work, ...]
    data: Dataset
    backbone: Backbone
    engine: str
    precision: str
    readers: int
    batch: int
    settings: Settings

    @property
    def rows(self) -> int:
        """How many rows it gives."""
        return sum(block.rows for block in self.work)


class _Pictures:
    """The stream of pictures, and what went wrong with it."""

    def __init__(self, partition: Partition, card: Card) -> None:
        self.partition, self.card = partition, card
        self.error: DataError | None = None
        self._at = {sample.digest: i for i, sample in enumerate(partition.data.samples)}

    def look(self, job: tuple[str, tuple[int, ...]]) -> list[Image]:
        """Turn one photo into its views."""
        photo, views = job
        data, i = self.partition.data, self._at[photo]
        shown = [self.partition.table.views[view] for view in views]
        return views_of_photo(data.read_checked(i), data.samples[i].id, photo, shown, self.card)

    def pictures(self) -> Iterator[list[Image]]:
        """Yield photo after photo, a bounded number of photos ahead; stop at the first bad one."""
        work, readers = self.partition.work, self.partition.readers
        jobs = ((photo, block.views) for block in work for photo in block.digests)
        most = max((len(block.views) for block in work), default=1)
        ahead = max(readers + 1, 2 * self.partition.batch // most)
        try:
            yield from in_order(self.look, jobs, readers, ahead)
        except DataError as error:
            self.error = error

    def batches(self) -> Iterator[tuple[None, Images]]:
        """Cut the stream of pictures into batches of one size in the same memory; the last may be smaller.

        New memory for every batch would cost more than the copying: the system clears each of its pages.
        """
        size, count = self.partition.batch, 0
        batch = np.empty((size, *self.card.input_size, 3), np.uint8)
        for image in chain.from_iterable(self.pictures()):
            batch[count] = image
            count += 1
            if count == size:
                yield None, batch
                count = 0
        if count:
            yield None, batch[:count]


class _Blocks:
    """Gathers rows into blocks and has each written, in a thread of its own, as soon as it is whole."""

    def __init__(self, partition: Partition) -> None:
        self.rows, self.last = Rows(Place(partition.store)), partition.table.card.features
        self.left = deque(partition.work)
        self.block: dict[Kind, Features] = {}
        self.full = 0
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="topgraft-writer")
        self.writing: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.shutdown()

    def add(self, rows: Features) -> None:
        """Take the next rows; wait where the writer is too far behind."""
        while len(rows):
            work = self.left[0]
            if not self.full:
                self.block = {part.kind: np.empty((work.rows, part.width), part.dtype) for part in work.parts}
            taken = rows[: work.rows - self.full]
            halves = {"features": taken[:, : self.last], "blocks": taken[:, self.last :]}
            for kind, place in self.block.items():
                with np.errstate(over="ignore"):  # the writer refuses what is not finite
                    place[self.full : self.full + len(taken)] = halves[kind]
            rows, self.full = rows[len(taken) :], self.full + len(taken)
            if self.full == work.rows:
                self.writing.append(self.writer.submit(self._write, self.left.popleft(), self.block))
                self.full = 0
        self.drain(WRITES)

    def drain(self, most: int = 0) -> None:
        """Wait until at most so many blocks wait to be written, and raise what went wrong with the others."""
        while self.writing and (len(self.writing) > most or self.writing[0].done()):
            self.writing.popleft().result()

    def _write(self, work: Work, block: dict[Kind, Features]) -> None:
        views = work.views
        for part in work.parts:
            rows = block[part.kind][views.index(part.view) :: len(views)]
            self.rows.write(part.address, work.plan, work.index, rows)


def compute(partition: Partition, tell: Tell = lambda _rows: None) -> None:
    """Do a partition's work: with its own readers, engine and writer.

    Memory: the pictures of a few photos ahead, a few batches, and the blocks these belong to.

    Args:
        partition: what to do.
        tell: told how many rows are done.

    Raises:
        DataError: naming the photo that cannot be read any more or has changed; every block that was whole
            by then is written.
        StoreError: where the store cannot be written.
    """
    opened = open_engine(
        partition.backbone,
        engine=partition.engine,
        precision=partition.precision,
        depths=any(part.kind == "blocks" for work in partition.work for part in work.parts),
        settings=partition.settings,
    )
    done = 0
    with one_opencv_thread(), opened as engine, _Blocks(partition) as blocks:
        pictures = _Pictures(partition, engine.card)
        with _closing(engine.stream(pictures.batches())) as stream:
            for _, rows in stream:
                blocks.add(rows)
                done += len(rows)
                tell(done)
        blocks.drain()
    if pictures.error is not None:
        raise pictures.error


T = TypeVar("T")


@contextmanager
def _closing(stream: Iterator[T]) -> Iterator[Iterator[T]]:
    """Let an engine wait for what is under way before it is closed, whatever happens meanwhile."""
    try:
        yield stream
    finally:
        if isinstance(stream, Generator):
            stream.close()
