"""The page as a person drives it, from a server and alone: drop, paste, camera, keyboard, no network."""

from __future__ import annotations

import base64
import csv
import http.server
import io
import os
import re
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import topgraft as tg
from browsing import CHROMIUM, MODULES, PATIENCE_MS, Served, Visitor, open_browser
from tiny import TINY
from topgraft import _page
from topgraft.config import Config
from topgraft.predictor import load
from topgraft.recipe import follow
from topgraft.run import Run
from topgraft.serve import create_app
from topgraft.testing.drawing import draw_photos

RUNTIME = MODULES / "onnxruntime-web" / "dist"
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
TOKEN = "a-token-that-nobody-guesses"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `make browser` installs it")
needs_web = pytest.mark.skipif(
    not RUNTIME.is_dir() or not shutil.which("node"),
    reason="needs onnxruntime-web: `make browser` installs it",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser(*CAMERA) as opened:
        yield opened


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("pages") / "photos", 12, seed=0)


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> Run:
    config = Config.load(
        data__photos=str(photos),
        backbone__name=TINY,
        policies__count=0,
        heads__names=("logistic",),
    )
    return follow(config, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def paths(photos) -> list[Path]:
    return sorted(photos.rglob("*.jpg"))


@pytest.fixture(scope="module")
def url(run) -> Iterator[str]:
    served = Served(create_app(run))
    yield served.url
    served.stop()


@pytest.fixture(scope="module")
def here(run, tmp_path_factory) -> Iterator[str]:
    """The exported page behind a static web server."""
    with serve_folder(
        tg.export(run, tmp_path_factory.mktemp("web") / "page", format="web", runtime=RUNTIME).path
    ) as url:
        yield url


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """A static web server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Person(Visitor):
    """Somebody with photos."""

    def ready(self) -> None:
        """Wait for the names of the classes."""
        self.page.wait_for_selector("#classes:has-text('knows 2 classes: sandwich, sushi')")

    def drop(self, *files: Path, event: str = "drop") -> None:
        """Drop or paste files: the event that the browser would send."""
        given = [(file.name, base64.b64encode(file.read_bytes()).decode()) for file in files]
        self.page.evaluate(
            """async ([given, event]) => {
                const data = new DataTransfer();
                for (const [name, text] of given) {
                    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                    data.items.add(new File([bytes], name, { type: 'image/jpeg' }));
                }
                const options = { bubbles: true, cancelable: true };
                document.body.dispatchEvent(event === 'paste'
                    ? new ClipboardEvent('paste', { clipboardData: data, ...options })
                    : new DragEvent('drop', { dataTransfer: data, ...options }));
            }""",
            [given, event],
        )

    def answer(self) -> dict[str, Any]:
        """Read the card as it is shown."""
        page = self.page
        page.wait_for_selector("#card:not([hidden])")
        bars = page.locator("#bars li").all()
        return {
            "answer": page.locator("#answer").inner_text(),
            "more": page.locator("#more").inner_text(),
            "bars": {
                bar.locator(".name").inner_text(): float(bar.locator("meter").get_attribute("value"))
                for bar in bars
            },
        }

    def done(self, photos: int) -> None:
        """Wait for the table."""
        self.page.wait_for_selector(f"#status:has-text('{photos} photos are done.')", state="attached")

    def table(self) -> list[list[str]]:
        """Download the CSV."""
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name="Download CSV").click()
        assert download.value.suggested_filename == "answers.csv"
        return list(csv.reader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))


def same(shown: dict[str, Any], expected: Any, atol: float = 1e-3) -> None:
    assert shown["bars"] == pytest.approx(expected.probabilities, abs=atol)
    assert list(shown["bars"].values()) == sorted(shown["bars"].values(), reverse=True)
    assert shown["answer"] == ("None of the classes it knows" if expected.unknown else expected.label)
    if expected.unknown:
        assert f"{expected.label} is the nearest" in shown["more"]


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_dropped_or_pasted_photo_is_answered(browser, url, run, paths, event):
    with Person(browser, url) as person:
        person.drop(paths[0], event=event)
        same(person.answer(), load(run.path).predict(paths[0])[0], 1e-6)
        assert person.page.evaluate("document.activeElement.id") == "answer"


def test_many_photos_become_a_table_and_a_file(browser, url, run, paths):
    with Person(browser, url) as person:
        person.page.set_input_files("#files", paths[6:18])
        person.done(12)
        expected = load(run.path).predict(paths[6:18])
        rows = [
            [cell.inner_text() for cell in row.locator("td").all()]
            for row in person.page.locator("tbody tr").all()
        ]
        assert [row[1] for row in rows] == [path.name for path in paths[6:18]]
        assert [row[2] for row in rows] == ["unknown" if told.unknown else told.label for told in expected]
        head, *lines = person.table()
        assert head == ["photo", "answer", "label", "probability", "p_sandwich", "p_sushi", "error"]
        for line, told in zip(lines, expected, strict=True):
            assert float(line[3]) == pytest.approx(told.probability, abs=1e-6)
            assert (line[2], line[6]) == (told.label, "")
        person.page.get_by_role("button", name=f"Show {paths[9].name}").click()
        same(person.answer(), expected[3], 1e-6)
        person.page.get_by_role("button", name="Start over").click()
        assert person.page.locator("#many").is_hidden()
        assert person.page.locator("#card").is_hidden()


def test_a_photo_that_comes_before_the_last_one_is_answered_has_one_row_in_its_place(browser, url, paths):
    with Person(browser, url) as person:
        page, held = person.page, []
        page.route("**/predict", lambda asked: asked.continue_() if held else held.append(asked))

        def names():
            return [cell.inner_text() for cell in page.locator("tbody td.name").all()]

        person.drop(paths[0])
        person.drop(paths[1])
        page.wait_for_selector(f"tbody:has-text('{paths[1].name}')")
        assert names() == [paths[1].name]
        assert page.locator("tbody tr").count() == 2  # the first one's place is kept
        assert "done" not in page.locator("#status").inner_text()
        held[0].continue_()
        person.done(2)
        assert names() == [path.name for path in paths[:2]]
        person.drop(paths[2])
        person.done(3)
        assert names() == [path.name for path in paths[:3]]
        assert [line[0] for line in person.table()[1:]] == names()
        page.get_by_role("button", name="Start over").click()
        page.set_input_files("#files", paths[3:5])
        person.done(2)
        assert names() == [path.name for path in paths[3:5]]


def test_one_unreadable_photo_does_not_stop_the_rest_and_no_cell_is_a_formula(browser, url, paths, tmp_path):
    bad = tmp_path / "=cmd.jpg"
    bad.write_bytes(b"no picture")
    person = Person(browser, url)
    with person:
        person.page.set_input_files("#files", [paths[0], bad])
        person.done(2)
        assert "is not a picture in a known format" in person.page.locator("tbody").inner_text()
        assert "unreadable 1" in person.page.locator("#summary").inner_text()
        lines = person.table()
        assert lines[2][0] == "'=cmd.jpg"
        assert "not a picture" in lines[2][6]
        person.trouble[:] = [
            text for text in person.trouble if "422" not in text
        ]  # Chromium notes the status


def test_where_it_looked_is_laid_over_the_photo(browser, url, paths):
    with Person(browser, url) as person:
        person.drop(paths[0])
        person.answer()
        button = person.page.get_by_role("button", name="Where it looked")
        button.click()
        person.page.wait_for_selector(".looked:not([hidden])")
        assert button.get_attribute("aria-pressed") == "true"
        photo, looked = (person.page.locator(f"figure img >> nth={i}").bounding_box() for i in (0, 1))
        assert looked == pytest.approx(photo, abs=1)
        button.click()
        assert person.page.locator(".looked").is_hidden()


@pytest.mark.parametrize("page", ["url", pytest.param("here", marks=needs_web)])
def test_the_camera_takes_a_photo(browser, request, page):
    with Person(browser, request.getfixturevalue(page), width=390) as person:
        person.page.get_by_role("button", name="Take a photo").click()
        person.page.get_by_role("button", name="Take it").click()
        shown = person.answer()
        assert sum(shown["bars"].values()) == pytest.approx(1, abs=1e-4)
        assert shown["answer"] == "None of the classes it knows"  # a green test picture is neither
        assert person.page.locator("#camera").is_hidden()
        assert person.page.evaluate("document.querySelector('video').srcObject") is None


def test_no_press_is_lost_on_a_camera_that_is_slow_to_show_a_picture(browser, url):
    with Person(browser, url) as person:
        page = person.page
        page.evaluate(
            """() => {
                const play = HTMLMediaElement.prototype.play;
                const warm = new Promise((done) => { window.warm_up = done; });
                HTMLMediaElement.prototype.play = async function () { await warm; return play.call(this); };
            }"""
        )
        page.get_by_role("button", name="Take a photo").click()
        shoot = page.get_by_role("button", name="Take it")
        assert shoot.is_disabled()
        assert page.get_by_role("button", name="Take a photo").is_disabled()  # a second stream would stay on
        page.evaluate("window.warm_up()")
        shoot.click()
        assert person.answer()["bars"]
        assert shoot.is_hidden()
        assert page.get_by_role("button", name="Take a photo").is_enabled()


def test_a_camera_closed_before_its_first_picture_is_off_and_opens_again(browser, url):
    with Person(browser, url) as person:
        page = person.page
        page.get_by_role("button", name="Take a photo").click()
        page.get_by_role("button", name="Close the camera").click()
        assert page.evaluate("document.querySelector('video').srcObject") is None
        page.get_by_role("button", name="Take a photo").click()
        page.get_by_role("button", name="Take it").click()
        assert person.answer()["bars"]


def test_photos_chosen_before_the_script_is_there_are_answered(browser, url, paths):
    """A slow machine shows the page long before its script runs."""
    with Person(browser, url) as person:
        page = person.page
        held: list[Any] = []
        page.route("**/page.mjs", lambda route: held.append(route))  # noqa: PLW0108  a builtin is no handler
        page.reload(wait_until="commit")
        page.locator("#files").wait_for(state="attached")
        while not held:
            page.wait_for_timeout(10)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "files"
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(paths[0])
        assert page.get_by_role("button", name="Take a photo").is_disabled()
        held[0].continue_()
        assert person.answer()["bars"]
        assert page.get_by_role("button", name="Take a photo").is_enabled()


@pytest.mark.parametrize("slower", [1, 20])
def test_all_of_it_works_by_keyboard(browser, url, paths, slower):
    with Person(browser, url) as person:
        page = person.page
        person.slow_down(slower)
        page.reload()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "files"
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(paths[:2])
        person.done(2)
        seen = set()
        for _ in range(12):
            page.keyboard.press("Tab")
            seen.add(page.evaluate("document.activeElement.textContent || document.activeElement.ariaLabel"))
        assert {"Download CSV", "Start over", f"Show {paths[0].name}", f"Show {paths[1].name}"} <= seen


@pytest.mark.parametrize("page", ["url", pytest.param("here", marks=needs_web)])
def test_axe_finds_nothing_serious_and_nothing_hangs_over_the_edge(browser, request, paths, page):
    with Person(browser, request.getfixturevalue(page)) as person:
        assert person.serious_anywhere(390, 1280) == []
        person.drop(paths[0])
        person.answer()
        assert person.serious_anywhere(390, 1280) == []
        person.page.set_input_files("#files", paths[10:14])
        person.done(5)
        assert person.serious_anywhere(390, 1280) == []


def test_the_interface_is_described_without_anybody_elses_files(browser, url):
    with Person(browser, url) as person:
        person.page.goto(f"{url}docs")
        assert person.serious_anywhere(390) == []


def test_a_token_is_asked_for_and_then_used(browser, run, paths):
    served = Served(create_app(run, token=TOKEN))
    try:
        person = Person(browser, served.url)
        page = person.page
        page.wait_for_selector("#status:has-text('Give the token')")
        page.get_by_label("This server wants a token.").fill("wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#status:has-text('That is not the token.')")
        page.get_by_label("This server wants a token.").fill(TOKEN)
        page.keyboard.press("Enter")
        with person:
            person.drop(paths[0])
            assert person.answer()["bars"]
            person.trouble[:] = [
                text for text in person.trouble if "401" not in text
            ]  # Chromium notes the status
    finally:
        served.stop()


@needs_web
def test_the_exported_page_answers_without_a_network(browser, here, run, photos, paths):
    """Ten photos and a stranger, the network closed and the page loaded anew."""
    strangers = photos.parent / "strangers"
    strangers.mkdir(exist_ok=True)
    from PIL import Image

    stranger = strangers / "grid.png"
    picture = Image.new("RGB", (320, 240), "#0a8000")
    for x in range(0, 320, 16):
        picture.paste((255, 0, 255), (x, 0, x + 3, 240))
    picture.save(stranger)
    ten = [*paths[:5], *paths[-5:]]
    expected = load(run.path).predict([*ten, stranger])
    assert expected[-1].unknown
    with Person(browser, here, width=390) as person:
        person.page.wait_for_selector("#where:has-text('works without a network')")
        person.context.set_offline(True)
        person.page.reload()
        person.page.wait_for_selector("#where:has-text('works without a network')")
        person.drop(stranger)
        same(person.answer(), expected[-1])
        person.page.set_input_files("#files", ten)
        person.done(11)
        lines = person.table()[2:]
    apart = 0.0
    for line, told, path in zip(lines, expected[:-1], ten, strict=True):
        assert line[0] == path.name
        assert line[1] == ("unknown" if told.unknown else told.label)
        apart = max(apart, *(abs(float(line[4 + i]) - p) for i, p in enumerate(told.probabilities.values())))
    assert apart < 1e-3


def test_two_exports_on_one_origin_keep_their_own_copies(browser, tmp_path):
    """Their service workers alone: what a page then does with its files is tested above."""
    for name, word in (("a", "first"), ("a/inner", "second"), ("b", "third")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "index.html").write_text(word)
        text = _page.part("offline.js").decode().replace("{{ digest }}", word)
        (folder / "offline.js").write_text(text.replace("{{ files }}", '["./", "index.html"]'))
    register = """async () => {
        const found = await navigator.serviceWorker.register('./offline.js');
        const worker = found.installing ?? found.waiting ?? found.active;
        while (worker.state !== 'activated') {
            if (worker.state === 'redundant') throw new Error('it was not installed');
            await new Promise((done) => { worker.addEventListener('statechange', done, { once: true }); });
        }
    }"""
    with serve_folder(tmp_path) as url:
        context = browser.new_context()
        page = context.new_page()
        for name in ("a/", "a/inner/", "b/"):
            page.goto(f"{url}{name}")
            page.evaluate(register)
        context.set_offline(True)
        for name, word in (("a/", "first"), ("a/inner/", "second"), ("b/", "third")):
            page.goto(f"{url}{name}")
            assert page.inner_text("body") == word
        context.set_offline(False)
        script = tmp_path / "b" / "offline.js"
        script.write_text(script.read_text().replace("third", "fourth"))
        later = script.stat().st_mtime + 2  # the server tells times to the second
        os.utime(script, (later, later))
        page.goto(f"{url}b/")
        page.evaluate("navigator.serviceWorker.getRegistration().then((found) => found.update())")
        page.evaluate(register)
        kept = page.evaluate("caches.keys()")
        context.close()
    ends = {"a/ first", "a/inner/ second", "b/ fourth"}  # a new export of b took the place of its old one
    assert sorted(kept) == sorted(f"topgraft {url}{end}" for end in ends)


@needs_web
def test_the_exported_page_names_the_line_that_brings_its_runtime(browser, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tg.export(run, tmp_path / "page", format="web").path
    page = browser.new_page()
    answers = {"html": "text/html", "css": "text/css", "mjs": "text/javascript", "json": "application/json"}

    def give(route: Any) -> None:
        name = re.sub(r"^http://page.test/", "", route.request.url) or "index.html"
        found = folder / name
        if found.is_file():
            route.fulfill(
                body=found.read_bytes(),
                content_type=answers.get(found.suffix[1:], "application/octet-stream"),
            )
        else:
            route.fulfill(status=404, body="")

    page.route("**/*", give)
    page.goto("http://page.test/")
    page.wait_for_selector("#status:has-text('npm install onnxruntime-web@')", timeout=PATIENCE_MS)
    page.close()


@needs_web
@pytest.mark.shared
@pytest.mark.nightly
def test_how_far_the_browsers_decoding_is_from_ours(browser, shared, tmp_path):
    """Printed for docs/export.md: photos as they are taken, and with what cameras write."""
    photos = shared / "data" / "sushi_sandwich"
    real = follow(
        Config.load(data__photos=str(photos), backbone__name="tf_efficientnet_lite0", policies__count=0),
        tmp_path / "run",
    )
    folder = tg.export(real, tmp_path / "page", format="web", runtime=RUNTIME).path
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever).start()
    try:
        ten = sorted(photos.rglob("*.jpg"))[::16]
        with Person(browser, f"http://127.0.0.1:{server.server_port}/") as person:
            person.page.set_input_files("#files", ten)
            person.done(len(ten))
            lines = person.table()[1:]
    finally:
        server.shutdown()
        server.server_close()
    expected = load(real.path).predict(ten)
    apart = [
        abs(float(line[4]) - next(iter(told.probabilities.values())))
        for line, told in zip(lines, expected, strict=True)
    ]
    warnings.warn(f"decoding: {len(ten)} photos, probabilities at most {max(apart):.2g} apart", stacklevel=1)
    assert max(apart) < 1e-3


@needs_web
def test_unsure_is_said_alike_by_the_server_and_the_exported_page(browser, run, paths, tmp_path):
    sure = load(run.path)
    # In the middle of the widest gap: at a photo's own probability the last bit would decide.
    low, high = max(
        pairwise(sorted(told.probability for told in sure.predict(paths[:8]))),
        key=lambda pair: pair[1] - pair[0],
    )
    predictor = sure.answering_above((low + high) / 2)
    model = predictor.save(tmp_path / "unsure" / "model")
    expected = predictor.predict(paths[:8])
    assert len({prediction.unsure for prediction in expected}) == 2
    served = Served(create_app(model))
    page = tg.export(run, tmp_path / "page", format="web", runtime=RUNTIME).path
    shutil.copy(model / "card.json", page / "card.json")
    static = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(http.server.SimpleHTTPRequestHandler, directory=str(page))
    )
    threading.Thread(target=static.serve_forever).start()
    try:
        for url in (served.url, f"http://127.0.0.1:{static.server_port}/"):
            with Person(browser, url) as person:
                person.page.set_input_files("#files", paths[:8])
                person.done(8)
                told = [line[1] for line in person.table()[1:]]
                assert told == [
                    prediction.answer or ("unknown" if prediction.unknown else "unsure")
                    for prediction in expected
                ]
    finally:
        static.shutdown()
        static.server_close()
        served.stop()
