"""Does fine-tuning gain more where the head reads every depth than from the last layer, and at what pace?

    python benchmarks/finetune_depths.py ../shared --work DIR [--sets sushi,waste] [--count 25] [--draws 3]

For each set and draw so many photos a class are learned from, and others are answered for, which nothing has
seen. Two runs are trained on EfficientNet-Lite0, one with a head on the last layer alone and one on every
depth, and the last 3 blocks are trained from each, once, on all it learned from (stopping and refit as by
default, at the run's own temperature). Answers of all draws are compared photo by photo, with 95 %
intervals: with those of the head it began with, and with one another. Then epochs of both are timed in turn.
What is done is kept in the work folder, so an interrupted study goes on. The last line is one JSON object
with the goal: neither what fine-tuning every depth began with nor fine-tuning the last layer alone has a
lower log loss by more than chance explains.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from depths import drawn, embedded

import topgraft as tg
from topgraft import metrics
from topgraft._finetune.base import Base
from topgraft._finetune.plan import Training
from topgraft._finetune.result import gains
from topgraft._finetune.train import train
from topgraft._finetune.tuner import Tuner, cores
from topgraft.errors import DataError
from topgraft.heads import to_probabilities
from topgraft.policies.policy import IDENTITY, View
from topgraft.run import Run
from topgraft.settings import Settings

WAYS = ("last", "all")
PAIRS = (("tuned last", "frozen last"), ("tuned all", "frozen all"), ("tuned all", "tuned last"))
EPOCHS = 4


def tuner_of(run: Run, data: tg.Dataset, plan: Training, given: argparse.Namespace) -> Tuner:
    settings = Settings.load(threads=given.threads)
    base = Base.of(run, data, settings=settings)
    return Tuner(base, given.blocks, (View(IDENTITY),), plan, run.path / "checkpoints", settings=settings)


def finished(path: Path) -> Run | None:
    try:
        return Run.open(path)
    except DataError:
        return None


def answered(run: Run, data: tg.Dataset, given: argparse.Namespace) -> dict[str, np.ndarray]:
    """Answer for the test side before and after fine-tuning: probabilities (n, C) by `frozen` and `tuned`."""
    place = run.path / f"answers-{given.blocks}.npz"
    if not place.exists():
        tuner = tuner_of(run, data, Training(), given)
        base, logits = tuner.base, {}
        tuner.begin(base.learn)
        logits["frozen"] = tuner.answers(base.test)[1]
        lines = tuner.fit(base.learn, "all")
        logits["tuned"] = tuner.answers(base.test)[1]
        told = {way: to_probabilities(some) for way, some in logits.items()}
        which = np.array([base.photos.data.samples[i].id for i in base.test])
        np.savez(place, **told, ids=which, epoch=np.argmin([line["loss"] for line in lines]))
    return dict(np.load(place))


def pace(runs: dict[str, Run], data: tg.Dataset, given: argparse.Namespace) -> list[float]:
    """Time epochs of both in turn; gives the seconds with every depth over those with the last layer."""
    plan = Training(epochs=EPOCHS, patience=EPOCHS)
    tuners = {way: tuner_of(run, data, plan, given) for way, run in runs.items()}
    ratios = []
    for number in range(given.rounds):
        spent = {}
        for way in WAYS if number % 2 else reversed(WAYS):
            tuner, learn = tuners[way], tuners[way].base.learn
            tuner.begin(learn)
            labels, nobody = tuner.photos.labels, learn[:0]
            lines = train(tuner.net, tuner.inputs, labels, plan, fit=learn, held=nobody, until=EPOCHS)
            spent[way] = sum(line["seconds"] for line in lines) / EPOCHS
        ratios.append(spent["all"] / spent["last"])
        print(f"  an epoch: last {spent['last']:.3f} s, every depth {spent['all']:.3f} s", flush=True)
    return ratios


def study(name: str, given: argparse.Namespace) -> dict[str, object]:
    data, store, own = embedded(given.shared, name, given.work)
    place = {sample.id: i for i, sample in enumerate(store.samples)}
    told: dict[str, list[np.ndarray]] = {f"{kind} {way}": [] for way in WAYS for kind in ("frozen", "tuned")}
    asked, epochs = [], {way: [] for way in WAYS}
    for seed in range(given.draws):
        sides = drawn(store.labels, given.count, own, seed, given.most)
        learn, rest = (tuple(store.samples[i].id for i in side) for side in sides)
        some, runs = data.subset([*learn, *rest]), {}
        for way in WAYS:
            at = given.work / f"{name}-{given.count}-{seed}-{way}"
            split = tg.Split(learn, (), rest)
            runs[way] = finished(at) or tg.train(store, split, depths=way, seed=seed, out=at)
            found = answered(runs[way], some, given)
            for kind in ("frozen", "tuned"):
                told[f"{kind} {way}"].append(found[kind])
            epochs[way].append(int(found["epoch"]))
            print(f"{name} {seed} {way}: best epoch {epochs[way][-1]}", flush=True)
        asked += [place[which] for which in found["ids"]]
    labels, groups = store.labels[asked], store.groups[asked]
    both = {way: np.maximum(np.concatenate(some), 5e-7) for way, some in told.items()}
    facts: dict[str, object] = {"answered": len(asked), "best_epochs": epochs}
    for way, p in both.items():
        right, loss = float((p.argmax(1) == labels).mean()), float(metrics.losses(labels, p).mean())
        facts[way] = {"accuracy": right, "log_loss": loss}
        print(f"{name:8} {way:12} accuracy {right:.3f}, log loss {loss:.3f}", flush=True)
    for new, old in PAIRS:
        gain = gains(labels, both[new], both[old], groups=groups, seed=0)
        facts[f"{new} less {old}"] = {key: of.as_dict() for key, of in gain.items()}
        said = [f"{key} {of.value:+.3f} [{of.low:+.3f}, {of.high:+.3f}]" for key, of in gain.items()]
        print(f"{name:8} {new} less {old}: {', '.join(said)}", flush=True)
    if given.rounds:
        facts["pace"] = pace(runs, some, given)
    return facts


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("shared", type=Path, help="the folder with data/ and weights/")
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--sets", default="sushi,waste")
    options.add_argument("--count", type=int, default=25, help="photos a class to learn from")
    options.add_argument("--draws", type=int, default=3)
    options.add_argument("--most", type=int, default=300, help="photos answered for in a draw, at most")
    options.add_argument("--blocks", type=int, default=3)
    options.add_argument("--rounds", type=int, default=5, help="pairs of epochs that are timed")
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    with cores(given.threads):
        found = {name: study(name, given) for name in given.sets.split(",")}
    pairs = [f"{new} less {old}" for new, old in PAIRS if new == "tuned all"]
    ok = all(facts[pair]["log_loss"]["low"] <= 0 for facts in found.values() for pair in pairs)
    print(json.dumps({"sets": found, "goal": {"log_loss_lost": 0}, "ok": ok}))


if __name__ == "__main__":
    main()
