"""Backbones tried on photos, and one of them taken."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import topgraft as tg
from tiny import TINY
from topgraft._learn import compare_side
from topgraft._try_backbones import best_of, on_this_machine, tried_in_words
from topgraft.backbones import _builtin
from topgraft.backbones.card import Card
from topgraft.cli import app
from topgraft.config import FAMILY, Config
from topgraft.errors import MissingExtraError, UsageError
from topgraft.importers._catalogue import note_pace
from topgraft.importers.load import BUILTINS
from topgraft.metrics import Estimate
from topgraft.recipe import follow
from topgraft.run import Run
from topgraft.selection.compare import compare
from topgraft.selection.payoff import losses_of
from topgraft.selection.source import columns_of, stack
from topgraft.settings import Settings
from topgraft.show import print_tried
from topgraft.splits import Split
from topgraft.testing.drawing import draw_photos

SMALL, LARGE, LARGEST = (f"tf_efficientnet_lite{size}.in1k" for size in range(3))
NEARER = f"{SMALL}@288"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("drawn") / "photos", 20, seed=1)


@pytest.fixture(scope="module")
def tried(photos, tmp_path_factory):
    config = Config.load(heads__names=("ridge",))
    store = tmp_path_factory.mktemp("store") / "f.zarr"
    return tg.try_backbones(photos, [LARGE, SMALL], config=config, store=store)


def test_each_is_scored_on_the_photos_that_train_learns_from(photos, tried, tmp_path):
    assert {row.name for row in tried} == {SMALL, LARGE}
    losses = [row.log_loss.value for row in tried]
    assert losses == sorted(losses)
    assert tried[0].difference.value == 0
    assert tried[1].difference.value == pytest.approx(losses[1] - losses[0])
    assert sum(row.chosen for row in tried) == 1
    small, large = sorted(tried, key=lambda row: row.mb)
    assert (small.name, large.name) == (SMALL, LARGE)
    assert small.features == 1280 + 3616
    assert all(row.ms > 0 for row in tried)
    data = tg.Dataset.from_folder(photos)
    split = tg.split(data, test=0.2, seed=0)
    store = tg.embed(data.subset(split.train), tmp_path / "s.zarr")
    columns = columns_of(store)
    found = compare(stack(store, None, columns), store.labels, store.groups, heads="ridge", columns=columns)
    assert small.log_loss.value == pytest.approx(losses_of(found, store.labels).mean())


def test_the_command_prints_them_the_best_first(photos):
    asked = ["backbones", "--try", str(photos), SMALL, NEARER, "--json"]
    best, other = json.loads(CliRunner().invoke(app, asked, catch_exceptions=False).stdout)
    assert {best["name"], other["name"]} == {SMALL, NEARER}
    assert best["difference"]["value"] == 0 <= other["difference"]["value"]
    assert [best["chosen"], other["chosen"]].count(True) == 1


def test_without_names_all_on_the_machine_are_tried(photos, monkeypatch):
    here = [tg.load_backbone(SMALL)]  # however many more this machine has
    monkeypatch.setattr("topgraft._try_backbones.on_this_machine", lambda *_: here)
    asked = ["backbones", "--try", str(photos), "--json"]
    (row,) = json.loads(CliRunner().invoke(app, asked, catch_exceptions=False).stdout)
    assert (row["name"], row["chosen"]) == (SMALL, True)


def test_a_table_marks_the_one_to_take(tried, capsys):
    print_tried(tried)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["name", "accuracy", "log", "loss"]
    marked = [line.split()[1] for line in lines if line.startswith("> ")]
    assert marked == [row.name for row in tried if row.chosen]


def test_what_cannot_be_tried_is_said(photos):
    with pytest.raises(UsageError, match="each name once"):
        tg.try_backbones(photos, [SMALL, SMALL])
    with pytest.raises(UsageError, match="Add --try PHOTOS"):
        CliRunner().invoke(app, ["backbones", SMALL, LARGE], catch_exceptions=False)
    with pytest.raises(UsageError, match="by name alone"):
        CliRunner().invoke(app, ["backbones", "--try", str(photos), "--size", "64"], catch_exceptions=False)
    for name in ("auto", FAMILY, f"{FAMILY}@260"):
        with pytest.raises(UsageError, match=f"{name.partition('@')[0]} is for `topgraft train`"):
            tg.load_backbone(name)
    with pytest.raises(UsageError, match=r"weights are of one backbone, .* name one"):
        Config.load(backbone__weights="random")


def test_photos_are_read_as_the_recipe_says(photos):
    config = Config.load(data__group_by="site[0-9]")
    with pytest.raises(UsageError, match="group_by: no photo has a match"):
        tg.try_backbones(photos, [SMALL], config=config)


def test_auto_takes_one_within_the_time_and_a_resumed_run_stays_with_it(photos, tmp_path, monkeypatch):
    here = [tg.load_backbone(name) for name in (LARGE, SMALL)]  # however many more this machine has
    monkeypatch.setattr("topgraft._try_backbones.on_this_machine", lambda *_: here)
    config = Config.load(
        data__photos=str(photos),
        policies__count=0,
        heads__names=("ridge",),
        backbone__name="auto",
        backbone__time="0s",
    )
    run = follow(config, tmp_path / "run")
    noted = run.read("backbones.json")
    assert [row["name"] for row in noted["tried"]] == [SMALL] == [run.metrics.backbone.name]
    assert noted["chosen"] == run.metrics.backbone.fingerprint
    assert run.config.backbone.name == "auto"
    again = follow(config, tmp_path / "run", resume=True)
    assert again.metrics == run.metrics
    assert again.read("backbones.json") == noted


@pytest.fixture
def two_small(monkeypatch):
    """The two backbones that are tried by default, on small pictures."""
    here = [tg.load_backbone(f"{name}@96") for name in (SMALL, LARGEST)]
    monkeypatch.setattr("topgraft.recipe.to_try", lambda *_: here)


@pytest.mark.usefixtures("two_small")
def test_a_resumed_run_tries_again_where_photos_came(photos, tmp_path, caplog):
    """Else its trial, and perhaps its backbone, would be of other photos than its numbers."""
    mine = tmp_path / "photos"
    shutil.copytree(photos, mine)
    held_back = sorted((mine / "sushi").iterdir())[:4]
    for place in held_back:
        place.rename(tmp_path / place.name)
    config = Config.load(data__photos=str(mine), policies__count=0, heads__names=("ridge",))
    before = follow(config, tmp_path / "run").read("backbones.json")
    for place in held_back:
        (tmp_path / place.name).rename(place)
    caplog.set_level("INFO", "topgraft")
    caplog.clear()  # a command in a test before may have left the level, and what the first run said is here
    again = follow(config, tmp_path / "run", resume=True)
    noted, fresh = again.read("backbones.json"), follow(config, tmp_path / "fresh")
    assert noted["learned"] != before["learned"]
    assert [row["log_loss"] for row in noted["tried"]] != [row["log_loss"] for row in before["tried"]]
    assert again.metrics == fresh.metrics
    assert sum(line.getMessage().startswith("first answer") for line in caplog.records) == 2  # one a run


@pytest.mark.usefixtures("two_small")
def test_the_first_answer_is_said_once_where_int8_is_taken_after_it(photos, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", "topgraft")
    monkeypatch.setattr("topgraft.recipe.in_precision", lambda taken, *_, **__: replace(taken))
    follow(
        Config.load(data__photos=str(photos), policies__count=2, heads__names=("ridge",)), tmp_path / "run"
    )
    assert sum(line.getMessage().startswith("first answer") for line in caplog.records) == 1


def test_by_default_the_larger_one_is_tried_after_the_first_answer(photos, tmp_path, caplog):
    caplog.set_level("INFO", "topgraft")
    config = Config.load(data__photos=str(photos), policies__count=0, heads__names=("ridge",))
    assert config.backbone.name == FAMILY
    run = follow(config, tmp_path / "run")
    noted = run.read("backbones.json")
    assert {row["name"] for row in noted["tried"]} == {SMALL, LARGEST}
    best, other = noted["tried"]
    assert best["chosen"]
    assert not other["chosen"]
    assert run.metrics.backbone.name == best["name"]
    said = [record.getMessage() for record in caplog.records]
    (first,) = (place for place, line in enumerate(said) if line.startswith("first answer"))
    assert first < next(place for place, line in enumerate(said) if line.startswith(f"{LARGEST}: accuracy"))
    (note,) = (line for line in run.metrics.notes if line.startswith("Backbones"))
    assert note.endswith(f"{best['name']} is taken.")
    assert f"{best['log_loss']['value']:.3f}" in note
    named = tg.train(photos, backbone=best["name"], policies=0, heads="ridge", out=tmp_path / "named")
    assert named.metrics.cross_validation == run.metrics.cross_validation
    assert named.metrics.test == run.metrics.test
    again = follow(config, tmp_path / "run", resume=True)
    assert again.metrics == run.metrics
    caplog.clear()
    stages: list[str] = []
    beside = follow(config, tmp_path / "beside", progress=lambda what, *_: stages.append(what))
    assert beside.metrics == run.metrics
    assert "embedding" not in stages  # of neither: the run beside it has the features of both
    said = [line for line in caplog.messages if line.endswith("are used again")]
    assert len(said) == len(set(said)) > 0


def test_why_another_than_the_best_is_taken_is_said():
    def row(name, loss, by, chosen):
        gap = {"value": by, "low": by - 0.02, "high": by + 0.02}
        return {"name": name, "log_loss": {"value": loss}, "difference": gap, "chosen": chosen}

    rows = [row("a", 0.3, 0, False), row("b", 0.31, 0.01, True)]
    said = tried_in_words(rows, larger=True)
    assert said.startswith(
        "Backbones on the photos as they are, log loss out of fold: a 0.300; b 0.310 (+0.010"
    )
    assert said.endswith(
        " b is taken: what a is better by may be chance, and the larger is better more often."
    )
    assert "chance, and it is quicker" in tried_in_words(rows, larger=False)
    rows = [row("a", 0.3, 0, True), row("b", 0.5, 0.2, False)]
    assert tried_in_words(rows, larger=True).endswith("a is taken.")


@pytest.fixture(scope="module")
def lesson(photos, tmp_path_factory):
    """What a head learned of the photos, whichever backbone is asked."""
    data = tg.Dataset.from_folder(photos)
    store = tg.embed(data, tmp_path_factory.mktemp("lesson") / "f.zarr", backbone=TINY)
    return compare_side(store, Split(train=store.ids), heads=("mean",), folds=2, settings=Settings.load())


@pytest.mark.parametrize("slow", [SMALL, LARGEST])
@pytest.mark.parametrize("larger", [True, False])
@pytest.mark.parametrize(("worse_by", "other"), [(-0.5, False), (-1.5, True)])
def test_by_how_much_another_must_be_better(slow, larger, worse_by, other, lesson, monkeypatch):
    backbones = [tg.load_backbone(name) for name in (SMALL, LARGEST)]
    errors = Estimate(worse_by * 0.1, 0, 0), 0.1
    monkeypatch.setattr("topgraft._try_backbones.gap", lambda *_, **__: errors)
    paces = {True: 20.0, False: 10.0}
    monkeypatch.setattr("topgraft._try_backbones._ms", lambda one, _: paces[one.card.name == slow])
    best = best_of(backbones, lambda _: lesson, larger=larger, settings=Settings.load())
    first = (
        LARGEST if larger or slow == SMALL else SMALL
    )  # how quick they were decides nothing for the larger
    assert (best.backbone.card.name == first) != other


def test_a_start_that_fails_replaces_no_run(photos, tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run")
    run.write_json("fits.json", {"linear": 1.0})
    gone = replace(_builtin.LITE2, package="efficientnet-that-nobody-installed")
    monkeypatch.setitem(BUILTINS, _builtin.LITE2.name, gone)
    monkeypatch.setattr("topgraft.importers.load.find_spec", lambda _: None)
    config = Config.load(data__photos=str(photos), policies__count=0, heads__names=("mean",))
    with pytest.raises(MissingExtraError, match="lite2"):
        follow(config, run.path, overwrite=True, settings=Settings.load(cache_dir=tmp_path))
    assert run.read("fits.json") == {"linear": 1.0}


def test_what_is_made_of_another_is_not_tried_beside_it(tmp_path):
    settings = Settings.load(cache_dir=tmp_path)
    small, large = (tg.load_backbone(f"{name}@64", settings=settings) for name in (SMALL, LARGEST))
    tg.load_backbone(f"{SMALL}@64+{LARGEST}@64", settings=settings)
    for name, of in (("small", small), ("large", large)):  # two of one side, whose names do not say it
        folder = shutil.copytree(of.graph.parent, tmp_path / name)
        card = of.card.model_copy(update={"name": name, "source": "onnx"})
        (folder / "card.json").write_text(card.model_dump_json())
        (folder / "SHA256SUMS").unlink(missing_ok=True)
    both = tg.load_backbone(f"{tmp_path / 'small'}+{tmp_path / 'large'}", settings=settings).card
    assert (both.name, both.source) == ("small+large", "joined")
    names = [found.card.name for found in on_this_machine(settings)]
    assert {"small", "large"} <= set(names)
    assert not [name for name in names if "@" in name or "+" in name]


def test_of_one_name_the_graph_with_every_depth_is_tried_and_listed_wherever_they_lie(tmp_path, monkeypatch):
    """A cache holds an older graph beside the one it was renewed to, and weights files of one name."""
    settings = Settings.load(cache_dir=tmp_path / "cache")
    small = tg.load_backbone(f"{SMALL}@64", settings=settings)
    made = {}
    for weights, depths in (("a", ()), ("b", small.card.depths), ("c", small.card.depths)):
        facts = {"name": "mine", "source": "timm", "weights_sha256": weights, "depths": depths}
        card = small.card.model_copy(update=facts)
        folder = shutil.copytree(small.graph.parent, settings.cache_dir / "backbones" / card.folder())
        (folder / "card.json").write_text(card.model_dump_json())
        (folder / "SHA256SUMS").unlink(missing_ok=True)
        made[weights] = card
    expected = min((made["b"], made["c"]), key=Card.folder)
    listing = Path.iterdir
    for backwards in (False, True):  # as another file system would list them
        monkeypatch.setattr(Path, "iterdir", lambda self, b=backwards: iter(sorted(listing(self), reverse=b)))
        (tried,) = (found for found in on_this_machine(settings) if found.card.name == "mine")
        assert tried.card == expected
        note_pace(settings.cache_dir, expected, 7)
        (listed,) = (row for row in tg.list_backbones(settings) if row.name == "mine")
        assert listed.pace == 7
