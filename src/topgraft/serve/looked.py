"""Where the model looked, as a small picture to lay over the photo."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image as Pillow

from topgraft.predictor import Predictor
from topgraft.predictor.saliency import activation_map
from topgraft.types import Image

SIDE = 96
"""Pixels of the longer side; the page stretches it smoothly."""
DARK = 170
"""Of 255, where it found none."""


def looked_at(predictor: Predictor, image: Image, label: str) -> str:
    """Return a PNG as a data URI: clear where the model found its reasons, dark elsewhere."""
    strength = activation_map(predictor, image, label)
    by = min(1.0, SIDE / max(strength.shape))
    size = tuple(max(1, round(by * side)) for side in strength.shape[::-1])
    alpha = Pillow.fromarray((DARK * (1 - np.sqrt(strength))).astype(np.uint8)).resize(
        size, Pillow.Resampling.BOX
    )
    picture = Pillow.new("RGBA", alpha.size, (0, 0, 0, 0))
    picture.putalpha(alpha)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
