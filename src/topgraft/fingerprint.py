"""Content addresses: what has the same fingerprint gives the same numbers."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(data: bytes | memoryview) -> str:
    """Hash bytes to 32 hexadecimal digits (BLAKE2b, 128 bits)."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def canonical(facts: Any) -> str:
    """Write plain data as JSON in one way only: sorted keys, no spaces, no NaN."""
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(facts: Any) -> str:
    """Hash plain data (dicts, lists, strings, numbers) to 32 hexadecimal digits."""
    return digest(canonical(facts).encode())
