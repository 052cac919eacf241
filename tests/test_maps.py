"""Maps before pooling: kept in a store of their own, for heads that read maps."""

import numpy as np
import pytest

import topgraft as tg
from embedding import CARD, a_backbone, embed_here
from photos import paint_folder
from tiny import TINY
from topgraft.cli import app
from topgraft.config import Config
from topgraft.engines import open_engine
from topgraft.errors import BackboneError, DataError, UnknownNameError
from topgraft.importers.load import load_backbone
from topgraft.recipe import follow
from topgraft.selection.compare import compare
from topgraft.store import FeatureStore
from topgraft.testing.drawing import draw_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("drawn") / "photos", 16, seed=0)


@pytest.fixture(scope="module")
def both(photos, tmp_path_factory):
    """The features and the maps of the same photos under one policy."""
    folder, data = tmp_path_factory.mktemp("stores"), tg.Dataset.from_folder(photos)
    backbone, policies = load_backbone(TINY), tg.draw(1, seed=0)
    return (
        tg.embed(data, folder / "features.zarr", backbone=backbone, policies=policies),
        tg.embed(data, folder / "maps.zarr", backbone=backbone.maps(), policies=policies),
    )


def test_a_store_of_maps_gives_maps_whose_mean_are_the_features(both):
    features, maps = both
    assert maps.features(1).shape == (32, *load_backbone(TINY).card.map_size)
    np.testing.assert_allclose(
        maps.features(1).astype(np.float32).mean((2, 3)), features.features(1), atol=5e-3
    )
    assert FeatureStore.open(maps.path).info()["output"] == "map"


def test_maps_and_features_of_one_backbone_never_mix(both, tmp_path):
    features, maps = both
    assert not set(features.table.addresses) & set(maps.table.addresses)
    with pytest.raises(BackboneError, match=r"drawn\.test: it has no map"):
        a_backbone(tmp_path).maps()


def test_a_row_of_the_torch_engine_is_a_map_too():
    pytest.importorskip("timm")
    from topgraft.backbones._pictures import pictures

    backbone = load_backbone(TINY).maps()
    shown = pictures(3, *backbone.card.input_size)
    with open_engine(backbone, engine="torch") as one, open_engine(backbone, engine="openvino") as other:
        np.testing.assert_allclose(one.embed(shown), other.embed(shown), atol=1e-3)


@pytest.mark.timm
def test_heads_on_maps_meet_the_others_on_the_same_folds(both):
    pytest.importorskip("torch")
    features, maps = both
    found = compare(features, features.labels, features.groups, maps=maps, heads=["mean", "flat"], folds=3)
    assert {row["head"] for row in found.rows} == {"mean", "flat"}
    alone = compare(features, features.labels, features.groups, heads=["mean", "flat"], folds=3)
    assert {row["head"] for row in alone.rows} == {"mean"}
    assert any("flat" in note and "--maps" in note for note in alone.notes)


@pytest.mark.timm
def test_a_run_with_the_flat_head_answers_as_its_predictor_does(photos, tmp_path):
    pytest.importorskip("torch")
    config = Config.load(
        data__photos=str(photos),
        backbone__name=TINY,
        policies__count=1,
        heads__names=("flat",),
        heads__folds=3,
    )
    run = follow(config, tmp_path / "run")
    assert run.metrics.head.name == "flat"
    rows = [row for row in run.read_table("predictions.csv") if row["split"] == "test"]
    data = tg.Dataset.from_folder(photos)
    place = dict(zip(data.ids, range(len(data)), strict=True))
    answers = tg.load(run).predict([data.location(place[row["id"]]) for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        assert answer.probabilities["sushi"] == pytest.approx(float(row["p_sushi"]), abs=0.01)
    assert (run.path / "report.html").exists()


def test_a_name_nobody_knows_is_told_before_the_work(photos, tmp_path):
    config = Config.load(data__photos=str(photos), backbone__name=TINY, heads__names=("flatt",))
    with pytest.raises(UnknownNameError, match="flat"):
        follow(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_stores_that_do_not_belong_together_are_told_apart(both, tmp_path):
    features, maps = both
    with pytest.raises(DataError, match="expected a store of maps, got features"):
        tg.train(features, maps=features, out=tmp_path / "run")
    other = embed_here(
        str(paint_folder(tmp_path / "painted", apple=3, pear=3)),
        str(tmp_path / "other.zarr"),
        a_backbone(tmp_path / "backbone"),
    )
    with pytest.raises(DataError, match="expected the photos and views and backbone of"):
        tg.train(other, maps=maps, out=tmp_path / "run")
    assert CARD.output == "features"


def test_the_commands_keep_maps_and_compare_heads_on_them(both, tmp_path, capsys):
    features, maps = both
    app(
        ["heads", features.path, "--maps", maps.path, "--heads", "mean", "--folds", "3"],
        standalone_mode=False,
    )
    assert "mean" in capsys.readouterr().out
    app(["info", maps.path], standalone_mode=False)
    assert "11,520 numbers of a map" in capsys.readouterr().out
