"""How many photos of neither class each distance calls unknown: the table of docs/heads.md.

    python benchmarks/unknown.py PHOTOS STRANGERS.tar [--backbone NAME]

Each distance accepts 95 % of photos it was not fitted on. It is asked about photos of other things as they
come, and again with all photos brought to the strangers' size and JPEG quality first, so that sharpness tells
nothing. Beside it stands the evidence a run has without any stranger: class against class. Prints Markdown,
and as its last line one JSON object with the goal: the distance that is taken finds nine strangers in ten, as
they come and brought to one size.
"""

import argparse
import io
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import topgraft as tg
from topgraft.heads._base import head_class
from topgraft.selection.calibrate import calibrate
from topgraft.selection.compare import compare, fit_chosen
from topgraft.trust.unknown import (
    Energy,
    choose,
    class_against_class,
    mahalanobis,
    measure,
    neighbours,
    threshold,
)

SIDE, QUALITY = 144, 85
GOAL = 0.9
"""Of the strangers, how many are to be found."""


def shrink(data: bytes) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = SIDE / min(image.size)
    small = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def features(folder: Path, pairs: list[tuple[str, bytes]], backbone: str) -> tg.FeatureStore:
    for name, data in pairs:
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "photos" / name).write_bytes(data)
    names = sorted(name for name, _ in pairs)
    paths = [str(folder / "photos" / name) for name in names]
    data = tg.Dataset.from_pairs(paths, [name.split("/")[0] for name in names])
    return tg.embed(data, folder / "features.zarr", backbone=backbone)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("photos", type=Path)
    parse.add_argument("strangers", type=Path, help="a tar of photos")
    parse.add_argument("--backbone", default="tf_efficientnet_lite0.in1k")
    parse.add_argument("--every", type=int, default=9, help="take every so-manieth stranger")
    given = parse.parse_args()

    known = [(f"{path.parent.name}/{path.name}", path.read_bytes()) for path in given.photos.glob("*/*.jpg")]
    with tarfile.open(given.strangers) as tar:
        members = sorted(
            (member for member in tar if member.name.endswith(".jpg")), key=lambda member: member.name
        )
        strange = [
            (f"other/{member.name.strip('./').replace('/', '_')}", tar.extractfile(member).read())
            for member in members[:: given.every]
        ]
    table: dict[str, list[str]] = {}
    taken: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        far = features(Path(folder) / "far", strange, given.backbone).features(0).astype(np.float32)
        for size in ("as they come", f"{SIDE} px"):
            pairs = known if size == "as they come" else [(name, shrink(data)) for name, data in known]
            store = features(Path(folder) / size, pairs, given.backbone)
            x, y = store.features(0).astype(np.float32), store.labels
            found = compare(store, y, store.groups, heads=["logistic"])
            temperature = calibrate(found.logits, y)
            fits = {
                "neighbours": lambda rows, x=x: neighbours(x[rows]),
                "mahalanobis": lambda rows, x=x, y=y: mahalanobis(x[rows], y[rows]),
                "energy": lambda _rows, temperature=temperature: Energy(temperature),
            }
            evidence = class_against_class(
                x, y, store.groups, kind=head_class("logistic"), setting=found.chosen.setting, seed=0, k=5
            )
            logits = fit_chosen(found, store, y, store.groups).logits(far)
            for name, fit in fits.items():
                distances = np.empty(len(x))
                for train, score in found.folds[0]:
                    distances[score] = measure(fit(train), x[score], found.logits[0, score])
                said = measure(fit(np.arange(len(x))), far, logits) > threshold(distances)
                mark = ""
                if name == choose(evidence):
                    mark, taken[size] = " (taken)", float(said.mean())
                told = f"{evidence[name][0]:.2f}" if name in evidence else "none with two classes"
                table.setdefault(name, []).append(f"{said.mean():.1%}{mark} | {told}")
    print(f"{len(known)} photos, {len(strange)} strangers, {given.backbone}.\n")
    print(
        f"| distance | called unknown | class against class | the same at {SIDE} px | class against class |"
    )
    print("| --- | --- | --- | --- | --- |")
    for name, cells in table.items():
        print(f"| {name} | {' | '.join(cells)} |")
    print(json.dumps({"found_by_taken": taken, "goal": GOAL, "ok": min(taken.values()) >= GOAL}))


if __name__ == "__main__":
    main()
