"""The verdict in a few plain sentences: how good, how sure that is, and where it fails."""

from __future__ import annotations

from markupsafe import Markup

from topgraft._report.facts import Facts
from topgraft._report.mistakes import KEYS
from topgraft._report.numbers import Numbers, pointer

FEW = 100
"""Fewer photos than this make an interval wide enough to say so."""


def headline(facts: Facts) -> str:
    """Name the measurement to believe: `test` or `cross_validation`."""
    return KEYS[facts.splits[0]]


def verdict(facts: Facts, metrics: Numbers) -> list[Markup]:
    """Write the three sentences, which of two measurements to believe, and what else the page has to say."""
    key = headline(facts)
    if facts.multilabel:
        return [_how_good_of_several(metrics, key), *_which(facts, metrics), *facts.said]
    good = [_how_good(metrics, key), *_which(facts, metrics)] if facts.own else [_how_good_here(metrics)]
    return [*good, _how_sure(metrics, key), _where_it_fails(facts, metrics, key), *facts.said]


def _how_good_of_several(metrics: Numbers, key: str) -> Markup:
    """Say it of photos with several labels: of each class it says yes or no."""
    return Markup(
        "Photos carry several labels, so it says yes or no for each class: right for {} of these answers"
        " about {} photos. For new photos of the same kind, that share lies between {} with 95 % confidence."
    ).format(
        metrics.value(f"/{key}/accuracy", "percent"),
        metrics(f"/{key}/n", "count"),
        metrics.interval(f"/{key}/accuracy", "percent", between="and"),
    )


def _which(facts: Facts, metrics: Numbers) -> list[Markup]:
    if not facts.own:
        return []
    found = facts.run.metrics.believed
    names = {"test": "the held-out test", "cross_validation": "the cross-validation"}
    named = [
        Markup("{} ({}, {}, of {} photos)").format(
            names[key],
            metrics.value(f"/{key}/accuracy", "percent"),
            metrics.interval(f"/{key}/accuracy", "percent"),
            metrics(f"/{key}/n", "count"),
        )
        for key in (found.key, found.other)
        if found.why
    ]
    return [Markup(found.why).format(*named)] if named else []  # noqa: S704 - the sentence is ours


def _how_good_here(metrics: Numbers) -> Markup:
    """Say it of other photos than the run's own."""
    n, share = metrics("/test/n", "count"), metrics.value("/test/accuracy", "percent")
    if metrics.has("/test/confusion"):
        return Markup("It named {} of these {} photos right: {}.").format(_right(metrics, "test"), n, share)
    return Markup("It was right for {} of these {} photos.").format(share, n)


def _how_good(metrics: Numbers, key: str) -> Markup:
    n, share = metrics(f"/{key}/n", "count"), metrics.value(f"/{key}/accuracy", "percent")
    if key == "test" and metrics.has("/test/confusion"):
        return Markup(
            "It named {} of {} held-out photos right, none of which was used to build it: {}."
        ).format(_right(metrics, key), n, share)
    if key == "test":
        return Markup(
            "It was right for {} of {} held-out photos, none of which was used to build it."
        ).format(share, n)
    judged = Markup(
        "each judged by a version of it that had not seen that photo (cross-validation, {} folds)"
    ).format(metrics("/cross_validation/folds", "count"))
    if metrics.get("/cross_validation/folds") == 1:
        judged = Markup("those of a single split, judged by a version of it that had not seen them")
    if metrics.has("/cross_validation/confusion") and metrics.get("/cross_validation/repeats") == 1:
        return Markup("It named {} of {} photos right, {}: {}.").format(
            _right(metrics, key), n, judged, share
        )
    return Markup("It was right for {} of {} photos, {}.").format(share, n, judged)


def _right(metrics: Numbers, key: str) -> Markup:
    size = len(metrics.get(f"/{key}/confusion"))
    return metrics.sum([pointer(key, "confusion", i, i) for i in range(size)])


def _how_sure(metrics: Numbers, key: str) -> Markup:
    interval = metrics.interval(f"/{key}/accuracy", "percent", between="and")
    n = metrics(f"/{key}/n", "count")
    said = Markup(
        "For new photos of the same kind, the share it gets right lies between {} with 95 % confidence"
    ).format(interval)
    if metrics.get(f"/{key}/n") < FEW:
        return Markup(
            "{}; the range is wide because {} photos are few, and more of them would narrow it."
        ).format(said, n)
    return Markup("{}, measured on {} photos.").format(said, n)


def _where_it_fails(facts: Facts, metrics: Numbers, key: str) -> Markup:
    if not metrics.has(f"/{key}/confusion"):
        return Markup("The classes it finds worst are listed under <a href='#classes'>Class by class</a>.")
    confusion = metrics.get(f"/{key}/confusion")
    size = range(len(confusion))
    wrong = [(confusion[i][j], i, j) for i in size for j in size if i != j and confusion[i][j]]
    sizes = [sum(counts) for counts in confusion]
    largest = sizes.index(max(sizes))
    support = metrics(pointer(key, "per_class", facts.classes[largest], "support"), "count")
    if sizes.count(max(sizes)) == 1:
        base = Markup("always answering <q>{}</q>, the largest class, would be right {} times").format(
            facts.classes[largest], support
        )
    else:
        base = Markup("always giving the same answer would be right {} times").format(support)
    if not wrong:
        return Markup(
            "It made no mistake here, which does not mean that it never will; for comparison, {}."
        ).format(base)
    most = max(wrong)[0]
    first, *others = [(i, j) for count, i, j in wrong if count == most]
    mistake = _mistake(facts, metrics, key, *first)
    if len(others) > 1:
        said = Markup("No mistake stands out; several are as frequent as taking {}").format(mistake)
    elif others:
        said = Markup("It takes {} as often as {}").format(mistake, _mistake(facts, metrics, key, *others[0]))
    else:
        said = Markup("Its most frequent mistake is to take {}").format(mistake)
    return Markup("{}; for comparison, {}.").format(said, base)


def _mistake(facts: Facts, metrics: Numbers, key: str, i: int, j: int) -> Markup:
    """Write that a class was taken for another, and how often."""
    return Markup("{} for {} ({} of {})").format(
        facts.classes[i],
        facts.classes[j],
        metrics(pointer(key, "confusion", i, j), "count"),
        metrics(pointer(key, "per_class", facts.classes[i], "support"), "count"),
    )
