"""The command line: parse, call one public function, print. Results go to stdout, all else to stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from topgraft.errors import TopgraftError
from topgraft.types import Progress

app = typer.Typer(
    name="topgraft",
    help="A folder of labelled photos in, a classifier with honest numbers out.",
    epilog="Start with `topgraft demo`, then `topgraft train PHOTOS -o runs/first`."
    " Exit codes: 0 ok, 1 the data or model failed a check, 2 wrong usage, 3 a missing extra."
    " -v anywhere shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Photos = Annotated[
    str, typer.Argument(help="Folder with one folder of photos a class, or a CSV table.", show_default=False)
]
RunFolder = Annotated[Path, typer.Argument(help="A run made by `topgraft train`.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[int | None, typer.Option(help="Decides split, draw, views and folds.  [default: 0]")]


def main() -> None:
    """Run the command line; a user's mistake is one line and an exit code."""
    verbose = any(flag in sys.argv[1:] for flag in ("-v", "--verbose"))
    sys.argv[1:] = [word for word in sys.argv[1:] if word not in ("-v", "--verbose")]
    _listen(verbose)
    try:
        app()
    except TopgraftError as error:
        if verbose:
            raise
        print(f"topgraft: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@app.callback()
def topgraft() -> None:
    """A folder of labelled photos in, a classifier with honest numbers out."""


@app.command()
def check(photos: Photos, as_json: AsJson = False) -> None:
    """Look for unreadable, duplicate, leaking photos and tiny classes."""
    from topgraft._check import check as look
    from topgraft.dataset import Dataset

    with progress() as bar:
        data = Dataset.from_folder(photos, progress=bar)
    health = look(data, strict=False)
    if as_json:
        print_json(health.as_dict())
    else:
        print(f"{health.photos} photos: {', '.join(f'{name} {n}' for name, n in health.classes.items())}")
        for line in health.warnings or ["Nothing to complain about."]:
            print(line)
        for one in health.refused:
            print(f"  {one['id']} {one['reason']}")
    look(data)


def print_json(facts: Any) -> None:
    """Print plain data as JSON on stdout."""
    print(json.dumps(facts, indent=1, ensure_ascii=False))


def _listen(verbose: bool) -> None:
    """Let what the stages say through to stderr, as plain lines."""
    said = logging.StreamHandler()
    said.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("topgraft")
    log.addHandler(said)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)


@contextmanager
def progress(patience_s: float = 1.0) -> Iterator[Progress]:
    """Show a bar with the time left on stderr for whatever is not done after a second."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5) as bars:
        started: dict[str, float] = {}
        shown: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            now = time.monotonic()
            begun = started.setdefault(what, now)
            if what not in shown and done < total and now - begun > patience_s:
                shown[what] = bars.add_task(what, total=total)
            if what in shown:
                bars.update(shown[what], completed=done, total=total)
                if done >= total:
                    bars.remove_task(shown.pop(what))
            if done >= total:
                started.pop(what, None)

        yield tell


if __name__ == "__main__":
    main()
