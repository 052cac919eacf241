"""What all 288 policies of the grid are worth together, one by one, and chosen: the table of docs/heads.md.

    python benchmarks/worth.py PHOTOS --backbone local-dir:DIR --store features.zarr

Embeds every photo once with each of the grid's 288 policies (stored rows are used again), measures each level
and policy with `topgraft.heads.worth`, then asks whether choosing pays: inside every outer fold the policies
are ranked by what they add on the fold's own photos, the best are kept, and the outer photos judge. Prints
Markdown, and as its last line one JSON object with the goal that drawing at random stands on: choosing lowers
the log loss by no more than 0.01.
"""

import argparse
import json
import time

import numpy as np

import topgraft as tg
from topgraft.heads._ridge import Ridge
from topgraft.metrics import Estimate, losses
from topgraft.selection.calibrate import cross_calibrate
from topgraft.selection.compare import stack
from topgraft.selection.worth import worth
from topgraft.splits import folds as make_folds

GOAL = -0.01
"""Log loss that choosing policies would have to save to be worth it."""


def judge(features, labels, dealt, strength):
    """Ridge on these views (V, N, D): out-of-fold logits (N, C)."""
    logits = np.full((len(labels), int(labels.max()) + 1), np.nan)
    answers = Ridge.sweep(features, labels, dealt, [{"strength": strength}], classes=logits.shape[1])
    for (_, score), answer in zip(dealt, answers, strict=True):
        logits[score] = answer[0]
    return logits


def chosen(features, labels, groups, strength, *, count, repeats):
    """Choose policies on the inside of every outer fold, by rank or at random; judge on the outside."""
    found = {f"the best {count} by inner folds": [], f"{count} at random": []}
    for seed in range(repeats):
        dealt = make_folds(labels, groups, 5, seed)
        logits = {name: np.empty((len(labels), int(labels.max()) + 1)) for name in found}
        for fit, score in dealt:
            inner = make_folds(labels[fit], None if groups is None else groups[fit], 4, seed)
            gains = []  # the lowest log loss first
            for view in range(1, len(features)):
                pair = features[np.ix_([0, view], fit)]
                answer = cross_calibrate(judge(pair, labels[fit], inner, strength), labels[fit], inner)
                gains.append(losses(labels[fit], answer).mean())
            random = np.random.default_rng(seed).permutation(len(gains))
            for name, order in zip(found, (np.argsort(gains), random), strict=True):
                views = [0, *(1 + order[:count])]
                logits[name][score] = judge(features[views], labels, [(fit, score)], strength)[score]
        for name, one in logits.items():
            answer = cross_calibrate(one, labels, dealt)
            found[name].append((losses(labels, answer).mean(), (answer.argmax(axis=1) == labels).mean()))
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def cell(gap):
    return f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"


def main():
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("photos")
    parse.add_argument("--backbone", default="tf_efficientnet_lite0.in1k")
    parse.add_argument("--store", default="features.zarr")
    parse.add_argument("--policies", type=int, default=288)
    parse.add_argument("--choose", type=int, default=16, help="how many to choose; 0 leaves that out")
    parse.add_argument("--repeats", type=int, default=3)
    given = parse.parse_args()

    begun = time.perf_counter()
    data = tg.Dataset.from_folder(given.photos)
    store = tg.embed(data, given.store, backbone=given.backbone, policies=tg.draw(given.policies))
    embedded = time.perf_counter()
    found = worth(store, store.labels, store.groups, repeats=given.repeats)
    measured = time.perf_counter()
    numbers = found.numbers
    print(f"{len(store)} photos × {len(store.views)} views, {store.card.name}, {5 * given.repeats} folds.\n")
    print("| fitted on | log loss | accuracy |\n| --- | --- | --- |")
    for name, key in (("photos as they are", "view_0"), (f"with all {given.policies} policies", "all")):
        loss, right = (Estimate(**numbers[key][one]) for one in ("log_loss", "accuracy"))
        print(f"| {name} | {loss} | {right} |")
    print(f"| difference, paired | {cell(numbers['difference']['log_loss'])} |", end=" ")
    print(f"{cell(numbers['difference']['accuracy'])} |\n")
    print("| level | views | added to photos as they are | added to all other views |")
    print("| --- | --- | --- | --- |")
    for one in numbers["levels"]:
        both = " | ".join(cell(one[beside]["log_loss"]) for beside in ("to_view_0", "to_the_rest"))
        print(f"| `{one['level'].replace('|', '+')}` | {one['views']} | {both} |")
    print(f"\n{found.sentences[-1]}\n")
    if given.choose:
        print("| policies | log loss | accuracy |\n| --- | --- | --- |")
        views = stack(store).astype(np.float32)
        strength = numbers["strength"]["all"]
        scored = chosen(
            views, store.labels, store.groups, strength, count=given.choose, repeats=given.repeats
        )
        for name, (loss, right) in scored.items():
            print(f"| {name} | {loss:.3f} | {right:.3f} |")
    done = time.perf_counter()
    facts = {"log_loss": {key: numbers[key]["log_loss"] for key in ("view_0", "all", "difference")}}
    print(
        f"\nEmbedding {embedded - begun:.0f} s, worth {measured - embedded:.0f} s,"
        f" choosing {done - measured:.0f} s."
    )
    facts |= {"goal": {"chosen_to_random": GOAL}, "ok": False}  # until it is shown
    if given.choose:
        chosen_loss, random_loss = (loss for loss, _ in scored.values())
        facts["chosen_to_random"] = chosen_loss - random_loss
        facts["ok"] = bool(facts["chosen_to_random"] >= GOAL)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
