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
from topgraft.heads import setting_text, to_probabilities
from topgraft.heads._base import Fold, last_layer
from topgraft.metrics import Estimate
from topgraft.run import Run, versions
from topgraft.run.metrics import Metrics
from topgraft.run.predictions import LEARNED, write_predictions
from topgraft.run.results import Answers, backbone_facts, rounded
from topgraft.selection.calibrate import calibrate, cross_calibrate
from topgraft.selection.candidates import difference
from topgraft.selection.compare import Choice, Comparison
from topgraft.selection.ensemble import paired, paired_loss
from topgraft.selection.leaning import lean_in_words
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
        logits: (m, C) out-of-fold, before any temperature, of the photos that were scored.
        distances: (m,) out-of-fold, how strange each photo is; nan where that is told from the logits.
        lines: one list a fold, one line an epoch.
        scored: (m,) which of the training side were scored: all n, or those of the folds that were done.
    """

    base: Base
    blocks: int
    names: tuple[str, ...]
    parameters: int
    shapes: tuple[tuple[int, ...], ...]
    logits: Logits
    distances: NDArray[np.float64]
    lines: tuple[list[Line], ...] = field(repr=False)
    scored: Labels = field(repr=False)

    @cached_property
    def labels(self) -> Labels:
        """Of the photos that were scored: (m,), or (m, C) with several labels."""
        return self.base.labels[self.scored]

    @cached_property
    def groups(self) -> Labels:
        """Of the photos that were scored: (m,)."""
        return self.base.groups[self.scored]

    @cached_property
    def before(self) -> Probabilities:
        """(m, C) what the run answered."""
        return self.base.answers[self.scored]

    @property
    def whole(self) -> bool:
        """Whether every photo of the training side was scored."""
        return len(self.scored) == len(self.base.learn)

    @cached_property
    def folds(self) -> list[Fold]:
        """Pairs (fit, score) of positions in `scored`; of one fold alone, all of it and all of it."""
        own = self.base.fold[self.scored]
        parts = np.unique(own)
        if len(parts) == 1:
            return [(np.arange(len(own)), np.arange(len(own)))]
        return [(np.flatnonzero(own != part), np.flatnonzero(own == part)) for part in parts]

    @cached_property
    def temperature(self) -> float:
        """What logits are divided by."""
        return calibrate(self.logits, self.labels, multilabel=self.base.multilabel)

    @cached_property
    def answers(self) -> Probabilities:
        """(m, C), each fold's temperature from the others; of one alone, that of the head it began with."""
        multilabel = self.base.multilabel
        if len(self.folds) == 1:
            return to_probabilities(self.logits, multilabel=multilabel, temperature=1.0)
        return cross_calibrate(self.logits, self.labels, self.folds, multilabel=multilabel)

    @cached_property
    def gain(self) -> dict[str, Estimate]:
        """Its accuracy and log loss minus the run's, photo by photo."""
        return gains(self.labels, self.answers, self.before, groups=self.groups, seed=self.base.seed)

    @property
    def hopeless(self) -> bool:
        """Whether the photos still to be scored can hardly make a gain of it any more."""
        gaps = metrics.losses(self.labels, self.answers) - metrics.losses(self.labels, self.before)
        return no_gain_in_sight(gaps, self.groups, len(self.base.learn))

    @property
    def so_far(self) -> str:
        """Say what was gained, briefly."""
        loss = self.gain["log_loss"]
        return (
            f"log loss {loss.value:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}] against the frozen backbone on"
            f" {counted(len(self.scored), 'photo')}"
        )

    @property
    def said(self) -> str:
        """Say in words what was gained."""
        done = len(self.folds)
        if not self.whole and done > 1:
            return (
                f"Fine-tuning {counted(self.blocks, 'block')}: no gain in sight after {done} of"
                f" {len(self.base.folds)} folds, so it was stopped: {self.so_far}, of which the rest can"
                " hardly make a gain."
            )
        loss = self.gain["log_loss"]
        if self.gained:
            verdict = "better, by more than chance explains"
        elif loss.low > 0 and loss.value >= metrics.SHOWN:
            verdict = f"worse, by more than chance explains. Stay with {self.base.run.path}"
        else:
            verdict = "neither better nor worse beyond chance"
        parts = [
            f"{name.replace('_', ' ')} {estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
            for name, estimate in self.gain.items()
        ]
        how = "cross-validated on the same photos and folds"
        if not self.whole:
            how = f"on a single split, {counted(len(self.scored), 'photo')} of {len(self.base.learn)}"
        return (
            f"Fine-tuning {counted(self.blocks, 'block')} makes it {verdict}. Against the frozen backbone,"
            f" {how}: {', '.join(parts)} (a lower log loss is better)."
        )

    @property
    def loss(self) -> float:
        """Its mean log loss."""
        return float(metrics.losses(self.labels, self.answers).mean())

    @property
    def gained(self) -> bool:
        """Whether the log loss fell by more than chance explains, and by what is shown."""
        loss = self.gain["log_loss"]
        return loss.high < 0 and loss.value <= -metrics.SHOWN

    def facts(self) -> dict[str, Any]:
        """Return plain data for metrics.json."""
        return {
            "blocks": self.blocks,
            "names": list(self.names),
            "parameters": self.parameters,
            "activations": [list(shape) for shape in self.shapes],
            "epochs": [len(lines) - 1 for lines in self.lines],
            "best_epochs": [best_epoch(lines) for lines in self.lines],
            "scored": len(self.scored),
            "gain": {name: estimate.as_dict() for name, estimate in self.gain.items()},
        }

    def comparison(self) -> Comparison:
        """Put it in the form of a comparison of heads: itself and the run it began with."""
        base, folds = self.base, [self.folds]
        ours, theirs = (
            metrics.losses(self.labels, probabilities) for probabilities in (self.answers, self.before)
        )
        by_fold = {
            name: np.array([losses[score].mean() for _, score in self.folds])
            for name, losses in {"ours": ours, "theirs": theirs}.items()
        }
        lead = min(by_fold, key=lambda name: by_fold[name].mean())
        rows = [
            {
                "head": name,
                "setting": said,
                **metrics.brief(
                    self.labels,
                    probabilities[None],
                    losses=lost[None],
                    groups=self.groups,
                    seed=base.seed,
                    out_of_fold=True,
                ),
                "difference": self._difference(key, lead, by_fold).as_dict(),
                "chosen": key == "ours",
            }
            for key, name, said, probabilities, lost in (
                ("ours", base.head.head, self.setting, self.answers, ours),
                ("theirs", base.card.head, setting_text(base.card.setting), self.before, theirs),
            )
        ]
        rows.sort(key=lambda row: row["log_loss"]["value"])
        return Comparison(
            leaderboard=lambda: rows,
            chosen=Choice(base.head.head, base.head.setting),
            oof=self.answers[None],
            logits=self.logits[None],
            temperature=self.temperature,
            folds=folds,
            sample_weight=None if base.weight is None else base.weight[self.scored],
            notes=[],
            seconds={},
        )

    def _difference(self, name: str, lead: str, by_fold: dict[str, NDArray[np.float64]]) -> Estimate:
        """Return how far the log losses of `ours` and `theirs` lie apart; of one fold, photo by photo."""
        if len(self.folds) > 1:
            return difference(by_fold[name], by_fold[lead], [self.folds])[0]
        gap = self.gain["log_loss"]
        if name == lead:
            return Estimate(0.0, 0.0, 0.0)
        return gap if name == "ours" else Estimate(-gap.value, -gap.high, -gap.low)

    @property
    def setting(self) -> str:
        """The head's setting, as it is printed."""
        return ", ".join(filter(None, (setting_text(self.base.head.setting), f"blocks={self.blocks}")))

    def trust(self, features: Features) -> Trust:
        """Judge it by its out-of-fold answers.

        Args:
            features: (n, D) of the training side, or rows of every depth (n, D + B), by the network that was
                trained on all of it.
        """
        base = self.base
        features = last_layer(features, base.columns)
        how = fit_distance(base.method, features, base.labels, self.temperature)
        features = features[self.scored]
        distances = self.distances
        if isinstance(how, Energy):
            distances = measure(how, features, self.logits)
        limit = threshold(distances)
        accepted = float((distances <= limit).mean())
        return trust(
            self.comparison(),
            features,
            self.labels,
            self.groups,
            ids=[base.photos.data.samples[i].id for i in base.learn[self.scored]],
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
        refused: what is said of those that could not be.
        views: of each photo.
        refit: whether the best epoch was then trained anew on all photos.
        lines: of the training, one an epoch.
        judged: how far it can be trusted.
        tested: answers for the test side; None where there is none.
        card: of the fine-tuned backbone.
        depths: what share of the head's logits comes from the last layer and from each block.
    """

    outcome: Outcome
    tried: tuple[Outcome, ...]
    refused: tuple[str, ...]
    views: int
    refit: bool
    lines: list[Line]
    judged: Trust
    tested: Answers | None
    card: Card
    depths: list[dict[str, Any]]

    def write(self, run: Run) -> None:
        """Write all of a run that is numbers."""
        base, outcome = self.outcome.base, self.outcome
        side = base.photos.side(base.learn[outcome.scored])
        fold = base.fold[outcome.scored]
        answers = {"cv": Answers(side, outcome.answers[None], fold, self.judged.distances)}
        rest = np.setdiff1d(np.arange(len(base.learn)), outcome.scored)
        if len(rest):  # learned from and not scored: the frozen run's answers stand in their lines
            nowhere = np.full(len(rest), -1, np.int64)
            answers[LEARNED] = Answers(base.photos.side(base.learn[rest]), base.answers[rest][None], nowhere)
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
            "views": None,
            "head": {
                "name": base.head.head,
                "setting": outcome.setting,
                "temperature": outcome.temperature,
                "depths": self.depths,
            },
            "cross_validation": {
                "folds": len(outcome.folds),
                "repeats": 1,
                **answers["cv"].scores(names, seed),
            },
            "test": answers["test"].scores(names, seed) if "test" in answers else None,
            "leaderboard": outcome.comparison().rows,
            "trust": self.judged.numbers,
            "worth": None,
            "curve": None,
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
        if not self.outcome.whole:
            notes.append(
                f"Judged on one of {len(base.folds)} folds alone, {len(self.outcome.scored)} photos; without"
                " --quick, on all."
            )
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
        notes += [*self.refused, *filter(None, [lean_in_words(self.depths)])]
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


def no_gain_in_sight(gaps: NDArray[np.float64], groups: Labels, photos: int) -> bool:
    """Tell whether a gain has become impossible: stopping for futility, as clinical trials do.

    The photos still to come are given the best mean that 95 % confidence allows after those seen; where even
    then the interval of all of them would hold 0, no gain is in sight (Lan, Simon & Halperin 1982).

    Args:
        gaps: (m,) log loss minus the frozen run's, of the photos scored so far.
        groups: (m,) photos that count as one.
        photos: n, how many there are to score in all.
    """
    m = metrics.effective(groups, len(gaps))
    n = m * photos / len(gaps)
    if m < 2 or n <= m:
        return False
    mean, spread = float(gaps.mean()), float(gaps.std(ddof=1))
    rest = mean - metrics.Z * spread * np.sqrt(1 / m + 1 / (n - m))
    best = (m * mean + (n - m) * rest) / n
    return bool(best + metrics.Z * spread / np.sqrt(n) >= 0)


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
