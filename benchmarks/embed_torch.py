"""The way it is usually done with PyTorch: DataLoader, torchvision transforms, a timm model, a pass a policy.

Driven by embed.py: a line of JSON in, a line of JSON out, one process for all rounds.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import timm
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

BATCH = 32
SIDE_PX = 224


def transform(policy: dict[str, Any]) -> v2.Compose:
    """Write a policy (in Keras' words) with torchvision's transforms."""
    zoom = policy.get("zoom_range", (1.0, 1.0))
    moves = v2.RandomAffine(
        degrees=policy.get("rotation_range", 0),
        translate=(policy.get("width_shift_range", 0.0), policy.get("height_shift_range", 0.0)),
        scale=(1 / zoom[1], 1 / zoom[0]),
        shear=policy.get("shear_range", 0) or None,
        interpolation=v2.InterpolationMode.BILINEAR,
    )
    steps = [
        v2.ToImage(),
        v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
        v2.CenterCrop(SIDE_PX),
        *([moves] if policy else []),
        *([v2.RandomHorizontalFlip()] if policy.get("horizontal_flip") else []),
        *([v2.RandomVerticalFlip()] if policy.get("vertical_flip") else []),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.5] * 3),
    ]
    return v2.Compose(steps)


@torch.inference_mode()
def embed(
    model: torch.nn.Module, photos: str, policies: list[dict[str, Any]], loaders: int
) -> tuple[int, float]:
    """Give (images, seconds)."""
    begun, images = time.perf_counter(), 0
    for policy in policies:
        data = ImageFolder(photos, transform(policy))
        for batch, _ in DataLoader(data, BATCH, num_workers=loaders):
            images += len(model(batch))
    return images, time.perf_counter() - begun


@torch.inference_mode()
def main() -> None:
    model = timm.create_model(f"local-dir:{sys.argv[1]}", pretrained=True, num_classes=0).eval()
    for line in sys.stdin:
        job = json.loads(line)
        if "pixels" in job:
            images = torch.from_numpy(np.load(job["pixels"])).permute(0, 3, 1, 2).float() / 127.5 - 1
            answer = {"features": model(images).tolist()}
        else:
            images, seconds = embed(model, job["photos"], job["policies"], job["loaders"])
            answer = {"images": images, "seconds": seconds}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
