"""What the command line says: results on stdout, how far it is and notes on stderr."""

from __future__ import annotations

import io
import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from textwrap import indent
from typing import TYPE_CHECKING, Any

from topgraft.text import counted, duration, one_line, pasted

if TYPE_CHECKING:
    from rich.console import Console

    from topgraft._doctor import Finding
    from topgraft._try_backbones import Tried
    from topgraft.importers._catalogue import Listed
    from topgraft.predictor import Prediction
    from topgraft.run import Run
    from topgraft.run.metrics import Scores
    from topgraft.selection.compare import Comparison
    from topgraft.selection.curve import Curve
    from topgraft.selection.worth import Worth
    from topgraft.types import Progress  # brings numpy, which --help can do without

WIDEST = 10_000
"""Letters in a line of a table, at most."""
EVERY_S = 30.0
"""So often a log file hears how far things are."""


def print_store(facts: dict[str, Any]) -> None:
    """Print what is in a feature store, and what is missing or unused."""
    copies = facts["photos"] - facts["different_photos"]
    print(f"photos     {facts['photos']:,}{f' ({copies} copies)' if copies else ''}")
    print(one_line(f"classes    {', '.join(f'{name} {n}' for name, n in facts['classes'].items())}"))
    print(f"views      {len(facts['views'])}")
    what = "numbers of a map" if facts["output"] == "map" else "features"
    deep = f" and {facts['block_features']:,} block features" if facts["block_features"] else ""
    print(f"backbone   {facts['backbone']}, {facts['features']:,} {what}{deep}, {facts['precision']}")
    sizes = ", ".join(
        f"{'block features' if kind == 'blocks' else kind} {size / 1e6:.1f} MB ({facts['rows'][kind]})"
        for kind, size in facts["bytes_of"].items()
    )
    print(f"size       {facts['bytes'] / 1e6:.1f} MB in {facts['path']}: {sizes}")
    if facts["missing_rows"] or not facts["finished"]:
        missing = f"{facts['missing_rows']:,} rows (photos x views)"
        print(f"missing    {missing}: run the same `topgraft embed` again")
    if facts["stale_rows"]:
        prune = pasted("topgraft", "store", "prune", facts["path"])
        print(f"unused     {facts['stale_rows']:,} rows: `{prune}` drops them")


def print_comparison(found: Comparison) -> None:
    """Print a table of heads, the best first, what was done, and which was chosen: an arrow marks it."""
    from topgraft.metrics import Estimate

    columns = {
        "log_loss": "log loss",
        "difference": "to the best",
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced",
        "macro_f1": "macro F1",
    }
    said = _differing(found.rows)
    if shutil.get_terminal_size((200, 24)).columns < 20 + max(map(len, said)) + 21 * len(columns):
        print("Balanced accuracy and macro F1 are in a wider window or --json.")
        columns = dict(list(columns.items())[:3])
    print_table(
        ("", "head", "setting", *columns.values(), ">fit"),
        (
            (
                ">" if row["chosen"] else "",
                row["head"],
                setting,
                *(str(Estimate(**row[name])) if row[name] else "–" for name in columns),
                f"{1000 * found.seconds[row['head']]:.0f} ms" if row["head"] in found.seconds else "–",
            )
            for row, setting in zip(found.rows, said, strict=True)
        ),
    )
    for note in found.notes:
        print(one_line(note))
    print(
        f"{len(found.rows)} head settings x {len(found.folds[0])} folds x {len(found.folds)} repeats. Chosen:"
        f" {found.chosen}: {found.why}."
    )


def print_worth(found: Worth) -> None:
    """Print what each part of the policies adds, the most useful first, and the verdict."""
    numbers = found.numbers
    parts = [
        (entry.get("level") or entry["policy"], entry) for entry in numbers["levels"] + numbers["policies"]
    ]
    parts.sort(key=lambda part: part[1]["to_view_0"]["log_loss"]["value"])

    def written(gap: dict[str, float]) -> str:
        return f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"

    print("Log loss, beside photos as they are and beside all other views; below 0 is a gain.")
    print_table(
        ("part of the policies", ">beside photos as they are", ">beside all others", ""),
        (
            (
                one_line(name),
                written(entry["to_view_0"]["log_loss"]),
                written(entry["to_the_rest"]["log_loss"]),
                _telling(entry),
            )
            for name, entry in parts
        ),
    )
    for sentence in (found.sentences[0], found.sentences[-1]):
        print(sentence)


def _telling(entry: dict[str, Any]) -> str:
    """Say where an interval does not hold 0."""
    gaps = [entry[beside]["log_loss"] for beside in ("to_view_0", "to_the_rest")]
    words = {"gain": any(gap["high"] < 0 for gap in gaps), "harm": any(gap["low"] > 0 for gap in gaps)}
    return " and ".join(word for word, told in words.items() if told)


def print_curve(found: Curve) -> None:
    """Print a learning curve: a table of sizes, one of classes, and what more photos would bring."""
    from topgraft.metrics import Estimate
    from topgraft.selection.curve import in_points

    numbers = found.numbers
    print_table(
        (">photos", "accuracy of a ridge fitted on so many"),
        ((f"{size['photos']:,.0f}", str(Estimate(**size["accuracy"]))) for size in numbers["sizes"]),
    )
    print_table(
        ("class", ">photos", ">found", f">{numbers['more']} more would bring"),
        (
            (
                one_line(entry["class"]),
                str(entry["photos"]),
                f"{entry['found']:.0%}",
                in_points(entry["gain"]),
            )
            for entry in numbers["classes"]
        ),
    )
    for sentence in found.sentences:
        print(one_line(sentence))


def print_backbones(listed: Iterable[Listed]) -> None:
    """Print a table of backbones."""
    print_table(
        ("name", ">parameters", ">features", ">px", "licence", "here", ">images/s", "note"),
        (
            (
                entry.name,
                f"{entry.parameters:,}",
                str(entry.features),
                str(entry.side),
                entry.licence,
                "yes" if entry.here else "no",
                f"{entry.pace:.0f}" if entry.pace else "-",
                entry.note,
            )
            for entry in listed
        ),
    )


def print_tried(tried: Iterable[Tried]) -> None:
    """Print backbones that were tried on some photos, the best first; an arrow marks the one to take."""
    print_table(
        ("", "name", "accuracy", "log loss", "to the best", ">ms a photo", ">MB", ">features"),
        (
            (
                ">" if row.chosen else "",
                row.name,
                str(row.accuracy),
                str(row.log_loss),
                str(row.difference),
                f"{row.ms:.1f}",
                f"{row.mb:.0f}",
                str(row.features),
            )
            for row in tried
        ),
    )
    print("Out of fold, photos as they are; > is the quickest that no slower one really beats.")


def print_findings(findings: Iterable[Finding]) -> None:
    """Print what `doctor` found; a mark stands before what is in the way."""
    print_table(
        (), (("!" if finding.ok is False else "", finding.what, finding.found) for finding in findings)
    )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table without lines, as wide as it takes: a name that is cut off could not be copied.

    Args:
        columns: their heads; `>` before one sets its column to the right. None for a table without heads.
        rows: the cells.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=bool(columns), header_style="")
    for name in columns:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left")
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    Console(file=text, width=WIDEST, markup=False, highlight=False, emoji=False).print(table)
    for line in text.getvalue().splitlines():
        print(line.rstrip())


def _differing(rows: list[dict[str, Any]]) -> list[str]:
    """Say of each setting what tells it from the others of its head; there is but one mean of heads."""
    settings = [
        dict(part.split("=") for part in row["setting"].split(", ") if part and row["head"] != "average")
        for row in rows
    ]
    values: dict[tuple[str, str], set[str]] = {}
    for row, setting in zip(rows, settings, strict=True):
        for key, value in setting.items():
            values.setdefault((row["head"], key), set()).add(value)
    return [
        ", ".join(f"{key}={value}" for key, value in setting.items() if len(values[row["head"], key]) > 1)
        for row, setting in zip(rows, settings, strict=True)
    ]


def print_verdict(run: Run) -> None:
    """Print the numbers of a run, and where to go on."""
    from topgraft.metrics import in_words

    metrics = run.metrics
    measured = {"cross-validated": metrics.cross_validation, "held-out test": metrics.test}
    for name in sorted(measured, key=lambda name: measured[name] is not metrics.headline):
        if scores := measured[name]:
            print(f"{name:16} {_estimates(scores)}  ({counted(scores.n, 'photo')})")
    if metrics.why_believed:
        print(metrics.why_believed)
    print(in_words(metrics.headline.accuracy, metrics.headline.n, several=metrics.multilabel))
    if (found := metrics.trust.coverage) and not found.get("chosen"):  # of that one a note speaks
        from topgraft.trust.coverage import SAID_ABOVE
        from topgraft.trust.coverage import in_words as in_a_sentence

        print(in_a_sentence(next(row for row in found["table"] if row["above"] == SAID_ABOVE)))
    for note in metrics.notes:
        print(one_line(note))
    print(f"report     {run.path / 'report.html'}")
    print(f"predict    {pasted('topgraft', 'predict', str(run.path))} PHOTO...")


def print_prediction(prediction: Prediction) -> None:
    """Print one answer: path, answer, how sure; what is no answer says what it is in its place."""
    if prediction.error:
        print(one_line(f"topgraft: {prediction.error}"), file=sys.stderr)
        return
    said = prediction.answer
    if not said:
        what = "unknown, nearest" if prediction.unknown else "unsure, likeliest"
        said = f"{what}: {prediction.label}"
    print(one_line(prediction.path), one_line(said), f"{prediction.probability:.3f}", sep="\t")


def print_stop(words: Sequence[str]) -> None:
    """Say that Ctrl-C was heard, and how the command goes on.

    Args:
        words: the command line, behind `topgraft`.
    """
    again = {
        "embed": " What is computed is kept: run the same command again.",
        "train": " What is computed is kept: run the same command again with -o and --resume.",
    }
    again["finetune"] = again["train"]
    print(f"topgraft: Stopped.{again.get(words[0] if words else '', '')}", file=sys.stderr)


def _estimates(scores: Scores) -> str:
    """Write the headline numbers with their intervals."""
    balanced = scores.balanced_accuracy or "–"
    return f"accuracy {scores.accuracy}  balanced {balanced}  log loss {scores.log_loss}"


def print_json(facts: Any) -> None:
    """Print plain data as JSON on stdout; a number that is none is null, for JSON has no NaN."""
    print(json.dumps(_known(facts), indent=1, ensure_ascii=False, allow_nan=False))


def _known(facts: Any) -> Any:
    if isinstance(facts, float):
        return facts if math.isfinite(facts) else None
    if isinstance(facts, dict):
        return {key: _known(value) for key, value in facts.items()}
    return [_known(value) for value in facts] if isinstance(facts, list | tuple) else facts


@contextmanager
def json_list(*, wanted: bool) -> Iterator[Callable[[Any], None]]:
    """Print plain data as one JSON list on stdout, entry by entry: however many there are, none is kept.

    Args:
        wanted: False prints nothing at all.
    """
    count = 0

    def add(facts: Any) -> None:
        nonlocal count
        text = json.dumps(_known(facts), indent=1, ensure_ascii=False, allow_nan=False)
        print("[" if not count else ",", end="\n")
        print(indent(text, " "), end="")
        count += 1

    yield add
    if wanted:
        print("\n]" if count else "[]")


class _Once(logging.Filter):
    """Lets a warning through once: the same again says nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether it is new."""
        text = record.getMessage()
        new = text not in self._said
        self._said.add(text)
        return new


class _Line(logging.Formatter):
    """One line a message, whatever names are in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's
        return one_line(super().formatMessage(record))


def listen(verbose: bool) -> None:
    """Let what the stages say through to stderr, as plain lines."""
    said = logging.StreamHandler()
    said.setFormatter(_Line("%(message)s"))
    said.addFilter(_Once())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 gets codes for what it lacks
            stream.reconfigure(errors="backslashreplace")
    log = logging.getLogger("topgraft")
    log.addHandler(said)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)


@contextmanager
def progress(patience_s: float = 1.0) -> Iterator[Progress]:
    """Show how far things are, on stderr: a bar after a second; a line now and then where no one watches."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from topgraft.progress import bars, showing

    with showing, bars(_console, patience_s) as tell:
        yield tell


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _lines() -> Progress:
    """Return a callback that writes a line every half minute: for a log file, where a bar is rubbish."""
    started: dict[str, tuple[float, int]] = {}
    said = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        # What goes on from an earlier run begins above 0.
        begun, before = started.setdefault(what, (now, done))
        if done >= total:
            started.pop(what)
        elif now - said >= EVERY_S:
            left = (now - begun) / (done - before) * (total - done) if done > before else None
            about = f", about {duration(left)} left" if left is not None else ""
            print(f"{what}: {done:,} of {total:,}{about}", file=sys.stderr, flush=True)
            said = now

    return tell
