"""The label loop without a browser: what is asked, what is kept, and what training makes of it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from typer.testing import CliRunner

import topgraft as tg
from photos import paint_folder
from tiny import TINY
from topgraft._relabel import Review, corrected_photos, table_of, write_layout
from topgraft.cli import app
from topgraft.config import Config
from topgraft.errors import DataError, StoreError, UsageError
from topgraft.photos.correct import correct
from topgraft.photos.corrections import Correction, Corrections, current, read_corrections
from topgraft.recipe import follow
from topgraft.run import Run
from topgraft.run.origin import origin, read_photos
from topgraft.selection.brought import brought
from topgraft.selection.teaching import most_useful, unit
from topgraft.settings import Settings
from topgraft.testing.drawing import draw_photos

WRONG = ("sushi/wrong.jpg", "sandwich/wrong.jpg")


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Note bytes and times of all files."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Fourteen drawn photos a class, and one of each in the other's folder."""
    root = tmp_path_factory.mktemp("review") / "photos"
    draw_photos(root, 15, seed=0)
    for wrong, right in (WRONG, WRONG[::-1]):
        first = min((root / right.split("/")[0]).glob("*.jpg"))
        first.rename(root / wrong)
    return root


@pytest.fixture(scope="module")
def fresh(photos) -> Path:
    """Photos without labels: eighteen new ones in one folder, and one that the run has."""
    drawn = draw_photos(photos.parent / "drawn", 8, seed=5)
    folder = photos.parent / "fresh"
    (folder / "deep").mkdir(parents=True)
    for path in sorted(drawn.rglob("*.jpg")):
        copy = shutil.copy(path, folder / "deep" / f"{path.parent.name}-{path.name}")
        if path.stem.endswith("_000"):  # and one a class that looks like another
            Pillow.open(copy).save(copy.with_stem(f"{copy.stem}-again"), quality=60)
    shutil.copy(min((photos / "sushi").glob("*.jpg")), folder / "known.jpg")
    return folder


def trained(photos: Path, out: Path, **options: object) -> Run:
    config = Config.load(
        data__photos=str(photos),
        data__test=0.0,
        backbone__name=TINY,
        policies__count=0,
        heads__names=("logistic",),
        **options,
    )
    return follow(config, out)


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> Run:
    return trained(photos, tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture
def table(tmp_path) -> Path:
    return tmp_path / "my labels.csv"


@pytest.fixture
def review(run, fresh, table) -> Iterator[Review]:
    opened = Review.open(run, fresh, corrections=table)
    yield opened
    opened.close()


# the table


decisions = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["label", "none", "skip"]),
            st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True),
            st.sampled_from(["=1+1", "-rice", "Käse, alt", "'quoted", 'a "b"', "-1"]),
        ),
        st.just("undo"),
    ),
    max_size=12,
)


@given(decisions)
def test_what_is_read_again_is_what_was_said_and_not_taken_back(tmp_path_factory, pressed):
    path = tmp_path_factory.mktemp("tables") / "labels.csv"
    table = Corrections(path)
    done: list[dict[str, tuple[str, str]]] = []  # a stack: what each press said
    for press in pressed:
        if press == "undo":
            if (last := table.last_press()) is not None:
                table.add([Correction(last, "undo")])
                done.pop()
            continue
        decision, names, label = press
        label = label if decision == "label" else ""
        number = table.next_press()
        table.add(Correction(number, decision, label, path=name, digest="d") for name in names)
        done.append(dict.fromkeys(names, (decision, label)))
    table.close()
    expected: dict[str, tuple[str, str]] = {}
    for said in done:
        expected |= said
    again = read_corrections(path)
    assert {line.path: (line.decision, line.label) for line in current(again)} == expected
    assert again == table.lines


def test_a_kill_loses_one_decision_at_most(tmp_path):
    path = tmp_path / "labels.csv"
    script = textwrap.dedent("""
        import sys
        from topgraft.photos.corrections import Correction, Corrections
        table = Corrections(sys.argv[1])
        while True:
            number = table.next_press()
            table.add([Correction(number, "label", "rice" * 200, path=f"{number}.jpg", digest="d")])
            print(number, flush=True)
    """)
    for _ in range(3):  # a table that was killed at is gone on with
        command = [sys.executable, "-c", script, path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            begun = said = int(process.stdout.readline())
            while said < begun + 40:
                said = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            # what it said last may be half a number
            said = max([said, *map(int, process.stdout.read().split()[:-1])])
        presses = [line.press for line in read_corrections(path)]
        assert presses == list(range(1, len(presses) + 1))
        assert len(presses) >= said


def test_half_a_line_is_left_out_and_cut_off(table):
    first = Corrections(table)
    first.add([Correction(1, "label", "rice", path="a.jpg", digest="d")])
    first.close()
    with table.open("a") as file:
        file.write("2,label,ri")
    assert [line.press for line in read_corrections(table)] == [1]
    second = Corrections(table)
    second.add([Correction(2, "none", path="b.jpg", digest="e")])
    second.close()
    assert [(line.press, line.path) for line in read_corrections(table)] == [(1, "a.jpg"), (2, "b.jpg")]


HEAD = "press,decision,label,before,path,root,digest,time\n"
LINE = "1,label,rice,,a.jpg,,d,2026-11-26T10:00:00+00:00"


@pytest.mark.parametrize(
    "text",
    [
        '{"precious": "in one line"}',
        "a note",
        "path,label\ra.jpg,rice\r",
        "path,label\na.jpg,rice",
        '\n{"precious": "behind an empty line"}',
        f"{HEAD}2,eat,rice,,a.jpg,,d,",
        HEAD.strip() + ",more",
    ],
)
def test_a_file_that_is_no_table_is_refused_and_left_as_it_is(tmp_path, text):
    table = tmp_path / "labels.csv"
    table.write_bytes(text.encode())
    for _ in range(2):  # nor is a lock held
        with pytest.raises(DataError, match=r"labels\.csv.*: (expected|cannot be read)") as error:
            Corrections(table)
        assert "\n" not in str(error.value)
    assert table.read_bytes() == text.encode()


@pytest.mark.parametrize("cut", range(len(HEAD)))
def test_a_table_that_was_killed_at_its_header_is_begun_anew(table, cut):
    table.write_text(HEAD[:cut])
    assert read_corrections(table) == []
    Corrections(table).close()
    assert table.read_text() == HEAD


@pytest.mark.parametrize("head", [HEAD, HEAD.replace("\n", "\r"), HEAD.replace("\n", "\r\n")])
@pytest.mark.parametrize("end", ["", "\r", "\r\n"])
def test_a_last_line_that_an_editor_ended_in_its_own_way_counts(table, head, end):
    table.write_bytes((head + LINE + end).encode())
    second = Corrections(table)
    second.add([Correction(2, "none", path="b.jpg", digest="e")])
    second.close()
    assert [(line.press, line.path) for line in read_corrections(table)] == [(1, "a.jpg"), (2, "b.jpg")]


@given(st.text(st.sampled_from('ä,"x '), max_size=8), st.data())
def test_wherever_a_line_was_cut_the_others_stay(tmp_path_factory, label, data):
    """Half a character, half a quoted cell: the line counts once its photo is known, else it is left out."""
    path = tmp_path_factory.mktemp("cut") / "labels.csv"
    first = Corrections(path)
    first.add([Correction(1, "label", "rice", path="a.jpg", digest="d")])
    size = path.stat().st_size
    first.add([Correction(2, "label", f"x{label}", path=f"{label}.jpg", digest="e" * 32)])
    first.close()
    whole = read_corrections(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: data.draw(st.integers(size, len(raw)))])
    second = Corrections(path)
    kept = list(second.lines)
    second.add([Correction(3, "none", path="c.jpg", digest="f")])
    second.close()
    assert kept[:1] == whole[:1]
    assert [(line.label, line.photo) for line in kept[1:]] in ([], [(whole[1].label, whole[1].photo)])
    assert read_corrections(path) == second.lines


@pytest.mark.skipif(os.name == "nt", reason="Windows limits no file's size")
def test_a_line_that_the_disk_takes_half_of_is_not_said_to_be_kept(table):
    import resource

    opened = Corrections(table)
    opened.add([Correction(1, "label", "rice", path="a.jpg", digest="d")])
    before = table.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"labels\.csv: the file would be larger"):
            opened.add([Correction(2, "label", "fish", path="b.jpg", digest="e")])
        assert table.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    opened.add([Correction(2, "label", "bread", path="b.jpg", digest="e")])
    opened.close()
    assert [line.label for line in read_corrections(table)] == ["rice", "bread"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\na.jpg,rice\n", "expected a table of corrections with the columns press"),
        ("{head}x,label,rice,,a.jpg,,d,\n", "line 2: expected a press, a decision"),
        ("{head}1,eat,rice,,a.jpg,,d,\n", "line 2: expected a press, a decision"),
        ("{head}1,label,,,a.jpg,,d,\n", "line 2: expected a label, got an empty cell"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(table, text, said):
    table.write_text(text.format(head="press,decision,label,before,path,root,digest,time\n"))
    with pytest.raises(DataError, match=said) as error:
        read_corrections(table)
    assert "\n" not in str(error.value)


# the order


def test_what_is_asked_first_is_in_doubt_and_typical_and_like_nothing_before_it():
    dice = np.random.default_rng(0)
    rows = unit(dice.normal(size=(40, 8)))
    rows[20:] = rows[:20]  # everything twice
    chances = np.tile(dice.uniform(0.2, 0.45, 20), 2)
    order = most_useful(np.column_stack([chances, 1 - chances]), rows, 20)
    assert len({i % 20 for i in order}) == 20  # no twin before every photo had its turn
    crowd = np.eye(8)[[0] * 15 + [1] * 14 + [2]] + 0.1 * dice.normal(size=(30, 8))
    rows = (crowd / np.linalg.norm(crowd, axis=1, keepdims=True)).astype(np.float32)
    same = np.full((30, 2), 0.5)
    first, second = most_useful(same, rows, 2)
    assert {first < 15, second < 15} == {True, False}  # one of each crowd, and not the one that is odd
    assert 29 not in (first, second)
    sure = same.copy()
    sure[[first, second]] = [0.99, 0.01]
    assert not {first, second} & set(most_useful(sure, rows, 2))


@given(st.integers(0, 12), st.integers(2, 4), st.integers(0, 2**16))
def test_every_photo_comes_once(photos, classes, seed):
    dice = np.random.default_rng(seed)
    chances = dice.dirichlet(np.ones(classes), photos)
    order = most_useful(chances, unit(dice.normal(size=(photos, 5))))
    assert sorted(order) == list(range(photos))


# a review


def test_wrong_labels_come_first_then_what_is_strange_then_what_has_no_label(review, run):
    order, why = [], {}
    while photo := review.state()["photo"]:
        order.append(photo["name"])
        why[photo["name"]] = photo["why"]
        review.decide([photo["key"]], "none")
    issues = [issue["id"] for issue in run.metrics.trust.label_issues]
    assert issues
    assert order[: len(issues)] == issues
    assert all("Looks like" in why[name] for name in issues)
    new = [name for name in order if name.startswith("deep/")]
    assert order[-18:] == new
    assert len(new) == 18
    assert "known.jpg" not in order
    assert all("Unlike" in why[name] for name in order[len(issues) : -18])


def test_photos_that_look_the_same_under_two_labels_are_asked_about_side_by_side(photos, table, tmp_path):
    mine = tmp_path / "photos"
    shutil.copytree(photos, mine)
    one = max((mine / "sushi").glob("*.jpg"))
    Pillow.open(one).save(mine / "sandwich" / "twin.jpg", quality=60)
    twins = {"sandwich/twin.jpg", f"sushi/{one.name}"}
    review = Review.open(trained(mine, tmp_path / "run"), corrections=table)
    told = {}
    while (photo := review.state()["photo"]) and not twins <= told.keys():
        told[photo["name"]] = photo
        review.decide([photo["key"]], "skip")
    review.close()
    assert twins <= told.keys()
    for name in twins:
        assert "Looks the same as a photo with another label." in told[name]["why"]
        assert [beside["key"] for beside in told[name]["beside"]] == [told[(twins - {name}).pop()]["key"]]
    assert all(photo["why"] for photo in told.values())  # nothing without a reason came before them


def test_a_review_goes_on_where_it_stopped_and_touches_no_photo(run, photos, fresh, table):
    before = contents(photos) | contents(fresh)
    review = Review.open(run, fresh, corrections=table)
    first = review.state()["photo"]
    review.decide([first["key"]], "label", "sandwich")
    second = review.state()["photo"]
    review.decide([second["key"]], "skip")
    third = review.state()["photo"]
    review.decide([third["key"]], "label", "  a new   class ")
    assert review.state()["classes"] == ["sandwich", "sushi", "a new class"]
    review.undo()
    assert review.state()["classes"] == ["sandwich", "sushi"]
    assert review.state()["photo"]["key"] == third["key"]
    shown = review.state()
    with pytest.raises(StoreError, match="another review writes to it"):
        Corrections(table)
    review.close()
    again = Review.open(run, fresh, corrections=table)
    assert all(again.state()[what] == shown[what] for what in ("classes", "done", "left", "last", "table"))
    assert shlex.split(shown["command"]) == ["topgraft", "train", "PHOTOS", "--corrections", shown["table"]]
    assert again.state()["photo"]["key"] == third["key"]  # what was taken back is asked about at once
    left = shown["left"]
    while again.state()["left"] > 1:
        again.decide([again.state()["photo"]["key"]], "none")
    assert again.state()["photo"]["key"] == second["key"]  # what was skipped comes last
    assert again.state()["done"] == left
    again.undo()
    again.close()
    assert contents(photos) | contents(fresh) == before


def test_photos_like_the_last_one_are_offered_its_label_and_taken_back_together(review):
    while (photo := review.state()["photo"]) and not photo["name"].startswith("deep/"):
        review.decide([photo["key"]], "label", photo["label"])
    offered: list[dict] = []
    while not offered:
        photo = review.state()["photo"]
        review.decide([photo["key"]], "label", photo["name"].split("/")[1].split("-")[0])
        offered = (review.state()["alike"] or {"photos": []})["photos"]
    state = review.state()
    assert {one["name"].split("/")[1].split("-")[0] for one in offered} == {state["alike"]["label"]}
    review.decide([one["key"] for one in offered], "label", state["alike"]["label"])
    assert review.state()["done"] == state["done"] + len(offered)
    assert review.state()["alike"] is None  # they are asked about once
    review.undo()
    assert all(review.state()[what] == state[what] for what in ("done", "left", "last", "alike"))


@pytest.mark.parametrize("name", ["", "  ", "..", "a/b", "a\\b", "a\x07"])
def test_a_class_has_a_name_that_a_folder_can_have(review, table, name):
    with pytest.raises(UsageError, match=r"expected (the|a) name"):
        review.decide([review.state()["photo"]["key"]], "label", name)
    assert read_corrections(table) == []


def test_nothing_is_written_among_the_photos(run, photos):
    with pytest.raises(UsageError, match="lies in the photo folder"):
        Review.open(run, corrections=photos / "labels.csv")


@pytest.mark.parametrize("listed", ["table", "pairs"])
def test_beside_a_table_or_pairs_is_not_among_the_photos(photos, fresh, tmp_path, monkeypatch, listed):
    """`train` lets a run lie there, and where the run lies its corrections do."""
    monkeypatch.chdir(tmp_path)
    paths = []
    for i, path in enumerate(sorted(photos.rglob("*.jpg"))[::2]):
        place = Path("all") if listed == "table" else Path(str(2024 + i % 2), path.parent.name)
        place.mkdir(parents=True, exist_ok=True)
        paths.append(shutil.copy(path, place / f"{path.parent.name}-{path.name}"))
    labels = [path.name.split("-")[0] for path in paths]
    lines = (f"{path},{label}" for path, label in zip(paths, labels, strict=True))
    Path("photos.csv").write_text("\n".join(["path,label", *lines]))
    data = "photos.csv" if listed == "table" else tg.Dataset.from_pairs([*paths], labels)
    options = {"policies": 0, "heads": "mean", "test": 0, "backbone": "tf_efficientnet_lite0.in1k"}
    run = tg.train(data, out="runs/first", **options)
    review = Review.open(run)
    review.close()
    assert review.corrections.path == run.path.resolve().parent / "first-corrections.csv"
    for place in (paths[0].parent / "labels.csv", fresh / "labels.csv"):
        with pytest.raises(UsageError, match=r"lies in the photo folder.*Give --corrections elsewhere"):
            Review.open(run, fresh, corrections=place)
        assert not place.exists()


# what becomes of it


@pytest.fixture(scope="module")
def said(run, photos, fresh, tmp_path_factory) -> Path:
    """The table of a person who knows better: wrong labels put right, new photos labelled, one thrown out."""
    table = tmp_path_factory.mktemp("said") / "labels.csv"
    review = Review.open(run, fresh, corrections=table)
    thrown = sorted(path.name for path in (photos / "sushi").glob("*.jpg"))[5]
    while photo := review.state()["photo"]:
        name = photo["name"]
        if name == f"sushi/{thrown}":
            review.decide([photo["key"]], "none")
        elif name in WRONG:
            review.decide([photo["key"]], "label", "sandwich" if name.startswith("sushi") else "sushi")
        elif name.startswith("deep/"):
            review.decide([photo["key"]], "label", name.split("/")[1].split("-")[0])
        else:
            review.decide([photo["key"]], "label", photo["label"])
    review.close()
    lines = read_corrections(table)
    asked = {line.path for line in lines}
    rest = Corrections(table)  # what the model saw nothing wrong with, the person knows all the same
    for one in tg.Dataset.from_folder(photos).samples:
        if one.id in {*WRONG, f"sushi/{thrown}"} - asked:
            had, other = ("sushi", "sandwich")[:: 1 if one.id.startswith("sushi") else -1]
            said = ("label", other) if one.id in WRONG else ("none", "")
            rest.add([Correction(rest.next_press(), *said, had, one.id, str(photos), one.digest)])
    rest.close()
    return table


def test_new_photos_are_found_again_from_any_working_directory(run, fresh, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(fresh.parent)
    review = Review.open(run, fresh.name, corrections=tmp_path / "table.csv")
    key = next(photo.key for photo in review._photos.values() if not photo.label)
    review.decide([key], "label", "sushi")
    review.close()
    monkeypatch.chdir(tmp_path)
    found = correct(tg.Dataset.from_folder(photos), tmp_path / "table.csv")
    assert len(found.added) == 1
    assert found.lost == 0


@pytest.fixture(scope="module")
def better(said, photos, tmp_path_factory) -> tuple[Run, str]:
    """A run that learned from the table, and what training it printed."""
    out = tmp_path_factory.mktemp("better") / "run"
    choices = ["--policies", "0", "--heads", "ridge", "--test", "0", "--corrections", str(said)]
    choices += ["--backbone", TINY]
    printed = command("train", photos, "-o", out, *choices)
    return Run.open(out), printed


def test_training_applies_corrections_and_says_what_they_brought(said, run, better, tmp_path):
    (better, printed), layout = better, tmp_path / "layout"
    rows = better.read_table("predictions.csv")
    label = {row["id"]: row["label"] for row in rows}
    assert [label[name] for name in WRONG] == ["sandwich", "sushi"]
    assert len(rows) == 30 - 1 + 18
    first, second, *_ = better.metrics.notes
    assert "2 labels changed" in first
    assert "1 photo of no class left out, 18 labelled photos added" in first
    assert "of 29 photos right, out of fold" in second
    assert {first, second} <= set(printed.splitlines())
    report = (better.path / "report.html").read_text(encoding="utf-8")
    assert first in report
    assert second in report
    assert table_of(better) == said  # the next review goes on in the same table
    assert table_of(run) == run.path.parent / "first-corrections.csv"
    assert "lie outside" not in report
    assert command("review", better.path, "--export-to", layout).strip() == str(layout)
    assert (layout / "sandwich" / "wrong.jpg").is_file()
    assert len([*layout.rglob("*.jpg")]) == len(rows)


def test_photos_from_other_folders_are_read_again_by_whoever_starts_from_the_run(better, said, tmp_path):
    run = better[0]
    rows = {row["id"]: row for row in run.read_table("predictions.csv")}
    data = read_photos(run)
    assert {one.id: data.classes[one.label] for one in data.samples} == {
        name: row["label"] for name, row in rows.items()
    }
    assert sum(Path(name).is_absolute() for name in rows) == 18
    assert np.unique(data.groups).size < len(data)  # those that look alike, in the other folder, too
    measured = json.loads(command("evaluate", run.path, "--json"))
    assert measured["members"][0]["scores"]["n"] == len(rows)
    assert tg.export(run, tmp_path / "out").agreement.photos == len(rows)


@pytest.mark.timm
def test_fine_tuning_finds_photos_from_other_folders(better):
    pytest.importorskip("torch", reason="needs the timm extra")
    pytest.importorskip("timm", reason="needs the timm extra")
    from topgraft._finetune.base import Base

    base = Base.of(better[0], settings=Settings.load())
    assert len(base.learn) == len(better[0].read_table("predictions.csv"))


def test_later_words_in_the_table_change_nothing_of_what_a_run_learned(better, said, tmp_path):
    run = Run(Path(shutil.copytree(better[0].path, tmp_path / "run")))
    later = Corrections(shutil.copy(said, tmp_path / "later.csv"))
    one = read_photos(run).samples[0]
    later.add([Correction(later.next_press(), "none", "", "x", one.id, "", one.digest)])
    later.close()
    config = run.config
    run.write_config(
        config.model_copy(update={"data": config.data.model_copy(update={"corrections": str(later.path)})})
    )
    assert read_photos(run).samples == read_photos(better[0]).samples


def test_what_lies_in_the_place_of_a_photo_from_elsewhere_is_not_taken(better, said, fresh, tmp_path):
    """A run may come from a stranger: only bytes that the run and the person's table both know are read."""
    run = Run(Path(shutil.copytree(better[0].path, tmp_path / "run")))
    secret = tmp_path / "secret.jpg"
    shutil.copy(min(fresh.rglob("*.jpg")), secret)
    Pillow.open(secret).rotate(90).save(secret)
    first = next(name for name in (row["id"] for row in run.read_table("predictions.csv")) if name[0] == "/")
    text = (run.path / "predictions.csv").read_text()
    (run.path / "predictions.csv").write_text(text.replace(first, str(secret)))
    data = read_photos(run)
    assert str(secret) not in data.ids
    assert str(secret) in {file.id for file in data.refused}
    with pytest.raises(DataError, match="is not the photo any more"):
        origin(run).read(str(secret))
    config = run.config
    run.write_config(config.model_copy(update={"data": config.data.model_copy(update={"corrections": None})}))
    assert sum("outside" in file.reason for file in read_photos(run).refused) == 18
    with pytest.raises(DataError, match="lies outside"):
        origin(run).read(str(secret))


def command(*words: object) -> str:
    """Return what a command prints."""
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("links", [False, True])
def test_the_corrected_layout_is_a_folder_to_train_from(said, run, photos, fresh, tmp_path, links):
    before = contents(photos) | contents(fresh)
    folder = write_layout(corrected_photos(run, said), tmp_path / "layout", link=links)
    made = tg.Dataset.from_folder(folder)
    meant = correct(tg.Dataset.from_folder(photos), said).data
    key = lambda data: sorted((one.digest, data.classes[one.label]) for one in data.samples)  # noqa: E731
    assert key(made) == key(meant)
    assert {path.is_symlink() for path in folder.rglob("*.jpg")} == {links}
    assert contents(photos) | contents(fresh) == before
    with pytest.raises(UsageError, match="expected a new or empty folder"):
        write_layout(meant, folder)
    with pytest.raises(UsageError, match="photo folder"):
        write_layout(meant, photos / "out")


def test_a_photo_is_known_wherever_it_lies_now(said, photos, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved)
    (moved / "sushi" / "wrong.jpg").rename(moved / "sushi" / "renamed.jpg")
    found = correct(tg.Dataset.from_folder(moved), said)
    label = {one.id: found.data.classes[one.label] for one in found.data.samples}
    assert label["sushi/renamed.jpg"] == "sandwich"
    assert found.lost == 0
    (moved / "sushi" / "renamed.jpg").unlink()
    assert correct(tg.Dataset.from_folder(moved), said).lost == 1


def test_a_photo_that_was_corrected_twice_and_moved_is_known_by_what_it_was_called_in_between(tmp_path):
    """The second word says `before` what the first one made of it, and no folder ever said that."""
    photos = paint_folder(tmp_path / "photos", ant=2, bee=2)
    again = shutil.copy(photos / "bee" / "000.jpg", photos / "bee" / "again.jpg")
    data = tg.Dataset.from_folder(photos)
    digest = dict(zip(data.ids, (one.digest for one in data.samples), strict=True))
    one = digest["ant/000.jpg"]
    twice = [
        Correction(1, "label", "bee", "ant", "ant/000.jpg", "", one),
        Correction(2, "label", "cat", "bee", "ant/000.jpg", "", one),
    ]
    moved = [
        Correction(1, "label", "bee", "ant", "elsewhere.jpg", "", one),
        replace(twice[1], path="there.jpg"),
    ]
    changed_mind = [twice[0], replace(twice[1], before="ant")]  # the same run was asked about it again
    thrown_out = [twice[0], Correction(2, "none", "", "bee", "ant/000.jpg", "", one)]
    taken_back = [*twice, Correction(2, "undo")]
    assert correct(data, twice).changed == {"ant/000.jpg": "ant"}
    (photos / "ant" / "000.jpg").rename(photos / "ant" / "moved.jpg")
    data = tg.Dataset.from_folder(photos)
    for lines, label in (
        (twice, "cat"),
        (moved, "cat"),
        (changed_mind, "cat"),
        (thrown_out, None),
        (taken_back, "bee"),
    ):
        found = correct(data, lines)
        labels = {sample.id: found.data.classes[sample.label] for sample in found.data.samples}
        assert labels.get("ant/moved.jpg") == label
        assert found.lost == 0
        assert {name: label for name, label in labels.items() if name != "ant/moved.jpg"} == {
            name: name.split("/")[0] for name in data.ids if name != "ant/moved.jpg"
        }
    # two photos of one content: what was said of one is not said of the other, which had another label
    shutil.copy(again, photos / "ant" / "copy.jpg")
    data = tg.Dataset.from_folder(photos)
    gone = [
        Correction(1, "label", "bee", "ant", "ant/copy.jpg", "", digest["bee/000.jpg"]),
        Correction(2, "label", "cat", "bee", "bee/gone.jpg", "", digest["bee/000.jpg"]),
    ]
    found = correct(data, gone)
    labels = {sample.id: found.data.classes[sample.label] for sample in found.data.samples}
    assert [labels[name] for name in ("ant/copy.jpg", "bee/000.jpg", "bee/again.jpg")] == [
        "bee",
        "cat",
        "cat",
    ]


def test_corrections_bring_what_wrong_labels_cost():
    dice = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 40)
    rows = dice.normal(size=(120, 20)) + 1.2 * np.eye(20)[labels]
    before = labels.copy()
    before[dice.permutation(120)[:40]] = 0
    found = brought(rows, labels, before, np.arange(120))
    assert found.photos == 120
    assert found.gain.value == pytest.approx(found.after - found.before)
    assert found.gain.low > 0
    before[:] = labels
    before[::4] = -1  # bought photos are not judged, but learned from
    assert brought(rows, labels, before, np.arange(120)).photos == 90


@pytest.mark.skipif(os.name == "nt", reason="Windows opens sockets otherwise")
def test_only_this_machine_is_answered_and_only_what_a_page_of_ours_sends(review, run):
    from fastapi.testclient import TestClient

    from topgraft.serve import create_app

    with pytest.raises(UsageError, match="one person on this machine"):
        create_app(run, review=review)
    client = TestClient(create_app(run, loopback=True, review=review), base_url="http://localhost")
    with client:
        state = client.get("/review/state").json()
        key = state["photo"]["key"]
        said = {"photos": [key], "decision": "label", "label": "sushi"}
        assert client.get("/review/state", headers={"Host": "evil.test"}).status_code == 400
        plain = client.post("/review/undo", content="{}", headers={"Content-Type": "text/plain"})
        assert plain.status_code == 415
        assert client.post("/review/decisions", json=said | {"photos": ["nobody"]}).status_code == 409
        assert client.post("/review/decisions", json=said | {"decision": "undo"}).status_code == 422
        assert client.get("/review/photos/nobody").status_code == 404
        assert client.get("/review/state").json() == state
        assert client.post("/review/decisions", json=said).json()["done"] == 1
        assert client.post("/review/undo", json={}).json() == state | {"last": None, "alike": None}
        picture = client.get(f"/review/photos/{key}", params={"side": 64})
        assert picture.headers["content-type"] == "image/webp"
        assert picture.content[8:12] == b"WEBP"
