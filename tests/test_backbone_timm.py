"""timm models: import, blocks, weights from files, and the origin's architectures with random weights."""

import hashlib
import json
import pickle
import shutil
import subprocess

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

import safetensors.torch
import timm
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from photos import paint_folder
from topgraft import embed
from topgraft.backbones._builtin import BUILTINS
from topgraft.backbones._cache import SUMS, sums
from topgraft.backbones._pictures import pictures
from topgraft.backbones._torch import FromPixels, groups, torch_model
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.fit import fit
from topgraft.engines import open_engine
from topgraft.errors import BackboneError, OfflineError, UnknownNameError
from topgraft.importers import _timm, _timm_create
from topgraft.importers.load import find_backbone, load_backbone
from topgraft.photos.dataset import Dataset
from topgraft.settings import Settings
from topgraft.testing.engines import EngineSuite

pytestmark = pytest.mark.timm
SMALL = "test_efficientnet"  # of timm's own tests: the export of a real one takes twice as long


def cosine(a, b):
    return _timm.cosine(a, b).min()


def on_torch(backbone, shown):
    with open_engine(backbone, engine="torch", settings=Settings.load(device="cpu")) as engine:
        return engine.embed(shown)


def on_openvino(backbone, shown):
    with open_engine(backbone) as engine:
        return engine.embed(shown)


@pytest.fixture(scope="module")
def small():
    return load_backbone(SMALL, weights="random", size=64)


# Real weights


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "width", "blocks"),
    [
        ("mobilenetv1_100.tflite_in1k", 1024, 13),
        pytest.param("mobilenetv2_100.tflite_in1k", 1280, 17, marks=pytest.mark.nightly),
    ],
)
def test_the_shared_weights_agree_with_pytorch(name, width, blocks, shared):
    """The stated tolerance: a cosine of at least 0.9999 on every picture."""
    backbone = load_backbone(f"local-dir:{shared / 'weights' / name}")
    card = backbone.card
    assert (card.name, card.features, card.map_size, len(card.blocks)) == (name, width, (width, 7, 7), blocks)
    assert (card.mean, card.std, card.interpolation) == ((0.5,) * 3, (0.5,) * 3, "bicubic")
    assert card.licence == "apache-2.0"
    assert str(shared) not in card.model_dump_json(), "a card travels: it names no path of this machine"
    shown = pictures(4, 224, 224, seed=3)
    assert cosine(on_openvino(backbone, shown), on_torch(backbone, shown)) >= 0.9999


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "expected", "strength"),
    [
        ("mobilenetv1_100.tflite_in1k", 0.875, 0.1),
        pytest.param("mobilenetv2_100.tflite_in1k", 0.888, 0.01, marks=pytest.mark.nightly),
    ],
)
def test_the_shared_weights_tell_sushi_from_sandwiches_as_well_as_they_did(name, expected, strength, shared):
    """Un-augmented 5-fold logistic regression on the 160 photos, within 1.5 points of the noted accuracy."""
    backbone = load_backbone(f"local-dir:{shared / 'weights' / name}")
    data = Dataset.from_folder(shared / "data" / "sushi_sandwich")
    rows = on_openvino(backbone, np.stack([fit(data.image(i), backbone.card) for i in range(len(data))]))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=3000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    assert cross_val_score(model, rows, data.labels, cv=folds).mean() == pytest.approx(expected, abs=0.015)


@pytest.mark.shared
def test_a_moved_folder_is_the_same_backbone_and_needs_no_second_import(shared, tmp_path, monkeypatch):
    source = shared / "weights" / "mobilenetv1_100.tflite_in1k"
    first = load_backbone(f"local-dir:{source}")
    shutil.copytree(source, tmp_path / "moved")
    monkeypatch.setattr(_timm_create, "create", None)
    assert load_backbone(f"local-dir:{tmp_path / 'moved'}") == first
    assert find_backbone(first.card) == first


@pytest.mark.parametrize("name", [*BUILTINS, "tf_efficientnet_lite0.in1k@200"])
def test_the_built_in_ones_are_timms(name):
    """The same weights in timm's own network: a cosine of at least 0.9999, and timm's own preprocessing."""
    backbone = load_backbone(name)
    card, shown = backbone.card, pictures(2, *backbone.card.input_size, seed=5)
    assert cosine(on_openvino(backbone, shown), on_torch(backbone, shown)) >= 0.9999
    own, _, side = name.partition("@")
    asked = timm.get_pretrained_cfg(own)
    assert card.input_size == ((int(side), int(side)) if side else asked.input_size[1:])
    assert (asked.crop_pct, asked.interpolation) == (card.crop_fraction, card.interpolation)
    assert (asked.mean, asked.std) == (card.mean, card.std)
    groups_of = [name for name, _ in groups(torch_model(backbone))]
    assert groups_of == [block.name for block in card.blocks] == [depth.name for depth in card.depths]


def test_other_weights_of_the_built_in_are_written_without_the_exporter(tmp_path, monkeypatch):
    """Those of a fine-tuning, for one; the graph is checked against PyTorch as any other."""

    def exporter(*_):
        raise BackboneError("the exporter is asked")

    monkeypatch.setattr(_timm, "_export", exporter)
    own, relative = tmp_path / "own", tmp_path / "relative"
    own.mkdir(), relative.mkdir()
    model = _timm_create.create("tf_efficientnet_lite0", seed=3, size=64)
    card = _timm.write(own, model, origin="test", size=64, tag="other")
    ours, theirs = every_depth(Backbone(card, own / "model.onnx"), pictures(2, 64, 64))
    for group in card.columns.groups().values():
        assert cosine(ours[:, group], theirs[:, group]) >= 0.9999
    for module in model.modules():  # the same name and shapes, and other layers
        if isinstance(module, torch.nn.ReLU6):
            module.max_val = 1.0
    with pytest.raises(BackboneError, match="the exporter is asked"):
        _timm.write(relative, model, origin="test", size=64, tag="relative")
    assert not (relative / "model.onnx").exists()


# Blocks


def test_blocks_are_named_in_order_and_hold_every_weight_but_the_stem(small):
    model = torch_model(small)
    blocks = groups(model)
    assert [name for name, _ in blocks] == list(small.blocks)
    assert len(set(small.blocks)) == len(small.blocks)
    inside = {name for _, names in blocks for name in names}
    stem = {name for name, _ in model.named_parameters()} - inside
    assert stem == {"conv_stem.weight", "bn1.weight", "bn1.bias"}
    counts = {name: value.numel() for name, value in model.named_parameters()}
    assert [block.parameters for block in small.card.blocks] == [
        sum(counts[name] for name in names) for _, names in blocks
    ]


def test_the_default_has_the_blocks_that_timm_names():
    backbone = load_backbone()
    assert list(backbone.blocks) == [name for name, _ in groups(torch_model(backbone))]


# Weights


def test_random_weights_follow_their_seed_and_leave_pytorchs_generator_alone(small):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = _timm_create.create(SMALL, seed=0).state_dict()
    assert torch.rand(1) == expected
    kept = torch_model(small).state_dict()
    assert all(torch.equal(first[name], kept[name]) for name in kept)
    other = _timm_create.create(SMALL, seed=1).state_dict()
    assert not torch.equal(first["conv_stem.weight"], other["conv_stem.weight"])
    assert small.card.name == f"{SMALL}.random0@64"


def test_a_sized_one_is_looked_for_at_its_side(small, monkeypatch, tmp_path):
    """Its origin does not name the side: by that alone, it was the model's own and never found again."""
    asked = []

    def loaded(name, **options):
        asked.append((name, options["size"]))
        return small

    monkeypatch.setattr("topgraft.importers.load.load_backbone", loaded)
    assert find_backbone(small.card, settings=Settings(cache_dir=tmp_path)) == small
    assert asked == [(SMALL, 64)]


def test_weights_from_a_file_are_the_ones_that_run(small, tmp_path):
    tensors = {name: value.clone() for name, value in torch_model(small).state_dict().items()}
    tensors["classifier.weight"] = torch.zeros(7, 256)  # of whatever it was trained for
    safetensors.torch.save_file(tensors, tmp_path / "mine.safetensors")
    torch.save(tensors, tmp_path / "mine.pth")
    for file in ("mine.safetensors", "mine.pth"):
        read = _timm_create.create(SMALL, weights=tmp_path / file).state_dict()
        assert all(torch.equal(read[name], tensors[name]) for name in read)


class Harm:
    def __reduce__(self):
        return (open, ("harm", "w"))


def test_a_pth_that_would_run_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"conv_stem.weight": Harm()}, tmp_path / "bad.pth")
    (tmp_path / "worse.pth").write_bytes(pickle.dumps(Harm()))
    (tmp_path / "noise.safetensors").write_bytes(b"\xff" * 64)
    for file in ("bad.pth", "worse.pth", "noise.safetensors"):
        with pytest.raises(BackboneError, match="refused"):
            load_backbone(SMALL, weights=tmp_path / file)
    assert not (tmp_path / "harm").exists()
    with pytest.raises(BackboneError, match="cannot be read"):
        load_backbone(SMALL, weights=tmp_path / "gone.pth")


# Too small for the weights; large enough for them and not for the graph.
@pytest.mark.parametrize("size", ["96k", pytest.param("600k", marks=pytest.mark.nightly)])
def test_a_full_disk_is_one_line_and_leaves_nothing(small_disk, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", small_disk], check=True)
    with pytest.raises(BackboneError, match=r"cannot be written \(No space left on device\)\. Make room"):
        load_backbone(SMALL, weights="random", size=64, settings=Settings(cache_dir=small_disk))
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


@pytest.mark.parametrize("lacking", ["blocks.0.0.conv.weight", "bn1.running_mean"])
def test_a_file_that_lacks_a_tensor_is_refused_and_nothing_stays_random(small, tmp_path, lacking):
    tensors = {name: value.clone() for name, value in torch_model(small).state_dict().items()}
    del tensors[lacking]
    safetensors.torch.save_file(tensors, tmp_path / "mine.safetensors")
    with pytest.raises(BackboneError, match=SMALL):
        load_backbone(SMALL, weights=tmp_path / "mine.safetensors")
    shutil.copytree(small.graph.parent / "timm", tmp_path / "folder")
    safetensors.torch.save_file(tensors, tmp_path / "folder" / "model.safetensors")
    with pytest.raises(BackboneError, match="local-dir"):
        load_backbone(f"local-dir:{tmp_path / 'folder'}")


# What can go wrong


def test_unknown_names_and_tags_list_the_close_ones():
    with pytest.raises(UnknownNameError, match="mobilenetv1_100"):
        load_backbone("mobilnetv1_100")
    with pytest.raises(UnknownNameError, match=r"resnet50\.a1_in1k"):
        load_backbone("resnet50.a1_in1")


def test_model_args_that_timm_does_not_know_are_one_line(small, tmp_path):
    folder = shutil.copytree(small.graph.parent / "timm", tmp_path / "folder")
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(facts | {"model_args": {"nonsense": 3}}))
    with pytest.raises(BackboneError, match=r"local-dir:.*nonsense") as caught:
        load_backbone(f"local-dir:{folder}")
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_is_a_clear_error(tmp_path):
    with pytest.raises(BackboneError, match=r"config\.json and model\.safetensors"):
        load_backbone(f"local-dir:{tmp_path}")


def test_offline_says_so_at_once_with_three_ways_on():
    with pytest.raises(OfflineError, match=r"(?s)\(offline\).*fetch.*local-dir.*built-in default"):
        load_backbone("resnet50.a1_in1k", settings=Settings.load(offline=True))


def test_an_import_that_disagrees_with_pytorch_fails_and_keeps_nothing(small, tmp_path, monkeypatch):
    def wrong(path, _network, _card):
        model = onnx.load(small.graph)
        weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
        weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
        onnx.save(model, path)

    monkeypatch.setattr(_timm, "_export", wrong)
    settings = Settings.load(cache_dir=tmp_path)
    with pytest.raises(BackboneError, match=r"cosine of at least 0\.9999, got"):
        load_backbone(SMALL, weights="random", size=64, settings=settings)
    assert list((tmp_path / "backbones").glob("*/model.onnx")) == []


def test_a_graph_without_pytorch_weights_cannot_run_on_torch(small, tmp_path):
    bare = Backbone(small.card, tmp_path / "model.onnx")
    with pytest.raises(BackboneError, match="graph without PyTorch weights"):
        open_engine(bare, engine="torch", settings=Settings.load(device="cpu"))


def test_the_kept_weights_hash_to_what_the_card_says(small):
    kept = small.graph.parent / "timm" / "model.safetensors"
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == small.card.weights_sha256


# Architectures

ARCHITECTURES = [
    # name, side, width of the features, sides of the map or None
    pytest.param(SMALL, 64, 256, (256, 2, 2)),
    *(
        pytest.param(*row, marks=[pytest.mark.nightly, pytest.mark.timeout(900)])
        for row in [
            ("mobilenetv3_small_050", 64, 1024, (288, 2, 2)),
            ("resnet50", 64, 2048, (2048, 2, 2)),
            ("inception_v3", 107, 2048, (2048, 2, 2)),
            ("mobilenetv1_100", 64, 1024, (1024, 2, 2)),
            ("inception_v3", None, 2048, (2048, 8, 8)),
            ("mobilenetv2_100", 64, 1280, (1280, 2, 2)),
            ("mobilenetv3_large_100", 64, 1280, (960, 2, 2)),
            ("legacy_xception", 96, 2048, (2048, 3, 3)),
            ("xception41", 96, 2048, (2048, 3, 3)),
            ("densenet121", 64, 1024, (1024, 2, 2)),
            ("densenet161", 64, 2208, (2208, 2, 2)),
            ("densenet169", 64, 1664, (1664, 2, 2)),
            ("vgg16", None, 4096, (512, 7, 7)),
            ("vgg19", None, 4096, (512, 7, 7)),
            ("efficientnet_b0", 64, 1280, (1280, 2, 2)),
            ("convnext_tiny", 64, 768, (768, 2, 2)),
            ("vit_small_patch16_224", 64, 384, None),
            ("vit_small_patch14_dinov2", 56, 384, None),
            ("swin_tiny_patch4_window7_224", None, 768, (768, 7, 7)),
        ]
    ),
]


@pytest.mark.parametrize(("name", "side", "width", "map_size"), ARCHITECTURES, scope="class")
class TestArchitecture(EngineSuite):
    """Import, embed, and the whole conformance suite."""

    source = "timm"

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _made(cls, name, side, width, map_size):
        cls.backbone = load_backbone(name, weights="random", size=side)

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, _made):
        """One engine an architecture."""
        with cls().open() as engine:
            yield engine

    def open(self, threads=2):
        return open_engine(self.backbone, settings=Settings.load(threads=threads))

    def test_the_card_says_what_it_gives(self, engine, name, side, width, map_size):
        card = self.backbone.card
        assert (card.features, card.map_size) == (width, map_size)
        assert card.input_size[0] == side or (side is None and card.input_size[0] in (224, 299))
        assert len(card.blocks) >= 4
        assert len(set(self.backbone.blocks)) == len(card.blocks)
        shown = pictures(2, *card.input_size, seed=2)
        assert cosine(engine.embed(shown), on_torch(self.backbone, shown)) >= 0.9999


def test_a_model_timm_has_no_blocks_for_has_none():
    """A backbone like any other, but for fine-tuning."""
    assert groups(torch.nn.Linear(2, 2)) == []


# Every depth


def every_depth(backbone, shown):
    with open_engine(backbone, engine="torch", depths=True, settings=Settings.load(device="cpu")) as engine:
        theirs = engine.embed(shown)
    with open_engine(backbone, depths=True) as engine:
        return engine.embed(shown), theirs


def test_the_graph_gives_the_statistics_of_timms_blocks_as_pytorch_does(small):
    shown = pictures(3, 64, 64)
    ours, theirs = every_depth(small, shown)
    columns = small.card.columns
    assert [one.name for one in columns.blocks][:2] == ["blocks.0.0", "blocks.1.0"]
    assert set(small.blocks) >= {one.name for one in columns.blocks}
    for group in columns.groups().values():
        assert cosine(ours[:, group], theirs[:, group]) >= 0.9999


def test_a_vit_gives_statistics_over_tokens_and_its_class_token():
    backbone = load_backbone("test_vit", weights="random", size=32)
    shown = pictures(2, 32, 32)
    ours, _ = every_depth(backbone, shown)
    columns = backbone.card.columns
    assert [one.name for one in columns.blocks] == [f"blocks.{i}" for i in range(6)]
    assert {(one.channels, one.token) for one in columns.blocks} == {(64, True)}
    seen = {}
    model = torch_model(backbone)
    model.blocks[3].register_forward_hook(lambda _module, _given, output: seen.update(tokens=output.numpy()))
    with torch.inference_mode():
        FromPixels(model, backbone.card.model_copy(update={"depths": ()}))(torch.from_numpy(shown))
    tokens = seen["tokens"]
    means = ours[:, columns.columns("blocks.3", "means")]
    np.testing.assert_allclose(means[:, :64], tokens[:, 1:].mean(1), atol=1e-4)
    np.testing.assert_allclose(means[:, 64:], tokens[:, 0], atol=1e-4)
    spreads = ours[:, columns.columns("blocks.3", "spreads")]
    np.testing.assert_allclose(spreads, tokens[:, 1:].std(1), atol=1e-4)


def test_of_a_wide_network_the_last_block_of_each_stage_is_read():
    wide = {"a.0": (256, 56, 56), "a.1": (256, 56, 56), "b.0": (1024, 28, 28), "b.1": (1024, 28, 28)}
    assert _timm.chosen(wide, {name: shape[0] for name, shape in wide.items()}) == ["a.1", "b.1"]
    narrow = dict(list(wide.items())[:3])
    assert _timm.chosen(narrow, {name: shape[0] for name, shape in narrow.items()}) == list(narrow)
    assert _timm.chosen({}, {}) == []
    vit = {f"blocks.{i}": (197, 192) for i in range(12)}  # all one stage
    assert _timm.chosen(vit, dict.fromkeys(vit, 192)) == ["blocks.2", "blocks.5", "blocks.8", "blocks.11"]


def test_a_folder_from_before_is_written_again_with_depths_and_the_same_fingerprint(tmp_path):
    whole = load_backbone("tf_efficientnet_lite0", weights="random", size=64)  # written in no time
    older = tmp_path / "older"
    shutil.copytree(whole.graph.parent, older)
    model = onnx.load(whole.graph)
    model.graph.output.remove(next(one for one in model.graph.output if one.name == "blocks"))
    onnx.save(model, older / "model.onnx")
    card = whole.card.model_copy(update={"depths": ()})
    (older / "card.json").write_text(card.model_dump_json())
    (older / SUMS).write_text(sums(older))
    settings = Settings.load(cache_dir=tmp_path / "cache")
    renewed = load_backbone(str(older), settings=settings)
    assert renewed.card == whole.card
    shown = pictures(2, 64, 64)
    np.testing.assert_allclose(every_depth(renewed, shown)[0], every_depth(whole, shown)[0], rtol=1e-5)
    assert load_backbone(str(older), settings=settings) == renewed


def test_features_beyond_float16_are_kept_in_float32(tmp_path):
    model = _timm_create.create(SMALL, seed=0, size=64)
    with torch.no_grad():
        model.bn2.weight *= 1e9
        model.bn2.bias *= 1e9
    folder = tmp_path / "large"
    folder.mkdir()
    card = _timm.write(folder, model, origin="test", size=64, tag="large")
    assert "features" in card.float32
    data = Dataset.from_folder(paint_folder(tmp_path / "photos", apple=3, pear=3))
    store = embed(data, tmp_path / "features.zarr", backbone=Backbone(card, folder / "model.onnx"))
    assert store.features().dtype == np.float32
    assert np.isfinite(store.features()).all()
    assert np.abs(store.features()).max() > np.finfo(np.float16).max


@pytest.mark.nightly
def test_inception_with_random_weights_is_embedded(tmp_path):
    backbone = load_backbone("inception_v3.tv_in1k", weights="random")
    data = Dataset.from_folder(paint_folder(tmp_path / "photos", apple=2, pear=2))
    store = embed(data, tmp_path / "features.zarr", backbone=backbone)
    assert np.isfinite(store.features()).all()
    assert np.isfinite(store.blocks()).all()


@pytest.mark.parametrize("name", ["inception_v3", "mobilenetv3_small_050"])
def test_a_random_network_has_features_of_usable_scale(name):
    images = torch.from_numpy(pictures(4, 128, 128, seed=9)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        features = _timm_create.create(name, seed=0)(images)
    assert features.abs().max() < 100  # without statistics Inception v3's reach 1e10, beyond float16
    assert features.std(dim=0).mean() > 0.005  # more than a hundred steps of float16
