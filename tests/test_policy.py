import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from topgraft.errors import UnknownNameError, UsageError
from topgraft.policies import geometry
from topgraft.policies.ops import Choice, Pair
from topgraft.policies.policy import IDENTITY, LIMITS, Policy, View, matrix, parameters, render, uniforms

DIGEST = "5f" * 16


def within(name):
    limit = LIMITS[name]
    if isinstance(limit, Choice):
        return st.sampled_from(limit.options)
    if isinstance(limit, Pair):
        ends = st.floats(limit.least, limit.most)
        return st.tuples(ends, ends).map(sorted).map(tuple)
    return st.integers(limit.least, limit.most) if limit.whole else st.floats(limit.least, limit.most)


POLICIES = st.builds(Policy, **{name: within(name) for name in LIMITS})
SOME = st.one_of(POLICIES, st.builds(Policy), st.builds(Policy, zoom=within("zoom"), blur=within("blur")))


def noise(height=24, width=31, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# printing and parsing


@given(SOME)
def test_parse_after_print_is_the_identity(policy):
    assert Policy.parse(str(policy)) == policy
    assert str(Policy.parse(str(policy))) == str(policy)


@given(POLICIES, st.randoms())
def test_terms_may_stand_in_any_order(policy, random):
    terms = str(policy).split(" | ")
    random.shuffle(terms)
    assert Policy.parse("|".join(terms)) == policy


def test_the_canonical_form():
    text = "rotate(60) | shift(0.3) | shear(17.2) | zoom(0.7,1.3) | hflip | fill(reflect)"
    policy = Policy(
        rotation=60, shift_x=0.3, shift_y=0.3, shear=17.2, zoom=(0.7, 1.3), hflip=True, fill="reflect"
    )
    assert str(policy) == text
    assert Policy.parse(text) == policy


def test_every_term_prints():
    text = (
        "rotate(1.5) | shift(0.1,0.2) | shear(3) | zoom(0.9,1) | hflip | vflip | crop(random,0.8)"
        " | fill(constant,128) | channel_shift(20) | brightness(0.5,1.5) | contrast(0.8,1) | saturation(0,2)"
        " | blur(0.01) | erase(0.4)"
    )
    assert str(Policy.parse(text)) == text


def test_one_number_is_a_range_about_one():
    assert Policy.parse("zoom(0.25)") == Policy(zoom=(0.75, 1.25))


@pytest.mark.parametrize(
    "text", ["identity", "none", "", " none | identity ", "crop(random,1)", "fill(wrap)"]
)
def test_ways_to_say_nothing(text):
    assert Policy.parse(text) == IDENTITY
    assert str(IDENTITY) == "identity"


def test_what_cannot_matter_is_forgotten():
    assert Policy(hflip=True, fill="wrap") == Policy(hflip=True)
    assert Policy(rotation=3, cval=9) == Policy(rotation=3)
    assert Policy(crop="none", crop_fraction=0.5) == IDENTITY
    assert Policy(rotation=np.float32(0.5), zoom=(np.float64(0.5), 1)) == Policy(
        rotation=0.5, zoom=(0.5, 1.0)
    )
    assert str(Policy(rotation=-0.0, hflip=np.True_)) == "hflip"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rotate", "expected rotate(degrees), got 'rotate'"),
        ("rotate()", "expected rotate(degrees)"),
        ("rotate(a)", "expected rotate(degrees)"),
        ("hflip(1)", "expected hflip"),
        ("rotate(3) | rotate(4)", "rotate stands there twice"),
        ("rotate 3", "cannot read 'rotate 3'"),
        ("crop(middle,0.5)", "crop must be one of none, center, random, got 'middle'"),
        ("fill(mirror) | rotate(3)", "fill must be one of constant, nearest, reflect, wrap"),
        ("fill(constant,300)", "cval must be 0 to 255"),
        ("zoom(1.2,0.8)", "zoom must go from low to high"),
        ("rotate(nan)", "rotation must be 0 to 360 degrees, got nan"),
        ("rotate(inf)", "rotation must be 0 to 360 degrees, got inf"),
    ],
)
def test_bad_strings_are_refused_with_what_was_expected(text, said):
    with pytest.raises(UsageError, match="policy") as caught:
        Policy.parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_terms_list_the_close_ones():
    with pytest.raises(UnknownNameError, match=r"'rotat'. Did you mean rotate"):
        Policy.parse("rotat(3)")


def test_all_bad_values_are_told_at_once():
    with pytest.raises(UsageError) as caught:
        Policy(rotation=-1, zoom=0.5, shear="a", fill="x", hflip=2, cval=0.5, blur=True)
    for name in ("rotation", "zoom", "shear", "fill", "hflip", "cval", "blur"):
        assert f"{name} must" in str(caught.value)


# Keras' arguments


def test_from_keras_takes_names_and_units():
    policy = Policy.from_keras(
        rotation_range=60,
        width_shift_range=0.3,
        height_shift_range=0.2,
        shear_range=17.2,
        zoom_range=0.25,
        channel_shift_range=20.0,
        horizontal_flip=True,
        vertical_flip=False,
        fill_mode="constant",
        cval=0.0,
        brightness_range=[0.5, 1.5],
        rescale=None,
        validation_split=0.0,
        interpolation_order=1,
    )
    assert str(policy) == (
        "rotate(60) | shift(0.3,0.2) | shear(17.2) | zoom(0.75,1.25) | hflip | fill(constant)"
        " | channel_shift(20) | brightness(0.5,1.5)"
    )


def test_from_keras_has_keras_defaults():
    assert Policy.from_keras() == IDENTITY
    assert Policy.from_keras(rotation_range=5).fill == "nearest"


def test_from_keras_says_what_it_does_not_know():
    with pytest.raises(UnknownNameError, match=r"'rotation'. Did you mean rotation_range"):
        Policy.from_keras(rotation=60)
    with pytest.raises(UsageError, match="no arguments turn, twist"):
        Policy.from_keras(turn=60, twist=3)
    with pytest.raises(
        UsageError, match=r"rescale \(the backbone's card.*; validation_split \(`topgraft.split`"
    ):
        Policy.from_keras(rescale=1 / 255, validation_split=0.2)
    with pytest.raises(UsageError, match=r"width_shift_range must be a fraction .*got 20"):
        Policy.from_keras(width_shift_range=20)


# draws


def test_draws_are_a_function_and_every_argument_counts():
    view = View(Policy.parse("rotate(60) | zoom(0.5,1.5) | hflip"), index=3, seed=1)
    drawn = parameters(view, DIGEST)
    assert drawn == parameters(view, DIGEST)
    others = [
        parameters(replace(view, index=4), DIGEST),
        parameters(replace(view, seed=2), DIGEST),
        parameters(replace(view, policy=replace(view.policy, hflip=False)), DIGEST),
        parameters(view, "60" * 16),
    ]
    assert len({numbers["rotate"] for numbers in [drawn, *others]}) == 5


def test_the_numbers_are_those_they_have_always_been():
    """Written down once: another numpy, machine or Topgraft must not change anybody's features."""
    assert uniforms(["view", "ab", "hflip", 0, 0], 3).tolist() == [
        0.27754180738736467,
        0.18131704169563267,
        0.780682998427415,
    ]
    drawn = parameters(View(Policy.parse("rotate(60) | shift(0.3) | zoom(0.7,1.3)"), 1, 2), DIGEST)
    assert (*drawn["rotate"], *drawn["shift"], *drawn["zoom"]) == pytest.approx(
        (-4.446889, 0.155213, -0.094981, 1.081240, 1.159837), abs=1e-6
    )


def test_uniforms_are_uniform():
    numbers = uniforms("anything", 20000)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts, _ = np.histogram(numbers, 20, (0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = 0.001


@given(POLICIES, st.integers(0, 1000))
def test_draws_stay_in_their_ranges(policy, index):
    drawn = parameters(View(policy, index), DIGEST)
    for term, most in (
        ("rotate", (policy.rotation,)),
        ("shift", (policy.shift_x, policy.shift_y)),
        ("shear", (policy.shear,)),
        ("channel_shift", (policy.channel_shift,)),
        ("crop", ((1 - policy.crop_fraction) / 2,) * 2),
    ):
        assert all(abs(number) <= end for number, end in zip(drawn.get(term, ()), most, strict=False))
    for term in ("zoom", "brightness", "contrast", "saturation"):
        low, high = getattr(policy, term)
        assert all(low <= number <= high + 1e-12 for number in drawn.get(term, ()))
    assert 0 <= drawn.get("blur", (0,))[0] <= policy.blur
    left, top, width, height = drawn.get("erase", (0, 0, 0, 0))
    assert 0 <= left <= 1 - width <= 1
    assert 0 <= top <= 1 - height <= 1


def test_flips_happen_half_of_the_time_and_apart():
    policy = Policy(hflip=True, vflip=True)
    drawn = [parameters(View(policy, i), DIGEST) for i in range(2000)]
    flips = [(*numbers["hflip"], *numbers["vflip"]) for numbers in drawn]
    counts = [flips.count((a, b)) for a in (False, True) for b in (False, True)]
    assert all(400 < count < 600 for count in counts)


# rendering


def test_the_identity_gives_the_very_pixels():
    image = noise()
    assert render(image, View(IDENTITY, 4, 7), DIGEST) is image
    assert View(IDENTITY, 4, 7).key == "identity"


def test_the_key_says_all_that_decides():
    assert View(Policy(hflip=True), 3, 1).key == "hflip @ view 3 seed 1"


@given(SOME, st.integers(0, 99), st.integers(8, 40), st.integers(8, 40))
def test_any_view_has_the_shape_and_type_of_its_input_and_repeats(policy, index, height, width):
    image = noise(height, width, index)
    before = image.copy()
    view = View(policy, index)
    rendered = render(image, view, DIGEST)
    assert rendered.shape == image.shape
    assert rendered.dtype == np.uint8
    assert np.array_equal(image, before)
    assert np.array_equal(rendered, render(image, view, DIGEST))


@given(st.integers(0, 200))
def test_flips_are_exact_and_two_cancel(index):
    image, view = noise(), View(Policy(hflip=True, vflip=True), index)
    once = render(image, view, DIGEST)
    drawn = parameters(view, DIGEST)
    (across,), (down,) = drawn["hflip"], drawn["vflip"]
    assert np.array_equal(once, image[:: -1 if down else 1, :: -1 if across else 1])
    assert np.array_equal(render(once, view, DIGEST), image)


def test_a_centre_crop_is_really_applied():
    image = noise(40, 40)
    cropped = render(image, View(Policy(crop="center", crop_fraction=0.5)), DIGEST)
    middle = geometry.warp(image, np.array([[0.5, 0, 9.75], [0, 0.5, 9.75], [0, 0, 1]]))
    assert np.array_equal(cropped, middle)
    ramp = np.repeat(np.arange(0, 200, 5, dtype=np.uint8)[None, :, None], 40, axis=0).repeat(3, axis=2)
    shown = render(ramp, View(Policy(crop="center", crop_fraction=0.5)), DIGEST)
    assert shown.min() >= 45  # pixels 10 to 29 and their neighbours: levels 50 to 145
    assert shown.max() <= 150


@given(st.integers(0, 500), st.floats(0.1, 0.95))
def test_a_random_crop_stays_inside_and_fills_the_picture(index, fraction):
    policy = Policy(crop="random", crop_fraction=fraction)
    height, width = 30, 50
    found = matrix(parameters(View(policy, index), DIGEST), height, width)
    corners = found @ np.array([[-0.5, -0.5, 1], [width - 0.5, height - 0.5, 1]]).T
    assert corners[:2].min() >= -0.5 - 1e-6
    assert (corners[0] <= width - 0.5 + 1e-6).all()
    assert (corners[1] <= height - 0.5 + 1e-6).all()
    assert np.ptp(corners[0]) == pytest.approx(fraction * width)
    assert np.ptp(corners[1]) == pytest.approx(fraction * height)


def test_random_crops_reach_everywhere():
    policy = Policy(crop="random", crop_fraction=0.5)
    offsets = np.array([parameters(View(policy, i), DIGEST)["crop"][:2] for i in range(500)])
    assert (offsets.min(axis=0) < -0.24).all()
    assert (offsets.max(axis=0) > 0.24).all()


@given(POLICIES, st.integers(0, 50))
def test_one_matrix_holds_every_part_of_the_geometry(policy, index):
    drawn = parameters(View(policy, index), DIGEST)
    height, width = 224, 160
    x, y = drawn.get("shift", (0, 0))
    left, top, kept = drawn.get("crop", (0, 0, 1))
    parts = [
        geometry.rotation(*drawn.get("rotate", (0,))),
        geometry.shift(x * width, y * height),
        geometry.shear(*drawn.get("shear", (0,))),
        geometry.zoom(*drawn.get("zoom", (1, 1))),
        geometry.zoom(*(-1 if drawn.get(flip) == (True,) else 1 for flip in ("hflip", "vflip"))),
        geometry.shift(left * width, top * height),
        geometry.zoom(kept, kept),
    ]
    point = np.array([17.0, 200.0, 1.0])
    expected = point
    for part in reversed([geometry.about_centre(part, height, width) for part in parts]):
        expected = part @ expected
    found = matrix(drawn, height, width) @ point
    assert found == pytest.approx(expected, abs=1e-4, rel=1e-6)


@pytest.mark.parametrize(
    "term",
    [
        "channel_shift(60)",
        "brightness(0.5,0.6)",
        "contrast(1.5,1.6)",
        "saturation(0,0.2)",
        "blur(0.1)",
        "erase(0.9)",
    ],
)
def test_every_photometric_term_does_something(term):
    image = noise()
    assert not np.array_equal(render(image, View(Policy.parse(term)), DIGEST), image)


@given(POLICIES)
def test_a_policy_that_can_be_told_apart_is_told_apart(policy):
    assume(not policy.hflip)
    assert str(replace(policy, hflip=True)) != str(policy)


def test_another_process_draws_and_warps_the_same():
    text = "rotate(60) | shift(0.3) | zoom(0.5,1.5) | hflip | saturation(0.5,1.5)"
    code = (
        "import hashlib, numpy as np\n"
        "from topgraft.policies.policy import Policy, View, render\n"
        "image = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)\n"
        f"view = View(Policy.parse({text!r}), 2, 5)\n"
        f"print(hashlib.sha256(render(image, view, {DIGEST!r}).tobytes()).hexdigest())\n"
    )
    told = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    here = render(noise(), View(Policy.parse(text), 2, 5), DIGEST)
    assert told == {hashlib.sha256(here.tobytes()).hexdigest() + "\n"}
