"""What every engine must do.

class TestMyEngine(EngineSuite):
    def open(self, threads=2):
        return MyEngine(backbone, settings=Settings.load(threads=threads))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pytest

from topgraft.engines import Engine
from topgraft.errors import UsageError
from topgraft.types import Images


class EngineSuite(ABC):
    """Inherit, say how to open the engine, and let pytest find the tests.

    Attributes:
        name: what `open_engine` calls the engine; empty for one of your own.
        source: who made the graph it runs (`Card.source`); empty if it does not matter.
        same_on_any_cores: whether the number of cores leaves even the last bit alone.
    """

    name: ClassVar[str] = ""
    source: ClassVar[str] = ""
    same_on_any_cores: ClassVar[bool] = True

    @abstractmethod
    def open(self, threads: int = 2) -> Engine:
        """Return a fresh engine that uses so many cores."""

    def deep(self) -> Engine:
        """Return one whose rows hold the statistics of every block, too."""
        pytest.skip("this engine gives the last layer alone")

    def state(self, _engine: Engine) -> dict[str, Any]:
        """Return the arrays the engine holds, where they can be reached: none of them may change."""
        return {}

    def pictures(self, engine: Engine, count: int, seed: int = 0) -> Images:
        """Return noise (count, H, W, 3) uint8 of the engine's size, each picture in a colour of its own."""
        random = np.random.default_rng(seed)
        size = (count, *engine.card.input_size, 3)
        colour = random.integers(0, 200, (count, 1, 1, 3))
        return (random.integers(0, 56, size) + colour).astype(np.uint8)

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Iterator[Engine]:
        """Share one engine among the tests that do not close it."""
        with cls().open() as engine:
            yield engine

    def test_it_is_what_it_says(self, engine: Engine) -> None:
        assert self.name in ("", engine.name)
        assert self.source in ("", engine.card.source)

    def test_rows_are_float32_finite_and_of_the_cards_width(self, engine: Engine) -> None:
        features = engine.embed(self.pictures(engine, 3))
        assert features.shape == (3, engine.card.features)
        assert engine.width == engine.card.features
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
        assert not np.array_equal(features[0], features[1])

    def test_a_row_depends_on_its_picture_alone(self, engine: Engine) -> None:
        pictures = self.pictures(engine, 7)
        whole = engine.embed(pictures)
        alone = np.concatenate([engine.embed(pictures[i : i + 1]) for i in range(len(pictures))])
        np.testing.assert_array_equal(alone, whole, "alone and in a batch")
        np.testing.assert_array_equal(engine.embed(pictures[::-1])[::-1], whole, "at another place")
        others = self.pictures(engine, 7, seed=1)
        others[4] = pictures[4]
        np.testing.assert_array_equal(engine.embed(others)[4], whole[4], "among other pictures")

    def test_two_engines_agree_on_any_number_of_cores(self, engine: Engine) -> None:
        pictures = self.pictures(engine, 5)
        expected = engine.embed(pictures)
        for threads in (1, 2):
            with self.open(threads) as other:
                got = other.embed(pictures)
            if self.same_on_any_cores:
                np.testing.assert_array_equal(got, expected)
            else:
                np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)

    def test_nothing_is_learned_from_what_is_seen(self, engine: Engine) -> None:
        pictures = self.pictures(engine, 4)
        before = engine.embed(pictures)
        held = {name: np.array(value) for name, value in self.state(engine).items()}
        for brightness in (0, 255):
            engine.embed(np.full_like(pictures, brightness))
        np.testing.assert_array_equal(engine.embed(pictures), before)
        for name, value in self.state(engine).items():
            np.testing.assert_array_equal(value, held[name], f"buffer {name} changed")

    def test_a_stream_keeps_order_tags_and_the_last_partial_batch(self, engine: Engine) -> None:
        pictures = self.pictures(engine, 13)
        cuts = [0, 1, 1, 9, 13]
        batches = [(("tag", i), pictures[a:b]) for i, (a, b) in enumerate(pairwise(cuts))]
        tags, features = zip(*engine.stream(iter(batches)), strict=True)
        assert list(tags) == [tag for tag, _ in batches]
        assert [len(rows) for rows in features] == [1, 0, 8, 4]
        np.testing.assert_array_equal(np.concatenate(features), engine.embed(pictures))

    def test_a_batch_may_lie_where_the_one_before_lay(self, engine: Engine) -> None:
        pictures = self.pictures(engine, 12)
        place = np.empty_like(pictures[:4])

        def batches() -> Iterator[tuple[int, Images]]:
            for start in range(0, 12, 4):
                place[:] = pictures[start : start + 4]
                yield start, place

        features = [rows for _, rows in engine.stream(batches())]
        np.testing.assert_array_equal(np.concatenate(features), engine.embed(pictures))

    def test_a_stream_reads_ahead_by_a_bounded_number_of_batches(self, engine: Engine) -> None:
        picture = self.pictures(engine, 1)
        read = 0

        def batches() -> Iterator[tuple[int, Images]]:
            nonlocal read
            for read in range(1, 1001):
                yield read, picture

        stream = engine.stream(batches())
        next(stream)
        assert read < 500
        stream.close()  # type: ignore[attr-defined]
        assert engine.embed(picture).shape[0] == 1, "an abandoned stream must leave the engine usable"

    def test_a_readers_error_comes_through(self, engine: Engine) -> None:
        def batches() -> Iterator[tuple[int, Images]]:
            yield 0, self.pictures(engine, 2)
            raise LookupError("a reader's own error")

        with pytest.raises(LookupError, match="a reader's own error"):
            list(engine.stream(batches()))
        assert engine.embed(self.pictures(engine, 1)).shape[0] == 1

    def test_rows_of_every_depth_begin_with_the_very_features(self, engine: Engine) -> None:
        pictures = self.pictures(engine, 3)
        with self.deep() as deep:
            rows = deep.embed(pictures)
            assert deep.embed(pictures[:0]).shape == (0, deep.width)
        columns = engine.card.columns
        assert columns.blocks
        assert rows.shape == (3, columns.width)
        assert rows.dtype == np.float32
        assert np.isfinite(rows).all()
        if self.same_on_any_cores:
            np.testing.assert_array_equal(rows[:, : columns.last], engine.embed(pictures))
        for name in ("means", "spreads"):
            assert not np.array_equal(*rows[:2, columns.groups()[name]])

    def test_statistics_of_blocks_depend_on_their_picture_alone(self) -> None:
        with self.deep() as deep:
            pictures = self.pictures(deep, 5)
            whole = deep.embed(pictures)
            alone = np.concatenate([deep.embed(pictures[i : i + 1]) for i in range(len(pictures))])
            np.testing.assert_array_equal(alone, whole, "alone and in a batch")
            np.testing.assert_array_equal(deep.embed(pictures[::-1])[::-1], whole, "at another place")
            batches = [(i, pictures[a:b]) for i, (a, b) in enumerate(pairwise([0, 1, 1, 5]))]
            tags, rows = zip(*deep.stream(iter(batches)), strict=True)
            assert list(tags) == [0, 1, 2]
            np.testing.assert_array_equal(np.concatenate(rows), whole, "in a stream")

    def test_no_picture_gives_no_row(self, engine: Engine) -> None:
        assert engine.embed(self.pictures(engine, 0)).shape == (0, engine.card.features)

    def test_views_of_an_array_and_their_writability_do_not_matter(self, engine: Engine) -> None:
        pictures = self.pictures(engine, 4)
        flipped = pictures[:, :, ::-1]
        pictures.setflags(write=False)
        np.testing.assert_array_equal(engine.embed(flipped), engine.embed(np.ascontiguousarray(flipped)))

    def test_anything_but_uint8_is_refused(self, engine: Engine) -> None:
        pictures = self.pictures(engine, 1)
        wrongs: tuple[Any, ...] = (pictures.astype(np.float32), pictures.tolist())
        for wrong in wrongs:
            with pytest.raises(UsageError, match="uint8"):
                engine.embed(wrong)

    def test_a_wrong_shape_is_refused_and_both_shapes_are_named(self, engine: Engine) -> None:
        height, width = engine.card.input_size
        pictures = self.pictures(engine, 1)
        for wrong in (pictures[0], pictures[:, 1:], pictures[..., :1], pictures.transpose(0, 3, 1, 2)):
            with pytest.raises(UsageError, match=rf"\(N, {height}, {width}, 3\)"):
                engine.embed(wrong)

    def test_a_closed_engine_says_so_and_may_be_closed_again(self) -> None:
        engine = self.open()
        pictures = self.pictures(engine, 1)
        with engine:
            engine.embed(pictures)
        engine.close()
        with pytest.raises(UsageError, match="closed"):
            engine.embed(pictures)
