"""Features and the heads compared on them: the photos as they are first, then views while they pay.

The first number is there within seconds, and hours of embedding are never spent on views that bring nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from topgraft._embed import asked_for, embed
from topgraft._learn import Lesson, compare_side, judges_of, options_of
from topgraft.backbones.backbone import Backbone
from topgraft.config import Config
from topgraft.engines import open_engine
from topgraft.fingerprint import fingerprint
from topgraft.importers._catalogue import note_pace
from topgraft.photos.dataset import Dataset
from topgraft.policies.policy import Policy
from topgraft.run import Run
from topgraft.run.run import beside
from topgraft.selection.payoff import Step, facts, scores_of, steps
from topgraft.settings import Settings
from topgraft.splits import Split
from topgraft.store import FeatureStore
from topgraft.store.adopt import adopt, lacking
from topgraft.store.table import Table
from topgraft.text import duration
from topgraft.types import Progress, silent

say = logging.getLogger(__name__).info


@dataclass(frozen=True)
class Work:
    """What it takes to embed and to compare, as often as there are steps.

    Attributes:
        config: the choices.
        data: the photos.
        sides: which of them are held out: those get no view but 0, for nobody would read another.
        backbone: what embeds them.
        policies: all that may be drawn.
        run: where it goes.
        store: where features lie; None for the run's folder.
        settings: cores and the like.
        progress: told of everything that takes long.
        wait: for another process that is writing to the store.
        told: what is said once however many backbones are tried, and was said.
    """

    config: Config
    data: Dataset
    sides: Split
    backbone: Backbone
    policies: Sequence[Policy]
    run: Run
    store: str | Path | None
    settings: Settings
    progress: Progress = silent
    wait: bool = False
    told: set[object] = field(default_factory=set)

    def grow(
        self, begun: float, first: Lesson | None = None
    ) -> tuple[FeatureStore, Lesson | None, dict[str, Any] | None]:
        """Embed what the recipe asks for; views in steps, unless their number is fixed.

        Args:
            begun: when the job began, on the clock of `time.perf_counter`.
            first: heads that were compared on the photos as they are, where that was done already.

        Returns:
            The features to learn from; heads that were compared on them, where it was all that are asked for;
            and what views brought.
        """
        judges = judges_of(self.config)
        self._adopt(len(self.policies))
        if self.config.policies.fixed or not self.policies or not judges:
            self._estimate()
            with self.run.timed("embed"):
                store = self.embedded(len(self.policies))
            if first is None or self.policies or judges != self.config.heads.names:
                return store, None, None
            return store, replace(first, store=store), None
        if first is None:
            with self.run.timed("photos as they are"):
                first = self._compared(0, judges)
            self.say_first(first, begun)
        kept = first
        self._estimate(", if it comes to that")
        taken: list[Step] = []
        for count in steps(len(self.policies)):
            started = time.perf_counter()
            with self.run.timed(f"{count} views"):
                more = self._compared(count, judges)
            side = first.training
            step = Step.between(
                count, kept.found, more.found, side.labels, side.groups, seed=self.config.seed
            )
            taken.append(step)
            now = time.perf_counter()
            say(f"{step} ({duration(now - started)}, {duration(now - begun)} since the start)")
            if not step.pays:
                break
            kept = more
        views = len(kept.store.views) - 1
        if views < taken[-1].policies:
            kept = replace(kept, store=self.embedded(views))  # rows of the others stay until they are pruned
        whole = judges == self.config.heads.names
        return kept.store, kept if whole else None, facts(first.found, first.training.labels, taken)

    def first(self) -> Lesson:
        """Compare heads on the photos as they are."""
        self._adopt(0)
        return self._compared(0, judges_of(self.config) or ("linear",))

    @property
    def place(self) -> str | Path:
        """Where features lie."""
        return self.store or self.run.path / "features.zarr"

    @property
    def learned(self) -> str:
        """A hash of the photos that are learned from and their labels, wherever they lie."""
        ours = self.data.subset((*self.sides.train, *self.sides.val))
        return fingerprint(sorted([sample.digest, sample.named(ours.classes)] for sample in ours.samples))

    def embedded(self, views: int, *, maps: bool = False) -> FeatureStore:
        """Embed all photos as they are, and those that are learned from under the first so many policies."""
        return embed(
            self.data,
            self.run.path / "maps.zarr" if maps else self.place,
            **self._choices(views) | ({"backbone": self.backbone.maps(), "depths": "last"} if maps else {}),
            wait=self.wait,
            progress=self.progress,
        )

    def _choices(self, views: int) -> dict[str, Any]:
        """Return what decides the rows of so many views, as `embed` and `asked_for` take it."""
        return {
            "backbone": self.backbone,
            "policies": self.policies[:views],
            "plain": self.sides.test,
            "seed": self.config.seed,
            "precision": self.backbone.card.precision,
            "depths": self.config.heads.depths,
            "settings": self.settings,
        }

    def _compared(self, views: int, judges: Sequence[str]) -> Lesson:
        return compare_side(
            self.embedded(views),
            self.sides,
            heads=judges,
            **options_of(self.config),
            settings=self.settings,
            progress=self.progress,
        )

    def say_first(self, first: Lesson, begun: float) -> None:
        """Say how good the photos as they are make it, and how soon that was known; once."""
        if not self._is_new("first answer"):
            return
        side = first.training
        scores = scores_of(first.found, side.labels, side.groups, seed=self.config.seed)
        say(
            f"first answer, {duration(time.perf_counter() - begun)} after the start, from the photos as they"
            f" are: accuracy {scores['accuracy']}, log loss {scores['log_loss']}, out of fold on"
            f" {len(side.rows)} photos"
        )

    def _adopt(self, views: int) -> None:
        """Take over what the stores of other runs on the same photos have."""
        if self.store is None:
            others = beside(self.run.path, self.config.data.photos)
            for other in adopt(self.place, self._asked(views), others):
                if self._is_new(other.parent):
                    say(f"features that {other.parent} has are used again")

    def _is_new(self, fact: object) -> bool:
        """Tell whether something was not said yet, and note that it is now."""
        known = fact in self.told
        self.told.add(fact)
        return not known

    def _asked(self, views: int) -> Table:
        """Return what `embedded` asks a store for."""
        return asked_for(self.data, **self._choices(views))

    def _estimate(self, unless: str = "") -> None:
        """Say how long embedding all views will take, from a quarter of a second of trying.

        Nothing is tried where all is stored.
        """
        table = self._asked(len(self.policies))
        rows, total = lacking(self.place, table), sum(len(table.digests_of(part)) for part in table.parts)
        if table.depths:
            total //= 2  # block features come from the same pass
        if not rows:
            say(f"all {total:,} views are stored already")
            return
        settings, card = self.settings, self.backbone.card
        with open_engine(self.backbone, precision=card.precision, settings=settings) as engine:
            pace = engine.images_per_second(8 * settings.threads)
            note_pace(settings.cache_dir, card, pace)
            say(
                f"{card.name} on {engine.name} ({settings.threads} cores): {pace:.0f} images/s, so"
                f" {rows:,} {'views' if rows == total else f'of {total:,} views, not stored yet,'} take about"
                f" {duration(rows / pace)}{unless}"
            )
