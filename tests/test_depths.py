"""Every depth: which columns of a row are which, and that graphs give what they say."""

import json
import logging
import re
import shutil

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from typer.testing import CliRunner

from embedding import a_backbone, embed_here
from photos import paint_folder
from topgraft.backbones._cache import SUMS, sums
from topgraft.backbones._float16 import beyond_float16
from topgraft.backbones._pictures import pictures
from topgraft.backbones._statistics import STEP, Output, add_blocks
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Card
from topgraft.backbones.depths import Depth, Depths
from topgraft.cli import app
from topgraft.engines import open_engine
from topgraft.errors import BackboneError, UnknownNameError, UsageError
from topgraft.importers.load import find_backbone, load_backbone
from topgraft.settings import Settings
from topgraft.store import FeatureStore
from topgraft.telemetry import import_silently

onnxruntime = import_silently("onnxruntime")

blocks = st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=6).map(
    lambda found: tuple(Depth(name=f"blocks.{i}", channels=c, token=t) for i, (c, t) in enumerate(found))
)


def cover(slices):
    return [column for columns in slices for column in range(columns.start, columns.stop)]


@given(st.integers(1, 20), blocks)
def test_groups_and_blocks_cover_a_row_once_and_in_order(last, blocks):
    depths = Depths(last, blocks)
    groups = depths.groups()
    assert cover(groups.values()) == list(range(depths.width))
    assert depths.width == last + depths.extra
    for statistic in ("means", "spreads") if blocks else ():
        each = [depths.columns(block.name, statistic) for block in blocks]
        assert cover(each) == cover([groups[statistic]])


def test_a_class_token_lies_behind_its_blocks_means():
    depths = Depths(3, (Depth(name="a", channels=2, token=True), Depth(name="b", channels=1)))
    assert depths.columns("a", "means") == slice(3, 7)
    assert depths.columns("b", "means") == slice(7, 8)
    assert depths.columns("a", "spreads") == slice(8, 10)
    assert depths.groups() == {"last": slice(0, 3), "means": slice(3, 8), "spreads": slice(8, 11)}


def test_without_blocks_there_is_the_last_layer_alone():
    assert Depths(5).groups() == {"last": slice(0, 5)}
    with pytest.raises(KeyError, match=r"blocks\.0"):
        Depths(5).columns("blocks.0", "means")


def test_depths_leave_a_cards_fingerprint_alone():
    card = Card(name="a.b", input_size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1), features=4, source="fake")
    deep = card.model_copy(update={"depths": (Depth(name="x", channels=3),)})
    assert deep.fingerprint() == card.fingerprint()
    assert (card.columns.width, deep.columns.width) == (4, 10)


# What a graph gives


def statistics(planes):
    """Return means and spreads (N, C) of (N, C, places)."""
    planes = planes.astype(np.float64)
    return planes.mean(2), planes.std(2)


def run(nodes, inputs, **outputs):
    """Add statistics of outputs to a graph of these nodes and run it; returns (N, B) and its columns."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, *inputs.shape[1:]])], []
    )
    depths = [
        Depth(name=name, channels=output.channels, token=output.prefix > 0)
        for name, output in outputs.items()
    ]
    add_blocks(graph, list(outputs.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    (rows,) = onnxruntime.InferenceSession(model.SerializeToString()).run(["blocks"], {"x": inputs})
    return rows, Depths(0, tuple(depths))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("side", [7, 27, 28])
def test_a_map_gives_means_and_spreads_and_a_large_one_those_of_every_fourth_place(side, last):
    maps = np.random.default_rng(side).standard_normal((2, 6, side, side + 1)).astype(np.float32) + 100
    by = STEP if side >= 28 else 1
    means, spreads = statistics(maps[:, :, ::by, ::by].reshape(2, 6, -1))
    given_ = maps.transpose(0, 2, 3, 1).copy() if last else maps
    rows, depths = run([], given_, a=Output("x", given_.shape[1:], last=last))
    np.testing.assert_allclose(rows[:, depths.columns("a", "means")], means, rtol=1e-5)
    np.testing.assert_allclose(rows[:, depths.columns("a", "spreads")], spreads, rtol=1e-4)


def test_tokens_give_means_and_spreads_without_the_class_token_which_lies_beside_the_means():
    tokens = np.random.default_rng(0).standard_normal((3, 10, 4)).astype(np.float32)
    rows, depths = run([], tokens, t=Output("x", (10, 4), last=True, prefix=1))
    means, spreads = statistics(tokens[:, 1:].transpose(0, 2, 1))
    np.testing.assert_allclose(rows[:, :4], means, atol=1e-6)
    np.testing.assert_array_equal(rows[:, 4:8], tokens[:, 0])
    np.testing.assert_allclose(rows[:, depths.columns("t", "spreads")], spreads, rtol=1e-5)


def test_the_default_backbone_gives_the_statistics_of_its_blocks_in_both_runtimes():
    backbone, shown = load_backbone(), pictures(2, 224, 224)
    columns = backbone.card.columns
    assert (len(columns.blocks), columns.last, columns.extra) == (16, 1280, 2 * 1808)
    with open_engine(backbone, depths=True) as engine:
        rows = engine.embed(shown)
    model = onnx.load(backbone.graph)
    outputs = {
        "blocks.0.0": "blocks.0.0.project",
        "blocks.1.1": "blocks.1.1.sum",
        "blocks.6.0": "blocks.6.0.project",
    }
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs.values())
    session = onnxruntime.InferenceSession(model.SerializeToString())
    blocks, *maps = session.run(["blocks", *outputs.values()], {"images": shown})
    np.testing.assert_allclose(rows[:, 1280:], blocks, atol=2e-3)
    for name, found in zip(outputs, maps, strict=True):
        by = STEP if found.shape[2] >= 28 else 1
        for statistic, expected in zip(
            ("means", "spreads"),
            statistics(found[:, :, ::by, ::by].reshape(*found.shape[:2], -1)),
            strict=True,
        ):
            np.testing.assert_allclose(rows[:, columns.columns(name, statistic)], expected, atol=2e-3)


# ONNX files


def conv_file(path):
    """Write two convolutions, a 20 x 20 and a 10 x 10 map."""
    random = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w", (4, 3, 2, 2)), ("v", (6, 4, 2, 2)))
    ]
    nodes = [
        helper.make_node("Conv", ["pixels", "w"], ["first"], strides=[2, 2]),
        helper.make_node("Relu", ["first"], ["early"]),
        helper.make_node("Conv", ["early", "v"], ["late"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["late"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["rows"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, 40, 40])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", 6])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return str(path)


def card_file(path, **facts):
    known = {"input_size": [40, 40], "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.25] * 3}
    path.write_text(json.dumps(known | facts))
    return path


@pytest.fixture
def settings(tmp_path):
    return Settings.load(cache_dir=tmp_path / "cache")


def test_an_onnx_file_gives_the_statistics_of_the_tensors_its_card_names(tmp_path, settings):
    graph, card = (
        conv_file(tmp_path / "two.onnx"),
        card_file(tmp_path / "card.json", depths=["early", "late"]),
    )
    backbone = load_backbone(graph, card=card, settings=settings)
    assert backbone.card.depths == (Depth(name="early", channels=4), Depth(name="late", channels=6))
    shown = pictures(3, 40, 40)
    with open_engine(backbone, depths=True, settings=settings) as engine:
        rows = engine.embed(shown)
    columns = backbone.card.columns
    np.testing.assert_allclose(rows[:, columns.columns("late", "means")], rows[:, :6], rtol=1e-4, atol=1e-5)
    assert (rows[:, columns.groups()["spreads"]] > 0).all()
    assert find_backbone(backbone.card, settings=settings) == backbone
    flat = load_backbone(graph, card=card_file(tmp_path / "card.json"), settings=settings)
    assert (flat.card.depths, flat.card.fingerprint()) == ((), backbone.card.fingerprint())
    assert (
        load_backbone(
            graph, card=card_file(tmp_path / "card.json", depths=["early", "late"]), settings=settings
        )
        == backbone
    )


@pytest.mark.parametrize(
    ("depths", "told"),
    [
        (["earlier"], "makes no tensor 'earlier'. Close: early"),
        (
            ["rows"],
            r"'rows' must be a float32 map \(N, C, h, w\) or tokens \(N, T, C\), got float32 \(1, 6\)",
        ),
        (["early", "early"], "each once"),
        ([3], "expected names of tensors"),
        ("early", "expected names of tensors"),
    ],
)
def test_a_wrong_name_in_the_card_of_an_onnx_file_is_one_line(depths, told, tmp_path, settings):
    graph, card = conv_file(tmp_path / "two.onnx"), card_file(tmp_path / "card.json", depths=depths)
    with pytest.raises(UsageError, match=told) as caught:
        load_backbone(graph, card=card, settings=settings)
    assert "\n" not in str(caught.value)


# float16


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.eye(4) * 100, ()),
        (np.eye(4) * 1e5, ("features", "blocks")),
        (np.eye(4) * 5000, ("features", "blocks")),  # a photo's may be larger than a picture's
        (np.eye(4) * 1e-7, ("features", "blocks")),  # smaller than float16 can tell from 0
        (np.eye(4) * 0.01 + 1000, ("features", "blocks")),  # nothing of the difference is left
        (np.block([np.eye(4)[:, :3], np.eye(4)[:, 3:] * 1e6]), ("blocks",)),
    ],
)
def test_what_float16_does_not_hold_is_named(rows, expected):
    depths = Depths(3, (Depth(name="a", channels=1),))
    rows = rows[:, [0, 1, 2, 3, 3]].astype(np.float32)
    assert beyond_float16(rows, depths) == expected


# The store


@pytest.fixture
def photos(tmp_path):
    return str(paint_folder(tmp_path / "photos", apple=3, pear=3))


def test_embed_keeps_every_depth_and_an_older_store_is_completed(photos, tmp_path):
    backbone, store = a_backbone(tmp_path / "backbone"), str(tmp_path / "features.zarr")
    last = embed_here(photos, store, backbone, depths="last")
    assert last.depths == Depths(backbone.card.features)
    before = {view: np.array(last.features(view)) for view in range(4)}
    both = embed_here(photos, store, backbone)
    assert both.depths == backbone.card.columns
    for view in range(4):
        np.testing.assert_array_equal(both.features(view), before[view])
        assert both.blocks(view).shape == (6, both.depths.extra)
    assert FeatureStore.open(store).missing() == 0
    fresh = embed_here(photos, str(tmp_path / "fresh.zarr"), backbone, depths="all")
    assert fresh.fingerprint() == both.fingerprint() != last.fingerprint()


def test_a_backbone_without_depths_is_read_at_its_last_layer_and_said(photos, tmp_path, caplog):
    found = a_backbone(tmp_path / "backbone")
    flat = Backbone(found.card.model_copy(update={"depths": (), "float32": ()}), found.graph)
    with caplog.at_level(logging.INFO, "topgraft"):
        store = embed_here(photos, str(tmp_path / "features.zarr"), flat)
    assert store.depths.blocks == ()
    assert caplog.messages == [
        "drawn.test: its graph gives no statistics of blocks. The last layer alone is read."
    ]
    with pytest.raises(BackboneError, match="gives no statistics of blocks"):
        embed_here(photos, str(tmp_path / "features.zarr"), flat, depths="all")
    with pytest.raises(UnknownNameError, match=r"no depths is named 'al'. Did you mean all"):
        embed_here(photos, str(tmp_path / "features.zarr"), flat, depths="al")


def test_a_card_from_before_finds_the_graph_with_depths_and_not_the_other_way_round(settings):
    backbone = load_backbone(settings=settings)
    older = backbone.card.model_copy(update={"depths": ()})
    assert find_backbone(older, settings=settings) == backbone
    other = backbone.card.model_copy(update={"depths": backbone.card.depths[:3]})
    with pytest.raises(BackboneError, match="this very backbone"):
        find_backbone(other, settings=settings)
    folder = settings.cache_dir / "backbones" / older.folder()  # as an older Topgraft left it
    shutil.copytree(backbone.graph.parent, folder)
    (folder / "card.json").write_text(older.model_dump_json())
    (folder / SUMS).write_text(sums(folder))
    assert load_backbone(settings=settings) == backbone
    assert find_backbone(older, settings=settings).graph.parent == folder


def test_the_command_keeps_every_depth_or_leaves_it_out_and_says_what_it_takes(photos, tmp_path):
    def said(*words):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        return result.stdout

    store = str(tmp_path / "features.zarr")
    command = ("embed", photos, "-o", store, "--policies", "0", "--engine", "fake")
    assert json.loads(said(*command, "--depths", "last", "--json"))["block_features"] == 0
    facts = json.loads(said(*command, "--json"))
    assert facts["block_features"] == 3616
    assert facts["bytes_of"]["blocks"] > 6 * 3616 * 2
    text = said("info", store)
    assert "1,280 features and 3,616 block features" in text
    assert re.search(r"features [\d.]+ MB \(float16\), block features [\d.]+ MB \(float16\)", text)
