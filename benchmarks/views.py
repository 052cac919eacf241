"""What views bring on photos nobody learned from: which grid, how many, and whether the run can tell.

    python benchmarks/views.py ../shared [--sets sushi,waste,clothing] [--draws 3] [--each 20]
        [--grids gentle,photo,any-angle,grid288] [--views 4,8] [--work FOLDER] [--seconds 200]

For every set, draws so many photos a class to learn from and answers for the rest, or for the set's own test
photos, all as they are. Heads are chosen as `topgraft train` does it, without views and with the first so
many policies of each grid. A JSON line a draw, grid and number of views goes to FOLDER/views-EACH.jsonl, and
what is there is not measured again, so that the work can be done in pieces (`--seconds`). Then prints, for
each set, grid and number, the mean difference in log loss and accuracy from no views on the photos left out,
and that in log loss out of fold, which is all a run has to go by. Last it does as a run does, and keeps views
only where they lower the log loss out of fold by more than a standard error, all at once. The last line is
one JSON object with what each grid then brings in the mean over the sets that all grids were measured on, and
the goal: none brings 0.01 more than the default's.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from depths import drawn, embedded

import topgraft as tg
from topgraft.config import Config
from topgraft.heads import to_probabilities
from topgraft.metrics import losses
from topgraft.selection.compare import compare, fit_chosen
from topgraft.selection.source import columns_of, stack

DEFAULT = Config().policies.grid
CLOSE = 0.01
"""Log loss by which another grid would have to bring more to be the default."""


def answered(views, labels, groups, columns, rest, seed):
    """Choose and fit on some photos, answer for others: out of fold (n, C), and for the others (m, C)."""
    classes = int(labels.max()) + 1
    found = compare(views, labels, groups, heads="linear", seed=seed, classes=classes, columns=columns)
    head = fit_chosen(found, views, labels, groups, classes=classes, seed=seed)
    logits = head.logits(rest.astype(np.float32))
    return found.oof[0], to_probabilities(logits, multilabel=False, temperature=found.temperature)


def scored(labels, probabilities):
    """Losses a photo, and which answers are right."""
    return losses(labels, probabilities), probabilities.argmax(axis=1) == labels


def measured(given, name, work, ends):
    """Measure what is not yet there of one set; yields rows."""
    data, store, own = embedded(given.shared, name, work)
    columns = columns_of(store)
    for seed in range(given.draws):
        learn, rest = drawn(store.labels, given.each, own, seed, given.most)
        classes, labels = np.unique(store.labels[learn], return_inverse=True)
        truth = np.searchsorted(classes, store.labels[rest])
        unseen = stack(store, rest, columns)[0]
        chosen = data.subset(store.ids[i] for i in learn)
        base = None
        for grid in given.grids.split(","):
            todo = [n for n in map(int, given.views.split(",")) if (name, seed, grid, n) not in given.done]
            if not todo or time.monotonic() > ends:
                continue
            drawn_store = tg.embed(
                chosen,
                work / f"{name}-{seed}.zarr",
                policies=tg.draw(max(todo), seed=seed, grid=grid),
                seed=seed,
            )
            views = stack(drawn_store, None, columns)
            base = base or answered(views[:1], labels, store.groups[learn], columns, unseen, seed)
            for count in todo:
                ours = answered(views[: count + 1], labels, store.groups[learn], columns, unseen, seed)
                gaps = [
                    scored(labels, ours[0])[0] - scored(labels, base[0])[0],
                    scored(truth, ours[1])[0] - scored(truth, base[1])[0],
                ]
                yield {
                    "set": name,
                    "seed": seed,
                    "grid": grid,
                    "views": count,
                    "photos": len(labels),
                    "oof": float(gaps[0].mean()),
                    "oof_error": float(gaps[0].std() / np.sqrt(len(labels))),
                    "true": float(gaps[1].mean()),
                    "accuracy": float(scored(truth, ours[1])[1].mean() - scored(truth, base[1])[1].mean()),
                    "loss_without": float(scored(truth, base[1])[0].mean()),
                    "oof_without": float(scored(labels, base[0])[0].mean()),
                    "right_without": float(scored(truth, base[1])[1].mean()),
                }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--sets", default="sushi,waste,clothing")
    parser.add_argument("--grids", default="gentle,photo,any-angle,grid288")
    parser.add_argument("--views", default="4,8")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--most", type=int, default=3000)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing new after so long")
    given = parser.parse_args()
    ends = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        log = work / f"views-{given.each}.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        given.done = {(row["set"], row["seed"], row["grid"], row["views"]) for row in rows}
        for name in given.sets.split(","):
            for row in measured(given, name, work, ends):
                rows.append(row)
                with log.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print(json.dumps(summary(rows) if rows else {"goal": {"of_best": CLOSE}, "ok": False}))


def kept(row):
    """Change in log loss on unseen photos where a run decides whether to keep the views."""
    return row["true"] if row["oof"] < -row["oof_error"] else 0.0


def summary(rows):
    """Print a line a set, grid and number of views; return the means over sets, and the goal."""
    told, decided = {}, {}
    for grid, count in sorted({(row["grid"], row["views"]) for row in rows}):
        means = []
        for name in sorted({row["set"] for row in rows}):
            own = [r for r in rows if (r["set"], r["grid"], r["views"]) == (name, grid, count)]
            if not own:
                continue
            true, right, seen = (np.mean([r[key] for r in own]) for key in ("true", "accuracy", "oof"))
            share = true / np.mean([r["loss_without"] for r in own])
            decided.setdefault((grid, count), {})[name] = float(np.mean([kept(r) for r in own]))
            means.append((share, right))
            cells = f"{len(own)} | {true:+.3f} ({share:+.1%}) | {right:+.3f} | {seen:+.3f}"
            print(f"| {name} | {grid} | {count} | {cells} |")
        told[f"{grid}, {count}"] = {
            "log_loss": float(np.mean([m[0] for m in means])),
            "accuracy": float(np.mean([m[1] for m in means])),
        }
    most = max(count for _, count in decided)
    last = {grid: by_set for (grid, count), by_set in decided.items() if count == most}
    common = sorted(set.intersection(*map(set, last.values())))
    brings = {grid: float(np.mean([by_set[name] for name in common])) for grid, by_set in last.items()}
    for grid, by in brings.items():
        print(f"{grid}, {most} views, kept where they pay: {by:+.3f} log loss")
    ok = brings.get(DEFAULT, np.inf) <= min(brings.values()) + CLOSE
    return {"change": told, "kept_where_they_pay": brings, "goal": {"of_best": CLOSE}, "ok": ok}


if __name__ == "__main__":
    main()
