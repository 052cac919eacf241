"""Topgraft against what people would use instead: the same draws, test photos and machine.

    python benchmarks/peers.py ../shared --work FOLDER [--sets sushi,waste,clothing,grocery,caltech]
        [--each 20] [--classes 20] [--draws 3] [--most 400]
        [--ways topgraft,lite0,as-they-are,topgraft-finetuned,logistic,finetune,fastai,keras] [--seconds 200]

For every set, draws so many photos of so many classes to learn from and answers for the rest, or for the
set's own test photos. All ways are given files and labels, and begin with EfficientNet-Lite0's ImageNet
weights; `topgraft` and `as-they-are` try Lite2's as well, and `keras` has MobileNet v1's:

- `topgraft`: `topgraft.train` as it comes, every photo learned from, and its predictor.
- `lite0`: the same with `--backbone tf_efficientnet_lite0`.
- `as-they-are`: the same with `--policies 0`.
- `topgraft-finetuned`: `lite0`, and its last blocks fine-tuned, where that is kept.
- `logistic`: last-layer features of photos as they are, standardised, scikit-learn's LogisticRegressionCV
  (5 folds, 10 strengths, chosen by log loss).
- `finetune`: PyTorch, all layers, AdamW, one-cycle, flips and random resized crops, 30 epochs, batches of 16,
  a rate of 1e-4 and BatchNorm's statistics frozen: the lowest mean log loss of 1e-4, 3e-4 and 1e-3, frozen
  and not, on six draws of four sets.
- `fastai`: `fine_tune(8)` with its own defaults, where fastai is installed.
- `keras`: the job Topgraft began with, on MobileNet v1's weights, where Keras is installed: features under 16
  ImageDataGenerators drawn from the grid of 288, a top with a hidden layer of 256, then the last three blocks
  at a rate of 1e-4, 10 epochs. Dropout 0.75, 5 epochs at 1e-3: the lowest mean log loss of three such recipes
  (1e-3 and 5 or 20 epochs, 1e-4 and 20) on two draws each of sushi and waste.

Each way and draw runs in a process of its own, which gives its wall time and its processors' seconds (from
files to answers, with imports; the latter hardly depend on what else runs) and its peak memory. Where PyTorch
finds a GPU it is used, and the way is not timed.
What is in FOLDER already is not measured again; after `--seconds` nothing is begun. Prints a Markdown table
with paired intervals against `topgraft` over the draws of a set that both did, and as its last line one JSON
object: on what share of the sets Topgraft is at or above every other way in accuracy and log loss, within
chance (goal: four of five), and in what share of fine-tuning's time (goal: a twentieth).
"""

import argparse
import inspect
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from depths import SETS, drawn, photos_of

from topgraft.metrics import losses
from topgraft.selection.ensemble import paired, paired_loss

GOAL = {"sets_at_or_above": 0.8, "share_of_finetuning_time": 0.05}
OURS = ("topgraft", "lite0", "as-they-are", "topgraft-finetuned")
SIDE, EPOCHS, BATCH, RATE = 224, 30, 16, 1e-4


# The ways: each takes the files and labels to learn from and the files to answer for, and returns (m, C).


def topgraft(learn, labels, rest, tuned=False, **choices):
    import topgraft as tg

    with tempfile.TemporaryDirectory() as folder:
        data = tg.Dataset.from_pairs(learn, [f"{label:03}" for label in labels])
        run = tg.train(data, test=0, **choices, out=Path(folder, "run"))
        run = tg.finetune(run, data, out=Path(folder, "tuned")) if tuned else run
        return np.array([list(found.probabilities.values()) for found in tg.load(run).predict(rest)])


def lite0(learn, labels, rest):
    return topgraft(learn, labels, rest, backbone="tf_efficientnet_lite0")


def as_they_are(learn, labels, rest):
    return topgraft(learn, labels, rest, policies=0)


def topgraft_finetuned(learn, labels, rest):
    return topgraft(learn, labels, rest, tuned=True, backbone="tf_efficientnet_lite0")


def logistic(learn, labels, rest):
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(Cs=np.logspace(-5, 1, 10), cv=5, scoring="neg_log_loss", max_iter=3000),
    )
    return model.fit(features(learn), labels).predict_proba(features(rest))


def features(files):
    """Embed files with the backbone's graph as anybody would: (N, 1280)."""
    from topgraft import load_backbone
    from topgraft.backbones.fit import fit
    from topgraft.engines import open_engine
    from topgraft.photos.decode import decode

    backbone = load_backbone()
    with open_engine(backbone) as engine:
        return np.concatenate(
            [
                engine.embed(
                    np.stack(
                        [
                            fit(decode(path.read_bytes(), path.name), backbone.card)
                            for path in files[at : at + 32]
                        ]
                    )
                )
                for at in range(0, len(files), 32)
            ]
        )


def keras(learn, labels, rest):
    import keras
    from embed import as_keras
    from embed_keras import mobilenet
    from keras import layers
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    from topgraft import draw

    keras.utils.set_random_seed(0)

    def pixels(files):
        opened = (keras.utils.load_img(path, target_size=(SIDE, SIDE)) for path in files)
        return np.stack([keras.utils.img_to_array(photo) for photo in opened]) / 127.5 - 1

    photos, targets = pixels(learn), np.array(labels)
    base = mobilenet(Path(sys.argv[1], "weights/mobilenetv1_100.tflite_in1k/model.safetensors"))
    seen = [base.predict(photos, verbose=0)]
    for policy in draw(16, seed=0):
        maker = ImageDataGenerator(**as_keras(policy)).flow(photos, batch_size=len(photos), shuffle=False)
        seen.append(base.predict(next(maker), verbose=0))
    top = keras.Sequential(
        [
            *(layers.BatchNormalization(), layers.Dropout(0.75), layers.Dense(256, activation="relu")),
            *(layers.BatchNormalization(), layers.Dropout(0.75)),
            layers.Dense(int(targets.max()) + 1, activation="softmax"),
        ]
    )
    top.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    top.fit(np.concatenate(seen), np.tile(targets, len(seen)), batch_size=32, epochs=5, verbose=0)
    for layer in base.layers:
        layer.trainable = "_11" <= layer.name[-3:] <= "_13" and "bn" not in layer.name
    whole = keras.Model(base.input, top(base.output, training=False))
    whole.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "sparse_categorical_crossentropy")
    whole.fit(photos, targets, batch_size=BATCH, epochs=10, verbose=0)
    return whole.predict(pixels(rest), verbose=0).astype(np.float64)


def network(classes):
    """EfficientNet-Lite0's weights in timm's network, with a new classifier."""
    from topgraft import load_backbone
    from topgraft.backbones._torch import torch_model

    model = torch_model(load_backbone())
    model.reset_classifier(classes)
    return model


def finetune(learn, labels, rest):
    import torch
    from PIL import Image
    from torchvision.transforms import v2

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    shown = v2.Compose([v2.RandomResizedCrop(SIDE, (0.5, 1)), v2.RandomHorizontalFlip(), *plain])
    seen = v2.Compose([v2.Resize(256), v2.CenterCrop(SIDE), *plain])
    photos = [Image.open(path).convert("RGB") for path in learn]
    targets, model = torch.tensor(labels), network(int(max(labels)) + 1).to(device)
    rounds = EPOCHS * -(-len(photos) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=rounds)
    for _ in range(EPOCHS):
        model.eval()  # BatchNorm keeps ImageNet's statistics: batches of 16 give poor ones
        for at in torch.randperm(len(photos)).split(BATCH):
            batch = torch.stack([shown(photos[i]) for i in at])
            loss = torch.nn.functional.cross_entropy(model(batch.to(device)), targets[at].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
    model.eval()
    with torch.inference_mode():
        return np.concatenate(
            [
                model(seen(Image.open(path).convert("RGB"))[None].to(device)).softmax(1).cpu().numpy()
                for path in rest
            ]
        ).astype(np.float64)


def fastai(learn, labels, rest):
    from fastai.vision import all as fa

    label_of = dict(zip(learn, labels, strict=True))  # fastai takes a tuple apart
    block = fa.DataBlock(
        (fa.ImageBlock, fa.CategoryBlock(vocab=sorted(set(labels)))),
        get_y=label_of.get,
        splitter=lambda paths: (list(range(len(paths))), []),
        item_tfms=fa.Resize(256),
        batch_tfms=[*fa.aug_transforms(size=SIDE), fa.Normalize.from_stats([0.5] * 3, [0.5] * 3)],
    )
    loaders = block.dataloaders(learn, bs=BATCH, num_workers=0)

    def body_and_classifier(net):
        body = [weight for name, weight in net.named_parameters() if "classifier" not in name]
        return [body, list(net.classifier.parameters())]

    learner = fa.Learner(loaders, network(len(set(labels))), splitter=body_and_classifier)
    learner.fine_tune(8)
    said, _ = learner.get_preds(dl=loaders.test_dl(rest, num_workers=0))
    return said.numpy().astype(np.float64)


WAYS = {
    "topgraft": topgraft,
    "lite0": lite0,
    "as-they-are": as_they_are,
    "topgraft-finetuned": topgraft_finetuned,
    "logistic": logistic,
    "finetune": finetune,
    "fastai": fastai,
    "keras": keras,
}


def one(way, job):
    """Do one way on one draw, in a process of its own: answers go to a file, facts to stdout."""
    begun = time.perf_counter()
    asked = json.loads(Path(job).read_text())
    paths = {side: [Path(path) for path in asked[side]] for side in ("learn", "rest")}
    try:
        answers = WAYS[way](paths["learn"], asked["labels"], paths["rest"])
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    np.save(Path(job).with_name(f"{way}.npy"), answers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    facts = {"seconds": time.perf_counter() - begun, "cpu_seconds": sum(os.times()[:4]), "peak_mb": peak}
    if way in ("finetune", "fastai") and sys.modules["torch"].cuda.is_available():
        facts = dict.fromkeys(facts)
    print(json.dumps(facts))


def jobs(given, name):
    """Write what each draw of a set is to learn from and to answer for; yields folders."""
    data = photos_of(given.shared, name, given.work)
    labels = np.array([sample.label for sample in data.samples])
    own = np.array([sample.split == SETS[name][1] for sample in data.samples]) if SETS[name][1] else None
    for seed in range(given.draws):
        folder = given.work / f"{name}-{given.each}-{seed}"
        folder.mkdir(exist_ok=True)
        learn, rest = drawn(labels, given.each, own, seed, len(labels))
        classes = np.unique(labels[learn])
        dice = np.random.default_rng([seed, given.classes])
        classes = np.sort(dice.permutation(classes)[: given.classes])
        learn = learn[np.isin(labels[learn], classes)]
        rest = dice.permutation(rest[np.isin(labels[rest], classes)])[: given.most]
        facts = {
            "learn": [str(data.location(i)) for i in learn],
            "labels": np.searchsorted(classes, labels[learn]).tolist(),
            "rest": [str(data.location(i)) for i in rest],
            "truth": np.searchsorted(classes, labels[rest]).tolist(),
        }
        (folder / "job.json").write_text(json.dumps(facts))
        yield folder


def measured(given, folder, way, ends):
    """Return the answers and facts of one way on one draw; None where it was not run."""
    noted, answers = folder / f"{way}.json", folder / f"{way}.npy"
    if not noted.exists():
        if time.monotonic() > ends:
            return None
        command = [sys.executable, __file__, str(given.shared), "--one", way, str(folder / "job.json")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
        noted.write_text(done.stdout.splitlines()[-1])
    facts = json.loads(noted.read_text())
    return None if "missing" in facts else (np.load(answers), facts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--each", type=int, default=20, help="photos of a class to learn from")
    parser.add_argument("--classes", type=int, default=20, help="classes of a draw, at most")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--most", type=int, default=400)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "JOB"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(*given.one)
        return
    if given.work is None:
        parser.error("--work names a folder, for what takes long is kept there")
    given.work.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + given.seconds
    print(
        "| set | way | draws | accuracy | log loss | difference in accuracy | in log loss | s | CPU s | MB |"
        " lines |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = [row for name in given.sets.split(",") for row in compared(given, name, ends)]
    print(json.dumps({**verdict(rows), "rows": rows}))


def compared(given, name, ends):
    """Run all ways on all draws of a set and print a row each."""
    folders = list(jobs(given, name))
    found = {way: [measured(given, folder, way, ends) for folder in folders] for way in given.ways.split(",")}
    rows = []
    for way, done in found.items():
        both = [
            i for i, (ours, theirs) in enumerate(zip(found["topgraft"], done, strict=True)) if ours and theirs
        ]
        if not both:
            continue
        truth = np.concatenate([json.loads((folders[i] / "job.json").read_text())["truth"] for i in both])
        ours = np.concatenate([found["topgraft"][i][0] for i in both])
        theirs = np.concatenate([done[i][0] for i in both])
        right, loss = paired(truth, ours, theirs), paired_loss(truth, ours, theirs)
        timed = [i for i in both if done[i][1]["seconds"] is not None]
        row = {
            "set": name,
            "way": way,
            "draws": len(both),
            "accuracy": float((theirs.argmax(axis=1) == truth).mean()),
            "log_loss": float(losses(truth, theirs).mean()),
            "accuracy_gap": right.as_dict(),
            "log_loss_gap": loss.as_dict(),
            "seconds": mean([done[i][1]["seconds"] for i in timed]),
            "cpu_seconds": mean([done[i][1]["cpu_seconds"] for i in timed]),
            "topgraft_cpu_seconds": mean([found["topgraft"][i][1]["cpu_seconds"] for i in timed]),
            "peak_mb": max((done[i][1]["peak_mb"] for i in timed), default=None),
            "lines": sum(1 for line in inspect.getsource(WAYS[way]).splitlines()[1:] if line.strip()),
        }
        rows.append(row)
        print(
            f"| {name} | {way} | {len(both)} | {row['accuracy']:.3f} | {row['log_loss']:.3f} |"
            f" {right.value:+.3f} [{right.low:+.3f}, {right.high:+.3f}] |"
            f" {loss.value:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}] | {shown(row['seconds'])} |"
            f" {shown(row['cpu_seconds'])} |"
            f" {shown(row['peak_mb'])} | {row['lines']} |",
            flush=True,
        )
    return rows


def mean(figures):
    return float(np.mean(figures)) if figures else None


def shown(figure):
    return "not timed" if figure is None else f"{figure:.0f}"


def verdict(rows):
    """Say on how many sets Topgraft is at or above all others, within what chance explains."""
    rivals = [row for row in rows if row["way"] not in OURS]
    sets = {row["set"] for row in rivals}
    lost = {row["set"] for row in rivals if row["accuracy_gap"]["high"] < 0 or row["log_loss_gap"]["low"] > 0}
    slow = [
        row["topgraft_cpu_seconds"] / row["cpu_seconds"]
        for row in rivals
        if row["way"] == "finetune" and row["cpu_seconds"]
    ]
    share = (len(sets) - len(lost)) / max(1, len(sets))
    time_share = float(np.mean(slow)) if slow else None
    return {
        "sets_at_or_above": share,
        "lost": sorted(lost),
        "share_of_finetuning_time": time_share,
        "goal": GOAL,
        "ok": share >= GOAL["sets_at_or_above"]
        and time_share is not None
        and time_share <= GOAL["share_of_finetuning_time"],
    }


if __name__ == "__main__":
    main()
