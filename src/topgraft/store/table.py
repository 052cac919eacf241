"""What a store is of: which samples, which views, which backbone. Features are not in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from topgraft.backbones.card import Card, Kind
from topgraft.fingerprint import fingerprint
from topgraft.photos.dataset import Dataset
from topgraft.photos.sample import Sample
from topgraft.policies.policy import IDENTITY, Policy, View

PIXELS = 3
"""Counts up when decoding, fit or warp gives other pixels for the same photo, so old rows are not reused."""

STATISTICS = 1
"""Counts up when the same blocks give other means or spreads."""


Count = Annotated[int, Field(ge=0, lt=2**63)]


class _View(BaseModel):
    policy: str
    index: Count
    seed: Count


class _Samples(BaseModel):
    """A column for each field of the samples; `pixels` came last."""

    id: list[str]
    path: list[str]
    label: list[Count]
    group: list[str]
    digest: list[Annotated[str, Field(pattern="^[0-9a-f]{32}$")]]
    split: list[str | None]
    labels: list[list[Count]]
    pixels: list[str] | None = None


class _Form(BaseModel):
    """What `Table.facts` writes: an edited store is one line, not a surprise when it is read."""

    precision: str
    views: Annotated[list[_View], Field(min_length=1)]
    classes: Annotated[list[str], Field(min_length=1)]
    samples: _Samples
    groups: list[Count]
    root: str
    depths: bool = False

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        columns = [column for column in vars(self.samples).values() if column is not None]
        if len({len(self.groups), *map(len, columns)}) > 1:
            raise ValueError("expected columns of one length")
        labels = [*self.samples.label, *(label for labels in self.samples.labels for label in labels)]
        if max(labels, default=0) >= len(self.classes):
            raise ValueError(f"expected labels below {len(self.classes)}, got {max(labels)}")
        return self


def views_of(policies: Sequence[Policy], seed: int) -> tuple[View, ...]:
    """Return view 0, the photo as it is, and one view for each policy.

    A policy that is there twice gets another index, so that its second view differs from its first. The index
    counts equal policies only: adding, removing or reordering others changes no view's address.
    """
    seen: dict[str, int] = {}
    views = [View(IDENTITY)]
    for policy in policies:
        name = str(policy)
        views.append(View(policy, index=seen.get(name, 0), seed=seed))
        seen[name] = seen.get(name, 0) + 1
    return tuple({view.key: view for view in views}.values())


def address(card: Card, precision: str, view: View, kind: Kind = "features") -> dict[str, Any]:
    """Say in plain data what decides a row, but for the photo's bytes."""
    facts: dict[str, Any] = {
        "backbone": card.name,
        "card": card.fingerprint(),
        "preprocessing": card.preprocessing(),
        "precision": precision,
        "view": view.key,
        "pixels": PIXELS,
    }
    if kind == "blocks":
        facts["blocks"] = [depth.model_dump() for depth in card.depths]
        facts["statistics"] = STATISTICS
    if kind in card.float32:
        facts["rows"] = "float32"
    return facts


@dataclass(frozen=True)
class Part:
    """The rows of one view, of one kind.

    Attributes:
        view: index into the table's views.
        kind: of rows.
        address: hash of what decides them.
        width: how many numbers one has.
        dtype: of the numbers at rest.
    """

    view: int
    kind: Kind
    address: str
    width: int
    dtype: str


@dataclass(frozen=True)
class Table:
    """What one call of `embed` asks for.

    Attributes:
        card: the backbone's facts.
        precision: the engine's.
        views: view 0 is the photo as it is.
        classes: class names.
        samples: sorted by id.
        groups: (N,) group numbers, near-duplicates merged, counted from 0 in the samples' order.
        root: where the photos lay; decides nothing.
        depths: whether there are rows of block features beside those of features.
        plain: ids of samples that are asked for as they are alone: of them there is view 0 and no other.
    """

    card: Card
    precision: str
    views: tuple[View, ...]
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    groups: tuple[int, ...]
    root: str
    depths: bool = False
    plain: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        data: Dataset,
        card: Card,
        precision: str,
        views: Sequence[View],
        *,
        depths: bool = False,
        plain: Iterable[str] = (),
    ) -> Self:
        """Take what a dataset says, in one order whatever the order it came in."""
        order = sorted(range(len(data)), key=lambda i: data.samples[i].id)
        groups = _renumbered(int(data.groups[i]) for i in order)
        samples = tuple(data.samples[i] for i in order)
        bare = tuple(sorted(plain)) if len(views) > 1 else ()  # of view 0 alone nobody needs to know
        return cls(card, precision, tuple(views), data.classes, samples, groups, data.root, depths, bare)

    def facts(self) -> dict[str, Any]:
        """Write it as plain data, a column for each field of the samples."""
        names = ("id", "path", "label", "group", "digest", "split", "labels", "pixels")
        return {
            "card": self.card.model_dump(mode="json"),
            "precision": self.precision,
            "views": [
                {"policy": str(view.policy), "index": view.index, "seed": view.seed} for view in self.views
            ],
            "classes": list(self.classes),
            "samples": {name: [_plain(getattr(sample, name)) for sample in self.samples] for name in names},
            "groups": list(self.groups),
            "root": self.root,
            **({"depths": True} if self.depths else {}),
            **({"plain": list(self.plain)} if self.plain else {}),
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Self:
        """Read what `facts` wrote.

        Raises:
            ValueError: where it is not that.
        """
        _Form.model_validate(facts)
        columns = facts["samples"]
        rows = zip(*columns.values(), strict=True)
        samples = (dict(zip(columns, row, strict=True)) for row in rows)
        views = (
            View(Policy.parse(view["policy"]), index=view["index"], seed=view["seed"])
            for view in facts["views"]
        )
        return cls(
            Card.model_validate(facts["card"]),
            facts["precision"],
            tuple(views),
            tuple(facts["classes"]),
            tuple(Sample(**row | {"labels": tuple(row["labels"])}) for row in samples),
            tuple(facts["groups"]),
            facts["root"],
            facts.get("depths", False),
            tuple(facts.get("plain", ())),
        )

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """All that is stored: of each view the features, then of each the block features."""
        columns = self.card.columns
        widths: dict[Kind, int] = {"features": columns.last}
        if self.depths:
            widths["blocks"] = columns.extra
        return tuple(
            Part(
                view,
                kind,
                fingerprint(self.facts_of(view, kind)),
                width,
                "float32" if kind in self.card.float32 else "float16",
            )
            for kind, width in widths.items()
            for view in range(len(self.views))
        )

    @property
    def addresses(self) -> tuple[str, ...]:
        """The address of each view's features."""
        return tuple(part.address for part in self.parts if part.kind == "features")

    def part(self, view: int, kind: Kind) -> Part:
        """Return the part with one view's rows of a kind."""
        return next(part for part in self.parts if (part.view, part.kind) == (view % len(self.views), kind))

    def facts_of(self, view: int, kind: Kind = "features") -> dict[str, Any]:
        """Say what decides the rows of a view."""
        return address(self.card, self.precision, self.views[view], kind)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """The different photos, sorted: what has to be computed for view 0."""
        return tuple(sorted({sample.digest for sample in self.samples}))

    @cached_property
    def varied(self) -> tuple[str, ...]:
        """The different photos that are not plain, sorted: what has to be computed for every other view."""
        plain = set(self.plain)
        return tuple(sorted({sample.digest for sample in self.samples if sample.id not in plain}))

    def digests_of(self, part: Part) -> tuple[str, ...]:
        """The different photos a part has a row of, sorted."""
        return self.varied if part.view else self.digests

    def identity(self) -> str:
        """Hash all that decides what is learned from it: neither root nor paths."""
        facts = self.facts()
        facts["card"], facts["root"] = self.card.fingerprint(), ""
        facts["samples"].pop("path")
        facts["samples"].pop("pixels")
        return fingerprint(facts)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _renumbered(groups: Iterable[int]) -> tuple[int, ...]:
    """Count groups from 0 in the order they first appear."""
    new: dict[int, int] = {}
    return tuple(new.setdefault(group, len(new)) for group in groups)
