"""What is written for Linux, macOS and Windows uses what all three have, and says how text is encoded."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
SOURCES = sorted((CHECKOUT / "src").rglob("*.py"))
MODULES = frozenset(
    {"fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "posix", "nt", "msvcrt", "winreg"}
    | {"_winapi", "winsound"}
)
"""Modules that one system has."""
NAMES = {
    "os": {"fork", "forkpty", "mkfifo", "mknod", "getuid", "geteuid", "getgid", "getpgid", "setsid", "nice"}
    | {"chown", "lchown", "chroot", "statvfs", "sysconf", "uname", "wait", "waitpid", "killpg", "getloadavg"}
    | {"posix_fallocate", "posix_fadvise", "sched_getaffinity", "sched_setaffinity", "register_at_fork"}
    | {"sendfile", "memfd_create", "O_NOFOLLOW", "O_DIRECT", "startfile", "pidfd_open", "fchmod", "sync"},
    "signal": {"SIGKILL", "SIGALRM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE"}
    | {"alarm", "setitimer", "pause", "sigwait", "pthread_kill"},
    "socket": {"AF_UNIX", "SO_REUSEPORT"},
    "time": {"tzset", "clock_gettime"},
}
"""Names of modules that every system has, which some systems lack."""


ASKED_FOR = {"src/topgraft/speed.py": ["/proc/"]}
"""What is read where it is there; elsewhere the answer is that nobody says."""


@cache
def nodes(code: str) -> tuple[ast.AST, ...]:
    """Return all nodes of code."""
    return tuple(ast.walk(ast.parse(code)))


def only_here(code: str) -> Iterator[str]:
    """Name what code uses that one system has, unless it asks first: `hasattr(os, "fork")`."""
    asked = {
        (node.args[0].id, node.args[1].value)
        for node in nodes(code)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "hasattr"
        and isinstance(node.args[0], ast.Name)
        and isinstance(node.args[1], ast.Constant)
    }
    for node in nodes(code):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.split(".")[0] in MODULES:
                yield node.module
            taken = NAMES.get(node.module, set())
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name in taken)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module, name = node.value.id, node.attr
            if name in NAMES.get(module, set()) and (module, name) not in asked:
                yield f"{module}.{name}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (path for path in ("/tmp", "/dev/", "/proc/", "/etc/") if node.value.startswith(path))


def unencoded(code: str) -> Iterator[str]:
    """Name calls that read or write text in whatever encoding the system prefers: on Windows not UTF-8."""
    for node in nodes(code):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = {keyword.arg for keyword in node.keywords}
        mode = ast.unparse(node.args[1]) if len(node.args) > 1 else ""
        text = name in ("read_text", "write_text") or (
            isinstance(node.func, ast.Name) and name == "open" and "b" not in mode
        )
        if text and "encoding" not in given:
            yield f"{name}, line {node.lineno}"


@pytest.mark.parametrize("judge", [only_here, unencoded])
def test_nothing_runs_on_one_system_only(judge):
    found = {path: list(judge(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert len(found) > 100
    said = {path.relative_to(CHECKOUT).as_posix(): what for path, what in found.items() if what}
    assert said == (ASKED_FOR if judge is only_here else {})


@pytest.mark.parametrize(
    "code",
    [
        "import fcntl",
        "from pwd import getpwnam",
        "def f():\n    import resource as r",
        "import os\nos.fork()",
        "from os import posix_fallocate",
        "import os, signal\nos.kill(1, signal.SIGKILL)",
        "import os\nif hasattr(os, 'nice'):\n    os.fork()",
        "open('/dev/null')",
    ],
)
def test_what_runs_on_one_system_only_is_found(code):
    assert list(only_here(code))


def test_who_asks_first_may_use_it():
    assert not list(
        only_here("import os\ncores = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else 1")
    )
    assert not list(only_here("import os\nos.replace('a', 'b')"))


@pytest.mark.parametrize("code", ["p.read_text()", "p.write_text('x')", "open('x')", "open('x', 'w')"])
def test_text_in_the_systems_own_encoding_is_found(code):
    assert list(unencoded(code))
    assert not list(unencoded(code.replace(")", ", encoding='utf-8')").replace("(, ", "(")))
    assert not list(unencoded("open('x', 'rb')"))


@pytest.mark.parametrize("system", ["linux", "win32", "darwin"])
def test_types_are_checked_for_each_system(system):
    """`make lint` does it: three minutes are too long for here."""
    (rule,) = [
        line for line in (CHECKOUT / "Makefile").read_text(encoding="utf-8").splitlines() if "mypy" in line
    ]
    assert system in rule
    assert "--platform" in rule


def test_the_readme_says_what_is_tested_where():
    said = " ".join((CHECKOUT / "README.md").read_text(encoding="utf-8").split())
    assert "The suite runs on Linux" in said
    assert "Windows and macOS" in said
