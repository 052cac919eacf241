"""What tests of served pages share: a browser, a server, and somebody before the page."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import uvicorn

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MODULES = Path(__file__).parent.parent / "node_modules"
AXE = MODULES / "axe-core" / "axe.min.js"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 120_000


@contextmanager
def open_browser(*flags: str) -> Iterator[Any]:
    """Open Debian's Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        yield opened
        opened.close()


class Served:
    """An application in a thread, at a port that is free."""

    def __init__(self, app: Any) -> None:
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            self.thread.join(0.05)
            assert self.thread.is_alive(), "the server did not start"
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}/"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()


class Visitor:
    """Somebody before a page, and what they would not see: errors, and requests to anybody else."""

    def __init__(self, browser: Any, url: str, *, width: int = 1280, scheme: str = "light") -> None:
        origin = "/".join(url.split("/")[:3])
        self.context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme=scheme, accept_downloads=True
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.trouble: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.context.on(
            "request",
            lambda asked: (
                None if asked.url.startswith((origin, "blob:", "data:")) else self.elsewhere.append(asked.url)
            ),
        )
        # Chromium hands a page its keys before the order to report file choosers, if both come at once: so
        # the order is given before there is a page, by a listener that stays.
        self.page.on("filechooser", lambda _: None)
        self.page.goto(url)

    def ready(self) -> None:
        """Wait until the page can be used."""

    def __enter__(self) -> Self:
        self.ready()
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        self.context.close()
        if kind is None:
            assert self.trouble == []
            assert self.elsewhere == []

    def slow_down(self, times: int) -> None:
        """Make the page's processor slower."""
        self.context.new_cdp_session(self.page).send("Emulation.setCPUThrottlingRate", {"rate": times})

    def serious_anywhere(self, *widths: int) -> list[str]:
        """Ask axe what is wrong at each width, in light and dark, and note what hangs over the edge."""
        found = []
        for width in widths:
            self.page.set_viewport_size({"width": width, "height": 844})
            for scheme in ("light", "dark"):
                self.page.emulate_media(color_scheme=scheme)
                found += [f"{width} {scheme} {said}" for said in self.serious()]
            over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            if hangs := self.page.evaluate(over):
                found.append(f"{width}: {hangs} px hang over the edge")
        return found

    def serious(self) -> list[str]:
        """Ask axe what is wrong."""
        if not AXE.is_file():
            pytest.skip("needs axe-core: `make browser` installs it")
        self.page.evaluate(AXE.read_text(encoding="utf-8"))  # not a script tag: the page allows none
        found = self.page.evaluate("axe.run()")
        return [
            f"{finding['id']}: {finding['nodes'][0]['html']}"
            for finding in found["violations"]
            if finding["impact"] in ("serious", "critical")
        ]
