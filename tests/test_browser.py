"""The report in a real browser: no error, no request, no serious finding of axe, and what a click does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import topgraft as tg
from run_folder import POLICIES, write_run
from tiny import TINY
from topgraft import report
from topgraft.photos.dataset import Dataset

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AXE = Path(__file__).parent.parent / "node_modules" / "axe-core" / "axe.min.js"
NUMBER = ".confusion a:visible, .confused a:visible"
VIEWS = [(390, "light"), (390, "dark"), (1400, "light"), (1400, "dark")]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `make browser` installs it")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("browser")
    long = ["a class with quite a long name", "another_one_without_any_space_in_it", *"cdefghij"]
    many = [f"class_{i}" for i in range(102)]
    health = {
        "warnings": ["1 unreadable file is left out."],
        "refused": [{"id": "sushi/bad.jpg", "reason": "is empty (0 bytes)"}],
        "leaks": [["sushi/0003.jpg", "sushi/0004.jpg"]],
    }
    runs = {
        "two": write_run(folder / "two", photos=60, skill=1.5, policies=POLICIES, health=health),
        "many": write_run(folder / "many", photos=408, skill=2.5, classes=many, with_photos=False),
        "ten": write_run(folder / "ten", photos=150, skill=2.0, classes=long, policies=POLICIES, test=0),
    }
    from topgraft.config import Config
    from topgraft.recipe import follow
    from topgraft.testing.drawing import draw_photos

    drawn = draw_photos(folder / "photos", 14, seed=0)
    config = Config.load(
        data__photos=str(drawn),
        backbone__name=TINY,
        policies__count="2!",
        heads__names=("mean", "ridge"),
    )
    pages = {name: report(run) for name, run in runs.items()}
    real = follow(config, folder / "real")
    judged = tg.evaluate(real, Dataset.from_folder(draw_photos(folder / "new", 9, seed=1)))
    new = report(judged, out=folder / "new.html")
    return pages | {"real": real.path / "report.html", "new": new}


class Watched:
    """A page that notes every console message, error and request but the first."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str, script: bool = True) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 844}, color_scheme=scheme, java_script_enabled=script
        )
        self.page = self.context.new_page()
        self.trouble: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.mark.parametrize("name", ["two", "ten", "real", "new"])
@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_no_error_no_request_no_sideways_scrolling(
    browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    watched = Watched(browser, pages[name], width, scheme)
    with watched as page:
        page.locator("summary").first.click()
        page.locator(NUMBER).first.click()
        page.locator(".cell.open a.photo").first.click()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Escape")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 23, 22)"
        )
        assert watched.trouble == []
        assert watched.requests == [pages[name].as_uri()]


@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: `make browser` installs it")
@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("two", 390, "light"),
        ("two", 1400, "dark"),
        ("ten", 390, "dark"),
        ("real", 1400, "light"),
        ("real", 390, "dark"),
        ("new", 390, "light"),
        ("new", 1400, "dark"),
    ],
)
def test_axe_finds_nothing_serious(
    browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    with Watched(browser, pages[name], width, scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
        page.locator(NUMBER).first.click()
        page.evaluate(AXE.read_text(encoding="utf-8"))  # as a tag, the page's own policy refuses it
        found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 20  # it did look
    assert [
        (one["id"], one["impact"], [node["html"][:120] for node in one["nodes"][:3]])
        for one in found["violations"]
    ] == []


@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: `make browser` installs it")
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_runs_side_by_side_hold_to_the_same(
    browser: Any, pages: dict[str, Path], width: int, scheme: str, tmp_path: Path
) -> None:
    other = write_run(
        tmp_path / "other", photos=60, skill=4, photo_folder=pages["two"].parent.parent / "two-photos"
    )
    path = report([pages["two"].parent, other], out=tmp_path / "compare.html")
    watched = Watched(browser, path, width, scheme)
    with watched as page:
        assert page.locator(".gallery .thumb").count() > 3
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert watched.requests == [path.as_uri()]
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 15
    assert [(one["id"], one["nodes"][0]["html"][:120]) for one in found["violations"]] == []
    assert watched.trouble == []


@pytest.mark.parametrize("script", [True, False])
def test_a_cell_shows_its_photos_and_a_photo_is_enlarged(
    browser: Any, pages: dict[str, Path], script: bool
) -> None:
    with Watched(browser, pages["two"], 1400, "light", script=script) as page:
        assert page.locator(".cell:visible").count() == 0
        page.locator("#side-cv").check()
        cell = page.locator(".confusion a[href='#cv-0-1']")
        count = int(cell.inner_text())
        cell.click()
        assert page.locator(".cell:visible").count() == 1
        photos = page.locator("#cv-0-1 a.photo:visible")
        assert photos.count() == count > 0
        assert "sandwich taken for sushi" in page.locator("#cv-0-1 h3").inner_text()
        small = photos.first.bounding_box()
        photos.first.click()
        large = page.locator("dialog[open] .thumb" if script else ".large:target .thumb")
        assert large.bounding_box()["width"] > 2 * small["width"]
        page.locator("dialog[open] a" if script else ".large:target a").click()
        assert page.locator("dialog[open], .large:target").count() == 0
        if script:
            assert cell.get_attribute("aria-current") == "true"
            assert page.locator(".cell:visible").count() == 1


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("name", ["two", "ten", "many"])
def test_a_click_keeps_the_number_and_its_photos_in_view(
    browser: Any, pages: dict[str, Path], name: str, width: int
) -> None:
    with Watched(browser, pages[name], width, "light") as page:
        page.emulate_media(reduced_motion="reduce")  # or it scrolls softly, and is not there yet
        numbers = page.locator(NUMBER)
        for place in (0, numbers.count() // 2, numbers.count() - 1):
            numbers.nth(place).scroll_into_view_if_needed()
            numbers.nth(place).click()
            number, photos = numbers.nth(place).bounding_box(), page.locator(".cell.open").bounding_box()
            assert number["y"] >= 0
            assert number["y"] + number["height"] <= photos["y"]
            assert photos["y"] + photos["height"] <= 844 + 1
            page.locator(".cell.open .close").click()


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("name", ["two", "ten", "many"])
def test_nothing_is_cut_or_wider_than_the_window(
    browser: Any, pages: dict[str, Path], name: str, width: int
) -> None:
    """Mistakes, classes and thresholds can be read without scrolling sideways."""
    with Watched(browser, pages[name], width, "light") as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wider = page.evaluate(
            """() => [...document.querySelectorAll("#mistakes .scroll, #classes .scroll, #trust .scroll")]
            .filter((one) => one.scrollWidth > one.clientWidth + 1)
            .map((one) => [one.getAttribute("aria-label"), one.scrollWidth, one.clientWidth])"""
        )
        assert wider == []
        tabs = page.locator(".tabs label")
        if tabs.count():
            shown = page.locator(".side:visible")
            assert shown.count() == 1
            page.locator("#side-cv").check()
            assert "cv" in shown.get_attribute("class")


def test_the_keyboard_reaches_everything(browser: Any, pages: dict[str, Path]) -> None:
    with Watched(browser, pages["two"], 1400, "light") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the result"
        page.locator(".confusion a").first.focus()
        page.keyboard.press("Enter")
        photo = page.locator(".cell.open a.photo").first
        photo.focus()
        page.keyboard.press("Enter")
        first = page.locator("dialog figcaption").inner_text()
        page.keyboard.press("ArrowRight")
        assert page.locator("dialog figcaption").inner_text() != first
        page.keyboard.press("ArrowLeft")
        assert page.locator("dialog figcaption").inner_text() == first
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.className") == "photo"


def test_photos_are_drawn_and_not_only_there(browser: Any, pages: dict[str, Path]) -> None:
    """A photo's pixels reach the screen: its thumbnail is not one flat colour."""
    import io

    import numpy as np
    from PIL import Image

    with Watched(browser, pages["two"], 1400, "light") as page:
        shot = page.locator("#photos .thumb").first.screenshot()
    assert np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).std(axis=(0, 1)).min() > 10


def test_it_prints_on_white_without_navigation(browser: Any, pages: dict[str, Path]) -> None:
    with Watched(browser, pages["two"], 1400, "light") as page:
        page.emulate_media(media="print")
        assert not page.locator(".contents").is_visible()
        assert page.locator("#heads table").first.is_visible()
        assert len(page.pdf()) > 50_000
