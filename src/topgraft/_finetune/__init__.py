"""Train the last blocks of a run's backbone together with its head, and write a run like any other."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topgraft import files
from topgraft._finetune.base import Base
from topgraft._finetune.left import Left
from topgraft._finetune.plan import Blocks, Training, choices
from topgraft._finetune.result import Finished, Outcome
from topgraft.backbones._cache import SUMS, sums
from topgraft.backbones.backbone import Backbone
from topgraft.config import Config, Finetune
from topgraft.errors import BackboneError, DataError, UnknownNameError, UsageError, need
from topgraft.heads import Head, head_class, to_probabilities
from topgraft.heads._base import last_layer
from topgraft.photos.dataset import Dataset
from topgraft.policies.policy import View
from topgraft.predictor import Predictor
from topgraft.predictor.modelcard import write_model_card
from topgraft.progress import watched
from topgraft.run import AGAIN, Metrics, Run
from topgraft.run.results import Answers, rounded
from topgraft.selection.leaning import leaning
from topgraft.settings import Settings
from topgraft.text import counted, duration
from topgraft.trust.trust import Trust
from topgraft.trust.unknown import say_of_unknown
from topgraft.types import Progress, auto

if TYPE_CHECKING:
    from topgraft._finetune.tuner import Tuner

say = logging.getLogger(__name__).info
CHECKPOINTS = "checkpoints"
CHECKED, AGREEMENT = 4, 2e-3
"""On how many photos predictor and PyTorch are compared, and how near their probabilities must be."""


@watched
def finetune(
    run: Run | str | Path,
    data: Dataset | None = None,
    *,
    blocks: Blocks = 3,
    views: int = 0,
    folds: int | None = None,
    to_the_end: bool = False,
    out: str | Path | None = None,
    backbone: Backbone | None = None,
    overwrite: bool = False,
    resume: bool = False,
    settings: Settings | None = None,
    progress: Progress = auto,
    **options: Any,
) -> Run:
    """Train the last blocks of a run's backbone with its head, from activations cached at the cut.

    The run's split and folds stay: every fold is fine-tuned anew on its own photos, so the cross-validated
    numbers can be compared with the run's photo by photo, and the test side is met once. It begins with the
    run's own head; where that reads every depth of the backbone, so does the result.

    Args:
        run: a finished run, or its folder.
        data: the photos it was trained from; None reads them where its config says.
        blocks: how many of the backbone's last blocks are trained; `auto` tries a few and keeps none where
            nothing is gained.
        views: how many of the run's policies give cached augmented views beside each photo as it is.
        folds: how many of the run's folds are trained anew; None is all, 1 a quick single split, judged on
            the photos of that fold alone.
        to_the_end: train all folds where no gain is in sight any more, too. Without, such a fine-tuning is
            stopped, and the result is the run it began with.
        out: the new run's folder; None takes the next free number in `runs/`.
        backbone: the run's; None finds it by the fingerprint the run noted.
        overwrite: replace the run that is there.
        resume: go on where an interrupted fine-tuning stopped.
        settings: cores, device, cache.
        progress: told of views and epochs.
        **options: of the training: `epochs`, `batch`, `rate`, `depth`, `head_rate`, `blend`, `weight_decay`,
            `warmup`, `patience`, `held`, `refit`, `batch_norm` (`frozen` or `train`), `seed`.

    Returns:
        A run whose predictor holds the fine-tuned backbone; no report yet.

    Raises:
        UsageError: for options out of range, naming what fits.
        BackboneError: for a backbone that cannot be fine-tuned, or is not the run's.
        DataError: for photos that are not the run's.
        MissingExtraError: without the `timm` extra.
    """
    need("torch", "timm", "fine-tuning", later=True)
    need("timm", "timm", "fine-tuning", later=True)
    settings = settings or Settings.load()
    base = Base.of(run, data, backbone, settings=settings, progress=progress)
    plan = _plan(base.seed, options)
    counts = choices(base.backbone.card, blocks)
    if folds not in (None, 1, len(base.folds)):
        raise UsageError(f"folds must be 1 or {len(base.folds)}, those of {base.run.path}, got {folds}.")
    folds = None if folds == len(base.folds) else folds
    shown = base.views(views)
    asked = Finetune(
        run=base.run.path.name, blocks=blocks, views=views, folds=folds, to_the_end=to_the_end, **plan.facts()
    )
    config = base.config.model_copy(update={"finetune": asked})
    made = _folder(base, out, config, overwrite=overwrite, resume=resume)
    with made.locked():
        if not (made.path / "metrics.json").exists():
            made.write_config(config)
            _tune(base, made, counts, shown, plan, asked, settings=settings, progress=progress)
        write_model_card(made)
        shutil.rmtree(made.path / CHECKPOINTS, ignore_errors=True)
    return made


def _tune(
    base: Base,
    made: Run,
    counts: Sequence[int],
    shown: Sequence[View],
    plan: Training,
    asked: Finetune,
    *,
    settings: Settings,
    progress: Progress,
) -> None:
    """Cross-validate each number of blocks and write the best; where one may choose, perhaps none."""
    from topgraft._finetune.tuner import Tuner, cores

    choose = asked.blocks == "auto"
    trainings = len(counts) * len(base.folds[: asked.folds]) + 1
    left = Left(trainings * (1 + plan.refit), plan.epochs, progress)
    best: tuple[Tuner, Outcome] | None = None
    tried, refused = [], []
    with cores(settings.threads):
        for count in counts:
            try:
                tuner = Tuner(
                    base,
                    count,
                    shown,
                    plan,
                    made.path / CHECKPOINTS,
                    settings=settings,
                    progress=progress,
                    left=left,
                )
            except BackboneError as error:
                if not choose:
                    raise
                refused.append(f"{counted(count, 'block')} cannot be trained: {error}")
                say(refused[-1])
                continue
            _announce(tuner, asked.folds, len(counts))
            with made.timed(f"fine-tune, {count} blocks"):
                outcome = tuner.cross_validate(asked.folds, to_the_end=asked.to_the_end)
            say(outcome.said)
            tried.append(outcome)
            stopped = not outcome.whole and asked.folds is None
            if (outcome.gained if choose else not stopped) and (best is None or outcome.loss < best[1].loss):
                best = tuner, outcome
        if best is None:
            _keep(base, made, tried, refused)
        else:
            _finish(made, *best, tried, refused)


def _plan(seed: int, options: dict[str, Any]) -> Training:
    known = [field.name for field in fields(Training)]
    for name in options:
        if name not in known:
            raise UnknownNameError("option of fine-tuning", name, known)
    return Training(**({"seed": seed} | options))


def _folder(base: Base, out: str | Path | None, config: Config, *, overwrite: bool, resume: bool) -> Run:
    """Make the new run's folder, or open the one to go on in."""
    if out is not None and Path(out).resolve() == base.run.path.resolve():
        raise UsageError(f"{out}: is the run that is fine-tuned. Give the new run a folder of its own.")
    if base.photos.data.root:
        base.photos.data.keep_out(out)
    made = Run.create(out, overwrite=overwrite, resume=resume)
    if made.config not in (None, config):
        raise DataError(
            f"{made.path}: belongs to a fine-tuning of another run or with other options."
            " Give the same ones to --resume, or --overwrite to begin anew."
        )
    return made


def _announce(tuner: Tuner, folds: int | None, counts: int) -> None:
    tuner.left.seconds = tuner.longest_s(folds) * counts
    every = len(tuner.base.folds[:folds])
    say(
        f"fine-tuning {len(tuner.names)} blocks ({', '.join(tuner.names)}; {tuner.parameters:,} weights) on"
        f" {tuner.inputs.device.type}: {every} {'fold' if every == 1 else 'folds'} of at most"
        f" {tuner.plan.epochs} epochs, and once on all photos; all of it takes at most about"
        f" {duration(tuner.left.at_most())}"
    )


def _keep(base: Base, made: Run, tried: list[Outcome], refused: list[str]) -> None:
    """Write the run as it was: nothing was gained, nothing could be trained, or nothing was asked for."""
    if tried:
        why = (
            "Fine-tuning was tried and gained nothing that chance does not explain, so the backbone stays"
            " frozen and"
        )
    elif refused:
        why = "None of the numbers of blocks could be fine-tuned, so"
    else:
        why = "No block was to be fine-tuned, so"
    why += " this run is the one it began with."
    say(why)
    with files.guarded(made.path, AGAIN):
        for name in ("predictions.csv", "health.json", "versions.json", "curves.json"):
            if (base.run.path / name).is_file():
                shutil.copyfile(base.run.path / name, made.path / name)
        for name in ("model", "backbone"):  # a run that was fine-tuned has its backbone beside it
            if (base.run.path / name).is_dir():
                files.copy(base.run.path / name, made.path / name)
    facts = base.metrics.as_dict()
    facts["finetune"] = {"blocks": 0, "tried": [outcome.facts() for outcome in tried]}
    facts["notes"] = [why, *(outcome.said for outcome in tried), *refused, *facts["notes"]]
    made.write_metrics(Metrics.model_validate(rounded(facts)))


def _finish(made: Run, tuner: Tuner, outcome: Outcome, tried: list[Outcome], refused: list[str]) -> None:
    """Train on the whole training side, meet the test side once, and write the run."""
    base = tuner.base
    with made.timed("fine-tune, whole training side"):
        lines = tuner.fit(base.learn, "all")
    learnt, _ = tuner.answers(base.learn)
    judged = outcome.trust(learnt).answering(*base.wanted)
    say_of_unknown(base.metrics.trust.unknown.method, judged.unknown.method)
    tested = None
    if len(base.test):
        features, logits = tuner.answers(base.test)
        distances = judged.unknown.distance(last_layer(features, base.columns), logits)
        answers = to_probabilities(logits, multilabel=base.multilabel, temperature=outcome.temperature)
        nowhere = np.full(len(base.test), -1, np.int64)
        tested = Answers(base.photos.side(base.test), answers[None], nowhere, distances)
    with made.timed("predictor"), files.guarded(made.path, AGAIN):
        backbone, head = _export(made, tuner), _head(tuner)
        _predictor(tuner, backbone, head, outcome.temperature, judged).save(made.model)
    found = Finished(
        outcome=outcome,
        tried=tuple(tried),
        refused=tuple(refused),
        views=tuner.inputs.views,
        refit=tuner.plan.refit,
        lines=lines,
        judged=judged,
        tested=tested,
        card=backbone.card,
        depths=leaning(head, learnt, base.columns),
    )
    found.write(made)


def _export(made: Run, tuner: Tuner) -> Backbone:
    """Write the fine-tuned backbone beside the run, its graph checked against PyTorch."""
    from topgraft.importers._timm import write

    folder = made.path / "backbone"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    card = tuner.base.backbone.card
    _, _, tag = card.name.partition("@")[0].partition(".")  # the side is named again
    write(
        folder,
        tuner.contiguous(),
        size=card.input_size[0],
        tag=f"{tag}-finetuned" if tag else "finetuned",
        origin=f"{card.origin}, last {len(tuner.names)} blocks fine-tuned",
        depths=card.depths or None,
    )
    (folder / SUMS).write_text(sums(folder), encoding="utf-8")
    backbone = Backbone.open(folder)
    expected, got = card.preprocessing(), backbone.card.preprocessing()
    if expected != got:
        raise BackboneError(f"{folder}: expected the preprocessing {expected}, got {got}. Nothing was kept.")
    return backbone


def _head(tuner: Tuner) -> Head:
    base, affine = tuner.base, tuner.net.affine()
    return head_class(base.head.head).from_state(
        base.head.setting, {"weight": affine.weight, "bias": affine.bias}, multilabel=base.multilabel
    )


def _predictor(tuner: Tuner, backbone: Backbone, head: Head, temperature: float, judged: Trust) -> Predictor:
    """Build the predictor, and hold it against PyTorch on photos of the training side.

    Raises:
        BackboneError: where a probability differs by more than 0.002.
    """
    base = tuner.base
    built = Predictor.build(
        backbone, head, classes=base.photos.classes, temperature=temperature, unknown=judged.unknown
    )
    if judged.answer_above is not None:
        built = built.answering_above(judged.answer_above)
    for i in base.learn[:: max(1, len(base.learn) // CHECKED)][:CHECKED]:
        image = base.photos.data.image(int(i))
        expected = to_probabilities(tuner.asked(image), multilabel=base.multilabel, temperature=temperature)
        apart = float(np.abs(built.look(image)["probabilities"] - expected).max())
        if not apart <= AGREEMENT:
            raise BackboneError(
                f"{base.photos.data.samples[i].id}: predictor and PyTorch must agree within {AGREEMENT}, they"
                f" are {apart:.4f} apart. Nothing was kept; try other --blocks."
            )
    return built
