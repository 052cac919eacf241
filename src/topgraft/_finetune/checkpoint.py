"""How far a training is, kept in one safetensors file that is replaced whole after every epoch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from topgraft import files
from topgraft._finetune.plan import Line, Training
from topgraft.backbones._torch import system_errors
from topgraft.errors import DataError
from topgraft.fingerprint import digest, fingerprint
from topgraft.run import AGAIN

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class SoFar:
    """A training up to some epoch.

    Attributes:
        lines: one an epoch, the first before any step.
        best: the weights of the epoch with the lowest loss.
        at: that epoch.
    """

    lines: list[Line]
    best: dict[str, Tensor]
    at: int = 0

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.lines) - 1

    def note(self, line: Line, weights: dict[str, Tensor]) -> None:
        """Add an epoch, and its weights where they are the best yet."""
        self.lines.append(line)
        if line["loss"] is not None and line["loss"] < self.lines[self.at]["loss"]:
            self.at, self.best = self.epoch, weights

    def done(self, plan: Training, until: int | None) -> bool:
        """Tell whether to stop: after so many epochs, or when nothing gets better."""
        if until is not None:
            return self.epoch >= until
        return self.epoch >= plan.epochs or self.epoch - self.at >= plan.patience


Keep = Callable[[dict[str, Tensor], torch.optim.Optimizer, SoFar], None]
"""Keeps an epoch: weights that nobody changes any more, the optimiser's state (copied), and how far it is."""


@dataclass(frozen=True)
class Checkpoint:
    """A training's file.

    Attributes:
        path: of the file.
        what: hash of all that decides the training; a file of another one is refused.
    """

    path: Path
    what: str

    def save(self, tensors: dict[str, Tensor], facts: str) -> None:
        """Keep an epoch: the old file or the new one is there, never half of one."""
        with files.guarded(self.path, AGAIN), system_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(self.path, alone=True) as half:
                whole = {name: value.contiguous() for name, value in tensors.items()}
                save_file(whole, half, {"so_far": facts, "sum": _sum(whole)})

    @contextmanager
    def keeping(self) -> Iterator[Keep]:
        """Return a function that keeps an epoch: it is written while the next one is trained.

        Every epoch is written before its successor is, and the last before this ends.
        """
        under_way: list[Future[None]] = []

        def keep(weights: dict[str, Tensor], optimiser: torch.optim.Optimizer, so_far: SoFar) -> None:
            for written in under_way:
                written.result()
            tensors = {f"now.{name}": value for name, value in weights.items()}
            tensors |= {f"best.{name}": value for name, value in so_far.best.items()}
            for number, weight in enumerate(_weights(optimiser)):
                for name in MOMENTS:
                    tensors[f"{name}.{number}"] = optimiser.state[weight][name].clone()
            facts = json.dumps({"what": self.what, "lines": so_far.lines, "at": so_far.at})
            under_way[:] = [writer.submit(self.save, tensors, facts)]

        with ThreadPoolExecutor(1, thread_name_prefix="topgraft-checkpoint") as writer:
            yield keep
            for written in under_way:
                written.result()

    def load(self, net: nn.Module, optimiser: torch.optim.Optimizer) -> SoFar | None:
        """Put network and optimiser where the file left them; None where there is no file.

        Every value is copied into memory laid out as it was, since the layout decides the last bits.

        Raises:
            DataError: for a checkpoint of another training, or a damaged one.
        """
        if not self.path.exists():
            return None
        kept, facts = self._read()
        if facts["what"] != self.what:
            raise DataError(
                f"{self.path}: belongs to a training with other photos or options."
                " Give the same ones to --resume, or --overwrite to begin anew."
            )
        state = net.state_dict()
        best = {name: _like(value, kept[f"best.{name}"]) for name, value in state.items()}
        net.load_state_dict({name: kept[f"now.{name}"] for name in state})
        for number, weight in enumerate(_weights(optimiser)):
            optimiser.state[weight] = {
                "step": kept[f"step.{number}"].to(weight.device),
                "exp_avg": _like(weight.detach(), kept[f"exp_avg.{number}"]),
                "exp_avg_sq": _like(weight.detach(), kept[f"exp_avg_sq.{number}"]),
            }
        return SoFar(facts["lines"], best, facts["at"])

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors, which are those that were written, and what is said of them."""
        try:
            with safe_open(self.path, "pt") as file:
                said = file.metadata() or {}
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
            if said["sum"] != _sum(kept):
                raise ValueError("its checksum is another")
            return kept, json.loads(said["so_far"])
        except (OSError, ValueError, LookupError, SafetensorError) as error:
            raise DataError(
                f"{self.path}: is damaged ({files.said(error)}). Give --overwrite to begin anew."
            ) from error


def _sum(tensors: dict[str, Tensor]) -> str:
    """Hash all values, in the order of their names."""
    values = [tensors[name].reshape(-1).view(torch.uint8).cpu().numpy() for name in sorted(tensors)]
    return fingerprint([digest(value.data) for value in values])


def _weights(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [weight for group in optimiser.param_groups for weight in group["params"]]


def _like(model: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(model).copy_(value)
