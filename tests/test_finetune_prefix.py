"""The prefix found in the backbone's own graph gives what PyTorch's prefix gives."""

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="needs the timm extra")
pytest.importorskip("timm", reason="needs the timm extra")

from tiny import TINY  # noqa: E402
from topgraft import Dataset  # noqa: E402
from topgraft._finetune.cut import cut  # noqa: E402
from topgraft._finetune.photos import activations  # noqa: E402
from topgraft._finetune.pixels import normalised  # noqa: E402
from topgraft._finetune.prefix import in_graph  # noqa: E402
from topgraft._finetune.train import pack  # noqa: E402
from topgraft.backbones._pictures import pictures  # noqa: E402
from topgraft.backbones._torch import groups, torch_model  # noqa: E402
from topgraft.backbones.backbone import Backbone  # noqa: E402
from topgraft.engines import open_engine  # noqa: E402
from topgraft.importers.load import load_backbone  # noqa: E402
from topgraft.policies.policy import IDENTITY, Policy, View  # noqa: E402
from topgraft.settings import Settings  # noqa: E402
from topgraft.testing.drawing import draw_photos  # noqa: E402

pytestmark = pytest.mark.timm
CPU = torch.device("cpu")


def cut_of(backbone, k=3, depths=()):
    model = torch_model(backbone).to(memory_format=torch.channels_last).requires_grad_(False)
    trained = [name for _, names in groups(model)[-k:] for name in names]
    return cut(model, trained, backbone.card.input_size, depths)


def by_torch(parting, images, card):
    with torch.inference_mode():
        return pack(parting.prefix(normalised(images, card, CPU))).numpy()


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_the_graph_holds_the_activations_of_the_default_backbone(k, deep, tmp_path):
    backbone = load_backbone(TINY)
    parting = cut_of(backbone, k, backbone.card.depths if deep else ())
    assert sum(map(bool, parting.blocks)) == (16 - k if deep else 0)
    found = in_graph(backbone, parting, tmp_path / "prefix.onnx")
    shown = pictures(5, *backbone.card.input_size, seed=9)
    expected = by_torch(parting, shown, backbone.card)
    with open_engine(found) as engine:
        got = engine.embed(shown)
    assert got.shape == (5, parting.width)
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
    assert in_graph(backbone, parting, tmp_path / "prefix.onnx") == found


@pytest.mark.nightly
def test_a_cut_through_several_values_is_found_too(tmp_path):
    backbone = load_backbone("densenet121", weights="random")
    parting = cut_of(backbone, 2)
    found = in_graph(backbone, parting, tmp_path / "prefix.onnx")
    shown = pictures(2, *backbone.card.input_size, seed=9)
    expected = by_torch(parting, shown, backbone.card)
    with open_engine(found) as engine:
        np.testing.assert_allclose(engine.embed(shown), expected, atol=1e-4 * np.abs(expected).max())


def test_another_graph_is_not_taken_for_the_prefix(tmp_path):
    backbone = load_backbone(TINY)
    model = onnx.load(str(backbone.graph))
    for weight in model.graph.initializer:
        if len(weight.dims) == 4:
            values = onnx.numpy_helper.to_array(weight)
            weight.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(0.9), weight.name))
            break
    onnx.save(model, tmp_path / "other.onnx")
    other = Backbone(backbone.card, tmp_path / "other.onnx")
    assert in_graph(other, cut_of(backbone), tmp_path / "prefix.onnx") is None
    assert not (tmp_path / "prefix.onnx").exists()


def test_where_the_graph_has_none_pytorch_computes_them(tmp_path, monkeypatch):
    from topgraft._finetune import photos

    data = Dataset.from_folder(draw_photos(tmp_path / "photos", 5, seed=0))
    backbone, views = load_backbone(TINY), [View(IDENTITY), View(Policy(hflip=True))]
    parting, found = cut_of(backbone), []
    for place in ("with", "without"):
        settings = Settings.load(cache_dir=tmp_path / place)
        inputs = activations(data, views, parting, backbone, settings=settings)
        assert inputs.places.shape == (2, 10)
        found.append(np.asarray(inputs.rows[inputs.places], np.float32))
        again = activations(data, views, parting, backbone, settings=settings)
        assert np.array_equal(again.rows[again.places], inputs.rows[inputs.places])
        monkeypatch.setattr(photos, "in_graph", lambda *_: None)
    np.testing.assert_allclose(found[0], found[1], atol=2e-3 * np.abs(found[1]).max())


def test_a_kept_graph_that_changed_is_made_again(tmp_path):
    backbone, path = load_backbone(TINY), tmp_path / "prefix.onnx"
    parting = cut_of(backbone, 1)
    in_graph(backbone, parting, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-64] + bytes(64))
    in_graph(backbone, parting, path)
    assert path.read_bytes() == whole
