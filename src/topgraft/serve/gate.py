"""The gate before the application: who may ask, and how much, before any of it is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from topgraft.serve.access import check_host, check_token
from topgraft.serve.limits import Limits, Refused
from topgraft.serve.numbers import Numbers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Gate:
    """Wraps the application (ASGI), so that no framework reads what is too much.

    Args:
        app: what it wraps.
        limits: what a request may cost.
        numbers: counts the answers.
        token: what requests must carry; None for none.
        loopback: take requests to this machine's own names alone.
        public: paths that need no token.
    """

    def __init__(
        self,
        app: Application,
        *,
        limits: Limits,
        numbers: Numbers,
        token: str | None,
        loopback: bool,
        public: frozenset[str],
    ) -> None:
        self._app, self._limits, self._numbers = app, limits, numbers
        self._token, self._loopback, self._public = token, loopback, public
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self._limits, receive)

        async def finish(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
                if not body.whole:
                    headers["Connection"] = "close"  # what is still on its way is not read
                path = getattr(scope.get("route"), "path", "other")
                self._numbers.requests.labels(path, message["status"]).inc()
            await send(message)

        async def read() -> Message:
            message = await body.next()
            self._held += len(message.get("body", b""))
            if self._held > self._limits.held_bytes:
                raise Refused(503, "the server holds as much as it can", Retry_After="1")
            return message

        try:
            self._judge(scope, body)
            await self._app(scope, read, finish)
        except Refused as refused:
            await refuse(refused)(scope, receive, finish)
        finally:
            self._held -= body.read

    def _judge(self, scope: Scope, body: _Body) -> None:
        """Look at what stands before the body.

        Raises:
            Refused: where it shall not be read.
        """
        headers = Headers(scope=scope)
        if self._loopback:
            check_host(headers.get("host"))
        if scope["path"].removeprefix(scope.get("root_path", "")) not in self._public:
            check_token(self._token, headers.get("authorization"))
        size = headers.get("content-length", "0")
        if size.isdecimal() and int(size) > self._limits.bytes:
            raise body.too_large()
        body.whole = size == "0" and "transfer-encoding" not in headers


class _Body:
    """A request's body, piece by piece.

    Attributes:
        read: bytes so far that were let through, and are held.
        whole: whether all of it is here.
    """

    def __init__(self, limits: Limits, receive: Receive) -> None:
        self._limits, self._receive = limits, receive
        self._until = asyncio.get_running_loop().time() + limits.seconds
        self.read, self.whole = 0, False

    async def next(self) -> Message:
        """Wait for the next piece; behind the last one, for the client to go away.

        Raises:
            Refused: where there is too much, or it takes too long.
        """
        try:
            async with asyncio.timeout_at(None if self.whole else self._until):
                message = await self._receive()
        except TimeoutError:
            raise Refused(408, f"expected the whole request within {self._limits.seconds:g} s") from None
        size = len(message.get("body", b""))
        if self.read + size > self._limits.bytes:
            raise self.too_large()
        self.read += size
        self.whole = not message.get("more_body", False)
        return message

    def too_large(self) -> Refused:
        """Make the refusal of a body that is too large."""
        return Refused(413, f"expected at most {self._limits.bytes / 1e6:g} MB in one request")


def refuse(refused: Refused) -> JSONResponse:
    """Answer a request that is not taken."""
    return JSONResponse({"detail": refused.detail}, refused.status, headers=refused.headers)
