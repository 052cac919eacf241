"""The check says what is wrong with a photo folder, and stops what cannot be trained on."""

import shutil

import pytest

from photos import paint, paint_folder
from topgraft._check import check
from topgraft.errors import DataError
from topgraft.photos.dataset import Dataset


def test_a_sound_folder_has_no_warnings(tmp_path):
    health = check(Dataset.from_folder(paint_folder(tmp_path, cat=6, dog=5)))
    assert health.classes == {"cat": 6, "dog": 5}
    assert health.photos == 11
    assert health.warnings == []


def test_each_finding_is_listed_and_said(tmp_path):
    paint_folder(tmp_path, cat=20, dog=3)
    shutil.copy(tmp_path / "cat" / "000.jpg", tmp_path / "dog" / "copy.jpg")
    (tmp_path / "cat" / "bad.jpg").write_bytes(b"nothing")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    paint(tmp_path / "cat" / "long.jpg", 77, size=(900, 90))
    health = check(Dataset.from_folder(tmp_path))
    assert health.refused == [{"id": "cat/bad.jpg", "reason": "is not a picture in a known format"}]
    assert health.ignored == ["cat/notes.txt"]
    assert health.duplicates == health.cross_class_duplicates == [["cat/000.jpg", "dog/copy.jpg"]]
    assert health.tiny == ["dog"]
    assert [one["id"] for one in health.odd_sizes] == ["cat/long.jpg"]
    text = " ".join(health.warnings)
    for part in (
        "cat/bad.jpg, which is not a picture",
        "only 4 photos",
        "carry different labels",
        "very long",
    ):
        assert part in text


def test_leaks_between_given_splits_are_found(tmp_path):
    paint_folder(tmp_path / "train", cat=5, dog=5)
    paint_folder(tmp_path / "test", cat=5, dog=5)
    health = check(Dataset.from_folder(tmp_path))
    assert len(health.leaks) == 10
    assert "they are moved to the test side" in " ".join(health.warnings)


def test_what_folders_suggest_is_said(tmp_path):
    for name in ("train", "tests"):
        paint_folder(tmp_path / "typo" / name, cat=2, dog=3)
    warnings = " ".join(check(Dataset.from_folder(tmp_path / "typo")).warnings)
    assert (
        "classes are named tests and train, and photos lie in folders below them. Did you mean train"
        in warnings
    )
    paint_folder(tmp_path / "food", rice=5, fish=5)
    (tmp_path / "food" / "ramen" / "later").mkdir(parents=True)
    assert check(Dataset.from_folder(tmp_path / "food")).warnings == [
        "Folder ramen holds no photo and is no class."
    ]
    paint_folder(tmp_path / "split" / "train", rice=5, fish=5)
    paint(tmp_path / "split" / "test" / "fish" / "a.jpg", 99)
    (tmp_path / "split" / "test" / "rice").mkdir()
    assert check(Dataset.from_folder(tmp_path / "split")).warnings == [
        "Folder test/rice holds no photo and is no class."
    ]


@pytest.mark.parametrize("other", ["cafe\u0301", "Caf\u00e9"])
def test_classes_written_alike_are_asked_about(tmp_path, other):
    paint_folder(tmp_path, **{"caf\u00e9": 5, other: 6})
    (warning,) = [one for one in check(Dataset.from_folder(tmp_path)).warnings if "alike" in one]
    assert "written alike but are two" in warning


def test_one_is_not_many(tmp_path):
    paint_folder(tmp_path, cat=5, dog=5)
    shutil.copy(tmp_path / "cat" / "000.jpg", tmp_path / "cat" / "copy.jpg")
    assert "1 group of near" in " ".join(check(Dataset.from_folder(tmp_path)).warnings)


def test_a_table_that_fails_goes_by_its_name(tmp_path):
    paint_folder(tmp_path, cat=3)
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(f"cat/{i:03d}.jpg,cat" for i in range(3)))
    with pytest.raises(DataError, match=r"t\.csv: expected .* Add photos of what it is not"):
        check(Dataset.from_csv(tmp_path / "t.csv"))


def test_photos_of_a_named_group_are_no_duplicates(tmp_path):
    paint_folder(tmp_path, cat=3, dog=3)
    rows = [f"{name}/{i:03d}.jpg,{name},{name}" for name in ("cat", "dog") for i in range(3)]
    (tmp_path / "t.csv").write_text("path,label,group\n" + "\n".join(rows))
    assert check(Dataset.from_csv(tmp_path / "t.csv")).duplicates == []


@pytest.mark.parametrize(
    ("counts", "broken", "message"),
    [
        ({"cat": 4}, 0, "at least 2 classes, got one"),
        ({"cat": 4, "dog": 1}, 0, "at least 2 readable photos, got 1 of 'dog'"),
        ({"cat": 4, "dog": 4}, 3, "at most 20 % of the files may be unreadable, got 3 of 11"),
    ],
)
def test_what_cannot_be_trained_on_is_an_error(tmp_path, counts, broken, message):
    paint_folder(tmp_path, **counts)
    for i in range(broken):
        (tmp_path / "cat" / f"bad{i}.jpg").write_bytes(b"x")
    data = Dataset.from_folder(tmp_path)
    with pytest.raises(DataError, match=message):
        check(data)
    assert check(data, strict=False).photos == sum(counts.values())
