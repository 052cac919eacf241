"""Compiled graphs, kept in the cache: to read one takes a quarter of the time it takes to compile it.

What is kept is OpenVINO's own form of a compiled graph. Its name says everything that went into it: the
graph's bytes, what was asked of it, OpenVINO's build and the processor. It gives the same bits (by test).
Nobody needs it: where it cannot be kept, is gone, or is not what was written, the graph is compiled.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from topgraft import files
from topgraft.fingerprint import digest, fingerprint

MOST = 500_000_000
"""Bytes that are kept; beyond them go those that were used longest ago. EfficientNet-Lite0 has 15 million."""
_KEEPING = Lock()


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
        try:
            name, _, blob = self.place.read_bytes().partition(b"\n")
            if name != digest(blob).encode():
                return None
            with suppress(OSError):  # a cache that may be read alone
                os.utime(self.place)
            # a stream, which is copied: the graph must not hold memory that Python frees
            return core.import_model(io.BytesIO(blob), "CPU", options)
        except (OSError, RuntimeError):
            return None

    def keep(self, compiled: Any) -> None:
        """Write it down where that is possible, and drop what was used longest ago."""
        blob = compiled.export_model().getvalue()
        with _KEEPING, suppress(OSError):  # a cache that is full, or not ours to write to
            self.place.parent.mkdir(parents=True, exist_ok=True)
            files.write(self.place, digest(blob).encode() + b"\n" + blob)
            self._drop()

    def _drop(self) -> None:
        found = [(place.stat(), place) for place in self.place.parent.glob("*.blob")]
        left = sum(stat.st_size for stat, _ in found)
        for stat, place in sorted(found, key=lambda each: each[0].st_mtime_ns):
            if left <= MOST:
                return
            place.unlink(missing_ok=True)
            left -= stat.st_size
