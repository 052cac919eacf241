"""Who may ask: a bearer token, compared in constant time; on loopback, requests meant for loopback."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from pathlib import Path

from topgraft.errors import UsageError
from topgraft.serve.limits import Refused

SHORTEST = 16
"""Characters a token needs: shorter ones can be tried out."""


def read_token(path: Path) -> str:
    """Read a token from a file: its one line.

    Raises:
        UsageError: where the file cannot be read, or holds no token.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"{path}: expected a file with a token, cannot read it ({why}).") from error
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{path}: expected a token of {SHORTEST} letters and digits or more, in one line. Make one:"
            ' python3 -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return token


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_token(token: str | None, header: str | None) -> None:
    """Compare a request's `Authorization` with the token.

    Raises:
        Refused: with 401 where it is another.
    """
    if token is None:
        return
    scheme, _, given = (header or "").partition(" ")
    # hashed, so that neither content nor length shows in the time
    same = hmac.compare_digest(*(hashlib.sha256(text.encode()).digest() for text in (token, given.strip())))
    if not same or scheme.lower() != "bearer":
        raise Refused(
            401, "expected `Authorization: Bearer TOKEN` with the server's token", WWW_Authenticate="Bearer"
        )


def check_host(header: str | None) -> None:
    """Take requests to this machine's own names alone.

    A server on loopback without a token would otherwise answer any web page that has its name point here.

    Raises:
        Refused: with 400 for another name.
    """
    name = re.sub(r":\d+$", "", header or "")
    if not is_loopback(name):
        raise Refused(400, "expected a request to localhost; other names need --host and --token-file")
