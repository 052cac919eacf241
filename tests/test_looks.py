"""Near-duplicates are found where there is evidence, and only there."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageDraw, ImageEnhance
from sklearn.datasets import load_digits

from photos import paint
from topgraft.photos import looks
from topgraft.photos.looks import Look, Looks, look, twins


def groups(pictures):
    """Number the groups of pictures that share no key."""
    seen = [look(np.asarray(one.convert("RGB"))) for one in pictures]
    return twins(seen, map(str, range(len(seen)))).tolist()


def halve(picture):
    return picture.resize((picture.width // 2, picture.height // 2), Pillow.Resampling.BICUBIC)


def jpeg(picture, quality):
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return Pillow.open(data)


CHANGES = {
    "halved": halve,
    "quality 40": lambda one: jpeg(one, 40),
    "quality 95": lambda one: jpeg(one, 95),
    "darker": lambda one: ImageEnhance.Brightness(one).enhance(0.9),
    "brighter": lambda one: ImageEnhance.Brightness(one).enhance(1.1),
}


@pytest.mark.shared
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_copies_of_real_photos_are_found(shared, change):
    paths = sorted((shared / "data" / "sushi_sandwich").rglob("*.jpg"))[::8]
    pictures = [Pillow.open(path).convert("RGB") for path in paths]
    found = groups([*pictures, *map(change, pictures)])
    assert len(pictures) >= 20
    assert found == [*range(len(pictures))] * 2


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_copies_of_drawn_photos_are_found(tmp_path, change):
    pictures = [Pillow.open(paint(tmp_path / f"{i}.png", i, (192, 144))).convert("RGB") for i in range(20)]
    assert groups([*pictures, *map(change, pictures)]) == [*range(20)] * 2


def test_digits_on_plain_white_are_different_photos():
    pictures = []
    for digit in load_digits().images[:80]:
        ink = Pillow.fromarray((255 - digit * 15.9).astype(np.uint8)).resize(
            (96, 96), Pillow.Resampling.BICUBIC
        )
        pictures.append(Pillow.new("L", (160, 160), 255))
        pictures[-1].paste(ink, (32, 32))
    assert groups(pictures) == [*range(80)]
    assert groups([pictures[0], jpeg(pictures[0], 80)]) == [0, 0]


def test_shapes_on_plain_white_are_different_photos():
    dice = np.random.default_rng(0)
    pictures = []
    for i in range(60):
        pictures.append(Pillow.new("RGB", (160, 160), "white"))
        (x, y), (w, h) = dice.integers(30, 60, 2), dice.integers(40, 70, 2)
        pen = ImageDraw.Draw(pictures[-1])
        draw = pen.ellipse if i % 2 else pen.rectangle
        draw((x, y, x + w, y + h), fill=tuple(dice.integers(0, 256, 3).tolist()))
    assert groups(pictures) == [*range(60)]


def test_flat_photos_are_twins_only_where_they_are_the_same():
    assert groups(
        [Pillow.new("RGB", (50, 40), colour) for colour in ("white", "red", "white", "#fffffe")]
    ) == [
        0,
        1,
        0,
        3,
    ]


def test_a_chain_of_small_steps_is_not_one_group():
    ends = np.random.default_rng(3).integers(0, 256, (2, 24, 24, 3))
    steps = [ends[0] * (1 - t) + ends[1] * t for t in np.linspace(0, 1, 11)]
    seen = [Look(24, 24, one.astype(np.uint8).tobytes()) for one in steps]
    found = twins(seen, map(str, range(11))).tolist()
    assert found[1] == 0
    assert found[-1] != 0
    for i, leader in enumerate(found):
        assert twins([seen[leader], seen[i]], "ab").tolist() == [0, 0]


def test_pairs_are_found_across_blocks():
    noise = np.random.default_rng(5).integers(0, 256, (9, 24, 24, 3), dtype=np.uint8)
    noisy = (noise * 0.95).astype(np.uint8)
    seen = [look(one) for one in [*noise, *noisy]]
    found = looks._close_pairs(seen, block=4)
    assert sorted(map(tuple, found.tolist())) == [(i, i + 9) for i in range(9)]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_twins_with_equal_keys_are_one_group(keys):
    looks = [
        look(np.random.default_rng(i).integers(0, 256, (20, 20, 3), dtype=np.uint8)) for i in range(len(keys))
    ]
    groups = twins(looks, [str(key) for key in keys])
    for i, key in enumerate(keys):
        assert groups[i] == groups[keys.index(key)]
        assert groups[i] <= i


def test_looks_of_another_maker_are_not_recalled(tmp_path, monkeypatch):
    kept, one = Looks(tmp_path), look(np.zeros((4, 5, 3), np.uint8))
    kept.keep({"a": one, "b": Look.refused("is damaged")})
    assert kept.recall(["a", "b", "c"]) == {"a": one, "b": Look.refused("is damaged")}
    monkeypatch.setattr(looks, "MAKER", "another Pillow")
    assert kept.recall(["a", "b"]) == {}
    kept.keep({"a": one})
    assert kept.recall(["a", "b"]) == {"a": one}


def test_a_kept_look_that_changed_is_not_recalled(tmp_path):
    kept, one = Looks(tmp_path), look(np.full((4, 5, 3), 7, np.uint8))
    kept.keep({"a": one})
    raw = kept.path.read_bytes()
    assert raw.count(one.thumb[:1000]) == 1
    kept.path.write_bytes(raw.replace(one.thumb[:1000], one.thumb[:999] + b"\0"))
    assert kept.recall(["a"]) == {}


def test_an_empty_scene_and_the_scene_with_something_in_it_are_two_photos():
    dice = np.random.default_rng(3)
    scene = np.asarray(Pillow.fromarray(dice.integers(0, 256, (6, 7, 3), np.uint8)).resize((320, 240)))
    pictures = []
    for i in range(20):  # a fixed camera: the same place, and in every second picture an animal
        noise = dice.normal(0, 2, scene.shape)
        picture = Pillow.fromarray(np.clip(scene + noise, 0, 255).astype(np.uint8))
        if i % 2:
            x, y = int(dice.integers(0, 260)), int(dice.integers(0, 180))
            ImageDraw.Draw(picture).ellipse((x, y, x + 60, y + 60), fill=tuple(255 - scene[y + 30, x + 30]))
        pictures.append(picture)
    found = groups(pictures)
    assert not {found[i] for i in range(0, 20, 2)} & {found[i] for i in range(1, 20, 2)}
    assert len({found[i] for i in range(0, 20, 2)}) == 1  # bursts of the empty scene are still one
