"""Many small networks of one shape as one: batched layers, their gradients, steps, and what is left.

All weights of a model lie in one row of one tensor, and so do their gradients. A step is then a few large
operations, whatever the number of layers and models; the gradients are written out, because recording and
freeing a graph for each of thousands of tiny steps took longer than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from topgraft.heads._shape import Shape

EPSILON = 1e-5
"""BatchNorm's, as torch's."""
MOMENTUM = 0.1
"""Of BatchNorm's running statistics, as torch's."""

Dense64 = tuple[NDArray[np.float64], NDArray[np.float64]]
"""A layer's weight (in, out) and bias (out,)."""


@dataclass
class Batch:
    """One step's rows for every model.

    Attributes:
        rows: (M, B, K).
        labels: (M, B, C) 0/1.
        weight: (M, B, 1) share of each row in the loss; sums to 1 over B.
        share: (M, B, 1) share of each row in a mean over the batch; 0 where a smaller batch was filled up.
        bessel: (M, 1, 1) n / (n - 1) for n rows.
        drops: a factor (M, B, units) for every hidden layer, or none where nothing drops.
    """

    rows: torch.Tensor
    labels: torch.Tensor
    weight: torch.Tensor
    share: torch.Tensor
    bessel: torch.Tensor
    drops: list[torch.Tensor]


class Stack:
    """M networks of one shape: Dense layers, and after every hidden one ReLU, BatchNorm and Dropout.

    Args:
        shape: theirs.
        sizes: units from the input to the output.
        values: (M, P) all that is trained.
        stats: (M, 2H) running means and variances of the BatchNorms; H is 0 without norm.

    Attributes:
        weights, biases: of every Dense layer, (M, in, out) and (M, 1, out), views of `values`.
        gains, shifts: of the BatchNorm after every hidden layer, (M, 1, out); none without norm.
        means, variances: its running statistics, (M, 1, out), views of `stats`.
    """

    def __init__(self, shape: Shape, sizes: Sequence[int], values: torch.Tensor, stats: torch.Tensor) -> None:
        self.shape, self.sizes, self.values, self.stats = shape, list(sizes), values, stats
        dense = list(pairwise(self.sizes))
        normed = [(1, units) for units in (shape.widths if shape.norm else ())]
        layers = [*dense, *((1, b) for _, b in dense)]
        parts = _views(values, [*layers, *normed, *normed])
        self.weights, self.biases = parts[: len(dense)], parts[len(dense) : len(layers)]
        self.gains, self.shifts = (
            parts[len(layers) : len(layers) + len(normed)],
            parts[len(layers) + len(normed) :],
        )
        found = _views(stats, [*normed, *normed])
        self.means, self.variances = found[: len(normed)], found[len(normed) :]

    @classmethod
    def start(cls, shape: Shape, inputs: Sequence[int], draws: Sequence[NDArray[np.float32]]) -> Stack:
        """Begin as torch's Dense layers do: weights and biases uniform within 1/sqrt(inputs).

        Args:
            shape: of every model.
            inputs: of every layer; for the first the width of a feature row, not the number of its axes: that
                is the same start, rotated.
            draws: for every layer uniform numbers (M, in + 1, out) in [0, 1).
        """
        sizes = [draws[0].shape[1] - 1, *(drawn.shape[2] for drawn in draws)]
        hidden = sum(shape.widths) if shape.norm else 0
        models, trained = len(draws[0]), sum((a + 1) * b for a, b in pairwise(sizes)) + 2 * hidden
        stack = cls(shape, sizes, torch.zeros(models, trained), torch.zeros(models, 2 * hidden))
        for weight, bias, drawn, count in zip(stack.weights, stack.biases, draws, inputs, strict=True):
            scaled = torch.from_numpy((2 * drawn - 1) / np.float32(np.sqrt(count)))
            weight.copy_(scaled[:, :-1])
            bias.copy_(scaled[:, -1:])
        for ones in (*stack.gains, *stack.variances):
            ones.fill_(1)
        return stack

    def like(self, values: torch.Tensor, stats: torch.Tensor) -> Stack:
        """Return a stack of the same shape with other numbers in it."""
        return Stack(self.shape, self.sizes, values, stats)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Score rows (M, B, K) as finished networks do: logits (M, B, C)."""
        value = rows
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            value = torch.baddbmm(bias, value, weight)
            if layer < len(self.shape.widths):
                value.clamp_(min=0)
                if self.shape.norm:
                    scale = torch.rsqrt(self.variances[layer] + EPSILON) * self.gains[layer]
                    value = torch.addcmul(self.shifts[layer], value - self.means[layer], scale)
        return value

    def learn(self, batch: Batch, grads: Stack, *, multilabel: bool) -> None:
        """Run one batch forward and backward, and note the running statistics.

        Args:
            batch: what is shown.
            grads: its `values` get the gradients of every model's loss.
            multilabel: a sigmoid for each class in place of a softmax.
        """
        inputs, hidden, units = [batch.rows], [], []
        for layer in range(len(self.shape.widths)):
            value = torch.baddbmm(self.biases[layer], inputs[-1], self.weights[layer]).clamp_(min=0)
            hidden.append(value)
            if self.shape.norm:
                value, unit = self._normalise(layer, value, batch)
                units.append(unit)
            inputs.append(value * batch.drops[layer] if batch.drops else value)
        logits = torch.baddbmm(self.biases[-1], inputs[-1], self.weights[-1])
        answers = torch.sigmoid(logits) if multilabel else torch.softmax(logits, dim=2)
        upward = answers.sub_(batch.labels).mul_(batch.weight)
        for layer in reversed(range(len(self.weights))):
            if layer < len(self.shape.widths):
                if batch.drops:
                    upward.mul_(batch.drops[layer])
                if self.shape.norm:
                    upward = self._through_norm(layer, upward, units[layer], batch.share, grads)
                upward.mul_(hidden[layer] > 0)
            torch.sum(upward, dim=1, keepdim=True, out=grads.biases[layer])
            torch.bmm(inputs[layer].transpose(1, 2), upward, out=grads.weights[layer])
            if layer:
                upward = torch.bmm(upward, self.weights[layer].transpose(1, 2))

    def _normalise(
        self, layer: int, value: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Apply BatchNorm with the batch's own statistics; returns the output, unit rows, and their scale."""
        over = batch.share.transpose(1, 2)
        mean = torch.bmm(over, value)
        unit = value - mean
        variance = torch.bmm(over, unit.square())
        inverse = torch.rsqrt(variance + EPSILON)
        unit.mul_(inverse)
        self.means[layer].lerp_(mean, MOMENTUM)
        self.variances[layer].lerp_(variance * batch.bessel, MOMENTUM)
        gain = self.gains[layer]
        return torch.addcmul(self.shifts[layer], unit, gain), (unit, inverse * gain)

    def _through_norm(
        self,
        layer: int,
        upward: torch.Tensor,
        kept: tuple[torch.Tensor, torch.Tensor],
        share: torch.Tensor,
        grads: Stack,
    ) -> torch.Tensor:
        """Go back through a BatchNorm. Source: Ioffe and Szegedy 2015, "Batch normalization", section 3."""
        unit, scale = kept
        shift, gain = grads.shifts[layer], grads.gains[layer]
        torch.sum(upward, dim=1, keepdim=True, out=shift)
        torch.sum(upward * unit, dim=1, keepdim=True, out=gain)
        return upward.sub_(share * torch.addcmul(shift, unit, gain)).mul_(scale)

    def plain(self) -> Iterator[list[Dense64]]:
        """Yield every model's Dense layers, each BatchNorm folded into the layer behind it."""
        weights, biases = (
            [part.double().cpu().numpy() for part in parts] for parts in (self.weights, self.biases)
        )
        for layer, (gain, shift, mean, variance) in enumerate(
            zip(self.gains, self.shifts, self.means, self.variances, strict=True)
        ):
            scale = gain.double() / (variance.double() + EPSILON).sqrt()
            offset = (shift.double() - mean.double() * scale).cpu().numpy()
            biases[layer + 1] = biases[layer + 1] + offset @ weights[layer + 1]
            weights[layer + 1] = weights[layer + 1] * scale.cpu().numpy().transpose(0, 2, 1)
        for model in range(len(self.values)):
            yield [(weight[model], bias[model, 0]) for weight, bias in zip(weights, biases, strict=True)]


def _views(rows: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
    """Cut rows (M, P) into matrices (M, a, b) that share their memory."""
    parts = rows.split([a * b for a, b in sizes], dim=1) if sizes else ()
    return [part.view(len(rows), a, b) for part, (a, b) in zip(parts, sizes, strict=True)]


def losses(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, *, multilabel: bool
) -> torch.Tensor:
    """Return each model's log loss (M,) of logits (M, B, C); weights (M, B, 1) sum to 1 over B."""
    if multilabel:
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    else:
        loss = -(torch.log_softmax(logits, dim=2) * labels)
    return (loss * weight).sum(dim=(1, 2))


class Optimizer:
    """AdamW over stacked models, each with its own rate and decay.

    torch's fused AdamW wants one rate a tensor, so it is given one slice of the rows for each run of models
    with the same strength.

    Args:
        values, grads: (M, P) what is moved, and its gradients.
        strengths: (peak rate, decay) of every model, equal ones side by side.
        memory: (2, M, P) first and second moments of an earlier optimizer.
        steps: how many steps that one had taken.
    """

    def __init__(
        self,
        values: torch.Tensor,
        grads: torch.Tensor,
        strengths: Sequence[tuple[float, float]],
        memory: torch.Tensor | None = None,
        steps: int = 0,
    ) -> None:
        self.strengths, self.steps = list(strengths), steps
        self.rates = [rate for (rate, _), _ in groupby(strengths)]
        self.memory = torch.zeros(2, *values.shape, device=values.device) if memory is None else memory
        sizes = [len(list(run)) for _, run in groupby(strengths)]
        parts = [tensor.split(sizes) for tensor in (values, grads, *self.memory)]
        self.adam = torch.optim.AdamW(
            [
                {"params": [some], "lr": rate, "weight_decay": decay}
                for some, ((rate, decay), _) in zip(parts[0], groupby(strengths), strict=True)
            ],
            fused=True,
        )
        for some, grad, first, second in zip(*parts, strict=True):
            some.grad = grad
            count = torch.tensor(float(steps), device=values.device)
            self.adam.state[some] = {"step": count, "exp_avg": first, "exp_avg_sq": second}

    def step(self, factor: float) -> None:
        """Move every model down its gradient, at `factor` of the peak rates."""
        for group, rate in zip(self.adam.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.adam.step()
        self.steps += 1

    def only(self, values: torch.Tensor, grads: torch.Tensor, chosen: torch.Tensor) -> Optimizer:
        """Go on with some of the models, which are now `values`."""
        strengths = [self.strengths[i] for i in chosen.tolist()]
        return Optimizer(values, grads, strengths, self.memory[:, chosen], self.steps)
