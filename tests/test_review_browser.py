"""The review as a person does it: thirty photos by keyboard, undo, a reload in the middle, axe."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from browsing import CHROMIUM, Served, Visitor, open_browser
from tiny import TINY
from topgraft._relabel import Review
from topgraft.config import Config
from topgraft.photos.corrections import current, read_corrections
from topgraft.recipe import follow
from topgraft.run import Run
from topgraft.serve import create_app
from topgraft.testing.drawing import draw_photos

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `make browser` installs it")
KEYS = {"sandwich": "1", "sushi": "2"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run of twelve photos a class, two of which are in the wrong folder."""
    root = tmp_path_factory.mktemp("reviewed")
    photos = draw_photos(root / "photos", 12, seed=0)
    for name, other in (("sushi", "sandwich"), ("sandwich", "sushi")):
        min((photos / name).glob("*.jpg")).rename(photos / other / f"{name}-wrong.jpg")
    config = Config.load(
        data__photos=str(photos),
        backbone__name=TINY,
        policies__count=0,
        heads__names=("logistic",),
    )
    return follow(config, root / "run")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """Forty-six photos without labels; their names say what they are."""
    root = tmp_path_factory.mktemp("fresh")
    drawn = draw_photos(root / "drawn", 20, seed=7)
    (root / "new").mkdir()
    for path in sorted(drawn.rglob("*.jpg")):
        copy = shutil.copy(path, root / "new" / f"{path.parent.name}-{path.name}")
        if path.stem.endswith(("_003", "_007", "_011")):  # some look like another
            Pillow.open(copy).save(copy.with_stem(f"{copy.stem}-again"), quality=60)
    return root / "new"


class Reviewer(Visitor):
    """Somebody at the keyboard."""

    def ready(self) -> None:
        """Wait for the first photo."""
        self.page.wait_for_selector("#photo:not([hidden]), #end:not([hidden])")

    def name(self) -> str:
        return self.page.locator("#name").inner_text()

    def progress(self) -> tuple[int, int]:
        done, _, left, *_ = self.page.locator("#progress").inner_text().replace(",", "").split()
        return int(done), int(left)

    def press(self, key: str) -> None:
        """Press a key and wait for what the server says to it."""
        before = self.page.locator("#progress").inner_text(), self.name()
        with self.page.expect_response(lambda answer: answer.request.method == "POST") as answer:
            self.page.keyboard.press(key)
        assert answer.value.status == 200
        self.page.wait_for_function(
            "([progress, name]) => document.getElementById('progress').textContent !== progress"
            " || document.getElementById('name').textContent !== name",
            arg=list(before),
        )


@pytest.fixture
def served(run, fresh, tmp_path) -> Iterator[tuple[str, Path]]:
    review = Review.open(run, fresh, corrections=tmp_path / "labels.csv")
    server = Served(create_app(run, loopback=True, review=review))
    yield f"{server.url}review", review.corrections.path
    server.stop()
    review.close()


def meant(name: str) -> str:
    """Say what is on a photo, by its name."""
    return Path(name).name.split("-")[0] if "-" in name else Path(name).parent.name


def test_thirty_photos_by_keyboard_undo_and_a_reload_in_the_middle(browser, served):
    url, table = served
    with Reviewer(browser, url) as person:
        labelled: dict[str, str] = {}
        while len(labelled) < 30:
            name = person.name()
            assert name not in labelled  # nobody is asked twice
            if len(labelled) in (7, 19):  # a slip of the finger
                person.press(KEYS["sushi" if meant(name) == "sandwich" else "sandwich"])
                person.press("Backspace")
                assert person.name() == name
            if len(labelled) == 15:
                person.page.reload()
                person.ready()
                assert person.name() == name
                assert person.progress()[0] == 15
            person.press(KEYS[meant(name)])
            labelled[name] = meant(name)
        assert person.progress()[0] == 30
        said = {line.path: line.label for line in current(read_corrections(table))}
        assert said == labelled


def test_skip_none_a_new_class_and_many_at_once(browser, served):
    url, table = served
    with Reviewer(browser, url) as person:
        first = person.name()
        person.press("Space")
        second = person.name()
        person.press("0")
        third = person.name()
        person.page.keyboard.press("/")
        person.page.keyboard.type("rice & beans")
        person.press("Enter")
        assert person.page.locator("#classes button").count() == 3
        said = {line.path: (line.decision, line.label) for line in current(read_corrections(table))}
        assert said == {
            first: ("skip", ""),
            second: ("none", ""),
            third: ("label", "rice & beans"),
        }
        while person.page.locator("#alike").is_hidden():
            person.press(KEYS[meant(person.name())])
        offered = person.page.locator("#others button")
        count, before = offered.count(), person.progress()[0]
        label = person.page.locator("#same").inner_text()
        assert label.startswith(f"{count} like the last one: ")
        offered.first.click()  # not this one
        assert offered.first.get_attribute("aria-pressed") == "false"
        person.page.locator("#name").focus()
        if count > 1:
            person.press("Enter")
            assert person.progress()[0] == before + count - 1
            person.press("Backspace")
            assert person.progress()[0] == before


def test_what_cannot_be_kept_is_said_and_nothing_is_lost(browser, run, fresh, tmp_path):
    review = Review.open(run, fresh, corrections=tmp_path / "labels.csv")
    server = Served(create_app(run, loopback=True, review=review))
    with Reviewer(browser, f"{server.url}review") as person:
        person.press("1")
        name = person.name()
        server.stop()
        review.close()
        person.page.keyboard.press("2")
        person.page.wait_for_selector("#status:has-text('The server does not answer')")
        assert person.name() == name
        person.trouble.clear()  # Chromium notes that nobody answered
    assert len(read_corrections(tmp_path / "labels.csv")) == 1


def test_axe_finds_nothing_serious_and_nothing_hangs_over_the_edge(browser, served):
    with Reviewer(browser, served[0]) as person:
        assert person.serious_anywhere(390, 1280) == []
        while person.page.locator("#alike").is_hidden():
            person.press(KEYS[meant(person.name())])
        person.page.locator("#new").click()
        assert person.serious_anywhere(390, 1280) == []
