"""Nothing phones home: the one door through which libraries that report their use are imported.

    onnxruntime  posts to Microsoft 10 s after its import: a device id, the path of Python, names in graphs;
                 what a short process could not send waits in the user's cache for the next long one
    nncf         posts to Google Analytics, by way of `openvino_telemetry`
    openvino     the same, where it converts models
    mlflow       posts 15 s after its import, and writes an installation id into the user's folder
    ray          posts every hour, and asks the metadata addresses of three clouds where it runs, even when
                 told not to

Every switch is read when a library is imported or starts its first process, and one of these imports another
(nncf brings openvino and onnxruntime), so all are set before any of them is.
"""

from __future__ import annotations

import importlib
import os
import sys
from functools import wraps
from typing import Any

from topgraft.errors import need

LIBRARIES = ("mlflow", "nncf", "onnxruntime", "openvino", "ray")
"""No other module imports these itself."""

SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime.disable_telemetry_events() comes too late
    "NNCF_CI": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
}
"""Environment variables, so that the processes a library starts know them too."""


def silence() -> None:
    """Set every switch, whatever the environment says, before a library is imported by other means."""
    os.environ.update(SWITCHES)
    # A package that cannot be imported sends nothing; its users take that for "not installed".
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def import_silently(module: str, extra: str = "", what: str = "") -> Any:
    """Return a library that reports its use, imported after it was told not to.

    Args:
        module: one of `LIBRARIES`, or a module inside one.
        extra: the extra that brings it; empty for a library of the core.
        what: what needs it, for the message.

    Raises:
        MissingExtraError: where it is not installed, and an extra brings it.
        ModuleNotFoundError: where it is not installed.
    """
    silence()
    found = need(module, extra, what) if extra else importlib.import_module(module)
    if module.partition(".")[0] == "ray":
        _no_dashboard()
    return found


def _no_dashboard() -> None:
    """Let Ray start no dashboard where none is wanted.

    With usage reports off, all that is left to that process is to ask 169.254.169.254 and
    metadata.google.internal where it runs, and for this Ray (2.60) has no switch. It works without one, as it
    does where a dashboard fails to start.
    """
    services: Any = importlib.import_module("ray._private.services")
    start = services.start_api_server
    if hasattr(start, "__wrapped__"):
        return

    @wraps(start)
    def start_if_wanted(include_dashboard: bool | None, *more: Any, **options: Any) -> Any:
        if include_dashboard is False:
            return "", None
        return start(include_dashboard, *more, **options)

    services.start_api_server = start_if_wanted
