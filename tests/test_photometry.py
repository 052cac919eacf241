import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageEnhance

from topgraft.policies import photometry


@pytest.fixture
def image():
    return np.random.default_rng(3).integers(20, 230, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (photometry.brightness, ImageEnhance.Brightness),
        (photometry.contrast, ImageEnhance.Contrast),
        (photometry.saturation, ImageEnhance.Color),
    ],
)
def test_factors_mean_what_pillow_means(image, ours, theirs, factor):
    expected = np.asarray(theirs(Pillow.fromarray(image)).enhance(factor))
    # Pillow rounds down and takes a whole number for the mean
    assert np.abs(ours(image, factor).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("change", [photometry.brightness, photometry.contrast, photometry.saturation])
def test_a_factor_of_one_changes_nothing(image, change):
    assert np.array_equal(change(image, 1.0), image)


def test_channel_shift_stays_within_the_pictures_own_levels(image):
    shifted = photometry.shift_channels(image, 40.4)
    assert np.array_equal(shifted, np.clip(np.rint(image + 40.4), image.min(), image.max()))
    assert shifted.max() == image.max()


def test_saturation_zero_is_grey_and_keeps_the_luminance(image):
    grey = photometry.saturation(image, 0.0)
    assert (grey == grey[..., :1]).all()
    assert np.abs(grey[..., 0] - image @ photometry.LUMA).max() <= 1


def test_blur_spreads_a_dot_as_a_gaussian_does():
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[20, 20] = 255
    spread = photometry.blur(dot, 2.0).astype(float)
    x = np.arange(41) - 20
    bell = np.exp(-(x**2) / 8)
    bell /= bell.sum()
    assert np.abs(spread[..., 0] - 255 * np.outer(bell, bell)).max() <= 1


def test_erase_paints_the_rectangle_with_the_mean_and_nothing_else(image):
    erased = photometry.erase(image, 0.25, 0.5, 0.5, 0.25)
    expected = image.copy()
    expected[20:30, 15:45] = np.rint(image.mean(axis=(0, 1)))
    assert np.array_equal(erased, expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: photometry.shift_channels(image, 30),
        lambda image: photometry.brightness(image, 1.3),
        lambda image: photometry.contrast(image, 1.3),
        lambda image: photometry.saturation(image, 1.3),
        lambda image: photometry.blur(image, 1.3),
        lambda image: photometry.erase(image, 0.1, 0.1, 0.5, 0.5),
    ],
)
def test_every_change_leaves_its_input_alone_and_keeps_shape_and_type(image, change):
    before = image.copy()
    after = change(image)
    assert np.array_equal(image, before)
    assert after.shape == image.shape
    assert after.dtype == np.uint8
    assert not np.array_equal(after, image)
