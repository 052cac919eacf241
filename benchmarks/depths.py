"""What reading every depth brings on real photos: last, all and auto, on photos nobody learned from.

    python benchmarks/depths.py ../shared [--sets sushi,waste] [--draws 3] [--counts 10,30,100] [--most 3000]

For every set, draws so many photos a class to learn from (where there are as many) and answers for the rest,
or for the set's own test photos. Heads, their settings and depths are chosen as `topgraft train` does it, on
photos as they are. Prints a Markdown table with paired intervals, and as its last line one JSON object with
the goal: a mean gain of `auto` over `last` of at least 3 points of accuracy and 10 % of log loss, and on no
set worse than half a point.
"""

import argparse
import json
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

import topgraft as tg
from topgraft.heads import to_probabilities
from topgraft.metrics import losses
from topgraft.selection.compare import compare, fit_chosen
from topgraft.selection.ensemble import paired, paired_loss
from topgraft.selection.source import columns_of, stack

SETS = {
    "sushi": ("sushi_sandwich", ""),
    "waste": ("trashnet_240px.tar", ""),
    "clothing": ("clothing_240px.tar", "test"),
    "grocery": ("grocery_240px.tar", "test"),
    "caltech": ("caltech101_144px.tar", ""),
}
"""Folder or archive, and the side of the set's own split that is answered for."""
WAYS = ("last", "all", "auto")
GOAL = {"accuracy": 0.03, "log_loss": -0.10, "worst_accuracy": -0.005}


def photos_of(shared, name, work):
    """Open a set's photos, unpacked where they lie in an archive."""
    place, _ = SETS[name]
    source = shared / "data" / place
    if source.suffix == ".tar":
        folder = work / name
        if not folder.exists():
            with tarfile.open(source) as archive:
                archive.extractall(folder, filter="data")
        source = folder
        while len(inside := [path for path in source.iterdir() if path.is_dir()]) == 1:
            source = inside[0]
    return tg.Dataset.from_folder(source)


def embedded(shared, name, work):
    """Embed a set's photos as they are: the photos, the store, and which photos are its own test."""
    own = SETS[name][1]
    data = photos_of(shared, name, work)
    store = tg.embed(data, work / f"{name}.zarr", policies=(), depths="all")
    split = np.array([sample.split or "" for sample in store.samples])
    return data, store, split == own if own else None


def drawn(labels, count, own, seed, most):
    """Draw `count` photos a class to learn from; classes with too few photos take no part. (learn, rest)."""
    dice = np.random.default_rng([seed, count])
    learn, rest = [], []
    for label in np.unique(labels):
        here = np.flatnonzero((labels == label) if own is None else (labels == label) & ~own)
        there = None if own is None else np.flatnonzero((labels == label) & own)
        if len(here) < count + (5 if own is None else 0) or (there is not None and not len(there)):
            continue
        here = dice.permutation(here)
        learn.append(here[:count])
        rest.append(here[count:] if there is None else there)
    if len(learn) < 2:
        return None
    rest = np.concatenate(rest)
    return np.sort(np.concatenate(learn)), np.sort(dice.permutation(rest)[:most])


def answer(store, learn, rest, depths, seed):
    """Choose and fit on some photos, answer for others: probabilities (n, C), and seconds."""
    begun = time.perf_counter()
    classes, labels = np.unique(store.labels[learn], return_inverse=True)
    columns = columns_of(store, depths)
    views = stack(store, learn, columns)
    found = compare(
        views, labels, store.groups[learn], heads="linear", seed=seed, classes=len(classes),
        columns=columns, depths=depths,
    )  # fmt: skip
    head = fit_chosen(found, views, labels, store.groups[learn], classes=len(classes), seed=seed)
    logits = head.logits(stack(store, rest, columns)[0].astype(np.float32))
    took = time.perf_counter() - begun
    return to_probabilities(logits, multilabel=False, temperature=found.temperature), took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--counts", default="10,30,100")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--most", type=int, default=3000, help="photos answered for, at most")
    parser.add_argument("--work", type=Path, help="where stores are kept [default: a temporary folder]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = [row for name in given.sets.split(",") for row in measured(given, name, temporary)]
    gains = {key: float(np.mean([row[key] for row in rows])) for key in ("accuracy", "log_loss")}
    worst = min(row["accuracy"] for row in rows)
    ok = gains["accuracy"] >= GOAL["accuracy"] and gains["log_loss"] <= GOAL["log_loss"]
    ok = ok and worst >= GOAL["worst_accuracy"]
    print(json.dumps({"gain": gains, "worst_accuracy": worst, "rows": rows, "goal": GOAL, "ok": ok}))


def measured(given, name, temporary):
    """Measure one set; yields one row a number of photos."""
    work = given.work or Path(temporary)
    work.mkdir(parents=True, exist_ok=True)
    _, store, own = embedded(given.shared, name, work)
    for count in map(int, given.counts.split(",")):
        told, took = {way: [] for way in WAYS}, dict.fromkeys(WAYS, 0.0)
        truth, same = [], []
        for seed in range(given.draws):
            sides = drawn(store.labels, count, own, seed, given.most)
            if sides is None:
                break
            truth.append(np.searchsorted(np.unique(store.labels[sides[0]]), store.labels[sides[1]]))
            same.append(store.groups[sides[1]])  # near-duplicates, and one photo in several draws
            for way in WAYS:
                probabilities, seconds = answer(store, *sides, way, seed)
                told[way].append(probabilities)
                took[way] += seconds
        if not truth:
            continue
        labels, groups = np.concatenate(truth), np.concatenate(same)
        both = {way: np.concatenate(told[way]) for way in WAYS}
        right = {way: float((both[way].argmax(axis=1) == labels).mean()) for way in WAYS}
        loss = {way: float(losses(labels, both[way]).mean()) for way in WAYS}
        gap, loss_gap = (
            paired(labels, both["auto"], both["last"], groups=groups),
            paired_loss(labels, both["auto"], both["last"], groups=groups),
        )
        cells = " | ".join(f"{right[way]:.3f} / {loss[way]:.3f}" for way in WAYS)
        print(
            f"| {name}, {both['last'].shape[1]} x {count} | {cells} |"
            f" {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] |"
            f" {loss_gap.value:+.3f} [{loss_gap.low:+.3f}, {loss_gap.high:+.3f}] |",
            flush=True,
        )
        yield {
            "set": name,
            "count": count,
            "accuracy": gap.value,
            "log_loss": loss["auto"] / loss["last"] - 1,
            "right": right,
            "loss": loss,
            "seconds": {way: took[way] / len(truth) for way in WAYS},
        }


if __name__ == "__main__":
    main()
