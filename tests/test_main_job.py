"""The main job, end to end, on drawn photos and on the real ones: nothing in it is a stand-in."""

import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import topgraft as tg
from commands import topgraft
from tiny import TINY
from topgraft._finetune.plan import Training
from topgraft.config import Config
from topgraft.errors import BackboneError, DataError, StoreError, TopgraftError, UnknownNameError, UsageError
from topgraft.recipe import follow
from topgraft.run import Run
from topgraft.show import print_verdict
from topgraft.testing.drawing import draw_photos

SMALL = "tf_efficientnet_lite0"  # that a larger one is tried by default, tests/test_try_backbones.py holds
CHOICES = {  # with all its heads it is run on the real photos
    "backbone__name": TINY,
    "policies__count": "3!",
    "heads__names": ("ridge", "mean"),
}
FILES = {
    ".topgraft-run",
    "fits.json",
    "config.toml",
    "health.json",
    "metrics.json",
    "predictions.csv",
    "report.html",
    "timings.json",
    "versions.json",
}


def command(*words, **options):
    line = [sys.executable, "-m", "topgraft.cli", *map(str, words)]
    return subprocess.run(line, check=False, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("drawn") / "photos", 24, seed=0)


@pytest.fixture(scope="module")
def config(photos):
    return Config.load(data__photos=str(photos), **CHOICES)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    return follow(config, tmp_path_factory.mktemp("runs") / "first")


def test_the_run_has_all_its_files(run):
    assert {one.name for one in run.path.iterdir() if one.is_file()} == FILES
    assert {one.name for one in run.model.iterdir()} >= {"model.onnx", "card.json"}
    resolved = tomllib.loads((run.path / "config.toml").read_text())
    assert Config.model_validate(resolved).policies.count == "3!"


def test_numbers_are_neither_chance_nor_perfect_without_doubt(run):
    metrics = run.metrics
    assert metrics.counts.photos == 48
    assert metrics.counts.train + metrics.counts.test == 48
    assert metrics.counts.views == 4
    accuracy = metrics.cross_validation.accuracy
    assert 0.6 < accuracy.value <= 1
    assert accuracy.low < accuracy.value <= accuracy.high <= 1
    assert metrics.cross_validation.n == metrics.counts.train
    assert metrics.test.n == metrics.counts.test
    assert sum(row.chosen for row in metrics.leaderboard) == 1


def test_photos_held_out_are_embedded_as_they_are(run):
    store = tg.FeatureStore.open(run.path / "features.zarr")
    held = {row["id"] for row in run.read_table("predictions.csv") if row["split"] == "test"}
    assert store.plain == held != set()
    out = np.array([name in held for name in store.ids])
    assert np.isfinite(store.features()).all()
    for view in (1, 2, 3):
        np.testing.assert_array_equal(np.isnan(store.features(view)).all(axis=1), out)
    with pytest.raises(UsageError, match=r"\d+ photos were held out and have no view but 0\. Leave them out"):
        tg.compare_heads(store, heads="mean", with_test=True)


@pytest.fixture(scope="module")
def grown(photos, tmp_path_factory):
    said = []
    log = logging.getLogger("topgraft")
    note = type("Note", (logging.Handler,), {"emit": lambda _, record: said.append(record.getMessage())})()
    log.addHandler(note)
    log.setLevel(logging.INFO)
    config = Config.load(
        data__photos=str(photos),
        backbone__name=TINY,
        policies__count=6,
        heads__names=("ridge",),
    )
    run = follow(config, tmp_path_factory.mktemp("grown") / "run")
    log.removeHandler(note)
    return config, run, said


def test_the_first_answer_comes_first_and_views_are_kept_while_they_pay(grown):
    _, run, said = grown
    metrics = run.metrics
    taken, kept = metrics.views["steps"], metrics.views["kept"]
    assert [step["policies"] for step in taken] in ([4], [4, 6])
    assert [step["pays"] for step in taken[:-1]] == [True] * (len(taken) - 1)
    assert kept == max((step["policies"] for step in taken if step["pays"]), default=0)
    assert len(metrics.policies) == kept == metrics.counts.views - 1
    at = taken[-1 if taken[-1]["pays"] else -2] if kept else metrics.views["view_0"]
    assert metrics.cross_validation.log_loss.value == pytest.approx(at["log_loss"])
    assert metrics.cross_validation.accuracy.value == pytest.approx(at["accuracy"])
    first = next(i for i, line in enumerate(said) if line.startswith("first answer, "))
    after = [i for i, line in enumerate(said) if line.startswith("with ")]
    assert len(after) == len(taken)
    assert first < min(after)
    assert all(re.search(r"\(\d+ s, \d+ s since the start\)$", said[i]) for i in after)
    assert f"log loss {metrics.views['view_0']['log_loss']:.3f} [" in said[first]
    assert sum("Augmented views" in note for note in metrics.notes) == 1
    store = tg.FeatureStore.open(run.path / "features.zarr")
    assert [str(view.policy) for view in store.views[1:]] == metrics.policies
    assert {"photos as they are", "4 views"} <= run.read("timings.json").keys()


def test_steps_that_are_broken_off_end_in_the_same_numbers(grown, tmp_path):
    config, run, _ = grown
    seen = 0

    def press(what, done, _total):
        nonlocal seen
        seen += what == "embedding" and done == 0
        if seen == 2 and done > 20:  # in the middle of the first step
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(config, tmp_path / "run", progress=press)
    assert tg.FeatureStore.open(tmp_path / "run" / "features.zarr").missing()
    again = follow(config, tmp_path / "run", resume=True)
    assert (again.path / "metrics.json").read_bytes() == (run.path / "metrics.json").read_bytes()


def test_predictions_add_up_to_the_metrics(run):
    rows = run.read_table("predictions.csv")
    for split, key in (("cv", "cross_validation"), ("test", "test")):
        mine = [row for row in rows if row["split"] == split]
        right = np.mean([row["label"] == row["predicted"] for row in mine])
        assert right == pytest.approx(getattr(run.metrics, key).accuracy.value)
    assert len({row["id"] for row in rows}) == 48


def test_the_same_seed_gives_the_same_bytes(run, config, tmp_path):
    again = follow(config, tmp_path / "again")
    for name in ("metrics.json", "predictions.csv"):
        assert (again.path / name).read_bytes() == (run.path / name).read_bytes()
    text = (run.path / "metrics.json").read_text()
    assert str(run.path) not in text
    assert "seconds" not in text


def test_resume_uses_every_stored_feature(run, config, tmp_path, photos, monkeypatch):
    shutil.copytree(run.path, tmp_path / "copy")

    def never(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr("topgraft._embed.partition.views_of_photo", never)
    again = follow(config, tmp_path / "copy", resume=True)
    assert again.metrics == run.metrics


def test_train_takes_photos_that_are_read_already(run, config, photos, tmp_path):
    store = shutil.copytree(run.path / "features.zarr", tmp_path / "features.zarr")
    again = tg.train(tg.Dataset.from_folder(photos), config=config, store=store, out=tmp_path / "run")
    assert again.metrics == run.metrics
    assert again.config == run.config
    assert (again.path / "report.html").is_file()


def test_train_says_what_is_for_photos_and_what_for_features(run, photos, tmp_path, monkeypatch):
    store = tg.FeatureStore.open(run.path / "features.zarr")
    with pytest.raises(UsageError, match="split: a split is for a feature store"):
        tg.train(photos, tg.Split(train=store.ids))
    with pytest.raises(UsageError, match="config: a recipe is for photos"):
        tg.train(store, config=Config())
    for wrong in ({"answer_above": 90}, {"right": 0.0}, {"answer_above": 0.5, "right": 0.9}):
        with pytest.raises(UsageError, match="answers"):
            tg.train(store, out=tmp_path / "run", **wrong)

    def gone(card, **_):
        raise BackboneError(f"{card.name}: not on this machine.")

    monkeypatch.setattr("topgraft._learn.find_backbone", gone)
    with pytest.raises(BackboneError):
        tg.train(store, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UnknownNameError, match="Did you mean policies"):
        tg.train(photos, polices=3)
    asked = Training().facts() | {
        "run": "r",
        "blocks": 1,
        "views": 0,
    }
    with pytest.raises(UsageError, match=r"\[finetune\]"):
        tg.train(photos, config=Config(finetune=asked), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"seed": 1}, r"begun with seed = 0, got 1\. Give the same to --resume, or --overwrite"),
        ({"policies__count": 2}, r"policies\.count = '3!', got 2"),
        ({"heads__names": ("mean",)}, r"heads\.names = \['ridge', 'mean'\], got \['mean'\]"),
        ({"backbone__card": "c.json"}, r"backbone\.card = None, got 'c\.json'"),
    ],
)
def test_a_run_is_not_gone_on_in_with_other_choices(run, photos, choices, words):
    before = {one: one.read_bytes() for one in run.path.iterdir() if one.is_file()}
    with pytest.raises(UsageError, match=words):
        follow(Config.load(**{"data__photos": str(photos), **CHOICES} | choices), run.path, resume=True)
    assert before == {one: one.read_bytes() for one in run.path.iterdir() if one.is_file()}


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"backbone__name": "tf_eficientnet_lite0.in1k"}, "tf_eficientnet_lite0"),
        ({"policies__grid": "grid228"}, "grid288"),
        ({"heads__names": ("linaer",)}, "Did you mean linear"),
        ({"heads__names": ("",)}, "no head is named ''"),
    ],
)
def test_a_start_that_fails_leaves_nothing_and_replaces_nothing(run, photos, tmp_path, choices, words):
    shutil.copytree(run.path, tmp_path / "there")
    config = Config.load(**{"data__photos": str(photos), "backbone__name": SMALL} | choices)
    for place, overwrite in ((tmp_path / "new", False), (tmp_path / "there", True)):
        with pytest.raises(TopgraftError, match=words):
            follow(config, place, overwrite=overwrite)
    assert not (tmp_path / "new").exists()
    assert Run.open(tmp_path / "there").metrics == run.metrics


def test_a_run_in_a_place_of_other_files_is_refused_before_it_begins(config, photos, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(StoreError, match="found other files"):
        follow(config, tmp_path / "run", store=tmp_path / "notes")
    assert not (tmp_path / "run").exists()


def test_a_training_that_breaks_off_is_no_finished_run_and_goes_on(run, config, photos, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    shutil.copytree(photos, tmp_path / "photos")
    lost = min((tmp_path / "photos" / "sushi").iterdir())
    lost.unlink()
    moved = Config.load(data__photos=str(tmp_path / "photos"), **CHOICES)

    def press(what, _done, _total):
        if what not in ("reading photos", "checking photos", "embedding"):
            with pytest.raises(StoreError, match="another process is writing"):
                follow(moved, tmp_path / "run", overwrite=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(moved, tmp_path / "run", resume=True, progress=press)
    with pytest.raises(DataError, match="not finished"):
        Run.open(tmp_path / "run")
    again = follow(moved, tmp_path / "run", resume=True)
    assert again.metrics.counts.photos == 47


def test_a_run_that_is_there_is_not_overwritten(run, config):
    with pytest.raises(UsageError, match=r"holds a finished run, which stays as it is\. Give `-o .*-2`"):
        follow(config, run.path)


def test_nothing_is_written_among_the_photos(run, config, photos):
    assert {one.suffix for one in photos.rglob("*") if one.is_file()} == {".jpg"}
    far = Config.load(data__photos=f"file://{photos}")
    for choices, place in (
        (config, photos / "run"),
        (config, photos / "sushi" / "run"),
        (far, photos / "run"),
    ):
        with pytest.raises(UsageError, match="nothing is ever written"):
            follow(choices, place)


def test_a_mistyped_folder_costs_no_run(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    with pytest.raises(DataError, match="found nothing"):
        follow(Config.load(data__photos=str(tmp_path / "smal")), tmp_path / "run", overwrite=True)
    assert Run.open(tmp_path / "run").metrics == run.metrics


def test_photos_inside_the_runs_folder_are_never_overwritten(photos, run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    shutil.copytree(photos, tmp_path / "run" / "photos")
    config = Config.load(data__photos=str(tmp_path / "run" / "photos"))
    with pytest.raises(UsageError, match="holds photos"):
        follow(config, tmp_path / "run", overwrite=True)
    assert len(list((tmp_path / "run" / "photos").rglob("*.jpg"))) == 48


def test_the_python_of_the_design_works(photos, tmp_path):
    data = tg.Dataset.from_folder(photos)
    split = tg.split(data, test=0.2, seed=0)
    store = tg.embed(data, tmp_path / "features.zarr", policies=tg.draw(1, seed=0))
    run = tg.train(store, split, heads=["mean"], folds=3, out=tmp_path / "run")
    assert run.metrics.head.name == "mean"
    found = tg.load(run.path).predict([data.location(0), tmp_path / "none.jpg"])
    assert found[0].label in data.classes
    assert found[1].error


def test_predict_says_the_same_from_anywhere_without_torch(run, photos, tmp_path):
    shutil.copytree(run.model, tmp_path / "elsewhere")
    code = "import sys, topgraft as tg; p = tg.load(sys.argv[1]).predict(sys.argv[2:])[0]\n"
    code += (
        "assert not {'torch', 'timm', 'sklearn', 'zarr'} & set(sys.modules); print(p.label, p.probability)"
    )
    words = [sys.executable, "-c", code, tmp_path / "elsewhere"]
    test = next(row for row in run.read_table("predictions.csv") if row["split"] == "test")
    label, probability = subprocess.run(
        [*map(str, words), str(photos / test["id"])], check=True, capture_output=True, text=True
    ).stdout.split()
    assert label == test["predicted"]
    assert float(probability) == pytest.approx(float(test["probability"]), abs=5e-3)


def test_predict_on_the_command_line(run, photos, tmp_path):
    names = sorted(str(one) for one in photos.rglob("*.jpg"))[:3]
    (tmp_path / "broken.jpg").write_bytes(b"no")
    done = command("predict", run.path, "-", "--nl", input="\n".join([*names, str(tmp_path / "broken.jpg")]))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in rows[:3]] == names
    assert rows[3]["error"]
    assert done.returncode == 1
    assert topgraft("predict", run.path, *names).returncode == 0


def test_suggested_commands_can_be_pasted(run, tmp_path, capsys):
    place = tmp_path / "mein Lauf ü"
    shutil.copytree(run.path, place)
    print_verdict(Run.open(place))
    line = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(line)[1:] == ["topgraft", "predict", str(place), "PHOTO..."]
    done = topgraft("predict", run.path, place)
    assert "expected photos in the folder, found none. Check the path." in done.stderr


def test_report_is_made_again_from_the_run(run):
    made = []
    for call in (command, topgraft):
        (run.path / "report.html").unlink()
        assert call("report", run.path).returncode == 0
        made.append((run.path / "report.html").read_bytes())
    assert made[0] == made[1]


def test_the_estimator_is_one(photos):
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_score

    paths = np.array(sorted(str(one) for one in photos.rglob("*.jpg"))[::2])
    labels = np.array([one.split("/")[-2] for one in paths])
    model = clone(tg.TopgraftClassifier(backbone=TINY, policies=0, heads=["mean"], folds=2))
    assert cross_val_score(model, paths, labels, cv=2).mean() > 0.6
    model.fit(paths, labels)
    assert model.predict_proba(paths[:3]).sum(axis=1) == pytest.approx(1)
    assert set(model.predict(paths)) == set(model.classes_) == {"sandwich", "sushi"}


def test_the_estimators_classes_are_scikit_learns(photos):
    paths = sorted(str(one) for one in photos.rglob("*.jpg"))[::2]
    labels = np.array([1 if "sushi" in one.split("/")[-2] else -1 for one in paths])
    model = tg.TopgraftClassifier(backbone=TINY, policies=0, heads=["mean"], folds=2)
    model.fit(paths + paths[:3], np.concatenate([labels, labels[:3]]))  # a bootstrap draws some twice
    assert model.classes_.tolist() == [-1, 1]
    assert model.score(paths, labels) > 0.6
    assert np.corrcoef(model.predict_proba(paths)[:, 1], labels)[0, 1] > 0.3
    with pytest.raises(DataError, match="with two labels"):
        model.fit([*paths, paths[0]], np.array([*labels, -labels[0]]))
    # what a grid search gives, and labels of two kinds of numbers
    model.set_params(policies=np.int64(0), folds=np.int64(2), seed=np.int32(1))
    model.fit(paths, [1 if label > 0 else 2.5 for label in labels])
    assert model.classes_.tolist() == [1.0, 2.5]
    assert model.predict_proba(paths[:2]).shape == (2, 2)


def test_a_photo_that_vanishes_meanwhile_is_named(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    data = tg.Dataset.from_folder(tmp_path / "photos")
    (tmp_path / "photos" / data.ids[5]).unlink()
    with pytest.raises(DataError, match=data.ids[5]):
        tg.embed(data, tmp_path / "f.zarr")


@pytest.mark.shared
def test_on_real_photos_no_worse_than_plain_logistic_regression(shared, tmp_path):
    photos = str(shared / "data" / "sushi_sandwich")
    config = Config.load(data__photos=photos, backbone__name=SMALL, data__test=0.0, policies__count=2)
    run = follow(config, tmp_path / "run")
    assert run.metrics.test is None
    assert run.metrics.cross_validation.n == 160
    assert run.metrics.cross_validation.accuracy.value >= 0.86
    assert Run.open(run.path).metrics == run.metrics


@pytest.mark.parametrize("missing", [None, float("nan"), pytest.param("NA", id="pandas")])
def test_the_estimator_takes_what_is_missing_for_missing(missing):
    from topgraft.estimator import _once

    if missing == "NA":
        missing = pytest.importorskip("pandas").NA
    paths = ["0.jpg", "1.jpg", "2.jpg"]
    with pytest.raises(DataError, match=r"1\.jpg: expected a label, got .*\. Leave the photo out"):
        tg.TopgraftClassifier().fit(paths, ["a", missing, "b"])
    with pytest.raises(DataError, match="expected as many groups as paths, got 3 paths and 2 groups"):
        tg.TopgraftClassifier().fit(paths, ["a", "b", "b"], groups=["x", "y"])
    assert _once(paths, ["a", "b", "a"], ["g", missing, missing])[2] == ["g", None, None]


class Column:
    """Indexed by its labels and not by place, as a column of a table is (pandas.Series)."""

    def __init__(self, values, index):
        self.values = dict(zip(index, values, strict=True))

    def __getitem__(self, label):
        return self.values[label]

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter(self.values.values())

    def __array__(self, dtype=None, copy=None):
        return np.array(list(self.values.values()), dtype)


def test_a_shuffled_column_keeps_its_labels():
    from topgraft.estimator import _once

    index, kinds = [2, 0, 1], ["c", "a", "b"]
    X = Column(["2.jpg", "0.jpg", "1.jpg"], index)
    expected = (["2.jpg", "0.jpg", "1.jpg"], kinds, ["7", "5", "6"])
    assert _once(X, Column(kinds, index), Column([7, 5, 6], index)) == expected
    assert _once(["3.jpg"], Column(["a"], [7]), None) == (["3.jpg"], ["a"], None)


def test_splits_that_came_with_the_photos_and_validation_are_said_before_the_work(tmp_path, caplog):
    caplog.set_level("INFO", logger="topgraft")
    for seed, (side, photos) in enumerate({"train": 4, "val": 2, "test": 2}.items()):
        draw_photos(tmp_path / "photos" / side, photos, seed=seed)
    config = Config.load(data__photos=str(tmp_path / "photos"), data__test=0.3, backbone__name="none.onnx")
    with pytest.raises(TopgraftError, match="none"):  # the work itself is not the point
        follow(config, tmp_path / "run")
    said = " ".join(caplog.messages)
    assert "the photos came with a split, which is kept: --test and --val are not used" in said
    assert "validation photos are learned from too" in said
    caplog.clear()
    with pytest.raises(TopgraftError, match="none"):  # as the command gives it: all choices, the usual ones
        follow(Config.of(Config.load(data__photos=config.data.photos, backbone__name="none.onnx")))
    assert "are not used" not in " ".join(caplog.messages)


def test_a_large_test_that_is_worse_is_believed_of_certainty_too(tmp_path, capsys):
    draw_photos(tmp_path / "photos" / "train", 16, seed=0)
    draw_photos(tmp_path / "photos" / "test", 26, seed=1)
    ours, theirs = sorted((tmp_path / "photos" / "test").iterdir())
    between = ours.rename(ours.with_name("between"))  # test photos carry the wrong label
    theirs.rename(ours)
    between.rename(theirs)
    options = {"policies": "0", "heads": ["mean", "ridge"]}
    run = tg.train(tmp_path / "photos", backbone=TINY, out=tmp_path / "run", **options)
    crossed, tested = run.metrics.cross_validation.accuracy, run.metrics.test.accuracy
    assert tested.high < crossed.low
    assert run.metrics.believed.key == "test"
    (said,) = [note for note in run.metrics.notes if "those held out" in note]
    sure = [max(float(row[key]) for key in row if key.startswith("p_")) for row in tested_rows(run)]
    right = [row["predicted"] == row["label"] for row in tested_rows(run)]
    above = [ok for p, ok in zip(sure, right, strict=True) if p >= 0.9]
    assert f"{len(above) / len(sure):.0%} of photos answered, {sum(above) / len(above):.0%} of them" in said
    print_verdict(run)
    assert said in capsys.readouterr().out


def tested_rows(run):
    return [row for row in run.read_table("predictions.csv") if row["split"] == "test"]


def test_worth_is_asked_for_where_it_can_be_measured(tmp_path):
    photos = draw_photos(tmp_path / "photos", 3, seed=0)
    with pytest.raises(UsageError, match=r"worth: there are no policies, so that nothing can be measured"):
        tg.train(photos, worth=True, policies=0, out=tmp_path / "run")
    lines = [
        f"{path},{'sushi;sandwich' if i % 2 else 'sushi'}" for i, path in enumerate(photos.rglob("*.jpg"))
    ]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *lines]))
    with pytest.raises(UsageError, match="worth: photos carry several labels"):
        tg.train(tmp_path / "table.csv", worth=True, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recipes_way_of_finding_duplicates_is_not_undone_by_a_dataset_that_asked_for_none(tmp_path):
    data = tg.Dataset.from_folder(draw_photos(tmp_path / "photos", 4, seed=0))
    usual = {"backbone": SMALL, "policies": 0, "heads": "mean", "test": 0}
    (tmp_path / "mine.toml").write_text('[data]\nduplicates = "exact"\n')
    run = tg.train(data, config=tmp_path / "mine.toml", out=tmp_path / "a", **usual)
    assert run.config.data.duplicates == "exact"
    run = tg.train(
        replace(data, duplicates="off"), config=tmp_path / "mine.toml", out=tmp_path / "b", **usual
    )
    assert run.config.data.duplicates == "off"


def test_a_new_run_knows_the_one_beside_it_and_finds_its_photos_from_anywhere(tmp_path, caplog, monkeypatch):
    """It says that it calls other photos unknown than the newest run on the same photos did."""
    photo = next(Path(draw_photos(tmp_path / "photos", 8, seed=0)).rglob("*.jpg"))
    data = photo.read_bytes()
    photo.write_bytes(data[:-600] + bytes(300) + data[-300:])  # libjpeg repairs it and says nothing
    monkeypatch.chdir(tmp_path)
    options = {"backbone": TINY, "policies": 0, "heads": "mean", "folds": 2}
    first = tg.train("photos", out="runs/first", **options)
    assert [odd["id"] for odd in first.read("health.json")["remarks"]] == [
        f"{photo.parent.name}/{photo.name}"
    ]
    assert "is damaged and was repaired" in (first.path / "report.html").read_text(encoding="utf-8")
    facts = json.loads((first.path / "metrics.json").read_text())
    assert facts["trust"]["unknown"]["method"] == "neighbours"
    facts["trust"]["unknown"]["method"] = "energy"
    first.write_json("metrics.json", facts)
    Run.create("runs/damaged").write("metrics.json", "{")
    caplog.set_level("INFO", logger="topgraft")
    tg.train("photos", out="runs/second", **options)
    said = [line for line in caplog.messages if line.startswith("Photos are called unknown by")]
    assert len(said) == 1
    assert "by neighbours now; it was energy before" in said[0]
    caplog.clear()
    other = draw_photos(tmp_path / "other", 8, seed=1)
    tg.train(other, out="runs/third", **options)  # of other photos: nothing came before
    assert not [line for line in caplog.messages if "called unknown by" in line]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    page = tmp_path / "page.html"
    assert tg.report(tmp_path / "runs" / "second", out=page) == page
    assert "data:image/webp" in page.read_text(encoding="utf-8")


def test_a_class_in_one_group_is_learned_and_not_measured(tmp_path, recwarn, caplog):
    """It is never on both sides of a fold: no label issue, a sentence, and no warning of numpy's."""
    photos = Path(draw_photos(tmp_path / "photos", 10, seed=0))
    names = sorted(photo.relative_to(photos).as_posix() for photo in photos.rglob("*.jpg"))
    rows = [f"{name},{name.split('/')[0]},{'burst' if name.startswith('sushi') else name}" for name in names]
    (photos / "table.csv").write_text("\n".join(["path,label,group", *rows]))
    caplog.set_level("INFO", logger="topgraft")
    run = tg.train(photos / "table.csv", out=tmp_path / "run", backbone=TINY, policies=0, test=0)
    assert "All 10 photos of sushi are in one group: it can be learned, but not measured" in caplog.text
    assert "--duplicates exact" in caplog.text
    (note,) = [
        note for note in run.metrics.notes if note.startswith("All 10 photos of sushi are in one group")
    ]
    assert "how well it is recognised is not known" in note
    assert not [issue for issue in run.metrics.trust.label_issues if issue["label"] == "sushi"]
    assert not [said for said in recwarn if issubclass(said.category, RuntimeWarning)]
    answers = tg.load(run).predict([photos / name for name in names])
    assert sum(a.label == name.split("/")[0] for a, name in zip(answers, names, strict=True)) >= 16
