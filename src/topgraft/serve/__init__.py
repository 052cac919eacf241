"""Serve a run: predict by HTTP, a page for people, numbers for monitoring (extra `serve`).

    app = topgraft.serve.create_app("runs/first")     # a FastAPI application, to run or to mount

`app.py` has the routes, `desk.py` the one queue that all photos wait in, `limits.py` what a request may cost,
`access.py` who may ask, `labelling.py` the page of a review, `numbers.py` what Prometheus reads, `pages/`
what people see, `start.py` uvicorn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topgraft.serve.app import create_app
    from topgraft.serve.limits import Limits
    from topgraft.serve.start import review, serve

__all__ = ["Limits", "create_app", "review", "serve"]

_HOMES = {"Limits": "limits", "create_app": "app", "review": "start", "serve": "start"}


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'topgraft.serve' has no attribute {name!r}")
    return getattr(importlib.import_module(f"topgraft.serve.{_HOMES[name]}"), name)
