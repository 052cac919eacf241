"""Predict as people type it: folders, tables, sorted copies; what is no answer is never read as one."""

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from photos import paint
from tiny import TINY
from topgraft._predict import COLUMNS, Sorter, Table, load_for, photos_in, predict
from topgraft.backbones.fit import fit
from topgraft.cli import app
from topgraft.engines import open_engine
from topgraft.errors import StoreError, UsageError
from topgraft.heads import head_class
from topgraft.importers.load import load_backbone
from topgraft.predictor import Prediction, Predictor
from topgraft.settings import Settings, usable_cores
from topgraft.testing.drawing import CLASSES, draw_jpeg, draw_photo, draw_photos
from topgraft.trust.unknown import Unknown, neighbours


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    backbone = load_backbone(TINY)
    images = np.stack([fit(draw_photo(name, i), backbone.card) for name in CLASSES for i in range(8)])
    with open_engine(backbone) as engine:
        features = engine.embed(images)
    head = head_class("ridge")().fit(features, np.repeat([0, 1], 8))
    made = Predictor.build(
        backbone,
        head,
        classes=CLASSES,
        temperature=1.0,
        unknown=Unknown("neighbours", neighbours(features), 0.6, 0.95, {}),
    )
    return made.save(tmp_path_factory.mktemp("run") / "model")


@pytest.fixture
def photos(tmp_path):
    draw_photos(tmp_path / "photos", 3, seed=9)
    paint(tmp_path / "photos" / "stranger.jpg", 1)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "photos" / "notes.txt").write_text("no photo by its name")
    return tmp_path / "photos"


def invoke(*words, stdin=None):
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


def test_folders_are_walked_and_files_taken_as_they_are(photos):
    found = list(photos_in([photos, "gone.jpg"]))
    assert len(found) == 9
    assert found[-1] == "gone.jpg"
    assert not any(name.endswith(".txt") for name in found)
    (photos.parent / "empty").mkdir()
    with pytest.raises(UsageError, match="expected photos in the folder, found none"):
        list(photos_in([photos.parent / "empty"]))


def test_every_output_tells_answers_from_what_is_none(model, photos):
    answered = {Path(p.path).name: p for p in predict(model, photos)}
    assert answered["stranger.jpg"].unknown
    assert answered["stranger.jpg"].answer == ""
    assert "is not a picture" in answered["broken.jpg"].error
    sure = next(p for p in answered.values() if p.answer)
    assert sure.answer == sure.label in CLASSES
    assert sure.runner_up in set(CLASSES) - {sure.label}
    unsure = list(predict(model, photos, answer_above=1.0))
    assert all(p.unsure and not p.answer for p in unsure if not p.error)
    with pytest.raises(UsageError, match="answer_above must be from 0 to 1, got 90"):
        list(predict(model, photos, answer_above=90))


def test_the_table_has_constant_columns_and_no_formulas():
    held = io.StringIO()
    table = Table(held)
    table.add(Prediction("=cmd()", 0.99, True, {"=cmd()": 0.99, "b": 0.01}, 2.5, False, "-a.jpg"))
    table.add(Prediction(path="bad.jpg", error="bad.jpg: is empty (0 bytes)"))
    first, second = csv.DictReader(io.StringIO(held.getvalue()))
    assert tuple(first) == COLUMNS
    assert first == {
        "path": "'-a.jpg", "answer": "", "label": "'=cmd()", "probability": "0.99", "runner_up": "b",
        "unknown": "yes", "unsure": "no", "distance": "2.5", "error": "",
    }  # fmt: skip
    assert second["error"] == "bad.jpg: is empty (0 bytes)"
    assert second["answer"] == second["label"] == second["unknown"] == ""


@pytest.mark.parametrize("link", [False, True])
def test_photos_are_sorted_without_moving_or_overwriting_any(model, photos, tmp_path, link):
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    for _ in range(2):  # the second time nothing is left to do
        sorter = Sorter(tmp_path / "sorted", CLASSES, link=link)
        for prediction in predict(model, photos):
            sorter.add(prediction)
    assert sorter.there == 7
    assert sum(sorter.put.values()) == 0
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before
    lying = list((tmp_path / "sorted").rglob("*.jpg"))
    assert len(lying) == 7
    assert (tmp_path / "sorted" / "unknown" / "stranger.jpg").exists()
    assert all(path.is_symlink() == link for path in lying)
    paint(tmp_path / "other" / "stranger.jpg", 2)
    sorter.add(next(iter(predict(model, tmp_path / "other"))))
    assert (tmp_path / "sorted" / "unknown" / "stranger-2.jpg").exists()


@pytest.mark.parametrize("name", ["..", "a/b", "Unknown", "unsure"])
def test_classes_that_cannot_be_folders_are_refused_before_the_first_photo(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be a folder here"):
        Sorter(tmp_path / "sorted", ["ant", name])
    assert not (tmp_path / "sorted").exists()


def test_nothing_is_sorted_into_a_folder_whose_photos_are_read(model, photos):
    before = sorted(photos.rglob("*"))
    for folder in (photos, photos / "sorted", photos / ".." / photos.name / "sorted"):
        done = invoke("predict", model, photos, "--sort-into", folder)
        assert isinstance(done.exception, UsageError)
        assert "which is read: its photos would be answered again the next time" in str(done.exception)
    assert sorted(photos.rglob("*")) == before


def test_the_command_writes_a_table_sorts_and_fails_for_what_it_could_not_read(model, photos, tmp_path):
    sheet, folder = tmp_path / "t.csv", tmp_path / "s"
    done = invoke("predict", model, photos, "--csv", sheet, "--sort-into", folder, "--nl")
    assert done.exit_code == 1
    rows = list(csv.DictReader(io.StringIO(sheet.read_text())))
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(rows) == len(said) == 8
    assert "; 1 could not be read" in done.stderr
    assert [row["answer"] for row in rows] == [one.get("answer", "") for one in said]
    assert sum(1 for _ in folder.rglob("*.jpg")) == 7


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE, and names a gone reader otherwise")
@pytest.mark.parametrize("words", [["--nl"], []])
def test_a_reader_that_went_away_ends_it_without_a_word_and_leaves_the_table_as_it_was(
    model, photos, tmp_path, words
):
    sheet = tmp_path / "t.csv"
    sheet.write_text("before")
    lines = "\n".join([str(photos / "stranger.jpg")] * 400)
    command = [sys.executable, "-m", "topgraft.cli", "predict", model, "-", *words, "--csv", sheet]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        feeding = threading.Thread(target=feed, args=(process.stdin, lines))
        feeding.start()
        assert process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        feeding.join()
    assert (process.returncode, said) == (141, "")
    assert sheet.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if "t.csv" in path.name] == ["t.csv"]


def feed(pipe, text: str) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(text)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE, and names a gone reader otherwise")
@pytest.mark.parametrize("words", [["--help"], ["backbones", "--json"], ["check", "{photos}"]])
def test_so_does_every_command(photos, words):
    reader, writer = os.pipe()
    os.close(reader)
    words = [word.format(photos=photos) for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "topgraft.cli", *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 141
    assert "roken pipe" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_disk_is_said_of_the_place_that_is_full(model, photos, tmp_path):
    command = [sys.executable, "-m", "topgraft.cli", "predict", model, photos / "stranger.jpg", "--nl"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--csv", tmp_path / "t.csv"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "t.csv" not in done.stderr
    done = invoke("predict", model, photos / "stranger.jpg", "--csv", tmp_path / "none" / "t.csv")
    assert isinstance(done.exception, StoreError)
    assert "t.csv: no such file or folder" in str(done.exception)


def test_a_list_on_stdin_may_end_its_lines_as_windows_does(model, photos):
    paths = "\r\n".join(str(path) for path in sorted((photos / CLASSES[0]).iterdir()))
    done = invoke("predict", model, "-", "--json", stdin=paths + "\r\n")
    assert done.exit_code == 0
    assert len(json.loads(done.stdout)) == 3


DISPENSABLE = {
    *("PIL.AvifImagePlugin", "PIL.WebPImagePlugin", "cv2", "jinja2", "onnx", "openvino.tools.ovc", "pandas"),
    *(
        "pillow_heif",
        "rich",
        "scipy",
        "sklearn",
        "topgraft.heads",
        "topgraft.predictor._build",
        "topgraft.run",
    ),
    *("torch", "zarr"),
}
"""What one photo would wait for, and can do without."""
ALONE = """
import contextlib, sys
sys.stderr.isatty = lambda: bool({watched})
sys.argv = ["topgraft", "predict", *sys.argv[1:]]
from topgraft.cli import main
with contextlib.suppress(SystemExit):
    main()
print(*sys.modules)
print(sys.modules["PIL.Image"].core.get_blocks_max())
"""


@pytest.mark.parametrize("watched", [0, 1])
def test_one_photo_waits_for_no_import_that_it_can_do_without(model, tmp_path, watched, monkeypatch):
    monkeypatch.delenv("PILLOW_BLOCKS_MAX", raising=False)
    photo = tmp_path / "lunch.jpg"
    photo.write_bytes(draw_jpeg("sushi", 1))
    words = [sys.executable, "-c", ALONE.format(watched=watched), model, photo]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    answer, modules, blocks = done.stdout.splitlines()
    assert answer.startswith(f"{photo}\t")
    assert not set(modules.split()) & DISPENSABLE
    assert int(blocks) == 3 * usable_cores(), "Pillow gives no memory back that the next photo needs"


def test_a_predictor_is_made_ready_for_as_many_photos_as_there_are(model, photos):
    names, settings = sorted(map(str, photos.rglob("*.jpg"))), Settings.load(threads=3)

    def ready(given):
        return load_for(model, given, settings=settings)._threads

    assert ready(names[0]) == ready(names[:1]) == 1
    assert ready(names[:2]) == 2
    assert ready(names) == ready(photos) == ready([photos]) == ready(iter(names)) == 3
    alone = [load_for(model, name, settings=settings).predict(name)[0] for name in names[:3]]
    assert alone == list(load_for(model, names, settings=settings).predict(names[:3]))
