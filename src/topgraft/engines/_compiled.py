"""Compiled graphs, kept in the cache: reading one takes a fraction of the time that compiling it takes.

What is kept is OpenVINO's own form of a compiled graph. Its name says all that goes into it: the graph's
bytes, what was asked of it, OpenVINO's build, the processor and this package's way of reading a graph. It
gives the same bits (by test). Nobody needs it: where it cannot be kept, is gone, or is not what was written,
the graph is compiled.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from topgraft.fingerprint import digest, fingerprint

MOST = 500_000_000
"""Bytes that are kept; beyond them go those that were used longest ago. EfficientNet-Lite0 has 15 million."""
SPARE = 20
"""A disk has so many times more room than a graph needs, or the graph is not kept."""
ABANDONED_S = 3600
"""What is still half written after so long belongs to a process that was killed."""


class Compiled:
    """One compiled graph in the cache, there or not.

    Args:
        cache_dir: the cache.
        facts: everything that goes into it, plain data.
    """

    def __init__(self, cache_dir: Path, facts: dict[str, Any]) -> None:
        self.place = cache_dir / "compiled" / f"{fingerprint(facts)}.blob"

    def read(self, core: Any, options: dict[str, Any]) -> Any:
        """Return it as an `openvino.CompiledModel`; None where it is not there, or not as it was written."""
        with suppress(OSError, RuntimeError, MemoryError):
            if not self.place.is_file():  # a pipe would never end
                return None
            with self.place.open("rb") as file:
                name, blob = file.readline(), file.read()
            if name != _head(blob):
                return None
            with suppress(OSError):  # a cache that may be read alone
                os.utime(self.place)
            # a stream, which is copied: the graph must not hold memory that Python frees
            return core.import_model(io.BytesIO(blob), "CPU", options)
        return None

    def keep(self, compiled: Any) -> None:
        """Write it down where there is room, and drop what was used longest ago."""
        # a graph that cannot be written down; a cache that is full, or not ours to write to
        with suppress(OSError, RuntimeError, MemoryError):
            blob = compiled.export_model().getvalue()
            folder = self.place.parent
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if SPARE * len(blob) < shutil.disk_usage(folder).free and len(blob) < MOST:
                self._write(blob)
                _drop(folder)

    def _write(self, blob: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self.place.parent, suffix=".half", delete=False) as half:
            try:
                half.write(_head(blob))
                half.write(blob)
                half.close()
                Path(half.name).replace(self.place)
            except BaseException:
                half.close()
                Path(half.name).unlink(missing_ok=True)
                raise


def _head(blob: bytes) -> bytes:
    return f"{digest(blob)}\n".encode()


def _drop(folder: Path) -> None:
    """Drop what was used longest ago, and what killed processes left; other processes may do so, too."""
    found = []
    for place in folder.iterdir():
        with suppress(OSError):
            stat = place.stat()
            if place.suffix == ".half" and stat.st_mtime < time.time() - ABANDONED_S:
                place.unlink()
            if place.suffix == ".blob":
                found.append((stat.st_mtime_ns, stat.st_size, place))
    left = sum(size for _, size, _ in found)
    for _, size, place in sorted(found):
        if left <= MOST:
            return
        with suppress(OSError):
            place.unlink()
        left -= size
