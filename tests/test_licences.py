"""Under which terms everything comes that Topgraft brings: permissive, or named in docs/licences.md."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest

requirements = pytest.importorskip("packaging.requirements")
utils = pytest.importorskip("packaging.utils")

CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGE = (CHECKOUT / "docs" / "licences.md").read_text(encoding="utf-8")
PERMISSIVE = re.compile(
    r"MIT(-0|-CMU)?|(0|[23]-Clause[ -])?BSD([ -][23]-Clause)?|Apache([ -]2\.0| Software)?|PSF(-2\.0)?"
    r"|Python Software Foundation|ISC|Zlib|CC0-1\.0|BSL-1\.0|MPL-2\.0|LLVM-exception|ISC License \(ISCL\)"
    r"|Mozilla Public License 2\.0 \(MPL 2\.0\)",
    re.IGNORECASE,
)
"""MPL-2.0 asks for its own files alone; who links them owes nothing."""
STRICT = re.compile(
    r"^lib(x264|x265|heif|de265|av(codec|format|util|filter)|sw(scale|resample)|gfortran|quadmath)"
)
"""Libraries under the LGPL or GPL that wheels are known to carry."""


def brought_by(names: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Find what requirements bring, and what that brings, as installed here."""
    found: dict[str, metadata.Distribution] = {}
    open_: list[tuple[str, frozenset[str]]] = []

    def take(text: str, extras: frozenset[str]) -> None:
        wanted = requirements.Requirement(text)
        asked = (
            [wanted.marker.evaluate({"extra": extra}) for extra in (extras or {""})]
            if wanted.marker
            else [True]
        )
        if any(asked) and utils.canonicalize_name(wanted.name) != "topgraft":
            open_.append((utils.canonicalize_name(wanted.name), frozenset(wanted.extras)))

    for name in names:
        take(name, frozenset())
    while open_:
        name, extras = open_.pop()
        if name in found and not extras:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here
        for text in found[name].requires or []:
            take(text, extras)
    return found


def terms(package: metadata.Distribution) -> list[str]:
    """Name the licences that a package says it has."""
    facts = package.metadata
    if said := facts.get("License-Expression"):
        return re.split(r" AND | OR | WITH ", said)
    classifiers = [
        line.rpartition(" :: ")[2] for line in facts.get_all("Classifier") or [] if "License ::" in line
    ]
    known = [line for line in classifiers if line != "OSI Approved"]
    first = (facts.get("License") or "").strip().splitlines()[:1]
    return known or [part for line in first for part in re.split(r" AND | OR ", line)]


def named(packages: Iterable[str]) -> list[str]:
    """List the packages that the page does not name."""
    return sorted(
        name for name in packages if f"`{'nvidia-*' if name.startswith('nvidia-') else name}`" not in PAGE
    )


def is_permissive(term: str) -> bool:
    plain = term.strip().removesuffix(" License").removesuffix(" license")
    return PERMISSIVE.fullmatch(plain) is not None


@pytest.mark.parametrize("extra", ["", *PROJECT["optional-dependencies"]])
def test_what_is_not_permissive_is_named(extra):
    wanted = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    packages = brought_by(wanted)
    assert len(packages) > 15 or extra
    said = {name: terms(package) for name, package in packages.items()}
    odd = {name: found for name, found in said.items() if not found or not all(map(is_permissive, found))}
    assert named(odd) == [], odd


def test_strict_libraries_inside_wheels_are_named():
    wanted = [
        *PROJECT["dependencies"],
        *(name for more in PROJECT["optional-dependencies"].values() for name in more),
    ]
    inside: dict[str, set[str]] = defaultdict(set)
    for name, package in brought_by(wanted).items():
        for file in package.files or []:
            if found := STRICT.match(file.name):
                inside[name].add(found[0])
    assert inside["opencv-python-headless"], "FFmpeg is known to be there"
    assert named(inside) == []
    libraries = {library for held in inside.values() for library in held}
    assert sorted(library for library in libraries if library not in PAGE) == []


@pytest.mark.parametrize(
    "term", ["GPL-3.0-only", "AGPL", "LGPL-2.1", "Other/Proprietary License", "UNKNOWN", ""]
)
def test_other_terms_are_not_permissive(term):
    assert not is_permissive(term)
    assert is_permissive("MIT License")
    assert is_permissive("BSD-3-Clause")
