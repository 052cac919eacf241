"""Images a second of every engine, pair by pair, against a large matrix product of the same process.

Run:      python benchmarks/engines.py [--seconds 2] [--rounds 5] [--only resnet50]
Expect:   openvino f32 at 80 % of the matrix product or more on MobileNet v1, 90 % on ResNet50 and
          InceptionV3, INT8 at 2.5 times f32 or more on MobileNet v1 (2 cores, AVX-512 with VNNI).

The contestants take turns, round by round, so that a machine that slows down slows them all; the median of
the rounds counts. Weights are random where only speed is asked for: it does not depend on them. Pictures are
uint8 and come in batches of 32. The share of the ceiling is multiply-adds of the graph, times two, times
images a second, over the floating-point operations a second of a 4096 x 4096 float32 product.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnx
import torch

from topgraft.backbones._pictures import pictures
from topgraft.backbones._torch import FromPixels, torch_model
from topgraft.backbones.backbone import Backbone
from topgraft.engines import open_engine
from topgraft.importers.load import load_backbone
from topgraft.importers.quantize import quantize
from topgraft.settings import Settings

MODELS = ("mobilenetv1_100", "resnet50", "inception_v3")
BATCH, SIDE = 32, 4096
GOALS = {"mobilenetv1_100": 0.8, "resnet50": 0.9, "inception_v3": 0.9}
INT8_GOAL = 2.5  # times f32, on MobileNet v1


def multiply_adds(graph: onnx.ModelProto, size: tuple[int, int]) -> int:
    """Count the multiply-adds of a graph's convolutions for one picture."""
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    known = onnx.shape_inference.infer_shapes(graph).graph
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in known.value_info
    }
    shapes |= {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in known.output}
    shapes |= {value.name: list(value.dims) for value in known.initializer}
    count = 0
    for node in known.node:
        if node.op_type == "Conv":
            count += int(np.prod(shapes[node.output[0]][1:])) * int(np.prod(shapes[node.input[1]][1:]))
    assert count, f"no convolution counted at {size}"
    return count


def product() -> Callable[[], int]:
    """Give a float32 product of two large matrices, by the faster of numpy and PyTorch: a ceiling is high.

    It says how many operations it did.
    """
    a, b = np.random.default_rng(0).standard_normal((2, SIDE, SIDE)).astype(np.float32)
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    ways = [lambda: (a @ b, 2 * SIDE**3)[1], lambda: (x @ y, 2 * SIDE**3)[1]]
    return max(ways, key=lambda way: (way(), pace(way, 0.5))[1])


def streamed(engine: Any, batch: np.ndarray) -> Callable[[], int]:
    """Give a run of an engine over a few batches."""
    return lambda: sum(len(rows) for _, rows in engine.stream((i, batch) for i in range(4)))


def plain(network: torch.nn.Module, batch: np.ndarray) -> Callable[[], int]:
    """Give a run of a PyTorch network as one would write it: the whole batch, one after the other."""

    def run() -> int:
        with torch.inference_mode():
            network(torch.from_numpy(batch))
        return len(batch)

    return run


def contestants(backbone: Backbone, open_ones: ExitStack) -> Iterator[tuple[str, Callable[[], int]]]:
    """Open every engine on a backbone."""
    settings = Settings.load(device="cpu")
    batch = pictures(BATCH, *backbone.card.input_size)
    yield "matrix product", product()
    yield "openvino f32", streamed(open_ones.enter_context(open_engine(backbone, settings=settings)), batch)
    coarse = quantize(backbone, pictures(64, *backbone.card.input_size, seed=1))
    engine = open_engine(coarse, precision="int8", settings=settings)
    yield "openvino int8", streamed(open_ones.enter_context(engine), batch)
    yield "torch eager", plain(FromPixels(torch_model(backbone), backbone.card).eval(), batch)
    network = FromPixels(torch_model(backbone), backbone.card).eval().to(memory_format=torch.channels_last)
    yield "torch channels-last", plain(network, batch)
    if torch.cuda.is_available():
        engine = open_engine(backbone, engine="torch", settings=Settings.load(device="cuda"))
        yield f"torch on {torch.cuda.get_device_name()}", streamed(open_ones.enter_context(engine), batch)


def pace(run: Callable[[], int], seconds: float) -> float:
    """Repeat a run for about so long; gives its units a second."""
    begun, done = time.perf_counter(), 0
    while True:
        done += run()
        passed = time.perf_counter() - begun
        if passed >= seconds:
            return done / passed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of every turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=MODELS, action="append")
    asked = parser.parse_args()
    found = {}
    print(f"{platform.processor() or platform.machine()}, {Settings.load().threads} cores", file=sys.stderr)
    for name in asked.only or MODELS:
        backbone = load_backbone(name, weights="random")
        work = 2 * multiply_adds(onnx.load(backbone.graph), backbone.card.input_size)
        with ExitStack() as open_ones:
            runs = dict(contestants(backbone, open_ones))
            for run in runs.values():
                run()
            turns = [
                {who: pace(run, asked.seconds) for who, run in runs.items()} for _ in range(asked.rounds)
            ]
        paces = {who: statistics.median(turn[who] for turn in turns) for who in runs}
        ceiling = paces.pop("matrix product")
        f32 = paces["openvino f32"]
        share = statistics.median(turn["openvino f32"] * work / turn["matrix product"] for turn in turns)
        int8 = statistics.median(turn["openvino int8"] / turn["openvino f32"] for turn in turns)
        found[name] = {
            "ceiling_gflops": round(ceiling / 1e9, 1),
            "images_s": {who: round(images_s, 1) for who, images_s in paces.items()},
            "f32_share_of_ceiling": round(share, 3),
            "int8_times_f32": round(int8, 2),
        }
        print(
            f"\n{name} at {backbone.card.input_size[0]} px: {work / 1e9:.2f} GFLOP an image; matrix product"
        )
        print(f"{ceiling / 1e9:.0f} GFLOP/s, so a ceiling of {ceiling / work:.1f} images/s")
        for who, images_s in paces.items():
            shares = sorted(turn[who] * work / turn["matrix product"] for turn in turns)
            print(
                f"  {who:24} {images_s:8.1f} images/s  {statistics.median(shares):5.0%} of the ceiling"
                f" [{shares[0]:.0%}, {shares[-1]:.0%}]  {images_s / f32:5.2f} x openvino f32"
            )
    met = all(paces["f32_share_of_ceiling"] >= GOALS[name] for name, paces in found.items())
    met &= found.get(MODELS[0], {}).get("int8_times_f32", INT8_GOAL) >= INT8_GOAL
    goal = {"f32_share_of_ceiling": GOALS, "int8_times_f32": {MODELS[0]: INT8_GOAL}}
    print(json.dumps({"measured": found, "goal": goal, "ok": bool(met and len(found) == len(MODELS))}))


if __name__ == "__main__":
    main()
