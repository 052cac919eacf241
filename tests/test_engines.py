"""Every engine passes the shipped suite; what is particular to one is tested beside it."""

import subprocess
import sys

import numpy as np
import pytest

from tiny import TINY
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Card
from topgraft.backbones.depths import Depth
from topgraft.engines import open_engine
from topgraft.engines._open import resolve_engine
from topgraft.errors import BackboneError, MissingExtraError, UnknownNameError, UsageError
from topgraft.importers.load import load_backbone
from topgraft.settings import Settings, usable_cores
from topgraft.testing.engines import EngineSuite

FAKE = Card(
    name="fake.test",
    input_size=(24, 32),
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    features=16,
    depths=(Depth(name="a", channels=4), Depth(name="b", channels=8, token=True)),
    source="fake",
)


class TestOpenVINO(EngineSuite):
    name = "openvino"
    source = "builtin"

    def open(self, threads=2):
        return open_engine(load_backbone(), settings=Settings.load(threads=threads))

    def deep(self):
        return open_engine(load_backbone(), depths=True)

    def test_its_numbers_are_float32_even_where_the_processor_offers_less(self, engine):
        compiled = engine._compiled
        assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"

    def test_what_leaves_cores_to_others_is_tied_to_none(self):
        with self.open(threads=1) as engine:
            assert engine._compiled.get_property("ENABLE_CPU_PINNING") is (usable_cores() == 1)


class TestFake(EngineSuite):
    name = "fake"
    source = "fake"

    def open(self, threads=2):
        return open_engine(Backbone(FAKE, "nowhere"), engine="fake")

    def deep(self):
        return open_engine(Backbone(FAKE, "nowhere"), engine="fake", depths=True)


@pytest.mark.timm
class TestTorch(EngineSuite):
    name = "torch"
    same_on_any_cores = False

    def open(self, threads=2):
        torch = pytest.importorskip("torch")
        torch.set_num_threads(threads)
        return open_engine(load_backbone(TINY), engine="torch", settings=Settings.load(device="cpu"))

    def deep(self):
        pytest.importorskip("torch")
        return open_engine(
            load_backbone(TINY), engine="torch", depths=True, settings=Settings.load(device="cpu")
        )

    def state(self, engine):
        return {name: value.numpy() for name, value in engine.model.state_dict().items()}


@pytest.mark.timm
def test_openvino_and_torch_agree_on_the_default_backbone():
    pytest.importorskip("torch")
    backbone = load_backbone()
    pictures = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    settings = Settings.load(device="cpu")
    with (
        open_engine(backbone, depths=True) as openvino,
        open_engine(backbone, engine="torch", depths=True, settings=settings) as torch,
    ):
        ours, theirs = openvino.embed(pictures).astype(float), torch.embed(pictures).astype(float)
    for columns in backbone.card.columns.groups().values():
        a, b = ours[:, columns], theirs[:, columns]
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosine.min() >= 0.99999


def test_depths_of_a_backbone_that_has_none_are_one_line():
    flat = Backbone(FAKE.model_copy(update={"depths": ()}), "nowhere")
    with pytest.raises(BackboneError, match=r"^fake\.test: its graph gives no statistics of blocks\.$"):
        open_engine(flat, engine="fake", depths=True)


def test_auto_is_openvino_on_the_cpu():
    assert resolve_engine("auto", "f32", Settings.load(device="cpu")) == ("openvino", "f32")
    assert resolve_engine("auto", "f32", Settings.load()) == ("openvino", "f32")


def test_unknown_names_list_the_close_ones():
    with pytest.raises(UnknownNameError, match="openvino"):
        open_engine(load_backbone(), engine="openvin")
    with pytest.raises(UnknownNameError, match="int8"):
        open_engine(load_backbone(), precision="int4")


def test_a_precision_that_the_graph_does_not_have_is_refused():
    with pytest.raises(UsageError, match="its graph is f32"):
        open_engine(load_backbone(), precision="int8")
    with pytest.raises(UsageError, match="not one of its own"):
        open_engine(load_backbone(), precision="f16")


@pytest.mark.timm
def test_cuda_without_cuda_is_an_error_that_says_what_to_do():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(UsageError, match="--device cpu"):
        open_engine(load_backbone(), settings=Settings.load(device="cuda"))


def test_without_pytorch_the_torch_engine_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"topgraft\[timm\]"):
        open_engine(load_backbone(), engine="torch")


CONVERTER = """
import sys
from topgraft.engines._openvino import compile_model
compile_model(sys.argv[1])
before = "openvino.tools.ovc" in sys.modules
import openvino
print(before, type(openvino.convert_model(sys.argv[1])).__name__, "openvino.tools.ovc" in sys.modules)
"""


def test_openvino_comes_without_its_converter_and_whoever_calls_it_gets_it():
    words = [sys.executable, "-c", CONVERTER, load_backbone().graph]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "False Model True\n"
