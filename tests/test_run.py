"""A run's folder is made once, read back, and never taken from anything else."""

import pytest

from topgraft.errors import DataError, UsageError
from topgraft.run import Run, versions


def test_files_come_back_as_they_were_written(tmp_path):
    run = Run.create(tmp_path / "a" / "b")
    run.write_json("metrics.json", {"z": 1.5, "a": ["ä"]})
    run.write_table("predictions.csv", ["id", "p"], [["x,y", 0.1]])
    assert Run.open(run.path).metrics == {"z": 1.5, "a": ["ä"]}
    assert run.table("predictions.csv") == [{"id": "x,y", "p": "0.1"}]
    assert run.read("curves.json") == {}
    assert run.table("none.csv") == []
    assert {one.name for one in run.path.iterdir()} == {".topgraft-run", "metrics.json", "predictions.csv"}


def test_numbers_that_are_none_are_never_written(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        Run.create(tmp_path / "r").write_json("metrics.json", {"a": float("nan")})


def test_a_full_folder_is_refused_unless_asked(tmp_path):
    run = Run.create(tmp_path / "r")
    run.write_json("metrics.json", {})
    with pytest.raises(UsageError, match="give --overwrite or --resume"):
        Run.create(tmp_path / "r")
    assert Run.create(tmp_path / "r", resume=True).metrics == {}
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


def test_a_link_to_a_run_is_followed(tmp_path):
    Run.create(tmp_path / "r").write_json("metrics.json", {})
    (tmp_path / "link").symlink_to(tmp_path / "r")
    Run.create(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "r" / "metrics.json").exists()


def test_runs_without_a_name_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(Run.create().path) for _ in range(2)] == ["runs/001", "runs/002"]


def test_what_is_no_run_says_so(tmp_path):
    with pytest.raises(DataError, match="found no such folder"):
        Run.open(tmp_path / "no")
    with pytest.raises(DataError, match=r"no metrics\.json in it"):
        Run.open(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        _ = Run.open(tmp_path).metrics


def test_versions_name_what_touches_numbers():
    assert {"python", "numpy", "openvino", "pillow", "topgraft"} <= set(versions())
