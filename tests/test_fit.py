"""The fit gives the pixels timm's transforms give, without computing what the crop throws away."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Pillow

from topgraft.backbones.card import Card
from topgraft.backbones.fit import axes, border_colour, fit

SIZES = [(480, 640), (640, 480), (512, 341), (224, 224), (256, 256), (100, 90), (8, 8), (3, 700), (333, 1001)]
INPUTS = [((224, 224), 0.875), ((224, 224), 1.0), ((192, 256), 0.9), ((299, 299), 0.875)]


def card_of(
    mode: str = "center", interpolation: str = "bicubic", size=(224, 224), fraction: float = 0.875
) -> Card:
    return Card(
        name="fit.test",
        input_size=size,
        interpolation=interpolation,
        crop_fraction=fraction,
        crop_mode=mode,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        features=8,
    )


@pytest.fixture
def rows_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Pillow resize rows before columns however much each shrinks, as every Pillow up to 12 does."""
    resize = Pillow.Image.resize

    def in_order(picture, size, resample=None, box=None, reducing_gap=None):
        if box is not None:
            return resize(picture, size, resample, box)
        width, height = size
        return resize(resize(picture, (width, picture.height), resample), (width, height), resample)

    monkeypatch.setattr(Pillow.Image, "resize", in_order)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with hard edges and some noise: ringing, clipping and flat parts all occur."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([127 + 127 * np.sin(x / 9 + y / (7 + c) + c) for c in range(3)], axis=-1)
    waves[(x // 13 + y // 17) % 3 == 0] = 255
    waves[(x // 31 + y // 11) % 4 == 0] = 0
    return np.clip(waves + rng.normal(0, 8, waves.shape), 0, 255).astype(np.uint8)


@pytest.mark.timm
@pytest.mark.usefixtures("rows_first")
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_fit_gives_the_pixels_of_timm(mode: str, interpolation: str) -> None:
    pytest.importorskip("timm")
    from timm.data import create_transform

    for size, fraction in INPUTS:
        card = card_of(mode, interpolation, size, fraction)
        transform = create_transform(
            (3, *size),
            interpolation=interpolation,
            crop_pct=fraction,
            crop_mode=mode,
            mean=card.mean,
            std=card.std,
            normalize=False,
        )
        for height, width in SIZES:
            image = photo(height, width)
            theirs = transform(Pillow.fromarray(image)).permute(1, 2, 0).numpy()
            ours = fit(image, card)
            assert ours.shape == theirs.shape == (*size, 3)
            apart = np.abs(ours.astype(int) - theirs.astype(int))
            assert apart.max() <= (2 if width > 99 * height else 1)  # there the box lies between pixels
            assert (apart > 0).mean() < (1e-2 if width > 99 * height else 1e-3), (height, width, size)


def test_a_photo_of_the_input_size_passes_unchanged() -> None:
    image = photo(224, 224)
    for interpolation in ("nearest", "bilinear", "bicubic", "lanczos"):
        np.testing.assert_array_equal(fit(image, card_of("center", interpolation, fraction=1.0)), image)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_a_picture_is_fitted_like_its_pixels(interpolation: str) -> None:
    image, card = photo(310, 470), card_of("border", interpolation)
    np.testing.assert_array_equal(fit(Pillow.fromarray(image), card), fit(image, card))


def test_nearest_takes_the_pixel_under_the_centre() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(1, 12, 1).repeat(12, 0).repeat(3, 2)
    fitted = fit(image, card_of("center", "nearest", (4, 4), 1.0))
    assert fitted[0, :, 0].tolist() == [1, 4, 7, 10]


def test_border_fills_with_the_mean_colour() -> None:
    card = card_of("border", fraction=1.0)
    fitted = fit(np.full((100, 200, 3), 9, np.uint8), card)
    assert (fitted[:50] == border_colour(card)).all()
    assert (fitted[60:160] == 9).all()
    assert (fitted[-50:] == border_colour(card)).all()


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (200, 3000), (2, 9000)])
def test_odd_sizes_fit(mode: str, size: tuple[int, int]) -> None:
    fitted = fit(np.full((*size, 3), 77, np.uint8), card_of(mode))
    assert fitted.shape == (224, 224, 3)
    assert (fitted == 77).all() or mode == "border"
    assert (fitted[112] == 77).any() or (fitted[:, 112] == 77).any()


def test_the_crop_is_in_the_middle() -> None:
    vertical, horizontal = axes(480, 640, card_of())
    assert (vertical.resized, vertical.first, horizontal.resized, horizontal.first) == (256, 16, 341, 58)
    assert (vertical.span, horizontal.span) == ((16, 240), (0, 341))
