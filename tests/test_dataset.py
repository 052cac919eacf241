"""Folders, tables and pairs become samples; what cannot be used is listed."""

import errno
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Pillow

from photos import paint
from topgraft import files
from topgraft.errors import DataError, DecodeError, StoreError, TopgraftError, UnknownNameError
from topgraft.fingerprint import digest
from topgraft.photos.dataset import Dataset, natural
from topgraft.photos.looks import look
from topgraft.settings import Settings
from topgraft.store import FeatureStore


@pytest.fixture
def photos(tmp_path):
    for i in range(4):
        paint(tmp_path / "photos" / "cat" / f"{i}.jpg", i)
        paint(tmp_path / "photos" / "dog" / "deep" / f"{i}.png", 10 + i)
    return tmp_path / "photos"


def test_folders_are_classes(photos):
    data = Dataset.from_folder(photos)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0] * 4 + [1] * 4
    assert data.ids[0] == "cat/0.jpg"
    assert data.ids[-1] == "dog/deep/3.png"
    assert data.image(0).shape == (72, 96, 3)
    assert len(set(data.groups.tolist())) == 8


def test_given_splits_are_kept(photos, tmp_path):
    top = tmp_path / "split"
    shutil.copytree(photos, top / "Train")
    paint(top / "valid" / "cat" / "9.jpg", 99)
    data = Dataset.from_folder(top)
    assert data.classes == ("cat", "dog")
    assert {one.split for one in data.samples} == {"train", "val"}


def test_classes_called_test_and_something_else_are_classes(tmp_path):
    paint(tmp_path / "test" / "a.jpg", 1)
    paint(tmp_path / "control" / "b.jpg", 2)
    assert Dataset.from_folder(tmp_path).classes == ("control", "test")


def test_nothing_is_dropped_without_a_word(photos):
    (photos / "cat" / "broken.jpg").write_bytes(b"\xff\xd8 no")
    (photos / "cat" / "notes.txt").write_text("x")
    (photos / ".hidden.jpg").write_text("x")
    paint(photos / "stray.jpg", 50)
    data = Dataset.from_folder(photos)
    assert len(data) == 8
    assert [(one.id, bool(one.reason)) for one in data.refused] == [("cat/broken.jpg", True)]
    assert data.ignored == ("cat/notes.txt", "stray.jpg")


def test_near_duplicates_share_a_group(photos):
    Pillow.open(photos / "cat" / "0.jpg").resize((80, 60)).save(photos / "dog" / "again.jpg", quality=70)
    shutil.copy(photos / "cat" / "1.jpg", photos / "cat" / "copy.jpg")
    data = Dataset.from_folder(photos)
    group = dict(zip(data.ids, data.groups.tolist(), strict=True))
    assert group["cat/0.jpg"] == group["dog/again.jpg"]
    assert group["cat/1.jpg"] == group["cat/copy.jpg"]
    assert len(set(group.values())) == 8


@pytest.mark.shared
def test_the_real_photos_have_no_false_twins(shared):
    data = Dataset.from_folder(shared / "data" / "sushi_sandwich")
    assert len(set(data.groups.tolist())) == len(data) == 160


def test_unchanged_photos_are_not_decoded_again(photos, monkeypatch):
    first = Dataset.from_folder(photos)

    def never(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr("topgraft.photos.opening.decode", never)
    assert Dataset.from_folder(photos).samples == first.samples


def test_a_folder_that_moved_gives_the_same_samples(photos, tmp_path):
    before = Dataset.from_folder(photos).samples
    photos.rename(tmp_path / "moved")
    assert Dataset.from_folder(tmp_path / "moved").samples == before


def test_tables(photos, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(
        'path,label,split,group\nphotos/cat/0.jpg,"[""fur"",""cat""]",train,a\n'
        "photos/cat/1.jpg,cat; paw,test,a\nphotos/dog/deep/0.png,dog,,\n"
    )
    data = Dataset.from_csv(table)
    assert data.classes == ("cat", "dog", "fur", "paw")
    assert [one.labels for one in data.samples] == [(0, 2), (0, 3), (1,)]
    assert [one.split for one in data.samples] == ["train", "test", None]
    assert data.groups[0] == data.groups[1] != data.groups[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", "columns path and label, got file, label"),
        ("path,label\n", "found none below the header"),
        ("path,label\na.jpg,\n", "line 2"),
        ("path,label,split\na.jpg,x,maybe\n", "line 2: split must be train, val or test, got 'maybe'"),
        ("path,label\na.jpg,x\n./a.jpg,y\n", "listed twice"),
        (
            "path,label\n\na.jpg,rice,fish\n",
            'line 3: expected 2 cells, got 3. Write several labels as "rice;fish"',
        ),
        ("path,label\na.jpg,x\nb/../a.jpg,y\n", "listed twice"),
        ("path,label\na.jpg,x\n{here}/a.jpg,y\n", "listed twice"),
        ("path,label,label\na.jpg,x,y\n", "one column label, got 2"),
        ('path,label\na.jpg,"[""\\ud800""]"\n', "line 2: expected a list of labels"),
        ('path,label\na.jpg,"[null]"\n', "line 2: expected a list of labels"),
        ('path,label\na.jpg,"[""""]"\n', "line 2: expected a list of labels"),
        (f"path,label\na.jpg,[{'1' * 5000}]\n", "line 2: expected a list of labels"),
        (f"path,label\na.jpg,{'[' * 100_000}\n", "line 2: expected a list of labels"),
        (
            'path,label\na.jpg,c\nb.jpg,"[""a;b"",""c""]"\n',
            "line 3: expected labels without ; where photos carry several, got 'a;b'",
        ),
        ('path,label\na.jpg,"[""a;b""]"\nb.jpg,a;c\n', "line 2: expected labels without ;"),
        ("path,label\na\0.jpg,x\n", "line 2: expected a path, got .* with a NUL"),
        (f"path,label\na.jpg,{'x' * 140_000}\n", "cannot be read as a CSV table .field larger"),
    ],
)
def test_tables_say_what_is_wrong_and_where(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text.replace("{here}", str(tmp_path)))
    with pytest.raises(DataError, match=message) as caught:
        Dataset.from_csv(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)


def test_a_label_may_hold_a_semicolon_where_each_photo_carries_one(photos, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(
        'path,label\nphotos/cat/0.jpg,"[""a;b""]"\nphotos/cat/1.jpg,a\nphotos/dog/deep/0.png,b\n'
    )
    data = Dataset.from_csv(table)
    assert data.classes == ("a", "a;b", "b")
    assert not data.multilabel


def test_a_table_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(DataError, match=r"found no file\. Check the path"):
        Dataset.from_csv(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_bytes(b"path,label\ncaf\xe9.jpg,x\n")
    with pytest.raises(DataError, match=r"is neither UTF-8 nor UTF-16 .*Save it as CSV in UTF-8"):
        Dataset.from_csv(tmp_path / "t.csv")


def test_headers_and_labels_are_taken_as_people_write_them(photos, tmp_path):
    digits = "1" * 5000
    (tmp_path / "t.csv").write_text(f"Path, Label \nphotos/cat/0.jpg,cat\nphotos/cat/1.jpg,{digits}\n")
    assert Dataset.from_csv(tmp_path / "t.csv").classes == (digits, "cat")


def test_pairs_keep_strange_paths(tmp_path):
    names = ["ä ö.jpg", "two/one #1.jpg"]
    paths = [paint(tmp_path / name, i) for i, name in enumerate(names)]
    data = Dataset.from_pairs(paths, ["x", "y"])
    assert data.ids == ("two/one #1.jpg", "ä ö.jpg")
    assert data.classes == ("x", "y")
    with pytest.raises(DataError, match="2 paths and 1 labels"):
        Dataset.from_pairs(paths, ["x"])
    with pytest.raises(DataError, match="as many groups as paths, got 2 paths and 1 groups"):
        Dataset.from_pairs(paths, ["x", "y"], groups=["g"])
    for label in (None, float("nan"), "", ["x"], "\ud800"):
        with pytest.raises(DataError, match=r"one #1\.jpg: expected a label, got .* Leave the photo out"):
            Dataset.from_pairs(paths, ["x", label])


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_no_folder_is_one_clear_line(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="expected a folder of photos, found"):
        Dataset.from_folder(tmp_path / name)


def test_an_empty_folder_says_how_to_fill_it(tmp_path):
    with pytest.raises(DataError, match="Put the photos of each class into a folder"):
        Dataset.from_folder(tmp_path)


def test_subset_keeps_labels_and_names_the_lost(photos):
    data = Dataset.from_folder(photos)
    part = data.subset(["dog/deep/0.png"])
    assert part.labels.tolist() == [1]
    with pytest.raises(DataError, match=r"'cat/none\.jpg'"):
        data.subset(["cat/none.jpg"])


def test_a_photo_that_vanished_is_named(photos):
    data = Dataset.from_folder(photos)
    (photos / "cat" / "0.jpg").unlink()
    with pytest.raises(DecodeError, match=r"cat/0\.jpg: cannot be opened"):
        data.read(0)


def test_remote_photos(photos):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in photos.rglob("*.*"):
        memory.pipe_file(f"/remote/{path.relative_to(photos).as_posix()}", path.read_bytes())
    far = Dataset.from_folder("memory://remote")
    assert far.samples == Dataset.from_folder(photos).samples
    assert (far.image(0) == Dataset.from_folder(photos).image(0)).all()
    memory.pipe_file("/remote/t.csv", b"path,label\ncat/0.jpg,cat\ndog/deep/0.png,dog\n")
    table = Dataset.from_folder("memory://remote/t.csv")
    assert table.ids == ("cat/0.jpg", "dog/deep/0.png")
    assert (table.image(0) == far.image(0)).all()
    pairs = Dataset.from_pairs([far.location(0), far.location(1)], ["cat", "cat"])
    assert (pairs.image(1) == far.image(1)).all()
    with pytest.raises(DataError, match="all photos in one place"):
        Dataset.from_pairs([far.location(0), photos / "cat" / "1.jpg"], ["cat", "cat"])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("foo://bar", "foo://bar: Protocol not known: foo"),
        ("memory://none", "memory://none: expected a folder of photos, found none"),
        ("ftp://127.0.0.1:1/photos", "photos: cannot be reached"),
    ],
)
def test_urls_that_lead_nowhere_are_one_line(url, message):
    pytest.importorskip("fsspec")
    for use in (Dataset.from_folder, lambda place: Dataset.from_folder(f"{place}/t.csv"), FeatureStore.open):
        with pytest.raises(TopgraftError) as caught:
            use(url)
        assert "\n" not in str(caught.value)
        assert use is not Dataset.from_folder or message in str(caught.value)


def test_what_is_no_file_is_refused_without_waiting_for_it(photos):
    os.mkfifo(photos / "cat" / "pipe.jpg")
    (photos / "cat" / "loop.jpg").symlink_to("loop.jpg")
    with (photos / "cat" / "huge.jpg").open("wb") as file:
        file.truncate(300 * 10**9)
    data = Dataset.from_folder(photos)
    assert len(data) == 8
    reasons = [one.reason for one in data.refused]
    for reason, words in zip(reasons, ("larger than 1 GB", "symbolic links", "is no file"), strict=True):
        assert words in reason


def test_names_no_system_takes_are_one_line(tmp_path):
    with pytest.raises(DataError, match="found nothing"):
        Dataset.from_folder("x" * 300)
    with pytest.raises(StoreError, match="found none"):
        FeatureStore.open("x" * 300)


def test_a_name_with_a_line_break_takes_one_line(photos):
    (photos / "cat" / "a\nb.jpg").write_bytes(b"x")
    data = Dataset.from_folder(photos)
    with pytest.raises(DecodeError, match=r"a\\nb\.jpg"):
        raise DecodeError(data.refused[0].id, data.refused[0].reason)


def test_class_10_comes_after_class_9():
    assert sorted(["c10", "c9", "b", "c"], key=natural) == ["b", "c", "c9", "c10"]


def test_classes_that_are_one_number_have_one_order():
    assert sorted(["1", "01", "001"], key=natural) == sorted(["001", "1", "01"], key=natural)


def test_a_folder_beside_the_splits_is_asked_about(tmp_path):
    for i, name in enumerate(["train/cat", "test/cat", "extra"]):
        paint(tmp_path / name / "a.jpg", i)
    with pytest.raises(DataError, match=r"got photos in 'extra' beside them\. Move .* CSV table"):
        Dataset.from_folder(tmp_path)


def test_linked_class_folders_are_read_and_loops_end(photos, tmp_path):
    paint(tmp_path / "elsewhere" / "a.jpg", 70)
    (photos / "bird").symlink_to(tmp_path / "elsewhere")
    (photos / "cat" / "up").symlink_to(photos)
    (tmp_path / "elsewhere" / "back").symlink_to(photos / "bird")
    data = Dataset.from_folder(photos)
    assert data.classes == ("bird", "cat", "dog")
    assert len(data) == 9


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="may read every folder")
def test_a_closed_folder_is_an_error(photos):
    (photos / "cat").chmod(0)
    try:
        with pytest.raises(DataError, match="cat: the folder cannot be read"):
            Dataset.from_folder(photos)
    finally:
        (photos / "cat").chmod(0o755)


@pytest.mark.skipif(sys.platform != "linux", reason="only here file names are any bytes")
def test_a_name_that_is_not_utf8_is_refused(photos):
    shutil.copy(photos / "cat" / "0.jpg", os.fsencode(photos / "cat") + b"/caf\xe9.jpg")
    Path(os.fsdecode(os.fsencode(photos / "cat") + b"/\xe9.txt")).write_text("x")
    data = Dataset.from_folder(photos)
    assert [(one.id, one.reason) for one in data.refused] == [
        ("cat/caf\\xe9.jpg", "has a name that is not UTF-8; rename it")
    ]
    assert data.ignored == ("cat/\\xe9.txt",)
    assert len(data) == 8


def _change_after_hashing(monkeypatch, name, change):
    """Do something to a file between its first and its second reading."""
    real, seen = files.read, []

    def read(root, path):
        data = real(root, path)
        if path == name and not seen:
            seen.append(path)
            change(Path(root, path))
        return data

    monkeypatch.setattr(files, "read", read)


def test_a_file_that_changes_meanwhile_goes_by_what_was_decoded(photos, monkeypatch, tmp_path):
    shutil.copy(photos / "cat" / "0.jpg", photos / "cat" / "copy.jpg")
    _change_after_hashing(monkeypatch, "cat/copy.jpg", lambda path: paint(path, 1234))
    data = Dataset.from_folder(photos, settings=Settings(cache_dir=tmp_path / "c", threads=1))
    assert len(data) == 9
    for i, one in enumerate(data.samples):
        assert one.digest == digest(data.read(i))
        assert data.looks[one.digest] == look(data.image(i))


def test_a_file_that_vanishes_meanwhile_is_refused(photos, monkeypatch, tmp_path):
    _change_after_hashing(monkeypatch, "cat/0.jpg", Path.unlink)
    data = Dataset.from_folder(photos, settings=Settings(cache_dir=tmp_path / "c", threads=1))
    assert [one.id for one in data.refused] == ["cat/0.jpg"]
    assert "cannot be opened" in data.refused[0].reason


def test_a_photo_that_did_not_fit_into_memory_is_tried_again(photos, monkeypatch):
    paint(photos / "cat" / "big.jpg", 4321)

    def full(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("topgraft.photos.decode._upright", full)
        assert "memory" in Dataset.from_folder(photos).refused[0].reason
    assert not Dataset.from_folder(photos).refused


@pytest.mark.parametrize(
    ("between", "encoding"), [(";", "utf-8"), ("\t", "utf-16"), (",", "utf-16"), (";", "utf-16-le")]
)
def test_tables_as_excel_writes_them(photos, between, encoding):
    text = between.join(["path", "label"]) + "\r\n" + f"cat/0.jpg{between}Katze\r\ndog/0.jpg{between}Hünd\r\n"
    raw = text.encode(encoding)
    (photos / "t.csv").write_bytes(b"\xff\xfe" + raw if encoding == "utf-16-le" else raw)
    assert Dataset.from_csv(photos / "t.csv").classes == ("Hünd", "Katze")


def test_folders_of_the_system_are_no_classes(photos):
    for name in ("@eaDir", "$RECYCLE.BIN", ".Trash-1000", "__MACOSX"):
        shutil.copytree(photos / "cat", photos / name)
    assert Dataset.from_folder(photos).classes == ("cat", "dog")


def test_folders_that_link_to_each_other_are_listed_once(tmp_path):
    for i, name in enumerate("abcdefghijkl"):
        paint(tmp_path / name / "0.jpg", i)
        for other in "abcdefghijkl":
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    assert Dataset.from_folder(tmp_path).ids == tuple(f"{name}/0.jpg" for name in "abcdefghijkl")


def test_what_only_links_lead_to_is_listed_after_every_real_folder(tmp_path):
    root, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    paint(root / "b" / "0.jpg", 0)
    paint(root / "z" / "1.jpg", 1)
    paint(elsewhere / "deep" / "2.jpg", 2)
    (root / "a").mkdir()
    (root / "a" / "more").symlink_to(root / "b")
    (root / "c").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root / "z")  # a link behind a link
    (root / "b" / "in").symlink_to(elsewhere / "deep")  # c is nearer to the top: the class named so is whole
    assert Dataset.from_folder(root).ids == ("b/0.jpg", "c/deep/2.jpg", "z/1.jpg")


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT])
def test_what_is_missing_is_no_name_and_no_group(photos, missing):
    paths = sorted(photos.rglob("*.jpg"))[:4]
    with pytest.raises(DataError, match="expected a label, got"):
        Dataset.from_pairs(paths, ["a", missing, "b", "b"])
    data = Dataset.from_pairs(paths, ["a", "a", "b", "b"], groups=["g", missing, missing, "g"])
    first, second, third, fourth = data.groups.tolist()
    assert first == fourth
    assert len({first, second, third}) == 3


def test_a_series_is_read_by_position(photos):
    paths = pd.Series(sorted(map(str, photos.rglob("*.jpg")))[:4], index=[7, 3, 5, 9])
    data = Dataset.from_pairs(paths, pd.Series(list("abab"), index=[9, 5, 3, 7]))
    assert [data.classes[sample.label] for sample in data.samples] == list("abab")


def test_jfif_is_a_photo(photos):
    (photos / "cat" / "0.jpg").rename(photos / "cat" / "0.jfif")
    assert "cat/0.jfif" in Dataset.from_folder(photos).ids


def test_only_the_same_pixels_are_one_group_where_looks_do_not_count(photos, tmp_path):
    picture = Pillow.open(photos / "cat" / "0.jpg")
    picture.resize((48, 36)).save(photos / "cat" / "small.jpg")
    picture.save(photos / "cat" / "same.png")
    ways = {way: Dataset.from_folder(photos, duplicates=way) for way in ("looks", "exact", "off")}
    group = {way: dict(zip(data.ids, data.groups.tolist(), strict=True)) for way, data in ways.items()}
    assert group["looks"]["cat/0.jpg"] == group["looks"]["cat/small.jpg"] == group["looks"]["cat/same.png"]
    assert group["exact"]["cat/0.jpg"] == group["exact"]["cat/same.png"] != group["exact"]["cat/small.jpg"]
    assert len(set(group["off"].values())) == len(ways["off"])
    with pytest.raises(UnknownNameError, match=r"duplicates.*'look'.*Did you mean looks"):
        Dataset.from_folder(photos, duplicates="look")


def test_a_file_that_is_too_large_is_not_read_behind_a_url_either(monkeypatch):
    fsspec = pytest.importorskip("fsspec", reason="needs the remote extra")
    fsspec.filesystem("memory").pipe_file("/large/cat/0.jpg", b"1234")
    assert files.read("memory://large", "cat/0.jpg") == b"1234"
    monkeypatch.setattr(files, "MAX_BYTES", 3)
    with pytest.raises(OSError, match="it is larger than"):
        files.read("memory://large", "cat/0.jpg")


@pytest.mark.parametrize("place", ["memory://there/{x}", "/here/{x}"])
def test_what_a_system_says_in_braces_is_said_as_it_is(place):
    with pytest.raises(StoreError) as caught, files.guarded(place):
        raise OSError('{"error": {"code": 403}} {')
    assert str(caught.value) == f'{place}: {{"error": {{"code": 403}}}} {{. Is the place reachable?'
    full = r"\{x\}: the disk is full\. Free some space and do {it}"
    with pytest.raises(StoreError, match=full), files.guarded(place, "do {it}"):
        raise OSError(errno.ENOSPC, "No space left on device")
