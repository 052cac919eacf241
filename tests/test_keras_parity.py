"""Views against what Keras 3.15.1's ImageDataGenerator made of the same draws (72, on four photos)."""

import numpy as np
import pytest

from topgraft.policies import geometry, photometry
from topgraft.policies.policy import matrix

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def keras(shared):
    with np.load(shared / "data" / "keras_affine.npz", allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def drawn(case, height, width):
    return {
        "rotate": (case["theta_deg"],),
        "shift": (case["tx_px"] / width, case["ty_px"] / height),
        "shear": (case["shear_deg"],),
        "zoom": (case["zx"], case["zy"]),
        "hflip": (bool(case["flip_h"]),),
        "vflip": (bool(case["flip_v"]),),
    }


def keras_matrix(case, height, width):
    """Our matrix, moved to Keras' centre: it exchanges height and width where it looks for the middle."""
    about_true = matrix(drawn(case, height, width), height, width)
    if height == width:
        return about_true
    flips = geometry.about_centre(
        geometry.zoom(-1 if case["flip_h"] else 1, -1 if case["flip_v"] else 1), height, width
    )
    quirk = geometry.shift((height - width) / 2, (width - height) / 2)
    return quirk @ about_true @ flips @ np.linalg.inv(quirk) @ flips


def ours(case, image, place):
    shown = geometry.warp(image, place, str(case["fill_mode"]))
    return photometry.shift_channels(shown, case["channel_shift"]) if case["channel_shift"] else shown


def inside(place, height, width):
    """Where the source point lies between the centres of the outermost pixels."""
    y, x = np.mgrid[:height, :width]
    source = place[:2] @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    within = (source >= -1e-6) & (source <= np.array([[width - 1], [height - 1]]) + 1e-6)
    return within.all(axis=0).reshape(height, width)


def differences(keras, fill):
    """Yield (case, levels off (H, W), inside (H, W), source points) for all cases of a fill."""
    for case in keras["cases"]:
        if case["fill_mode"] == fill:
            image = keras[f"image_{case['image']}"]
            height, width = image.shape[:2]
            place = keras_matrix(case, height, width)
            off = np.abs(ours(case, image, place).astype(int) - keras[f"out1_{case['case']:03d}"]).max(axis=2)
            yield case, off, inside(place, height, width)


@pytest.mark.parametrize("fill", ["nearest", "reflect"])
def test_nearest_and_reflect_agree_everywhere(keras, fill):
    found = list(differences(keras, fill))
    assert len(found) == 18
    assert max(off.max() for _, off, _ in found) <= 1


@pytest.mark.parametrize("fill", ["constant", "wrap"])
def test_constant_and_wrap_agree_inside_the_picture(keras, fill):
    found = list(differences(keras, fill))
    assert len(found) == 18
    assert sum(within.sum() for _, _, within in found) > 100_000
    assert max(off[within].max() for _, off, within in found if within.any()) <= 1
    assert (
        max(off.max() for _, off, _ in found) > 50
    )  # and only there: the borders do differ, as the docs say


def test_constant_differs_only_in_the_one_pixel_rim(keras):
    for case, off, _ in differences(keras, "constant"):
        image = keras[f"image_{case['image']}"]
        height, width = image.shape[:2]
        place = keras_matrix(case, height, width)
        y, x = np.mgrid[:height, :width]
        source = (place[:2] @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])).reshape(2, height, width)
        beyond = np.maximum(
            np.maximum(-source[0], source[0] - (width - 1)), np.maximum(-source[1], source[1] - (height - 1))
        )
        assert off[beyond >= 1].max(initial=0) <= 1


def test_the_periods_of_wrap():
    """OpenCV's wrap repeats every n pixels; scipy's every n - 1, as its documentation says."""
    ndimage = pytest.importorskip("scipy.ndimage")
    row = np.arange(0, 50, 10, dtype=np.uint8)
    image = np.repeat(row[None, :, None], 5, axis=0).repeat(3, axis=2)
    shown = geometry.warp(image, geometry.shift(5, 0), "wrap")[2, :, 0]
    theirs = ndimage.affine_transform(row.astype(float), [1.0], [5.0], order=1, mode="wrap")
    assert shown.tolist() == [0, 10, 20, 30, 40]
    assert theirs.tolist() == [10, 20, 30, 0, 10]
