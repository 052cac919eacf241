"""Do forecasts hold? What twice the photos bring, against the truth; and the risk-coverage intervals.

    python benchmarks/curve.py ../shared [--sets sushi,waste] [--draws 4] [--counts 10,20,40] [--most 3000]

For every set and draw, so many photos a class are learned from, and as many again. The forecast sees the
first half alone; the truth is how much better the heads that `topgraft train` chooses on all of them do on
photos nobody learned from. Beside it: whether intervals of "answered only above 90 %" (how many, how many
of them right) and of the area under the risk-coverage curve hold what those photos say. Prints a Markdown
table, and as its last line one JSON object with the coverage of each interval.
"""

import argparse
import json
import tempfile
from itertools import groupby
from pathlib import Path

import numpy as np
from depths import SETS, embedded

from topgraft.heads import to_probabilities
from topgraft.selection.compare import compare, fit_chosen
from topgraft.selection.curve import curve
from topgraft.selection.source import columns_of, stack
from topgraft.trust.coverage import coverage
from topgraft.trust.trust import certainty

ABOVE = 0.9
KEYS = ("gain", "answered", "right", "area")


def drawn(labels, count, own, seed, most):
    """Draw `count` photos a class and as many again: (first half, all, photos to answer for) or None."""
    dice = np.random.default_rng([seed, count])
    half, whole, rest = [], [], []
    for label in np.unique(labels):
        here = np.flatnonzero((labels == label) if own is None else (labels == label) & ~own)
        there = None if own is None else np.flatnonzero((labels == label) & own)
        if len(here) < 2 * count + (5 if own is None else 0) or (there is not None and not len(there)):
            continue
        here = dice.permutation(here)
        half.append(here[:count])
        whole.append(here[: 2 * count])
        rest.append(here[2 * count :] if there is None else there)
    if len(half) < 2:
        return None
    return (
        np.sort(np.concatenate(half)),
        np.sort(np.concatenate(whole)),
        np.sort(dice.permutation(np.concatenate(rest))[:most]),
    )


def trained(store, learn, rest, columns, seed, heads="linear"):
    """Choose and fit as `train` does: what cross-validation says, and probabilities for the rest."""
    classes, labels = np.unique(store.labels[learn], return_inverse=True)
    views, groups = stack(store, learn, columns), store.groups[learn]
    found = compare(views, labels, groups, heads=heads, seed=seed, classes=len(classes), columns=columns)
    head = fit_chosen(found, views, labels, groups, classes=len(classes), seed=seed)
    logits = head.logits(stack(store, rest, columns)[0].astype(np.float32))
    said = to_probabilities(logits, multilabel=False, temperature=found.temperature)
    return found, labels, said, np.searchsorted(classes, store.labels[rest])


def measured(given, name, work):
    """Measure one set: one row a draw."""
    store, own = embedded(given.shared, name, work)
    columns, heads = columns_of(store), given.heads.split(",")
    for count in map(int, given.counts.split(",")):
        for seed in range(given.draws):
            sides = drawn(store.labels, count, own, seed, given.most)
            if sides is None:
                break
            half, whole, rest = sides
            found, labels, said, truth = trained(store, half, rest, columns, seed, heads)
            _, _, later, _ = trained(store, whole, rest, columns, seed, heads)
            right = [float((answers.argmax(axis=1) == truth).mean()) for answers in (said, later)]
            out_of_fold = found.oof[0]
            error = float((out_of_fold.argmax(axis=1) != labels).mean())
            names = [str(c) for c in range(out_of_fold.shape[1])]
            forecast = curve(
                stack(store, half, columns)[0], labels, store.groups[half], classes=names, columns=columns,
                error=error, seed=seed,
            )  # fmt: skip
            answered = coverage(*certainty(labels, out_of_fold), store.groups[half], seed=seed)
            held = coverage(*certainty(truth, said))
            yield {
                "set": name,
                "count": count,
                "photos": len(half),
                "gain": {**forecast.numbers["gain"]["twice"], "truth": right[1] - right[0]},
                "area": {**answered.area.as_dict(), "truth": held.area.value},
                **{
                    part: {**(answered.at(ABOVE)[part] or {"value": 0.5, "low": 0, "high": 1}), "truth": true}
                    for part, true in (
                        ("answered", held.at(ABOVE)["answered"]["value"]),
                        ("right", (held.at(ABOVE)["right"] or {"value": np.nan})["value"]),
                    )
                },
            }


def holds(row):
    return bool(row["low"] <= row["truth"] <= row["high"])


def shown(rows):
    """Print one line of the table: the draws of one set and size."""
    told = [row["gain"] for row in rows]
    low, value, high, truth = (
        f"{100 * np.mean([one[part] for one in told]):+.1f}" for part in ("low", "value", "high", "truth")
    )
    cells = [f"{rows[0]['set']}, {rows[0]['photos']}", f"{value} ({low} to {high})", truth]
    for key in KEYS:
        known = [row[key] for row in rows if np.isfinite(row[key]["truth"])]
        cells.append(f"{sum(map(holds, known))} of {len(known)}")
    print(f"| {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--counts", default="5,10,20,40")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--heads", default="linear", help="that are compared; logistic takes the longest")
    parser.add_argument("--most", type=int, default=3000, help="photos answered for, at most")
    parser.add_argument("--work", type=Path, help="where stores are kept [default: a temporary folder]")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for name in given.sets.split(","):
            for _, draws in groupby(measured(given, name, work), key=lambda row: row["count"]):
                some = list(draws)
                shown(some)
                rows += some
    kept = {
        key: float(np.mean([holds(row[key]) for row in rows if np.isfinite(row[key]["truth"])]))
        for key in KEYS
    }
    print(json.dumps({"draws": len(rows), "holds": kept, "rows": rows}))


if __name__ == "__main__":
    main()
