"""Does fine-tuning gain anything on 160 photos? Five outer folds, and everything else inside them.

    python benchmarks/finetune_study.py ../shared --work /tmp/study

For each backbone and each outer fold, a run is trained on the other four fifths (heads compared, strength and
temperature found by 5-fold cross-validation inside them), and fine-tuned (last 3 blocks; early stopping and
temperature inside them too). Both runs answer for the outer fold, which neither has seen. The pooled answers
are compared photo by photo. Finished folds are kept in the work folder, so an interrupted study goes on. The
last line is one JSON object with the goal: fine-tuning raises the log loss of neither by more than chance
explains.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import topgraft as tg
from topgraft import metrics
from topgraft._finetune.result import gains
from topgraft.errors import DataError
from topgraft.run import Run
from topgraft.splits import folds

BACKBONES = ("mobilenetv1_100.tflite_in1k", "mobilenetv2_100.tflite_in1k")
FOLDS = 5


def finished(path: Path) -> Run | None:
    try:
        return Run.open(path)
    except DataError:
        return None


def answers(run: Run, place: dict[str, int], classes: tuple[str, ...], into: np.ndarray) -> None:
    for row in run.read_table("predictions.csv"):
        if row["split"] == "test":
            into[place[row["id"]]] = [max(float(row[f"p_{name}"]), 5e-7) for name in classes]


def study(shared: Path, name: str, work: Path, given: argparse.Namespace) -> dict[str, object]:
    data = tg.Dataset.from_folder(shared / "data" / "sushi_sandwich")
    backbone = tg.load_backbone(f"local-dir:{shared / 'weights' / name}")
    store = tg.embed(data, work / "features.zarr", backbone=backbone, policies=tg.draw(given.views))
    place = {one.id: i for i, one in enumerate(data.samples)}
    both = {way: np.full((len(data), len(data.classes)), np.nan) for way in ("frozen", "fine-tuned")}
    for number, (learn, test) in enumerate(folds(data.labels, data.groups, FOLDS, given.seed)):
        split = tg.Split(*(tuple(data.ids[i] for i in rows) for rows in (learn, [], test)))
        at = {way: work / f"fold-{number}-{way}" for way in both}
        run = finished(at["frozen"]) or tg.train(
            store, split, seed=given.seed, out=at["frozen"], backbone=backbone
        )
        tuned = finished(at["fine-tuned"]) or tg.finetune(
            run, data, blocks=given.blocks, views=given.views, out=at["fine-tuned"], resume=True
        )
        for way, one in (("frozen", run), ("fine-tuned", tuned)):
            answers(one, place, data.classes, both[way])
        inside = tuned.metrics.finetune
        right = {way: (p[test].argmax(1) == data.labels[test]).mean() for way, p in both.items()}
        print(
            f"{name} fold {number}: frozen {right['frozen']:.3f}, fine-tuned {right['fine-tuned']:.3f},"
            f" kept epochs {inside['best_epochs']} and {inside['epoch']}",
            flush=True,
        )
    facts: dict[str, object] = {}
    for way, p in both.items():
        loss = metrics.losses(data.labels, p)
        brief = metrics.brief(data.labels, p[None], losses=loss[None], groups=data.groups, seed=given.seed)
        facts[way] = {key: brief[key] for key in ("accuracy", "log_loss")}
    gain = gains(data.labels, both["fine-tuned"], both["frozen"], groups=data.groups, seed=given.seed)
    return facts | {"gain": {key: one.as_dict() for key, one in gain.items()}}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("shared", type=Path, help="the folder with data/ and weights/")
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--only", choices=BACKBONES)
    options.add_argument("--blocks", type=int, default=3)
    options.add_argument("--views", type=int, default=0, help="augmented views, for both")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    found = {}
    for name in [given.only] if given.only else BACKBONES:
        found[name] = study(given.shared, name, given.work / name, given)
        for way in ("frozen", "fine-tuned", "gain"):
            said = {
                key: " {value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**found[name][way][key])
                for key in ("accuracy", "log_loss")
            }
            print(f"{name} {way:10} accuracy{said['accuracy']}  log loss{said['log_loss']}", flush=True)
    ok = all(one["gain"]["log_loss"]["low"] <= 0 for one in found.values())
    choices = {"blocks": given.blocks, "views": given.views, "seed": given.seed}
    print(json.dumps({**choices, **found, "goal": {"log_loss_lost": 0}, "ok": ok}))


if __name__ == "__main__":
    main()
