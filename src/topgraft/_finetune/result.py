"""What a fine-tuning has to say: how good it is, what it gained, and the numbers of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft import metrics
from topgraft._finetune.base import PLAIN, Base
from topgraft._finetune.plan import Line
from topgraft.backbones.card import Card
from topgraft.heads import setting_text
from topgraft.metrics import Estimate
from topgraft.run import Run, versions
from topgraft.run.metrics import Metrics
from topgraft.run.predictions import write_predictions
from topgraft.run.results import Answers, backbone_facts, rounded
from topgraft.selection.calibrate import calibrate, cross_calibrate
from topgraft.selection.candidates import difference
from topgraft.selection.compare import Choice, Comparison
from topgraft.selection.ensemble import paired, paired_loss
from topgraft.text import counted
from topgraft.trust.trust import Trust, trust
from topgraft.trust.unknown import Energy, Measure, Unknown, mahalanobis, measure, neighbours, threshold
from topgraft.types import Features, Labels, Logits, Probabilities


@dataclass(frozen=True)
class Outcome:
    """The cross-validation of one number of blocks.

    Attributes:
        base: the run it is compared with.
        blocks: how many were trained.
        names: of the blocks.
        parameters: weights trained, without the head.
        shapes: of the activations at the cut.
        logits: (n, C) out-of-fold, before any temperature.
        distances: (n,) out-of-fold, how strange each photo is; nan where that is told from the logits.
        lines: one list a fold, one line an epoch.
    """

    base: Base
    blocks: int
    names: tuple[str, ...]
    parameters: int
    shapes: tuple[tuple[int, ...], ...]
    logits: Logits
    distances: NDArray[np.float64]
    lines: tuple[list[Line], ...] = field(repr=False)

    @cached_property
    def temperature(self) -> float:
        """What logits are divided by."""
        base = self.base
        return calibrate(self.logits, base.labels, multilabel=base.multilabel)

    @cached_property
    def answers(self) -> Probabilities:
        """(n, C), each fold's temperature from the other folds."""
        base = self.base
        return cross_calibrate(self.logits, base.labels, base.folds, multilabel=base.multilabel)

    @cached_property
    def gain(self) -> dict[str, Estimate]:
        """Its accuracy and log loss minus the run's, photo by photo."""
        base = self.base
        return gains(base.labels, self.answers, base.answers, groups=base.groups, seed=base.seed)

    @property
    def said(self) -> str:
        """Say in words what was gained."""
        loss = self.gain["log_loss"]
        if loss.high < 0:
            verdict = "better, by more than chance explains"
        elif loss.low > 0:
            verdict = f"worse, by more than chance explains. Stay with {self.base.run.path}"
        else:
            verdict = "neither better nor worse beyond chance"
        parts = [
            f"{name.replace('_', ' ')} {estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
            for name, estimate in self.gain.items()
        ]
        return (
            f"Fine-tuning {counted(self.blocks, 'block')} makes it {verdict}. Against the frozen backbone,"
            f" cross-validated on the same photos and folds: {', '.join(parts)} (a lower log loss is better)."
        )

    @property
    def loss(self) -> float:
        """Its mean log loss."""
        return float(metrics.losses(self.base.labels, self.answers).mean())

    @property
    def gained(self) -> bool:
        """Whether the log loss fell by more than chance explains."""
        return self.gain["log_loss"].high < 0

    def facts(self) -> dict[str, Any]:
        """Return plain data for metrics.json."""
        return {
            "blocks": self.blocks,
            "names": list(self.names),
            "parameters": self.parameters,
            "activations": [list(shape) for shape in self.shapes],
            "epochs": [len(lines) - 1 for lines in self.lines],
            "best_epochs": [best_epoch(lines) for lines in self.lines],
            "gain": {name: estimate.as_dict() for name, estimate in self.gain.items()},
        }

    def comparison(self) -> Comparison:
        """Put it in the form of a comparison of heads: itself and the run it began with."""
        base, folds = self.base, [self.base.folds]
        ours, theirs = (
            metrics.losses(base.labels, probabilities) for probabilities in (self.answers, base.answers)
        )
        by_fold = {
            name: np.array([losses[score].mean() for _, score in base.folds])
            for name, losses in {"ours": ours, "theirs": theirs}.items()
        }
        lead = min(by_fold, key=lambda name: by_fold[name].mean())
        rows = [
            {
                "head": name,
                "setting": said,
                **metrics.brief(
                    base.labels,
                    probabilities[None],
                    losses=lost[None],
                    groups=base.groups,
                    seed=base.seed,
                    out_of_fold=True,
                ),
                "difference": difference(by_fold[key], by_fold[lead], folds)[0].as_dict(),
                "chosen": key == "ours",
            }
            for key, name, said, probabilities, lost in (
                ("ours", base.head.head, self.setting, self.answers, ours),
                ("theirs", base.card.head, setting_text(base.card.setting), base.answers, theirs),
            )
        ]
        rows.sort(key=lambda row: row["log_loss"]["value"])
        return Comparison(
            rows=rows,
            chosen=Choice(base.head.head, base.head.setting),
            oof=self.answers[None],
            logits=self.logits[None],
            temperature=self.temperature,
            folds=folds,
            sample_weight=base.weight,
            notes=[],
            seconds={},
        )

    @property
    def setting(self) -> str:
        """The head's setting, as it is printed."""
        return ", ".join(filter(None, (setting_text(self.base.head.setting), f"blocks={self.blocks}")))

    def trust(self, features: Features) -> Trust:
        """Judge it by its out-of-fold answers.

        Args:
            features: (n, D) of the training side, by the network that was trained on all of it.
        """
        base = self.base
        how = fit_distance(base.method, features, base.labels, self.temperature)
        distances = self.distances
        if isinstance(how, Energy):
            distances = measure(how, features, self.logits)
        limit = threshold(distances)
        accepted = float((distances <= limit).mean())
        return trust(
            self.comparison(),
            features,
            base.labels,
            base.groups,
            ids=[base.photos.data.samples[i].id for i in base.learn],
            classes=base.photos.classes,
            unknown=(Unknown(base.method, how, limit, accepted, evidence={}), distances),
            seed=base.seed,
        )


@dataclass(frozen=True)
class Finished:
    """A fine-tuning on the whole training side.

    Attributes:
        outcome: its cross-validation.
        tried: those of all numbers of blocks that were tried.
        views: of each photo.
        refit: whether the best epoch was then trained anew on all photos.
        lines: of the training, one an epoch.
        judged: how far it can be trusted.
        tested: answers for the test side; None where there is none.
        card: of the fine-tuned backbone.
    """

    outcome: Outcome
    tried: tuple[Outcome, ...]
    views: int
    refit: bool
    lines: list[Line]
    judged: Trust
    tested: Answers | None
    card: Card

    def write(self, run: Run) -> None:
        """Write all of a run that is numbers."""
        base, outcome = self.outcome.base, self.outcome
        side = base.photos.side(base.learn)
        answers = {"cv": Answers(side, outcome.answers[None], base.fold, self.judged.distances)}
        if self.tested:
            answers["test"] = self.tested
        folds = {f"fold {part + 1}": lines for part, lines in enumerate(outcome.lines)}
        run.write_json("curves.json", {"series": series({"all": self.lines} | folds)})
        run.write_json("versions.json", versions())
        if (base.run.path / "health.json").is_file():
            run.write_json("health.json", base.run.read("health.json"))
        write_predictions(run, base.photos.classes, answers)
        run.write_metrics(Metrics.model_validate(rounded(self._facts(answers))))

    def _facts(self, answers: dict[str, Answers]) -> dict[str, Any]:
        """Put metrics.json together: numbers only, no times, no paths."""
        base, outcome = self.outcome.base, self.outcome
        names, seed = base.photos.classes, base.seed
        return {
            **base.metrics.as_dict(),
            "counts": {**base.metrics.counts.as_dict(), "views": self.views},
            "backbone": backbone_facts(self.card, "f32"),
            "policies": base.metrics.policies[: self.views - 1],
            "head": {
                "name": base.head.head,
                "setting": outcome.setting,
                "temperature": outcome.temperature,
                "depths": [],
            },
            "cross_validation": {
                "folds": len(base.folds),
                "repeats": 1,
                **answers["cv"].scores(names, seed),
            },
            "test": answers["test"].scores(names, seed) if "test" in answers else None,
            "leaderboard": outcome.comparison().rows,
            "trust": self.judged.numbers,
            "worth": None,
            "finetune": {
                **outcome.facts(),
                "epoch": best_epoch(self.lines),
                "tried": [outcome.facts() for outcome in self.tried],
            },
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        base, kept = self.outcome.base, best_epoch(self.lines)
        then = " its weights were kept."
        if self.refit:
            then = " the predictor was trained for so long on all of it."
        if not kept:
            then = " the blocks stay as they were."
        best = (
            f"Epoch {kept} of {len(self.lines) - 1} was the best on photos kept apart from the training side:"
        )
        notes = [self.outcome.said, best + then]
        if unseen := len(base.metrics.policies) * (self.views == 1):
            notes.append(
                f"The frozen run's head learned from {unseen} augmented views as well, this training from the"
                f" photos as they are: --views {unseen} shows it the same."
            )
        if len(self.tried) > 1:
            notes.append(
                f"{len(self.tried)} numbers of blocks were tried and the best was taken, which flatters its"
                " cross-validated numbers a little."
            )
        if base.metrics.head.depths:
            notes.append(
                "The run's head reads every depth of the backbone, this one its last layer alone: they are"
                " compared as they are."
            )
        if base.card.head != base.head.head:
            notes.append(
                f"The run's head {base.card.head} is not linear; {PLAIN} took its place for the fine-tuning."
            )
        return [*notes, *self.judged.notes]


def fit_distance(method: str, features: Features, labels: Labels, temperature: float) -> Measure:
    """Fit the run's distance to features (n, D) of photos."""
    if method == "mahalanobis":
        return mahalanobis(features, labels)
    return neighbours(features, labels) if method == "neighbours" else Energy(temperature)


def gains(
    labels: Labels, new: Probabilities, old: Probabilities, *, groups: Labels, seed: int
) -> dict[str, Estimate]:
    """Return one classifier's accuracy and log loss minus another's on the same photos.

    Args:
        labels: (n,) class indices, or a 0/1 table (n, C): then log loss alone.
        new: (n, C) probabilities.
        old: (n, C) what is subtracted.
        groups: (n,) photos that count as one.
        seed: of the bootstrap.

    Returns:
        `accuracy` with Newcombe's paired interval, `log_loss` with one by paired bootstrap.
    """
    found = {"accuracy": paired(labels, new, old, groups=groups)} if labels.ndim == 1 else {}
    return found | {"log_loss": paired_loss(labels, new, old, groups=groups, seed=seed)}


def best_epoch(lines: list[Line]) -> int:
    """Return the epoch whose weights were kept; 0 is the head on the backbone as it was."""
    return min(range(len(lines)), key=lambda i: lines[i]["loss"])


def series(lines: dict[str, list[Line]]) -> list[dict[str, Any]]:
    """Return the curves of trainings by name, for curves.json."""
    found = []
    for key, kind, said in (
        ("train_loss", "loss", "trained on"),
        ("loss", "loss", "kept apart"),
        ("accuracy", "accuracy", "kept apart"),
        ("rate", "rate", ""),
    ):
        for name, epochs in lines.items():
            known = [line for line in epochs if line[key] is not None]
            found.append(
                {
                    "name": f"{name}, {said}" if said else name,
                    "kind": kind,
                    "x": [line["epoch"] for line in known],
                    "y": [line[key] for line in known],
                }
            )
    return found
