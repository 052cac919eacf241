"""How far things are, shown where somebody watches: a bar on a terminal, a line in a notebook's cell."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from topgraft.types import Progress, auto, silent

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")
R = TypeVar("R")
PATIENCE_S = 1.0
"""What takes no longer is not worth a bar."""
OFTEN_S = 0.2
showing = threading.Lock()
"""One thing at a time is shown: a stage within a stage says nothing of its own."""


def watched(stage: Callable[P, R]) -> Callable[P, R]:
    """Let a stage with an option `progress` show how far it is, unless its caller says how."""

    @wraps(stage)
    def run(*args: P.args, **options: P.kwargs) -> R:
        with shown(cast("Progress", options.get("progress", auto))) as progress:
            options["progress"] = progress
            return stage(*args, **options)

    return run


@contextmanager
def shown(progress: Progress) -> Iterator[Progress]:
    """Return what `auto` means here: bars, a line in a notebook, or silence; anything else as it is."""
    if progress is not auto:
        yield progress
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not (console.is_jupyter or console.is_terminal) or not showing.acquire(blocking=False):
        yield silent
        return
    try:
        with in_cell() if console.is_jupyter else bars(lambda: console) as tell:
            yield tell
    finally:
        showing.release()


@contextmanager
def bars(console: Callable[[], Console], patience_s: float = PATIENCE_S) -> Iterator[Progress]:
    """Show bars on a terminal, each after a second.

    What is over sooner never asks for the console: rich takes longer to import than a photo to be answered.
    """
    with ExitStack() as stack:
        started: dict[str, float] = {}
        tasks: dict[str, Any] = {}
        drawn: Any = None

        def tell(what: str, done: int, total: int) -> None:
            nonlocal drawn
            now = time.monotonic()
            begun = started.setdefault(what, now)
            if what not in tasks and done < total and now - begun > patience_s:
                drawn = drawn or stack.enter_context(_drawn(console()))
                tasks[what] = drawn.add_task(what, total=total)
            if what in tasks:
                drawn.update(tasks[what], completed=done, total=total)
                if done >= total:
                    drawn.remove_task(tasks.pop(what))
            if done >= total:
                started.pop(what, None)

        yield tell


def _drawn(console: Console) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, refresh_per_second=5)


@contextmanager
def in_cell(patience_s: float = PATIENCE_S) -> Iterator[Progress]:
    """Show one line in the cell of a notebook, and take it away at the end.

    Rich draws its bars there by ipywidgets, which not every notebook has; all can update what they display.
    """
    from html import escape

    from IPython.display import HTML, display

    begun, said, handle = time.monotonic(), 0.0, None

    def tell(what: str, done: int, total: int) -> None:
        nonlocal said, handle
        now = time.monotonic()
        if now - begun < patience_s or now - said < OFTEN_S:
            return
        said = now
        line = HTML(
            f'<progress value="{done}" max="{total}"></progress> {escape(what)}: {done:,} of {total:,}'
        )
        if handle is None:
            handle = display(line, display_id=True)
        else:
            handle.update(line)

    try:
        yield tell
    finally:
        if handle is not None:
            handle.update(HTML(""))
