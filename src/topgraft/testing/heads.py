"""What every head must do.

class TestMyHead(HeadSuite):
    head = MyHead
    setting = {"strength": 0.1}
"""

from __future__ import annotations

from abc import ABC
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from topgraft.backbones.depths import Depth, Depths
from topgraft.errors import DataError
from topgraft.heads._base import Head, Setting, head_class
from topgraft.nodes import Nodes
from topgraft.predictor._head import add_head
from topgraft.predictor._runtime import RUNTIMES, open_runtime
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


def clouds_of_every_depth(
    photos: int = 60, views: int = 2, width: int = 40, *, last_knows: float = 0.6, seed: int = 0
) -> tuple[Features, Labels, Depths]:
    """Return rows (V, N, D + B) of every depth, labels (N,) of 3 classes, and which columns are which.

    The spreads of the second of two blocks tell the classes apart; the last layer as far as it is said.
    """
    random = np.random.default_rng(seed)
    depths = Depths(width, (Depth(name="early", channels=8), Depth(name="late", channels=16)))
    labels = np.arange(photos) % 3
    photo = random.standard_normal((photos, depths.width))
    photo[:, :width] += last_knows * random.standard_normal((3, width))[labels]
    told = depths.columns("late", "spreads")
    photo[:, told] += 1.2 * random.standard_normal((3, 16))[labels]
    stack = photo + 0.3 * random.standard_normal((views, photos, depths.width))
    stack[:, :, depths.groups()["means"]] *= 30  # blocks are of another scale
    return stack.astype(np.float32), labels, depths


def multilabel_indicators(labels: Labels, classes: int) -> Labels:
    """Return 0/1 indicators (N, C): every third photo is of the next class too, and every tenth of none."""
    indicators = np.eye(classes, dtype=np.int64)[labels]
    indicators[::3] |= np.roll(indicators[::3], 1, axis=1)
    indicators[::10] = 0
    return indicators


def head_graph(head: Head, shape: tuple[int, ...]) -> bytes:
    """Return a fitted head as the ONNX that predictors hold: from `x` (N, *shape) to `logits` (N, C)."""
    from onnx import TensorProto, checker, helper

    g = Nodes("head")
    g("Identity", add_head(g, head, "x", "x"), out="logits")
    nodes, weights = g.protos()
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", head.classes])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


class HeadSuite(ABC):
    """Inherit, name the head, and let pytest find the tests.

    Attributes:
        head: the class.
        setting: what it is made with here.
        close: how far `sweep` may lie from `fit` and `logits`, and the ONNX form from logits.
        draws: True where a fit in a sweep is drawn otherwise than alone, so that only quality can agree.
    """

    head: ClassVar[type[Head]]
    setting: ClassVar[Setting] = {}
    close: ClassVar[float] = 1e-3
    draws: ClassVar[bool] = False

    @property
    def plain(self) -> Setting:
        """The setting on the last layer alone: what features without blocks can be fitted with."""
        return {key: value for key, value in self.setting.items() if not key.endswith("depths")}

    def data(self) -> tuple[Features, Labels]:
        """Return features in the form the head takes, and labels."""
        return clouds()

    def fit(self, features: Features, labels: Labels) -> Head:
        """Return a head fitted on these."""
        return self.head(**self.plain).fit(features, labels)

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls) -> Head:
        """Share one head, fitted on `data`, among the tests: no test may change it."""
        suite = cls()
        return suite.fit(*suite.data())

    @pytest.fixture(scope="class")
    @classmethod
    def multilabel(cls) -> Head | None:
        """Share one head fitted on several labels per photo; None where it takes one."""
        suite = cls()
        features, labels = suite.data()
        return suite.fit(features, multilabel_indicators(labels, 3)) if cls.head.takes_multilabel else None

    def assert_close(self, found: NDArray[Any], expected: Logits) -> None:
        """Compare logits, relative to the largest."""
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=self.close)

    def test_it_learns(self, fitted: Head) -> None:
        features, labels = self.data()
        assert np.mean(fitted.logits(features[0]).argmax(axis=1) == labels) > 0.9

    def test_logits_are_float64_and_probabilities_sum_to_one(self, fitted: Head) -> None:
        features, labels = self.data()
        logits, probabilities = fitted.logits(features[0]), fitted.probabilities(features[0])
        assert logits.shape == probabilities.shape == (len(labels), 3)
        assert logits.dtype == np.float64
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert (logits.argmax(axis=1) == probabilities.argmax(axis=1)).all()
        assert fitted.classes == 3
        assert not fitted.multilabel

    def test_the_same_input_gives_the_same_bits_and_stays_as_it_is(self, fitted: Head) -> None:
        features, labels = self.data()
        before = features.tobytes(), labels.tobytes()
        again = self.fit(features, labels)
        again.logits(features[0])
        assert (features.tobytes(), labels.tobytes()) == before
        first, second = fitted.state(), again.state()
        assert first.keys() == second.keys()
        assert all(first[name].tobytes() == second[name].tobytes() for name in first)

    def test_half_precision_features_do(self) -> None:
        features, labels = self.data()
        half = (
            (features / 10_000).astype(np.float16)
            if np.abs(features).max() > 6e4
            else features.astype(np.float16)
        )
        logits = self.fit(half, labels).logits(half[0])
        assert np.isfinite(logits).all()
        assert np.mean(logits.argmax(axis=1) == labels) > 0.9

    def test_state_survives_safetensors(self, fitted: Head, tmp_path: Path) -> None:
        features, _ = self.data()
        save_file(fitted.state(), tmp_path / "head.safetensors")
        again = self.head.from_state(fitted.setting, load_file(tmp_path / "head.safetensors"))
        assert again.classes == 3
        assert (again.logits(features[0]) == fitted.logits(features[0])).all()

    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_its_onnx_form_says_the_same(self, fitted: Head, multilabel: Head | None, runtime: str) -> None:
        if find_spec(runtime) is None:
            pytest.skip(f"{runtime} is not installed")
        features, _ = self.data()
        for head in filter(None, (fitted, multilabel)):
            run = open_runtime(head_graph(head, features.shape[2:]), runtime, 1)
            self.assert_close(run(features[0])["logits"], head.logits(features[0]))

    def test_a_sweep_is_one_fit_after_the_other(self) -> None:
        features, labels = self.data()
        dealt = folds(labels, None, 3, 0)[: 1 if self.draws else 3]
        settings = [*self.head.grid()[:2], self.plain]
        swept = self.head.sweep(features, labels, dealt, settings, classes=3)
        assert len(swept) == len(dealt)
        for (fit, score), found in zip(dealt, swept, strict=True):
            assert found.shape == (len(settings), len(score), 3)
            alone = np.stack(
                [
                    self.head(**setting)
                    .fit(features[:, fit], labels[fit], classes=3)
                    .logits(features[0, score])
                    for setting in settings
                ]
            )
            if self.draws:
                right, right_alone = ((logits.argmax(2) == labels[score]).mean() for logits in (found, alone))
                assert abs(right - right_alone) < 0.2
            else:
                self.assert_close(found, alone)

    def test_rows_of_every_depth_are_read_as_the_setting_says(self) -> None:
        if self.head.on_map:
            return
        rows, labels, depths = clouds_of_every_depth()
        head = self.head(**self.setting).fit(rows, labels, depths=depths)
        deep = any(key.endswith("depths") for key in self.setting)
        assert head.width == (depths.width if deep else depths.last)
        expected = head.logits(rows[0])
        for runtime in filter(find_spec, RUNTIMES):
            run = open_runtime(head_graph(head, (head.width,)), runtime, 1)
            self.assert_close(run(np.ascontiguousarray(rows[0, :, : head.width]))["logits"], expected)
        if not deep:
            alone = self.head(**self.setting).fit(rows[:, :, : depths.last], labels)
            assert (alone.logits(rows[0, :, : depths.last]) == expected).all()
        dealt = folds(labels, None, 3, 0)[:1]
        (found,) = self.head.sweep(rows, labels, dealt, [self.setting], classes=3, depths=depths)
        fit, score = dealt[0]
        again = self.head(**self.setting).fit(rows[:, fit], labels[fit], classes=3, depths=depths)
        if not self.draws:
            self.assert_close(found[0], again.logits(rows[0, score]))

    def test_scored_photos_are_not_learned_from(self) -> None:
        features, labels = self.data()
        dealt = folds(labels, None, 3, 0)[:1]
        held = dealt[0][1]
        changed, wrong = features.copy(), labels.copy()
        changed[1:, held] = 0
        wrong[held] = (labels[held] + 1) % 3
        first = self.head.sweep(features, labels, dealt, [self.plain], classes=3)[0]
        second = self.head.sweep(changed, wrong, dealt, [self.plain], classes=3)[0]
        assert (first == second).all()

    def test_a_class_without_photos_in_a_fold_is_never_the_answer(self) -> None:
        features, labels = self.data()
        fit = np.flatnonzero(labels != 2)
        dealt = [(fit, np.flatnonzero(labels == 2))]
        (found,) = self.head.sweep(features, labels, dealt, [self.plain], classes=3)
        assert np.isfinite(found).all()
        assert (found[0].argmax(axis=1) != 2).all()

    def test_the_setting_makes_its_twin(self) -> None:
        head = self.head(**self.setting)
        assert self.head(**head.setting).setting == head.setting
        for setting in self.head.grid():
            assert self.head(**setting).setting == setting
        assert head_class(self.head.name) is self.head

    def test_several_labels_per_photo(self, multilabel: Head | None, tmp_path: Path) -> None:
        features, labels = self.data()
        indicators = multilabel_indicators(labels, 3)
        if multilabel is None:
            with pytest.raises(DataError, match="one label per photo"):
                self.fit(features, indicators)
            return
        assert multilabel.multilabel
        assert np.mean((multilabel.probabilities(features[0]) > 0.5) == indicators) > 0.8
        save_file(multilabel.state(), tmp_path / "head.safetensors")
        again = self.head.from_state(
            multilabel.setting, load_file(tmp_path / "head.safetensors"), multilabel=True
        )
        assert (again.logits(features[0]) == multilabel.logits(features[0])).all()
        dealt = folds(indicators, None, 3, 0)[:1]
        (swept,) = self.head.sweep(features, indicators, dealt, [self.plain], classes=3)
        assert swept.shape[2] == 3

    def test_weights_shift_the_answer_to_what_weighs_more(self) -> None:
        features, labels = clouds(photos=45, classes=3, seed=5) if not self.head.on_map else self.data()
        features = features * 0.1 + np.random.default_rng(1).standard_normal(features.shape).astype(
            np.float32
        )
        heavy = np.where(labels == 0, 20.0, 0.2)
        plain = self.head(**self.plain).fit(features, labels)
        tilted = self.head(**self.plain).fit(features, labels, sample_weight=heavy)
        fresh = np.random.default_rng(2).standard_normal((200, *features.shape[2:])).astype(np.float32)
        counts = [int((head.logits(fresh).argmax(axis=1) == 0).sum()) for head in (plain, tilted)]
        assert counts[1] >= counts[0]
