"""Many small networks of one shape as one: batched layers, steps, stopping, and what is left at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from topgraft.heads._network import Shape

EPSILON = 1e-5
"""BatchNorm's, as torch's."""
MOMENTUM = 0.1
"""Of BatchNorm's running statistics, as torch's."""


@dataclass
class Batch:
    """One step's rows for every model.

    Attributes:
        rows: (M, B, K).
        targets: (M, B, C) 0/1.
        weight: (M, B) in the loss.
        real: (M, B, 1) 1, or 0 where a smaller batch was filled up.
        share: (M, B, 1) what each row counts in a mean over the batch: real, scaled to sum to 1.
        drops: a factor (M, B, units) for every hidden layer, or none where nothing drops.
    """

    rows: torch.Tensor
    targets: torch.Tensor
    weight: torch.Tensor
    real: torch.Tensor
    share: torch.Tensor
    drops: list[torch.Tensor]


@dataclass
class Stack:
    """The weights of M networks of one shape.

    Attributes:
        shape: theirs.
        weights, biases: of every Dense layer, (M, in, out) and (M, 1, out).
        gains, shifts: of the BatchNorm after every hidden layer, (M, 1, out); none without norm.
        means, variances: its running statistics, (M, 1, out).
    """

    shape: Shape
    weights: list[torch.Tensor]
    biases: list[torch.Tensor]
    gains: list[torch.Tensor]
    shifts: list[torch.Tensor]
    means: list[torch.Tensor]
    variances: list[torch.Tensor]

    @classmethod
    def start(cls, shape: Shape, inputs: Sequence[int], draws: Sequence[NDArray[np.float32]]) -> Stack:
        """Begin as torch's Dense layers do: weights and biases uniform within 1/sqrt(inputs).

        Args:
            shape: of every model.
            inputs: of every layer; for the first the width of a feature row, not the number of its axes: that
                is the same start, turned.
            draws: for every layer uniform numbers (M, in + 1, out) in [0, 1).
        """
        scaled = [
            torch.from_numpy((2 * drawn - 1) / np.float32(np.sqrt(count)))
            for drawn, count in zip(draws, inputs, strict=True)
        ]
        hidden = [(len(scaled[0]), 1, units) for units in (shape.widths if shape.norm else ())]
        return cls(
            shape,
            [drawn[:, :-1].contiguous() for drawn in scaled],
            [drawn[:, -1:].contiguous() for drawn in scaled],
            [torch.ones(size) for size in hidden],
            [torch.zeros(size) for size in hidden],
            [torch.zeros(size) for size in hidden],
            [torch.ones(size) for size in hidden],
        )

    def trained(self) -> list[torch.Tensor]:
        """What the optimizer moves."""
        return [*self.weights, *self.biases, *self.gains, *self.shifts]

    def everything(self) -> list[torch.Tensor]:
        """What a model is: trained tensors and running statistics."""
        return [*self.trained(), *self.means, *self.variances]

    def map(self, change: Any) -> Stack:
        """Give a stack of changed tensors."""
        lists = (self.weights, self.biases, self.gains, self.shifts, self.means, self.variances)
        return Stack(self.shape, *([change(tensor) for tensor in tensors] for tensors in lists))

    def put(self, places: torch.Tensor, other: Stack, chosen: torch.Tensor) -> None:
        """Take over some models of another stack."""
        for mine, theirs in zip(self.everything(), other.everything(), strict=True):
            mine[places] = theirs.detach()[chosen]

    def forward(self, rows: torch.Tensor, batch: Batch | None = None) -> torch.Tensor:
        """Score rows (M, B, K): logits (M, B, C). With a batch as in training, without as finished."""
        value = rows
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            value = torch.baddbmm(bias, value, weight)
            if layer == len(self.weights) - 1:
                break
            value = torch.relu(value)
            if self.shape.norm:
                value = self._normalise(layer, value, batch)
            if batch is not None and batch.drops:
                value = value * batch.drops[layer]
        return value

    def _normalise(self, layer: int, value: torch.Tensor, batch: Batch | None) -> torch.Tensor:
        gain, shift = self.gains[layer], self.shifts[layer]
        if batch is None:
            centred = value - self.means[layer]
            return torch.addcmul(shift, centred, torch.rsqrt(self.variances[layer] + EPSILON) * gain)
        out, mean, variance = _Normalise.apply(value, batch.share, gain, shift)
        self._remember(layer, mean, variance, batch.real)
        return out

    def _remember(self, layer: int, mean: torch.Tensor, variance: torch.Tensor, real: torch.Tensor) -> None:
        count = real.sum(dim=1, keepdim=True)
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.means[layer].lerp_(mean, MOMENTUM)
        self.variances[layer].lerp_(unbiased, MOMENTUM)

    def plain(self) -> Iterator[list[tuple[NDArray[np.float64], NDArray[np.float64]]]]:
        """Give every model's Dense layers, each BatchNorm folded into the layer behind it."""
        stack = self.map(lambda tensor: tensor.detach().double().cpu().numpy())
        weights: list[Any] = list(stack.weights)
        biases: list[Any] = list(stack.biases)
        for layer in range(len(stack.gains)):
            gain = stack.gains[layer] / np.sqrt(stack.variances[layer] + EPSILON)
            offset = stack.shifts[layer] - stack.means[layer] * gain
            biases[layer + 1] = biases[layer + 1] + offset @ weights[layer + 1]
            weights[layer + 1] = weights[layer + 1] * gain.transpose(0, 2, 1)
        for model in range(len(weights[0])):
            yield [(weight[model], bias[model, 0]) for weight, bias in zip(weights, biases, strict=True)]


class _Normalise(torch.autograd.Function):  # type: ignore[misc]
    """BatchNorm with the batch's own statistics, for each model over its real rows.

    Written out because the gradient torch would work out takes three times as many passes.
    """

    @staticmethod
    def forward(
        ctx: Any, value: torch.Tensor, share: torch.Tensor, gain: torch.Tensor, shift: torch.Tensor
    ) -> Any:
        """Give the output (M, B, H), and mean and variance (M, 1, H); share (M, B, 1) sums to 1 over B."""
        over = share.transpose(1, 2)
        mean = torch.bmm(over, value)
        unit = value - mean
        variance = torch.bmm(over, unit.square())
        inverse = torch.rsqrt(variance + EPSILON)
        unit.mul_(inverse)
        ctx.save_for_backward(unit, share, inverse * gain)
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(shift, unit, gain), mean, variance

    @staticmethod
    def backward(ctx: Any, *upward: torch.Tensor) -> Any:
        """Ioffe and Szegedy 2015, "Batch normalization", section 3."""
        unit, share, slope = ctx.saved_tensors
        shift = upward[0].sum(dim=1, keepdim=True)
        gain = (upward[0] * unit).sum(dim=1, keepdim=True)
        value = slope * (upward[0] - share * torch.addcmul(shift, unit, gain))
        return value, None, gain, shift


def losses(
    logits: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, *, several: bool
) -> torch.Tensor:
    """Give each model's mean log loss (M,) of logits (M, B, C) under weights (M, B)."""
    if several:
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(
            dim=2
        )
    else:
        each = -(torch.log_softmax(logits, dim=2) * targets).sum(dim=2)
    return (each * weight).sum(dim=1) / weight.sum(dim=1)


class Optimizer:
    """AdamW over stacked models, each with its own rate and decay.

    torch's fused AdamW wants one rate a tensor, so it is given views: one for each run of models with the
    same strength.

    Args:
        tensors: leaves (M, ...), changed in place.
        strengths: (peak rate, decay) of every model, equal ones side by side.
        memory: first and second moments of an earlier optimizer, a pair (M, ...) for each tensor.
        steps: how many steps that one had taken.
    """

    def __init__(
        self,
        tensors: list[torch.Tensor],
        strengths: Sequence[tuple[float, float]],
        memory: list[tuple[torch.Tensor, torch.Tensor]] | None = None,
        steps: int = 0,
    ) -> None:
        for tensor in tensors:
            tensor.requires_grad_()
        self.tensors, self.strengths, self.steps = tensors, list(strengths), steps
        self.memory = memory or [(torch.zeros_like(t), torch.zeros_like(t)) for t in tensors]
        self.runs: list[tuple[slice, float]] = []
        groups, start = [], 0
        for (rate, decay), run in groupby(strengths):
            part = slice(start, start + len(list(run)))
            groups.append({"params": [t.detach()[part] for t in tensors], "lr": rate, "weight_decay": decay})
            self.runs.append((part, rate))
            start = part.stop
        self.adam = torch.optim.AdamW(groups, fused=True)
        for group, (part, _) in zip(groups, self.runs, strict=True):
            for view, (first, second) in zip(group["params"], self.memory, strict=True):  # type: ignore[call-overload]
                count = torch.tensor(float(steps), device=view.device)
                self.adam.state[view] = {"step": count, "exp_avg": first[part], "exp_avg_sq": second[part]}

    def step(self, loss: torch.Tensor, factor: float) -> None:
        """Move every tensor down the gradient of the summed loss, at `factor` of the peak rates."""
        gradients = torch.autograd.grad(loss, self.tensors)
        for group, (part, rate) in zip(self.adam.param_groups, self.runs, strict=True):
            group["lr"] = rate * factor
            for view, gradient in zip(group["params"], gradients, strict=True):
                view.grad = gradient[part]
        self.adam.step()
        self.steps += 1

    def only(self, tensors: list[torch.Tensor], chosen: torch.Tensor) -> Optimizer:
        """Go on with some of the models, whose weights are now `tensors`."""
        strengths = [self.strengths[i] for i in chosen.tolist()]
        memory = [(first[chosen], second[chosen]) for first, second in self.memory]
        return Optimizer(tensors, strengths, memory, self.steps)
