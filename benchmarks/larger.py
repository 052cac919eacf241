"""What a larger backbone brings on photos nobody learned from, and what it costs.

    python benchmarks/larger.py ../shared --work FOLDER [--sets sushi,waste,clothing,grocery,caltech]
        [--backbones tf_efficientnet_lite0,tf_efficientnet_lite2] [--counts 10,20,40] [--draws 3]
        [--classes 20] [--most 600]

For every set, draws so many photos of so many classes to learn from and answers for the rest, or for the
set's own test photos, with each backbone on photos as they are, heads chosen as `topgraft train` does it.
Two more rows: `tried` answers by the last backbone unless one before it is better out of fold by more than
a standard error, as `train` takes it; and `all` by the mean of all backbones' logits. Prints a Markdown
table: accuracy and log loss, and differences from the first backbone with paired intervals over all draws.
The last line is one JSON object, with the milliseconds a photo takes in the engine, and the goal: on no set
does `tried` lose log loss to the first backbone by more than chance explains.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from depths import SETS, drawn, photos_of

import topgraft as tg
from topgraft.engines import open_engine
from topgraft.heads import to_probabilities
from topgraft.metrics import losses
from topgraft.selection.compare import compare, fit_chosen
from topgraft.selection.ensemble import paired, paired_loss
from topgraft.selection.payoff import gap
from topgraft.selection.source import columns_of, view_0


def answers(store, learn, rest, labels, seed):
    """Choose and fit on some photos, answer for others: (m, C), and the comparison of heads."""
    columns, groups = columns_of(store), store.groups[learn]
    ours, theirs = (view_0(store, places, columns).astype(np.float32) for places in (learn, rest))
    found = compare(ours, labels, groups, heads="linear", seed=seed, columns=columns)
    head = fit_chosen(found, ours, labels, groups, seed=seed)
    told = to_probabilities(head.logits(theirs), multilabel=False, temperature=found.temperature)
    return told, found


def mean_of(told):
    """Return the mean of several answers' logits, as probabilities (m, C)."""
    logits = np.mean([np.log(np.maximum(answer, 1e-12)) for answer in told], axis=0)
    return to_probabilities(logits, multilabel=False, temperature=1.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--backbones", default="tf_efficientnet_lite0,tf_efficientnet_lite2")
    parser.add_argument("--counts", default="10,20,40", help="photos a class to learn from")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--classes", type=int, default=20, help="classes of a draw, at most")
    parser.add_argument("--most", type=int, default=600, help="photos answered for, at most")
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    backbones = {name: tg.load_backbone(name) for name in given.backbones.split(",")}
    pace = {}
    for name, backbone in backbones.items():
        with open_engine(backbone, depths=True) as engine:
            pace[name] = 1000 / engine.images_per_second(16)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        rows = [row for name in given.sets.split(",") for row in measured(given, name, work, backbones)]
    lost = [row["set"] for row in rows if row["way"] == "tried" and row["log_loss_gap"]["low"] > 0]
    print(json.dumps({"ms": pace, "rows": rows, "goal": {"sets_lost_by_tried": 0}, "ok": not lost}))


def draws_of(given, labels, own):
    """Yield each draw: its seed, and the places of the photos to learn from and to answer for."""
    for count in map(int, given.counts.split(",")):
        for seed in range(given.draws):
            if (found := drawn(labels, count, own, seed, len(labels))) is None:
                continue
            learn, rest = found
            dice = np.random.default_rng([seed, given.classes])
            classes = dice.permutation(np.unique(labels[learn]))[: given.classes]
            rest = rest[np.isin(labels[rest], classes)]
            yield seed, learn[np.isin(labels[learn], classes)], np.sort(dice.permutation(rest)[: given.most])


def measured(given, name, work, backbones):
    """Measure one set; yields a row a backbone, and one for each way to use all."""
    data = photos_of(given.shared, name, work)
    order = sorted(data.samples, key=lambda sample: sample.id)
    labels = np.array([sample.label for sample in order])
    own = np.array([(sample.split or "") == SETS[name][1] for sample in order]) if SETS[name][1] else None
    draws = list(draws_of(given, labels, own))
    used = np.unique(np.concatenate([places for _, *both in draws for places in both]))
    chosen = data.subset(order[i].id for i in used)
    stores = {
        other: tg.embed(chosen, work / f"{name}-{other}.zarr", backbone=backbone)
        for other, backbone in backbones.items()
    }
    told = {way: [] for way in (*backbones, "tried", "all")}
    truth, larger = [], 0
    for seed, learn, rest in draws:
        at, there = np.searchsorted(used, learn), np.searchsorted(used, rest)
        classes, ours = np.unique(labels[learn], return_inverse=True)
        truth.append(np.searchsorted(classes, labels[rest]))
        found = {other: answers(store, at, there, ours, seed) for other, store in stores.items()}
        groups, taken = next(iter(stores.values())).groups[at], next(iter(found))
        for other, (_, heads) in found.items():
            better, error = gap(found[taken][1], heads, ours, groups, seed=seed)
            taken = other if better.value < error else taken
        larger += taken != next(iter(found))
        told["tried"].append(found[taken][0])
        told["all"].append(mean_of([answer for answer, _ in found.values()]))
        for other, (answer, _) in found.items():
            told[other].append(answer)
    yield from rows_of(name, told, truth, f"{larger} of {len(draws)}")


def rows_of(name, told, truth, larger):
    """Score each way against the first backbone; answers of unlike numbers of classes are padded with 0."""
    widest = max(answer.shape[1] for answer in told["all"])
    whole = {
        way: np.concatenate([np.pad(answer, ((0, 0), (0, widest - answer.shape[1]))) for answer in each])
        for way, each in told.items()
    }
    labels, base = np.concatenate(truth), next(iter(whole.values()))
    for way, said in whole.items():
        right, loss = paired(labels, said, base), paired_loss(labels, said, base)
        row = {
            "set": name,
            "way": way,
            "accuracy": float((said.argmax(axis=1) == labels).mean()),
            "log_loss": float(losses(labels, said).mean()),
            "accuracy_gap": right.as_dict(),
            "log_loss_gap": loss.as_dict(),
        }
        print(
            f"| {name} | {way}{f' ({larger} not the first)' if way == 'tried' else ''}"
            f" | {row['accuracy']:.3f} | {row['log_loss']:.3f} |"
            f" {right.value:+.3f} [{right.low:+.3f}, {right.high:+.3f}] |"
            f" {loss.value:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}] |",
            flush=True,
        )
        yield row


if __name__ == "__main__":
    main()
