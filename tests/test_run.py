"""A run's folder is made once, read back, and never taken from anything else."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import pytest

from run_folder import write_run
from topgraft._check import Health
from topgraft.config import Config
from topgraft.errors import DataError, StoreError, UsageError
from topgraft.run import Run, versions
from topgraft.run.origin import photos_of
from topgraft.run.predictions import read_predictions


def test_files_come_back_as_they_were_written(tmp_path):
    run = Run.create(tmp_path / "a" / "b")
    run.write_json("metrics.json", {"z": 1.5, "a": ["ä"]})
    run.write_table("predictions.csv", ["id", "p"], [["x,y", 0.1]])
    assert Run.open(run.path).read("metrics.json") == {"z": 1.5, "a": ["ä"]}
    assert run.read_table("predictions.csv") == [{"id": "x,y", "p": "0.1"}]
    assert run.read("curves.json") == {}
    assert run.read_table("none.csv") == []
    assert {one.name for one in run.path.iterdir()} == {".topgraft-run", "metrics.json", "predictions.csv"}


def test_numbers_that_are_none_are_never_written(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        Run.create(tmp_path / "r").write_json("metrics.json", {"a": float("nan")})


def test_a_full_folder_is_refused_unless_asked(tmp_path):
    run = Run.create(tmp_path / "r")
    run.write_json("metrics.json", {})
    with pytest.raises(UsageError, match=r"holds a finished run, which stays as it is\..*Or --overwrite"):
        Run.create(tmp_path / "r")
    assert Run.create(tmp_path / "r", resume=True).read("metrics.json") == {}
    assert [one.name for one in Run.create(tmp_path / "r", overwrite=True).path.iterdir()] == [
        ".topgraft-run"
    ]


@pytest.mark.parametrize("how", ["overwrite", "resume"])
def test_only_a_run_is_touched(tmp_path, how):
    (tmp_path / "holiday.jpg").write_text("precious")
    (tmp_path / "config.toml").write_text("another program's")
    with pytest.raises(UsageError, match="is not a run, so nothing in it is touched"):
        Run.create(tmp_path, **{how: True})
    assert (tmp_path / "config.toml").read_text() == "another program's"
    assert (tmp_path / "holiday.jpg").read_text() == "precious"
    with pytest.raises(UsageError, match="found a file"):
        Run.create(tmp_path / "holiday.jpg")


@pytest.mark.parametrize("how", ["overwrite", "resume"])
def test_a_run_at_work_is_left_alone(tmp_path, how):
    run = Run.create(tmp_path / "r")
    run.write_json("metrics.json", {"a": 1})
    with run.locked():
        with pytest.raises(StoreError, match=r"r: another process is writing to it\. Wait"):
            Run.create(tmp_path / "r", **{how: True})
        assert run.read("metrics.json") == {"a": 1}
    Run.create(tmp_path / "r", **{how: True})


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "\0", "[" * 100_000, None])
def test_damaged_files_of_a_run_are_one_line(tmp_path, text):
    run = Run.create(tmp_path / "r")
    for name in ("metrics.json", "config.toml"):
        (run.path / name).mkdir() if text is None else (run.path / name).write_text(text or "= 1")
    for read in (lambda: run.metrics, lambda: run.config):
        with pytest.raises(DataError, match=r"r/(metrics\.json|config\.toml): .*\. Train again\.") as caught:
            read()
        assert "\n" not in str(caught.value)
    if text is not None:
        (run.path / "config.toml").unlink()
        assert run.config is None
        with pytest.raises(DataError, match="names no photos"):
            photos_of(run)


def test_runs_that_other_tests_make_up_have_what_training_writes(tmp_path):
    run = Run(write_run(tmp_path / "run", photos=12, with_photos=False))
    assert all(row.pixels and row.group == row.id for row in read_predictions(run, run.metrics.classes))
    assert run.config.as_dict().keys() == Config().as_dict().keys()
    assert run.read("health.json").keys() == {field.name for field in fields(Health)}


def test_what_cannot_be_written_is_one_line(tmp_path):
    run = Run.create(tmp_path / "r")
    (run.path / "report.html").mkdir()
    with pytest.raises(
        StoreError, match=r"report\.html: a folder lies where a file is needed\. Give another"
    ):
        run.write("report.html", "x")
    assert [one.name for one in run.path.iterdir() if one.name not in (".topgraft-run", "report.html")] == []
    with pytest.raises(StoreError, match="a file lies where a folder is needed"):
        Run(tmp_path / "r" / ".topgraft-run").write("report.html", "x")
    with pytest.raises(StoreError, match="a folder lies where a file is needed"):
        run.write(".", "x")
    with pytest.raises(UsageError, match=r"cannot hold a run .*Choose another name"):
        Run.create(tmp_path / ("x" * 300))


def test_a_link_to_a_run_is_followed(tmp_path):
    Run.create(tmp_path / "r").write_json("metrics.json", {})
    (tmp_path / "link").symlink_to(tmp_path / "r")
    Run.create(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "r" / "metrics.json").exists()


def test_runs_without_a_name_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(Run.create().path) for _ in range(2)] == ["runs/001", "runs/002"]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: str(Run.create().path), range(16)))
    assert len(set(made)) == 16


def test_what_is_no_run_says_so(tmp_path):
    with pytest.raises(DataError, match="found no such folder"):
        Run.open(tmp_path / "no")
    with pytest.raises(DataError, match=r"found a folder of something else"):
        Run.open(tmp_path)
    with pytest.raises(DataError, match="found no such folder"):
        Run.open("x" * 300)
    with pytest.raises(DataError, match="found a file"):
        Run.open(__file__)
    with pytest.raises(DataError, match=r"found one that is not finished\. Give --resume to the command"):
        Run.open(Run.create(tmp_path / "begun").path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        _ = Run.open(tmp_path).metrics


def test_versions_name_what_touches_numbers():
    assert {"python", "numpy", "openvino", "pillow", "topgraft"} <= set(versions())
