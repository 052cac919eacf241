"""Maps of where a predictor looked point at what is there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw

from topgraft.backbones.fit import fit
from topgraft.errors import UnknownNameError
from topgraft.heads import head_class
from topgraft.importers.load import load_backbone
from topgraft.predictor import Predictor
from topgraft.predictor.saliency import _leave_out, _occlude, activation_map
from topgraft.telemetry import import_silently

onnxruntime = import_silently("onnxruntime")

NAMES = ("bare", "fruit")


def table(seed: int, place: float | None, height: int = 240, width: int = 320) -> np.ndarray:
    """A dull table; at `place` (share of the width) lies something bright and round with a leaf."""
    rng = np.random.default_rng(seed)
    colour = rng.uniform(90, 150, 3)
    pixels = np.clip(colour + rng.normal(0, 9, (height, width, 1)), 0, 255)
    picture = Pillow.fromarray(np.broadcast_to(pixels, (height, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for y in rng.uniform(0, height, 4):
        draw.line([0, y, width, y + rng.uniform(-20, 20)], fill=tuple(int(c * 0.8) for c in colour), width=2)
    if place is not None:
        x, y, r = place * width, height * rng.uniform(0.35, 0.65), rng.uniform(28, 40)
        draw.ellipse([x - r, y - r, x + r, y + r], fill=(250, 120, 20), outline=(180, 70, 0), width=3)
        draw.ellipse([x - r * 0.5, y - r * 0.6, x, y - r * 0.2], fill=(255, 190, 110))
        draw.polygon([x, y - r, x + r * 0.7, y - r * 1.5, x + r * 0.3, y - r * 0.8], fill=(40, 140, 40))
    return np.asarray(picture)


@pytest.fixture(scope="module")
def lesson():
    """The backbone, and features and labels of forty tables, half of them bare."""
    backbone = load_backbone()
    places = np.random.default_rng(0).uniform(0.2, 0.8, 20)
    images = [table(seed, None) for seed in range(20)] + [
        table(seed + 50, p) for seed, p in enumerate(places)
    ]
    fitted = np.stack([fit(image, backbone.card) for image in images])
    session = onnxruntime.InferenceSession(str(backbone.graph))
    return backbone, session.run(["features"], {"images": fitted})[0], np.repeat([0, 1], 20)


@pytest.fixture(scope="module")
def predictor_of(lesson) -> Callable[[str], Predictor]:
    """A predictor of each head, opened once."""
    backbone, features, labels = lesson
    return cache(
        lambda name: Predictor.build(backbone, head_class(name)().fit(features, labels), classes=NAMES)
    )


@pytest.mark.parametrize("name", ["logistic", "mean", "ridge", "lda"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_map_lights_the_half_with_the_object(predictor_of, name: str, side: str) -> None:
    image = table(99, 0.3 if side == "left" else 0.7)
    shown = activation_map(predictor_of(name), image, "fruit")
    assert shown.shape == image.shape[:2]
    assert shown.dtype == np.float32
    assert 0 <= shown.min() <= shown.max() <= 1
    left, right = shown[:, :160].sum(), shown[:, 160:].sum()
    assert (left > 2 * right) if side == "left" else (right > 2 * left)


@pytest.mark.parametrize("side", ["left", "right"])
def test_occlusion_lights_the_same_half(predictor_of, side: str) -> None:
    cells = np.maximum(_occlude(predictor_of("logistic"), table(99, 0.3 if side == "left" else 0.7), 1), 0)
    left, right = cells[:, :3].sum(), cells[:, 4:].sum()
    assert (left > 2 * right) if side == "left" else (right > 2 * left)


def test_a_linear_head_gives_the_class_activation_map(lesson) -> None:
    """Zhou et al.: the map times the class's weights; leaving cells out gives it less its mean, scaled."""
    backbone, features, labels = lesson
    head = head_class("logistic")(C=0.01).fit(features, labels)
    predictor = Predictor.build(backbone, head, classes=NAMES, temperature=2.0)
    found = predictor.look(table(7, 0.5))
    (layer,) = head.layers()
    difference = (layer.weight[:, 1] - layer.weight[:, 0]).astype(np.float64) / 2.0
    cam = np.tensordot(difference, found["map"][0].astype(np.float64), axes=1)
    expected = (cam - cam.mean()) / (cam.size - 1)
    np.testing.assert_allclose(_leave_out(predictor, found, 1), expected, atol=1e-3 * np.abs(expected).max())


def test_a_map_of_one_cell_says_nothing_of_places() -> None:
    """A backbone on tiny pictures has one: without it no map is left, and 0 / 0 was the answer."""
    found = {"map": np.ones((1, 5, 1, 1), np.float32), "features": np.ones((1, 5), np.float32)}
    assert _leave_out(None, found, 0) is None


def test_votes_that_do_not_move_leave_the_map_dark(lesson) -> None:
    backbone, features, labels = lesson
    head = head_class("knn")(k=1).fit(features, labels)
    predictor = Predictor.build(backbone, head, classes=NAMES)
    image = table(70, 0.3)
    assert predictor.predict(image)[0].label == "fruit"
    assert (activation_map(predictor, image) == 0).all()


def test_what_the_fit_cuts_off_stays_dark(predictor_of) -> None:
    shown = activation_map(predictor_of("logistic"), table(5, 0.5, 240, 600), "fruit")
    assert (shown[:, :190] == 0).all()
    assert (shown[:, -190:] == 0).all()
    assert shown.max() > 0.9


def test_an_unknown_class_is_refused(predictor_of) -> None:
    with pytest.raises(UnknownNameError, match="fruit"):
        activation_map(predictor_of("mean"), table(1, 0.5), "fruits")
