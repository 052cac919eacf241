"""Fine-tuning from activations cached at the cut against full-forward PyTorch, in one process, pair by pair.

    python benchmarks/finetune.py                          # random weights: the time is the same
    python benchmarks/finetune.py --only resnet50 --rounds 1

Both train the same blocks from the same start, with the same photos, batches, order and AdamW (fused), for
10 epochs in channels-last memory with BatchNorm in inference mode, and both measure the photos kept apart
after every epoch. Topgraft's time holds everything it does more: cutting the network, pushing every photo
through the prefix, writing the activations to disk (float16, synced), reading them through the memory map,
and a checkpoint every epoch. The other's photos lie in memory as normalised float32, and its frozen prefix
runs under `no_grad`. Which of the two goes first changes from round to round.

Goals: at least 3 times faster for MobileNet v1 and v2 (last 3 blocks), 2.5 times for ResNet50 (layer4).
"""

import argparse
import copy
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch

from topgraft._finetune_cache import Activations
from topgraft._finetune_checkpoint import Checkpoint
from topgraft._finetune_cut import cut
from topgraft._finetune_plan import Training
from topgraft._finetune_train import Feed, Tuned, batches, pack, take_step, train
from topgraft.backbones._timm import groups
from topgraft.heads._base import Affine
from topgraft.settings import usable_cores

EPOCHS, SIDE, BLOCKS, PREFIX_BATCH = 10, 224, 3, 8
TASKS = {  # architecture: (photos trained on, kept apart, goal)
    "mobilenetv1_100": (128, 32, 3.0),
    "mobilenetv2_100": (128, 32, 3.0),
    "resnet50": (96, 32, 2.5),
}
PLAN = Training(epochs=EPOCHS, patience=EPOCHS, batch=32)


class Case:
    """One architecture, its photos and its start."""

    def __init__(self, name: str) -> None:
        self.name = name
        fitted, held, self.goal = TASKS[name]
        torch.manual_seed(0)
        self.model = timm.create_model(name, num_classes=0).eval().to(memory_format=torch.channels_last)
        self.model.requires_grad_(False)
        self.blocks = [names for _, names in groups(self.model)[-BLOCKS:]]
        self.start = copy.deepcopy(self.model.state_dict())
        drawn = torch.randn(fitted + held, 3, SIDE, SIDE)
        self.photos = drawn.contiguous(memory_format=torch.channels_last)
        self.labels = np.arange(fitted + held) % 2
        self.fit, self.held = np.arange(fitted), np.arange(fitted, fitted + held)
        self.head = Affine(np.zeros((self.model.num_features, 2), np.float32), np.zeros(2, np.float32))

    def cut(self):
        """Put the network back to its start and cut it."""
        self.model.load_state_dict(self.start)
        return cut(self.model, [name for names in self.blocks for name in names], (SIDE, SIDE))

    def cached(self) -> list[float]:
        """Topgraft's way; gives the loss after every epoch."""
        with tempfile.TemporaryDirectory() as folder:
            parts = self.cut()
            kept = Activations(Path(folder) / "cut", parts.width)
            keys = [(str(i), "identity") for i in range(len(self.photos))]
            with kept.writing(), torch.inference_mode():
                for i in range(0, len(keys), PREFIX_BATCH):
                    rows = pack(parts.prefix(self.photos[i : i + PREFIX_BATCH]))
                    kept.add(keys[i : i + PREFIX_BATCH], rows.numpy())
            feed = Feed(kept.rows(), kept.places(keys)[None], parts.shapes)
            net = Tuned(parts.tail, self.blocks, self.head)
            checkpoint = Checkpoint(Path(folder) / "checkpoint.safetensors", "")
            lines = train(net, feed, self.labels, PLAN, fit=self.fit, held=self.held, checkpoint=checkpoint)
        return [line["loss"] for line in lines[1:]]

    def forward(self) -> list[float]:
        """Everybody's way: the whole network at every step, its frozen prefix under no_grad."""
        parts = self.cut()
        net = Tuned(parts.tail, self.blocks, self.head)
        optimiser = torch.optim.AdamW(net.groups(PLAN), weight_decay=PLAN.weight_decay, fused=True)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"]
        losses = []
        for epoch in range(EPOCHS):
            for photos, _ in batches(self.fit, 1, PLAN, epoch):
                with torch.no_grad():
                    inputs = parts.prefix(self.photos[photos])
                take_step(net, optimiser, inputs, self.labels[photos])
            with torch.inference_mode():
                answers = net(*parts.prefix(self.photos[self.held]))
                right = torch.from_numpy(self.labels[self.held])
                losses.append(float(torch.nn.functional.cross_entropy(answers, right)))
        return losses


def timed(run) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--only", choices=TASKS)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=usable_cores())
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    figures, ok = {}, True
    print(f"{given.threads} threads, load {os.getloadavg()[0]:.1f}, PyTorch {torch.__version__}", flush=True)
    for name in [given.only] if given.only else TASKS:
        case = Case(name)
        parts = case.cut()
        ways = {"cached": case.cached, "forward": case.forward}
        with torch.no_grad():
            case.model(case.photos[:32])
        pairs = []
        for number in range(given.rounds):
            order = list(ways) if number % 2 == 0 else list(reversed(ways))
            spent = {way: timed(ways[way]) for way in order}
            pairs.append(spent)
            print(
                f"{name:16} cached {spent['cached']:6.1f} s   full forward {spent['forward']:6.1f} s"
                f"   {spent['forward'] / spent['cached']:.2f} times   load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        times = float(np.median([one["forward"] / one["cached"] for one in pairs]))
        figures[name] = {
            "times_faster": round(times, 2),
            "goal": case.goal,
            "cached_s": round(float(np.median([one["cached"] for one in pairs])), 2),
            "forward_s": round(float(np.median([one["forward"] for one in pairs])), 2),
            "kib_a_photo": round(parts.width * 2 / 1024, 1),
            "cut": list(parts.names),
        }
        ok &= times >= case.goal
    print(json.dumps({"epochs": EPOCHS, "blocks": BLOCKS, "figures": figures, "ok": bool(ok)}))


if __name__ == "__main__":
    main()
