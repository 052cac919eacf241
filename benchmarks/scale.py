"""Embedding is linear: the same time per view and the same memory for 1,000 and 9,000 photos.

    python benchmarks/scale.py --photos caltech101_144px.tar
    python benchmarks/scale.py --photos caltech101_144px.tar --train '0,4!'
    python benchmarks/scale.py --rows 20000

The photos are a folder of class folders, or a tar of one. Each size runs in a process of its own with an
own cache: photos are opened and checked, embedded with 4 views by EfficientNet-Lite0, and then all of
it is done again on the unchanged folder. Small, large, small: the small ones before and after show what
else the machine did. The last line is one JSON with figures, goals and whether they are met.

With --train, `topgraft.train` does the whole job on all photos with EfficientNet-Lite0 instead, once for each
number of policies (none, or fixed: `4!`), each in a process and with a cache of its own: the time of each
stage and the peak memory. Goals: under 3 GB, and heads compared in no more time than it took to embed what
they read.

With --rows, linear heads are compared on so many drawn rows of every depth and ten classes: what 100,000
photos would need is a multiple of it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

BACKBONE = "tf_efficientnet_lite0"  # by one name, so that embedding and comparing are stages of their own
VIEWS = 4
MOST_MB = 3000.0
GOALS = {"time_per_view_ratio": 1.10, "memory_difference_mb": 200.0, "second_run_times_faster": 50.0}


def one(photos: Path, folder: Path) -> dict[str, float]:
    """Embed a folder twice; runs in a process of its own."""
    from topgraft import Dataset, draw, embed

    policies = draw(VIEWS - 1, seed=0)
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        data = Dataset.from_folder(photos)
        _ = data.groups
        ready, cpu = time.perf_counter(), time.process_time()
        store = embed(data, folder / "features.zarr", policies=policies)
        times.append((ready - begun, time.perf_counter() - ready, time.process_time() - cpu))
    rows = len({sample.digest for sample in data.samples}) * VIEWS
    return {
        "photos": len(store),
        "rows": rows,
        "open_s": times[0][0],
        "embed_s": times[0][1],
        "ms_per_view": 1000 * times[0][1] / rows,
        "cpu_ms_per_view": 1000 * times[0][2] / rows,
        "again_open_s": times[1][0],
        "again_embed_s": times[1][1],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def train_one(photos: Path, folder: Path, policies: str) -> dict[str, Any]:
    """Train on a folder; runs in a process of its own."""
    from topgraft import train

    begun = time.perf_counter()
    run = train(photos, backbone=BACKBONE, policies=policies, out=folder / "run")
    return {
        "policies": policies,
        "seconds": time.perf_counter() - begun,
        "stages": run.read("timings.json"),
        "photos": run.metrics.counts.photos,
        "classes": len(run.metrics.classes),
        "accuracy": run.metrics.cross_validation.accuracy.value,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def rows_alone(count: int) -> dict[str, Any]:
    """Compare heads on drawn rows, which takes what rows of photos take."""
    import numpy as np

    from topgraft.backbones.depths import Depth, Depths
    from topgraft.selection.compare import compare

    columns = Depths(1280, (Depth(name="blocks", channels=1808),))
    dice = np.random.default_rng(0)
    labels = dice.integers(0, 10, count)
    rows = np.empty((count, columns.width), np.float16)
    for row, label in zip(rows, labels, strict=True):
        row[:] = dice.standard_normal(columns.width)
        row[label::10] += 0.3
    begun, cpu = time.perf_counter(), time.process_time()
    compare(rows, labels, heads="linear", columns=columns)
    return {
        "rows": count,
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def links(photos: Path, count: int, to: Path) -> Path:
    """Make a folder of links to every nth photo, so that opening it costs what so many photos cost."""
    found = sorted(path for path in photos.rglob("*") if path.is_file())
    chosen = found[:: max(1, len(found) // count)][:count]
    for path in chosen:
        target = to / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    return to


def apart(photos: Path, folder: Path, *words: str) -> dict[str, Any]:
    """Start a process with a cache of its own."""
    folder.mkdir()
    environment = os.environ | {"TOPGRAFT_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, __file__, "--photos", str(photos), "--one", "--folder", str(folder), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def run(photos: Path, folder: Path) -> dict[str, float]:
    """Start a process for one size."""
    facts = apart(photos, folder)
    said = ", ".join(f"{name} {value:,.2f}" for name, value in facts.items())
    print(f"{said} (load {os.getloadavg()[0]:.2f})", flush=True)
    return facts


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--photos", type=Path)
    options.add_argument("--rows", type=int)
    options.add_argument("--small", type=int, default=1000)
    options.add_argument("--large", type=int, default=9000)
    options.add_argument("--train", help="numbers of policies, with commas, as `topgraft train` takes them")
    options.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.rows:
        facts = rows_alone(given.rows)
        print(json.dumps(facts | {"goals": {"peak_mb": MOST_MB}, "ok": facts["peak_mb"] <= MOST_MB}))
        return
    if given.photos is None:
        options.error("--photos: expected a folder or a tar of one, got nothing.")
    if given.one:
        job = (
            train_one(given.photos, given.folder, given.train)
            if given.train
            else one(given.photos, given.folder)
        )
        print(json.dumps(job))
        return
    with tempfile.TemporaryDirectory(prefix="topgraft-bench-") as name:
        top = Path(name)
        photos = given.photos
        if photos.is_file():
            with tarfile.open(photos) as tar:
                tar.extractall(top / "photos", filter="data")
            photos = top / "photos"
        if given.train:
            report_heads(
                [apart(photos, top / f"train{i}", "--train", n) for i, n in enumerate(given.train.split(","))]
            )
            return
        sets = {count: links(photos, count, top / f"set{count}") for count in (given.small, given.large)}
        print(f"load {os.getloadavg()[0]:.2f}")
        sizes = (given.small, given.large, given.small)
        report([run(sets[count], top / f"run{i}") for i, count in enumerate(sizes)])


def report_heads(found: list[dict[str, Any]]) -> None:
    """Print what training took, and whether it stayed within the goals."""
    for row in found:
        stages = ", ".join(
            f"{name} {spent:.0f} s" for name, spent in row["stages"].items() if isinstance(spent, int | float)
        )
        print(
            f"{row['policies']:>4} policies: {row['seconds']:.0f} s ({stages}), peak {row['peak_mb']:,.0f} MB"
        )
    for row in found:
        row["heads_over_embedding"] = row["stages"]["compare heads"] / row["stages"]["embed"]
        print(f"     comparing heads took {row['heads_over_embedding']:.2f} times as long as embedding")
    goals = {"peak_mb": MOST_MB, "heads_over_embedding": 1.0}
    ok = all(row[name] <= most for row in found for name, most in goals.items())
    print(json.dumps({"benchmark": "scale of heads", "runs": found, "goals": goals, "ok": ok}))


def report(found: list[dict[str, float]]) -> None:
    """Compare the large run with the mean of the small ones beside it."""
    before, large, after = found

    def mean(name: str) -> float:
        return (before[name] + after[name]) / 2

    figures = {
        "time_per_view_ratio": large["ms_per_view"] / mean("ms_per_view"),
        "memory_difference_mb": large["peak_mb"] - mean("peak_mb"),
        "second_run_times_faster": large["embed_s"] / large["again_embed_s"],
    }
    facts: dict[str, Any] = {
        "benchmark": "scale",
        "runs": found,
        "figures": figures
        | {
            "cpu_per_view_ratio": large["cpu_ms_per_view"] / mean("cpu_ms_per_view"),
            "second_run_with_opening_times_faster": (large["open_s"] + large["embed_s"])
            / (large["again_open_s"] + large["again_embed_s"]),
        },
        "goals": GOALS,
        "ok": 1 / 1.1 <= figures["time_per_view_ratio"] <= 1.1
        and abs(figures["memory_difference_mb"]) < GOALS["memory_difference_mb"]
        and figures["second_run_times_faster"] >= GOALS["second_run_times_faster"],
    }
    for name, value in facts["figures"].items():
        print(f"{name:38} {value:.2f}" + (f"   goal {GOALS[name]}" if name in GOALS else ""))
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
