"""The site: built strictly, every page in its place, no link astray, nothing asked of another machine."""

import functools
import html.parser
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from browsing import CHROMIUM, open_browser

ROOT = Path(__file__).parents[1]
HOLDS = ("src", "srcset", "poster", "data", "action", "formaction", "background")
"""Attributes that a browser fetches; `href` too, but on links that are clicked."""
ASLEEP = {
    "https://unpkg.com/glightbox": "glightbox",
    "https://unpkg.com/resize-observer-polyfill": "",  # for browsers before 2020
    "https://unpkg.com/pyodide": "pyodide",
    "https://unpkg.com/ace-builds": "pyodide",
    "https://cdn.jsdelivr.net/pyodide/": "pyodide",
    "https://unpkg.com/mermaid": 'class="mermaid"',
    "https://api.github.com/": 'data-md-component="source"',
}
"""Addresses in the theme's script, and what on a page would wake them. The page's own rules stop them."""
NAMES = ("http://www.w3.org/", "https://fontawesome.com")  # of namespaces, and of a licence


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("zensical", reason="needs zensical and mkdocstrings, of the dev group")
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "src", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("zensical.toml", "CONTRIBUTING.md", "CHANGELOG.md", "README.md"):
        shutil.copy(ROOT / name, folder)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stderr
    return folder / "site"


class Seen(html.parser.HTMLParser):
    """What a page links to, fetches, and can be jumped to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.fetched, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            elif name in HOLDS or (name == "href" and tag not in ("a", "area")):
                self.fetched.append(value or "")
            elif name == "style" and value:
                self.fetched += re.findall(r"url\(([^)]*)\)", value)
            if name in ("href", "src") and value and not value.startswith("data:"):
                self.links.append(value)


@pytest.fixture(scope="module")
def pages(site):
    texts = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    return {path: (text, Seen(text)) for path, text in texts.items()}


def test_every_page_has_its_place(site, pages):
    def listed(entries):
        for entry in entries:
            for value in entry.values() if isinstance(entry, dict) else [entry]:
                yield from listed(value) if isinstance(value, list) else [value]

    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    there = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert set(listed(nav)) == there
    assert {path.relative_to(site).with_suffix(".md").as_posix() for path in pages} - {"404.md"} == there


def test_every_link_leads_somewhere(site, pages):
    broken = []
    for path, (_, seen) in pages.items():
        for link in seen.links:
            where, _, anchor = link.partition("#")
            if re.match(r"\w+:|//", link) or path.name == "404.html":
                continue
            target = (path.parent / where).resolve() if where else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (
                anchor and target.suffix == ".html" and anchor not in pages[target][1].ids
            ):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken


def test_nothing_is_fetched_from_elsewhere(site, pages):
    for path, (text, seen) in pages.items():
        assert not [url for url in seen.fetched if re.match(r"\s*['\"]?(https?:|//)", url)], path
        assert "Content-Security-Policy\" content=\"default-src 'self'" in text
    for path in site.rglob("*.css"):
        assert not re.findall(
            r"(?:url\(|@import\s*)[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")
        ), path
    scripts = [path.read_text(encoding="utf-8") for path in site.rglob("*.js")]
    scripts += [
        code for text, _ in pages.values() for code in re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    ]
    assert scripts
    for url in {url for script in scripts for url in re.findall(r"https?://[\w./-]+", script)}:
        if not url.startswith(NAMES):
            wakers = [waker for address, waker in ASLEEP.items() if url.startswith(address)]
            assert wakers, f"{url} is new in the theme's script: what wakes it?"
            assert not any(waker and waker in text for waker in wakers for text, _ in pages.values()), url


@pytest.fixture
def address(site):
    """Where the site is served, as it will be: a browser reads no search index from a folder."""
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `make browser` installs it")
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_in_a_browser_it_asks_nobody_else_fits_and_is_searched(browser, address, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    asked, trouble = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: trouble.append(f"{message.text} {message.location}"))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    for name in ("index", "python", "cookbook/use"):
        page.goto(f"{address}{name}.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    page.keyboard.press("Control+k")
    page.keyboard.type("near-duplicates")
    page.locator("a[href*='files.html'], a[href*='why.html'], a[href*='python.html']").last.wait_for()
    page.close()
    assert not [url for url in asked if not url.startswith((address, "data:", f"blob:{address}"))]
    assert not trouble
