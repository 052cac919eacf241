"""Network heads: the small tops people put on a backbone, by name.

Trained together as one computation by `_torch.py` (the `timm` extra); once trained they are plain layers, and
score, save and load without PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from topgraft.backbones.depths import Depths
from topgraft.errors import DataError, UnknownNameError, UsageError, need
from topgraft.heads._base import Fold, Head, Setting, as_indicators, as_views, last_layer
from topgraft.heads._layers import Affine, Array, Flatten, Layer, Relu
from topgraft.heads._parallel import Compute
from topgraft.heads._shape import Shape
from topgraft.types import Features, Labels, Logits


def _every(**choices: tuple[float | str, ...]) -> tuple[Setting, ...]:
    """Return every combination, the first choice of each coming first."""
    return tuple(dict(zip(choices, chosen, strict=True)) for chosen in product(*choices.values()))


class Network(Head):
    """A small network on features: Dense layers with ReLU between them.

    Every network sees standardised features on their principal axes (`_axes.py`), which is what a BatchNorm
    in front of a Dense layer comes to when the features are fixed. A fifth of the photos, whole groups, is
    kept apart to stop early: the weights are those of the epoch with the lowest log loss on it.

    Args:
        **setting: what differs from the head's `defaults`: `dropout`, the share of units dropped where the
            head has Dropout; `rate`, the peak learning rate of AdamW; `decay`, its weight decay; for the mlp
            `widths`, as `128` or `256-64`.
    """

    layout: ClassVar[Shape]
    defaults: ClassVar[Setting]
    changes: ClassVar[tuple[Setting, ...]] = _every(dropout=(0.75, 0.5))
    arrays: tuple[tuple[Array, Array], ...] = ()

    @final
    def __init__(self, **setting: float | str) -> None:
        for key in setting:
            if key not in self.defaults:
                raise UnknownNameError(f"setting of the head {self.name}", key, self.defaults)
        given = {**self.defaults, **setting}
        self.dropout, self.rate, self.decay = (
            float(given.get(key, 0)) for key in ("dropout", "rate", "decay")
        )
        if not 0 <= self.dropout < 1:
            raise UsageError(f"head {self.name}: dropout must be from 0 to below 1, got {self.dropout}.")
        if not self.rate > 0 or not self.decay >= 0:
            raise UsageError(
                f"head {self.name}: rate must be above 0 and decay at least 0, "
                f"got {self.rate} and {self.decay}."
            )
        self.shape = (
            replace(self.layout, widths=_widths(given["widths"])) if "widths" in given else self.layout
        )
        self._setting = given

    @final
    @property
    def setting(self) -> Setting:
        """What the head was made with."""
        return dict(self._setting)

    @final
    @property
    def width(self) -> int:
        """The last layer's columns."""
        return 0 if self.on_map else len(self.arrays[0][0])

    @final
    @classmethod
    def grid(cls) -> list[Setting]:
        """The settings worth comparing, the most regularised first."""
        return [{**cls.defaults, **change} for change in cls.changes]

    @final
    def fit(
        self,
        features: Features,
        labels: Labels,
        *,
        classes: int | None = None,
        sample_weight: NDArray[np.float64] | None = None,
        groups: Labels | None = None,
        depths: Depths | None = None,
        seed: int = 0,
        compute: Compute | None = None,
    ) -> Self:
        """Train on every view of every photo, but for the inner split's (see `Head.fit`).

        Raises:
            MissingExtraError: where PyTorch is not installed.
        """
        count = classes or (labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1)
        everything = np.arange(len(labels))
        self.multilabel, self.classes = labels.ndim == 2, count
        (self.arrays,) = _train(
            [self],
            last_layer(features, depths),
            labels,
            [everything],
            count,
            sample_weight=sample_weight,
            groups=groups,
            seed=seed,
            compute=compute,
        )
        return self

    @final
    @classmethod
    def sweep(
        cls,
        features: Features,
        labels: Labels,
        folds: Sequence[Fold],
        settings: Sequence[Setting],
        *,
        classes: int,
        sample_weight: NDArray[np.float64] | None = None,
        groups: Labels | None = None,
        depths: Depths | None = None,
        seed: int = 0,
        compute: Compute | None = None,
    ) -> list[Logits]:
        """Train every setting on every fold at once, those of one shape together (see `Head.sweep`)."""
        heads = [cls(**setting) for setting in settings]
        trained = iter(
            _train(
                heads,
                last_layer(features, depths),
                labels,
                [fit for fit, _ in folds],
                classes,
                sample_weight=sample_weight,
                groups=groups,
                seed=seed,
                compute=compute,
            )
        )
        rows = as_views(features)[0]
        return [np.stack([score(next(trained), rows[held]) for _ in heads]) for _, held in folds]

    @final
    def logits(self, features: Features) -> Logits:
        """Return the logits (N, C) of rows (N, D)."""
        if not self.arrays:
            raise UsageError(f"head {self.name}: not fitted yet. Call fit first.")
        return score(self.arrays, features)

    @final
    def state(self) -> dict[str, NDArray[Any]]:
        """Return the Dense layers' `weight0` (D, E), `bias0` (E,), `weight1`, ..."""
        return {
            f"{name}{number}": array
            for number, pair in enumerate(self.arrays)
            for name, array in zip(("weight", "bias"), pair, strict=True)
        }

    @final
    @classmethod
    def from_state(
        cls, setting: Setting, state: dict[str, NDArray[Any]], *, multilabel: bool = False
    ) -> Self:
        """Return the fitted head again; PyTorch is not needed."""
        head = cls(**setting)
        head.arrays = tuple(
            (np.asarray(state[f"weight{k}"], np.float32), np.asarray(state[f"bias{k}"], np.float32))
            for k in range(len(state) // 2)
        )
        head.classes, head.multilabel = len(head.arrays[-1][1]), multilabel
        return head

    @final
    def layers(self) -> list[Layer]:
        """Return the layers: Affine, then Relu and Affine in turn; a map is flattened first."""
        found: list[Layer] = [Flatten()] if self.on_map else []
        for number, (weight, bias) in enumerate(self.arrays):
            found += [Relu()] if number else []
            found.append(Affine(weight, bias))
        return found


def score(arrays: Sequence[tuple[Array, Array]], features: Features) -> Logits:
    """Return the logits (N, C) that the layers make of rows (N, D) or maps (N, C, h, w)."""
    value = np.asarray(features, np.float32).reshape(len(features), -1)[:, : len(arrays[0][0])]
    for number, (weight, bias) in enumerate(arrays):
        value = (np.maximum(value, 0) if number else value) @ weight + bias
    return value.astype(np.float64)


def _widths(text: float | str) -> tuple[int, ...]:
    parts = str(text).split("-")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"head mlp: widths must be whole numbers joined by -, as 256-64, got {text!r}.")
    return tuple(int(part) for part in parts)


def _train(
    heads: Sequence[Network],
    features: Features,
    labels: Labels,
    folds: Sequence[Labels],
    classes: int,
    *,
    sample_weight: NDArray[np.float64] | None,
    groups: Labels | None,
    seed: int,
    compute: Compute | None,
) -> list[tuple[tuple[Array, Array], ...]]:
    """Train every head on every fold, fold by fold in the answer."""
    need("torch", "timm", f"the head {heads[0].name!r}")
    from topgraft.heads._torch import train
    from topgraft.heads._torch_feed import Job, Task

    views = as_views(features)
    if views.shape[1] != len(labels):
        raise DataError(f"features: expected {len(labels)} photos as in the labels, got {views.shape[1]}.")
    positions = int(np.prod(views.shape[3:]))
    views = views.reshape(*views.shape[:2], -1)
    jobs = [
        Job(fold, head.shape, dropout=head.dropout, rate=head.rate, decay=head.decay, seed=seed)
        for fold in range(len(folds))
        for head in heads
    ]
    weight = np.ones(len(labels)) if sample_weight is None else sample_weight
    task = Task(as_indicators(labels, classes), weight, multilabel=labels.ndim == 2)
    return train(views, jobs, folds, task, groups=groups, positions=positions, compute=compute or Compute())


class LinearBN(Network):
    """BatchNorm, Dense."""

    name: ClassVar[str] = "linear_bn"
    simplicity: ClassVar[int] = 50
    layout: ClassVar[Shape] = Shape()
    defaults: ClassVar[Setting] = {"rate": 0.01, "decay": 1.0}
    changes: ClassVar[tuple[Setting, ...]] = _every(decay=(3.0, 1.0), rate=(0.003, 0.01))


class Light(Network):
    """BatchNorm, pool, Dropout, Dense. The BatchNorm before the pool is the same affine map behind it."""

    name: ClassVar[str] = "light"
    simplicity: ClassVar[int] = 51
    layout: ClassVar[Shape] = Shape(drop_input=True)
    defaults: ClassVar[Setting] = {"dropout": 0.5, "rate": 0.01, "decay": 1.0}
    changes: ClassVar[tuple[Setting, ...]] = _every(dropout=(0.75, 0.5), rate=(0.003, 0.01))


class Flat(Network):
    """BatchNorm, Dropout, Flatten, Dense on the map before pooling."""

    name: ClassVar[str] = "flat"
    simplicity: ClassVar[int] = 52
    on_map: ClassVar[bool] = True
    layout: ClassVar[Shape] = Shape(drop_input=True)
    defaults: ClassVar[Setting] = {"dropout": 0.5, "rate": 0.01, "decay": 1.0}


class T1(Network):
    """BatchNorm, pool, Dropout, Dense 256 ReLU, BatchNorm, Dropout, Dense."""

    name: ClassVar[str] = "t1"
    simplicity: ClassVar[int] = 60
    layout: ClassVar[Shape] = Shape((256,), norm=True, drop_input=True, drop_hidden=True)
    defaults: ClassVar[Setting] = {"dropout": 0.5, "rate": 0.001, "decay": 0.1}
    changes: ClassVar[tuple[Setting, ...]] = _every(dropout=(0.75, 0.5, 0.25))


class TwoDense(Network):
    """Dense 256 ReLU, Dense 256 ReLU, each with Dropout, Dense."""

    name: ClassVar[str] = "two_dense"
    simplicity: ClassVar[int] = 61
    layout: ClassVar[Shape] = Shape((256, 256), drop_hidden=True)
    defaults: ClassVar[Setting] = {"dropout": 0.5, "rate": 0.0003, "decay": 0.1}
    changes: ClassVar[tuple[Setting, ...]] = _every(dropout=(0.5, 0.0))


class Deep(Network):
    """Dense 1024, 512, 256, 256 with ReLU and Dropout, Dense."""

    name: ClassVar[str] = "deep"
    simplicity: ClassVar[int] = 62
    layout: ClassVar[Shape] = Shape((1024, 512, 256, 256), drop_hidden=True)
    defaults: ClassVar[Setting] = {"dropout": 0.5, "rate": 0.0003, "decay": 0.1}
    changes: ClassVar[tuple[Setting, ...]] = ({},)


class MLP(Network):
    """Dense layers of chosen widths, each with ReLU, BatchNorm and Dropout, then Dense."""

    name: ClassVar[str] = "mlp"
    simplicity: ClassVar[int] = 59
    layout: ClassVar[Shape] = Shape(norm=True, drop_input=True, drop_hidden=True)
    defaults: ClassVar[Setting] = {"widths": "64", "dropout": 0.5, "rate": 0.001, "decay": 0.1}
    changes: ClassVar[tuple[Setting, ...]] = (
        *_every(widths=("64", "128"), dropout=(0.75, 0.5)),
        {"widths": "128-64"},
    )
