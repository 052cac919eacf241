"""The page that one person labels photos with, on their own machine: a second page of the same server."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from topgraft import _page
from topgraft._relabel import Review
from topgraft.errors import TopgraftError
from topgraft.serve import pages
from topgraft.serve.limits import Refused
from topgraft.serve.pages import SCRIPT, STYLE

PAGE = "/review"
FILES = {f"{PAGE}.css": ("review.css", STYLE), f"{PAGE}.mjs": ("review.mjs", SCRIPT)}
LARGEST, SMALLEST = 1600, 64
"""Pixels of the longer side that a picture may be asked for with."""


class Said(BaseModel):
    """One press of a key."""

    photos: list[str] = Field(min_length=1, max_length=100)
    decision: Literal["label", "none", "skip"]
    label: str = Field(default="", max_length=200)


def add_review(app: FastAPI, review: Review) -> None:
    """Add the page and what it asks for. Who may ask is the gate's affair: this machine alone."""
    html = _page.part("review.html").decode().replace("{{ policy }}", _page.POLICY)
    policy = {"Content-Security-Policy": f"{_page.POLICY}; frame-ancestors 'none'"}
    hidden: dict[str, Any] = {"include_in_schema": False}

    def only_json(request: Request) -> None:
        """No page of another site can send this type without being asked first."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refused(415, "expected application/json")

    async def now() -> Response:
        return JSONResponse(await run_in_threadpool(review.state))

    async def done(action: Any, *words: Any) -> Response:
        try:
            await run_in_threadpool(action, *words)
        except TopgraftError as error:
            raise Refused(409, str(error)) from error
        return await now()

    @app.get(PAGE, **hidden)
    def page() -> Response:
        return Response(html, media_type="text/html", headers=policy)

    pages.add_files(app, FILES)

    @app.get(f"{PAGE}/state", **hidden)
    async def state() -> Response:
        return await now()

    @app.post(f"{PAGE}/decisions", **hidden)
    async def decide(request: Request, said: Said) -> Response:
        only_json(request)
        return await done(review.decide, said.photos, said.decision, said.label)

    @app.post(f"{PAGE}/undo", **hidden)
    async def undo(request: Request) -> Response:
        only_json(request)
        return await done(review.undo)

    @app.get(f"{PAGE}/photos/{{key}}", **hidden)
    async def photo(key: str, side: int = 1200) -> Response:
        wanted = max(SMALLEST, min(side, LARGEST))
        try:
            picture = await run_in_threadpool(review.picture, key, wanted)
        except (TopgraftError, OSError) as error:
            raise Refused(404, "the photo cannot be read any more") from error
        return Response(picture, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})
