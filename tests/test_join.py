"""Several backbones as one."""

import numpy as np
import pytest

import topgraft as tg
from topgraft.engines import open_engine
from topgraft.errors import BackboneError, UsageError
from topgraft.importers.load import find_backbone
from topgraft.predictor.saliency import activation_map
from topgraft.settings import Settings
from topgraft.testing.drawing import draw_photos
from topgraft.testing.engines import EngineSuite

SMALL, LARGE = "tf_efficientnet_lite0", "tf_efficientnet_lite0@64"
BOTH = f"{SMALL}@64+tf_efficientnet_lite2@64"


@pytest.fixture(scope="module")
def joined():
    return tg.load_backbone(BOTH)


def rows(backbone, pictures, *, depths=True):
    with open_engine(backbone, depths=depths) as engine:
        return engine.embed(pictures)


def test_a_row_is_what_each_part_says(joined):
    parts = [tg.load_backbone(name) for name in BOTH.split("+")]
    pictures = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    both, each = rows(joined, pictures), [rows(part, pictures) for part in parts]
    columns = joined.card.columns
    assert both.shape == (3, columns.width) == (3, sum(part.card.columns.width for part in parts))
    for place, (part, theirs) in enumerate(zip(parts, each, strict=True)):
        assert (both[:, 1280 * place : 1280 * (place + 1)] == theirs[:, :1280]).all()
        for depth in part.card.depths:
            for statistic in ("means", "spreads"):
                ours = both[:, columns.columns(f"{place}/{depth.name}", statistic)]
                assert (ours == theirs[:, part.card.columns.columns(depth.name, statistic)]).all()
    maps = [rows(part.maps(), pictures, depths=False).reshape(3, *part.card.map_size) for part in parts]
    whole = rows(joined.maps(), pictures, depths=False).reshape(3, *joined.card.map_size)
    assert (whole == np.concatenate(maps, axis=1)).all()


def test_early_blocks_of_both_come_before_late_ones(joined):
    stages = [int(depth.name.split("blocks.")[1][0]) for depth in joined.card.depths]
    assert {depth.name[0] for depth in joined.card.depths[:4]} == {"0", "1"}
    third = len(stages) // 3
    assert max(stages[:third]) < min(stages[-third:])


def test_it_is_kept_and_found_again(joined, tmp_path):
    assert tg.load_backbone(BOTH) == joined == find_backbone(joined.card)
    elsewhere = Settings.load(cache_dir=tmp_path)
    made = find_backbone(joined.card, settings=elsewhere)
    assert made.card == joined.card
    assert made.graph.read_bytes() == joined.graph.read_bytes()
    folder = tg.fetch(BOTH, tmp_path / "fetched")
    assert tg.load_backbone(str(folder)).card == joined.card


def test_the_smaller_takes_pictures_of_the_larger_ones_side():
    card = tg.load_backbone(f"{SMALL}+tf_efficientnet_lite2").card
    assert card.name == "tf_efficientnet_lite0.in1k@260+tf_efficientnet_lite2.in1k"
    assert (card.input_size, card.crop_fraction, card.map_size) == ((260, 260), 0.89, (2560, 9, 9))
    assert tg.load_backbone(f"{SMALL}+tf_efficientnet_lite2", size=64).card.name == (
        "tf_efficientnet_lite0.in1k@64+tf_efficientnet_lite2.in1k@64"
    )


def test_a_run_on_it_is_a_run_like_any_other(joined, tmp_path):
    photos = draw_photos(tmp_path / "photos", 12, seed=3)
    run = tg.train(photos, backbone=BOTH, policies=0, heads="ridge", folds=3, out=tmp_path / "run")
    assert run.metrics.backbone.name == joined.card.name
    paths = sorted(map(str, photos.rglob("*.jpg")))[::6]
    told = {engine: tg.load(run, engine=engine).predict(paths) for engine in ("openvino", "onnxruntime")}
    for one, other in zip(*told.values(), strict=True):
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, abs=1e-3)
    picture = np.random.default_rng(1).integers(0, 256, (90, 70, 3), np.uint8)
    looked = activation_map(tg.load(run), picture)
    assert looked.shape == (90, 70)
    assert np.isfinite(looked).all()
    with pytest.raises(BackboneError, match="graph without PyTorch weights"):
        tg.finetune(run, blocks=1, out=tmp_path / "tuned")


def test_what_cannot_be_joined_is_said(tmp_path):
    with pytest.raises(UsageError, match="expected backbones that differ"):
        tg.load_backbone(f"{SMALL}+{SMALL}")
    with pytest.raises(UsageError, match="joined backbones bring their own weights"):
        tg.load_backbone(BOTH, weights="random")
    for name, got in (
        (f"{SMALL}+", "''"),
        ("+", "''"),
        (f"{SMALL}+auto", "'auto'"),
        (f"tf_efficientnet_lite@260+{SMALL}", "'tf_efficientnet_lite@260'"),
    ):
        with pytest.raises(UsageError, match=rf"expected one backbone on each side of \+, got {got}"):
            tg.load_backbone(name)
    for part in ("mine.onnx", "hf-hub:timm/resnet18", "local-dir:mine"):
        with pytest.raises(UsageError, match=f"{part} is joined as a folder. Write it with"):
            tg.load_backbone(f"{SMALL}+{part}")
    with pytest.raises(BackboneError, match=r"pixels a side, and .*\. Give both of one side"):
        tg.load_backbone(f"{SMALL}@64+tf_efficientnet_lite2")
    folder = tg.fetch(SMALL, tmp_path / "small+large")  # a folder keeps its +
    assert tg.load_backbone(str(folder)).card.name.startswith(SMALL)
    folder = folder.rename(tmp_path / "small")
    with pytest.raises(
        BackboneError, match=r"takes pictures of 224 pixels a side, .* of 260\. Give both of one"
    ):
        tg.load_backbone(f"{folder}+tf_efficientnet_lite2")


class TestJoined(EngineSuite):
    name = "openvino"
    source = "joined"

    def open(self, threads=2):
        return open_engine(tg.load_backbone(BOTH), settings=Settings.load(threads=threads))

    def deep(self):
        return open_engine(tg.load_backbone(BOTH), depths=True)
