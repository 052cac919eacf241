"""The predictor says what its parts say, in any runtime: fit, backbone, head, temperature, unknown answer."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from edits import edits
from test_fit import card_of, photo
from tiny import TINY
from topgraft.backbones.fit import fit
from topgraft.engines._openvino import compile_model
from topgraft.errors import BackboneError, DataError, StoreError, TopgraftError, UnknownNameError, UsageError
from topgraft.fingerprint import digest
from topgraft.heads import HEADS, head_class, to_probabilities
from topgraft.importers.load import load_backbone
from topgraft.nodes import Nodes
from topgraft.photos.decode import decode
from topgraft.predictor import Predictor, build, load
from topgraft.predictor._build import head_part
from topgraft.predictor._fit import add_fit
from topgraft.predictor.saliency import activation_map
from topgraft.settings import Settings
from topgraft.telemetry import import_silently
from topgraft.testing.drawing import CLASSES, draw_jpeg, draw_photo
from topgraft.trust.unknown import (
    Energy,
    Measure,
    NearestDistance,
    Unknown,
    WhitenedDistance,
    mahalanobis,
    measure,
    neighbours,
)

onnxruntime = import_silently("onnxruntime")

ENGINES = ("openvino", "onnxruntime")
TEMPERATURE = 1.7
ODD = [(1, 300), (200, 1), (8, 8), (1, 1), (200, 3000), (3000, 200), (500, 333)]


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(TINY)


@pytest.fixture(scope="module")
def drawn(backbone):
    """Drawn photos as pixels, their features and maps by onnxruntime from the fit, and their labels."""
    images = [draw_photo(name, index) for name in CLASSES for index in range(16)]
    session = onnxruntime.InferenceSession(str(backbone.graph))
    fitted = np.stack([fit(image, backbone.card) for image in images])
    features, maps = session.run(["features", "map"], {"images": fitted})
    return images, features, maps, np.repeat([0, 1], 16)


@pytest.fixture(scope="module")
def folder(backbone, drawn, tmp_path_factory):
    _, features, _, labels = drawn
    head = head_class("logistic")(C=0.01).fit(features, labels)
    predictor = Predictor.build(
        backbone,
        head,
        classes=CLASSES,
        temperature=TEMPERATURE,
        unknown=Unknown("neighbours", neighbours(features[::2]), 0.4, 0.95, {}),
        metrics={"accuracy": 0.9},
    )
    return predictor.save(tmp_path_factory.mktemp("predictor") / "model")


def fit_graph(card) -> bytes:
    nodes = Nodes("fit")
    add_fit(nodes, card, "image", "images")
    made, weights = nodes.protos()
    height, width = card.input_size
    graph = helper.make_graph(
        made,
        "fit",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["h", "w", 3])],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, height, width, 3])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
@pytest.mark.parametrize(
    ("mode", "size", "fraction"),
    [
        ("center", (224, 224), 0.875),
        ("squash", (192, 256), 0.9),
        ("border", (128, 160), 1.0),
        ("center", (96, 128), 0.9),
    ],
)
def test_the_fit_in_the_graph_is_the_fit(mode, size, fraction, interpolation) -> None:
    """Exact halves are common with triangle weights, and float32 rounds them either way: a level more."""
    card = card_of(mode, interpolation, size, fraction)
    graph = fit_graph(card)
    session = onnxruntime.InferenceSession(graph)
    request = compile_model(graph).create_infer_request()
    for height, width in [*ODD, (480, 640), (640, 480), (512, 341), (360, 640), (129, 97)]:
        image = photo(height, width)
        expected = fit(image, card).astype(int)
        for found in (session.run(None, {"image": image})[0], request.infer({"image": image})["images"]):
            apart = np.abs(found[0].astype(int) - expected)
            assert apart.max() <= 1, (height, width)
            assert (apart > 0).mean() < (0.02 if interpolation == "bilinear" else 1e-3), (height, width)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.timm] * bool(entry.requires)) for name, entry in HEADS.items()],
)
def test_every_head_says_the_same_inside_the_graph(backbone, drawn, name) -> None:
    if HEADS[name].requires:
        pytest.importorskip(HEADS[name].requires)
    images, features, maps, labels = drawn
    kind = head_class(name)
    inputs = maps if kind.on_map else features
    head = (kind(**kind.grid()[0]) if name == "average" else kind()).fit(inputs, labels)
    found = Predictor.build(backbone, head, classes=CLASSES, temperature=TEMPERATURE).predict(images[::5])
    expected = to_probabilities(head.logits(inputs[::5]), temperature=TEMPERATURE)
    np.testing.assert_allclose([list(answer.probabilities.values()) for answer in found], expected, atol=1e-3)
    assert [answer.label for answer in found] == [CLASSES[best] for best in expected.argmax(axis=1)]
    assert not any(answer.unknown for answer in found)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depths", ["equal", "last"])
def test_a_head_of_every_depth_finds_the_blocks_inside_the_graph(backbone, drawn, depths, engine) -> None:
    images, features, _, labels = drawn
    session = onnxruntime.InferenceSession(str(backbone.graph))
    fitted = np.stack([fit(image, backbone.card) for image in images])
    (blocks,) = session.run(["blocks"], {"images": fitted})
    rows = np.hstack([features, blocks])
    setting = {"ridge.depths": depths, "ridge.temperature": 0.2, "logistic.C": 0.01}
    head = head_class("average")(**setting).fit(rows, labels, depths=backbone.card.columns)
    predictor = Predictor.build(
        backbone, head, classes=CLASSES, unknown=Unknown("energy", Energy(1.0), 9, 1, {})
    )
    asked = Predictor(predictor.card, predictor._graph, engine=engine)
    expected = head.probabilities(rows[::7])
    found = asked.predict(images[::7])
    np.testing.assert_allclose([list(answer.probabilities.values()) for answer in found], expected, atol=1e-3)
    seen = asked.look(images[0])
    assert ("blocks" in seen) == (depths == "equal")
    row = np.hstack([seen["features"], seen["blocks"]]) if depths == "equal" else seen["features"]
    np.testing.assert_allclose(asked.logits(row), head.logits(rows[:1]), atol=5e-3)
    shown = activation_map(asked, images[0])
    assert shown.shape == images[0].shape[:2]
    assert shown.max() == pytest.approx(1, abs=0.1)


def test_a_backbone_without_the_blocks_a_head_reads_is_refused(backbone, drawn) -> None:
    _, features, _, labels = drawn
    columns = backbone.card.columns
    rows = np.hstack([features, np.random.default_rng(0).random((32, columns.extra), np.float32)])
    head = head_class("ridge")(depths="equal").fit(rows, labels, depths=columns)
    bare = replace(backbone, card=backbone.card.model_copy(update={"depths": ()}))
    with pytest.raises(BackboneError, match=r"reads 4896 columns.*--depths last"):
        Predictor.build(bare, head, classes=CLASSES)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("measure_type", get_args(Measure))
@pytest.mark.parametrize("name", ["logistic", "knn"])
def test_every_distance_is_the_same_inside_the_graph(backbone, drawn, name, measure_type, engine) -> None:
    """The threshold was set on distances by the head's own logits, which the graph must not shift."""
    images, features, _, labels = drawn
    head = head_class(name)().fit(features, labels)
    how = {
        NearestDistance: neighbours(features[3:]),
        WhitenedDistance: mahalanobis(features, labels),
        Energy: Energy(1.2),
    }[measure_type]
    expected = measure(how, features[::5], head.logits(features[::5]))
    unknown = Unknown("any", how, float(np.median(expected)), 0.95, {})
    built = Predictor.build(backbone, head, classes=CLASSES, temperature=TEMPERATURE, unknown=unknown)
    found = Predictor(built.card, built._graph, engine=engine).predict(images[::5])
    np.testing.assert_allclose([answer.distance for answer in found], expected, rtol=1e-2, atol=1e-3)
    assert [answer.unknown for answer in found] == [answer.distance > unknown.threshold for answer in found]


def test_several_labels_go_through_a_sigmoid(backbone, drawn) -> None:
    images, features, _, labels = drawn
    table = np.stack([labels == 0, labels == 1, np.arange(len(labels)) % 2], axis=1).astype(np.int64)
    head = head_class("ridge")().fit(features, table)
    predictor = Predictor.build(backbone, head, classes=("a", "b", "c"))
    assert predictor.card.multilabel
    found = predictor.predict(images[:4])
    expected = to_probabilities(head.logits(features[:4]), multilabel=True)
    np.testing.assert_allclose([list(answer.probabilities.values()) for answer in found], expected, atol=1e-3)


def test_both_runtimes_agree_on_odd_sizes_and_drawn_photos(folder, drawn) -> None:
    images = [photo(*size) for size in ODD] + drawn[0][:8]
    openvino, ort = (Predictor.load(folder, engine=engine) for engine in ENGINES)
    for a, b in zip(openvino.predict(images), ort.predict(images), strict=True):
        assert a.label == b.label
        assert list(a.probabilities.values()) == pytest.approx(list(b.probabilities.values()), abs=1e-3)


@pytest.mark.shared
def test_both_runtimes_agree_on_real_photos_and_with_the_parts(folder, shared, backbone) -> None:
    paths = sorted((shared / "data" / "sushi_sandwich").glob("*/*"))[::4]
    openvino, ort = (Predictor.load(folder, engine=engine).predict(paths) for engine in ENGINES)
    assert [a.label for a in openvino] == [b.label for b in ort]
    for a, b in zip(openvino, ort, strict=True):
        assert list(a.probabilities.values()) == pytest.approx(list(b.probabilities.values()), abs=1e-3)
    session = onnxruntime.InferenceSession(fit_graph(backbone.card))
    pixels = [decode(path) for path in paths]
    inside = np.stack([session.run(None, {"image": image})[0][0] for image in pixels]).astype(int)
    apart = np.abs(inside - np.stack([fit(image, backbone.card) for image in pixels]))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3


def test_answers_keep_their_order_and_a_bad_file_ends_nothing(folder, tmp_path) -> None:
    paths = []
    for index in range(6):
        paths.append(tmp_path / f"{index}.jpg")
        paths[-1].write_bytes(draw_jpeg(CLASSES[index % 2], index))
    paths[2].write_bytes(b"no photo")
    paths.insert(4, tmp_path / "absent.jpg")
    predictor = load(folder, settings=Settings(threads=2))
    found = predictor.predict(paths)
    assert [answer.path for answer in found] == [str(path) for path in paths]
    assert [bool(answer.error) for answer in found] == [index in (2, 4) for index in range(7)]
    assert found[2].as_dict() == {"path": str(paths[2]), "error": found[2].error}
    assert "2.jpg" in found[2].error
    alone = [predictor.predict(path)[0] for path in paths]
    assert [answer.as_dict() for answer in alone] == [answer.as_dict() for answer in found]
    assert predictor.predict([]) == []


def test_a_photo_alone_has_all_cores_unless_another_is_under_way(folder) -> None:
    photos = [draw_jpeg(CLASSES[index % 2], index) for index in range(8)]
    side_by_side = load(folder, settings=Settings(threads=2)).predict(photos)
    predictor = load(folder, settings=Settings(threads=2))
    assert [predictor.predict(photo)[0] for photo in photos] == side_by_side
    runtime = predictor._ready(alone=True)
    assert set(runtime._made) == {True}  # nothing was made ready that no photo asked for
    predictor._under_way.append(photos[1])
    assert predictor.predict(photos[0]) == side_by_side[:1]
    assert set(runtime._made) == {True, False}
    predictor._under_way.pop()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda photo: predictor.predict(photo)[0], photos)) == side_by_side
    assert predictor._under_way == []


def test_each_photo_has_one_core_in_onnxruntime_however_many_there_are(folder) -> None:
    for threads in (1, 2):
        runtime = load(folder, engine="onnxruntime", settings=Settings(threads=threads))._ready()
        assert runtime._session.get_session_options().intra_op_num_threads == 1


def test_a_prediction_is_plain_json(folder) -> None:
    answer = load(folder).predict(draw_photo("sushi", 3))[0]
    facts = json.loads(json.dumps(answer.as_dict()))
    assert set(facts) == {
        "answer",
        "label",
        "probability",
        "runner_up",
        "unknown",
        "unsure",
        "distance",
        "probabilities",
    }
    assert facts["label"] in CLASSES
    assert facts["probability"] == max(facts["probabilities"].values())
    assert sum(facts["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer.unknown == (answer.distance > 0.4)


ALONE = """
import json, sys
from topgraft.predictor import load
photo = sys.argv[2]
answer = load(sys.argv[1]).predict([photo])[0]
loaded = {name.split(".")[0] for name in sys.modules}
heavy = {"torch", "timm", "sklearn", "onnx", "zarr", "matplotlib"}
print(json.dumps([answer.as_dict(), sorted(loaded & heavy)]))
"""


def test_a_moved_folder_is_all_that_predicting_needs(folder, tmp_path) -> None:
    moved, photo_path = tmp_path / "elsewhere" / "run" / "model", tmp_path / "lunch.jpg"
    shutil.copytree(folder, moved)
    photo_path.write_bytes(draw_jpeg("sushi", 1))
    nowhere = tmp_path / "cache"
    nowhere.write_text("no folder, and none can be made here")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(moved.parent), str(photo_path)],
        env={"TOPGRAFT_CACHE_DIR": str(nowhere), "PATH": "", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    answer, heavy = json.loads(done.stdout)
    assert heavy == []
    assert nowhere.is_file()
    assert answer == load(folder).predict(photo_path)[0].as_dict()


def test_a_large_photo_takes_bounded_memory(folder, tmp_path) -> None:
    """Pixels are 36 MB; as float32 rows 144 MB; the runtime may copy them once or twice."""
    code = (
        "import resource, sys, numpy as np; from topgraft.predictor import load\n"
        "p = load(sys.argv[1], engine=sys.argv[2]); p.check()\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); p.predict(np.full((3000, 4000, 3), 90, np.uint8)); print((peak() - before) // 1024)"
    )
    for engine in ENGINES:
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder), engine], capture_output=True, text=True, check=True
        )
        assert int(done.stdout) < 800


def test_the_graph_names_its_classes_and_checks_itself(folder) -> None:
    model = onnx.load(str(folder / "model.onnx"))
    assert json.loads({prop.key: prop.value for prop in model.metadata_props}["classes"]) == list(CLASSES)
    assert [value.name for value in model.graph.input] == ["image"]
    predictor = load(folder)
    predictor.check()
    assert predictor.classes == CLASSES
    assert predictor.card.metrics == {"accuracy": 0.9}
    other = Predictor(predictor.card.model_copy(update={"classes": ("a", "b", "c")}), predictor._graph)
    with pytest.raises(BackboneError, match=r"expected probabilities \(1, 3\)"):
        other.check()


def test_a_predictor_that_cannot_be_written_is_one_line(folder, tmp_path) -> None:
    (tmp_path / "model" / "card.json").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"model: a folder lies where a file is needed\. Give another place"):
        load(folder).save(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"model.onnx", "card.json"}


def test_damage_is_noticed(folder, tmp_path) -> None:
    with pytest.raises(DataError, match="found a folder of something else"):
        load(tmp_path)
    copy = shutil.copytree(folder, tmp_path / "copy")
    graph = (copy / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(graph[:-1])
    with pytest.raises(BackboneError, match="not the graph its card was written for"):
        load(copy)
    (copy / "model.onnx").write_bytes(graph)
    (copy / "card.json").write_text(
        (copy / "card.json").read_text().replace('"temperature": 1.7', '"temperature": 0')
    )
    with pytest.raises(BackboneError, match=r"card.json: temperature: Input should be greater than 0"):
        load(copy)
    with pytest.raises(UnknownNameError, match="openvino"):
        load(folder, engine="openvin").check()


def test_wrong_parts_and_pixels_are_refused(backbone, drawn, folder) -> None:
    _, features, _, labels = drawn
    head = head_class("mean")().fit(features, labels)
    with pytest.raises(UsageError, match="expected 2 names for head 'mean', got 3"):
        build(backbone, head, classes=("a", "b", "c"))
    predictor = load(folder)
    for pixels in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(UsageError, match="expected pixels"):
            predictor.predict([pixels])


def test_saving_again_gives_the_same_bytes(folder, tmp_path) -> None:
    again = load(folder).save(tmp_path / "again")
    assert sorted(path.name for path in again.iterdir()) == ["card.json", "model.onnx"]
    for path in again.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a file lies where a folder is needed"):
        load(folder).save(tmp_path / "file")


def says(probabilities, distance, name="probabilities") -> bytes:
    """Write a graph that answers the same of every picture."""
    values = {name: np.array([probabilities], np.float32), "distance": np.array([distance], np.float32)}
    weights = [onnx.numpy_helper.from_array(value, f"{key}'") for key, value in values.items()]
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMin", ["levels"], ["least"], keepdims=0),
        helper.make_node("Sub", ["least", "least"], ["nothing"]),
        *(helper.make_node("Add", [f"{key}'", "nothing"], [key]) for key in values),
    ]
    outputs = [
        helper.make_tensor_value_info(key, TensorProto.FLOAT, value.shape) for key, value in values.items()
    ]
    picture = helper.make_tensor_value_info("image", TensorProto.UINT8, ["h", "w", 3])
    graph = helper.make_graph(nodes, "says", [picture], outputs, weights)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def test_the_head_of_a_graph_is_what_leads_to_its_logits_however_many_ways_do() -> None:
    """Sixty values that are each used twice lie on 2^60 ways; nodes need no names."""
    ways = [helper.make_node("Add", [f"v{i}", f"v{i}"], [f"v{i + 1}"]) for i in range(60)]
    nodes = [
        helper.make_node("Cast", ["image"], ["features"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["features"], ["elsewhere"]),
        helper.make_node("Mul", ["features", "w"], ["v0"]),
        *ways,
        helper.make_node("Identity", ["v60"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    weights = [onnx.numpy_helper.from_array(np.ones(1, np.float32), name) for name in ("w", "other")]
    graph = helper.make_graph(nodes, "whole", [], [], weights)
    part = head_part(helper.make_model(graph).SerializeToString())
    found = onnx.load_from_string(part).graph
    assert [node.output[0] for node in found.node] == [*(f"v{i}" for i in range(61)), "logits"]
    assert [weight.name for weight in found.initializer] == ["w"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (([np.nan, 0.5], 0), "expected finite probabilities, got "),
        (([np.inf, 0], 0), "expected finite probabilities, got "),
        (([0.7, 0.7], 0), "expected probabilities whose sum is 1, got 1.4000"),
        (([1.7, -0.7], 0), "expected probabilities from 0 to 1, got "),
        (([0.7, 0.3], np.nan), "expected finite distance, got "),
        (([0.2, 0.3, 0.5], 0), r"expected probabilities \(1, 2\), got \(1, 3\)"),
        (([0.7, 0.3], 0, "others"), r"expected probabilities \(1, 2\), got none"),
    ],
)
def test_what_cannot_be_an_answer_is_none(folder, answer, words) -> None:
    card = load(folder).card
    for engine in ENGINES:
        predictor = Predictor(card, says(*answer), engine=engine)
        with pytest.raises(BackboneError, match=f"predictor: {words}.*train again"):
            predictor.predict(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_card_of_no_numbers_is_refused(folder, tmp_path, number) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    facts = json.loads((copy / "card.json").read_text())
    facts["unknown"]["threshold"] = float(number.replace("Infinity", "inf"))
    (copy / "card.json").write_text(json.dumps(facts))
    assert number in (copy / "card.json").read_text()
    with pytest.raises(
        BackboneError, match=r"card\.json: unknown\.threshold: Input should be a finite number"
    ):
        load(copy)


def test_bytes_and_pillow_images_are_photos_and_an_open_file_is_none(folder, tmp_path) -> None:
    path, data = tmp_path / "a.jpg", draw_jpeg("sushi", 3)
    path.write_bytes(data)
    turned = Image.open(io.BytesIO(data))
    turned.getexif()[0x0112] = 6  # upright after a turn to the right
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    predictor = load(folder)
    with Image.open(path) as still, Image.open(tmp_path / "turned.png") as other:
        by_path, by_bytes, by_image = predictor.predict([path, data, still])
        assert by_path.probabilities == by_bytes.probabilities == by_image.probabilities
        assert (by_path.path, by_bytes.path, by_image.path) == (str(path), "", "")
        (alone,), (twice,) = predictor.predict(other), predictor.predict(tmp_path / "turned.png")
        assert alone.probabilities == twice.probabilities
    assert predictor.predict(data)[0].probabilities == by_path.probabilities
    with path.open("rb") as file:
        for given in (file, [file]):
            with pytest.raises(UsageError, match=r"photo 0: expected a path.*Give its bytes: file\.read\(\)"):
                predictor.predict(given)


def test_weights_in_another_file_are_not_followed(folder, tmp_path) -> None:
    """A stranger's graph would have any file of this machine read."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "secret").write_bytes(bytes(4 * 1280))
    model = onnx.load(str(copy / "model.onnx"))
    weight = max(model.graph.initializer, key=lambda held: len(held.raw_data))
    onnx.external_data_helper.set_external_data(weight, location="../secret")
    weight.ClearField("raw_data")
    (copy / "model.onnx").write_bytes(model.SerializeToString())
    card = json.loads((copy / "card.json").read_text())
    card["graph"] = digest((copy / "model.onnx").read_bytes())
    (copy / "card.json").write_text(json.dumps(card))
    for engine in ENGINES:
        with pytest.raises(BackboneError, match=r"model\.onnx: its weight \S+ lies in another file"):
            load(copy, engine=engine)


def test_where_a_graph_looked_that_answers_nonsense_is_one_line(folder) -> None:
    predictor = Predictor(load(folder).card, says([0.7, 0.3], 0, "others"))
    with pytest.raises(BackboneError, match=r"predictor: expected probabilities \(1, 2\), got none"):
        activation_map(predictor, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(BackboneError, match=r"predictor: expected features \(1, 1280\) of finite numbers"):
        Predictor(load(folder).card, says([0.7, 0.3], 0)).check()


def test_a_graph_that_fails_while_it_runs_costs_the_photo(folder) -> None:
    """It reshapes to what only one size of picture has."""
    model = onnx.load_from_string(says([0.7, 0.3], 0))
    shape = onnx.numpy_helper.from_array(np.array([7], np.int64), "seven")
    model.graph.initializer.append(shape)
    model.graph.node.insert(1, helper.make_node("Reshape", ["levels", "seven"], ["reshaped"]))
    model.graph.node[2].input[0] = "reshaped"
    for engine in ENGINES:
        predictor = Predictor(load(folder).card, model.SerializeToString(), engine=engine)
        (failed,) = predictor.predict(np.zeros((8, 8, 3), np.uint8))
        assert failed.error.startswith("predictor: ")
        assert "\n" not in failed.error


@pytest.mark.parametrize("most", [12, pytest.param(600, marks=pytest.mark.nightly)])
def test_edited_cards_are_one_line(folder, tmp_path, most) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    good = json.loads((copy / "card.json").read_text())
    picture, refusals = np.zeros((8, 8, 3), np.uint8), []
    for _, text in edits(copy / "card.json", most):
        (copy / "card.json").write_text(text)
        try:
            load(copy).predict(picture)
        except TopgraftError as error:
            refusals.append(str(error))
        (copy / "card.json").write_text(json.dumps(good))
    assert refusals
    assert not [said for said in refusals if "\n" in said]
