"""INT8: what it must keep, and when it is not kept."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("nncf") is None:  # its import takes seconds, in every process that collects tests
    pytest.skip("needs the int8 extra", allow_module_level=True)

import topgraft as tg
from tiny import TINY
from topgraft import _try_int8
from topgraft._split import split
from topgraft.backbones._pictures import pictures
from topgraft.backbones.fit import fit
from topgraft.config import Config
from topgraft.engines import open_engine
from topgraft.errors import UsageError
from topgraft.importers.load import find_backbone, load_backbone
from topgraft.importers.quantize import quantize
from topgraft.run import Run
from topgraft.selection.precision import worth_keeping
from topgraft.settings import Settings
from topgraft.testing.drawing import draw_photos
from topgraft.testing.engines import EngineSuite


@pytest.fixture(scope="module")
def exact():
    return load_backbone(TINY)


@pytest.fixture(scope="module")
def coarse(exact):
    return quantize(exact, pictures(16, 96, 96))


class TestINT8(EngineSuite):
    def open(self, threads=2):
        backbone = quantize(load_backbone(TINY), pictures(16, 96, 96))
        return open_engine(backbone, precision="int8", settings=Settings.load(threads=threads))

    def deep(self):
        backbone = quantize(load_backbone(TINY), pictures(16, 96, 96))
        return open_engine(backbone, precision="int8", depths=True)


def test_its_features_agree_with_float32_and_are_not_the_same(exact, coarse):
    shown = pictures(6, 96, 96, seed=5)
    with open_engine(exact) as one, open_engine(coarse, precision="int8") as other:
        a, b = one.embed(shown), other.embed(shown)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.95
    assert not np.array_equal(a, b)


def test_its_block_features_agree_with_float32_too(exact, coarse):
    shown = pictures(6, 96, 96, seed=5)
    with (
        open_engine(exact, depths=True) as one,
        open_engine(coarse, precision="int8", depths=True) as other,
    ):
        a, b = one.embed(shown), other.embed(shown)
    assert coarse.card.depths == exact.card.depths
    for columns in exact.card.columns.groups().values():
        apart, whole = a[:, columns] - b[:, columns], a[:, columns]
        assert 0 < np.linalg.norm(apart) < 0.3 * np.linalg.norm(whole)


def test_its_features_are_those_of_another_runtime(coarse):
    """Weights of full range overflow in OpenVINO where the processor has no VNNI: a mean cosine of 0.53."""
    ort = pytest.importorskip("onnxruntime")
    shown = pictures(6, 96, 96, seed=5)
    with open_engine(coarse, precision="int8") as engine:
        ours = engine.embed(shown)
    (theirs,) = ort.InferenceSession(coarse.graph).run(["features"], {"images": shown})
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.min() > 0.99


def test_it_is_another_backbone_that_is_found_again(exact, coarse):
    assert coarse.card.precision == "int8"
    assert coarse.card.fingerprint() != exact.card.fingerprint()
    assert quantize(exact, pictures(16, 96, 96)) == coarse
    assert quantize(exact, pictures(16, 96, 96, seed=1)[:4]).card.fingerprint() != coarse.card.fingerprint()
    assert find_backbone(coarse.card) == coarse


def test_it_is_never_run_as_what_it_is_not(exact, coarse):
    with pytest.raises(UsageError, match="its graph is int8"):
        open_engine(coarse)
    with pytest.raises(UsageError, match="int8 already"):
        quantize(coarse, pictures(1, 96, 96))
    with pytest.raises(UsageError, match="at least one"):
        quantize(exact, pictures(1, 96, 96)[:0])


def classes(noise, seed=0):
    """Two classes in 20 dimensions, 100 rows; the clean ones are easy."""
    random = np.random.default_rng(seed)
    labels = np.arange(100) % 2
    rows = random.standard_normal((100, 20)) + 3 * labels[:, None]
    return (rows + noise * random.standard_normal(rows.shape)).astype(np.float32), labels.astype(np.int64)


def test_what_agrees_is_kept_and_what_loses_more_than_half_a_point_is_not():
    clean, labels = classes(0)
    groups = np.arange(100)
    near = clean + np.float32(1e-3)
    kept = worth_keeping(clean, near, labels, groups)
    assert kept.keep
    assert kept.cosine > 0.999
    assert kept.accuracy_f32 == pytest.approx(kept.accuracy_int8)
    noise, _ = classes(50)
    lost = worth_keeping(clean, noise, labels, groups)
    assert not lost.keep
    assert lost.accuracy_int8 < lost.accuracy_f32 - 0.005
    assert "f32 is kept" in lost.sentence
    assert "INT8 is used" in kept.sentence


def test_many_photos_are_compared_in_parts_with_the_same_features(exact, tmp_path, monkeypatch):
    data = tg.Dataset.from_folder(draw_photos(tmp_path / "photos", 8, seed=0))
    sides = split(data, seed=0)
    learn, seen, shown = data.subset(sides.train), [], []
    whole = np.stack([fit(learn.image(i), exact.card) for i in range(len(learn))])

    def quantized(backbone, images, settings):
        shown.extend(images)
        return backbone

    def kept(*features, **_):
        seen.extend(features[:2])
        return worth_keeping(*features)

    monkeypatch.setattr(_try_int8, "AT_ONCE", 5)
    monkeypatch.setattr("topgraft.importers.quantize.quantize", quantized)
    monkeypatch.setattr(_try_int8, "worth_keeping", kept)
    run = Run.create(tmp_path / "run")
    config = Config.of(precision="int8", depths="last")
    _try_int8.in_precision(exact, data, sides, config, run, views=0, settings=Settings.load(threads=1))
    assert np.array_equal(shown, whole)
    with open_engine(exact, settings=Settings.load(threads=1)) as engine:
        expected = engine.embed(whole)
    for features in seen:
        np.testing.assert_allclose(features, expected, atol=1e-5)
    assert json.loads((run.path / "int8.json").read_text("utf-8"))["kept"]


def test_auto_keeps_f32_where_int8_is_hardly_quicker(exact, coarse, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="topgraft")
    data = tg.Dataset.from_folder(draw_photos(tmp_path / "photos", 8, seed=0))
    monkeypatch.setattr("topgraft.importers.quantize.quantize", lambda *_, **__: coarse)
    monkeypatch.setattr(_try_int8, "MANY", 1)
    monkeypatch.setattr(_try_int8, "adds_bytes", lambda: True)
    taken = {}
    for quicker in (1e9, 0.0):
        monkeypatch.setattr(_try_int8, "QUICKER", quicker)
        run = Run.create(tmp_path / f"run{quicker}")
        config, settings = Config.of(precision="auto", depths="last"), Settings.load(threads=1)
        taken[quicker] = _try_int8.in_precision(
            exact, data, split(data, seed=0), config, run, views=10, settings=settings
        )
    assert taken[1e9] is exact
    assert taken[0.0] is coarse
    assert len([line for line in caplog.messages if line.startswith("That is too little")]) == 1
