"""Whether photos are embedded in INT8: tried where it may pay, kept where it loses nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec

import numpy as np

from topgraft.backbones.backbone import Backbone
from topgraft.backbones.fit import fit
from topgraft.config import Config
from topgraft.engines import open_engine
from topgraft.photos.dataset import Dataset
from topgraft.run import Run
from topgraft.run.results import indicators
from topgraft.selection.precision import worth_keeping
from topgraft.settings import Settings
from topgraft.speed import adds_bytes
from topgraft.splits import Split
from topgraft.types import Features, Images, Progress, silent

AT_ONCE = 512
"""Training photos that lie in memory at once, where INT8 is compared with f32."""
MANY = 20_000
"""Views below which INT8 is not even tried by `auto`: they take a minute or two."""
QUICKER = 1.3
"""How many times as fast as f32 INT8 must be for `auto` to take it."""

say = logging.getLogger(__name__).info


def in_precision(
    backbone: Backbone,
    data: Dataset,
    sides: Split,
    config: Config,
    run: Run,
    *,
    views: int,
    settings: Settings,
    progress: Progress = silent,
) -> Backbone:
    """Return the backbone in the precision that a recipe asks for, or that is found to pay.

    Args:
        backbone: in float32.
        data: the photos.
        sides: which of them are learned from.
        config: the choices.
        run: where the verdict is noted.
        views: how many pictures there will be to embed, at most.
        settings: cores and cache.
        progress: told of photos done.
    """
    asked = config.backbone.precision
    if asked == "int8" or (asked == "auto" and may_pay(backbone, views, settings)):
        with run.timed("quantise"):
            return _quantized(backbone, data, sides, config, run, settings, progress)
    return backbone


def may_pay(backbone: Backbone, views: int, settings: Settings) -> bool:
    """Say whether INT8 is worth trying: making it takes half a minute."""
    why = ""
    if backbone.card.precision == "int8":
        why = "the backbone is INT8 already"
    elif settings.device == "cuda":
        why = "INT8 is for processors; on CUDA photos are embedded in f16"
    elif views < MANY:
        why = f"{views:,} views at most are soon embedded"
    elif adds_bytes() is False:
        why = "this processor has no VNNI, and would gain nothing"
    elif find_spec("nncf") is None:
        why = "INT8 needs the extra int8: pip install 'topgraft[int8]'"
    if why:
        say(f"precision auto: {backbone.card.precision} ({why})")
    return not why


def _quantized(
    backbone: Backbone,
    data: Dataset,
    sides: Split,
    config: Config,
    run: Run,
    settings: Settings,
    progress: Progress,
) -> Backbone:
    """Quantise on the training photos, and keep INT8 only where it loses nothing on the same folds.

    Where the choice is left to Topgraft, it has to be quicker, too.
    """
    from topgraft.importers.quantize import quantize, spread

    learn = data.subset(sides.train)

    def pictures(rows: Sequence[int]) -> Images:
        return np.stack([fit(learn.image(i), backbone.card) for i in rows])

    coarse = quantize(backbone, pictures(spread(len(learn))), settings=settings)
    columns = backbone.card.columns if config.heads.depths != "last" and coarse.card.depths else None
    features: tuple[list[Features], list[Features]] = ([], [])
    took = [0.0, 0.0]
    with ExitStack() as stack:
        engines = [
            stack.enter_context(
                open_engine(one, precision=one.card.precision, depths=columns is not None, settings=settings)
            )
            for one in (backbone, coarse)
        ]
        for start in range(0, len(learn), AT_ONCE):
            rows = range(start, min(start + AT_ONCE, len(learn)))
            shown = pictures(rows)
            for which, engine in enumerate(engines):
                begun = time.perf_counter()
                features[which].append(engine.embed(shown))
                took[which] += time.perf_counter() - begun
            progress("compare f32 and INT8", rows[-1] + 1, len(learn))
    labels = indicators(learn.samples, len(learn.classes)) if learn.multilabel else learn.labels
    exact, rounded = map(np.concatenate, features)
    verdict = worth_keeping(exact, rounded, labels, learn.groups, columns=columns, settings=settings)
    run.write_json("int8.json", verdict.as_dict())
    times = took[0] / took[1]
    say(f"{verdict.sentence} On this processor it is {times:.1f} times as fast.")
    if config.backbone.precision == "auto" and times < QUICKER:
        say("That is too little to be worth other features, so f32 is kept.")
        return backbone
    return coarse if verdict.keep else backbone
