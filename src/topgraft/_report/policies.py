"""The policies on one sheet: the same photo, once for each."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from topgraft._report.facts import Facts
from topgraft._report.numbers import Numbers
from topgraft._report.photos import Book, spread
from topgraft.backbones.card import Card
from topgraft.backbones.views import views_of_photo
from topgraft.errors import TopgraftError
from topgraft.fingerprint import digest
from topgraft.policies.policy import IDENTITY, Policy, View
from topgraft.store.table import views_of
from topgraft.types import Image

MOST = 32
CARD = Card(name="sheet", input_size=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3, features=1)
"""Photos are fitted as for EfficientNet-Lite0, then augmented, then made small."""


@dataclass(frozen=True)
class Look:
    """One policy: where its picture is in the book, and its name."""

    key: str
    policy: str


@dataclass(frozen=True)
class Sheet:
    """The contact sheet of one photo."""

    photo: str
    looks: list[Look]
    left_out: int


def brought(metrics: Numbers) -> Markup:
    """Say in one sentence what the policies brought; nothing where that was not measured."""
    at = "/worth/difference/log_loss"
    if not metrics.has(at):
        return _step_by_step(metrics) if metrics.has("/views/steps/0") else Markup("")
    gap = metrics.get(at)
    said = "made answers better" if gap["high"] < 0 else "made answers worse" if gap["low"] > 0 else ""
    return Markup("On these photos they {}: log loss {} against photos as they are.").format(
        said or "cannot be told from none", metrics.inline(at, "signed")
    )


def _step_by_step(metrics: Numbers) -> Markup:
    """Say what so many views of each photo brought, one step after the other."""
    first, then = Markup("{} views of each photo changed the log loss by {}"), Markup("then {} by {}")
    told = [
        (then if i else first).format(
            metrics(f"/views/steps/{i}/policies", "count"),
            metrics.inline(f"/views/steps/{i}/difference", "signed"),
        )
        for i in range(len(metrics.get("/views/steps")))
    ]
    taken = (
        Markup("{} of each are learned from").format(metrics("/views/kept", "count"))
        if metrics.get("/views/kept")
        else "photos are learned from as they are"
    )
    return Markup("Out of fold, {}; {}.").format(Markup(", ").join(told), taken)


def sheet(facts: Facts, book: Book) -> Sheet | None:
    """Render an example photo with the run's policies; None where there are none, or no photo."""
    names: list[str] = facts.metrics.get("policies", [])
    views = views_of([Policy.parse(name) for name in names], int(facts.metrics.get("seed", 0)))
    shown = [views[0], *spread(views[1:], MOST)]
    example = _example(facts, shown) if names else None
    if example is None:
        return None
    photo, images = example
    looks = []
    for view, image in zip(shown, images, strict=True):
        book.draw(view.key, image, 120)
        if book.has(view.key):
            looks.append(Look(view.key, "as it is" if view.policy == IDENTITY else str(view.policy)))
    return Sheet(photo, looks, len(views) - len(shown))


def _example(facts: Facts, views: list[View]) -> tuple[str, list[Image]] | None:
    """Return the id and views of the first photo that was recognised and can still be read."""
    for row in sorted(facts.rows, key=lambda row: (not row.right, row.id))[:20]:
        try:
            raw = facts.origin.read(row.id)
            return row.id, views_of_photo(raw, row.id, digest(raw), views, CARD)
        except (OSError, TopgraftError):
            continue
    return None
