"""Folders of backbones: `model.onnx` and `card.json`, written whole or not at all.

The cache holds one folder a graph, and in `requests/` one small file for each way a backbone was asked
for, so that a name finds its folder again without timm and without a network.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from topgraft import files
from topgraft.backbones.card import Card
from topgraft.errors import BackboneError
from topgraft.fingerprint import fingerprint

GRAPH, CARD, SUMS, TIMM = "model.onnx", "card.json", "SHA256SUMS", "timm"
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def temporary(beside: Path) -> Iterator[Path]:
    """Yield an empty folder beside the place its content will go to; what is left in it is removed."""
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".new-", dir=beside.parent))
    except OSError as error:
        raise _unwritable(beside.parent, error) from error
    try:
        folder.chmod(0o755)
        yield folder
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise _unwritable(beside.parent, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rename_into_place(folder: Path, place: Path) -> None:
    """Rename a finished folder to its place; where another process was first, its result stays."""
    try:
        os.rename(folder, place)  # noqa: PTH104 the atomic one
    except OSError as error:
        if not complete(place):
            raise BackboneError(f"{place}: cannot be written ({error.strerror}).") from error


def keep(cache: Path, write: Callable[[Path], Card]) -> Path:
    """Let `write` fill a folder, keep it under its card's fingerprint, and return its place."""
    with temporary(cache / "backbones" / "any") as folder:
        place = cache / "backbones" / write(folder).folder()
        (folder / SUMS).write_text(sums(folder), encoding="utf-8")
        rename_into_place(folder, place)
    return place


def complete(folder: Path) -> bool:
    """Return whether a folder holds a backbone."""
    return (folder / GRAPH).is_file() and (folder / CARD).is_file()


def note(path: Path, facts: dict[str, Any]) -> None:
    """Write a small JSON file, whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps(facts, indent=1).encode())
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _unwritable(place: Path, error: OSError) -> BackboneError:
    make_room = "Make room, or choose" if error.errno in FULL else "Choose"
    return BackboneError(
        f"{place}: cannot be written ({error.strerror}). {make_room} another folder, for the cache with"
        " TOPGRAFT_CACHE_DIR."
    )


def remember(cache: Path, request: dict[str, Any], place: Path) -> None:
    """Note which folder answers a request."""
    note(_note(cache, request), {**request, "folder": place.name})


def find(cache: Path, request: dict[str, Any]) -> Path | None:
    """Return the folder that answers a request, where there is one."""
    try:
        place = cache / "backbones" / json.loads(_note(cache, request).read_bytes())["folder"]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None  # none, or a damaged one: it is asked for anew
    return place if complete(place) else None


def drop(place: Path) -> None:
    """Take a damaged folder out of the cache; gone at once, so that nobody meets half of it."""
    aside = place.with_name(f".damaged-{place.name}-{os.getpid()}")
    with suppress(OSError):
        place.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _note(cache: Path, request: dict[str, Any]) -> Path:
    return cache / "backbones" / "requests" / f"{fingerprint(request)}.json"


def sums(folder: Path) -> str:
    """Return the SHA-256 of all files of a folder, in the form `sha256sum -c` reads."""
    listed = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS)
    return "".join(f"{_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in listed)


def verify(folder: Path) -> None:
    """Compare a folder's files with its list of checksums, where it has one.

    Raises:
        BackboneError: naming the first file that is missing or differs.
    """
    if not (folder / SUMS).is_file():
        return
    for line in (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        expected, _, name = line.partition("  ")
        file = folder / name
        if ".." in file.parts[len(folder.parts) :] or not file.is_relative_to(folder):
            raise BackboneError(
                f"{folder / SUMS}: names a file elsewhere ({name}). Fetch the backbone again."
            )
        if not file.is_file() or _sha256(file) != expected:
            state = "differs from" if file.is_file() else "is missing but named in"
            raise BackboneError(f"{file}: {state} {SUMS}. Fetch the backbone again.")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
