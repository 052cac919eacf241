"""Open listed photos once: what their bytes are, and what each looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from topgraft import files
from topgraft.errors import DecodeError
from topgraft.fingerprint import digest
from topgraft.photos.decode import decode
from topgraft.photos.entries import Entry
from topgraft.photos.looks import Look, Looks, look
from topgraft.photos.remarks import remark
from topgraft.settings import Settings
from topgraft.types import Progress

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What decoding one file gave; lasting where these bytes will always give it."""

    digest: str
    look: Look
    lasting: bool


def look_at(
    entries: Sequence[Entry], root: str, settings: Settings, progress: Progress
) -> tuple[dict[str, tuple[str, str]], dict[str, Look]]:
    """Read every file, decode those not yet known: {id: (digest, reason)} and {digest: look}.

    A file that changes meanwhile goes by the digest of the bytes that were decoded.
    """
    kept = Looks(settings.cache_dir)
    digests: dict[str, tuple[str, str]] = {}

    def address(entry: Entry) -> tuple[str, str]:
        try:
            return digest(files.read(root, entry.path)), ""
        except OSError as error:
            return "", unopened(error)

    def see(entry: Entry) -> _Seen:
        try:
            data = files.read(root, entry.path)
        except OSError as error:
            return _Seen("", Look.refused(unopened(error)), lasting=False)
        try:
            image = decode(data, entry.id)
            return _Seen(digest(data), look(image, remark(data, image)), lasting=True)
        except DecodeError as error:
            # What this machine has no memory for, another or the next run may well decode.
            lasting = not isinstance(error.__cause__, MemoryError)
            return _Seen(digest(data), Look.refused(error.reason), lasting)

    with ThreadPoolExecutor(settings.threads) as pool:
        for entry, found in _each(pool, address, entries, "reading photos", progress):
            digests[entry.id] = found
        looks = kept.recall(found for found, _ in digests.values())
        fresh: dict[str, Look] = {}
        # Once, unless a file changed: then others that had its old bytes are still without a look.
        while new := {key: entry for entry in entries if (key := digests[entry.id][0]) and key not in looks}:
            for entry, seen in _each(pool, see, list(new.values()), "checking photos", progress):
                digests[entry.id] = (seen.digest, "" if seen.digest else seen.look.reason)
                looks[seen.digest] = seen.look
                if seen.lasting:
                    fresh[seen.digest] = seen.look
    if fresh:
        kept.keep(fresh)
    return digests, looks


def unopened(error: OSError) -> str:
    """Say why a file could not be opened."""
    return f"cannot be opened ({error.strerror or error})"


def _each(
    pool: ThreadPoolExecutor,
    work: Callable[[Entry], T],
    entries: Sequence[Entry],
    what: str,
    progress: Progress,
) -> Iterable[tuple[Entry, T]]:
    """Work on all entries in threads, in order, telling how far it is."""
    for done, pair in enumerate(zip(entries, pool.map(work, entries), strict=True), start=1):
        progress(what, done, len(entries))
        yield pair
