"""The grammar of policy strings: `rotate(60) | shift(0.3) | hflip | fill(reflect)`, read and written.

It deals in ops and plain field values, so that the policy itself can use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from topgraft.errors import UnknownNameError, UsageError
from topgraft.policies.ops import Op, Values

NOTHING = ("", "none", "identity")


def read(text: str, ops: Mapping[Op, tuple[str, ...]]) -> dict[str, Any]:
    """Read a policy string into field values; terms stand in any order, `none` and `identity` say nothing.

    Args:
        text: terms joined by `|`.
        ops: every op with the names of its fields.

    Raises:
        UsageError: for a term that cannot be read or stands there twice.
        UnknownNameError: for a term that does not exist.
    """
    known = {op.term: op for op in ops}
    found: dict[str, Any] = {}
    for term in (part.strip() for part in text.split("|")):
        if term in NOTHING:
            continue
        match = re.fullmatch(r"(\w+)\s*(?:\(([^()]*)\))?", term)
        if not match:
            raise UsageError(f"policy {text!r}: cannot read {term!r}. Write it like `rotate(60) | hflip`.")
        name, inside = match[1], match[2]
        if name not in known:
            raise UnknownNameError("policy term", name, known)
        op = known[name]
        try:
            values = op.read([] if inside is None else [word.strip() for word in inside.split(",")])
        except ValueError:
            *others, last = op.forms
            forms = f"{', '.join(others)} or {last}" if others else last
            raise UsageError(f"policy {text!r}: expected {forms}, got {term!r}.") from None
        fields = dict(zip(ops[op], values, strict=True))
        if found.keys() & fields.keys():
            raise UsageError(f"policy {text!r}: {name} stands there twice. Keep one of them.")
        found |= fields
    return found


def write(ops: Iterable[tuple[Op, Values]]) -> str:
    """Write ops that are on, with their field values: shortest exact numbers, in the order they come in."""
    return " | ".join(op.text(values) for op, values in ops) or "identity"
