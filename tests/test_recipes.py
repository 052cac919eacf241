"""Recipes that come along, and `topgraft run`: all stages, what is done passed over."""

import csv
import json
import re
import shutil
import tarfile

import pytest

import topgraft as tg
from tiny import TINY
from topgraft import _run_recipe
from topgraft.config import Config
from topgraft.errors import DataError, OfflineError, UnknownNameError, UsageError
from topgraft.photos.corrections import Correction, Corrections
from topgraft.recipes import SHIPPED, find_recipe
from topgraft.settings import Settings
from topgraft.testing.drawing import draw_photos

SMALL = f"""seed = 0
[backbone]
name = "{TINY}"
[policies]
count = 0
[heads]
names = ["mean"]
folds = 2
[export]
format = "openvino"
"""
EXPECTED = re.compile(r"accuracy (\d\.\d+) to (\d\.\d+), log loss (\d\.\d+) to (\d\.\d+)")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("drawn") / "photos", 6, seed=0)


def opening(name):
    lines = SHIPPED[name].read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("#")]


def told(name):
    """What a recipe opens with, in one line."""
    return " ".join(line.removeprefix("# ") for line in opening(name))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_opens_with_its_command_and_what_to_expect(name):
    Config.load(SHIPPED[name])
    assert opening(name)[0].startswith(f"# topgraft run {name} photos")
    assert bool(EXPECTED.search(told(name))) != ("No figure here" in told(name))


def test_a_recipe_is_a_path_or_a_name(tmp_path):
    (tmp_path / "quick").write_text(SMALL)
    assert find_recipe("quick") == SHIPPED["quick"]
    assert find_recipe(tmp_path / "quick") == tmp_path / "quick"
    with pytest.raises(UnknownNameError, match=r"no recipe is named .quikc.\. Did you mean quick\?"):
        find_recipe("quikc")
    with pytest.raises(UsageError, match=r"names no photos\. Give them: topgraft run quick PHOTOS"):
        tg.run_recipe("quick")


def test_all_stages_and_what_is_done_is_passed_over(photos, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="topgraft")
    recipe, out = tmp_path / "mine.toml", tmp_path / "out"
    recipe.write_text(SMALL)
    run = tg.run_recipe(recipe, photos, out=out)
    assert run.path == out / "train"
    assert (out / "train" / "report.html").is_file()
    made = json.loads((out / "export" / "metrics.json").read_text())["export"]
    assert (made["format"], made["precision"]) == ("openvino", "f32")

    def never(*_, **__):
        raise AssertionError("done again")

    with monkeypatch.context() as patch:
        for stage in ("follow", "export", "read_as_asked"):
            patch.setattr(_run_recipe, stage, never)
        assert tg.run_recipe(recipe, photos, out=out).metrics == run.metrics
    assert sum("is there already" in line for line in caplog.messages) == 2

    (out / "train" / "report.html").unlink()  # stopped just before its end
    shutil.rmtree(out / "export")
    tg.run_recipe(recipe, photos, out=out)
    assert (out / "train" / "report.html").is_file()
    assert (out / "export" / "model.xml").is_file()

    recipe.write_text(SMALL.replace("seed = 0", "seed = 1"))
    with pytest.raises(UsageError, match="begun with seed = 0, got 1"):
        tg.run_recipe(recipe, photos, out=out)


def test_a_run_of_photos_named_from_here_is_done_the_next_time(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos.parent)
    (tmp_path / "mine.toml").write_text(SMALL.partition("[export]")[0])
    run = tg.run_recipe(tmp_path / "mine.toml", photos.name, out=tmp_path / "out")
    monkeypatch.setattr(_run_recipe, "follow", None)
    assert tg.run_recipe(tmp_path / "mine.toml", photos.name, out=tmp_path / "out").path == run.path


@pytest.mark.timm
def test_every_stage_reads_the_photos_as_the_recipe_says(photos, tmp_path, monkeypatch):
    """Groups and corrections are for fine-tuning and export as they are for training."""
    one = tg.Dataset.from_folder(photos).samples[0]
    line = Correction(1, "label", "sushi", "sandwich", one.id, str(photos), one.digest)
    table = Corrections(tmp_path / "table.csv")
    table.add([line])
    table.close()
    (tmp_path / "mine.toml").write_text(
        f"{SMALL}[finetune]\nblocks = 0\n[data]\ngroup_by = '[0-9](?=[.])'\ncorrections = 'table.csv'\n"
    )
    monkeypatch.chdir(tmp_path)
    read = {}
    for stage in ("finetune", "export"):
        real = getattr(_run_recipe, stage)

        def noted(run, *places, stage=stage, real=real, **options):
            read[stage] = options.get("photos") or places[0]
            return real(run, *places, **options)

        monkeypatch.setattr(_run_recipe, stage, noted)
    run = tg.run_recipe("mine.toml", photos, out="out")
    assert run.config.data.corrections == str(tmp_path / "table.csv")  # found from anywhere
    for data in read.values():
        assert data.grouping.startswith("Grouped by")
        assert data.classes[data.samples[0].label] == "sushi"


@pytest.mark.timm
def test_fine_tuning_is_a_stage(photos, tmp_path, monkeypatch):
    recipe, out = tmp_path / "mine.toml", tmp_path / "out"
    recipe.write_text(SMALL + "[finetune]\nblocks = 0\n")
    run = tg.run_recipe(recipe, photos, out=out)
    assert run.path == out / "finetune"
    assert run.metrics.finetune == {"blocks": 0, "tried": []}
    assert (run.path / "report.html").is_file()
    assert (out / "export" / "model.xml").is_file()
    monkeypatch.setattr(_run_recipe, "finetune", None)
    assert tg.run_recipe(recipe, photos, out=out).path == run.path
    monkeypatch.undo()
    recipe.write_text(SMALL + "[finetune]\nblocks = 0\nepochs = 7\n")
    with pytest.raises(DataError, match="with other options"):
        tg.run_recipe(recipe, photos, out=out)
    assert exported(out)["finetune"]
    recipe.write_text(SMALL)  # without the stage, what it made is no export of this recipe
    assert tg.run_recipe(recipe, photos, out=out).path == out / "train"
    assert not exported(out).get("finetune")


def exported(out):
    return json.loads((out / "export" / "metrics.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[finetune]\nblokcs = 3", r"finetune\.blokcs: no such key, did you mean blocks\?"),
        ("[export]\nformat = 'onxx'", r"export\.format: .*got 'onxx'"),
        ("[export]\nprecison = 'f16'", r"export\.precison: no such key, did you mean precision\?"),
    ],
)
def test_mistakes_in_later_stages_are_told_before_the_first(tmp_path, text, words):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        tg.run_recipe(tmp_path / "r.toml", tmp_path)


def test_train_sends_later_stages_to_run(tmp_path):
    (tmp_path / "r.toml").write_text("[export]\nformat = 'onnx'")
    with pytest.raises(UsageError, match="Give the recipe to `topgraft run`"):
        tg.train(tmp_path, config=tmp_path / "r.toml")


MEASURED = [name for name in SHIPPED if EXPECTED.search(told(name))]


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.shared
@pytest.mark.timm
@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_a_recipe_promises(name, seed, shared, tmp_path, monkeypatch):
    monkeypatch.setenv("TOPGRAFT_CACHE_DIR", str(tmp_path / "cache"))  # no other backbone to try
    photos, options = shared / "data" / "sushi_sandwich", {}
    if name == "many-classes":
        with tarfile.open(shared / "data" / "grocery_240px.tar") as tar:
            tar.extractall(tmp_path / "photos", filter="data")
        photos = tmp_path / "photos"
    if name == "origin-mobilenet":
        options = {"backbone": f"local-dir:{shared}/weights/mobilenetv1_100.tflite_in1k"}
    run = tg.run_recipe(name, photos, out=tmp_path / "run", seed=seed, **options)
    least, most, low, high = map(float, EXPECTED.search(told(name)).groups())
    found = run.metrics.cross_validation
    assert least <= round(found.accuracy.value, 3) <= most
    assert low - 0.002 <= found.log_loss.value <= high + 0.002
    if name == "many-classes":
        assert len(run.metrics.classes) == 81
        assert run.metrics.test.accuracy.value > 0.5
    if name == "origin-mobilenet":
        heads = Config.load(SHIPPED[name]).heads.names
        assert {row.head for row in run.metrics.leaderboard} == set(heads)
        assert found.accuracy.low > 0.6


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.shared
@pytest.mark.timm
@pytest.mark.parametrize("name", ["origin-resnet50", "origin-inception-v3"])
def test_the_origins_other_two_on_weights_of_the_hub(name, shared, tmp_path):
    try:
        run = tg.run_recipe(name, shared / "data" / "sushi_sandwich", out=tmp_path)
    except OfflineError as error:
        pytest.skip(f"its weights come from a hub: {error}")
    assert {row.head for row in run.metrics.leaderboard} == set(Config.load(SHIPPED[name]).heads.names)
    assert run.metrics.cross_validation.accuracy.low > 0.6


@pytest.mark.nightly
def test_bursts_stay_together(tmp_path):
    from PIL import Image

    draw_photos(tmp_path / "photos", 20, seed=0)
    with (tmp_path / "photos.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "group"])
        for path in sorted((tmp_path / "photos").rglob("*.jpg")):
            for k in range(3):  # three frames of one scene
                frame = path.with_stem(f"{path.stem}-{k}")
                Image.open(path).rotate(20 * k).save(frame)
                table.writerow([frame.relative_to(tmp_path), path.parent.name, path.stem])
    run = tg.run_recipe("bursts", tmp_path / "photos.csv", out=tmp_path / "out", settings=Settings.load())
    sides = {}
    for row in run.read_table("predictions.csv"):
        sides.setdefault(row["id"].rsplit("-", 1)[0], set()).add(row["split"])
    assert len(sides) == 40
    assert all(len(side) == 1 for side in sides.values())
    assert run.metrics.cross_validation.accuracy.value > 0.6
