"""The grammar of policy strings: `rotate(60) | shift(0.3) | hflip | fill(reflect)`, read and written.

It deals in plain field values, so that the policy itself can use it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from topgraft.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Fields = dict[str, Any]
NOTHING = ("", "none", "identity")


def _one(field: str) -> Callable[[list[str]], Fields]:
    def read(words: list[str]) -> Fields:
        (value,) = words
        return {field: float(value)}

    return read


def _flag(field: str) -> Callable[[list[str]], Fields]:
    def read(words: list[str]) -> Fields:
        () = words
        return {field: True}

    return read


def _range(field: str) -> Callable[[list[str]], Fields]:
    def read(words: list[str]) -> Fields:
        if len(words) == 1:
            return {field: (1 - float(words[0]), 1 + float(words[0]))}
        low, high = map(float, words)
        return {field: (low, high)}

    return read


def _shift(words: list[str]) -> Fields:
    x, y = words * 2 if len(words) == 1 else words
    return {"shift_x": float(x), "shift_y": float(y)}


def _crop(words: list[str]) -> Fields:
    mode, fraction = words
    return {"crop": mode, "crop_fraction": float(fraction)}


def _fill(words: list[str]) -> Fields:
    mode, level = [*words, "0"] if len(words) == 1 else words
    return {"fill": mode, "cval": int(level)}


TERMS: dict[str, tuple[str, Callable[[list[str]], Fields]]] = {
    "rotate": ("rotate(degrees)", _one("rotation")),
    "shift": ("shift(fraction) or shift(x,y)", _shift),
    "shear": ("shear(degrees)", _one("shear")),
    "zoom": ("zoom(low,high)", _range("zoom")),
    "hflip": ("hflip", _flag("hflip")),
    "vflip": ("vflip", _flag("vflip")),
    "crop": ("crop(center,fraction) or crop(random,fraction)", _crop),
    "fill": ("fill(nearest), fill(reflect), fill(wrap) or fill(constant,level)", _fill),
    "channel_shift": ("channel_shift(levels)", _one("channel_shift")),
    "brightness": ("brightness(low,high)", _range("brightness")),
    "contrast": ("contrast(low,high)", _range("contrast")),
    "saturation": ("saturation(low,high)", _range("saturation")),
    "blur": ("blur(fraction)", _one("blur")),
    "erase": ("erase(fraction)", _one("erase")),
}


def read(text: str) -> Fields:
    """Read a policy string into field values; terms stand in any order, `none` and `identity` say nothing.

    Raises:
        UsageError: for a term that cannot be read or stands there twice.
        UnknownNameError: for a term that does not exist.
    """
    found: Fields = {}
    for term in (part.strip() for part in text.split("|")):
        if term in NOTHING:
            continue
        match = re.fullmatch(r"(\w+)\s*(?:\(([^()]*)\))?", term)
        if not match:
            raise UsageError(f"policy {text!r}: cannot read {term!r}. Write it like `rotate(60) | hflip`.")
        name, inside = match[1], match[2]
        if name not in TERMS:
            raise UnknownNameError("policy term", name, TERMS)
        form, parse = TERMS[name]
        try:
            values = parse([] if inside is None else [word.strip() for word in inside.split(",")])
        except ValueError:
            raise UsageError(f"policy {text!r}: expected {form}, got {term!r}.") from None
        if found.keys() & values.keys():
            raise UsageError(f"policy {text!r}: {name} stands there twice. Keep one of them.")
        found |= values
    return found


def write(fields: Mapping[str, Any]) -> str:
    """Write field values in the one canonical way: fixed order, shortest exact numbers, nothing that is off.

    Args:
        fields: values by field name; `fill` is None where it means nothing.
    """
    shift = (fields["shift_x"], fields["shift_y"])
    level = f",{fields['cval']}" if fields["cval"] else ""
    terms = [
        _term("rotate", fields["rotation"]),
        _term("shift", *(shift[:1] if shift[0] == shift[1] else shift)) if any(shift) else "",
        _term("shear", fields["shear"]),
        _term("zoom", *fields["zoom"]),
        "hflip" if fields["hflip"] else "",
        "vflip" if fields["vflip"] else "",
        f"crop({fields['crop']},{_number(fields['crop_fraction'])})" if fields["crop"] != "none" else "",
        f"fill({fields['fill']}{level})" if fields["fill"] else "",
        _term("channel_shift", fields["channel_shift"]),
        *(_term(name, *fields[name]) for name in ("brightness", "contrast", "saturation")),
        _term("blur", fields["blur"]),
        _term("erase", fields["erase"]),
    ]
    return " | ".join(filter(None, terms)) or "identity"


def _term(name: str, *values: float) -> str:
    if values in ((0.0,), (1.0, 1.0)):
        return ""
    return f"{name}({','.join(map(_number, values))})"


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")
