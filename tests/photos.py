"""Small photo-like pictures for tests that need files but no meaning in them."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image as Pillow


def paint(path: Path, seed: int, size: tuple[int, int] = (96, 72), quality: int = 92) -> Path:
    """Write coloured blobs that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blobs = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    Pillow.fromarray(blobs).resize(size, Pillow.Resampling.BICUBIC).save(path, quality=quality)
    return path


def paint_folder(root: Path, **counts: int) -> Path:
    """Write a folder of so many photos for each class; the same class has the same photos."""
    for name, count in counts.items():
        for i in range(count):
            paint(root / name / f"{i:03d}.jpg", zlib.crc32(name.encode()) + i)
    return root
