"""What a run counts, and what it refuses to call a test."""

from __future__ import annotations

import numpy as np
import pytest

from topgraft.errors import UsageError
from topgraft.photos.sample import Sample
from topgraft.run.results import Side, check_disjoint, counts


def side(*rows: tuple[int, str, int, str]) -> Side:
    """Make a side of (row, id, group number, named group)."""
    samples = tuple(Sample(name, name, 0, named, name) for _, name, _, named in rows)
    column = np.array([row for row, *_ in rows], np.int64)
    return Side(column, samples, np.zeros_like(column), np.array([row[2] for row in rows], np.int64))


class Stored:
    """What counting asks of a feature store."""

    classes, views = ("x",), (0,)

    def __init__(self, samples: tuple[Sample, ...], groups: tuple[int, ...]) -> None:
        self.samples, self.groups = samples, np.array(groups)

    def __len__(self) -> int:
        return len(self.samples)


def test_a_photo_on_both_sides_is_refused() -> None:
    with pytest.raises(UsageError, match="b is on the test side and is on the training side, 1 photos"):
        check_disjoint(side((0, "a", 0, "a"), (1, "b", 1, "b")), side((1, "b", 1, "b")))


def test_a_group_on_both_sides_is_refused() -> None:
    with pytest.raises(UsageError, match="c is on the test side and belongs together with b"):
        check_disjoint(side((0, "a", 0, "a"), (1, "b", 1, "b")), side((2, "c", 1, "c"), (3, "d", 3, "d")))


def test_sides_apart_are_no_mistake() -> None:
    check_disjoint(side((0, "a", 0, "a")), side((1, "b", 1, "b")))
    check_disjoint(side((0, "a", 0, "a")), side())


def test_photos_of_a_named_group_are_no_duplicates() -> None:
    learn = side((0, "a", 0, "day"), (1, "b", 0, "day"), (2, "c", 2, "c"))
    test = side((3, "d", 3, "d"), (4, "e", 3, "e"))
    said = counts(Stored(learn.samples + test.samples, (0, 0, 2, 3, 3)), learn, test, 0)  # type: ignore[arg-type]
    assert said["duplicates"] == 1
    assert said["per_class"] == {"x": {"train": 3, "test": 2}}
