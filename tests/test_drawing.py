"""The drawn photos: the same for the same seed, cheap, varied, and neither trivial nor hopeless."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pillow

import topgraft as tg
from topgraft.errors import StoreError, UsageError
from topgraft.testing.drawing import CLASSES, draw_jpeg, draw_photo, draw_photos


def test_a_photo_depends_on_seed_class_and_index_alone(tmp_path) -> None:
    few, more = draw_photos(tmp_path / "few", 2, seed=3), draw_photos(tmp_path / "more", 3, seed=3)
    for name in CLASSES:
        assert sorted(path.name for path in (few / name).iterdir()) == [f"{name}_000.jpg", f"{name}_001.jpg"]
        for path in (few / name).iterdir():
            assert path.read_bytes() == (more / name / path.name).read_bytes()
    seen = {
        draw_photo(name, index, seed).tobytes() for name in CLASSES for index in (0, 1) for seed in (0, 1)
    }
    assert len(seen) == 8


def test_photos_vary_in_size_light_and_colour() -> None:
    images = [draw_photo(name, index) for name in CLASSES for index in range(15)]
    assert len({image.shape for image in images}) >= 4
    assert all(300 <= side <= 400 for image in images for side in image.shape[:2])
    levels = np.array([image.mean() for image in images])
    assert levels.min() < 100 < 150 < levels.max()


def test_a_photo_is_a_jpeg_file_of_the_drawn_pixels() -> None:
    picture = Pillow.open(io.BytesIO(draw_jpeg("sushi", 4)))
    assert (picture.format, picture.mode) == ("JPEG", "RGB")
    drawn = draw_photo("sushi", 4)
    assert np.abs(np.asarray(picture).astype(int) - drawn).mean() < 12


def test_neither_colour_nor_chance_tells_the_classes_apart() -> None:
    """Mean colour alone must not give the class away, or the demo would show nothing."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    images = [draw_photo(name, index) for name in CLASSES for index in range(40)]
    colours = np.array([image.mean(axis=(0, 1)) / 255 for image in images])
    labels = np.repeat([0, 1], 40)
    assert cross_val_score(LogisticRegression(), colours, labels, cv=5).mean() < 0.75


def test_the_default_backbone_tells_most_of_them_apart() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from topgraft.backbones.fit import fit
    from topgraft.engines import open_engine
    from topgraft.importers.load import load_backbone

    backbone = load_backbone()
    images = [draw_photo(name, index) for name in CLASSES for index in range(60)]
    with open_engine(backbone) as engine:
        features = engine.embed(np.stack([fit(image, backbone.card) for image in images]))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    accuracy = cross_val_score(model, features, np.repeat([0, 1], 60), cv=5).mean()
    assert 0.82 < accuracy < 0.985


def test_a_demo_goes_into_no_folder_of_others(tmp_path):
    (tmp_path / "cats").mkdir()
    with pytest.raises(UsageError, match="holds something, and not from a demo"):
        tg.demo(tmp_path)
    assert [inside.name for inside in tmp_path.iterdir()] == ["cats"]


def test_a_demo_where_a_file_lies_is_told_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"a file lies where a folder is needed\. Give another place"):
        tg.demo(tmp_path / "file")
