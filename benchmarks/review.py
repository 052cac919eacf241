"""Labels bought in the order that `topgraft review` proposes against random order: what accuracy costs.

    python benchmarks/review.py ../shared [--sets sushi,waste,clothing] [--draws 20] [--start 2] [--buy 200]

For every set and draw, a third of the photos (or the set's own test photos) is put aside, and a head begins
with `--start` labels a class. Then labels are bought twenty at a time: in random order, and in the order of
`topgraft._relabel.learner`, which sees no label before it is bought. After every twenty a head is fitted and
answers for the photos that were put aside. Prints a Markdown table of accuracy over labels with intervals
over draws (95 %, normal), and as its last line one JSON object with the goal: a third fewer labels for the
accuracy that random order has at its end, in the mean over sets.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from depths import embedded

from topgraft._relabel.learner import BATCH, Learner
from topgraft.heads import head_class
from topgraft.selection.teaching import unit

WAYS = ("random", "proposed")
GOAL = 1 / 3
MOST = 3000
"""Photos that may be bought, and photos answered for, at most."""


def drawn(labels, groups, own, start, seed):
    """Draw what is labelled from the start, what can be bought, and what is answered for."""
    dice = np.random.default_rng([seed, start])
    if own is None:
        numbers = dice.permutation(np.unique(groups))
        own = np.isin(groups, numbers[: len(numbers) // 3])
    pool, test = (dice.permutation(np.flatnonzero(side))[:MOST] for side in (~own, own))
    first = [pool[labels[pool] == label][:start] for label in np.unique(labels)]
    have = np.concatenate(first)
    return have, np.setdiff1d(pool, have), test[np.isin(labels[test], labels[have])]


def accuracy(features, labels, have, test):
    """Fit a head on what is labelled, and answer for the photos put aside."""
    classes, told = np.unique(labels[have], return_inverse=True)
    head = head_class("logistic")().fit(features[have][None], told, classes=len(classes))
    return float((classes[head.logits(features[test]).argmax(axis=1)] == labels[test]).mean())


def bought(way, features, labels, have, pool, test, buy, seed):
    """Buy labels one way: accuracy after every twenty."""
    dice = np.random.default_rng([seed, 1])
    rows = unit(features)
    learner = Learner(dict(enumerate(rows)))
    have, pool = list(have), list(dice.permutation(pool))
    curve = [accuracy(features, labels, have, test)]
    for _ in range(min(buy, len(pool)) // BATCH):
        order = pool
        if way == "proposed":
            order = learner.order(pool, {i: str(labels[i]) for i in have})
        have += order[:BATCH]
        taken = set(order[:BATCH])
        pool = [i for i in pool if i not in taken]
        curve.append(accuracy(features, labels, have, test))
    return curve


def saved(curves):
    """Return the share of bought labels that the proposed order needs less for random order's last accuracy.

    Of the mean curves, made monotone, with steps between points in straight lines.
    """
    mean = {way: np.maximum.accumulate(np.mean(curves[way], axis=0)) for way in WAYS}
    target, steps = mean["random"][-1], len(mean["random"]) - 1
    better = np.flatnonzero(mean["proposed"] >= target)
    if not len(better):
        return 0.0
    at = better[0]
    if at:
        low, high = mean["proposed"][at - 1], mean["proposed"][at]
        at = at - 1 + (target - low) / (high - low)
    return float(1 - at / steps)


def interval(values):
    """Return mean and half width of the 95 % interval over draws."""
    values = np.asarray(values)
    return values.mean(), 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan


def measured(given, name, temporary):
    """Measure one set."""
    work = given.work or Path(temporary)
    work.mkdir(parents=True, exist_ok=True)
    _, store, own = embedded(given.shared, name, work)
    features, labels, groups = store.features().astype(np.float32), store.labels, store.groups
    curves = {way: [] for way in WAYS}
    for seed in range(given.draws):
        have, pool, test = drawn(labels, groups, own, given.start, seed)
        for way in WAYS:
            curves[way].append(bought(way, features, labels, have, pool, test, given.buy, seed))
    dice = np.random.default_rng(0)
    draws = [dice.integers(0, given.draws, given.draws) for _ in range(500)]
    share = saved(curves)
    spread = np.quantile(
        [saved({way: np.asarray(curves[way])[draw] for way in WAYS}) for draw in draws], [0.025, 0.975]
    )
    labelled = len(have)
    points = range(len(curves["random"][0]))
    for step in [point for point in points if point in (0, 1, 2, 3, 5) or point == len(points) - 1]:
        cells = []
        for way in WAYS:
            mean, half = interval([curve[step] for curve in curves[way]])
            cells.append(f"{mean:.3f} ± {half:.3f}")
        gap, half = interval(
            [p[step] - r[step] for p, r in zip(curves["proposed"], curves["random"], strict=True)]
        )
        print(
            f"| {name} | {labelled} + {step * BATCH} | {' | '.join(cells)} | {gap:+.3f} ± {half:.3f} |",
            flush=True,
        )
    print(f"| {name} | labels saved | | | {share:.0%} [{spread[0]:.0%}, {spread[1]:.0%}] |", flush=True)
    return {
        "set": name,
        "saved": share,
        "interval": spread.tolist(),
        "draws": given.draws,
        "curves": {way: np.mean(curves[way], axis=0).round(4).tolist() for way in WAYS},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--sets", default="sushi,waste,clothing,grocery")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--start", type=int, default=2, help="labels a class to begin with")
    parser.add_argument("--buy", type=int, default=200, help="labels to buy")
    parser.add_argument("--work", type=Path, help="where stores are kept [default: a temporary folder]")
    given = parser.parse_args()
    print("| set | labels | random | proposed | difference |\n| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        rows = [measured(given, name, temporary) for name in given.sets.split(",")]
    mean = float(np.mean([row["saved"] for row in rows]))
    print(json.dumps({"saved": mean, "goal": round(GOAL, 3), "ok": mean >= GOAL, "rows": rows}))


if __name__ == "__main__":
    main()
