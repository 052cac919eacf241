"""Whether exported files say what the run says, photo by photo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topgraft.errors import DataError, DecodeError
from topgraft.types import Progress, silent

if TYPE_CHECKING:
    from topgraft.photos.dataset import Dataset
    from topgraft.predictor import Predictor
    from topgraft.types import Image

Answer = tuple[NDArray[np.float32], float]
"""(C,) probabilities, and how strange the photo is."""
Ask = Callable[["Image"], Answer]


@dataclass(frozen=True)
class Bound:
    """How far an export may be from its run.

    Attributes:
        labels: the least share of photos with the same label.
        apart: the most that a probability may differ, and the distance as a share of the run's (of 1, where
            the run's is below 1).
    """

    labels: float
    apart: float


BOUNDS = {"f32": Bound(1.0, 1e-3), "f16": Bound(0.99, 0.02), "int8": Bound(0.95, 0.5)}
"""In f32 the arithmetic is the same. What f16 and int8 lose on real photos is in docs/export.md; a multiple
of that is no rounding, but a fault."""


@dataclass(frozen=True)
class Agreement:
    """What the exported files said, beside the run.

    Attributes:
        runtime: that ran them.
        photos: asked.
        same: of them, with the run's label.
        unknown: of them, with another word on unknown.
        apart, mean_apart: the largest and the mean difference of a probability.
        accuracy, accuracy_run: among photos whose label is a class of the run; None for several labels.
        broken: what is wrong, in words; empty where all is well.
    """

    runtime: str
    photos: int
    same: int
    unknown: int
    apart: float
    mean_apart: float
    accuracy: float | None
    accuracy_run: float | None
    broken: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {name: value for name, value in vars(self).items() if name != "broken"}

    def __str__(self) -> str:
        said = (
            f"{self.runtime}: {self.same} of {self.photos} photos have the run's label; probabilities are"
            f" at most {self.apart:.1g} apart, {self.mean_apart:.1g} on average"
        )
        if self.unknown:
            said += f"; {self.unknown} changed between known and unknown"
        if self.accuracy is not None and self.accuracy != self.accuracy_run:
            said += f"; accuracy on them {self.accuracy:.3f}, the run's {self.accuracy_run:.3f}"
        return f"{said}."


def compare(
    predictor: Predictor,
    data: Dataset,
    indices: Sequence[int],
    ask: Ask,
    runtime: str,
    precision: str,
    *,
    progress: Progress = silent,
) -> Agreement:
    """Compare answers with the run's.

    Args:
        predictor: the run's.
        data: its photos.
        indices: which of them.
        ask: gives the exported files' answer.
        runtime: what to call it.
        precision: decides how far they may be apart.
        progress: told of photos done.

    Raises:
        DataError: where no photo can be read.
    """
    threshold = predictor.card.unknown.threshold if predictor.card.unknown else np.inf
    bound = BOUNDS[precision]
    ours, theirs, unknown, names, labels = [], [], 0, [], []
    first = ""
    for done, i in enumerate(indices, start=1):
        try:
            image = data.image(i)
        except DecodeError:
            continue  # gone since the run, or since it was looked at
        found = predictor.look(image)
        probabilities, distance = ask(image)
        expected, strange = found["probabilities"][0], float(found["distance"][0])
        # what is no number is as far apart as can be
        apart = float(np.nan_to_num(np.abs(expected - probabilities), nan=1.0).max())
        off = float(np.nan_to_num(abs(strange - distance), nan=np.inf)) / max(1.0, abs(strange))
        other = expected.argmax() != probabilities.argmax()
        if not first and (max(apart, off) > bound.apart or (other and bound.labels == 1)):
            first = _said(predictor, data.samples[i].id, expected, probabilities, off)
        ours.append(expected)
        theirs.append(probabilities)
        names.append(data.samples[i].id)
        labels.append(data.classes[data.samples[i].label])
        unknown += (strange > threshold) != (distance > threshold)
        progress(f"checking in {runtime}", done, len(indices))
    if not ours:
        raise DataError(f"{data.place}: none of the photos can be read. Give the run's photos.")
    a, b = np.array(ours), np.array(theirs)
    same = a.argmax(axis=1) == b.argmax(axis=1)
    if not first and same.mean() < bound.labels:
        i = int(np.flatnonzero(~same)[0])
        first = _said(predictor, names[i], a[i], b[i], 0.0)
    known = [label in predictor.classes for label in labels]
    truth = np.array([predictor.classes.index(name) for name in labels if name in predictor.classes])
    scored = bool(truth.size) and not predictor.card.multilabel
    gaps = np.nan_to_num(np.abs(a - b), nan=1.0)
    return Agreement(
        runtime,
        len(ours),
        int(same.sum()),
        int(unknown),
        float(gaps.max()),
        float(gaps.mean()),
        float((b.argmax(axis=1)[known] == truth).mean()) if scored else None,
        float((a.argmax(axis=1)[known] == truth).mean()) if scored else None,
        f"{runtime} has the run's label for {int(same.sum())} of {len(ours)} photos and is off for {first}."
        if first
        else "",
    )


def _said(
    predictor: Predictor, name: str, ours: NDArray[np.float32], theirs: NDArray[np.float32], off: float
) -> str:
    run, other = (f"{predictor.classes[p.argmax()]} {p.max():.4f}" for p in (ours, theirs))
    strange = f", strangeness off by {off:.2g}" if off > 1e-3 else ""
    return f"{name}: the run says {run}, the export {other}{strange}"
