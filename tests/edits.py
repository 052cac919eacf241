"""Files as people and accidents change them: one value of a JSON file at a time, in a drawn order."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VALUES = (None, "x", "", -1, 0, 7, 2.5, True, [], {}, 10**400, 1e308, float("nan"), "\0", [[]], {"a": 1})
"""What takes a value's place; and it may be gone."""


def places(facts: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """List the places of all values, branches too."""
    if above:
        yield above
    pairs = facts.items() if isinstance(facts, dict) else enumerate(facts) if isinstance(facts, list) else ()
    for key, value in pairs:
        yield from places(value, (*above, key))


def edits(file: Path, most: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Return up to `most` edits of a JSON file: what was done, and the text."""
    facts = json.loads(file.read_text(encoding="utf-8"))
    draw = random.Random(seed)
    every = [(place, value) for place in places(facts) for value in (*VALUES, "gone")]
    for place, value in draw.sample(every, min(most, len(every))):
        changed = copy.deepcopy(facts)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        if value == "gone":
            del inner[place[-1]]
        else:
            inner[place[-1]] = value
        yield f"{'/'.join(map(str, place))} = {str(value)[:20]}", json.dumps(changed)
