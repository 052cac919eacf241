"""Train a tail and its head on activations kept at the cut.

AdamW with one rate a block (each block that lies deeper learns slower), cosine with warm-up, early stopping
on photos kept apart, the best weights kept. Every epoch has a checkpoint, written while the next one is
trained; a training that was killed goes on from it and ends with the same bits, because nothing is drawn from
a state: the order of an epoch is a function of seed and epoch.

The result lies a quarter of the way from the weights it began with to the trained ones: on few photos a
training soon knows its photos by heart, and the way there is better than its end.

Sources: the head first, then all, Kumar et al. 2022 (arXiv:2202.10054); weights on the way between, Wortsman
et al. 2022, "Robust fine-tuning of zero-shot models" (arXiv:2109.01903); one rate a block, Howard and Ruder
2018, "Universal language model fine-tuning" (arXiv:1801.06146); AdamW, Loshchilov and Hutter 2019
(arXiv:1711.05101).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from topgraft._finetune.checkpoint import Checkpoint, SoFar
from topgraft._finetune.plan import Line, Training
from topgraft.errors import UsageError
from topgraft.heads._layers import Affine
from topgraft.schedules import cosine
from topgraft.types import Labels, Logits

Standard = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(mean, scale) of each column (w,): z = (x - mean) * scale."""


class TailInputs:
    """Activations as the tail wants them.

    Args:
        rows: (n, width) float16 or float32, usually a memory map.
        places: (V, N) the row of each view of each photo.
        shapes: of the activations that make a row, without the batch.
        device: where the tail lives.
    """

    def __init__(
        self,
        rows: NDArray[Any],
        places: NDArray[np.int64],
        shapes: Sequence[tuple[int, ...]],
        device: torch.device | None = None,
    ) -> None:
        self.rows, self.places = rows, places
        self.shapes = list(shapes)
        self.device = device or torch.device("cpu")

    @property
    def views(self) -> int:
        """V."""
        return len(self.places)

    def take(self, photos: Labels, views: Labels | int = 0) -> tuple[Tensor, ...]:
        """Return the activations of some photos, each in the view it is asked for."""
        chosen = torch.from_numpy(np.asarray(self.rows[self.places[views, photos]]))
        flat = chosen.to(self.device).float()
        parts = flat.split([int(np.prod(shape)) for shape in self.shapes], dim=1)
        return tuple(unpack(part, shape) for part, shape in zip(parts, self.shapes, strict=True))


def pack(values: Sequence[Tensor]) -> Tensor:
    """Lay the activations of each picture in one row (n, width); maps with their channels last."""
    return torch.cat([_channels_last(value).flatten(1) for value in values], dim=1)


def unpack(part: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo `pack` for one activation: a map comes back as (n, C, h, w) in channels-last memory."""
    if len(shape) != 3:
        return part.reshape(-1, *shape)
    channels, height, width = shape
    return part.reshape(-1, height, width, channels).contiguous().permute(0, 3, 1, 2)


def _channels_last(value: Tensor) -> Tensor:
    return value.permute(0, 2, 3, 1) if value.ndim == 4 else value


class Tuned(nn.Module):  # type: ignore[misc]
    """A tail with a linear head on it; gives logits (n, C).

    Args:
        tail: activations to features (n, D), or to rows of every depth (n, D + B).
        blocks: the weights of each unfrozen block by name, first to last.
        head: the affine layer to begin with, on what the tail gives.
        standard: mean and scale of each column, where the head is to be trained on standardised ones: a step
            of AdamW is as large for a loud column as for a faint one.
    """

    def __init__(
        self,
        tail: nn.Module,
        blocks: Sequence[Sequence[str]],
        head: Affine,
        standard: Standard | None = None,
    ) -> None:
        super().__init__()
        self.tail = tail
        self.blocks = [list(names) for names in blocks]
        self.head = nn.Linear(*head.weight.shape)
        self.mean, self.scale = standard or (np.zeros(len(head.weight)), np.ones(len(head.weight)))
        for name, numbers in (("shift", self.mean), ("factor", self.scale)):
            self.register_buffer(name, torch.from_numpy(numbers.astype(np.float32)), persistent=False)
        self.begin(head)

    def forward(self, *activations: Tensor) -> Tensor:
        """Score pictures."""
        return self.head((self.tail(*activations) - self.shift) * self.factor)

    def begin(self, head: Affine) -> None:
        """Set the head."""
        inverse = np.divide(1, self.scale, out=np.zeros(len(self.scale)), where=self.scale > 0)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(head.weight.T * inverse))
            self.head.bias.copy_(torch.from_numpy(head.bias + self.mean @ head.weight))

    def affine(self) -> Affine:
        """Return the head."""
        weight, bias = (
            parameter.detach().cpu().double().numpy() for parameter in (self.head.weight, self.head.bias)
        )
        plain = weight.T * self.scale[:, None]
        return Affine(plain.astype(np.float32), (bias - self.mean @ plain).astype(np.float32))

    def groups(self, plan: Training) -> list[dict[str, Any]]:
        """Return AdamW's groups: the last block at the full rate, deeper ones slower, the head at its own."""
        known = dict(self.tail.named_parameters())
        groups: list[dict[str, Any]] = []
        for above, names in enumerate(reversed(self.blocks)):
            weights = [known[name] for name in names if name in known]
            groups.append({"params": weights, "peak": plan.rate * plan.depth**above})
        groups.append({"params": list(self.head.parameters()), "peak": plan.head_rate})
        for group in groups:
            for weight in group["params"]:
                weight.requires_grad_(True)
        return groups

    def learn(self, *, batch_norm: bool) -> None:
        """Let BatchNorm learn its statistics, or leave it in inference mode."""
        for module in self.tail.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(batch_norm)

    def copy(self) -> dict[str, Tensor]:
        """Copy everything training may change."""
        return {name: value.detach().clone() for name, value in self.state_dict().items()}


def train(
    net: Tuned,
    inputs: TailInputs,
    labels: Labels,
    plan: Training,
    *,
    fit: Labels,
    held: Labels,
    until: int | None = None,
    weight: NDArray[np.float64] | None = None,
    checkpoint: Checkpoint | None = None,
    tell: Callable[[int], None] = lambda _epoch: None,
) -> list[Line]:
    """Train until the loss on the photos kept apart falls no more, and keep the best weights.

    Args:
        net: tail and head; holds the best weights afterwards.
        inputs: activations of all photos.
        labels: (N,) class indices, or a 0/1 table (N, C), of all photos.
        plan: how.
        fit: indices of the photos to train on.
        held: indices of the photos kept apart to stop by.
        until: stop after so many epochs, whatever the loss, and keep the last weights, blended.
        weight: (N,) what each photo weighs; None is one each.
        checkpoint: where every epoch is kept, and an unfinished training goes on from.
        tell: told how many epochs are done.

    Returns:
        One line an epoch, the first before any step: epoch, rate, train_loss, loss and accuracy on `held` (of
        the blended weights), seconds.
    """
    optimiser = torch.optim.AdamW(net.groups(plan), lr=plan.rate, weight_decay=plan.weight_decay, fused=True)
    start = net.copy()
    so_far = checkpoint.load(net, optimiser) if checkpoint else None
    if so_far is None:
        before = measure(net, inputs, labels, held, weight)
        so_far = SoFar([{"epoch": 0, "rate": 0.0, "train_loss": None, **before, "seconds": 0.0}], start)
    with checkpoint.keeping() if checkpoint else nullcontext(_nowhere) as keep:
        while not so_far.done(plan, until):
            begun, epoch = time.perf_counter(), so_far.epoch
            line = _epoch(net, optimiser, inputs, labels, plan, fit, epoch, weight)
            trained = net.copy()
            blended = blend(start, trained, plan.blend)
            net.load_state_dict(blended)
            line |= measure(net, inputs, labels, held, weight)
            net.load_state_dict(trained)
            if not np.isfinite([line["train_loss"] or 0.0, line["loss"] or 0.0]).all():
                raise UsageError(
                    f"the training diverged in epoch {epoch + 1}: its loss is no number any more at rate"
                    f" {plan.rate:g}. Give a lower --rate, such as {plan.rate / 10:g}."
                )
            so_far.note(line | {"seconds": time.perf_counter() - begun}, blended)
            keep(trained, optimiser, so_far)
            tell(epoch + 1)
    net.load_state_dict(so_far.best if until is None else blend(start, net.copy(), plan.blend))
    return so_far.lines


def _nowhere(*_: object) -> None:
    """Keep no epoch."""


def _epoch(
    net: Tuned,
    optimiser: torch.optim.Optimizer,
    inputs: TailInputs,
    labels: Labels,
    plan: Training,
    fit: Labels,
    epoch: int,
    weight: NDArray[np.float64] | None,
) -> Line:
    """Show every photo once; gives the line's first half."""
    steps, spent = -(-len(fit) // plan.batch), 0.0
    net.learn(batch_norm=plan.batch_norm == "train")
    for step, (photos, views) in enumerate(batches(fit, inputs.views, plan, epoch)):
        share = cosine(epoch * steps + step, plan.epochs * steps, plan.warmup)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share
        spent += take_step(net, optimiser, inputs.take(photos, views), labels[photos], _of(weight, photos))
    net.learn(batch_norm=False)
    return {"epoch": epoch + 1, "rate": plan.rate * share, "train_loss": spent / len(fit)}


def blend(start: dict[str, Tensor], trained: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return the weights that lie a share of the way from one set to another; counters are the other's."""
    return {
        name: start[name].lerp(value, share) if value.is_floating_point() else value.clone()
        for name, value in trained.items()
    }


def batches(fit: Labels, views: int, plan: Training, epoch: int) -> Iterator[tuple[Labels, Labels]]:
    """Deal the photos of one epoch: every photo once, in a drawn order, each in a drawn view.

    The batches are as even as whole photos allow, so that no photo is left out.
    """
    draw = np.random.default_rng([plan.seed, epoch, 0xF17])
    order = fit[draw.permutation(len(fit))]
    shown = draw.integers(0, views, len(fit))
    count = -(-len(fit) // plan.batch)
    yield from zip(np.array_split(order, count), np.array_split(shown, count), strict=True)


def take_step(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    inputs: tuple[Tensor, ...],
    labels: Labels,
    weight: NDArray[np.float64] | None = None,
) -> float:
    """Take one step; gives the batch's loss, summed over its photos."""
    optimiser.zero_grad(set_to_none=True)
    with autocast(inputs[0].device):
        logits = net(*inputs)
    loss = _loss(logits.float(), torch.from_numpy(labels).to(logits.device))
    if weight is not None:
        loss = loss * torch.from_numpy(weight).to(loss)
    loss.mean().backward()
    optimiser.step()
    return float(loss.detach().sum())


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the log loss of each photo (n,); several labels add up over classes."""
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, reduction="none")
    loss = functional.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="none")
    return loss.sum(dim=1)


def measure(
    net: Tuned, inputs: TailInputs, labels: Labels, held: Labels, weight: NDArray[np.float64] | None = None
) -> dict[str, float | None]:
    """Return log loss and accuracy on some photos as they are; None without any."""
    if not len(held):
        return {"loss": None, "accuracy": None}
    answers = logits(net, inputs, held)
    share = np.ones(len(held)) if weight is None else weight[held]
    with torch.no_grad():
        losses = _loss(torch.from_numpy(answers), torch.from_numpy(labels[held])).numpy()
    if labels.ndim == 1:
        right = answers.argmax(axis=1) == labels[held]
    else:
        right = ((answers > 0) == (labels[held] > 0)).all(axis=1)
    return {"loss": float((losses * share).mean()), "accuracy": float(right.mean())}


def logits(net: nn.Module, inputs: TailInputs, photos: Labels, view: int = 0, batch: int = 32) -> Logits:
    """Run a network on some photos: (n, outputs). The tail alone gives features."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(photos), batch):
            found.append(net(*inputs.take(photos[start : start + batch], view)).float().cpu())  # noqa: PERF401
    return np.asarray(torch.cat(found), np.float64)


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Take steps in bfloat16 on a GPU where that is safe; on a CPU it is slower, so not there.

    Answers are always computed in float32, as the predictor's are.
    """
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)  # type: ignore[no-any-return]
    return nullcontext()


def _of(weight: NDArray[np.float64] | None, photos: Labels) -> NDArray[np.float64] | None:
    return None if weight is None else weight[photos]
