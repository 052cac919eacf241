"""Offline opens no socket whatever the path, and a run of a stranger makes nobody fetch or read elsewhere."""

import csv
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

import commands
import topgraft as tg
from embedding import a_backbone, embed_here
from photos import paint, paint_folder
from recording import Recorder
from run_folder import write_run
from topgraft import files
from topgraft._track import track
from topgraft.errors import BackboneError, DataError, OfflineError
from topgraft.run import Run
from topgraft.run.origin import inside, origin, photos_of
from topgraft.settings import Settings
from topgraft.store import FeatureStore
from topgraft.testing.stores import a_card

OFFLINE = Settings.load(offline=True)


@pytest.fixture
def server():
    """A web server that notes every request."""
    with Recorder() as recorder:
        yield recorder
        recorder.shutdown()


@pytest.fixture
def http():
    pytest.importorskip("aiohttp", reason="fsspec reads http:// with aiohttp")


def topgraft(*words, **environment):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return commands.topgraft(*words)


def one_line(done, code, *said):
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert all(words in done.stderr for words in said), done.stderr


def noted(run, place):
    """Let a run's config say where its photos lie."""
    Run(run).write("config.toml", tomli_w.dumps({"data": {"photos": str(place)}}))


def renamed(run, name):
    """Let every line of a run's predictions name one photo, as a stranger might."""
    table = Run(run).read_table("predictions.csv")
    Run(run).write_table(
        "predictions.csv", list(table[0]), [[*({**row, "id": name}.values())] for row in table]
    )


# Offline


@pytest.mark.usefixtures("http")
@pytest.mark.parametrize("place", ["photos", "photos.csv"])
@pytest.mark.parametrize("flag", [True, False])
def test_train_offline_refuses_a_url_before_it_connects(server, tmp_path, place, flag):
    url = f"{server.address}/{place}"
    done = topgraft(
        "train", url, "-o", tmp_path / "run", *["--offline"] * flag, TOPGRAFT_OFFLINE="0" if flag else "1"
    )
    one_line(done, 1, url, "offline", "Give a copy on this one")
    assert server.seen == []
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("http")
def test_without_the_word_it_would_have_connected(server, tmp_path):
    assert topgraft("train", f"{server.address}/photos", "-o", tmp_path / "run").returncode == 1
    assert server.seen


@pytest.mark.usefixtures("http")
def test_stores_and_other_readers_refuse_too(server, tmp_path, monkeypatch):
    url, photos = server.address, paint_folder(tmp_path / "photos", apple=2, pear=2)
    backbone = a_backbone(tmp_path / "backbone")
    with pytest.raises(OfflineError, match="no other machine is asked"):
        embed_here(str(photos), f"{url}/store.zarr", backbone, settings=OFFLINE)
    with pytest.raises(OfflineError, match="Ray's processes"):
        embed_here(str(photos), str(tmp_path / "s.zarr"), backbone, workers="ray", settings=OFFLINE)
    for read in (
        lambda: tg.Dataset.from_folder(f"{url}/a", settings=OFFLINE),
        lambda: tg.Dataset.from_csv(f"{url}/a.csv", settings=OFFLINE),
        lambda: tg.Dataset.from_pairs([f"{url}/a.jpg"], ["a"], settings=OFFLINE),
    ):
        with pytest.raises(OfflineError, match="no other machine is asked"):
            read()
    done = topgraft("train", photos, "--offline", "--store", f"{url}/s.zarr", "-o", tmp_path / "run")
    one_line(done, 1, f"{url}/s.zarr: offline")
    monkeypatch.setenv("TOPGRAFT_OFFLINE", "yes")
    for command in ("check", "info", "evaluate"):
        more = [write_run(tmp_path / "run", photos=12, with_photos=False)] if command == "evaluate" else []
        one_line(topgraft(command, *more, f"{url}/a"), 1, f"{url}/a: offline")
    with pytest.raises(OfflineError):
        FeatureStore.open(f"{url}/s.zarr")
    assert server.seen == []


def test_a_run_is_not_noted_on_a_server_offline(server, tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", photos=12, with_photos=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    with pytest.raises(OfflineError, match="no server is asked"):
        track(run, settings=OFFLINE)
    for place in ("databricks", "postgresql://somewhere/runs"):
        with pytest.raises(OfflineError):
            track(run, uri=place, settings=OFFLINE)
    assert server.seen == []


@pytest.mark.parametrize(
    ("place", "remote"),
    [
        ("photos", False),
        ("/photos", False),
        ("file:///photos", False),
        ("memory://photos", False),
        ("zip://a.jpg::/photos.zip", False),
        ("HTTP://host/photos", True),
        ("s3://bucket", True),
        ("zip://a.jpg::http://host/a.zip", True),
        ("simplecache::http://host/a", True),
        ("file::ftp://host/a", True),
        ("never-heard-of://a", True),
    ],
)
def test_what_only_a_socket_reaches(place, remote):
    assert files.is_remote(place) is remote
    if remote:
        with pytest.raises(OfflineError, match="offline"):
            files.stay_here("photos", place, None, offline=True)
    else:
        files.stay_here(place, offline=True)
    files.stay_here(place, offline=False)


@pytest.mark.usefixtures("http")
@pytest.mark.parametrize("word", ["", "0", "False", "no", "OFF", "1", "true", "Yes", "on"])
def test_both_readers_of_the_environment_take_its_word_alike(word, monkeypatch):
    monkeypatch.setenv("TOPGRAFT_OFFLINE", word)
    with pytest.raises(OfflineError) if Settings.load().offline else nullcontext():
        files.filesystem("http://127.0.0.1:9/photos")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n  two\nlines"), "two"),
        (ValueError(" \n"), "ValueError"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_what_an_error_says_is_one_line(error, line):
    assert files.said(error) == line


# Strangers' runs


@pytest.mark.usefixtures("http")
def test_a_report_asks_another_machine_only_where_the_user_names_it(server, tmp_path):
    run = write_run(tmp_path / "run", photos=20, with_photos=False)
    noted(run, f"{server.address}/photos")
    done = topgraft("report", run)
    assert done.returncode == 0, done.stderr
    assert server.seen == []
    page = (run / "report.html").read_text()
    assert f"its photos lie at {server.address}/photos, and another machine is asked only where" in page
    assert topgraft("report", run, "--photos", f"{server.address}/photos").returncode == 0
    assert server.seen


@pytest.mark.usefixtures("http")
def test_evaluate_and_finetune_do_not_either(server, tmp_path):
    run = write_run(tmp_path / "run", photos=20, with_photos=False)
    noted(run, f"{server.address}/photos")
    one_line(topgraft("evaluate", run), 1, "another machine is asked only where you name it. Give the photos")
    with pytest.raises(DataError, match="only where you name it"):
        photos_of(Run(run))
    assert server.seen == []


@pytest.mark.timm
def test_a_runs_word_fetches_no_backbone(server, tmp_path, monkeypatch):
    pytest.importorskip("timm")
    from topgraft._finetune.base import _find

    monkeypatch.setenv("HF_ENDPOINT", server.address)
    run = write_run(tmp_path / "run", photos=12, with_photos=False)
    Run(run).write("config.toml", tomli_w.dumps({"backbone": {"name": "hf-hub:stranger/gift"}}))
    with pytest.raises(BackboneError, match="Give --backbone hf-hub:stranger/gift to fetch it"):
        _find(Run(run), a_card(), Settings.load(), lambda *_: None)
    assert server.seen == []


@pytest.mark.timm
@pytest.mark.parametrize("fingerprint", ["../../diary", "{folder}/diary"])
def test_a_runs_fingerprint_is_no_path(tmp_path, monkeypatch, fingerprint):
    """It says which folder of the cache is the backbone; a damaged one is removed, and this one is none."""
    pytest.importorskip("timm")
    run = write_run(tmp_path / "run", photos=12, with_photos=False)
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "monday.txt").write_text("precious")
    (tmp_path / "cache" / "backbones").mkdir(parents=True)
    monkeypatch.setenv("TOPGRAFT_CACHE_DIR", str(tmp_path / "cache"))
    facts = json.loads((run / "metrics.json").read_text())
    facts["backbone"]["fingerprint"] = fingerprint.format(folder=tmp_path)
    facts["head"]["name"] = "ridge"
    (run / "metrics.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"metrics\.json: is damaged \(backbone\.fingerprint: "):
        tg.finetune(run, out=tmp_path / "second")
    assert (tmp_path / "diary" / "monday.txt").read_text() == "precious"


@pytest.mark.parametrize("kind", ["absolute", "above", "above later"])
def test_a_photo_outside_the_folder_is_never_read(tmp_path, kind):
    """The photo is there and sound: only its address is wrong."""
    run = write_run(tmp_path / "run", photos=20)
    secret = paint(tmp_path / "secret.jpg", seed=7)
    name = {"absolute": str(secret), "above": "../secret.jpg", "above later": "sushi/../../secret.jpg"}[kind]
    assert Path(tmp_path / "run-photos", name).resolve() == secret
    renamed(run, name)
    read = watched_reads(run)
    assert str(secret) not in read
    page = (run / "report.html").read_text()
    assert "1 photos that the run names lie outside" in page
    assert page.count("data:image/webp") <= len(Run(run).metrics.trust.label_issues)


def watched_reads(run):
    """Write a run's report in a process that says which files it opens."""
    script = (
        "import os, sys; opened = set()\n"
        "def watch(event, arguments):\n"
        "    if event == 'open' and isinstance(arguments[0], (str, os.PathLike)):\n"
        "        opened.add(os.path.realpath(arguments[0]))\n"
        "sys.addaudithook(watch)\n"
        "import topgraft; topgraft.report(sys.argv[1]); print(*opened, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(run)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def table_of(folder, photos):
    """A run whose photos a table lists that lies in another folder; the table."""
    run = write_run(folder / "run", photos=20, photo_folder=folder / "elsewhere")
    ids = {row["id"]: f"../elsewhere/{row['id']}" for row in Run(run).read_table("predictions.csv")}
    (folder / "tables").mkdir()
    with (folder / "tables" / "photos.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows([path, name.split("/")[0]] for name, path in ids.items())
    table = Run(run).read_table("predictions.csv")
    lines = [[*({**row, "id": ids[row["id"]]}.values())] for row in table]
    Run(run).write_table("predictions.csv", list(table[0]), lines)
    noted(run, folder / "tables" / "photos.csv")
    return run, folder / "tables" / "photos.csv"


def test_a_table_that_the_user_names_may_list_photos_anywhere(tmp_path):
    run, table = table_of(tmp_path, 20)
    tg.report(run)
    assert "lie outside" in (run / "report.html").read_text()
    assert (run / "report.html").read_text().count("data:image/webp") == 0
    tg.report(run, photos=table)
    assert "lie outside" not in (run / "report.html").read_text()
    assert (run / "report.html").read_text().count("data:image/webp") > 10
    one_line(topgraft("evaluate", run), 1, "lists photos outside its folder", "Give the table, too")


def test_one_photo_that_no_table_lists_stays_unread_though_the_table_is_named(tmp_path):
    run, table = table_of(tmp_path, 20)
    secret = paint(tmp_path / "secret.jpg", seed=7)
    found = origin(Run(run), table)
    assert found.read("../elsewhere/" + next(iter(found.listed)).removeprefix("../elsewhere/"))
    for name in (str(secret), "../secret.jpg", "a\0.jpg"):
        assert not found.may_read(name)
        with pytest.raises(DataError, match="lies outside"):
            found.read(name)


def test_a_run_that_names_no_photos_says_so(tmp_path):
    run = write_run(tmp_path / "run", photos=20, with_photos=False)
    for config in ({}, {"data": {}}, {"data": {"photos": ""}}):
        Run(run).write("config.toml", tomli_w.dumps(config))
        tg.report(run)
        assert "its config.toml names no photos" in (run / "report.html").read_text()
        with pytest.raises(DataError, match="names no photos"):
            photos_of(Run(run))
    with pytest.raises(DataError, match="names no photos"):
        origin(Run(run)).read("a.jpg")


def test_photos_are_named_for_one_report_not_for_a_comparison(tmp_path):
    run = write_run(tmp_path / "run", photos=20, with_photos=False)
    one_line(topgraft("report", run, "--compare", "--photos", tmp_path), 2, "--compare shows none")


@given(st.lists(st.sampled_from(["a", "..", ".", "b.jpg", "/", "c:", "…", "\0"]), min_size=1).map("/".join))
def test_what_is_inside_stays_inside(name):
    if "\0" not in name:
        whole = os.path.normpath(Path("/top", name))
        assert not inside(name) or Path(whole).is_relative_to("/top")
    else:
        assert not inside(name)
    assert inside("a/b.jpg")
    assert inside("a..b/..c.jpg")


def test_every_reader_asks_where_the_photos_are():
    """No other file takes the place of a run's photos from its config."""
    package = Path(tg.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "config.data.photos" in path.read_text(encoding="utf-8")
    }
    own_word = {"recipe.py", "_run_recipe.py"}  # the recipe's photos are what the user names
    compared = {"_grow.py", "run/run.py"}  # two runs' names for their photos; nothing is read
    assert found == {"run/origin.py"} | own_word | compared
