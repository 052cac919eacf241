"""What every head must do.

class TestMyHead(HeadSuite):
    head = MyHead
    setting = {"strength": 0.1}
"""

from __future__ import annotations

from abc import ABC
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from topgraft.errors import DataError
from topgraft.heads._base import (
    Affine,
    ChannelAffine,
    Flatten,
    Head,
    Layer,
    MeanPool,
    Neighbours,
    Relu,
    Setting,
    head_class,
)
from topgraft.splits import folds
from topgraft.types import Features, Labels, Logits


def clouds(
    photos: int = 60, views: int = 3, width: int = 40, classes: int = 3, seed: int = 0
) -> tuple[Features, Labels]:
    """Return features (V, N, D) float32 of classes that overlap a little, and labels (N,).

    The first feature never varies and the second is 10,000 times larger than the rest.
    """
    random = np.random.default_rng(seed)
    labels = np.arange(photos) % classes
    centres = 1.2 * random.standard_normal((classes, width))
    photo = centres[labels] + random.standard_normal((photos, width))
    stack = photo + 0.5 * random.standard_normal((views, photos, width))
    stack[:, :, 0] = 2.5
    stack[:, :, 1] *= 10_000
    return stack.astype(np.float32), labels


def multilabel_indicators(labels: Labels, classes: int) -> Labels:
    """Return 0/1 indicators (N, C): every third photo is of the next class too, and every tenth of none."""
    indicators = np.eye(classes, dtype=np.int64)[labels]
    indicators[::3] |= np.roll(indicators[::3], 1, axis=1)
    indicators[::10] = 0
    return indicators


def run_layers(layers: list[Layer], features: Features) -> NDArray[np.float64]:
    """Return the logits of plain layers, run as their docstrings say: the reference for exports."""
    x = np.asarray(features, np.float64)
    for layer in layers:
        match layer:
            case Affine():
                x = x @ layer.weight + layer.bias
            case Relu():
                x = np.maximum(x, 0)
            case ChannelAffine():
                x = x * layer.scale[:, None, None] + layer.shift[:, None, None]
            case MeanPool():
                x = x.mean(axis=(2, 3))
            case Flatten():
                x = x.reshape(len(x), -1)
            case Neighbours():
                unit = (x - layer.centre) * layer.scale
                unit /= np.linalg.norm(unit, axis=1, keepdims=True)
                nearest = np.argsort(-(unit @ layer.rows.T), axis=1)[:, : layer.count]
                x = np.log(layer.votes[nearest].sum(axis=1) + layer.smoothing)
    return x


class HeadSuite(ABC):
    """Inherit, name the head, and let pytest find the tests.

    Attributes:
        head: the class.
        setting: what it is made with here.
        close: how far `sweep` may lie from `fit` and `logits`, and layers from logits.
        draws: True where a fit in a sweep is drawn otherwise than alone, so that only quality can agree.
    """

    head: ClassVar[type[Head]]
    setting: ClassVar[Setting] = {}
    close: ClassVar[float] = 1e-3
    draws: ClassVar[bool] = False

    def fitted(self, features: Features, labels: Labels) -> Head:
        """Return the head fitted on these."""
        return self.head(**self.setting).fit(features, labels)

    def data(self) -> tuple[Features, Labels]:
        """Return features in the form the head takes, and labels."""
        return clouds()

    def answers(self, head: Head, features: Features) -> Logits:
        """Return the logits (N, C) of view 0."""
        return head.logits(features[0])

    def test_it_learns(self) -> None:
        features, labels = self.data()
        assert np.mean(self.answers(self.fitted(features, labels), features).argmax(axis=1) == labels) > 0.9

    def test_logits_are_float64_and_probabilities_sum_to_one(self) -> None:
        features, labels = self.data()
        head = self.fitted(features, labels)
        logits, probabilities = head.logits(features[0]), head.probabilities(features[0])
        assert logits.shape == probabilities.shape == (len(labels), 3)
        assert logits.dtype == np.float64
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert (logits.argmax(axis=1) == probabilities.argmax(axis=1)).all()
        assert head.classes == 3
        assert not head.multilabel

    def test_the_same_input_gives_the_same_bits(self) -> None:
        features, labels = self.data()
        first, second = (self.fitted(features, labels).state() for _ in range(2))
        assert first.keys() == second.keys()
        assert all(first[name].tobytes() == second[name].tobytes() for name in first)

    def test_fitting_changes_neither_features_nor_labels(self) -> None:
        features, labels = self.data()
        before = features.tobytes(), labels.tobytes()
        self.fitted(features, labels).logits(features[0])
        assert (features.tobytes(), labels.tobytes()) == before

    def test_half_precision_features_do(self) -> None:
        features, labels = self.data()
        half = (
            (features / 10_000).astype(np.float16)
            if np.abs(features).max() > 6e4
            else features.astype(np.float16)
        )
        answers = self.answers(self.fitted(half, labels), half)
        assert np.isfinite(answers).all()
        assert np.mean(answers.argmax(axis=1) == labels) > 0.9

    def test_state_survives_safetensors(self, tmp_path: Path) -> None:
        features, labels = self.data()
        head = self.fitted(features, labels)
        save_file(head.state(), tmp_path / "head.safetensors")
        again = self.head.from_state(head.setting, load_file(tmp_path / "head.safetensors"))
        assert again.classes == 3
        assert (again.logits(features[0]) == head.logits(features[0])).all()

    def test_layers_say_the_same_as_logits(self) -> None:
        features, labels = self.data()
        head = self.fitted(features, labels)
        expected, found = head.logits(features[0]), run_layers(head.layers(), features[0])
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found / scale, expected / scale, atol=self.close)

    def test_a_sweep_is_one_fit_after_the_other(self) -> None:
        features, labels = self.data()
        dealt = folds(labels, None, 3, 0)
        settings = [*self.head.grid()[:2], self.setting]
        swept = self.head.sweep(features, labels, dealt, settings, classes=3)
        assert len(swept) == 3
        for (fit, score), found in zip(dealt, swept, strict=True):
            assert found.shape == (len(settings), len(score), 3)
            alone = [
                self.head(**setting).fit(features[:, fit], labels[fit], classes=3).logits(features[0, score])
                for setting in settings
            ]
            if self.draws:
                right = [
                    (logits.argmax(axis=-1) == labels[score]).mean() for logits in (found, np.stack(alone))
                ]
                assert abs(right[0] - right[1]) < 0.2
            else:
                scale = max(1.0, float(np.abs(alone).max()))
                np.testing.assert_allclose(found / scale, np.stack(alone) / scale, atol=self.close)

    def test_scored_photos_are_not_learned_from(self) -> None:
        features, labels = self.data()
        dealt = folds(labels, None, 3, 0)[:1]
        held = dealt[0][1]
        changed, wrong = features.copy(), labels.copy()
        changed[1:, held] = 0
        wrong[held] = (labels[held] + 1) % 3
        first = self.head.sweep(features, labels, dealt, [self.setting], classes=3)[0]
        second = self.head.sweep(changed, wrong, dealt, [self.setting], classes=3)[0]
        assert (first == second).all()

    def test_a_class_without_photos_in_a_fold_is_never_the_answer(self) -> None:
        features, labels = self.data()
        fit = np.flatnonzero(labels != 2)
        dealt = [(fit, np.flatnonzero(labels == 2))]
        (found,) = self.head.sweep(features, labels, dealt, [self.setting], classes=3)
        assert np.isfinite(found).all()
        assert (found[0].argmax(axis=1) != 2).all()

    def test_the_setting_makes_its_twin(self) -> None:
        head = self.head(**self.setting)
        assert self.head(**head.setting).setting == head.setting
        for setting in self.head.grid():
            assert self.head(**setting).setting == setting
        assert head_class(self.head.name) is self.head

    def test_several_labels_per_photo(self, tmp_path: Path) -> None:
        features, labels = self.data()
        indicators = multilabel_indicators(labels, 3)
        if not self.head.takes_multilabel:
            with pytest.raises(DataError, match="one label per photo"):
                self.fitted(features, indicators)
            return
        head = self.fitted(features, indicators)
        assert head.multilabel
        assert np.mean((head.probabilities(features[0]) > 0.5) == indicators) > 0.8
        expected, found = head.logits(features[0]), run_layers(head.layers(), features[0])
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found / scale, expected / scale, atol=self.close)
        save_file(head.state(), tmp_path / "head.safetensors")
        again = self.head.from_state(head.setting, load_file(tmp_path / "head.safetensors"), multilabel=True)
        assert (again.logits(features[0]) == expected).all()
        (swept,) = self.head.sweep(
            features, indicators, folds(indicators, None, 3, 0)[:1], [self.setting], classes=3
        )
        assert swept.shape[2] == 3

    def test_weights_shift_the_answer_to_what_weighs_more(self) -> None:
        features, labels = clouds(photos=45, classes=3, seed=5) if not self.head.on_map else self.data()
        features = features * 0.1 + np.random.default_rng(1).standard_normal(features.shape).astype(
            np.float32
        )
        heavy = np.where(labels == 0, 20.0, 0.2)
        plain = self.head(**self.setting).fit(features, labels)
        tilted = self.head(**self.setting).fit(features, labels, sample_weight=heavy)
        fresh = np.random.default_rng(2).standard_normal((200, *features.shape[2:])).astype(np.float32)
        counts = [int((head.logits(fresh).argmax(axis=1) == 0).sum()) for head in (plain, tilted)]
        assert counts[1] >= counts[0]
