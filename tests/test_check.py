"""The check says what is wrong with a photo folder, and stops what cannot be trained on."""

import shutil

import numpy as np
import pytest
from PIL import Image as Pillow

from photos import paint, paint_folder
from topgraft._check import check
from topgraft._split import split
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
        "1 class has fewer than 5 photos (dog 4); its numbers will say little",
        "carry different labels",
        "very long",
    ):
        assert part in text


def test_any_label_that_differs_is_found(tmp_path):
    paint_folder(tmp_path, cat=6, dog=6)
    shutil.copy(tmp_path / "cat" / "000.jpg", tmp_path / "again.jpg")
    lines = [f"{name}/{i:03d}.jpg,{name}" for name in ("cat", "dog") for i in range(6)]
    (tmp_path / "all.csv").write_text("\n".join(["path,label", *lines, "again.jpg,cat;dog"]))
    health = check(Dataset.from_csv(tmp_path / "all.csv"))
    assert health.cross_class_duplicates == [["again.jpg", "cat/000.jpg"]]


def test_leaks_between_given_splits_are_found(tmp_path):
    paint_folder(tmp_path / "train", cat=5, dog=5)
    paint_folder(tmp_path / "test", cat=5, dog=5)
    health = check(Dataset.from_folder(tmp_path))
    assert len(health.leaks) == 10
    assert "each goes whole to the side that must stay clean most" in " ".join(health.warnings)


def test_a_named_group_on_both_sides_of_a_given_split_is_a_leak_too(tmp_path):
    paint_folder(tmp_path, cat=6, dog=6)
    lines = [
        f"{name}/{i:03d}.jpg,{name},{('val', 'train')[i > 1]},{'burst' if i in {1, 2} else f'{name}{i}'}"
        for name in ("cat", "dog")
        for i in range(6)
    ]
    (tmp_path / "all.csv").write_text("\n".join(["path,label,split,group", *lines]))
    data = Dataset.from_csv(tmp_path / "all.csv")
    health = check(data)
    assert health.leaks == [["cat/001.jpg", "cat/002.jpg", "dog/001.jpg", "dog/002.jpg"]]
    assert health.duplicates == []
    assert "1 group of photos that belong together or look alike" in " ".join(health.warnings)
    assert set(split(data).val) == {"cat/000.jpg", "dog/000.jpg", *health.leaks[0]}


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


def test_a_table_of_backslashes_and_a_folder_too_high_say_so(tmp_path):
    (tmp_path / "t.csv").write_text("path,label\nphotos\\a.jpg,x\nphotos\\b.jpg,y\n")
    with pytest.raises(DataError, match="Write paths with forward slashes"):
        check(Dataset.from_csv(tmp_path / "t.csv"))
    paint_folder(tmp_path / "nested" / "insects", ant=5, bee=5)
    with pytest.raises(DataError, match=r"got one \(insects\)\. .* Or did you mean .*nested/insects\?"):
        check(Dataset.from_folder(tmp_path / "nested"))


def test_no_readable_photo_at_all_is_one_line(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.jpg").write_text(
                "version https://git-lfs.github.com/spec/v1\noid sha256:0"
            )
    with pytest.raises(DataError, match=r"got 6 of 6.*is not a picture in a known format") as caught:
        check(Dataset.from_folder(tmp_path))
    assert "\n" not in str(caught.value)


def test_equal_warnings_are_one(tmp_path):
    paint_folder(tmp_path, **{f"class{i}": 3 for i in range(30)})
    said = check(Dataset.from_folder(tmp_path)).warnings
    assert [line for line in said if "fewer than 5" in line] == [
        "30 classes have fewer than 5 photos ("
        + ", ".join(f"class{i} 3" for i in range(8))
        + " and 22 more); their numbers will say little."
    ]


def test_photos_that_were_repaired_or_are_dark_are_named(tmp_path):
    paint_folder(tmp_path, cat=6, dog=6)
    data = bytearray((tmp_path / "cat" / "000.jpg").read_bytes())
    data[-600:-400] = bytes(200)
    (tmp_path / "cat" / "000.jpg").write_bytes(data)
    Pillow.new("RGB", (90, 90), (3, 3, 3)).save(tmp_path / "dog" / "night.png")
    levels = np.random.default_rng(0).integers(0, 4096, (90, 90)).astype(np.uint16)
    Pillow.fromarray(levels).save(tmp_path / "dog" / "twelve.png")
    health = check(Dataset.from_folder(tmp_path))
    remarks = {photo["id"]: photo["remark"] for photo in health.remarks}
    assert remarks.keys() == {"cat/000.jpg", "dog/night.png", "dog/twelve.png"}
    assert remarks["cat/000.jpg"].startswith("is damaged and was repaired (Corrupt JPEG data")
    assert "dog/night.png is nearly black." in health.warnings
    assert "dog/twelve.png holds 12 bits in 16 and is scaled by its 12." in health.warnings


def test_12_and_16_bits_side_by_side_are_questioned(tmp_path):
    paint_folder(tmp_path, cat=6, dog=6)
    rng = np.random.default_rng(0)
    for name, levels in (("sixteen", 65_536), ("bright", 65_536)):
        picture = rng.integers(0, levels, (90, 90)).astype(np.uint16)
        Pillow.fromarray(picture).save(tmp_path / "dog" / f"{name}.png")
    assert not check(Dataset.from_folder(tmp_path)).remarks  # what is usual is not worth a word
    Pillow.fromarray(rng.integers(0, 4096, (90, 90)).astype(np.uint16)).save(tmp_path / "dog" / "dim.png")
    health = check(Dataset.from_folder(tmp_path))
    assert {photo["id"] for photo in health.remarks} == {"dog/bright.png", "dog/dim.png", "dog/sixteen.png"}
    said = " ".join(health.warnings)
    assert "dog/dim.png holds 12 bits in 16 and is scaled by its 12." in said
    assert "dog/bright.png holds 16 bits (2 such photos in all)." in said
    assert "If one camera made these photos of 12 and of 16 bits, the first are only dim" in said


def test_large_groups_are_questioned(tmp_path):
    paint_folder(tmp_path, cat=12, dog=12)
    for i in range(8):
        paint(tmp_path / "cat" / f"again{i}.jpg", 5000, quality=60 + 4 * i)
    said = " ".join(check(Dataset.from_folder(tmp_path)).warnings)
    assert "8 of 32 photos look like another, 8 of them in the largest group" in said
    assert "--duplicates exact" in said


def test_a_conflict_names_two_photos_of_different_labels(tmp_path):
    paint_folder(tmp_path, ant=5, bee=5)
    for place in ("ant/a.jpg", "ant/b.jpg", "bee/z.jpg"):
        paint(tmp_path / place, 4000)
    said = " ".join(check(Dataset.from_folder(tmp_path)).warnings)
    assert "ant/a.jpg and bee/z.jpg look the same but carry different labels" in said


def test_a_class_in_one_group_is_said_before_anything_is_trained(tmp_path):
    paint_folder(tmp_path, cat=5, dog=5)
    rows = [f"cat/{i:03d}.jpg,cat,{i}" for i in range(5)] + [f"dog/{i:03d}.jpg,dog,one" for i in range(5)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,group", *rows]))
    warnings = check(Dataset.from_folder(tmp_path / "table.csv")).warnings
    assert [said for said in warnings if "not measured" in said] == [
        (
            "All 5 photos of dog are in one group: it can be learned, but not measured."
            " Add photos from other places or times, or name smaller groups; if they only look alike by"
            " nature, say `--duplicates exact`."
        )
    ]
