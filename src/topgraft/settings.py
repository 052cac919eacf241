"""Where things run and lie: nothing here enters a fingerprint, for nothing here changes a number.

But for the device: on CUDA photos are embedded in float16, and that precision has addresses of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from topgraft.errors import UsageError
from topgraft.text import NO

YES = {"1", "true", "yes", "on"}


def default_cache() -> Path:
    """Return the user's cache folder, `~/.cache/topgraft` unless XDG_CACHE_HOME says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "topgraft"


def usable_cores() -> int:
    """Count the cores this process may run on, not those the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Places and resources. Precedence: argument > environment `TOPGRAFT_<NAME>` > default.

    Attributes:
        cache_dir: where backbones, compiled graphs and photo looks are kept between runs.
        threads: cores to use.
        device: `auto`, `cpu` or `cuda`.
        offline: never open a socket.
    """

    cache_dir: Path = field(default_factory=default_cache)
    threads: int = field(default_factory=usable_cores)
    device: str = "auto"
    offline: bool = False

    @classmethod
    def load(cls, **given: Any) -> Settings:
        """Take what is given, else the environment, else the defaults; None means not given.

        Raises:
            UsageError: for a value of the wrong form, naming the variable.
        """
        values = {name: value for name, value in given.items() if value is not None}
        for known in fields(cls):
            text = os.environ.get(f"TOPGRAFT_{known.name.upper()}")
            if known.name not in values and text is not None:
                values[known.name] = _parse(known.name, text)
        settings = cls(**values)
        if settings.threads < 1:
            raise UsageError(
                f"threads must be at least 1, got {settings.threads}. Leave it out to use all cores."
            )
        if settings.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"device must be auto, cpu or cuda, got {settings.device!r}.")
        return settings


def _parse(name: str, text: str) -> Any:
    place = f"environment variable TOPGRAFT_{name.upper()}"
    if name == "cache_dir":
        return Path(text).expanduser()
    if name == "threads":
        if not text.isdecimal():
            raise UsageError(f"{place} must be a whole number, got {text!r}.")
        return int(text)
    if name == "offline":
        if text.lower() not in YES | NO:
            raise UsageError(f"{place} must be 1 or 0, got {text!r}.")
        return text.lower() in YES
    return text
