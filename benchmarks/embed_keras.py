"""The way it was done: one ImageDataGenerator and one `predict` for each policy, on Keras with TensorFlow.

Driven by embed.py: a line of JSON in, a line of JSON out, one process for all rounds. Run it with an
interpreter that has the `bench` dependency group.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TextIO

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator
from safetensors.numpy import load_file

BATCH = 32
SIDE_PX = 224


def mobilenet(weights: str) -> keras.Model:
    """MobileNet v1 without its classifier, with the weights of a timm checkpoint."""
    given = load_file(weights)
    model = keras.applications.MobileNet(
        weights=None, include_top=False, pooling="avg", input_shape=(SIDE_PX, SIDE_PX, 3)
    )
    blocks = sorted({tuple(map(int, key.split(".")[1:3])) for key in given if key.startswith("blocks.")})
    sources = {"conv1": "conv_stem", "conv1_bn": "bn1"}
    for number, (stage, block) in enumerate(blocks, start=1):
        at = f"blocks.{stage}.{block}"
        sources |= {f"conv_dw_{number}": f"{at}.conv_dw", f"conv_dw_{number}_bn": f"{at}.bn1"}
        sources |= {f"conv_pw_{number}": f"{at}.conv_pw", f"conv_pw_{number}_bn": f"{at}.bn2"}
    for layer in model.layers:
        if not layer.weights:
            continue
        source = sources.pop(layer.name)
        if layer.name.endswith("_bn"):
            layer.epsilon = 1e-5  # timm's
            parts = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([given[f"{source}.{part}"] for part in parts])
        else:
            axes = (2, 3, 0, 1) if "_dw_" in layer.name else (2, 3, 1, 0)
            layer.set_weights([given[f"{source}.weight"].transpose(axes)])
    if sources:
        raise SystemExit(f"no place for {sources}")
    return model


def embed(model: keras.Model, photos: str, policies: list[dict]) -> tuple[int, float]:
    """Give (images, seconds)."""
    begun, images = time.perf_counter(), 0
    for policy in policies:
        maker = ImageDataGenerator(**policy, preprocessing_function=lambda image: image / 127.5 - 1)
        batches = maker.flow_from_directory(
            photos, target_size=(SIDE_PX, SIDE_PX), batch_size=BATCH, shuffle=False, seed=0
        )
        images += len(model.predict(batches, verbose=0))
    return images, time.perf_counter() - begun


def main() -> None:
    out = sys.stdout
    model = mobilenet(sys.argv[1])
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):  # Keras tells what it found
        answer_all(model, out)


def answer_all(model: keras.Model, out: TextIO) -> None:
    for line in sys.stdin:
        job = json.loads(line)
        if "pixels" in job:
            images = np.load(job["pixels"]).astype(np.float32) / 127.5 - 1
            answer = {"features": model.predict(images, verbose=0).tolist()}
        else:
            images, seconds = embed(model, job["photos"], job["policies"])
            answer = {"images": images, "seconds": seconds}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
