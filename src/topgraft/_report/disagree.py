"""The photos on which runs disagree: what each of them said, the most telling first."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from topgraft._report.compare import Column
from topgraft._report.facts import short
from topgraft._report.numbers import written
from topgraft.run.predictions import Predicted

MOST = 24


@dataclass(frozen=True)
class Dispute:
    """One photo.

    Attributes:
        id: of the photo, in the first run.
        alt: what a screen reader says.
        label: what it is.
        where: its file, and the split.
        answers: what every run said: its name, its answer, whether that is right, how sure it was.
    """

    id: str
    alt: str
    label: str
    where: Markup
    answers: list[tuple[str, str, bool, Markup]]


def disputes(shown: list[Column]) -> tuple[list[Dispute], int]:
    """List the photos that not all runs gave the same answer for, and say how many more there are.

    Runs that share no class with the first are left out, and so are photos of a class that not all know, and
    those that not all answered for on the same side.
    """
    first, *others = shown
    own = set(first.facts.classes)
    voters = [(0, first)] + [
        (i, other) for i, other in enumerate(others, 1) if own.intersection(other.facts.classes)
    ]
    if len(voters) < 2:
        return [], 0
    known = own.intersection(*(column.facts.classes for _, column in voters))
    said = [
        {
            (row.split, row.digest or row.id): row
            for row in column.facts.rows
            if known.issuperset(column.facts.classes[i] for i in row.labels)
        }
        for _, column in voters
    ]
    shared = set(said[0]).intersection(*said[1:])
    named = [column.facts.classes for _, column in voters]
    found = [
        [rows[key] for rows in said]
        for key in sorted(shared)
        if len({names[rows[key].predicted] for names, rows in zip(named, said, strict=True)}) > 1
    ]
    # First those that only some have right, and of them the ones that somebody was sure and wrong about.
    found.sort(key=lambda rows: (not any(row.right for row in rows), -_worst(rows), rows[0].id))
    return [_dispute(voters, rows) for rows in found[:MOST]], max(len(found) - MOST, 0)


def _worst(rows: list[Predicted]) -> float:
    return max((row.probability for row in rows if not row.right), default=0.0)


def _dispute(voters: list[tuple[int, Column]], rows: list[Predicted]) -> Dispute:
    facts, row = voters[0][1].facts, rows[0]
    label = ", ".join(facts.classes[i] for i in row.labels)
    answers = [
        (column.name, column.facts.classes[said.predicted], said.right, _sure(i, said))
        for (i, column), said in zip(voters, rows, strict=True)
    ]
    alt = "; ".join(f"{name} says {answer}" for name, answer, _, _ in answers)
    where = Markup("<code>{}</code>, {}").format(short(row.id), facts.titles[row.split].lower())
    return Dispute(row.id, f"{row.id}: {label}; {alt}", label, where, answers)


def _sure(run: int, row: Predicted) -> Markup:
    return Markup('<data value="{}" data-run="{}" data-prediction="{}/probability">{}</data>').format(
        f"{row.probability:.6f}", run, row.index, written(row.probability, "whole")
    )
