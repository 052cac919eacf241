"""Every error a user can meet.

A message is one line: place, expected, got, next step.

    TopgraftError                     exit 1
    ├── DataError (ValueError)        exit 1   the photos or labels failed a check
    │   └── DecodeError               exit 1   one photo cannot be read; .reason says why
    ├── BackboneError (ValueError)    exit 1   a graph, card or weights file is not what it claims
    ├── StoreError (OSError)          exit 1   a feature store or a run cannot be read or written
    ├── OfflineError (ConnectionError) exit 1  something would need the network
    ├── UsageError (ValueError)       exit 2   wrong option, config or combination of them
    │   └── UnknownNameError (LookupError)     a name nobody knows; lists the close ones
    ├── MissingExtraError (ImportError) exit 3 an optional dependency is not installed
    └── MissingPandasError (ImportError) exit 3 a data frame was asked for, and pandas is not installed
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from topgraft.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable


class TopgraftError(Exception):
    """Base of all errors raised on purpose. The message is one line, whatever a file name in it holds."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class DataError(TopgraftError, ValueError):
    """The photos or their labels failed a check."""


class DecodeError(DataError):
    """One photo cannot be turned into pixels."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive a trip between processes: the arguments are not the message."""
        return type(self), (self.place, self.reason)


class BackboneError(TopgraftError, ValueError):
    """A backbone's graph, card or weights are not what they claim to be."""


class StoreError(TopgraftError, OSError):
    """A feature store or a run cannot be read or written."""


class OfflineError(TopgraftError, ConnectionError):
    """Something would need the network, and it is not reachable or not allowed."""


class UsageError(TopgraftError, ValueError):
    """A wrong option, configuration, or combination of them."""

    exit_code = 2


class UnknownNameError(UsageError, LookupError):
    """A name that is not on the list.

    Args:
        what: the kind of thing that was looked up ("head", "grid").
        name: what was asked for.
        known: every name there is.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"There are: {', '.join(names[:20])}."
        super().__init__(f"no {what} is named {name!r}. {hint}")
        self.what, self.name, self.known = what, name, names

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive a trip between processes: the arguments are not the message."""
        return type(self), (self.what, self.name, self.known)


class MissingExtraError(TopgraftError, ImportError):
    """An optional dependency is not installed.

    Args:
        extra: the extra that brings it.
        need: what was asked for that needs it.
    """

    exit_code = 3

    def __init__(self, extra: str, need: str) -> None:
        super().__init__(f"{need} needs the `{extra}` extra: pip install 'topgraft[{extra}]'")
        self.extra, self.need = extra, need

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive a trip between processes: the arguments are not the message."""
        return type(self), (self.extra, self.need)


class MissingPandasError(TopgraftError, ImportError):
    """A data frame was asked for where pandas is not installed."""

    exit_code = 3

    def __init__(self) -> None:
        super().__init__("a data frame needs pandas: pip install pandas")

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive a trip between processes: the arguments are not the message."""
        return type(self), ()


def need(module: str, extra: str, what: str, *, later: bool = False) -> Any:
    """Import an optional module, or say which extra brings it.

    Args:
        module: its name.
        extra: what brings it.
        what: needs it.
        later: only see that it is there: torch and timm take seconds to import, in which a mistyped option
            can be told.

    Raises:
        MissingExtraError: where the module is not installed.
    """
    if later:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(extra, what)
        return None
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == module.split(".", maxsplit=1)[0]:
            raise MissingExtraError(extra, what) from error
        raise
