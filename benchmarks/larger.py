"""What a larger backbone brings on photos nobody learned from, and what it costs.

    python benchmarks/larger.py ../shared --work FOLDER [--sets sushi,waste,clothing] [--each 20] [--draws 3]
        [--backbones tf_efficientnet_lite0,tf_efficientnet_lite1,tf_efficientnet_lite2] [--most 400]

For every set, draws so many photos a class to learn from and answers for the rest, or for the set's own test
photos, with each backbone on photos as they are, heads chosen as `topgraft train` does it. `A+B` reads the
last layers of both, side by side. Prints a Markdown table: accuracy and log loss, differences from the first
backbone with paired intervals over all draws, and milliseconds a photo in the engine. The last line is one
JSON object.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from depths import SETS, drawn, photos_of

import topgraft as tg
from topgraft.engines import open_engine
from topgraft.heads import to_probabilities
from topgraft.metrics import losses
from topgraft.selection.compare import compare, fit_chosen
from topgraft.selection.ensemble import paired, paired_loss
from topgraft.selection.source import columns_of, view_0


def rows_of(store, places):
    """Rows of every depth of some photos, and which columns are which."""
    columns = columns_of(store)
    return view_0(store, places, columns).astype(np.float32), columns


def answers(stores, learn, rest, labels, groups, seed):
    """Choose and fit on some photos, answer for others: (m, C)."""
    if len(stores) == 1:
        (ours, columns), (theirs, _) = rows_of(stores[0], learn), rows_of(stores[0], rest)
    else:
        columns = None
        ours, theirs = (
            np.concatenate([store.features()[at] for store in stores], axis=1) for at in (learn, rest)
        )
    found = compare(ours, labels, groups, heads="linear", seed=seed, columns=columns)
    head = fit_chosen(found, ours, labels, groups, seed=seed)
    logits = head.logits(theirs.astype(np.float32))
    return to_probabilities(logits, multilabel=False, temperature=found.temperature)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--sets", default="sushi,waste,clothing")
    parser.add_argument(
        "--backbones", default="tf_efficientnet_lite0,tf_efficientnet_lite1,tf_efficientnet_lite2"
    )
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--most", type=int, default=400)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    names = given.backbones.split(",")
    alone = {name: tg.load_backbone(name) for both in names for name in both.split("+")}
    pace = {}
    for name, backbone in alone.items():
        with open_engine(backbone, depths=True) as engine:
            pace[name] = 1000 / engine.images_per_second(16)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        rows = [
            row for name in given.sets.split(",") for row in measured(given, name, work, names, alone, pace)
        ]
    print(json.dumps({"ms": pace, "rows": rows}))


def measured(given, name, work, names, alone, pace):
    """Measure one set; yields a row a backbone."""
    data = photos_of(given.shared, name, work)
    order = sorted(data.samples, key=lambda sample: sample.id)
    labels = np.array([sample.label for sample in order])
    own = np.array([(sample.split or "") == SETS[name][1] for sample in order]) if SETS[name][1] else None
    told = {both: [] for both in names}
    truth = []
    for seed in range(given.draws):
        learn, rest = drawn(labels, given.each, own, seed, given.most)
        used = np.union1d(learn, rest)
        chosen = data.subset(order[i].id for i in used)
        classes, ours = np.unique(labels[learn], return_inverse=True)
        truth.append(np.searchsorted(classes, labels[rest]))
        stores = {}
        for backbone in alone:
            begun = time.perf_counter()
            stores[backbone] = tg.embed(chosen, work / f"{name}-{backbone}.zarr", backbone=alone[backbone])
            print(f"  {name} {seed} {backbone} {time.perf_counter() - begun:.1f} s", flush=True)
        at, there = np.searchsorted(used, learn), np.searchsorted(used, rest)
        for both in names:
            mine = [stores[backbone] for backbone in both.split("+")]
            told[both].append(answers(mine, at, there, ours, mine[0].groups[at], seed))
    labels = np.concatenate(truth)
    base = np.concatenate(told[names[0]])
    for both in names:
        said = np.concatenate(told[both])
        right, loss = paired(labels, said, base), paired_loss(labels, said, base)
        row = {
            "set": name,
            "backbone": both,
            "accuracy": float((said.argmax(axis=1) == labels).mean()),
            "log_loss": float(losses(labels, said).mean()),
            "accuracy_gap": right.as_dict(),
            "log_loss_gap": loss.as_dict(),
            "ms": sum(pace[one] for one in both.split("+")),
        }
        print(
            f"| {name} | {both} | {row['accuracy']:.3f} | {row['log_loss']:.3f} |"
            f" {right.value:+.3f} [{right.low:+.3f}, {right.high:+.3f}] |"
            f" {loss.value:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}] | {row['ms']:.1f} |",
            flush=True,
        )
        yield row


if __name__ == "__main__":
    main()
