"""What runs a backbone: one small abstract class and its implementations."""

from __future__ import annotations

from topgraft.engines._base import Engine
from topgraft.engines._open import open_engine, resolve_engine

__all__ = ["Engine", "open_engine", "resolve_engine"]
