"""Fine-tuning from run to run, on drawn photos and the default backbone, on small pictures: no stand-in."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import topgraft as tg
from tiny import TINY
from topgraft import _finetune
from topgraft.backbones.backbone import Backbone
from topgraft.errors import (
    BackboneError,
    DataError,
    MissingExtraError,
    StoreError,
    UnknownNameError,
    UsageError,
)
from topgraft.importers.load import load_backbone
from topgraft.predictor.saliency import activation_map
from topgraft.run import Run
from topgraft.settings import Settings
from topgraft.testing.drawing import draw_photos

pytest.importorskip("torch", reason="needs the timm extra")
pytest.importorskip("timm", reason="needs the timm extra")
pytestmark = pytest.mark.timm

SETTINGS = Settings.load(threads=1)
OPTIONS = {"blocks": 1, "views": 1, "epochs": 3, "batch": 6, "rate": 3e-4, "patience": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tg.Dataset.from_folder(draw_photos(tmp_path_factory.mktemp("drawn") / "photos", 12, seed=0))


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    policies = tg.draw(2, seed=0)
    store = tg.embed(data, folder / "features.zarr", backbone=TINY, policies=policies)
    split = tg.split(data, test=0.25, seed=0)
    return tg.train(
        store, split, heads="logistic", folds=2, depths="all", answer_above=0.6, out=folder / "run"
    )


@pytest.fixture(scope="module")
def shallow(data, tmp_path_factory):
    """A run whose head reads the last layer alone."""
    folder = tmp_path_factory.mktemp("shallow")
    store = tg.embed(data, folder / "features.zarr", backbone=TINY, depths="last")
    split = tg.split(data, test=0.25, seed=0)
    return tg.train(store, split, heads="logistic", folds=2, out=folder / "run")


@pytest.fixture(scope="module")
def second(first, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("second") / "run"
    return tg.finetune(first, data, out=out, settings=SETTINGS, **OPTIONS)


def columns(run, *names):
    return [tuple(row[name] for name in names) for row in run.read_table("predictions.csv")]


def test_the_result_is_a_run_like_any_other(first, second):
    assert set(second.metrics.as_dict()) == {*first.metrics.as_dict(), "finetune"}
    assert {one.name for one in second.path.iterdir()} >= {"config.toml", "model", "backbone", "curves.json"}
    assert not (second.path / "checkpoints").exists()
    assert columns(first, "id", "split", "fold", "label") == columns(second, "id", "split", "fold", "label")
    assert columns(first, "p_sushi") != columns(second, "p_sushi")
    metrics = second.metrics
    assert tg.load(second.path).card.answer_above == metrics.trust.coverage["chosen"]["above"] == 0.6
    assert metrics.counts.views == 2
    assert metrics.policies == first.metrics.policies[:1]
    assert metrics.backbone.fingerprint != first.metrics.backbone.fingerprint
    assert metrics.finetune["names"] == ["blocks.6.0"]
    assert [row.chosen for row in metrics.leaderboard].count(True) == 1
    right = np.mean(
        [row["label"] == row["predicted"] for row in second.read_table("predictions.csv") if row["fold"]]
    )
    assert metrics.cross_validation.accuracy.value == pytest.approx(right)
    text = json.dumps(metrics.as_dict())
    assert "seconds" not in text
    assert str(second.path) not in text


@pytest.mark.parametrize("which", ["first", "shallow"])
def test_it_begins_with_the_head_of_the_run(which, data, tmp_path, request):
    run = request.getfixturevalue(which)
    tuner = tuner_of(run, data, tmp_path)
    tuner.begin(tuner.base.learn)
    _, ours = tuner.answers(tuner.base.test)
    found = [tg.load(run.path).look(data.image(i)) for i in tuner.base.test]
    theirs = np.log(np.concatenate([one["probabilities"] for one in found]))
    deep = which == "first"
    assert ("blocks" in found[0]) == deep
    assert tuner.net.affine().weight.shape[0] == (4896 if deep else 1280)
    assert any(tuner.cut.blocks) == deep
    near = 0.01 * float(np.abs(margins(theirs)).max())
    np.testing.assert_allclose(margins(ours), margins(theirs), atol=near)
    whole = np.concatenate([tuner.asked(data.image(i)) for i in tuner.base.test])  # from pixels, uncut
    np.testing.assert_allclose(ours, whole, atol=near)


def tuner_of(run, data, folder):
    from topgraft._finetune.base import Base
    from topgraft._finetune.plan import Training
    from topgraft._finetune.tuner import Tuner

    base = Base.of(run, data, settings=SETTINGS)
    views = base.views(len(run.metrics.policies))
    return Tuner(base, 2, views, Training(), folder / "checkpoints", settings=SETTINGS)


def margins(logits):
    return logits[:, 1] - logits[:, 0]


def test_every_depth_is_in_the_predictor(second, data):
    card, metrics = tg.load(second.path).card, second.metrics
    assert "depths=" in metrics.head.setting
    assert card.backbone.depths == load_backbone(TINY).card.depths
    shares = [one["share"] for one in metrics.head.depths]
    assert len(shares) == 17
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    image = data.image(0)
    both = [tg.load(second.path, engine=engine).look(image) for engine in ("openvino", "onnxruntime")]
    assert both[0]["blocks"].shape == (1, card.backbone.columns.extra)
    assert both[0]["probabilities"] == pytest.approx(both[1]["probabilities"], abs=1e-3)
    assert activation_map(tg.load(second.path), image).shape == image.shape[:2]


@pytest.mark.nightly
def test_a_head_on_the_last_layer_stays_on_it(shallow, data, tmp_path):
    made = tg.finetune(shallow, data, blocks=1, epochs=1, folds=1, out=tmp_path / "run", settings=SETTINGS)
    assert made.metrics.finetune["activations"] == [[192, 3, 3]]
    assert made.metrics.head.depths == []
    assert "depths=" not in made.metrics.head.setting
    assert "blocks" not in tg.load(made.path).look(data.image(0))


@pytest.mark.nightly
@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_every_depth_is_exported(second, data, tmp_path, precision):
    made = tg.export(second, tmp_path / precision, precision=precision, photos=data, settings=SETTINGS)
    assert made.agreement.broken == ""


def test_the_gain_is_that_of_the_same_photos(first, second):
    gain = second.metrics.finetune["gain"]
    ours, theirs = (run.metrics.cross_validation for run in (second, first))
    for name, near in (("accuracy", 1e-9), ("log_loss", 0.01)):  # the table has six digits of a probability
        assert gain[name]["value"] == pytest.approx(
            getattr(ours, name).value - getattr(theirs, name).value, abs=near
        )
        assert gain[name]["low"] <= gain[name]["value"] <= gain[name]["high"]
    said = second.metrics.notes[0]
    assert "Against the frozen backbone, cross-validated on the same photos and folds" in said
    worse, better = gain["log_loss"]["low"] > 0, gain["log_loss"]["high"] < 0
    assert ("makes it worse" in said, "makes it better" in said) == (worse, better)


def test_the_predictor_says_what_the_table_says(first, second, data):
    rows = [row for row in second.read_table("predictions.csv") if row["split"] == "test"]
    places = {one.id: i for i, one in enumerate(data.samples)}
    said = tg.load(second.path).predict([data.image(places[row["id"]]) for row in rows])
    for one, row in zip(said, rows, strict=True):
        assert one.probabilities["sushi"] == pytest.approx(float(row["p_sushi"]), abs=5e-3)
    before = tg.load(first.path).predict([data.image(places[row["id"]]) for row in rows])
    assert any(
        abs(one.probabilities["sushi"] - other.probabilities["sushi"]) > 1e-3
        for one, other in zip(said, before, strict=True)
    )


def test_the_predictor_needs_no_torch(second, data):
    code = (
        "import sys, topgraft as tg; tg.load(sys.argv[1]).predict([sys.argv[2]]);"
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    photo = os.path.join(data.root, data.samples[0].path)  # noqa: PTH118
    subprocess.run([sys.executable, "-c", code, second.path, photo], check=True)


def test_runs_before_and_after_are_evaluated_together(first, second, data):
    found = tg.evaluate([first, second], data, split="all")
    assert len(found.members) == 2
    assert all(one.scores["n"] == len(data) for one in found.results)


def test_curves_and_the_report_show_the_training(second):
    series = second.read("curves.json")["series"]
    assert {one["kind"] for one in series} == {"loss", "accuracy", "rate"}
    for one in series:
        assert len(one["x"]) == len(one["y"]) > 0
        assert np.isfinite(one["y"]).all()
    page = tg.report(second).read_text(encoding="utf-8")
    assert "Learning rate" in page
    assert "fine-tune, 1 blocks" in second.read("timings.json")


@pytest.mark.nightly
def test_the_fine_tuned_backbone_embeds_and_is_fine_tuned_again(second, data, tmp_path):
    backbone = Backbone.open(second.path / "backbone")
    assert backbone.card.name == "tf_efficientnet_lite0.in1k-finetuned@96"
    assert backbone.card.preprocessing() == load_backbone(TINY).card.preprocessing()
    again = tg.finetune(
        second, data, out=tmp_path / "third", settings=SETTINGS, **(OPTIONS | {"epochs": 1, "views": 0})
    )
    assert again.metrics.backbone.name == "tf_efficientnet_lite0.in1k-finetuned-finetuned@96"


KILL = """
import json, os, sys
from topgraft import Dataset, finetune
from topgraft._finetune import checkpoint
from topgraft.settings import Settings
run, photos, out, after, options = sys.argv[1:]
saved, save = 0, checkpoint.Checkpoint.save
def counted(*given):
    global saved
    save(*given)
    saved += 1
    if saved == int(after):
        os.kill(os.getpid(), 9)
checkpoint.Checkpoint.save = counted
finetune(run, Dataset.from_folder(photos), out=out, resume=True, settings=Settings.load(threads=1),
    **json.loads(options))
"""


def killed(first, data, out, after):
    words = [first.path, data.root, out, str(after), json.dumps(OPTIONS)]
    done = subprocess.run([sys.executable, "-c", KILL, *map(str, words)], check=False)
    assert done.returncode == -signal.SIGKILL


def same(one, other):
    for name in ("metrics.json", "predictions.csv", "model/model.onnx"):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name


def test_a_killed_fine_tuning_goes_on_to_the_same_bytes(first, second, data, tmp_path):
    killed(first, data, tmp_path / "run", after=4)
    assert list((tmp_path / "run" / "checkpoints").rglob("*.safetensors"))
    with pytest.raises(UsageError, match="--resume"):
        tg.finetune(first, data, out=tmp_path / "run", settings=SETTINGS, **OPTIONS)
    other = OPTIONS | {"rate": 1e-3}
    with pytest.raises(DataError, match="another run or with other options"):
        tg.finetune(first, data, out=tmp_path / "run", resume=True, settings=SETTINGS, **other)
    made = tg.finetune(first, data, out=tmp_path / "run", resume=True, settings=SETTINGS, **OPTIONS)
    same(made, second)
    before = (made.path / "metrics.json").stat().st_mtime_ns
    (made.path / "model" / "README.md").unlink()  # as if killed right after the numbers
    tg.finetune(first, data, out=tmp_path / "run", resume=True, settings=SETTINGS, **OPTIONS)
    assert (made.path / "metrics.json").stat().st_mtime_ns == before  # finished: nothing is done again
    assert (made.path / "model" / "README.md").exists()


@pytest.mark.nightly
def test_killed_at_every_epoch_it_goes_on_to_the_same_bytes(first, second, data, tmp_path):
    for _ in range(3):
        killed(first, data, tmp_path / "run", after=2)
    same(tg.finetune(first, data, out=tmp_path / "run", resume=True, settings=SETTINGS, **OPTIONS), second)


def test_two_do_not_write_one_run(first, data, tmp_path, monkeypatch):
    def meanwhile(_run):
        with pytest.raises(StoreError, match="another process is writing"):
            tg.finetune(first, data, blocks=0, out=tmp_path / "run", resume=True, settings=SETTINGS)

    monkeypatch.setattr(_finetune, "write_model_card", meanwhile)
    tg.finetune(first, data, blocks=0, out=tmp_path / "run", settings=SETTINGS)


def test_no_blocks_is_the_run_itself(first, data, tmp_path):
    made = tg.finetune(first, data, blocks=0, out=tmp_path / "run", settings=SETTINGS)
    assert made.metrics.finetune == {"blocks": 0, "tried": []}
    assert columns(made, "id", "p_sushi") == columns(first, "id", "p_sushi")
    assert made.metrics.test == first.metrics.test
    assert "No block was to be fine-tuned" in made.metrics.notes[0]
    assert tg.load(made.path).classes == tg.load(first.path).classes


def test_a_kept_run_that_was_fine_tuned_keeps_its_backbone(second, data, tmp_path):
    kept = tg.finetune(second, data, blocks=0, out=tmp_path / "kept", settings=SETTINGS)
    assert Backbone.open(kept.path / "backbone").card == Backbone.open(second.path / "backbone").card
    with pytest.raises(UsageError, match="must be 0 to"):  # it is found, and only the number is wrong
        tg.finetune(kept, data, blocks=99, out=tmp_path / "run", settings=SETTINGS)


def test_the_model_has_its_card(second):
    text = (second.model / "README.md").read_text(encoding="utf-8")
    assert "blocks fine-tuned" in text


def test_a_backbone_is_looked_for_as_it_was_asked_for(first, data, tmp_path, monkeypatch):
    """Its name alone would be another network: the pretrained one."""
    run = Run(shutil.copytree(first.path, tmp_path / "run"))
    run.write("config.toml", 'seed = 3\n[backbone]\nname = "tf_efficientnet_lite0"\nweights = "random"\n')
    monkeypatch.setenv("TOPGRAFT_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(
        BackboneError, match=r"made by another backbone: .*got .*\(tf_efficientnet_lite0\.random3"
    ):
        tg.finetune(run, data, out=tmp_path / "other", settings=Settings.load(threads=1, offline=True))


def test_a_training_that_diverges_says_so(first, data, tmp_path):
    with pytest.raises(UsageError, match=r"the training diverged in epoch \d"):
        tg.finetune(first, data, blocks=1, rate=1e30, epochs=2, out=tmp_path / "run", settings=SETTINGS)
    with pytest.raises(UsageError, match="rate must be above 0"):
        tg.finetune(first, data, rate=float("inf"), out=tmp_path / "run", settings=SETTINGS)


def test_auto_keeps_the_backbone_frozen_where_nothing_is_gained(first, data, tmp_path, monkeypatch):
    monkeypatch.setattr("topgraft._finetune.plan.TRIED", (1, 99))
    wild = OPTIONS | {"blocks": "auto", "views": 2, "rate": 3.0, "head_rate": 3.0, "patience": 1}
    made = tg.finetune(first, data, out=tmp_path / "run", settings=SETTINGS, **wild)
    found = made.metrics.finetune
    assert found["blocks"] == 0
    assert [one["blocks"] for one in found["tried"]] == [1]
    assert found["tried"][0]["best_epochs"] == [0, 0]
    assert found["tried"][0]["gain"]["log_loss"]["value"] == pytest.approx(0, abs=0.01)  # it is that head
    assert "gained nothing that chance does not explain" in made.metrics.notes[0]
    assert made.metrics.cross_validation == first.metrics.cross_validation


def test_auto_says_why_where_no_number_of_blocks_can_be_trained(first, data, tmp_path, monkeypatch):
    monkeypatch.setattr("topgraft._finetune.plan.TRIED", (1, 2))
    monkeypatch.setattr("topgraft._finetune.cut.TOLERANCE", -1.0)  # no cut is near enough
    made = tg.finetune(first, data, blocks="auto", out=tmp_path / "run", settings=SETTINGS)
    assert made.metrics.finetune == {"blocks": 0, "tried": []}
    why, one, two, *_ = made.metrics.notes
    assert why == "None of the numbers of blocks could be fine-tuned, so this run is the one it began with."
    assert one.startswith("1 block cannot be trained: ")
    assert two.startswith("2 blocks cannot be trained: ")
    assert "give other features than the whole" in one


def edited(backbone, **facts):
    return Backbone(backbone.card.model_copy(update=facts), backbone.graph)


def with_fingerprint(run, backbone, folder):
    """Copy a run and let it say that it was made by this backbone."""
    shutil.copytree(run.path, folder)
    copy = Run(folder)
    facts = copy.metrics.as_dict()
    facts["backbone"]["fingerprint"] = backbone.card.fingerprint()
    copy.write_json("metrics.json", facts)
    return copy


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (
            {"blocks": 20},
            UsageError,
            r"`blocks` must be 0 to 16 for tf_efficientnet_lite0.in1k@96, or auto, got 20",
        ),
        ({"blocks": -1}, UsageError, r"Try `--blocks 3`"),
        ({"blocks": "all"}, UsageError, r"or auto, got all"),
        ({"views": 3}, UsageError, r"`views` must be 0 to 2"),
        ({"epoch": 3}, UnknownNameError, r"Did you mean epochs"),
        ({"epochs": 0}, UsageError, r"epochs must be at least 1, got 0"),
        ({"rate": -1.0}, UsageError, r"rate must be above 0, got -1"),
        ({"warmup": 1.0}, UsageError, r"warmup must be at least 0 and below 1, got 1\.0"),
        ({"warmup": float("nan")}, UsageError, r"warmup must be at least 0 and below 1, got nan"),
        ({"batch_norm": "on"}, UsageError, r"batch_norm must be frozen or train, got 'on'"),
    ],
)
def test_wrong_options_are_one_clear_line(first, data, tmp_path, options, error, said):
    with pytest.raises(error, match=said):
        tg.finetune(first, data, out=tmp_path / "run", settings=SETTINGS, **options)
    assert not (tmp_path / "run").exists()


def test_backbones_that_cannot_be_fine_tuned_are_one_clear_line(first, data, tmp_path):
    known = load_backbone(TINY)
    for number, (facts, said) in enumerate(
        [
            ({"source": "onnx"}, "without PyTorch weights, so it cannot be fine-tuned"),
            ({"blocks": ()}, "no named blocks"),
            ({"precision": "int8"}, "its graph is int8"),
        ]
    ):
        backbone = edited(known, **facts)
        run = with_fingerprint(first, backbone, tmp_path / str(number))
        with pytest.raises(BackboneError, match=said):
            tg.finetune(run, data, backbone=backbone, out=tmp_path / "run", settings=SETTINGS)
    with pytest.raises(BackboneError, match="made by another backbone: expected card"):
        tg.finetune(first, data, backbone=edited(known, weights_sha256="0" * 64), settings=SETTINGS)
    with pytest.raises(BackboneError, match=r"its head reads 16 blocks of the backbone, and .* 0 of them"):
        tg.finetune(first, data, backbone=edited(known, depths=()), settings=SETTINGS)


def test_other_photos_are_one_clear_line(first, data, tmp_path):
    photos = shutil.copytree(data.root, tmp_path / "photos")
    some = photos / data.samples[0].path
    some.write_bytes((photos / data.samples[1].path).read_bytes())
    with pytest.raises(DataError, match="missing or have changed"):
        tg.finetune(first, tg.Dataset.from_folder(photos), out=tmp_path / "run", settings=SETTINGS)
    (photos / "sushi").rename(photos / "soup")
    with pytest.raises(DataError, match="expected the classes of"):
        tg.finetune(first, tg.Dataset.from_folder(photos), out=tmp_path / "run", settings=SETTINGS)
    with pytest.raises(DataError, match=r"names no photos\. Give the photos, too"):
        tg.finetune(first, out=tmp_path / "run", settings=SETTINGS)
    with pytest.raises(UsageError, match="a folder of its own"):
        tg.finetune(first, data, out=first.path, overwrite=True, settings=SETTINGS)
    with pytest.raises(UsageError, match="nothing is ever written"):
        tg.finetune(first, data, out=f"{data.root}/run", settings=SETTINGS)


def test_without_the_extra_it_says_which(first, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"fine-tuning needs the `timm` extra"):
        tg.finetune(first, data)


def test_the_command_says_what_is_wrong_in_one_line(first, data, tmp_path):
    line = [sys.executable, "-m", "topgraft.cli", "finetune", str(first.path), data.root, "--blocks", "99"]
    done = subprocess.run([*line, "-o", str(tmp_path / "run")], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("topgraft: `blocks` must be 0 to 16")
    assert "Traceback" not in done.stderr


def test_a_quick_split_is_judged_on_its_photos_alone(first, data, tmp_path, caplog):
    caplog.set_level("INFO")
    told = []
    made = tg.finetune(
        first,
        data,
        folds=1,
        out=tmp_path / "quick",
        settings=SETTINGS,
        progress=lambda what, done, total: told.append((what, done, total)),
        **OPTIONS,
    )
    before = first.read_table("predictions.csv")
    own = {row["id"] for row in before if row["fold"] == "0"}
    after = made.read_table("predictions.csv")
    assert {row["id"] for row in after if row["split"] == "cv"} == own
    assert {row["id"] for row in after if row["split"] == "learned"} == {
        row["id"] for row in before if row["split"] == "cv"
    } - own
    facts = made.metrics
    assert facts.cross_validation.n == len(own)
    assert facts.cross_validation.folds == 1
    assert facts.finetune["scored"] == len(own)
    assert f"on a single split, {len(own)} photos of" in facts.notes[0]
    # one fold and all photos, each twice: one bar over all of it
    totals = {total for what, _, total in told if what == "fine-tuning"}
    assert totals == {4 * OPTIONS["epochs"]}
    assert any("1 fold of at most 3 epochs, and once on all photos" in line for line in caplog.messages)
    assert "a single split" in tg.report(made).read_text(encoding="utf-8")
    # what was learned from and not scored is known all the same
    (note,) = [note for note in tg.evaluate(made, data).notes if "left out" in note]
    assert f"{len(own) + sum(row['split'] == 'learned' for row in after)} more were used" in note
    with pytest.raises(DataError, match="fine-tuned on a single split"):
        tg.finetune(made, data, out=tmp_path / "again", settings=SETTINGS)
    with pytest.raises(UsageError, match="folds must be 1 or 2"):
        tg.finetune(first, data, folds=3, out=tmp_path / "other", settings=SETTINGS)


def test_it_stops_where_no_gain_is_in_sight(data, tmp_path, caplog):
    caplog.set_level("INFO")
    store = tg.embed(data, tmp_path / "features.zarr", backbone=TINY)
    run = tg.train(store, heads="logistic", folds=4, out=tmp_path / "run")
    wild = OPTIONS | {"views": 0, "rate": 3.0, "head_rate": 3.0, "blend": 1.0, "patience": 3, "refit": False}
    made = tg.finetune(run, data, out=tmp_path / "tuned", settings=SETTINGS, **wild)
    assert made.metrics.finetune["blocks"] == 0
    (tried,) = made.metrics.finetune["tried"]
    assert len(tried["epochs"]) < 4
    said = f"no gain in sight after {len(tried['epochs'])} of 4 folds"
    assert said in made.metrics.notes[1]
    assert any("left in all" in line for line in caplog.messages)
    assert made.metrics.cross_validation == run.metrics.cross_validation
