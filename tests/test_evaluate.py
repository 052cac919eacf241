"""Evaluation of real runs: the same digits in any order, ensembles by hand, honest words."""

from __future__ import annotations

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import topgraft as tg
from commands import topgraft
from tiny import TINY
from topgraft._check import check
from topgraft._evaluate import evaluate
from topgraft._report import place_of, report
from topgraft._report.facts import Facts
from topgraft._report.numbers import resolve
from topgraft.cli import app
from topgraft.errors import DataError, UsageError
from topgraft.metrics import in_words, wilson
from topgraft.photos.corrections import Correction, Corrections
from topgraft.run import Run
from topgraft.run.origin import read_photos
from topgraft.run.predictions import read_predictions
from topgraft.selection.ensemble import ensemble, paired, weights_of
from topgraft.store import FeatureStore
from topgraft.testing.drawing import draw_photos
from topgraft.trust.harder import apart, harder


def test_a_hand_computed_ensemble() -> None:
    one = np.array([[0.9, 0.1], [0.4, 0.6]])
    two = np.array([[0.5, 0.5], [0.8, 0.2]])
    np.testing.assert_allclose(ensemble([one, two]), [[0.7, 0.3], [0.6, 0.4]], rtol=0, atol=1e-9)
    # log losses 0.2 and 0.6: weights 5 and 5/3, that is 3/4 and 1/4
    weights = weights_of([0.2, 0.6])
    np.testing.assert_allclose(weights, [0.75, 0.25], rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        ensemble([one, two], weights.tolist()), [[0.8, 0.2], [0.5, 0.5]], rtol=0, atol=1e-9
    )


def test_an_ensemble_of_one_is_that_one() -> None:
    one = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    np.testing.assert_array_equal(ensemble([one]), one)
    np.testing.assert_allclose(ensemble([one, one, one], [0.2, 5, 0]), one, atol=1e-15)


def test_a_perfect_member_does_not_weigh_infinitely() -> None:
    assert weights_of([0.0, 0.001]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_weights_that_make_no_sense_are_refused(weights: list[float]) -> None:
    one = np.full((2, 2), 0.5)
    with pytest.raises(UsageError, match="weights must be 2 numbers from 0"):
        ensemble([one, one], weights)
    with pytest.raises(UsageError, match="members of one shape"):
        ensemble([one, one[:1]])


def test_paired_differences_hold_what_they_compare() -> None:
    labels = np.zeros(100, np.int64)
    right, wrong = np.tile([0.9, 0.1], (100, 1)), np.tile([0.1, 0.9], (100, 1))
    mixed = np.where((np.arange(100) < 90)[:, None], right, wrong)
    gap = paired(labels, right, mixed)
    assert gap.value == pytest.approx(0.1)
    assert 0.03 < gap.low < 0.1 < gap.high < 0.18
    swapped = paired(labels, mixed, right)
    assert (swapped.low, swapped.high) == pytest.approx((-gap.high, -gap.low))


def test_members_that_agree_on_few_photos_may_still_differ() -> None:
    labels = np.arange(32) % 2
    right = np.eye(2)[labels] * 0.8 + 0.1
    same = paired(labels, right, right)
    assert same.value == 0
    assert same.low == pytest.approx(-0.107, abs=1e-3)  # 32 of 32 and 32 of 32: Wilson's 0.893
    assert same.high == pytest.approx(0.107, abs=1e-3)
    almost = right.copy()
    almost[0] = 1 - almost[0]
    one = paired(labels, right, almost)
    assert one.low < 0 < one.value < one.high
    copies = np.repeat(np.arange(8), 4)
    few = paired(labels, right, almost, groups=copies)
    assert few.low < one.low
    assert few.high > one.high


def test_the_paired_interval_is_newcombes() -> None:
    # Newcombe 1998, table III, method 10, of 50 photos
    counts = {(1, 1): 36, (1, 0): 12, (0, 1): 2, (0, 0): 0}
    first = np.repeat([one for one, _ in counts], list(counts.values()))
    second = np.repeat([other for _, other in counts], list(counts.values()))
    labels = np.zeros(50, np.int64)
    found = paired(labels, *(np.stack([right, 1 - right], axis=1) for right in (first, second)))
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=1e-4)


def test_the_paired_interval_covers() -> None:
    rng = np.random.default_rng(0)
    labels, held = np.zeros(60, np.int64), 0
    for _ in range(1000):
        both = rng.random((60, 3)) < [0.8, 0.7, 0.4]  # right on easy photos; each alone on some of the others
        right = [both[:, 0] | both[:, 1], both[:, 0] | both[:, 2]]
        found = paired(labels, *(np.stack([one, ~one], axis=1).astype(float) for one in right))
        held += found.low <= 0.2 * (0.7 - 0.4) <= found.high
    assert 0.94 <= held / 1000 <= 0.985


# From here on with real runs: drawn photos, a real backbone, two heads.


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(draw_photos(tmp_path_factory.mktemp("evaluate") / "photos", 14, seed=3))


@pytest.fixture(scope="module")
def data(photos: Path) -> tg.Dataset:
    return tg.Dataset.from_folder(photos)


@pytest.fixture(scope="module")
def runs(data: tg.Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:

    folder = tmp_path_factory.mktemp("evaluate-runs")
    split = tg.split(data, test=0.3, seed=0)
    store = tg.embed(data, folder / "features.zarr", backbone=TINY, policies=tg.draw(2, seed=0))
    made: list[Run] = []
    for name, head in (("plain", "mean"), ("near", "knn")):
        run = tg.train(store, split, heads=[head], folds=3, out=folder / name)
        run.write("config.toml", f'[data]\nphotos = "{data.root}"\n')
        made.append(run)
    return made


@pytest.fixture(scope="module")
def both(runs: list[Run], data: tg.Dataset) -> tg.Evaluation:
    return evaluate(runs, data)


def test_the_test_split_is_taken_and_its_numbers_are_the_runs_own(runs: list[Run], both: Any) -> None:
    for run, member in zip(runs, both.members, strict=True):
        own = run.metrics.test.as_dict()
        assert member.scores["n"] == own["n"]
        assert member.scores["confusion"] == own["confusion"]
        assert member.scores["accuracy"]["value"] == pytest.approx(own["accuracy"]["value"], abs=1e-12)
        # the same photos in the same order: the intervals, too, differ by the predictor's rounding alone
        for score in ("accuracy", "balanced_accuracy", "log_loss", "roc_auc", "average_precision"):
            for end in ("value", "low", "high"):
                expected = pytest.approx(own[score][end], abs=2e-3)
                assert member.scores[score][end] == expected, (score, end)
    trained = sum(row["split"] == "cv" for row in runs[0].read_table("predictions.csv"))
    assert both.notes[0].endswith(f"{trained} more were used for training and are left out.")


def test_a_run_that_lost_its_predictions_is_not_measured_as_if_all_was_new(
    runs: list[Run], data: tg.Dataset, tmp_path: Path
) -> None:
    for content in ("", None):
        copy = Path(shutil.copytree(runs[0].path, tmp_path / f"run{content is None}"))
        (copy / "predictions.csv").unlink() if content is None else (copy / "predictions.csv").write_text("")
        found = evaluate(copy, data.subset(data.ids[:4]))
        assert "does not say which photos it was trained from" in found.notes[0]


def test_photos_saved_anew_without_loss_are_the_ones_that_were_learned_from(
    runs: list[Run], data: tg.Dataset, both: Any, tmp_path: Path
) -> None:
    for sample in data.samples:
        path = tmp_path / Path(sample.id).with_suffix(".bmp")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(data.image(data.ids.index(sample.id))).save(path)
    found = evaluate(runs, tg.Dataset.from_folder(tmp_path))
    assert [one.scores["confusion"] for one in found.members] == [
        one.scores["confusion"] for one in both.members
    ]
    assert found.notes[0].startswith(f"{len(data)} photos of these have the pixels of photos the run knows")
    assert found.notes[1] == both.notes[0]


def test_photos_of_one_class_have_dashes_and_a_reason(runs: list[Run], data: tg.Dataset) -> None:
    found = evaluate(runs[0], data, [one.id for one in data.samples if one.label == 0])
    assert "balanced –" in str(found)
    assert "ROC AUC –" in str(found)
    assert any("of one class" in note for note in found.notes)
    assert found.members[0].scores["roc_auc"] is None


def test_members_and_ensembles_stand_side_by_side(runs: list[Run], both: Any) -> None:
    assert [one.name for one in both.results] == ["plain", "near", "mean", "weighted"]
    losses = [run.metrics.cross_validation.log_loss.value for run in runs]
    assert [one.weight for one in both.members] == pytest.approx(weights_of(losses).tolist())
    for together in both.ensembles:
        for member in both.members:
            gap = together.against[member.name]
            expected = together.scores["accuracy"]["value"] - member.scores["accuracy"]["value"]
            assert gap.value == pytest.approx(expected)
            assert gap.low <= gap.value <= gap.high
            worse = f"The {together.name} ensemble is worse than {member.name} alone"
            assert any(worse in note for note in both.notes) == (gap.value < 0)
    assert str(both).splitlines()[0].startswith("plain     accuracy ")


def test_order_does_not_matter_to_the_last_digit(runs: list[Run], data: tg.Dataset, both: Any) -> None:
    order = np.random.default_rng(0).permutation(len(data))
    other = replace(data, samples=tuple(data.samples[i] for i in order))
    assert [one.id for one in other.samples] != [one.id for one in data.samples]
    again = evaluate(runs, other)
    assert json.dumps(again.as_dict()) == json.dumps(both.as_dict())


def test_a_copy_of_the_photos_under_other_names_is_known_again(
    runs: list[Run], photos: Path, tmp_path: Path, both: Any
) -> None:
    for path in sorted(photos.rglob("*.*")):
        copy = tmp_path / path.parent.name / f"copy-of-{path.name}"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    moved = evaluate(runs, tg.Dataset.from_folder(tmp_path))
    assert [one.scores for one in moved.results] == [one.scores for one in both.results]
    assert any(
        "were used for training" in note
        for note in evaluate(runs[0], tg.Dataset.from_folder(tmp_path), split="all").notes
    )


def test_a_worse_ensemble_is_said_to_be(runs: list[Run], data: tg.Dataset, monkeypatch: Any) -> None:
    """Two members that err on other photos, and together err on both."""
    from topgraft._evaluate.remarks import worse
    from topgraft._evaluate.score import score

    labels = np.zeros(10, np.int64)
    sure, unsure = np.tile([0.55, 0.45], (10, 1)), np.tile([0.55, 0.45], (10, 1))
    sure[:3], unsure[3:6] = [0.1, 0.9], [0.1, 0.9]
    members, together = score(runs, labels, [sure, unsure], ("a", "b"), groups=np.arange(10), seed=0)
    notes = worse(members, together)
    assert len(notes) == 4
    assert notes[0].startswith("The mean ensemble is worse than plain alone: accuracy -0.300 [")


def test_photos_of_other_classes_are_told_apart(runs: list[Run], photos: Path, tmp_path: Path) -> None:
    from topgraft.testing.drawing import draw_photos as draw

    drawn = Path(draw(tmp_path / "new", 3, seed=9))
    (drawn / "sushi").rename(drawn / "pizza")
    found = evaluate(runs[0], tg.Dataset.from_folder(drawn))
    assert found.members[0].scores["n"] == 3
    assert found.strangers == {"pizza": 3}
    assert 0 <= found.flagged <= 3
    said = "3 photos are of classes the run does not know (pizza 3); they are in no number, and"
    assert f"{said} {found.flagged} of 3" in str(found)


def test_a_photo_that_goes_away_is_listed(runs: list[Run], photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    data = tg.Dataset.from_folder(tmp_path / "photos")
    lost = data.samples[0].id
    (tmp_path / "photos" / lost).unlink()
    found = evaluate(runs[0], data, split="all")
    assert found.members[0].scores["n"] == len(data) - 1
    assert [one.id for one in found.refused] == [lost]
    assert f"first: {lost}" in str(found)


def test_test_time_augmentation_averages_views(runs: list[Run], data: tg.Dataset) -> None:
    plain, augmented = evaluate(runs[0], data), evaluate(runs[0], data, tta=2)
    assert plain.members[0].scores["n"] == augmented.members[0].scores["n"]
    assert plain.members[0].scores["log_loss"] != augmented.members[0].scores["log_loss"]
    with pytest.raises(UsageError, match="tta must be 0 to 2"):
        evaluate(runs[0], data, tta=3)
    with pytest.raises(UsageError, match="tta must be 0 or more"):
        evaluate(runs[0], data, tta=-1)


def test_mistakes_are_told(runs: list[Run], data: tg.Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one run"):
        evaluate([], data)
    with pytest.raises(UsageError, match="split must be test or all"):
        evaluate(runs[0], data, split="train")
    with pytest.raises(DataError, match="expected a run"):
        evaluate(tmp_path, data)
    other = tmp_path / "other"
    shutil.copytree(runs[0].path, other)
    renamed = (other / "metrics.json").read_text().replace('"sandwich"', '"x"').replace('"sushi"', '"y"')
    (other / "metrics.json").write_text(renamed)
    with pytest.raises(UsageError, match="must have the same classes"):
        evaluate([runs[0], other], data)
    with pytest.raises(DataError, match=r"predictions.csv: is damaged"):
        evaluate(other, data)


def test_the_command_prints_members_ensembles_and_json(runs: list[Run], photos: Path, both: Any) -> None:
    words = ["evaluate", *(run.path for run in runs)]
    told = topgraft(*words, photos)
    assert told.returncode == 0, told.stderr
    assert told.stdout.rstrip() == str(both)
    facts = topgraft(*words, "--json")
    assert json.loads(facts.stdout) == json.loads(json.dumps(both.as_dict()))


@pytest.fixture(scope="module")
def multilabel(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[tg.Dataset, Run]:
    """Photos of which every third is both sushi and sandwich, and a run on them."""
    folder = tmp_path_factory.mktemp("several")
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    cells = ["sandwich;sushi" if i % 3 == 0 else Path(name).parts[0] for i, name in enumerate(names)]
    lines = [f"{photos / name},{cell}" for name, cell in zip(names, cells, strict=True)]
    (folder / "table.csv").write_text("\n".join(["path,label", *lines]))
    data = tg.Dataset.from_csv(folder / "table.csv")
    store = tg.embed(data, folder / "features.zarr", backbone=TINY)
    run = tg.train(store, tg.split(data, test=0.3), heads=["ridge"], folds=3, out=folder / "run")
    return data, run


def test_several_labels_are_scored_as_the_run_scored_them(multilabel: tuple[tg.Dataset, Run]) -> None:
    data, run = multilabel
    (member,) = evaluate(run, data).members
    own = run.metrics.test.as_dict()
    assert set(member.scores) == set(own)
    assert member.scores["n"] == own["n"]
    assert member.scores["accuracy"]["value"] == pytest.approx(own["accuracy"]["value"], abs=1e-12)
    assert member.scores["log_loss"]["value"] == pytest.approx(own["log_loss"]["value"], abs=2e-3)
    together = evaluate([run, run], data).ensembles[0]
    assert all(gap.value == 0 for gap in (together.against or {}).values())


def test_several_labels_are_counted_for_every_class(multilabel: tuple[tg.Dataset, Run]) -> None:
    data, run = multilabel
    counted = sum(sum(sides.values()) for sides in run.metrics.counts.per_class.values())
    assert counted == sum(len(one.labels) for one in data.samples) > len(data)
    both = sum(len(one.labels) > 1 for one in data.samples)
    expected = {"sandwich": both, "sushi": both}
    for one in data.samples:
        if len(one.labels) == 1:
            expected[data.classes[one.label]] += 1
    assert FeatureStore.open(run.path.parent / "features.zarr").info()["classes"] == expected
    assert check(data).classes == expected


def test_a_photo_with_two_strange_labels_is_one_photo(
    multilabel: tuple[tg.Dataset, Run], tmp_path: Path
) -> None:
    data, run = multilabel
    lines = [f"{data.location(i)},{cell}" for i, cell in enumerate(["sushi", "soup;salad", "soup"])]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *lines]))
    found = evaluate(run, tg.Dataset.from_csv(tmp_path / "table.csv"), split="all")
    assert (found.strangers, found.strange) == ({"salad": 1, "soup": 2}, 2)
    assert any(note.startswith("2 photos are of classes") for note in found.notes)
    assert f"and {found.flagged} of 2 are called unknown" in " ".join(found.notes)


def test_groups_are_joined_whichever_photos_are_evaluated(runs: list[Run], photos: Path) -> None:
    def width(*words: str) -> float:
        shown = CliRunner().invoke(
            app, ["evaluate", str(runs[0].path), *words, "--split", "all", "--json"], catch_exceptions=False
        )
        accuracy = json.loads(shown.stdout)["members"][0]["scores"]["accuracy"]
        return float(accuracy["high"] - accuracy["low"])

    joined = ["--group-by", r"\d(?=\.)"]  # by the last digit of the name: ten groups
    for named in ([], [str(photos)]):
        assert width(*named, *joined) > 1.2 * width(*named)


def test_one_and_several_labels_make_no_ensemble(multilabel: tuple[tg.Dataset, Run], runs: list[Run]) -> None:
    with pytest.raises(UsageError, match="one label a photo"):
        evaluate([multilabel[1], runs[0]], multilabel[0])


def test_several_labels_are_no_truth_for_a_run_that_gives_one(
    multilabel: tuple[tg.Dataset, Run], runs: list[Run]
) -> None:
    """The first in the alphabet once was taken for the truth."""
    with pytest.raises(UsageError, match=r"expected one label a photo, as .*, got several of \d+ photos"):
        evaluate(runs[0], multilabel[0])


def test_a_page_about_several_labels_says_what_was_counted(
    multilabel: tuple[tg.Dataset, Run], tmp_path: Path
) -> None:
    data, run = multilabel
    facts = Facts(run)
    carried = {sample.digest: sample.labels for sample in data.samples}
    for row, classes in zip(facts.of("test"), facts.carried("test"), strict=True):
        assert tuple(np.flatnonzero(classes)) == carried[row.digest]
    text = report(run, out=tmp_path / "page.html").read_text(encoding="utf-8")
    assert "right, yes or no for each class" in text
    assert "named right" not in text
    assert "href='#classes'" not in text  # there is no such section
    assert "yes and no answers, one a class" in in_words(run.metrics.headline.accuracy, 9, several=True)


def test_so_does_a_page_about_photos_of_one_label_each(
    multilabel: tuple[tg.Dataset, Run], photos: Path, tmp_path: Path
) -> None:
    found = evaluate(multilabel[1], tg.Dataset.from_folder(photos), split="all")
    text = report(found, out=tmp_path / "page.html").read_text(encoding="utf-8")
    assert "right, yes or no for each class" in text
    assert "named right" not in text
    assert "href='#classes'" not in text


def test_a_runs_own_photos_are_read_as_it_learned_them_named_or_not(
    runs: list[Run], data: tg.Dataset, tmp_path: Path
) -> None:
    shutil.copytree(runs[0].path, tmp_path / "run")
    run = Run(tmp_path / "run")
    tested = next(row for row in read_predictions(run, data.classes) if row.split == "test" and row.right)
    before, after = data.classes[tested.label], data.classes[1 - tested.label]
    lines = run.read_table("predictions.csv")
    for line in lines:  # as if it had been trained with the correction
        line["label"] = after if line["id"] == tested.id else line["label"]
    run.write_table("predictions.csv", list(lines[0]), [[*line.values()] for line in lines])
    table = Corrections(tmp_path / "table.csv")
    table.add([Correction(1, "label", after, before, tested.id, data.root, tested.digest)])
    table.close()
    run.write("config.toml", f'[data]\nphotos = "{data.root}"\ncorrections = "{table.path}"\n')
    said = [
        json.loads(CliRunner().invoke(app, ["evaluate", str(run.path), *place, "--json"]).stdout)
        for place in ([], [data.root])
    ]
    assert said[0] == said[1]
    right = [evaluate(runs[0], data).members[0].scores, said[0]["members"][0]["scores"]]
    hits = [round(scores["accuracy"]["value"] * scores["n"]) for scores in right]
    assert hits[0] - hits[1] == 1
    exports = [tg.export(run, tmp_path / name, photos=at) for name, at in (("a", None), ("b", data.root))]
    assert exports[0].agreement.accuracy == exports[1].agreement.accuracy


def test_a_run_of_pairs_is_measured_by_the_labels_of_the_pairs(data: tg.Dataset, tmp_path: Path) -> None:
    """The folders say something else: one of them all photos, or the other class."""
    (tmp_path / "all").mkdir()
    paths, labels, groups = [], [], []
    for i, sample in enumerate(data.samples):
        paths.append(shutil.copy(data.location(i), tmp_path / "all" / f"{i:02d}.jpg"))
        labels.append(data.classes[1 - sample.label])
        groups.append(f"day {i // 3}")
    pairs = tg.Dataset.from_pairs(paths, labels, groups=groups)
    options = {"backbone": TINY, "policies": 0, "heads": "mean", "folds": 3}
    run = tg.train(pairs, test=0.3, out=tmp_path / "run", **options)
    again = read_photos(run)
    assert again.samples == pairs.samples
    again.keep_out(tmp_path / "page.html")  # what they have in common is no folder of photos
    said = json.loads(CliRunner().invoke(app, ["evaluate", str(run.path), "--json"]).stdout)
    named = CliRunner().invoke(app, ["evaluate", str(run.path), str(tmp_path / "all"), "--json"])
    assert json.loads(named.stdout) == said
    own = run.metrics.test.as_dict()
    assert said["members"][0]["scores"]["confusion"] == own["confusion"]
    assert said["members"][0]["scores"]["accuracy"]["low"] == pytest.approx(own["accuracy"]["low"], abs=2e-3)


def test_photos_of_an_older_run_are_grouped_as_its_config_says(runs: list[Run], tmp_path: Path) -> None:
    """Before the column `group` the table of predictions did not say."""
    run = Run(shutil.copytree(runs[0].path, tmp_path / "run"))
    lines = run.read_table("predictions.csv")
    kept = [name for name in lines[0] if name != "group"]
    run.write_table("predictions.csv", kept, [[line[name] for name in kept] for line in lines])
    place = run.config.data.photos if run.config else ""
    run.write("config.toml", f"[data]\nphotos = {json.dumps(place)}\ngroup_by = '_0.(?=.)'\n")
    data = read_photos(run)
    expected = tg.Dataset.from_folder(place, group_by="_0.(?=.)")
    assert data.samples == expected.samples
    assert np.unique(data.groups).size < len(data) / 4


# The page of an evaluation.


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("eval.json", r"must end in \.html\. Try eval\.html"),
        ("run/metrics.html", r"would replace metrics\.json of the run"),
        ("run/predictions.html", r"would replace predictions\.csv of the run"),
    ],
)
def test_a_page_and_its_numbers_replace_nothing(
    runs: list[Run], tmp_path: Path, name: str, words: str
) -> None:
    shutil.copytree(runs[0].path, tmp_path / "run")
    with pytest.raises(UsageError, match=words):
        place_of(tmp_path / name)
    assert place_of(tmp_path / "run" / "other.html") == tmp_path / "run" / "other.html"


def numbers_of(page: Path) -> list[dict[str, str]]:
    """Find every traceable number on a page."""
    elements = re.findall(r"<data ([^>]*)>([^<]*)</data>", page.read_text(encoding="utf-8"))
    return [dict(re.findall(r'([\w-]+)="([^"]*)"', attributes)) for attributes, _ in elements]


def test_the_page_of_new_photos_shows_them_and_every_number_can_be_traced(
    runs: list[Run], tmp_path: Path
) -> None:
    drawn = Path(draw_photos(tmp_path / "new", 5, seed=11))
    pizza = draw_photos(tmp_path / "more", 4, seed=12)
    shutil.copytree(Path(pizza) / "sushi", drawn / "pizza")
    found = evaluate(runs[0], tg.Dataset.from_folder(drawn))
    page = tg.report(found, out=tmp_path / "out" / "judged.html")
    facts = json.loads((tmp_path / "out" / "judged.json").read_text())
    table = Run(page.parent).read_table("judged.csv")
    assert len(table) == 14
    assert sorted({line["split"] for line in table}) == ["stranger", "test"]
    checked = 0
    for one in numbers_of(page):
        if "data-metric" in one:
            assert json.loads(one["value"]) == resolve(facts, one["data-metric"])
        elif "data-metric-sum" in one:
            parts = [resolve(facts, path) for path in one["data-metric-sum"].split()]
            assert json.loads(one["value"]) == sum(parts)
        elif "data-card" in one:
            card = json.loads((runs[0].path / "model" / "card.json").read_text())
            assert json.loads(one["value"]) == resolve(card, one["data-card"])
        else:
            row, column = one["data-prediction"].split("/")
            assert one["value"] == table[int(row)][column]
        checked += 1
    assert checked > 50
    text = page.read_text(encoding="utf-8")
    for section in ("numbers", "mistakes", "photos", "looked", "trust", "repeat"):
        assert f'id="{section}"' in text
    assert "of these" in text
    assert "held-out photos" not in text
    assert "data:image/webp" in text
    assert any("trained on" in note and "distance to the training photos" in note for note in found.notes)
    shown = {
        html.unescape(note): int(at) for at, note in re.findall(r'data-note="/notes/(\d+)">([^<]*)<', text)
    }
    assert shown == {note: place for place, note in enumerate(found.notes)}
    assert text.count("data-note=") == len(found.notes)  # each once, beside the verdict or among the notes
    assert f"topgraft evaluate {runs[0].path} {drawn} -o {page}" in text
    missed = [line for line in table if line["split"] == "stranger"]
    unnoticed = len(missed) - found.flagged
    assert ("not called unknown" in text) == (unnoticed > 0)


def test_several_runs_have_the_page_of_their_mean(
    runs: list[Run], data: tg.Dataset, both: Any, tmp_path: Path
) -> None:
    page = tg.report(both, out=tmp_path / "both.html")
    facts = json.loads((tmp_path / "both.json").read_text())
    assert facts["test"]["accuracy"]["value"] == pytest.approx(
        both.ensembles[0].scores["accuracy"]["value"], abs=1e-11
    )
    assert facts["head"]["name"] == "mean of 2 runs"
    assert facts["cross_validation"] is None
    assert "Topgraft evaluation of plain, near" in page.read_text(encoding="utf-8")


def test_nothing_of_the_mean_of_several_is_the_first_runs_alone(runs: list[Run], tmp_path: Path) -> None:
    drawn = Path(draw_photos(tmp_path / "new", 5, seed=11))
    pizza = Path(draw_photos(tmp_path / "more", 4, seed=12)) / "sushi"
    shutil.copytree(pizza, drawn / "pizza")
    picky = Run(shutil.copytree(runs[0].path, tmp_path / "picky"))
    tg.load(runs[0].path).answering_above(0.9).save(picky.model)
    data = tg.Dataset.from_folder(drawn)
    alone = evaluate(picky, data)
    assert alone.trust["temperature"] == tg.load(picky.path).card.temperature
    assert any("answered" in note for note in alone.notes)
    ways = [evaluate(pair, data) for pair in ([picky, runs[1]], [runs[1], picky])]
    for one, other in (ways, ways[::-1]):
        assert one.trust == other.trust
        assert one.flagged == other.flagged
        assert sorted(one.notes) == sorted(other.notes)
    assert ways[0].trust["temperature"] is ways[0].trust["unknown"] is None
    assert sum("not applied to their mean" in note for note in ways[0].notes) == 1
    page = tg.report(ways[0], out=tmp_path / "page.html")
    rows = [row for row in Run(tmp_path).read_table("page.csv") if row["split"] == "stranger"]
    assert len(rows) == 4
    said = [tg.load(run.path).predict([drawn / row["id"] for row in rows]) for run in (picky, runs[1])]
    for row, answers in zip(rows, zip(*said, strict=True), strict=True):
        mean = np.mean([answer.probabilities["sushi"] for answer in answers])
        assert float(row["p_sushi"]) == pytest.approx(mean, abs=2e-3)
    text = page.read_text(encoding="utf-8")
    assert "This one is set to answer only above" not in text
    assert "Where it looked is shown of picky alone" in text


def test_what_tta_changed_is_said(runs: list[Run], data: tg.Dataset) -> None:
    found = evaluate(runs[0], data, tta=2)
    plain = evaluate(runs[0], data)
    assert plain.tta is None
    gap = found.members[0].scores["accuracy"]["value"] - plain.members[0].scores["accuracy"]["value"]
    assert found.tta["accuracy"]["value"] == pytest.approx(gap)
    loss = found.members[0].scores["log_loss"]["value"] - plain.members[0].scores["log_loss"]["value"]
    assert found.tta["log_loss"]["value"] == pytest.approx(loss)
    (said,) = [note for note in found.notes if note.startswith("Test-time augmentation with 2 views made")]
    assert ("made it worse" in said) == (
        found.tta["accuracy"]["high"] < 0
        or (found.tta["log_loss"]["low"] > 0 and found.tta["accuracy"]["value"] <= 0)
    )


@pytest.mark.parametrize(
    ("accuracy", "shift", "said"),
    [
        (0.60, 2.0, "This folder is harder than what it was trained on: accuracy -0.300"),
        (0.60, 0.0, "look at the labels"),
        (0.90, 2.0, "These photos are unlike those it was trained on"),
        (0.90, 0.0, "about as hard as what it was trained on"),
        (0.99, 0.0, "easier than what it was trained on"),
    ],
)
def test_how_hard_photos_are_is_told_by_accuracy_and_by_distance(
    accuracy: float, shift: float, said: str
) -> None:
    rng = np.random.default_rng(0)
    there, here = rng.normal(5, 1, 400), rng.normal(5 + shift, 1, 300)
    found = harder(wilson(300 * accuracy, 300), wilson(360, 400), here, there)
    assert said in str(found)
    assert found.accuracy.value == pytest.approx(accuracy - 0.9)
    # of two normals one unit wide, shifted by two: Phi(2 / sqrt 2) = 0.921
    assert found.further.value == pytest.approx(0.921 if shift else 0.5, abs=0.03)
    assert found.further.low < found.further.value < found.further.high


def test_the_interval_between_independent_proportions_is_newcombes() -> None:
    found = apart(wilson(56, 70), wilson(48, 80))  # Newcombe 1998, table II, contrast a, method 10
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_the_command_writes_the_page(runs: list[Run], photos: Path, tmp_path: Path) -> None:
    words = ["evaluate", runs[0].path, photos]
    told = topgraft(*words, "-o", "page.html", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1] == "page       page.html"
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "page.json", "page.csv"}
    told = topgraft(*words, "-o", photos / "page.html")
    assert told.returncode == 2
    assert "lies in the photo folder" in told.stderr
