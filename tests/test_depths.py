"""Which columns of a row are which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgraft.backbones.card import Card
from topgraft.backbones.depths import Depth, Depths

blocks = st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=6).map(
    lambda found: tuple(Depth(name=f"blocks.{i}", channels=c, token=t) for i, (c, t) in enumerate(found))
)


def cover(slices):
    return [column for columns in slices for column in range(columns.start, columns.stop)]


@given(st.integers(1, 20), blocks)
def test_groups_and_blocks_cover_a_row_once_and_in_order(last, blocks):
    depths = Depths(last, blocks)
    groups = depths.groups()
    assert cover(groups.values()) == list(range(depths.width))
    assert depths.width == last + depths.extra
    for statistic in ("means", "spreads") if blocks else ():
        each = [depths.columns(block.name, statistic) for block in blocks]
        assert cover(each) == cover([groups[statistic]])


def test_a_class_token_lies_behind_its_blocks_means():
    depths = Depths(3, (Depth(name="a", channels=2, token=True), Depth(name="b", channels=1)))
    assert depths.columns("a", "means") == slice(3, 7)
    assert depths.columns("b", "means") == slice(7, 8)
    assert depths.columns("a", "spreads") == slice(8, 10)
    assert depths.groups() == {"last": slice(0, 3), "means": slice(3, 8), "spreads": slice(8, 11)}


def test_without_blocks_there_is_the_last_layer_alone():
    assert Depths(5).groups() == {"last": slice(0, 5)}
    with pytest.raises(KeyError, match=r"blocks\.0"):
        Depths(5).columns("blocks.0", "means")


def test_depths_leave_a_cards_fingerprint_alone():
    card = Card(name="a.b", input_size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1), features=4, source="fake")
    deep = card.model_copy(update={"depths": (Depth(name="x", channels=3),)})
    assert deep.fingerprint() == card.fingerprint()
    assert (card.columns.width, deep.columns.width) == (4, 10)
