"""The command line in this process, for what needs none of its own: starting one takes a second."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from topgraft.cli import main


def topgraft(*words: object, cwd: str | Path = ".", typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run `topgraft WORDS` and return its exit code and what it wrote.

    Args:
        words: as a user types them.
        cwd: where.
        typed: what comes on stdin.
    """
    log = logging.getLogger("topgraft")
    level, handlers = log.level, list(log.handlers)
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["topgraft", *map(str, words)])
        patch.setattr(sys, "stdin", io.StringIO(typed))
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            log.setLevel(level)
            log.handlers[:] = handlers
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
