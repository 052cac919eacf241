"""Run the application in uvicorn: one process or several, by uvicorn's own means."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgraft.errors import UsageError, need
from topgraft.serve.access import is_loopback, read_token
from topgraft.settings import Settings
from topgraft.types import Progress, silent

if TYPE_CHECKING:
    from fastapi import FastAPI

    from topgraft.run import Run
    from topgraft.serve.limits import Limits

say = logging.getLogger(__name__).info

CHOICES = "TOPGRAFT_SERVE_CHOICES"
"""How the choices reach the worker processes, which uvicorn starts anew; a token goes by its file's name."""


def serve(
    run: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: str | Path | None = None,
    workers: int = 1,
    limits: Limits | None = None,
    settings: Settings | None = None,
) -> None:
    """Serve a run until it is stopped; then what was taken is finished.

    Args:
        run: a run, an exported folder, or a predictor's.
        host: where to listen; anything but loopback needs a token.
        port: where to listen.
        token_file: a file with the token in its one line.
        workers: processes, which share the cores.
        limits: what a request may cost.
        settings: how many cores to use.

    Raises:
        MissingExtraError: without the `serve` extra.
        UsageError: for another host without a token, or a token that is none.
        DataError: where there is no predictor.
    """
    uvicorn = _needed("topgraft serve")
    from topgraft.serve.limits import Limits
    from topgraft.serve.numbers import FOLDER

    limits, settings = limits or Limits(), settings or Settings.load()
    if token_file is None and not is_loopback(host):
        raise UsageError(
            f"--host {host}: others can reach it, so it needs a token. Give --token-file or leave --host out."
        )
    if token_file is not None:
        read_token(Path(token_file))
    if workers < 1:
        raise UsageError(f"workers must be at least 1, got {workers}.")
    choices = {
        "run": str(Path(run).resolve()),
        "limits": asdict(limits),
        "token_file": str(Path(token_file).resolve()) if token_file else None,
        "loopback": is_loopback(host) and token_file is None,
        "threads": max(1, settings.threads // workers),
    }
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "workers": workers,
        "http": "h11",  # httptools, which uvicorn takes where it finds it, reads headers without end
        "access_log": False,
        "log_level": "warning",
        "server_header": False,
        "timeout_graceful_shutdown": int(limits.seconds) + 5,
        "timeout_keep_alive": 15,
        "limit_concurrency": 4 * limits.waiting,
    }
    os.environ[CHOICES] = json.dumps(choices)
    _try(host, port)
    app = from_choices()  # a mistake is said once, not by every worker, and before an address is named
    named = f"[{host}]" if ":" in host else host
    say(f"http://{named}:{port}/ for people, /docs for programs. Ctrl-C ends it.")
    if workers == 1:
        uvicorn.run(app, **options)
        return
    folder, before = tempfile.mkdtemp(prefix="topgraft-numbers-"), os.environ.get(FOLDER)
    os.environ[FOLDER] = folder
    try:
        uvicorn.run("topgraft.serve.start:from_choices", factory=True, **options)
    finally:
        os.environ.pop(FOLDER)  # another application in this process would look there for its numbers
        if before is not None:
            os.environ[FOLDER] = before
        shutil.rmtree(folder, ignore_errors=True)


def review(
    run: str | Path | Run,
    photos: str | Path | None = None,
    *,
    corrections: str | Path | None = None,
    port: int = 8010,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Path:
    """Ask one person on this machine about labels, on a page, until it is stopped.

    Likely label errors of the run's photos come first, then near-duplicates with different labels, photos
    unlike the others, and photos without labels, those first that the model would learn most from. Every
    decision is on the disk before the next one; no photo is ever changed or moved.

    Args:
        run: a finished run.
        photos: a folder of photos without labels.
        corrections: the table that decisions are appended to; by default the one that the run was trained
            with, else one beside the run.
        port: where to listen on this machine.
        settings: how many cores to use.
        progress: told of photos that are read and looked at.

    Returns:
        The table, for `topgraft.train(photos, corrections=...)`.

    Raises:
        MissingExtraError: without the `serve` extra.
        UsageError: for a port that cannot be had, or a table among the photos.
        DataError: where the folder is no run, or holds no photos.
        StoreError: where the table cannot be written, or another review writes to it.
    """
    uvicorn = _needed("topgraft review")
    from topgraft._relabel import Review
    from topgraft.serve.app import create_app

    settings = settings or Settings.load()
    _try("127.0.0.1", port)
    opened = Review.open(run, photos, corrections=corrections, settings=settings, progress=progress)
    try:
        app = create_app(run, loopback=True, review=opened, settings=settings)
        say(f"http://127.0.0.1:{port}/review  (decisions go to {opened.corrections.path}; Ctrl-C ends it)")
        uvicorn.run(app, host="127.0.0.1", port=port, http="h11", access_log=False, log_level="warning")
    finally:
        opened.close()
    return opened.corrections.path


def _needed(what: str) -> Any:
    """Return uvicorn, where all of the extra is installed."""
    for module in ("fastapi", "python_multipart", "prometheus_client"):
        need(module, "serve", what)
    return need("uvicorn", "serve", what)


def _try(host: str, port: int) -> None:
    """Find out whether the port can be had, before a model is loaded for it.

    Raises:
        UsageError: where it cannot.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(
            f"{host} port {port}: cannot be listened at ({why}). Give another --port or --host."
        ) from error


def from_choices() -> FastAPI:
    """Make the application in a process that uvicorn started."""
    from topgraft.serve.app import create_app
    from topgraft.serve.limits import Limits

    choices = json.loads(os.environ[CHOICES])
    token_file = choices["token_file"]
    return create_app(
        choices["run"],
        limits=Limits(**choices["limits"]),
        token=read_token(Path(token_file)) if token_file else None,
        loopback=choices["loopback"],
        settings=Settings.load(threads=choices["threads"]),
    )
