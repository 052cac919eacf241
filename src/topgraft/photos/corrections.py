"""A person's later word on labels: a table that only grows, and what it makes of a dataset.

One line a decision, on the disk before the next one is asked for. Nothing in it is ever changed: who takes a
decision back adds a line that says so. The photos themselves stay as they are and where they are.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock, Timeout

from topgraft import files
from topgraft.errors import DataError, StoreError
from topgraft.text import bare_cell, safe_cell

Decision = Literal["label", "none", "skip", "undo"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)


@dataclass(frozen=True, slots=True)
class Correction:
    """One line of the table.

    Attributes:
        press: number of the key press; one press can decide on several photos, and is taken back as one.
        decision: `label`, `none` (a photo of no class), `skip`, or `undo` of the press.
        label: the class, for `label`; may be the one it had.
        before: the class it had; empty where it had none.
        path: of the photo, as its id was.
        root: the folder or URL it lay in.
        digest: of the file's bytes; a photo is known by it, wherever it lies later.
        time: UTC, to the second.
    """

    press: int
    decision: Decision
    label: str = ""
    before: str = ""
    path: str = ""
    root: str = ""
    digest: str = ""
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def photo(self) -> tuple[str, str]:
        """Which photo it is about."""
        return without_line_ends(self.path), self.digest


def without_line_ends(text: str) -> str:
    """Leave out line ends, which some file names have: half a line must not look like a whole one."""
    return " ".join(text.splitlines())


COLUMNS = tuple(column.name for column in fields(Correction))


def standing(lines: Iterable[Correction]) -> list[Correction]:
    """Return the decisions that were not taken back, in their order."""
    lines = list(lines)
    back = {line.press for line in lines if line.decision == "undo"}
    return [line for line in lines if line.decision != "undo" and line.press not in back]


def current(lines: Iterable[Correction]) -> list[Correction]:
    """Return the word that counts for each photo, in the order of the decisions: the last not taken back."""
    last: dict[tuple[str, str], Correction] = {}
    for line in standing(lines):
        last.pop(line.photo, None)
        last[line.photo] = line
    return list(last.values())


def read_corrections(path: str | Path) -> list[Correction]:
    """Read a table of corrections, all lines as they were written.

    What a killed process wrote of its last line is left out.

    Raises:
        DataError: for no such file, one that is no such table, or a line that is none.
    """
    try:
        text = _whole(files.read_local(Path(path))).decode()
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: expected a table of corrections, found no file. `topgraft review` writes one."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is no table of corrections ({files.said(error)}).") from error
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        if text and tuple(next(rows)) != COLUMNS:
            raise DataError(
                f"{path}: expected a table of corrections with the columns {', '.join(COLUMNS)}, got"
                f" {text.partition(chr(10))[0][:80]!r}. Give the one that `topgraft review` wrote."
            )
        return [_line(f"{path}, line {rows.line_num}", row) for row in rows]
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: cannot be read as CSV ({error}).") from error


def _whole(raw: bytes) -> bytes:
    """Return a table without what a killed process wrote of its last line.

    Only half a line of ours is left out: a file without any line end may be anybody's, and a last line with
    all its cells may be a person's, whose editor does not end it.
    """
    lines, end, last = raw.rpartition(b"\n")
    text = last.decode(errors="replace")  # half a character, too
    if not end:
        return b"" if ",".join(COLUMNS).startswith(text) else raw
    with suppress(csv.Error):
        if len(next(csv.reader([text]), ())) < len(COLUMNS):
            return lines + end
    return raw


def _line(place: str, row: list[str]) -> Correction:
    """Judge one row."""
    cells = dict(zip(COLUMNS, map(bare_cell, row), strict=False))
    press, decision = cells.get("press", ""), cells.get("decision", "")
    if len(row) != len(COLUMNS) or not press.isdecimal() or decision not in DECISIONS:
        raise DataError(
            f"{place}: expected a press, a decision ({', '.join(DECISIONS)}) and {len(COLUMNS)} cells in all,"
            f" got {','.join(row)[:80]!r}. Take the line out."
        )
    if decision == "label" and not cells["label"].strip():
        raise DataError(f"{place}: expected a label, got an empty cell. Fill it in, or take the line out.")
    return Correction(int(press), decision, *(cells[name] for name in COLUMNS[2:]))


class Corrections:
    """The table while decisions are made. One process writes at a time; `close` it.

    Attributes:
        path: of the table.
        lines: all that is in it.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a table, or begin one.

        Raises:
            DataError: for a file that is no table of corrections.
            StoreError: where it cannot be written, or another process writes to it.
        """
        self.path = Path(path)
        self.lines: list[Correction] = []
        self._file = -1
        with files.guarded(self.path, "run the same command again"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0)
            try:
                self._lock.acquire()  # the system lets go of it when a process dies
            except Timeout as error:
                raise StoreError(f"{self.path}: another review writes to it. End that one first.") from error
            try:
                self._open()
            except BaseException:
                self.close()  # or who mends it in a notebook is told of another review
                raise

    def _open(self) -> None:
        """Read what is there, and see that the next line stands alone, whatever the last one ends with."""
        if files.is_file(self.path):
            self.lines = read_corrections(self.path)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        whole = _whole(self.path.read_bytes())
        os.truncate(self._file, len(whole))
        if not whole:
            self._write(COLUMNS)
            _sync_folder(self.path.parent)
        elif not whole.endswith(b"\n"):
            self._append(b"\n")

    def add(self, lines: Iterable[Correction]) -> None:
        """Append decisions, each on the disk before the next.

        Raises:
            StoreError: where that fails.
        """
        with files.guarded(self.path, "decide again"):
            for line in lines:
                self._write([safe_cell(str(cell)) for cell in asdict(line).values()])
                self.lines.append(line)

    def next_press(self) -> int:
        """Return the number of the next key press."""
        return max((line.press for line in self.lines), default=0) + 1

    def last_press(self) -> int | None:
        """Return the last press that was not taken back; None where there is none."""
        return max((line.press for line in standing(self.lines)), default=None)

    def close(self) -> None:
        """Let go of the file."""
        with suppress(OSError):
            os.close(self._file)
        with suppress(OSError):
            Path(self._lock.lock_file).unlink()
        self._lock.release()

    def _write(self, cells: Iterable[str]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(map(without_line_ends, cells))
        self._append(text.getvalue().encode())

    def _append(self, data: bytes) -> None:
        """Have all of it on the disk, or nothing: a full one takes half a line without a word at first."""
        size = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError:
            os.truncate(self._file, size)
            raise


def _sync_folder(folder: Path) -> None:
    """Have the file's name on the disk, too; Windows opens no folders, and needs none of it."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
