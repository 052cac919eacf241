"""What photos belong together by: a part of their path, or what the camera noted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from PIL import ExifTags

from topgraft.errors import UnknownNameError, UsageError
from topgraft.photos.decode import opened
from topgraft.text import counted, seconds

EXIF = "exif:"
WHEN = "%Y:%m:%d %H:%M:%S"
"""How EXIF writes a time."""
TAGS = {name: number for number, name in ExifTags.TAGS.items()}


@dataclass(frozen=True)
class Grouping:
    """By what photos are joined into groups that stay on one side of every split.

    Attributes:
        by: `exif:TAG`, or a regular expression that is looked for in a photo's path below its root; photos
            whose groups `(…)` match alike, or the whole match where it has none, belong together.
        within: with a tag that is a time, so many seconds: each photo within this of the one before it is of
            its burst. None joins photos of the same value.

    Raises:
        UsageError: for what is no regular expression, and `within` without a tag.
        UnknownNameError: for a tag EXIF does not have.
    """

    by: str
    within: float | None = None

    def __post_init__(self) -> None:
        if self.tag:
            if self.tag not in TAGS:
                raise UnknownNameError("EXIF tag", self.tag, TAGS)
        elif self.within is not None:
            raise UsageError(
                f"within: goes with a time, such as --group-by exif:DateTimeOriginal, got {self.by!r}."
            )
        else:
            try:
                re.compile(self.by)
            except re.error as error:
                raise UsageError(f"group_by: is no regular expression ({error}), got {self.by!r}.") from error

    @classmethod
    def of(cls, by: str | None, within: str | float | None = None) -> Grouping | None:
        """Return what two options say; None where there are none.

        Raises:
            UsageError: for `within` alone, and for a length of time that is none.
        """
        if by is None:
            if within is not None:
                raise UsageError("within: goes with --group-by exif:DateTimeOriginal. Give both.")
            return None
        try:
            return cls(by, seconds(within) if isinstance(within, str) else within)
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"within: {error}. Try --within 60s.") from error

    @property
    def tag(self) -> str:
        """The EXIF tag; empty for a regular expression."""
        return self.by.removeprefix(EXIF) if self.by.startswith(EXIF) else ""

    def keys(self, names: Sequence[str], read: Callable[[str], bytes], threads: int = 1) -> dict[str, str]:
        """Return the group of each photo that has one.

        Args:
            names: ids of photos.
            read: gives the bytes of one.
            threads: that read photos, where it takes that.

        Raises:
            UsageError: where no photo has a group.
        """
        if not self.tag:
            found = {name: key for name in names if (key := self._of_path(name)) is not None}
        else:
            with ThreadPoolExecutor(threads) as pool:
                values = pool.map(lambda name: exif(read(name), self.tag), names)
                noted = {name: value for name, value in zip(names, values, strict=True) if value}
            found = noted if self.within is None else bursts(noted, self.within)
        if names and not found:
            what = f"the EXIF tag {self.tag}" if self.tag else f"a match of {self.by!r} in its path"
            raise UsageError(f"group_by: no photo has {what} (first: {min(names)}). Look at one of them.")
        return {name: f"{self.by} {key}" for name, key in found.items()}

    def _of_path(self, name: str) -> str | None:
        match = re.search(self.by, name)
        if match is None:
            return None
        return "\n".join(part or "" for part in match.groups()) if match.groups() else match[0]

    def said(self, keys: Mapping[str, str], photos: int) -> str:
        """Say what came of it."""
        alone = photos - len(keys)
        rest = f"; {counted(alone, 'photo')} without it stand alone" if alone else ""
        near = f", within {self.within:g} s" if self.within is not None else ""
        return f"Grouped by {self.by}{near}: {counted(len(set(keys.values())), 'group')}{rest}."


def exif(data: bytes, tag: str) -> str:
    """Return a tag of a photo as text; empty where there is none, or no readable photo."""
    try:
        with opened(data) as photo:
            noted = photo.getexif()
            value = noted.get(TAGS[tag]) or noted.get_ifd(ExifTags.IFD.Exif).get(TAGS[tag])
    except Exception:  # noqa: BLE001  Pillow raises whatever damaged metadata make of it
        return ""
    return str(value).strip("\0 ") if value else ""


def bursts(times: Mapping[str, str], within: float) -> dict[str, str]:
    """Join photos each of which was taken soon after another: {name: the time of the first}.

    Args:
        times: of photos, as EXIF writes them; others are passed over.
        within: seconds.
    """
    known = []
    for name, text in times.items():
        try:
            known.append((datetime.strptime(text[:19], WHEN), name))  # noqa: DTZ007  a camera knows no zone
        except ValueError:
            continue
    found: dict[str, str] = {}
    first = last = None
    for at, name in sorted(known):
        if last is None or (at - last).total_seconds() > within:
            first = at
        found[name] = str(first)
        last = at
    return found
