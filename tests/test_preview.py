import csv

import numpy as np
import pytest
from PIL import Image as Pillow

from commands import topgraft
from photos import paint, paint_folder
from topgraft import _preview
from topgraft._preview import contact
from topgraft._split import split
from topgraft.backbones.fit import fit
from topgraft.cli import app
from topgraft.errors import DataError, DecodeError, UsageError
from topgraft.photos.correct import correct
from topgraft.photos.corrections import Correction, Corrections
from topgraft.photos.dataset import Dataset
from topgraft.policies.grid import draw
from topgraft.policies.policy import Policy, View, render


@pytest.fixture
def folder(tmp_path):
    return paint_folder(tmp_path / "photos", rice=6, bread=5)


@pytest.fixture
def data(folder):
    return Dataset.from_folder(folder)


def table(folder):
    with (folder / "views.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pixels(path):
    with Pillow.open(path) as picture:
        return np.asarray(picture)


def test_single_views_are_those_of_embedding(data, tmp_path):
    _preview.preview(data, n=6, seed=3, grid="gentle", save_to=tmp_path / "views")
    rows = table(tmp_path / "views")
    by_id = {one.id: i for i, one in enumerate(data.samples)}
    assert [row["file"] for row in rows][:7] == [f"policy-{i:03d}.png" for i in range(7)]
    assert [row["policy"] for row in rows][:7] == ["identity", *map(str, draw(6, 3, "gentle"))]
    assert len([row for row in rows if row["file"].startswith("photo")]) == 7
    for row in rows:
        i = by_id[row["photo"]]
        image = fit(data.image(i), _preview.CARD)
        view = View(Policy.parse(row["policy"]), int(row["index"]), int(row["seed"]))
        expected = render(image, view, data.samples[i].digest)
        assert np.array_equal(pixels(tmp_path / "views" / row["file"]), expected)


def test_only_the_training_side_is_shown(data, tmp_path):
    allowed = [one.id for one in data.samples][3:5]
    _preview.preview(data, n=9, ids=allowed, save_to=tmp_path / "views")
    assert {row["photo"] for row in table(tmp_path / "views")} == set(allowed)


def test_the_command_shows_what_training_with_the_same_corrections_learns_from(data, folder, tmp_path):
    words = Corrections(tmp_path / "words.csv")
    for press, one in enumerate(data.samples[:3], 1):  # bread that is rice: the classes are dealt anew
        words.add([Correction(press, "label", "rice", "bread", one.id, str(folder), one.digest)])
    words.close()
    learned = split(correct(data, words.path).data, test=0.3).train
    assert set(learned) != set(split(data, test=0.3).train)
    options = ["--policies", "15", "--test", "0.3", "--save-to", tmp_path / "views", "-o", tmp_path / "a.png"]
    done = topgraft("preview", folder, *options, "--corrections", words.path)
    assert done.returncode == 0, done.stderr
    assert {row["photo"] for row in table(tmp_path / "views")} == set(learned)


def test_the_first_id_is_the_photo_under_each_policy(data, tmp_path):
    _preview.preview(
        data, n=2, ids=["rice/004.jpg", "rice/001.jpg", "bread/003.jpg"], save_to=tmp_path / "views"
    )
    assert [row["photo"] for row in table(tmp_path / "views")] == [
        *["rice/004.jpg"] * 3,
        *["rice/004.jpg", "bread/003.jpg", "rice/001.jpg"],
    ]
    with pytest.raises(DataError, match=r"no photo has the id 'rice/x.jpg'"):
        _preview.preview(data, ids=["rice/x.jpg"])
    with pytest.raises(DataError, match="no training photo"):
        _preview.preview(data, ids=[])


def test_a_split_that_came_with_the_data_is_kept(tmp_path):
    for side, n in (("train", 3), ("test", 4), ("val", 4)):
        for i in range(n):
            paint(tmp_path / "photos" / side / "rice" / f"{i}.jpg", seed=len(side) * 100 + i)
    data = Dataset.from_folder(tmp_path / "photos")
    _preview.preview(data, n=9, save_to=tmp_path / "views")
    assert {row["photo"] for row in table(tmp_path / "views")} == {f"train/rice/{i}.jpg" for i in range(3)}


def test_classes_take_turns(data, tmp_path):
    _preview.preview(data, n=7, save_to=tmp_path / "views")
    shown = [
        row["photo"].split("/")[0] for row in table(tmp_path / "views") if row["file"].startswith("photo")
    ]
    assert shown == ["bread", "rice"] * 4


def test_the_sheet_repeats_and_another_seed_differs(data):
    first, again, other = (_preview.preview(data, n=5, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(np.asarray(first), np.asarray(again))
    assert first.size != other.size or not np.array_equal(np.asarray(first), np.asarray(other))


def test_colours_are_those_of_the_photo(tmp_path):
    colour = (200, 30, 90)
    Pillow.new("RGB", (300, 300), colour).save(tmp_path / "plain.png")
    sheet = np.asarray(_preview.preview([tmp_path / "plain.png"], n=1, grid="gentle", side_px=100))
    assert (sheet == colour).all(axis=2).sum() == 2 * 100 * 100


def test_the_sheet_is_even(tmp_path):
    """Pictures stand on one raster: equal sides, equal gaps, equal margins left and right."""
    colour = (10, 200, 30)
    Pillow.new("RGB", (50, 50), colour).save(tmp_path / "plain.png")
    sheet = np.asarray(_preview.preview([tmp_path / "plain.png"], n=15, grid="gentle", side_px=90))
    there = (sheet == colour).all(axis=2)
    edges = np.flatnonzero(np.diff(there.any(axis=0).astype(int)))
    starts, ends = edges[::2] + 1, edges[1::2] + 1
    assert set(ends - starts) == {90}
    assert set(np.diff(starts)) == {90 + contact.GAP_PX}
    assert starts[0] == contact.MARGIN_PX == sheet.shape[1] - ends[-1]
    assert len(starts) == 8


@pytest.mark.parametrize(("tiles", "columns"), [(1, 1), (3, 3), (16, 8), (17, 6), (18, 6), (31, 8), (41, 7)])
def test_columns_leave_few_holes(tiles, columns):
    assert contact.columns_for(tiles) == columns


def test_no_caption_is_wider_than_its_picture():
    text = str(
        Policy.parse("rotate(120) | shift(0.6,0.1) | shear(34.38) | zoom(0.1,1.9) | vflip | fill(wrap)")
    )
    for width in (40, 90, 180):
        lines = contact._lines(text, width, " | ", 13)
        assert all(contact._font(line, 13).getlength(line) <= width for line in lines)
    assert " | ".join(contact._lines(text, 180, " | ", 13)) == text


def test_names_in_other_scripts_do_not_stop_it(tmp_path):
    photo = paint(tmp_path / "寿司é.jpg", 1)
    assert _preview.preview([photo], n=2).size[0] > 0


def test_own_policies(data, tmp_path):
    _preview.preview(data, policies=[Policy(hflip=True)], save_to=tmp_path / "views")
    assert [row["policy"] for row in table(tmp_path / "views")][:2] == ["identity", "hflip"]
    _preview.preview(data, policies=[], save_to=tmp_path / "none")
    assert [row["policy"] for row in table(tmp_path / "none")] == ["identity"]


def test_nothing_is_written_into_the_photo_folder(data, folder):
    for place in ({"out": folder / "a.png"}, {"save_to": folder / "rice" / "views"}):
        with pytest.raises(UsageError, match="lies in the photo folder"):
            _preview.preview(data, n=1, **place)
    assert Dataset.from_folder(folder).ids == data.ids


def test_beside_a_table_is_not_among_its_photos(folder, tmp_path):
    photo = next(folder.rglob("*.jpg"))
    (tmp_path / "t.csv").write_text(f"path,label\n{photo.relative_to(tmp_path)},rice\n")
    listed = Dataset.from_csv(tmp_path / "t.csv")
    _preview.preview(listed, n=1, out=tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()
    with pytest.raises(UsageError, match="holds photos"):
        _preview.preview(listed, n=1, save_to=tmp_path)


def test_bad_places_are_refused(data, tmp_path):
    with pytest.raises(UsageError, match=r"must end in .png"):
        _preview.preview(data, n=1, out=tmp_path / "a.txt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="new or empty folder"):
        _preview.preview(data, n=1, save_to=tmp_path / "full")
    with pytest.raises(UsageError, match="cannot be written"):
        _preview.preview(data, n=1, out=tmp_path / "full" / "mine.txt" / "a.png")
    with pytest.raises(DecodeError, match="cannot be opened"):
        _preview.preview([tmp_path / "gone.jpg"], n=1)


def test_the_command_writes_the_sheet(folder, tmp_path, capsys):
    out, views = tmp_path / "sheet.png", tmp_path / "views"
    app(
        [
            "preview",
            str(folder),
            "--policies",
            "4",
            "--grid",
            "photo",
            "-o",
            str(out),
            "--save-to",
            str(views),
        ],
        standalone_mode=False,
    )
    assert capsys.readouterr().out.strip() == str(out)
    assert pixels(out).shape[2:] == (3,)
    assert [row["policy"] for row in table(views)][1:5] == list(map(str, draw(4, 0, "photo")))


def test_the_command_shows_what_train_would_train_on(folder, tmp_path):
    from topgraft._split import split

    data, views = Dataset.from_folder(folder), tmp_path / "views"
    sides = {seed: set(split(data, test=0.2, seed=seed).train) for seed in range(20)}
    seed = next(
        seed for seed, side in sides.items() if "bread/000.jpg" not in side
    )  # else the first one shown
    app(
        ["preview", str(folder), "--seed", str(seed), "-o", str(tmp_path / "a.jpg"), "--save-to", str(views)],
        standalone_mode=False,
    )
    assert {row["photo"] for row in table(views)} <= sides[seed]


def test_the_command_shows_what_train_would_train_on_in_groups(folder, tmp_path):
    from topgraft._split import split

    alone, joined = Dataset.from_folder(folder), Dataset.from_folder(folder, group_by=r"\d+")
    sides = {seed: [set(split(data, seed=seed).train) for data in (alone, joined)] for seed in range(40)}
    seed = next(seed for seed, (one, other) in sides.items() if "bread/000.jpg" in one - other)
    views = tmp_path / "views"
    options = [
        "--group-by",
        r"\d+",
        "--seed",
        str(seed),
        "-o",
        str(tmp_path / "a.jpg"),
        "--save-to",
        str(views),
    ]
    app(["preview", str(folder), "--policies", "2", *options], standalone_mode=False)
    assert {row["photo"] for row in table(views)} <= sides[seed][1]


def test_the_command_takes_one_photo(folder, tmp_path):
    out = tmp_path / "one.webp"
    app(
        ["preview", str(folder / "rice" / "000.jpg"), "--policies", "2", "-o", str(out)],
        standalone_mode=False,
    )
    with Pillow.open(out) as sheet:
        assert sheet.format == "WEBP"


@pytest.mark.parametrize("place", ["file/views", "/proc/views", "n" * 300])
def test_a_place_that_cannot_be_written_is_one_line(data, tmp_path, place):
    (tmp_path / "file").write_text("")
    for options in ({"save_to": tmp_path / place}, {"out": tmp_path / place / "sheet.png"}):
        with pytest.raises(UsageError, match=r"cannot be written \(.*\)\. Give another place"):
            _preview.preview(data, n=1, **options)
