import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topgraft.policies import geometry

SIDES = st.integers(2, 90)
ANGLES = st.floats(-180, 180)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height, width):
    """Long waves, so that drawing twice loses little."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 110 * np.sin(x / 23 + k) * np.cos(y / 31 - k) for k in range(3)]
    return np.stack(waves, axis=-1).round().astype(np.uint8)


@given(SIDES, SIDES, st.sampled_from(list(geometry.FILLS)))
def test_the_identity_matrix_gives_the_very_pixels(height, width, fill):
    image = noise(height, width)
    assert np.array_equal(geometry.warp(image, geometry.about_centre(np.eye(3), height, width), fill), image)


@given(SIDES, SIDES, st.sampled_from(list(geometry.FILLS)))
def test_flips_are_exact_and_two_cancel(height, width, fill):
    image = noise(height, width)
    across = geometry.about_centre(geometry.zoom(-1, 1), height, width)
    down = geometry.about_centre(geometry.zoom(1, -1), height, width)
    assert np.array_equal(geometry.warp(image, across, fill), image[:, ::-1])
    assert np.array_equal(geometry.warp(image, down, fill), image[::-1])
    assert np.array_equal(geometry.warp(geometry.warp(image, across, fill), across, fill), image)
    both = geometry.compose(geometry.zoom(-1, 1), geometry.zoom(-1, 1))
    assert np.array_equal(both, np.eye(3))


@given(SIDES, SIDES, ANGLES, st.floats(0.2, 30), st.sampled_from(list(geometry.FILLS)))
def test_a_border_drawn_or_looked_up_is_the_same_to_a_level(height, width, degrees, factor, fill):
    image = smooth(height, width)
    parts = geometry.rotation(degrees), geometry.shift(width / 3, -height / 4), geometry.zoom(factor, factor)
    matrix = geometry.about_centre(geometry.compose(*parts), height, width)
    straight = cv2.warpAffine(
        image,
        matrix[:2],
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=geometry.FILLS[fill],
        borderValue=(9, 9, 9),
    )
    shown = geometry.warp(image, matrix, fill, 9)
    assert np.abs(shown.astype(int) - straight).max() <= 1


@pytest.mark.parametrize("side", [8, 9])
def test_quarter_turns_are_exact_and_go_counterclockwise(side):
    image = noise(side, side)
    matrix = geometry.about_centre(geometry.rotation(90), side, side)
    assert np.array_equal(geometry.warp(image, matrix), np.rot90(image))


def test_a_shift_looks_to_the_right_and_down():
    image = noise(6, 9)
    moved = geometry.warp(image, geometry.about_centre(geometry.shift(2, 1), 6, 9), "constant", 7)
    assert np.array_equal(moved[:-1, :-2], image[1:, 2:])
    assert (moved[-1] == 7).all()
    assert (moved[:, -2:] == 7).all()


def test_zoom_below_one_enlarges_about_the_true_centre():
    image = noise(5, 5)
    enlarged = geometry.warp(image, geometry.about_centre(geometry.zoom(0.5, 0.5), 5, 5))
    assert np.array_equal(enlarged[2, 2], image[2, 2])
    assert np.array_equal(enlarged[::4, ::4], image[1:4:2, 1:4:2])


def test_shear_has_keras_form():
    assert geometry.shear(30) == pytest.approx(np.array([[1, -0.5, 0], [0, 3**0.5 / 2, 0], [0, 0, 1]]))


@given(ANGLES, ANGLES, st.floats(-20, 20), st.floats(-20, 20), st.floats(0.5, 2), st.floats(0.5, 2))
def test_composing_equals_multiplying_point_by_point(turn, lean, x, y, wide, high):
    parts = [geometry.rotation(turn), geometry.shift(x, y), geometry.shear(lean), geometry.zoom(wide, high)]
    point = np.array([3.0, -5.0, 1.0])
    one_by_one = point
    for part in reversed(parts):
        one_by_one = part @ one_by_one
    assert geometry.compose(*parts) @ point == pytest.approx(one_by_one)


@given(st.floats(-40, 40), st.floats(-8, 8), st.floats(-8, 8), st.floats(-10, 10), st.floats(0.9, 1.1))
def test_one_warp_equals_warping_in_turn_on_a_smooth_picture(turn, x, y, lean, size):
    image, centre = smooth(120, 160), (slice(40, 80), slice(50, 110))
    parts = [
        geometry.rotation(turn),
        geometry.shift(x, y),
        geometry.shear(lean),
        geometry.zoom(size, 1 / size),
        geometry.zoom(-1, 1),
    ]
    at_once = geometry.warp(image, geometry.about_centre(geometry.compose(*parts), 120, 160))
    in_turn = image
    for part in parts:  # the leftmost is nearest to the source, so it is applied first
        in_turn = geometry.warp(in_turn, geometry.about_centre(part, 120, 160))
    difference = np.abs(at_once.astype(int) - in_turn)[centre]
    assert difference.max() <= 3  # five roundings and four more interpolations against one


def test_the_order_matters_so_the_test_above_can_fail():
    turn, move = geometry.rotation(40), geometry.shift(8, 0)
    assert not np.allclose(geometry.compose(turn, move), geometry.compose(move, turn))


def test_the_matrix_has_no_digits_that_depend_on_the_machine():
    matrix = geometry.about_centre(geometry.rotation(33.3), 224, 224)
    assert np.array_equal(matrix, np.round(matrix, 9))


def test_importing_leaves_opencv_its_threads():
    code = "import cv2; cv2.setNumThreads(3); import topgraft.policies.geometry; print(cv2.getNumThreads())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"3\n"


def test_opencv_is_new_enough_to_be_exact():
    assert int(cv2.__version__.split(".")[0]) >= 5  # 4.10 rounds coordinates to 1/32 px
