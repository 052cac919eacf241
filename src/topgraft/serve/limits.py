"""What one request may cost, and the word for a request that is not taken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may cost.

    Attributes:
        bytes: of one request's body.
        files: photos in one request.
        pixels: of one photo; judged by its header, before it is decoded.
        seconds: for a request: until its body is here, and from then until its answer.
        waiting: photos that may wait for their turn, of all requests.
        held_bytes: bodies of all requests together.
    """

    bytes: int = 32_000_000
    files: int = 32
    pixels: int = 50_000_000
    seconds: float = 30.0
    waiting: int = 64
    held_bytes: int = 256_000_000


class Refused(Exception):  # noqa: N818  a word, as in the rest of the server
    """A request that is not taken, and what to answer.

    Attributes:
        status: HTTP's.
        detail: why, for people.
        headers: what goes with the status.
    """

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
