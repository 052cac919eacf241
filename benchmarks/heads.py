"""Network heads trained together against the same heads fitted one after the other, in one process.

    python benchmarks/heads.py                      # features drawn here
    python benchmarks/heads.py --store features.zarr

Pair by pair: for each head, all its settings on 5 folds × 2 repeats are swept by Topgraft and then fitted by
an ordinary training loop (one `nn.Module`, one optimizer, one head after the other), in turns which goes
first. Both have the same shapes, data, folds, inner splits, batch size, most epochs, patience, schedule and
stopping. Both standardise a fold and find its axes once for all heads, and the time of that counts. Both may
use all cores, the loop as many threads as suit it best (tried first).

The goal is on the sum over all heads: at least 5 times faster. Scores of both are printed beside the times: a
speed that cost accuracy would show.
"""

import argparse
import copy
import json
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from topgraft.heads._axes import Inputs, prepare
from topgraft.heads._network import MLP, T1, Deep, Light, LinearBN, Network, TwoDense
from topgraft.heads._torch_feed import Plan
from topgraft.metrics import losses
from topgraft.settings import usable_cores
from topgraft.splits import folds as make_folds

GOAL = 5.0
HEADS = (LinearBN, Light, T1, TwoDense, MLP, Deep)
PLAN = Plan()


def drawn(photos: int = 160, views: int = 17, width: int = 1280) -> tuple[np.ndarray, np.ndarray]:
    """Two classes about as hard to tell as sushi and sandwiches, with features as correlated as real ones."""
    rng = np.random.default_rng(0)
    labels = np.arange(photos) % 2
    mixing = rng.standard_normal((256, width)) * (np.arange(1, 257) ** -0.5)[:, None]
    own = rng.standard_normal((photos, 256)) + np.outer(labels, 0.17 * rng.standard_normal(256))
    rows = (own + 0.6 * rng.standard_normal((views, photos, 256))) @ mixing
    rows += 0.3 * rng.standard_normal(rows.shape)
    return rows.astype(np.float32), labels


def stored(path: str) -> tuple[np.ndarray, np.ndarray]:
    from topgraft.store import FeatureStore

    store = FeatureStore.open(path)
    views = [store.features(view) for view in range(len(store.views))]
    return np.stack(views).astype(np.float32), store.labels


@dataclass
class Fold:
    """What the ordinary loop reads: standardised rows (V, N, D), axes (D, K), projected rows (V, N, K)."""

    inputs: Inputs
    rows: torch.Tensor
    axes: torch.Tensor
    projected: torch.Tensor


def ready(features: np.ndarray, labels: np.ndarray, fit: np.ndarray) -> Fold:
    given = prepare(features, labels, None, fit, seed=0)
    scale = features[:, given.rows].reshape(-1, features.shape[2]).std(axis=0)
    rows = torch.from_numpy((features - given.centre) / scale)
    axes = torch.from_numpy(given.projection * scale[:, None])
    return Fold(given, rows, axes, rows @ axes)


class Plain(nn.Module):
    """A head as one writes it: Dropout on the features, the fixed axes, then Dense layers."""

    def __init__(self, head: Network, axes: torch.Tensor, width: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("axes", axes)
        self.drop = nn.Dropout(head.dropout) if head.shape.drop_input and head.dropout else None
        layers: list[nn.Module] = []
        before = axes.shape[1]
        for units in head.shape.widths:
            layers += [nn.Linear(before, units), nn.ReLU()]
            layers += [nn.BatchNorm1d(units)] if head.shape.norm else []
            layers += [nn.Dropout(head.dropout)] if head.shape.drop_hidden and head.dropout else []
            before = units
        self.layers = nn.Sequential(*layers, nn.Linear(before, classes))
        with torch.no_grad():  # the same start as in the width of the features
            self.layers[0].weight.mul_((axes.shape[1] / width) ** 0.5)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Score rows (B, D) where there is Dropout on features, else (B, K)."""
        return self.layers(rows if self.drop is None else self.drop(rows) @ self.axes)


def fit_one(head: Network, fold: Fold, labels: torch.Tensor) -> tuple[Plain, int]:
    """Train one head on one fold the ordinary way; give it with the epochs it took."""
    given = fold.inputs
    torch.manual_seed(0)
    module = Plain(head, fold.axes, fold.rows.shape[2], int(labels.max()) + 1)
    data = fold.projected if module.drop is None else fold.rows
    rows, stop = torch.from_numpy(given.rows), torch.from_numpy(given.stop)
    optimizer = torch.optim.AdamW(module.parameters(), lr=head.rate, weight_decay=head.decay)
    steps = PLAN.steps_of(len(rows))
    factors = PLAN.rates(PLAN.epochs * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factors[min(step, len(factors) - 1)])
    best, since, kept, epochs = float("inf"), 0, module.state_dict(), 0
    while epochs < PLAN.epochs and since < PLAN.patience:
        epochs += 1
        module.train()
        views = torch.randint(len(data), (len(rows),))
        order = torch.randperm(len(rows))
        for part in order.tensor_split(steps):
            loss = nn.functional.cross_entropy(module(data[views[part], rows[part]]), labels[rows[part]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        module.eval()
        with torch.no_grad():
            now = nn.functional.cross_entropy(module(data[0, stop]), labels[stop]).item()
        since += 1
        if now < best:
            best, since, kept = now, 0, copy.deepcopy(module.state_dict())
    module.load_state_dict(kept)
    return module, epochs


def loop(
    top: type[Network], folds: list[Fold], held: list[np.ndarray], labels: torch.Tensor
) -> tuple[list, int]:
    """Fit every setting on every fold, one after the other; give held-out logits (S, n, C) and epochs."""
    found, epochs = [], 0
    for fold, score in zip(folds, held, strict=True):
        scored = []
        for setting in top.grid():
            module, took = fit_one(top(**setting), fold, labels)
            epochs += took
            module.eval()
            with torch.no_grad():
                rows = (fold.projected if module.drop is None else fold.rows)[0, torch.from_numpy(score)]
                scored.append(module(rows).double().numpy())
        found.append(np.stack(scored))
    return found, epochs


def quality(found: list[np.ndarray], held: list[np.ndarray], labels: np.ndarray) -> tuple[float, float]:
    """Accuracy and log loss over all settings and folds."""
    right, loss = [], []
    for logits, score in zip(found, held, strict=True):
        odds = np.exp(logits - logits.max(axis=2, keepdims=True))
        probabilities = odds / odds.sum(axis=2, keepdims=True)
        right.append((logits.argmax(axis=2) == labels[score]).mean())
        loss.append(np.mean([losses(labels[score], repeat).mean() for repeat in probabilities]))
    return float(np.mean(right)), float(np.mean(loss))


def best_threads(folds: list[Fold], labels: torch.Tensor) -> int:
    times = {}
    for threads in sorted({1, usable_cores()}):
        torch.set_num_threads(threads)
        fit_one(T1(), folds[0], labels)
        start = time.perf_counter()
        for fold in folds[:3]:
            fit_one(T1(), fold, labels)
        times[threads] = time.perf_counter() - start
    return min(times, key=lambda threads: times[threads])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    features, labels = stored(options.store) if options.store else drawn()
    cut = [pair for repeat in range(2) for pair in make_folds(labels, None, 5, repeat)]
    held = [score for _, score in cut]
    folds = [ready(features, labels, fit) for fit, _ in cut]
    target = torch.from_numpy(labels)
    threads = best_threads(folds, target)
    print(
        "photos, views, features:",
        *features.shape[1::-1],
        features.shape[2],
        "| threads of the loop:",
        threads,
    )

    together: dict[str, list[float]] = {top.name: [] for top in HEADS}
    alone: dict[str, list[float]] = {name: [] for name in ["folds", *together]}
    for turn in range(options.rounds):
        start = time.perf_counter()
        folds = [ready(features, labels, fit) for fit, _ in cut]
        alone["folds"].append(time.perf_counter() - start)
        for top in HEADS:
            for ours in (True, False) if turn % 2 == 0 else (False, True):
                torch.set_num_threads(threads)
                start = time.perf_counter()
                if ours:
                    found = top.sweep(features, labels, cut, top.grid(), classes=int(labels.max()) + 1)
                    together[top.name].append(time.perf_counter() - start)
                    mine = quality(found, held, labels)
                else:
                    found, epochs = loop(top, folds, held, target)
                    alone[top.name].append(time.perf_counter() - start)
                    theirs = quality(found, held, labels)
            models = len(cut) * len(top.grid())
            ours_s, theirs_s = together[top.name][-1], alone[top.name][-1]
            print(
                f"round {turn + 1} {top.name:10}{models:3} models  together {ours_s:5.2f} s  one by one"
                f" {theirs_s:5.2f} s {theirs_s / ours_s:5.1f}×  accuracy {mine[0]:.3f} {theirs[0]:.3f}"
                f"  log loss {mine[1]:.3f} {theirs[1]:.3f}  {epochs / models:.0f} epochs",
                flush=True,
            )
    ratios = [
        sum(times[turn] for times in alone.values()) / sum(times[turn] for times in together.values())
        for turn in range(options.rounds)
    ]
    figures = {
        "times_faster": float(np.median(ratios)),
        "rounds": ratios,
        "together_s": {name: float(np.median(values)) for name, values in together.items()},
        "one_by_one_s": {name: float(np.median(values)) for name, values in alone.items()},
        "goal": GOAL,
        "ok": bool(np.median(ratios) >= GOAL),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
