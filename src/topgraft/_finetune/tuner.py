"""The last blocks of one backbone, trained again and again from the same start: once a fold, once on all."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from topgraft._finetune import train as training
from topgraft._finetune.base import Base
from topgraft._finetune.checkpoint import Checkpoint
from topgraft._finetune.cut import cut
from topgraft._finetune.left import Left
from topgraft._finetune.photos import activations
from topgraft._finetune.pixels import normalised
from topgraft._finetune.plan import Line, Training
from topgraft._finetune.result import Outcome, best_epoch, fit_distance
from topgraft.backbones import _torch_depths
from topgraft.backbones._torch import groups, torch_model
from topgraft.backbones.fit import fit
from topgraft.engines._torch import device
from topgraft.errors import DataError
from topgraft.fingerprint import fingerprint
from topgraft.heads._base import last_layer
from topgraft.heads._layers import Affine
from topgraft.heads._linear import AffineHead
from topgraft.heads._parallel import Compute
from topgraft.heads._rows import standard as standardise
from topgraft.policies.policy import View
from topgraft.settings import Settings
from topgraft.speed import per_second
from topgraft.splits import holdout
from topgraft.text import duration
from topgraft.trust.unknown import measure
from topgraft.types import Features, Image, Labels, Logits, Progress, silent

say = logging.getLogger(__name__).info


class Tuner:
    """Trains the last blocks of a run's backbone from activations at the cut.

    Args:
        base: the run.
        blocks: how many of the last blocks are trained, at least 1.
        views: the first is the photo as it is.
        plan: how.
        keep: folder of the checkpoints.
        settings: cores, device, cache.
        progress: told of views.
        left: counts the epochs of this and all other trainings.

    Attributes:
        model: the whole network; its last blocks change with every training.
        net: the tail and head of the last training.
        names: of the blocks.
    """

    net: training.Tuned

    def __init__(
        self,
        base: Base,
        blocks: int,
        views: Sequence[View],
        plan: Training,
        keep: Path,
        *,
        settings: Settings,
        progress: Progress = silent,
        left: Left | None = None,
    ) -> None:
        self.base, self.photos, self.plan = base, base.photos, plan
        self._settings = settings
        self._keep, self.left = keep / f"{blocks}-blocks", left or Left(1, plan.epochs)
        card, data = base.backbone.card, base.photos.data
        self.model: nn.Module = torch_model(base.backbone).to(memory_format=torch.channels_last)
        self.model.requires_grad_(False)
        unfrozen = groups(self.model)[-blocks:]
        self.names = tuple(name for name, _ in unfrozen)
        self._weights = [weights for _, weights in unfrozen]
        # Cut on the CPU, where the two parts can be held against the whole to the last digits.
        trained = [name for names in self._weights for name in names]
        self._depths = base.columns.blocks if base.columns else ()
        self.cut = cut(self.model, trained, card.input_size, self._depths)
        for part in (self.model, self.cut.prefix, self.cut.tail):
            part.to(device(settings))
        self._start = {name: value.clone() for name, value in self.cut.tail.state_dict().items()}
        self._what = fingerprint(
            [
                [card.fingerprint(), self.names, [view.key for view in views], plan.facts(), str(base.head)],
                [sample.digest for sample in data.samples],
                [base.photos.labels.tolist(), base.photos.groups.tolist()],
            ]
        )
        self.inputs = activations(data, views, self.cut, base.backbone, settings=settings, progress=progress)
        self._features = np.stack(
            [
                training.logits(self.cut.tail, self.inputs, np.arange(len(data)), view)
                for view in range(self.inputs.views)
            ]
        ).astype(np.float32)

    @property
    def parameters(self) -> int:
        """How many weights are trained, without the head."""
        known = dict(self.cut.tail.named_parameters())
        return sum(known[name].numel() for names in self._weights for name in names if name in known)

    def fit(self, rows: Labels, name: str) -> list[Line]:
        """Train on some photos, part of them kept apart to stop by; the network then is the one found.

        Args:
            rows: indices of photos.
            name: of the training, for its checkpoint.

        Returns:
            One line an epoch, of the training that was stopped by photos kept apart.

        Raises:
            DataError: where there are too few photos to keep some apart.
        """
        fitted, held = self._inside(rows)
        lines = self._train(name, fitted, held)
        if self.plan.refit:
            self._train(f"{name} again", rows, rows[:0], until=best_epoch(lines))
        return lines

    def begin(self, rows: Labels) -> None:
        """Put the network back to its start: the backbone as it was, and the head fitted on some photos."""
        self.cut.tail.load_state_dict(self._start)
        head = self._first_head(rows)
        share = np.float32(1 / self.base.temperature)
        affine = Affine(head.weight * share, head.bias * share)
        standard = self._standard(rows, head)
        self.net = training.Tuned(self.cut.tail, self._weights, affine, standard).to(self.inputs.device)

    def _standard(self, rows: Labels, head: AffineHead) -> training.Standard | None:
        """Standardise rows of every depth as the head did, but altogether as loud as the last layer is plain.

        So the head's rate means what it means for a head on the last layer.
        """
        columns = self.base.columns
        if columns is None:
            return None
        mean, scale = standardise(self._features, rows, columns, head.shares)
        variance = self._features[0, rows].var(axis=0, dtype=np.float64)
        loud = variance[: columns.last].sum() / max(float(variance @ scale**2), 1e-12)
        return mean, scale * np.sqrt(loud)

    def _train(self, name: str, fitted: Labels, held: Labels, until: int | None = None) -> list[Line]:
        """Train from the start."""
        self.begin(fitted)
        lines = training.train(
            self.net,
            self.inputs,
            self.photos.labels,
            self.plan,
            fit=fitted,
            held=held,
            until=until,
            weight=self.photos.weight,
            checkpoint=Checkpoint(
                self._keep / f"{name}.safetensors",
                fingerprint([self._what, fitted.tolist(), held.tolist(), until]),
            ),
            tell=self.left.epoch,
        )
        self.left.training()
        return lines

    def answers(self, rows: Labels) -> tuple[Features, Logits]:
        """Return features and logits (n, C) of photos as they are, by the network as it stands.

        Features are (n, D), or rows of every depth (n, D + B) where the head reads them.
        """
        features = training.logits(self.net.tail, self.inputs, rows)
        return features, self._judged(features)

    def _judged(self, features: Features) -> Logits:
        head = self.net.affine()
        return np.asarray(features @ head.weight.astype(np.float64) + head.bias)

    def asked(self, image: Image) -> Logits:
        """Return logits (1, C) of a photo (h, w, 3) by the whole network, without any cache."""
        card = self.base.backbone.card
        with torch.inference_mode(), _torch_depths.statistics(self.model, self._depths) as found:
            features = [self.model(normalised(fit(image, card)[None], card, self.inputs.device))]
            if self._depths:
                features.append(_torch_depths.blocks(found, self._depths))
            return self._judged(np.asarray(torch.cat(features, 1).float().cpu(), np.float64))

    def contiguous(self) -> nn.Module:
        """Copy the whole network to the CPU, in PyTorch's own memory layout, as files and exports want it."""
        return copy.deepcopy(self.model).to("cpu", memory_format=torch.contiguous_format)

    def cross_validate(self, folds: int | None = None, *, to_the_end: bool = False) -> Outcome:
        """Train once for each of the run's folds, without it, and answer for its photos.

        Args:
            folds: only so many of them; None is all.
            to_the_end: go on where a gain has become impossible, too.

        Returns:
            The outcome on the photos of the folds that were done.
        """
        base = self.base
        logits = np.empty((len(base.learn), len(base.photos.classes)))
        distances = np.full(len(base.learn), np.nan)
        lines: list[list[Line]] = []
        scored: list[Labels] = []
        wanted = base.folds[:folds]
        for part, (learnt, score) in enumerate(wanted):
            lines.append(self.fit(base.learn[learnt], f"fold {part + 1}"))
            features, logits[score] = self.answers(base.learn[score])
            if base.method != "energy":
                known, _ = self.answers(base.learn[learnt])
                last = last_layer(known, base.columns)
                how = fit_distance(base.method, last, base.labels[learnt], 1.0)
                distances[score] = measure(how, last_layer(features, base.columns), logits[score])
            scored.append(score)
            found = self._outcome(logits, distances, lines, scored)
            if part + 1 == len(wanted):
                break
            say(
                f"fold {part + 1} of {len(wanted)}: {found.so_far}; at most"
                f" {duration(self.left.at_most())} left in all"
            )
            if part and not to_the_end and found.hopeless:
                break
        return found

    def _outcome(
        self,
        logits: Logits,
        distances: NDArray[np.float64],
        lines: Sequence[list[Line]],
        scored: Sequence[Labels],
    ) -> Outcome:
        rows = np.sort(np.concatenate(scored))
        return Outcome(
            base=self.base,
            blocks=len(self.names),
            names=self.names,
            parameters=self.parameters,
            shapes=self.cut.shapes,
            logits=logits[rows],
            distances=distances[rows],
            lines=tuple(lines),
            scored=rows,
        )

    def longest_s(self, folds: int | None = None) -> float:
        """Try a few steps, and return how long all takes where nothing stops early, in seconds.

        All is every fold, or so many of them, and the training on all photos.
        """
        width, classes = self._features.shape[2], len(self.photos.classes)
        nothing = Affine(np.zeros((width, classes), np.float32), np.zeros(classes, np.float32))
        net = training.Tuned(self.cut.tail, self._weights, nothing).to(self.inputs.device)
        still = torch.optim.SGD(
            [weight for group in net.groups(self.plan) for weight in group["params"]], lr=0.0
        )
        batch = self.base.learn[: self.plan.batch]

        def step() -> int:
            training.take_step(net, still, self.inputs.take(batch), self.photos.labels[batch])
            return len(batch)

        shown = sum(len(fit) for fit, _ in self.base.folds[:folds]) + len(self.base.learn)
        photos = shown * (1 - self.plan.held + self.plan.refit)
        return photos * self.plan.epochs / per_second(step)

    def _inside(self, rows: Labels) -> tuple[Labels, Labels]:
        """Keep some of the photos apart, by group and class."""
        photos = self.photos
        try:
            fitted, held = holdout(
                photos.labels[rows],
                photos.groups[rows],
                self.plan.held,
                self.plan.seed,
                keys=[photos.data.samples[row].digest for row in rows],
            )
        except DataError as error:
            raise DataError(
                f"fine-tuning: {len(rows)} training photos are too few to keep {self.plan.held:.0%} of them"
                " apart to stop by. Give more photos, or stay with the run as it is."
            ) from error
        return rows[fitted], rows[held]

    def _first_head(self, rows: Labels) -> AffineHead:
        """Fit the head alone, on the features of the backbone as it was."""
        photos = self.photos
        head = self.base.head.make().fit(
            self._features[:, rows],
            photos.labels[rows],
            classes=len(photos.classes),
            sample_weight=None if photos.weight is None else photos.weight[rows],
            groups=photos.groups[rows],
            depths=self.base.columns,
            seed=self.plan.seed,
            compute=Compute(self._settings),
        )
        if not isinstance(head, AffineHead):
            raise TypeError(f"{self.base.head}: expected one affine layer")
        return head


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Let PyTorch use so many cores, and all of float32's digits on a GPU too."""
    before, rough = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    torch.set_num_threads(count)
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cudnn.allow_tf32 = rough
