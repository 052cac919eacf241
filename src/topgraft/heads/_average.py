"""The mean of several linear heads: one affine layer again.

Each member's logits are centred over the classes and divided by the member's own temperature, so that all
speak in the same unit, and averaged. On few photos that answers better than the best of them alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from topgraft.backbones.depths import Depths
from topgraft.errors import UnknownNameError, UsageError
from topgraft.heads._base import Fold, Setting, head_class
from topgraft.heads._linear import AffineHead, Linear, prepare_all
from topgraft.heads._parallel import Compute
from topgraft.heads._rows import SHARES
from topgraft.types import Features, Labels, Logits

MEMBERS = ("ridge", "lda", "logistic")
"""The heads that can take part."""


@final
class Average(AffineHead):
    """The mean of ridge, discriminant analysis and logistic regression.

    Args:
        setting: the members' settings and temperatures, by `member.name`:
            `Average(**{"ridge.strength": 0.01, "ridge.temperature": 0.2, "logistic.C": 0.01})`. A temperature
            that is not given is 1; without any setting, all members as they are made without one.
    """

    name: ClassVar[str] = "average"
    simplicity: ClassVar[int] = 5
    reads_depths: ClassVar[tuple[str, ...]] = tuple(SHARES)

    def __init__(self, **setting: float | str) -> None:
        given: dict[str, Setting] = {}
        for key, value in (setting or self.grid()[0]).items():
            member, _, name = key.partition(".")
            if member not in MEMBERS:
                raise UnknownNameError("member of the head average", member, MEMBERS)
            given.setdefault(member, {})[name] = value
        self.temperatures = {member: float(of.pop("temperature", 1.0)) for member, of in given.items()}
        if not all(value > 0 for value in self.temperatures.values()):
            raise UsageError(f"head average: temperatures must be above 0, got {self.temperatures}.")
        self.members = {member: _linear(member)(**of) for member, of in given.items()}

    @classmethod
    def of(cls, members: Mapping[str, tuple[Setting, float]]) -> Self:
        """Make one of members' settings and temperatures."""
        setting: Setting = {}
        for member, (own, temperature) in members.items():
            setting |= {f"{member}.{name}": value for name, value in own.items()}
            setting[f"{member}.temperature"] = temperature
        return cls(**setting)

    @property
    def setting(self) -> Setting:
        """The members' settings and temperatures."""
        found: Setting = {}
        for member, head in self.members.items():
            found |= {f"{member}.{name}": value for name, value in head.setting.items()}
            found[f"{member}.temperature"] = self.temperatures[member]
        return found

    @property
    def shares(self) -> dict[str, float]:
        """The mean of the members'."""
        each = [head.shares for head in self.members.values()]
        return {name: sum(of.get(name, 0.0) for of in each) / len(each) for name in set().union(*each)}

    @classmethod
    def grid(cls) -> list[Setting]:
        """All members as they are made without a setting; a comparison fills in their best."""
        return [cls.of({member: (_linear(member)().setting, 1.0) for member in MEMBERS}).setting]

    def fit(
        self,
        features: Features,
        labels: Labels,
        *,
        classes: int | None = None,
        sample_weight: NDArray[np.float64] | None = None,
        groups: Labels | None = None,  # noqa: ARG002 - no inner split is made
        depths: Depths | None = None,
        seed: int = 0,  # noqa: ARG002 - nothing is drawn
        compute: Compute | None = None,  # noqa: ARG002 - one fit is done on one core
    ) -> Self:
        """Fit every member and take the mean of their layers (see `Head.fit`)."""
        for head in self.members.values():
            head.check(labels)
        prepared = prepare_all(features, labels, classes=classes, sample_weight=sample_weight, depths=depths)
        for head in self.members.values():
            head.fit_rows(prepared)
        multilabel = prepared.multilabel
        width = max(len(head.weight) for head in self.members.values())
        weight, bias = np.zeros((width, prepared.classes)), np.zeros(prepared.classes)
        for member, head in self.members.items():
            scale = self.temperatures[member] * len(self.members)
            own, own_bias = head.weight.astype(np.float64), head.bias.astype(np.float64)
            weight[: len(own)] += centred(own, multilabel=multilabel) / scale
            bias += centred(own_bias, multilabel=multilabel) / scale
        return self.keep(weight, bias, multilabel=multilabel)

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
        """Sweep every member (see `Head.sweep`)."""
        compute = compute or Compute()  # one for all members: they read the same prepared rows
        heads = [cls(**setting) for setting in settings]
        found = [np.zeros((len(heads), len(score), classes)) for _, score in folds]
        for member in MEMBERS:
            place = [i for i, head in enumerate(heads) if member in head.members]
            if not place:
                continue
            swept = _linear(member).sweep(
                features,
                labels,
                folds,
                [heads[i].members[member].setting for i in place],
                classes=classes,
                sample_weight=sample_weight,
                groups=groups,
                depths=depths,
                seed=seed,
                compute=compute,
            )
            scale = np.array([heads[i].temperatures[member] * len(heads[i].members) for i in place])
            for total, logits in zip(found, swept, strict=True):
                total[place] += centred(logits, multilabel=labels.ndim == 2) / scale[:, None, None]
        return found


def _linear(name: str) -> type[Linear]:
    found = head_class(name)
    assert issubclass(found, Linear)  # noqa: S101 - MEMBERS are
    return found


def centred(logits: Logits, *, multilabel: bool) -> Logits:
    """Return logits (…, C) less their mean over the classes, which no softmax sees; a sigmoid sees all."""
    return logits if multilabel else np.asarray(logits - logits.mean(axis=-1, keepdims=True))
