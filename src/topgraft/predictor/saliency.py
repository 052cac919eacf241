"""Where a predictor looked: what each place of a photo adds to the margin of a class over the others.

Where features are the mean of the backbone's map, as in most convolutional networks, each cell of the map is
left out of the mean in turn and the head judges the rest. For a linear head this is the class activation map
(Zhou et al. 2016, arXiv:1512.04150) but for one scale and one shift: 0 is a place that speaks for the
class as much as the photo does on average. For other heads it is the same question asked without gradients
(ablation, Desai & Ramaswamy 2020, WACV). Other backbones, and heads on maps, are asked with parts of the
photo painted in its mean colour (occlusion, Zeiler & Fergus 2014, arXiv:1311.2901): fifty looks.

A head that reads every depth is asked with the blocks' features as they are: the map shows what the last
layer found, which is a part of the answer; `head.depths` in metrics.json says how large a part. Statistics of
a whole map, as the blocks' are, have no place to point at.

The votes of nearest neighbours often do not move at all with so little; then the map stays dark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from topgraft.backbones.fit import Axis, axes
from topgraft.errors import UnknownNameError

if TYPE_CHECKING:
    from topgraft.predictor import Predictor
    from topgraft.types import Image, Logits

CELLS = 7
"""Parts a side that occlusion covers in turn."""


def activation_map(predictor: Predictor, image: Image, label: str = "") -> NDArray[np.float32]:
    """Return where a predictor found its reasons.

    Args:
        predictor: a finished one.
        image: (h, w, 3) uint8 RGB.
        label: the class asked about; the most probable where it is left out.

    Returns:
        (h, w) float32 in 0..1 at the photo's size: 1 at the strongest place; 0 where a place spoke no more
        than the rest, and where the fit cuts the photo off; 0 everywhere where no place stood out.

    Raises:
        UnknownNameError: for a label the predictor does not know.
    """
    if label and label not in predictor.classes:
        raise UnknownNameError("class", label, predictor.classes)
    found = predictor.look(image)
    index = predictor.classes.index(label) if label else int(found["probabilities"][0].argmax())
    cells = _leave_out(predictor, found, index)
    if cells is None:
        cells = _occlude(predictor, image, index)
    cells = np.maximum(cells, 0)
    return _spread(cells / max(float(cells.max()), 1e-12), image, predictor)


def _leave_out(
    predictor: Predictor, found: dict[str, NDArray[np.float32]], index: int
) -> NDArray[np.float64] | None:
    """Return the margin lost without each cell of the map; None where features are no mean of several."""
    if "map" not in found or found["map"][0, 0].size == 1:
        return None
    maps, features = found["map"][0], found["features"]
    whole = maps.mean(axis=(1, 2))
    if whole.shape != features[0].shape or not np.allclose(
        whole, features[0], atol=1e-3 * np.abs(whole).max()
    ):
        return None
    count = maps[0].size
    rows = (whole[:, None] * count - maps.reshape(len(maps), -1)).T / (count - 1)
    asked = np.concatenate([features, rows])
    if "blocks" in found:  # as they are: the map shows what the last layer found
        asked = np.hstack([asked, np.repeat(found["blocks"], len(asked), axis=0)])
    judged = predictor.logits(asked)
    if judged is None:
        return None
    margins = _margin(judged, index)
    return np.asarray(margins[0] - margins[1:]).reshape(maps.shape[1:])


def _occlude(predictor: Predictor, image: Image, index: int) -> NDArray[np.float64]:
    """Return the margin lost by painting over each part of the kept photo."""
    (top, bottom), (left, right) = _kept(image, predictor)
    rows, columns = np.linspace(top, bottom, CELLS + 1), np.linspace(left, right, CELLS + 1)
    mean = image.mean(axis=(0, 1)).astype(np.uint8)
    pictures = [image]
    for y in range(CELLS):
        for x in range(CELLS):
            covered = image.copy()
            part = slice(max(0, round(rows[y])), max(0, round(rows[y + 1])))
            covered[part, max(0, round(columns[x])) : max(0, round(columns[x + 1]))] = mean
            pictures.append(covered)
    answers = predictor.predict(pictures)
    likely = np.array([list(answer.probabilities.values()) for answer in answers])
    margins = _margin(np.log(np.clip(likely, 1e-7, 1)), index)
    return np.asarray(margins[0] - margins[1:]).reshape(CELLS, CELLS)


def _margin(logits: Logits, index: int) -> Logits:
    """Return how far a class is ahead of the mean of the others, (N,)."""
    others = np.delete(logits, index, axis=1)
    return np.asarray(logits[:, index] - (others.mean(axis=1) if others.size else 0.0))


def _kept(image: Image, predictor: Predictor) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return ((top, bottom), (left, right)) of the kept part in the photo; a border lies outside of it."""
    vertical, horizontal = axes(image.shape[0], image.shape[1], predictor.card.backbone)
    return _extent(vertical), _extent(horizontal)


def _extent(axis: Axis) -> tuple[float, float]:
    scale = axis.source / axis.resized
    return axis.first * scale, (axis.first + axis.kept) * scale


def _spread(cells: NDArray[np.float64], image: Image, predictor: Predictor) -> NDArray[np.float32]:
    """Return a map of the kept part at the photo's own size, smoothly."""
    height, width = image.shape[:2]
    (top, bottom), (left, right) = _kept(image, predictor)
    rows, columns = cells.shape
    # from the photo's pixels to cells, centre to centre
    x = (np.arange(width, dtype=np.float32) + 0.5 - left) * (columns / (right - left)) - 0.5
    y = (np.arange(height, dtype=np.float32) + 0.5 - top) * (rows / (bottom - top)) - 0.5
    across, down = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    smooth = cv2.remap(
        cells.astype(np.float32), across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    inside = ((across > -0.5) & (across < columns - 0.5)) & ((down > -0.5) & (down < rows - 0.5))
    return np.asarray(np.where(inside, smooth, 0), np.float32)
