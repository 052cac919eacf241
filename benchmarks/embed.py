"""Embedding: Topgraft against the two ways it is usually done, and against the bare engine, pair by pair.

    python benchmarks/embed.py --photos PHOTOS --weights FOLDER --keras PYTHON

PHOTOS is a folder of class folders, FOLDER a timm MobileNet v1 (`local-dir:` form), PYTHON an interpreter
with the `bench` dependency group (TensorFlow seldom agrees with what else is installed; without it (a) is
left out).

In every round each contender embeds the same photos under the same policies with the same weights, in an
order that turns from round to round, so that each round gives one ratio of each pair under the same load:

    topgraft   `embed` into a new store: opening the engine, decoding, fit, warp, features, writing
    int8       the same on the backbone quantised with these photos (not timed); needs the `int8` extra
    bare       the engine alone on the same pictures, made beforehand and lying in memory
    depths     `embed` of every depth of EfficientNet-Lite0, block features written too
    last       the same with the statistics cut out of its graph, so that its last layer alone is left
    keras      (a) ImageDataGenerator and `predict` on TensorFlow, once for each policy
    torch      (b) DataLoader, torchvision and timm in PyTorch, once for each policy

(a) and (b) have their models loaded and warmed before they are timed. (b) loads with no or with as many
worker processes as there are cores, whichever is faster when tried before. That all run the same weights
is checked on the first photos before anything is timed. The last line is one JSON with figures, goals
and whether they are met.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from topgraft import embed
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.fit import fit
from topgraft.engines import open_engine
from topgraft.importers.load import load_backbone
from topgraft.importers.quantize import quantize
from topgraft.photos.dataset import Dataset
from topgraft.policies.grid import draw
from topgraft.policies.policy import Policy, render
from topgraft.settings import Settings, usable_cores
from topgraft.store.table import views_of

HERE = Path(__file__).resolve().parent
GOALS = {
    "topgraft/keras": 3.0,
    "topgraft/torch": 3.5,
    "int8/keras": 6.0,
    "topgraft/bare": 0.9,
    "depths/last": 0.95,
}
Way = Callable[[], float]  # runs once, gives images/s


def as_keras(policy: Policy) -> dict[str, Any]:
    """Say a policy of the 288-cell grid in ImageDataGenerator's words."""
    words: dict[str, Any] = {
        "rotation_range": policy.rotation,
        "width_shift_range": policy.shift_x,
        "height_shift_range": policy.shift_y,
        "shear_range": policy.shear,
        "zoom_range": list(policy.zoom),
        "horizontal_flip": policy.hflip,
        "vertical_flip": policy.vflip,
        "fill_mode": policy.fill,
    }
    if Policy.from_keras(**words) != policy:
        raise SystemExit(f"{policy}: more than ImageDataGenerator can do")
    return words


class Other:
    """One of the other ways, in a process of its own."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **job: Any) -> dict[str, Any]:
        """Send a job and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(job), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args}: ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def subset(photos: Path, to: Path, count: int) -> Dataset:
    """Copy `count` photos, the same number of each class."""
    data = Dataset.from_folder(photos)
    each = -(-count // len(data.classes))
    chosen = [one for label in range(len(data.classes)) for one in data.samples if one.label == label]
    by_class = [[one for one in chosen if one.label == label][:each] for label in range(len(data.classes))]
    for one in [one for some in by_class for one in some][:count]:
        (to / one.id).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / one.id, to / one.id)
    return Dataset.from_folder(to)


def topgraft_way(data: Dataset, backbone: Backbone, policies: tuple[Policy, ...], folder: Path) -> Way:
    def run() -> float:
        store = folder / "features.zarr"
        shutil.rmtree(store, ignore_errors=True)
        begun = time.perf_counter()
        made = embed(data, store, backbone=backbone, policies=policies, precision=backbone.card.precision)
        return len(made) * len(made.views) / (time.perf_counter() - begun)

    return run


def without_blocks(backbone: Backbone, folder: Path) -> Backbone:
    """Cut the statistics of blocks out of a backbone's graph."""
    model = onnx.load(backbone.graph)
    model.graph.output.remove(next(output for output in model.graph.output if output.name == "blocks"))
    onnx.save(model, folder / "last.onnx")
    return Backbone(backbone.card.model_copy(update={"depths": ()}), folder / "last.onnx")


def bare_way(data: Dataset, backbone: Backbone, policies: tuple[Policy, ...]) -> Way:
    """The engine on pictures that are all there: as many as fit 1 GB, over and over."""
    fitted = [(fit(data.image(i), backbone.card), one.digest) for i, one in enumerate(data.samples)]
    views = views_of(policies, 0)
    total = len(fitted) * len(views)
    some = fitted[: max(1, 10**9 // (len(views) * fitted[0][0].nbytes))]
    made = np.stack([render(picture, view, digest) for picture, digest in some for view in views])
    batches = [made[start : start + 32] for start in range(0, len(made) - 31, 32)]

    def run() -> float:
        with open_engine(backbone, precision=backbone.card.precision) as engine:
            engine.embed(batches[0])
            begun = time.perf_counter()
            images = sum(
                len(rows)
                for _, rows in engine.stream((None, batches[i % len(batches)]) for i in range(total // 32))
            )
            return images / (time.perf_counter() - begun)

    return run


def other_way(other: Other, photos: Path, policies: tuple[Policy, ...], **more: Any) -> Way:
    jobs = [{}, *map(as_keras, policies)]

    def run() -> float:
        answer = other.ask(photos=str(photos), policies=jobs, **more)
        return float(answer["images"] / answer["seconds"])

    return run


def best_loaders(torch: Other, photos: Path) -> int:
    """Try with and without worker processes, each once to warm up."""
    rates = {}
    for loaders in (usable_cores(), 0, usable_cores(), 0):
        answer = torch.ask(photos=str(photos), policies=[{}, {"rotation_range": 60}], loaders=loaders)
        rates[loaders] = answer["images"] / answer["seconds"]
    print(f"DataLoader workers: {', '.join(f'{n}: {rate:.1f} images/s' for n, rate in rates.items())}")
    return max(rates, key=lambda n: rates[n])


def check_weights(
    data: Dataset, backbone: Backbone, others: dict[str, Other], folder: Path
) -> dict[str, float]:
    """Give each way the same pixels; what comes back must be the same features."""
    pixels = np.stack([fit(data.image(i), backbone.card) for i in range(4)])
    np.save(folder / "pixels.npy", pixels)
    with open_engine(backbone) as engine:
        ours = engine.embed(pixels)
    found = {}
    for name, other in others.items():
        theirs = np.array(other.ask(pixels=str(folder / "pixels.npy"))["features"])
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        found[name] = float(((ours * theirs).sum(axis=1) / norms).min())
        if found[name] < 0.9999:
            raise SystemExit(f"{name} does not run the same network: cosine {found[name]:.6f}")
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--photos", type=Path, required=True)
    options.add_argument("--weights", type=Path, required=True)
    options.add_argument("--keras", default=os.environ.get("TOPGRAFT_BENCH_PYTHON"))
    options.add_argument("--policies", type=int, default=16)
    options.add_argument("--count", type=int, default=160, help="photos")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--only", nargs="*", help="contenders")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="topgraft-bench-") as name:
        report(compare(given, Path(name)), given)


def compare(given: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    data = subset(given.photos, folder / "photos", given.count)
    given.count = len(data)  # fewer where a class has not its share
    backbone = load_backbone(f"local-dir:{given.weights}")
    policies = draw(given.policies, seed=0)
    photos, others = folder / "photos", {}

    def asked(name: str) -> bool:
        return not given.only or name in given.only

    if asked("torch"):
        others["torch"] = Other(sys.executable, str(HERE / "embed_torch.py"), str(given.weights))
    if given.keras and asked("keras"):
        weights = str(given.weights / "model.safetensors")
        others["keras"] = Other(given.keras, str(HERE / "embed_keras.py"), weights)
    if others:
        print(f"same network: {check_weights(data, backbone, others, folder)}")

    def int8() -> Way:
        pictures = np.stack([fit(data.image(i), backbone.card) for i in range(len(data))])
        return topgraft_way(data, quantize(backbone, pictures), policies, folder)

    def torch() -> Way:
        return other_way(others["torch"], photos, policies, loaders=best_loaders(others["torch"], photos))

    makers: dict[str, Callable[[], Way]] = {
        "topgraft": lambda: topgraft_way(data, backbone, policies, folder),
        "bare": lambda: bare_way(data, backbone, policies),
        "depths": lambda: topgraft_way(data, load_backbone(), policies, folder),
        "last": lambda: topgraft_way(data, without_blocks(load_backbone(), folder), policies, folder),
        "torch": torch,
        **({"int8": int8} if find_spec("nncf") else {}),
        **({"keras": lambda: other_way(others["keras"], photos, policies)} if given.keras else {}),
    }
    ways = {name: make() for name, make in makers.items() if asked(name)}
    print(
        f"{len(data)} photos x {given.policies + 1} views, {backbone.card.name}, {usable_cores()} cores,"
        f" {Settings.load().threads} threads, load {os.getloadavg()[0]:.2f}"
    )
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(given.rounds):
        names = list(ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(ways[name]())
        said = "  ".join(f"{name} {rates[-1]:6.1f}" for name, rates in found.items())
        print(f"round {turn + 1}: images/s  {said}  (load {os.getloadavg()[0]:.2f})", flush=True)
    for other in others.values():
        other.close()
    return found


def report(found: dict[str, list[float]], given: argparse.Namespace) -> None:
    """Print medians of the rounds' ratios with their range, and last the JSON."""
    ratios = {}
    for pair, goal in GOALS.items():
        ours, theirs = pair.split("/")
        if ours in found and theirs in found:
            each = np.array(found[ours]) / np.array(found[theirs])
            ratios[pair] = {
                "median": float(np.median(each)),
                "low": float(each.min()),
                "high": float(each.max()),
            }
            print(
                f"{pair:15} {np.median(each):.2f} times ({each.min():.2f} to {each.max():.2f}); goal {goal}"
            )
    facts = {
        "benchmark": "embed",
        "rounds": given.rounds,
        "photos": given.count,
        "views": given.policies + 1,
        "images_per_s": {name: float(np.median(rates)) for name, rates in found.items()},
        "ratios": ratios,
        "goals": GOALS,
        "ok": all(ratios[pair]["median"] >= GOALS[pair] for pair in ratios),
        "left_out": [pair for pair in GOALS if pair not in ratios],
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
