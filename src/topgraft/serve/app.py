"""The application: routes, and what goes with every answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteError
from starlette.formparsers import MultiPartException

from topgraft._relabel import Review
from topgraft.errors import UsageError
from topgraft.predictor import PredictorCard, load
from topgraft.run import Run
from topgraft.serve import pages
from topgraft.serve.desk import Desk, Given
from topgraft.serve.gate import Gate, refuse
from topgraft.serve.labelling import add_review
from topgraft.serve.limits import Limits, Refused
from topgraft.serve.numbers import Numbers
from topgraft.settings import Settings

PUBLIC = frozenset(("/healthz", "/openapi.json"))
"""Paths that need no token, beside the page, which asks for it."""
SILENT: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own telemetry; older ones have none and do not mind."""
Looked = Annotated[bool, Query(description="Say where it looked, too.")]
RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Types of a body that is one photo, beside image/*; the last is what curl says of any body."""
BINARY = {"type": "string", "format": "binary"}
ANSWERS = {
    "description": "One answer a photo, in the order they came; what topgraft predict --json prints.",
    "content": {
        "application/json": {
            "schema": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "path": {"type": "string", "description": "The file's name, where it was sent."},
                        "answer": {"type": "string", "description": "The label; empty if unknown or unsure."},
                        "label": {"type": "string"},
                        "probability": {"type": "number"},
                        "runner_up": {"type": "string"},
                        "unknown": {"type": "boolean"},
                        "unsure": {"type": "boolean"},
                        "distance": {"type": "number"},
                        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
                        "looked": {"type": "string", "description": "A PNG as a data URI, if asked for."},
                        "error": {
                            "type": "string",
                            "description": "Why it could not be read; then nothing else.",
                        },
                    },
                },
            }
        }
    },
}
DETAIL = {
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
        }
    }
}
FAILURES = {
    400: "The body is not what its type says, or holds too many photos.",
    401: "The token is missing or another.",
    408: "The body took too long.",
    413: "The body is too large.",
    415: "Neither a form nor a file.",
    422: "No photo in it could be read; the answers say why, or a parameter is wrong.",
    503: "Too many photos are waiting. The header Retry-After says when to come again.",
}


def create_app(
    run: Run | str | Path,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    loopback: bool = False,
    review: Review | None = None,
    settings: Settings | None = None,
) -> FastAPI:
    """Make the application that answers for a run.

    Args:
        run: a run, an exported folder, or a predictor's.
        limits: what a request may cost.
        token: what `Authorization: Bearer` must carry; None lets everybody ask.
        loopback: take requests to this machine's own names alone.
        review: what `/review` asks one person about; it writes to this machine's disk, so `loopback` must be
            said, too.
        settings: how many cores to use.

    Returns:
        A FastAPI application: run it by itself, or mount it in another. The model is loaded when it starts;
        where it is mounted, with the first photo.

    Raises:
        DataError: where there is no predictor.
        BackboneError: where a file is damaged.
        UsageError: for a review that others could reach.
    """
    if review is not None and not loopback:
        raise UsageError("review: expected loopback=True, since a review is for one person on this machine.")
    limits = limits or Limits()
    settings = settings or Settings.load()
    card = load(Path(run)).card
    numbers = Numbers(card.classes)
    desk = Desk(Path(run), limits, settings, numbers)

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(desk.start)
        yield
        await asyncio.to_thread(desk.close)

    app = FastAPI(
        title="Topgraft",
        description=f"Tells {len(card.classes)} classes apart: {', '.join(card.classes[:20])}.",
        version="1",
        lifespan=life,
        docs_url=None,  # both load scripts from elsewhere; `pages` has its own
        redoc_url=None,
        telemetry=SILENT,
    )
    app.state.desk = desk
    app.add_exception_handler(Refused, _refuse)
    app.add_middleware(
        Gate,
        limits=limits,
        numbers=numbers,
        token=token,
        loopback=loopback,
        public=PUBLIC | {"/", "/docs", *pages.FILES},
    )
    _add_routes(app, desk, card, limits, numbers)
    pages.add_pages(app)
    if review is not None:
        add_review(app, review)
    return app


def _add_routes(app: FastAPI, desk: Desk, card: PredictorCard, limits: Limits, numbers: Numbers) -> None:
    failures: dict[int | str, dict[str, Any]] = {
        code: {"description": text, **DETAIL} for code, text in FAILURES.items()
    }

    @app.post(
        "/predict",
        openapi_extra={"requestBody": _body(limits)},
        response_class=JSONResponse,
        responses={
            200: ANSWERS,
            **failures,
            422: {"description": FAILURES[422], "content": {"application/json": {}}},
        },
    )
    async def predict(request: Request, looked: Looked = False) -> Any:
        """Say what is on photos.

        Send one photo as the body, or one or many as the files of a form, in a field of any name.
        """
        answers = await desk.answer(await _photos(request, limits), looked=looked)
        return JSONResponse(answers, 422 if all("error" in answer for answer in answers) else 200)

    @app.get("/card", responses={401: failures[401]})
    def card_of_the_model() -> PredictorCard:
        """Say what the model is: classes, threshold of unknown, backbone, licence, measured numbers."""
        return card

    @app.get("/healthz", responses={503: failures[503]})
    async def healthz() -> dict[str, bool]:
        """Say that the server is up and its model loaded."""
        await asyncio.to_thread(desk.start)
        return {"ok": True}

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, 401: failures[401]},
    )
    def metrics() -> Response:
        """Return numbers for Prometheus."""
        text, kind = numbers.page()
        return Response(text, media_type=kind)


def _body(limits: Limits) -> dict[str, Any]:
    """Describe what `/predict` takes."""
    photos = {"type": "array", "items": BINARY, "minItems": 1, "maxItems": limits.files}
    form = {"type": "object", "properties": {"photos": photos}, "required": ["photos"]}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            "application/octet-stream": {"schema": BINARY},
        },
    }


async def _photos(request: Request, limits: Limits) -> list[Given]:
    """Read the photos of a request: the files of a form, or the body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        try:
            form = await request.form(max_files=limits.files)
        except (MultiPartException, StarletteError) as error:
            text = str(getattr(error, "detail", "") or getattr(error, "message", error))
            raise Refused(400, f"the form cannot be read: {text}") from error
        uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        try:
            photos = [(upload.filename or "", await upload.read()) for upload in uploads]
        finally:
            await form.close()
    elif kind not in RAW and not kind.startswith("image/"):
        raise Refused(415, f"expected multipart/form-data, image/* or {RAW[1]}, got {kind[:60]}")
    else:
        body = await request.body()
        photos = [("", body)] if body else []
    if not photos:
        raise Refused(400, "expected a photo as the body, or a form with files; there is none in it")
    return photos


async def _refuse(_request: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)  # noqa: S101  registered for it alone
    return refuse(refused)
