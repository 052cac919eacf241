"""Fine-tuning from activations cached at the cut against full-forward PyTorch, in one process, pair by pair.

    python benchmarks/finetune.py                          # random weights: the time is the same
    python benchmarks/finetune.py --only resnet50 --rounds 1

Both read the same photos from files, decode and fit each once, and train the same blocks from the same
start, with the same batches, order and AdamW (fused), for 10 epochs with BatchNorm in inference mode, and
both measure the photos kept apart after every epoch. The other way is the network as timm makes it,
channels-last, with a head, its frozen part without gradients; its photos stay in memory as normalised
float32. Topgraft's time holds everything it does more: cutting the network, finding the cut in the backbone's
graph, pushing every photo through the prefix, writing the activations to disk (float16, synced), reading them
through the memory map, and a checkpoint every epoch. Which of the two goes first changes from round to round.
The last losses of both are printed: a speed that changed the training would show.

Goals: at least 3 times faster for MobileNet v1 and v2 (last 3 blocks), 2.5 times for ResNet50 (layer4).
"""

import argparse
import copy
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn

from topgraft import Dataset
from topgraft._finetune.checkpoint import Checkpoint
from topgraft._finetune.cut import cut
from topgraft._finetune.photos import activations
from topgraft._finetune.pixels import normalised
from topgraft._finetune.plan import Training
from topgraft._finetune.train import Tuned, batches, take_step, train
from topgraft.backbones._torch import groups, torch_model
from topgraft.backbones.fit import fit
from topgraft.heads._layers import Affine
from topgraft.importers.load import load_backbone
from topgraft.policies.policy import IDENTITY, View
from topgraft.schedules import cosine
from topgraft.settings import Settings, usable_cores
from topgraft.testing.drawing import draw_photos

EPOCHS, BLOCKS = 10, 3
TASKS = {  # architecture: (photos trained on, kept apart, goal)
    "mobilenetv1_100": (128, 32, 3.0),
    "mobilenetv2_100": (128, 32, 3.0),
    "resnet50": (96, 32, 2.5),
}
PLAN = Training(epochs=EPOCHS, patience=EPOCHS, batch=32, blend=1.0)  # the other way blends nothing
CPU = torch.device("cpu")


class Case:
    """One architecture, its photos and its start."""

    def __init__(self, name: str, photos: Path, cache: Path) -> None:
        self.name, self.cache = name, cache
        fitted, held, self.goal = TASKS[name]
        self.backbone = load_backbone(name, weights="random", settings=Settings(cache_dir=cache))
        self.model = torch_model(self.backbone).to(memory_format=torch.channels_last)
        self.model.requires_grad_(False)
        self.blocks = [names for _, names in groups(self.model)[-BLOCKS:]]
        self.start = copy.deepcopy(self.model.state_dict())
        data = Dataset.from_folder(photos)
        self.data = data.subset([data.ids[i] for i in np.random.default_rng(0).permutation(len(data))])
        self.data = self.data.subset(self.data.ids[: fitted + held])
        self.labels = self.data.labels
        order = np.random.default_rng(0).permutation(fitted + held)
        self.fit, self.held = order[:fitted], order[fitted:]
        self.head = Affine(np.zeros((self.model.num_features, 2), np.float32), np.zeros(2, np.float32))

    def cached(self) -> list[float]:
        """Topgraft's way; gives the loss after every epoch."""
        self.model.load_state_dict(self.start)
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings(cache_dir=Path(folder), threads=torch.get_num_threads())
            trained = [name for names in self.blocks for name in names]
            self.parts = cut(self.model, trained, self.backbone.card.input_size)
            feed = activations(self.data, [View(IDENTITY)], self.parts, self.backbone, settings=settings)
            net = Tuned(self.parts.tail, self.blocks, self.head)
            checkpoint = Checkpoint(Path(folder) / "checkpoint.safetensors", "")
            lines = train(net, feed, self.labels, PLAN, fit=self.fit, held=self.held, checkpoint=checkpoint)
        return [line["loss"] for line in lines[1:]]

    def forward(self) -> list[float]:
        """Everybody's way: the whole network at every step, no gradients for its frozen part."""
        self.model.load_state_dict(self.start)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            fitted = pool.map(lambda i: fit(self.data.image(i), self.backbone.card), range(len(self.data)))
            photos = normalised(np.stack(list(fitted)), self.backbone.card, CPU)
        net = Whole(self.model, self.blocks, self.head)
        optimiser = torch.optim.AdamW(net.groups(), weight_decay=PLAN.weight_decay, fused=True)
        factors = [group["lr"] for group in optimiser.param_groups]
        steps, losses = -(-len(self.fit) // PLAN.batch), []
        for epoch in range(EPOCHS):
            for step, (some, _) in enumerate(batches(self.fit, 1, PLAN, epoch)):
                share = cosine(epoch * steps + step, EPOCHS * steps, PLAN.warmup)
                for group, peak in zip(optimiser.param_groups, factors, strict=True):
                    group["lr"] = peak * share
                take_step(net, optimiser, (photos[some],), self.labels[some])
            with torch.inference_mode():
                right = torch.from_numpy(self.labels[self.held])
                losses.append(float(nn.functional.cross_entropy(net(photos[self.held]), right)))
        return losses


class Whole(nn.Module):
    """A network with a head, as anybody writes it."""

    def __init__(self, model: nn.Module, blocks: list[list[str]], head: Affine) -> None:
        super().__init__()
        self.model, self.blocks, self.head = model, blocks, nn.Linear(*head.weight.shape)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def groups(self) -> list[dict[str, object]]:
        """Give AdamW's groups: one rate a block and one for the head, as Topgraft has them."""
        known = dict(self.model.named_parameters())
        found: list[dict[str, object]] = []
        for above, names in enumerate(reversed(self.blocks)):
            weights = [known[name].requires_grad_(True) for name in names]
            found.append({"params": weights, "lr": PLAN.rate * PLAN.depth**above})
        return [*found, {"params": list(self.head.parameters()), "lr": PLAN.head_rate}]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Score pictures."""
        return self.head(self.model(images))


def timed(run) -> tuple[float, float]:
    """Give seconds and the last loss."""
    begun = time.perf_counter()
    losses = run()
    return time.perf_counter() - begun, losses[-1]


def compare(case: Case, rounds: int) -> dict[str, object]:
    ways = {"cached": case.cached, "forward": case.forward}
    pairs = []
    for number in range(rounds):
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        found = {way: timed(ways[way]) for way in order}
        spent = {way: seconds for way, (seconds, _) in found.items()}
        pairs.append(spent)
        print(
            f"{case.name:16} cached {spent['cached']:6.1f} s   full forward {spent['forward']:6.1f} s"
            f"   {spent['forward'] / spent['cached']:.2f} times   load {os.getloadavg()[0]:.1f}"
            f"   last losses {found['cached'][1]:.4f} {found['forward'][1]:.4f}",
            flush=True,
        )
    ratios = [one["forward"] / one["cached"] for one in pairs]
    return {
        "times_faster": round(float(np.median(ratios)), 2),
        "rounds": [round(one, 2) for one in ratios],
        "goal": case.goal,
        "cached_s": round(float(np.median([one["cached"] for one in pairs])), 2),
        "forward_s": round(float(np.median([one["forward"] for one in pairs])), 2),
        "kib_a_photo": round(case.parts.width * 2 / 1024, 1),
        "cut": list(case.parts.names),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--only", choices=TASKS)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=usable_cores())
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    figures = {}
    print(f"{given.threads} threads, load {os.getloadavg()[0]:.1f}, PyTorch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory(prefix="topgraft-bench-") as folder:
        photos = draw_photos(Path(folder) / "photos", 80, seed=0)
        for name in [given.only] if given.only else TASKS:
            case = Case(name, photos, Path(folder) / "cache")
            figures[name] = compare(case, given.rounds)
    ok = all(one["times_faster"] >= one["goal"] for one in figures.values())
    goal = {name: one["goal"] for name, one in figures.items()}
    print(json.dumps({"epochs": EPOCHS, "blocks": BLOCKS, "figures": figures, "goal": goal, "ok": ok}))


if __name__ == "__main__":
    main()
