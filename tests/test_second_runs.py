"""A second run on the same photos: another name, the same features, and no warning twice."""

from __future__ import annotations

import logging
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import topgraft as tg
from embedding import CARD, POLICIES, a_backbone, embed_here
from photos import paint, paint_folder
from tiny import TINY
from topgraft._embed import asked_for
from topgraft.errors import UsageError
from topgraft.photos.dataset import Dataset
from topgraft.run import Run
from topgraft.run.run import beside, next_name
from topgraft.settings import Settings
from topgraft.show import listen, print_worth
from topgraft.store import FeatureStore
from topgraft.store import adopt as adopting
from topgraft.store.adopt import adopt, lacking
from topgraft.testing.drawing import draw_photos


@pytest.fixture
def painted(tmp_path: Path) -> Path:
    paint_folder(tmp_path / "photos", ant=40, bee=40)
    return tmp_path / "photos"


def asked(photos: Path, folder: Path, **options):
    data = Dataset.from_folder(photos)
    given = {"policies": POLICIES, "engine": "fake"} | options
    return asked_for(data, a_backbone(folder / "backbone"), given.pop("policies"), **given)


def test_rows_are_taken_over_and_only_the_rest_is_computed(
    painted: Path, tmp_path: Path, monkeypatch
) -> None:
    backbone = a_backbone(tmp_path / "backbone")
    first = embed_here(str(painted), str(tmp_path / "first"), backbone)
    table = asked(painted, tmp_path)
    assert lacking(tmp_path / "first", table) == 0
    assert lacking(tmp_path / "second", table) == 80 * (len(POLICIES) + 1)
    assert adopt(tmp_path / "second", table, [tmp_path / "none", tmp_path / "first"]) == [tmp_path / "first"]
    assert lacking(tmp_path / "second", table) == 0
    monkeypatch.setattr("topgraft._embed.partition.views_of_photo", None)  # nothing is computed
    second = embed_here(str(painted), str(tmp_path / "second"), backbone)
    assert second.fingerprint() == first.fingerprint()
    # who gave may go, and who got may be pruned, without harm to the other
    assert second.prune() == 0
    shutil.rmtree(tmp_path / "first")
    assert FeatureStore.open(tmp_path / "second").fingerprint() == first.fingerprint()


def test_what_is_asked_for_is_what_the_machines_engine_gives(
    painted: Path, tmp_path: Path, monkeypatch
) -> None:
    """On CUDA photos are embedded in f16: rows of f32 were taken over, and everything was computed anew."""
    pytest.importorskip("torch")
    monkeypatch.setattr("topgraft.engines._torch.device", lambda _: SimpleNamespace(type="cuda"))
    there = asked(painted, tmp_path, engine="auto", settings=Settings.load(device="cuda"))
    here = asked(painted, tmp_path, engine="auto", settings=Settings.load(device="cpu"))
    assert (there.precision, here.precision) == ("f16", "f32")


def test_new_photos_and_views_alone_are_lacking(painted: Path, tmp_path: Path) -> None:
    backbone = a_backbone(tmp_path / "backbone")
    embed_here(str(painted), str(tmp_path / "first"), backbone, policies=POLICIES[:2])
    for i in range(7):
        paint(painted / "ant" / f"new{i}.jpg", 900 + i)
    table = asked(painted, tmp_path)
    adopt(tmp_path / "second", table, [tmp_path / "first"])
    assert lacking(tmp_path / "second", table) == 7 * 4 + 80
    alone = embed_here(str(painted), str(tmp_path / "alone"), backbone)
    second = embed_here(str(painted), str(tmp_path / "second"), backbone)
    assert second.fingerprint() == alone.fingerprint()
    assert not adopt(tmp_path / "third", asked(painted, tmp_path, seed=5, policies=()), [tmp_path / "gone"])


def test_a_store_of_other_rows_gives_nothing(painted: Path, tmp_path: Path) -> None:
    other = a_backbone(tmp_path / "other", "other.test")
    embed_here(str(painted), str(tmp_path / "first"), other)
    table = asked(painted, tmp_path)
    assert CARD.name != other.card.name
    assert adopt(tmp_path / "second", table, [tmp_path / "first"]) == []
    assert not (tmp_path / "second").exists()


def test_a_store_that_goes_while_rows_are_taken_is_no_error(
    painted: Path, tmp_path: Path, monkeypatch
) -> None:
    embed_here(str(painted), str(tmp_path / "first"), a_backbone(tmp_path / "backbone"))
    link = adopting._link_all

    def gone(source: Path, target: Path) -> None:
        shutil.rmtree(tmp_path / "first", ignore_errors=True)
        link(source, target)

    monkeypatch.setattr(adopting, "_link_all", gone)
    table = asked(painted, tmp_path)
    assert adopt(tmp_path / "second", table, [tmp_path / "first"]) == []
    assert lacking(tmp_path / "second", table) == 80 * (len(POLICIES) + 1)


@pytest.mark.parametrize(
    ("there", "name", "expected"),
    [
        (["001", "002"], "001", "003"),
        (["first"], "first", "first-2"),
        (["first", "first-2"], "first", "first-3"),
        (["first", "first-2"], "first-2", "first-3"),
    ],
)
def test_the_next_name(tmp_path: Path, there: list[str], name: str, expected: str) -> None:
    for folder in there:
        (tmp_path / folder).mkdir()
    assert next_name(tmp_path / name) == tmp_path / expected


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("second")
    draw_photos(folder / "photos", 12, seed=4)
    choices = {"backbone": TINY, "policies": "1!", "heads": "mean", "folds": 2}
    tg.train(folder / "photos", **choices, out=folder / "runs" / "first")
    return folder


def test_training_again_names_the_next_and_uses_the_features(trained: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    first = trained / "runs" / "first"
    choices = {"backbone": TINY, "policies": "1!", "heads": "mean", "folds": 3}
    with pytest.raises(UsageError, match=r"holds a finished run, which stays as it is\. Give `-o .*first-2`"):
        tg.train(trained / "photos", out=first, **choices)
    again = tg.train(trained / "photos", out=next_name(first), **choices)
    said = caplog.messages
    assert f"features that {first} has are used again" in said
    assert any(line.startswith("all ") and line.endswith("views are stored already") for line in said)
    assert not any("images/s" in line for line in said)
    stores = [FeatureStore.open(run / "features.zarr") for run in (first, again.path)]
    assert stores[0].fingerprint() == stores[1].fingerprint()
    assert again.metrics.cross_validation.folds == 3
    # another view alone is computed, and only that is estimated
    caplog.clear()
    tg.train(trained / "photos", **choices | {"policies": "2!"}, out=trained / "runs" / "more")
    photos, learned = len(stores[0].table.digests), len(stores[0].table.varied)
    said = f"so {learned} of {photos + 2 * learned} views, not stored yet, take about"
    assert any(said in line for line in caplog.messages)


def test_only_runs_on_the_same_photos_give(trained: Path, tmp_path: Path) -> None:
    place = trained / "runs" / "new"
    assert trained / "runs" / "first" / "features.zarr" in beside(place, str(trained / "photos"))
    assert beside(place, str(trained / "runs" / ".." / "photos")) == beside(place, str(trained / "photos"))
    assert beside(place, str(tmp_path)) == []
    (trained / "runs" / "broken").mkdir(exist_ok=True)
    (trained / "runs" / "broken" / ".topgraft-run").touch()
    (trained / "runs" / "broken" / "config.toml").write_text("seed = 'x'")
    assert trained / "runs" / "first" / "features.zarr" in beside(place, str(trained / "photos"))


def test_somebody_at_a_terminal_is_asked(trained: Path) -> None:
    here, there = pty.openpty()
    words = ["train", "photos", "-o", "runs/first", "--policies", "1", "--heads", "mean", "--folds", "2"]
    words += ["--backbone", TINY]
    done = subprocess.Popen(
        [sys.executable, "-m", "topgraft.cli", *words],
        cwd=trained,
        stdin=there,
        stderr=there,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(there)
    os.write(here, b"y\n")
    said = b""
    try:
        while part := os.read(here, 4096):
            said += part
    except OSError:  # the other end is closed
        pass
    out, _ = done.communicate(timeout=120)
    names = sorted(path.name for path in (trained / "runs").iterdir())
    assert done.returncode == 0, said.decode()
    assert b"runs/first holds a finished run. Train into runs/first-" in said
    assert "cross-validated" in out
    made = [name for name in names if name.startswith("first-")]
    assert Run.open(trained / "runs" / made[-1]).metrics.cross_validation.folds == 2


def test_equal_warnings_are_one(capsys) -> None:
    listen(verbose=False)
    log = logging.getLogger("topgraft.test")
    handlers = logging.getLogger("topgraft").handlers
    try:
        for said in ("the same", "another", "the same"):
            log.info(said)
        text = capsys.readouterr().err
    finally:
        handlers.pop()
    assert text.splitlines() == ["the same", "another"]


def test_classes_in_one_group_are_one_warning(tmp_path: Path) -> None:
    paint_folder(tmp_path, cat=5, dog=5, eel=5)
    rows = [
        f"{name}/{i:03d}.jpg,{name},{name if name != 'cat' else i}"
        for name in ("cat", "dog", "eel")
        for i in range(5)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,group", *rows]))
    said = [
        line for line in tg.check(Dataset.from_folder(tmp_path / "table.csv")).warnings if "measured" in line
    ]
    assert len(said) == 1
    assert said[0].startswith(
        "Of 2 classes (dog 5, eel 5) all photos are in one group each: they can be learned"
    )


def test_worth_is_one_sorted_table_and_a_verdict(capsys) -> None:
    from test_worth import Source
    from topgraft.selection.worth import worth

    source = Source()
    found = worth(source, source.labels, repeats=1)
    print_worth(found)
    lines = capsys.readouterr().out.splitlines()
    parts = found.numbers["levels"] + found.numbers["policies"]
    rows = lines[2:-2]
    assert len(rows) == len(parts)
    order = sorted(parts, key=lambda part: part["to_view_0"]["log_loss"]["value"])
    for row, part in zip(rows, order, strict=True):
        assert row.startswith(part.get("level") or part["policy"])
    assert rows[0].split()[0].startswith("hflip")
    assert rows[0].endswith("gain")
    assert rows[-1].endswith("harm")
    assert lines[-2] == found.sentences[0]
