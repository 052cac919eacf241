"""A review: what is asked next, what was answered, and what can be taken back. The server shows it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from threading import RLock
from typing import Any, Self

import numpy as np

from topgraft import files
from topgraft._relabel.learner import Learner
from topgraft._relabel.photos import Photo, in_folder, of_the_run
from topgraft._relabel.rows import Row, rows_of
from topgraft.errors import DataError, UsageError
from topgraft.photos.corrections import (
    Correction,
    Corrections,
    Decision,
    current,
    without_line_ends,
)
from topgraft.photos.dataset import keep_out
from topgraft.photos.decode import decode
from topgraft.photos.entries import class_name
from topgraft.photos.shrink import shrink
from topgraft.predictor import load
from topgraft.run import Run
from topgraft.run.origin import origin
from topgraft.run.predictions import read_predictions
from topgraft.selection.teaching import unit
from topgraft.settings import Settings
from topgraft.text import counted, pasted
from topgraft.types import Progress, silent

ALIKE, LIKE = 20, 0.5
"""How many photos are offered the same label at once, and the least cosine of their centred features."""
AHEAD = 3
"""Photos that the page fetches before they are asked for."""

say = logging.getLogger(__name__).info


def table_of(run: Run, corrections: str | Path | None = None) -> Path:
    """Return where a run's corrections are: what was given, what it was trained with, or beside the run.

    Beside, and not in it: a run that is trained again is replaced, a person's work is not.
    """
    noted = run.config.data.corrections if run.config else None
    if corrections or noted:
        return Path(corrections or noted or "")
    folder = run.path.resolve()
    return folder.with_name(f"{folder.name}-corrections.csv")


class Review:
    """One person's review of a run; make one with `open`. Its methods may be called from several threads.

    Attributes:
        corrections: the table that decisions go to.
        classes: names, those that the person added, too.
    """

    def __init__(
        self,
        corrections: Corrections,
        photos: Sequence[Photo],
        fresh: Sequence[Photo],
        rows: dict[str, Row],
        classes: Sequence[str],
    ) -> None:
        self.corrections, self.classes = corrections, list(classes)
        self._run_classes = len(classes)
        self._photos = {photo.key: photo for photo in (*photos, *fresh)}
        self._asked = [photo.key for photo in photos if photo.why]
        self._fresh = [photo.key for photo in fresh]
        self._place = {
            (without_line_ends(photo.path), photo.digest): photo.key for photo in self._photos.values()
        }
        known = [photo.key for photo in self._photos.values() if photo.digest in rows]
        table = np.array([rows[self._photos[key].digest].features for key in known], np.float32)
        self._learner = Learner(dict(zip(known, unit(table) if known else table, strict=True)))
        self._lock = RLock()
        self._words: dict[str, Correction] = {}
        self._skipped: list[str] = []
        self._replay()

    @classmethod
    def open(
        cls,
        run: Run | str | Path,
        photos: str | Path | None = None,
        *,
        corrections: str | Path | None = None,
        settings: Settings | None = None,
        progress: Progress = silent,
    ) -> Self:
        """Find what there is to ask about a run's photos, and about a folder of photos without labels.

        Args:
            run: a finished run.
            photos: the folder.
            corrections: the table; by default the run's, or one beside it.
            settings: threads, and whether a socket may be opened.
            progress: told of photos that are read and looked at.

        Raises:
            DataError: where the folder is no run, or one of photos with several labels; for a folder without
                photos; for a damaged table.
            UsageError: for a table among the photos, or nothing to review.
        """
        run = run if isinstance(run, Run) else Run.open(run)
        settings = settings or Settings.load()
        metrics = run.metrics
        lines = read_predictions(run, metrics.classes)
        if not lines or any(len(line.labels) > 1 for line in lines):
            raise DataError(
                f"{run.path}: expected a run of photos with one label each, found"
                f" {'several on some' if lines else 'no predictions.csv'}. Train one."
            )
        where = origin(run)
        if not where.root:
            say(f"  ! the run's own photos are not shown: {where.why}")
        labelled = of_the_run(run, where, lines)
        folder = files.absolute(photos) if photos is not None else ""  # the table is read from elsewhere, too
        known = {line.digest for line in lines}
        fresh, gone = in_folder(folder, known, settings, progress) if folder else ([], 0)
        table = table_of(run, corrections)
        for root, found, whole in ((where.root, labelled, where.is_folder), (folder, fresh, True)):
            if root:
                paths = [photo.path for photo in found]
                keep_out(root, paths, table, is_folder=whole, instead="Give --corrections elsewhere.")
        predictor = load(run.path, settings=settings)
        read = {photo.digest: _reader(photo) for photo in (*labelled, *fresh)}
        rows = rows_of(run, predictor, read, settings.threads, progress) if fresh or labelled else {}
        seen = [photo for photo in fresh if photo.digest in rows]
        if gone := gone + len(fresh) - len(seen):
            say(f"  ! {counted(gone, 'photo')} in {folder} cannot be read and are left out")
        return cls(Corrections(table), labelled, seen, rows, metrics.classes)

    def close(self) -> None:
        """Let go of the table."""
        self.corrections.close()

    def state(self) -> dict[str, Any]:
        """Return what the page shows: plain data."""
        with self._lock:
            left = self._left()
            following = left[: AHEAD + 1]
            return {
                "classes": self.classes,
                "done": len(self._words),
                "left": len(left),
                "photo": self._shown(following[0]) if following else None,
                "ahead": following[1:],
                "last": self._last(),
                "alike": self._alike(),
                "table": str(self.corrections.path),
                "command": pasted("topgraft", "train", "PHOTOS", "--corrections", str(self.corrections.path)),
            }

    def decide(self, keys: Sequence[str], decision: Decision, label: str = "") -> None:
        """Write down what a person said of photos, all with one press of a key.

        Args:
            keys: of the photos.
            decision: `label`, `none` or `skip`.
            label: the class; a new name makes a new class.

        Raises:
            UsageError: for a photo or decision nobody knows, or a name that cannot be one.
            StoreError: where it cannot be written.
        """
        with self._lock:
            unknown = [key for key in keys if key not in self._photos]
            if unknown or not keys or decision not in ("label", "none", "skip"):
                raise UsageError(f"expected photos and a decision, got {unknown[:1] or decision!r}. Reload.")
            name = _name(label) if decision == "label" else ""
            press = self.corrections.next_press()
            photos = [self._photos[key] for key in keys]
            self.corrections.add(
                Correction(
                    press,
                    decision,
                    name,
                    photo.label,
                    without_line_ends(photo.path),
                    photo.root,
                    photo.digest,
                )
                for photo in photos
            )
            self._replay()

    def undo(self) -> None:
        """Take the last press back.

        Raises:
            UsageError: where there is none.
            StoreError: where it cannot be written.
        """
        with self._lock:
            press = self.corrections.last_press()
            if press is None:
                raise UsageError("there is nothing to take back.")
            self.corrections.add([Correction(press, "undo")])
            self._replay()

    def picture(self, key: str, side: int) -> bytes:
        """Return a photo as WebP, its longest side so many pixels.

        Raises:
            DataError: for a photo nobody knows.
            DecodeError: where it cannot be read any more.
            OSError: as the file system says it.
        """
        photo = self._photos.get(key)
        if photo is None:
            raise DataError(f"expected a photo of this review, got {key[:40]!r}. Reload the page.")
        return shrink(decode(_reader(photo)(), photo.path), side, quality=82)[2]

    def _replay(self) -> None:
        """Take in what the table says."""
        self._words, self._skipped = {}, []
        named = list(self.classes[: self._run_classes])
        for line in current(self.corrections.lines):
            key = self._place.get(line.photo)
            if line.decision == "label" and line.label not in named:
                named.append(line.label)
            if key and line.decision == "skip":
                self._skipped.append(key)
            elif key:
                self._words[key] = line
        self.classes = named

    def _left(self) -> list[str]:
        """Return the photos still to ask about, the most useful first; skipped ones come last."""
        later = set(self._skipped)
        asked = [key for key in self._asked if key not in self._words and key not in later]
        fresh = [key for key in self._fresh if key not in self._words and key not in later]
        ordered = self._learner.order(fresh, self._labels())
        left = asked + ordered + [key for key in self._skipped if key not in self._words]
        again = [key for key in self._taken_back() if key in left]
        return again + [key for key in left if key not in again]

    def _taken_back(self) -> list[str]:
        """Return the photo whose press was taken back just now: it is asked about at once."""
        lines = self.corrections.lines
        if not lines or lines[-1].decision != "undo":
            return []
        keys = self._keys(self._pressed(lines[-1].press))
        return keys if len(keys) == 1 else []

    def _pressed(self, press: int | None) -> list[Correction]:
        """Return the decisions of a press."""
        return [line for line in self.corrections.lines if line.press == press and line.decision != "undo"]

    def _keys(self, lines: Sequence[Correction]) -> list[str]:
        """Return the photos of this review that decisions are about."""
        return [key for line in lines if (key := self._place.get(line.photo))]

    def _labels(self) -> dict[str, str]:
        """Return the labels that count by now, by key."""
        labels = {key: photo.label for key, photo in self._photos.items() if photo.label}
        for key, line in self._words.items():
            if line.decision == "none":
                labels.pop(key, None)
            else:
                labels[key] = line.label
        return labels

    def _shown(self, key: str) -> dict[str, Any]:
        """Describe the photo that is asked about."""
        photo = self._photos[key]
        if photo.probabilities is not None:
            chances = dict(zip(self.classes, photo.probabilities.tolist(), strict=False))
        else:
            chances = self._learner.chances(key)
        return self._brief(key) | {
            "why": photo.why,
            "chances": {name: round(chance, 4) for name, chance in chances.items()},
            "beside": [self._brief(other) for other in photo.beside],
        }

    def _brief(self, key: str) -> dict[str, Any]:
        photo = self._photos[key]
        word = self._words.get(key)
        return {"key": key, "name": photo.path, "label": word.label if word else photo.label}

    def _last(self) -> dict[str, Any] | None:
        """Describe the last press that was not taken back."""
        lines = self._pressed(self.corrections.last_press())
        if not lines:
            return None
        first = lines[0]
        return {
            "decision": first.decision,
            "label": first.label,
            "name": first.path,
            "photos": len(lines),
        }

    def _alike(self) -> dict[str, Any] | None:
        """Return the photos that may want the label of the last press, too."""
        lines = self._pressed(self.corrections.last_press())
        keys = self._keys(lines)
        if len(keys) != 1 or lines[0].decision != "label":
            return None
        labels = self._labels()
        pool = [key for key in (*self._asked, *self._fresh) if key not in self._words]
        others = [key for key, name in labels.items() if name != lines[0].label and key not in pool]
        found = self._learner.alike(keys[0], pool, others, least=LIKE)[:ALIKE]
        if not found:
            return None
        return {"label": lines[0].label, "photos": [self._brief(key) for key in found]}


def _reader(photo: Photo) -> Any:
    return lambda: files.read(files.local(photo.root), photo.path)


def _name(label: str) -> str:
    """Judge the name of a class; it becomes a folder's in an export."""
    try:
        name = class_name(" ".join(label.split()))
    except (ValueError, UnicodeEncodeError) as error:
        raise UsageError(f"expected the name of a class, got {label!r}.") from error
    if name in (".", "..") or any(letter in '/\\<>:"|?*' or not letter.isprintable() for letter in name):
        raise UsageError(f"expected a name that a folder can have, got {label[:60]!r}.")
    return name[:100]
