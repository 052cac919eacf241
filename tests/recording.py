"""A process of its own, with a home of its own, whose every word to the outside is written down."""

import ipaddress
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

UNSET = ("CI", "NNCF_CI", "DO_NOT_TRACK", "ORT_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY")
UNSET += ("RAY_USAGE_STATS_ENABLED", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "PYTEST_CURRENT_TEST")
"""What would keep a library silent without us, or send its files elsewhere."""

WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        place = arguments[1] if event == "socket.connect" else arguments
        if isinstance(place, tuple):
            with open(os.environ["WATCHED_TO"], "a") as log:
                log.write(f"{place[0]}\\n")
sys.addaudithook(watch)
"""
"""Python runs a `sitecustomize` in every process it starts, so in those that a library starts too."""


class Recorder(ThreadingHTTPServer):
    """A server on loopback that notes every request, as a proxy or not, and answers none of them."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Refuse)
        self.seen = []
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def sent_out(self):
        """The requests for other machines than this."""
        return [line for line in self.seen if not here(re.split(r"[/:]", line.split()[1].split("//")[-1])[0])]


class _Refuse(BaseHTTPRequestHandler):
    def refuse(self):
        self.server.seen.append(self.requestline)
        self.send_error(503)

    do_GET = do_POST = do_HEAD = do_CONNECT = do_PUT = refuse  # noqa: N815 the base class names them

    def log_message(self, *_):
        pass


def through(recorder):
    """Environment that leads every request to a recorder."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY")
    return dict.fromkeys(names, recorder.address)


@dataclass
class Ran:
    """A finished process: its output, which other machines it asked for, and its files at home."""

    done: subprocess.CompletedProcess
    asked: list[str]
    left: list[str]


def run_watched(script, folder, **environment):
    """Run a script in a fresh home below a folder, far from this test's own environment."""
    home, work, watch, log = (Path(folder, name) for name in ("home", "work", "watch", "asked.txt"))
    for folder in (home, work, watch):
        folder.mkdir(parents=True, exist_ok=True)
    (watch / "sitecustomize.py").write_text(WATCH)
    log.touch()
    given = {key: value for key, value in os.environ.items() if key not in UNSET and "TOPGRAFT" not in key}
    given["PYTHONPATH"] = os.pathsep.join([str(watch), *filter(None, [given.get("PYTHONPATH", "")])])
    given |= {"HOME": str(home), "WATCHED_TO": str(log), **environment}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=given,
        cwd=work,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    left = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    asked = {place for place in log.read_text().splitlines() if not here(place)}
    return Ran(done, sorted(asked), sorted(left))


def here(place):
    """Whether an address or name is this machine's own: then, and only then, one can listen at it."""
    if place in ("", "None", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(place)
    except ValueError:
        return False
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family) as door:
        try:
            door.bind((place, 0))
        except OSError:
            return False
    return True
