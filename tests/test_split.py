"""Photos are split by group, and a split that came with them is kept but for its leaks."""

import shutil

import pytest

from photos import paint_folder
from topgraft._split import split
from topgraft.errors import DataError, UsageError
from topgraft.photos.dataset import Dataset


def test_shares_classes_and_seed(tmp_path):
    data = Dataset.from_folder(paint_folder(tmp_path, cat=20, dog=10))
    sides = split(data, test=0.2, val=0.1, seed=3)
    assert [len(side) for side in (sides.train, sides.val, sides.test)] == [21, 3, 6]
    assert sorted(sides.train + sides.val + sides.test) == list(data.ids)
    assert sum(name.startswith("cat") for name in sides.test) == 4
    assert split(data, test=0.2, val=0.1, seed=3) == sides
    assert split(data, test=0.2, val=0.1, seed=4) != sides
    assert split(data, test=0).test == ()


def test_near_duplicates_stay_together(tmp_path):
    paint_folder(tmp_path, cat=10, dog=10)
    for i in range(10):
        shutil.copy(tmp_path / "cat" / f"{i:03d}.jpg", tmp_path / "cat" / f"copy{i}.jpg")
    sides = split(Dataset.from_folder(tmp_path), test=0.3)
    for i in range(10):
        assert (f"cat/{i:03d}.jpg" in sides.test) == (f"cat/copy{i}.jpg" in sides.test)


def test_a_given_split_loses_only_its_leaks(tmp_path):
    paint_folder(tmp_path / "train", cat=5, dog=5)
    paint_folder(tmp_path / "test", bird=4)
    (tmp_path / "train" / "bird").mkdir()
    (tmp_path / "test" / "bird" / "003.jpg").rename(tmp_path / "train" / "bird" / "003.jpg")
    shutil.copy(tmp_path / "train" / "cat" / "000.jpg", tmp_path / "test" / "bird" / "leak.jpg")
    sides = split(Dataset.from_folder(tmp_path), test=0.5)
    assert set(sides.test) == {
        "test/bird/leak.jpg",
        "train/cat/000.jpg",
        *(f"test/bird/{i:03d}.jpg" for i in range(3)),
    }
    assert len(sides.train) == 10
    assert sides.val == ()


@pytest.mark.parametrize(("test", "val"), [(1.0, 0), (-0.1, 0), (0.6, 0.5)])
def test_shares_that_leave_nothing_are_refused(tmp_path, test, val):
    data = Dataset.from_folder(paint_folder(tmp_path, cat=4, dog=4))
    with pytest.raises(UsageError, match="below 1 together"):
        split(data, test=test, val=val)


def test_a_class_on_the_given_test_side_alone_is_refused(tmp_path):
    paint_folder(tmp_path / "train", cat=5, dog=5)
    paint_folder(tmp_path / "test", bird=3)
    with pytest.raises(DataError, match=r"class bird .* none to train on\. Move some"):
        split(Dataset.from_folder(tmp_path))


def test_a_photo_less_moves_hardly_any_other(tmp_path):
    data = Dataset.from_folder(paint_folder(tmp_path, cat=40, dog=40))
    before = split(data)
    assert len(before.test) == 16
    for lost in (data.ids[0], data.ids[57], before.test[3]):
        after = split(data.subset(set(data.ids) - {lost}))
        assert len(set(after.test) & set(before.test)) >= 14


def test_several_labels_are_stratified_together(tmp_path):
    paint_folder(tmp_path, cat=40)
    lines = [f"cat/{i:03d}.jpg,{'a;b' if i < 10 else 'a;c' if i < 20 else 'a'}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *lines]))
    data = Dataset.from_csv(tmp_path / "t.csv")
    for seed in range(5):
        held = [data.samples[data.ids.index(one)] for one in split(data, seed=seed).test]
        assert [sum(i in one.labels for one in held) for i in range(3)] == [8, 2, 2]
