"""A few pictures with the statistics of photos, to check a new graph on."""

from __future__ import annotations

import numpy as np

from topgraft.types import Images


def pictures(count: int, height: int, width: int, seed: int = 0) -> Images:
    """Return drawn pictures: coloured 1/f noise, as photos have, with a few shapes that have sharp edges.

    The amplitude spectrum of natural images falls about as 1/f (Field 1987, J. Opt. Soc. Am. A 4:2379).

    Returns:
        (count, height, width, 3) uint8.
    """
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    rows, columns = np.mgrid[0:height, 0:width]
    drawn = np.empty((count, height, width, 3), np.uint8)
    for picture in drawn:
        noise = random.standard_normal((height, width, 3))
        waves = np.fft.irfft2(
            np.fft.rfft2(noise, axes=(0, 1)) / frequency[..., None], (height, width), axes=(0, 1)
        )
        mixed = waves @ (
            np.full((3, 3), 0.8) + 0.4 * np.eye(3)
        )  # the channels of a photo rise and fall together
        mixed = 128 + 50 * mixed / mixed.std() + random.normal(0, 25, 3)
        for _ in range(4):
            y, x, radius = (
                random.random() * height,
                random.random() * width,
                (0.1 + 0.2 * random.random()) * height,
            )
            inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            mixed[inside] = 0.3 * mixed[inside] + 0.7 * random.integers(0, 256, 3)
        picture[:] = np.clip(mixed, 0, 255)
    return drawn
