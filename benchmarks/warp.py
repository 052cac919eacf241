"""One warp against the path ImageDataGenerator takes through scipy: same picture, same matrix, one thread.

    python benchmarks/warp.py

Pair by pair: for each fill and each of 40 matrices, drawn by policies of the 288-cell grid, `geometry.warp`
and the scipy path run one after the other, and their ratio is one number. Printed are the medians with the
10th and 90th percentile. `render` is the whole view, drawn numbers and matrix included, against scipy's warp
alone. Before it is timed, every pair is checked to agree within one level inside the picture.

The scipy path is `apply_affine_transform` of keras/src/legacy/preprocessing/image.py (3.15.1).
"""

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform

from topgraft.policies import geometry
from topgraft.policies.grid import GRIDS
from topgraft.policies.policy import View, matrix, parameters, render

SIDE_PX = 224
PAIRS = 40
REPEATS = 5
GOAL = 10.0


def keras_warp(image: np.ndarray, place: np.ndarray, fill: str) -> np.ndarray:
    """Warp (H, W, 3) float32: channels to the front, each through scipy with the axes exchanged, stacked."""
    swapped = place[[1, 0, 2]][:, [1, 0, 2]]
    channels = np.moveaxis(image, 2, 0)
    warped = [affine_transform(one, swapped[:2, :2], swapped[:2, 2], order=1, mode=fill) for one in channels]
    return np.moveaxis(np.stack(warped), 0, 2)


def picture() -> np.ndarray:
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    waves = [127 + 90 * np.sin(x / (5 + k)) * np.cos(y / (9 - k)) for k in range(3)]
    grain = np.random.default_rng(0).normal(0, 12, (SIDE_PX, SIDE_PX, 3))
    return np.clip(np.stack(waves, axis=-1) + grain, 0, 255).astype(np.uint8)


def seconds(work: Callable[[], Any], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def check(ours: np.ndarray, theirs: np.ndarray, place: np.ndarray) -> None:
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    source = place[:2] @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    inside = ((source >= 0) & (source <= SIDE_PX - 1)).all(axis=0).reshape(SIDE_PX, SIDE_PX)
    off = np.abs(ours - theirs).max(axis=2)[inside]
    if off.max(initial=0) > 1:
        raise SystemExit(f"the two differ by {off.max():.2f} levels inside the picture: nothing to compare")


def spread(values: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(values, [10, 50, 90])
    return {"median": round(median, 3), "low": round(low, 3), "high": round(high, 3)}


def compare(fill: geometry.Fill, image: np.ndarray) -> dict[str, dict[str, float]]:
    moving = [policy for policy in GRIDS["grid288"] if policy.moves and policy.fill == fill]
    as_float = image.astype(np.float32)
    found: dict[str, list[float]] = {
        name: [] for name in ("warp_ratio", "render_ratio", "warp_ms", "render_ms", "scipy_ms")
    }
    for i in range(PAIRS):
        view = View(moving[i * len(moving) // PAIRS], i)
        place = matrix(parameters(view, "benchmark"), SIDE_PX, SIDE_PX)
        check(geometry.warp(image, place, fill), keras_warp(as_float, place, fill), place)
        warp = seconds(lambda p=place: geometry.warp(image, p, fill), REPEATS)
        theirs = seconds(lambda p=place: keras_warp(as_float, p, fill), 1)
        whole = seconds(lambda v=view: render(image, v, "benchmark"), REPEATS)
        times = (theirs / warp, theirs / whole, warp * 1e3, whole * 1e3, theirs * 1e3)
        for name, value in zip(found, times, strict=True):
            found[name].append(value)
    return {name: spread(values) for name, values in found.items()}


def main() -> None:
    image = picture()
    compare("reflect", image)  # warm up
    fills = {fill: compare(fill, image) for fill in geometry.FILLS}
    for fill, numbers in fills.items():
        ratio = numbers["warp_ratio"]
        print(
            f"{fill:9} warp {numbers['warp_ms']['median']:.2f} ms, whole view "
            f"{numbers['render_ms']['median']:.2f} ms, scipy {numbers['scipy_ms']['median']:.2f} ms: "
            f"{ratio['median']:.1f} times ({ratio['low']:.1f} to {ratio['high']:.1f})"
        )
    ok = all(numbers["warp_ratio"]["median"] >= GOAL for numbers in fills.values())
    print(
        json.dumps(
            {
                "benchmark": "warp",
                "side_px": SIDE_PX,
                "threads": 1,
                "pairs": PAIRS,
                "fills": fills,
                "goal": GOAL,
                "ok": ok,
            }
        )
    )


if __name__ == "__main__":
    main()
