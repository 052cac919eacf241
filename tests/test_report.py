"""The report: what is on the page equals the run's files, it is small, and it stands on its own."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from run_folder import POLICIES, load, write_run
from tiny import TINY
from topgraft import report
from topgraft._report.believed import merged
from topgraft._report.gallery import Shot
from topgraft._report.looked import kept, outlined
from topgraft._report.numbers import pointer, resolve, written
from topgraft._report.photos import LEAST, Book, Thumb
from topgraft._report.svg import Plot, thin, ticks
from topgraft.backbones.card import Card
from topgraft.errors import DataError
from topgraft.metrics import wilson
from topgraft.run import Run
from topgraft.run.origin import Origin
from topgraft.show import print_verdict

VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Collects elements with their attributes and text, and every text with the tags around it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[dict[str, Any]] = []
        self.elements: list[dict[str, Any]] = []
        self.loose: list[tuple[list[str], str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, "text": "", **{name: value or "" for name, value in attrs}}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append({"tag": tag, "text": "", **{name: value or "" for name, value in attrs}})

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()["tag"] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data
        if data.strip():
            self.loose.append(([element["tag"] for element in self.open], data))

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [element for element in self.elements if element["tag"] == tag]

    def id(self, name: str) -> dict[str, Any]:
        return next(element for element in self.elements if element.get("id") == name)


# what the page itself counts
COUNTED = (
    r"\d+ augmentation policies|A sample: \d+ of|The first \d+ are shown; there are \d+ more|\d+ more kinds"
)


def is_rounded(text: str, exact: float) -> bool:
    """Tell whether a text is a number, rounded to the digits it shows, in a unit it names or shares."""
    plain = text.replace("−", "-").replace("\u202f", "").strip()
    if plain == "–":
        return exact is None
    if plain in ("> 99 %", "< 1 %"):  # what is not all or nothing is not rounded to it
        return 0.995 <= exact < 1 if plain[0] == ">" else 0 < exact < 0.005
    digits, unit = re.fullmatch(r"([-+\d.e]+)\s*(%|s|min|)", plain).groups()  # type: ignore[union-attr]
    units = {"%": (100,), "s": (1,), "min": (1 / 60,), "": (1, 100)}[unit]
    mantissa, _, power = digits.partition("e")
    half = 0.5 * 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))
    return any(abs(float(digits) - unit * exact) <= half * 1.000001 for unit in units)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("report") / "first", photos=60, skill=1.5, policies=POLICIES)
    report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def check_numbers(run: Path, page: Page) -> None:
    """Hold every number on a page to the file it names, and what is shown to its exact value."""
    metrics, health, timings = (load(run / name) for name in ("metrics.json", "health.json", "timings.json"))
    table = Run.open(run).read_table("predictions.csv")
    sources = {"data-metric": metrics, "data-health": health, "data-timing": timings}
    numbers, checked = page.all("data"), 0
    assert len(numbers) > 150
    for one in numbers:
        exact = json.loads(one["value"])
        for attribute, facts in sources.items():
            if attribute in one:
                assert exact == resolve(facts, one[attribute])
                checked += 1
            elif f"{attribute}-sum" in one:
                assert exact == sum(resolve(facts, path) for path in one[f"{attribute}-sum"].split())
                checked += 1
        if "data-prediction" in one:
            row, column = one["data-prediction"].split("/", 1)
            assert one["value"] == table[int(row)][column]
            checked += 1
        if "data-card" in one:
            assert exact == resolve(load(run / "model" / "card.json"), one["data-card"])
            checked += 1
        if "data-reliability" in one:
            bins, what = one["data-reliability"].split("/")
            first, last = map(int, bins.split("-"))
            parts = [part for part in metrics["trust"]["reliability"][first : last + 1] if part["count"]]
            weights = [part["count"] for part in parts]
            told = [part["accuracy" if what == "right" else what] for part in parts]
            assert sum(weights) >= 50
            assert exact == pytest.approx(np.average(told, weights=weights))
            checked += 1
        assert is_rounded(one["text"], exact), one
    assert checked == len(numbers)
    for one in page.elements:
        if "data-note" in one:
            assert one["text"] == resolve(metrics, one["data-note"])


def test_every_number_equals_the_runs_files(run: Path, page: Page) -> None:
    check_numbers(run, page)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the whole main job on drawn photos."""
    from topgraft.config import Config
    from topgraft.recipe import follow
    from topgraft.testing.drawing import draw_photos

    folder = tmp_path_factory.mktemp("real")
    photos = draw_photos(folder / "photos", 14, seed=0)
    config = Config.load(
        data__photos=str(photos),
        backbone__name=TINY,
        policies__count="2!",
        heads__names=("mean", "ridge"),
        answers__above=0.6,
    )
    return follow(config, folder / "run").path


def test_the_report_of_the_main_job(real: Path) -> None:
    page = Page((real / "report.html").read_text(encoding="utf-8"))
    check_numbers(real, page)
    sections = {one["id"] for one in page.all("section")}
    assert sections >= {
        "numbers",
        "mistakes",
        "photos",
        "looked",
        "trust",
        "heads",
        "policies",
        "health",
        "cost",
    }
    assert json.loads((real / "model" / "card.json").read_text(encoding="utf-8"))["answer_above"] == 0.6
    (chosen,) = [one for one in page.all("data") if one.get("data-metric") == "/trust/coverage/chosen/above"]
    assert chosen["text"] == "60 %"
    assert "where it looked in" in (real / "report.html").read_text(encoding="utf-8")
    card = (real / "model" / "README.md").read_text(encoding="utf-8")
    assert "licence: apache-2.0" in card.lower()


def test_a_run_whose_predictor_is_gone_has_no_activation_maps(real: Path, tmp_path: Path) -> None:
    shutil.copytree(real, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    page = Page(report(tmp_path / "run").read_text(encoding="utf-8"))
    assert "looked" not in {one["id"] for one in page.all("section")}
    assert page.id("photos")


def test_a_damaged_predictor_costs_the_maps_and_a_note(real: Path, tmp_path: Path) -> None:
    shutil.copytree(real, tmp_path / "run")
    (tmp_path / "run" / "model" / "model.onnx").write_bytes(b"not a graph")
    page = Page(report(tmp_path / "run").read_text(encoding="utf-8"))
    assert "looked" not in {one["id"] for one in page.all("section")}
    assert "The predictor cannot be asked where it looked" in page.id("health")["text"]


def test_lines_go_around_what_the_map_is_about() -> None:
    light = np.zeros((400, 600), np.float32)
    light[100:300, 60:240] = 1
    thumb = Thumb("i0", 300, 200, b"")
    drawn = outlined(Shot("a.jpg", "", "a"), thumb, light, (slice(0, 400), slice(100, 500)))
    assert drawn.box == (50, 0, 200, 200)
    wide, tight = (
        np.array([pair.split() for pair in re.split("[MLZ]+", line) if pair], float) for line in drawn.lines
    )
    for points in (wide, tight):
        centre = (points.min(axis=0) + points.max(axis=0)) / 2
        assert centre == pytest.approx([75, 100], abs=3)
    size = np.array([90, 100])  # of what the map is about, on the small photo
    assert (np.ptp(tight, axis=0) < size).all()
    assert (size < np.ptp(wide, axis=0)).all()
    assert (np.ptp(wide, axis=0) - np.ptp(tight, axis=0) < 40).all()


def test_where_nothing_stood_out_there_is_no_line() -> None:
    thumb = Thumb("i0", 30, 20, b"")
    nothing = np.zeros((40, 60), np.float32)
    assert outlined(Shot("a.jpg", "", "a"), thumb, nothing, (slice(0, 40), slice(0, 60))).lines == ["", ""]


def test_bins_of_the_reliability_diagram_hold_fifty_answers_and_all_of_them() -> None:
    rng = np.random.default_rng(0)
    for counts in rng.integers(0, 60, (200, 10)).tolist():
        given = [
            {"count": n, "confidence": (i + 0.5) / 10 if n else None, "accuracy": 0.5 if n else None}
            for i, n in enumerate(counts)
        ]
        bins = merged(given)
        assert (len(bins) == 0) == (sum(counts) < 50)
        assert all(one.count >= 50 for one in bins)
        assert len(bins) <= 5
        assert sum(one.count for one in bins) in (0, sum(counts))
        if bins:
            assert bins[0].first == 0
            assert bins[-1].last == 9
            assert all(after.first == before.last + 1 for before, after in pairwise(bins))


@pytest.mark.parametrize(("right", "word"), [(0.95, "too modest"), (0.75, ""), (0.5, "too sure of itself")])
def test_reliability_has_words_for_both_directions(right: float, word: str) -> None:
    given = [{"count": 100, "confidence": 0.75, "accuracy": right}]
    (only,) = merged(given)
    assert only.word == word
    (folded,) = merged(given, 0.65)  # out of fold an answer is worth less
    assert folded.right == wilson(65 * right, 65)


@pytest.mark.shared
@pytest.mark.nightly
def test_the_report_of_real_photos(shared: Path, tmp_path: Path) -> None:
    from topgraft.config import Config
    from topgraft.recipe import follow

    config = Config.load(data__photos=str(shared / "data" / "sushi_sandwich"))
    run = follow(config, tmp_path / "run").path
    text = (run / "report.html").read_text(encoding="utf-8")
    check_numbers(run, Page(text))
    assert len(text) < 1_500_000


def test_no_number_stands_outside_its_element(page: Page) -> None:
    """A digit in running text is inside `<data>`; the rest is plots, names, code and the interval's 95."""
    apart = {"data", "svg", "code", "style", "script", "title", "pre"}
    known = re.compile(r"95 %|95 of 100|F1|Top \d|0 is (chance|perfect)|0\.5 is chance|1 perfect|holds 0 ")
    names = {"C=0.01", "alpha=10", "alpha=100", "k=5"}  # head settings
    for tags, text in page.loose:
        if apart & set(tags) or text.strip() in names:
            continue
        rest = known.sub("", text)
        rest = re.sub(r"(sandwich|sushi)/\d+\.jpg", "", rest)
        rest = re.sub(r"\w+\(\S+\)", "", rest)
        rest = re.sub(r"tf_efficientnet_lite0.in1k|Topgraft \d\.\d\.\d", "", rest)
        rest = re.sub(COUNTED, "", rest)
        assert not re.search(r"\d", rest) or tags[-1] in ("dd", "summary", "a"), (tags, text)


def test_the_page_stands_alone(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["'](?!#|data:)[^"']*""", text)
    assert "url(" not in text
    assert "@import" not in text
    assert str(run) not in text.split("<pre")[0]  # no path of this machine but in the command


def test_sections_headings_and_names(page: Page) -> None:
    sections = [one["id"] for one in page.all("section") if one.get("class") != "cell"]
    assert sections == [
        "mistakes",
        "photos",
        "classes",
        "trust",
        "numbers",
        "heads",
        "learning",
        "policies",
        "health",
        "cost",
        "repeat",
    ]
    levels = [int(one["tag"][1]) for one in page.elements if re.fullmatch(r"h[1-6]", one["tag"])]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [one["id"] for one in page.elements if "id" in one]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link["href"][1:] in ids
    for picture in page.all("svg"):
        assert picture.get("aria-hidden") == "true" or picture.get("aria-label")
    for head in page.all("th"):
        assert head.get("scope") in ("row", "col")


def test_a_cell_opens_all_its_photos(run: Path, page: Page) -> None:
    rows = Run.open(run).read_table("predictions.csv")
    text = (run / "report.html").read_text(encoding="utf-8")
    classes = ["sandwich", "sushi"]
    wrong = [row for row in rows if row["label"] != row["predicted"]]
    assert len(wrong) >= 3
    for row in wrong:
        anchor = f"{row['split']}-{classes.index(row['label'])}-{classes.index(row['predicted'])}"
        cell = re.search(rf'<section class="cell" id="{anchor}".*?</section>', text, re.DOTALL)
        assert cell
        assert f'aria-label="{row["id"]}: {row["label"]} taken for {row["predicted"]}' in cell[0]


def test_each_photo_is_in_the_page_once(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    images = re.findall(r'href="(data:image/webp[^"]+)"', text)
    assert len(images) > 20
    assert len(images) == len(set(images))


def test_photos_that_are_gone_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", logger="topgraft")  # a library beside may have made the root logger deaf
    folder = write_run(tmp_path / "run", photos=30, with_photos=False, policies=POLICIES)
    text = report(folder).read_text(encoding="utf-8")
    said = re.search(r"\d+ photos cannot be read any more where they were \(first: s\w+/\d+\.jpg\)", text)
    assert said
    assert [line for line in caplog.messages if said[0] in line]
    assert "data:image/webp" not in text


def test_a_photo_without_room_is_counted_once_and_comes_in_where_it_is_small_enough(tmp_path: Path) -> None:
    names = ["0.png", "1.png", "2.png"]
    for i, name in enumerate(names):  # noise is large
        noise = np.random.default_rng(i).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
    probe = Book(Origin(str(tmp_path)), 10**6, threads=1)
    probe.take(names[:1], 300)
    book = Book(Origin(str(tmp_path)), 10**6 - probe.left + LEAST, threads=1)  # room for one, and to try more
    for _ in range(3):
        book.take(names, 300)
    assert book.full == set(names[1:])
    book.take(names[1:2], 8)
    assert book.has(names[1])
    assert book.full == {names[2]}


def test_without_a_test_split_cross_validation_speaks(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", photos=40, test=0, curves=False)
    page = Page(report(folder).read_text(encoding="utf-8"))
    first = next(one for one in page.all("p") if "It named" in one["text"])["text"]
    assert "each judged by a version of it that had not seen that photo" in first
    assert all(not one.get("data-metric", "").startswith("/test") for one in page.all("data"))


@pytest.mark.parametrize(
    ("kept", "ends"), [(4, "4 of each are learned from."), (0, "photos are learned from as they are.")]
)
def test_what_views_brought_is_a_sentence_beside_the_sheet(tmp_path: Path, kept: int, ends: str) -> None:
    folder = write_run(tmp_path / "run", photos=30, policies=POLICIES)
    facts = json.loads((folder / "metrics.json").read_text("utf-8"))
    gaps = [{"value": by, "low": by - 0.05, "high": by + 0.05} for by in (-0.123, 0.045)]
    facts["worth"] = None  # which would be said instead
    facts["views"] = {
        "view_0": {"log_loss": 0.5, "accuracy": 0.8},
        "steps": [
            {
                "policies": n,
                "log_loss": 0.5 + gap["value"],
                "accuracy": 0.8,
                "difference": gap,
                "pays": n <= kept,
            }
            for n, gap in zip((4, 16), gaps, strict=True)
        ],
        "kept": kept,
    }
    (folder / "metrics.json").write_text(json.dumps(facts), "utf-8")
    page = Page(report(folder).read_text("utf-8"))
    said = next(one["text"] for one in page.all("p") if "Out of fold," in one["text"])
    assert "4 views of each photo changed the log loss by −0.12" in said
    assert "then 16 by +0.04" in said
    assert ends in said


def test_a_perfect_result_is_not_called_perfect(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", photos=40, skill=60, with_photos=False)
    assert "which does not mean that it never will" in report(folder).read_text(encoding="utf-8")


def test_names_with_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", photos=30, classes=("<b>x</b>", 'a "&" ~ b'), with_photos=False)
    text = report(folder).read_text(encoding="utf-8")
    assert "<b>x</b>" not in text
    page = Page(text)
    assert any(one["text"] == "<b>x</b>" for one in page.all("th"))
    paths = [one["data-metric"] for one in page.all("data") if "data-metric" in one]
    assert any('a "&" ~0 b' in path for path in paths)


def test_data_health_is_told(tmp_path: Path) -> None:
    health = {
        "warnings": ["2 unreadable files are left out."],
        "refused": [{"id": "sushi/bad.jpg", "reason": "is empty (0 bytes)"}],
        "cross_class_duplicates": [["sushi/0001.jpg", "sandwich/0009.jpg"]],
        "duplicates": [["sushi/0001.jpg", "sushi/0002.jpg"]],
        "leaks": [["sushi/0003.jpg", "sushi/0004.jpg"]],
        "odd_sizes": [{"id": "sushi/0005.jpg", "width": 20, "height": 900}],
    }
    folder = write_run(tmp_path / "run", photos=30, with_photos=False, health=health)
    page = Page(report(folder).read_text(encoding="utf-8"))
    said = page.id("health")["text"]
    for words in (
        "2 unreadable files",
        "sushi/bad.jpg: is empty",
        "sushi/0001.jpg, sandwich/0009.jpg",
        "20 × 900 px",
    ):
        assert words in said
    assert "1 warning" in page.id("result")["text"]


def test_five_hundred_photos_fit_in_1500_kilobytes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", photos=500, skill=1.0, policies=POLICIES)
    size = report(folder).stat().st_size
    assert 600_000 < size < 1_500_000


@pytest.mark.nightly
def test_ten_thousand_photos_of_many_classes_fit_in_four_megabytes(tmp_path: Path) -> None:
    classes = [f"class {i}" for i in range(102)]
    folder = write_run(tmp_path / "run", photos=10_000, skill=2.5, classes=classes, policies=POLICIES)
    path = report(folder)
    assert path.stat().st_size < 4_000_000
    assert "A sample of the photos is shown, so that this page stays small" in path.read_text(
        encoding="utf-8"
    )


def test_many_classes_list_their_most_frequent_mistakes(tmp_path: Path) -> None:
    classes = [f"class {i}" for i in range(24)]
    folder = write_run(tmp_path / "run", photos=240, skill=1.5, classes=classes, with_photos=False)
    page = Page(report(folder).read_text(encoding="utf-8"))
    assert not any("confusion" in one.get("class", "") for one in page.all("table"))
    facts = load(folder / "metrics.json")
    table = np.array(facts["test"]["confusion"])
    np.fill_diagonal(table, 0)
    listed = [one for one in page.all("data") if one.get("data-metric", "").startswith("/test/confusion/")]
    assert sum(json.loads(one["value"]) for one in listed) >= table.sum()
    assert "of the 5 classes with the smallest area" in page.id("numbers")["text"]


def test_a_bare_run_still_has_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", photos=30, with_photos=False)
    for name in ("health.json", "timings.json", "versions.json", "curves.json", "config.toml"):
        (folder / name).unlink()
    page = Page(report(folder).read_text(encoding="utf-8"))
    sections = [one["id"] for one in page.all("section") if one.get("class") != "cell"]
    assert sections == ["mistakes", "photos", "classes", "trust", "numbers", "heads", "repeat"]


def test_no_run_no_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a run made by"):
        report(tmp_path)


def test_pointers_lead_to_any_key() -> None:
    facts = {"a/b": {"~x": [1, {"": 2}]}}
    assert resolve(facts, pointer("a/b", "~x", 0)) == 1
    assert resolve(facts, pointer("a/b", "~x", 1, "")) == 2


@pytest.mark.parametrize(
    ("value", "style", "fine", "text"),
    [
        (0.90625, "percent", True, "90.6 %"),
        (0.90625, "percent", False, "91 %"),
        (0.90625, "share", True, "90.6"),
        (0.90625, "share", False, "91"),
        (0.978, "whole", True, "98 %"),
        (0.9967, "whole", True, "> 99 %"),
        (0.001, "whole", True, "< 1 %"),
        (1.0, "percent", False, "100 %"),
        (-0.0254, "signed", True, "−0.025"),
        (0.0254, "signed", False, "+0.03"),
        (4.26, "point", True, "+4.3"),
        (-0.0004, "signed", False, "0.00"),
        (4.26, "point", False, "+4"),
        (12345, "count", True, "12\u202f345"),
        (0.1234, "fixed", True, "0.123"),
        (0.1234, "fixed", False, "0.12"),
        (0.0041, "fixed", False, "0.004"),
        (0.00012, "fixed", True, "1.2e-04"),
        (0, "fixed", True, "0.000"),
        (3.14, "seconds", True, "3.1 s"),
        (180.0, "seconds", True, "3.0 min"),
        (None, "percent", True, "–"),
    ],
)
def test_numbers_are_written_for_people(value: float | None, style: Any, fine: bool, text: str) -> None:
    assert written(value, style, fine=fine) == text
    assert is_rounded(text, value)


def test_few_photos_carry_no_decimals_and_their_interval_is_as_loud(tmp_path: Path) -> None:
    few = write_run(tmp_path / "few", photos=60, with_photos=False)
    text = report(few).read_text(encoding="utf-8")
    page = Page(text)
    loud = [one for one in page.all("b") if "%" in one["text"]]
    assert len(loud) == 2  # the number and its interval
    shown = [one for one in page.all("data") if one.get("data-metric", "").startswith("/test/accuracy/")]
    assert shown
    assert not any("." in one["text"] for one in shown)


def test_a_number_that_may_be_chance_is_not_green(tmp_path: Path) -> None:
    for skill, chance in ((0.0, True), (6.0, False)):
        run = write_run(tmp_path / str(skill), photos=80, skill=skill, with_photos=False)
        page = Page(report(run).read_text(encoding="utf-8"))
        (score,) = (one for one in page.all("div") if "score" in one.get("class", "").split())
        assert ("chance" in score["class"].split()) is chance
        assert ("which may be chance" in score["text"]) is chance


def test_test_and_cross_validation_are_two_marks_on_one_scale(page: Page) -> None:
    (drawn,) = (one for one in page.all("svg") if "the largest class is" in one.get("aria-label", ""))
    for name in ("Held-out test", "Cross-validation"):
        assert re.search(rf"{name} \d+ %, between \d+ and \d+ %; ", drawn["aria-label"])


def test_zeros_are_not_written_and_the_rest_of_the_matrix_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", photos=120, classes=list("abcdefgh"), skill=3, with_photos=False)
    page = Page(report(run).read_text(encoding="utf-8"))
    for key in ("test", "cross_validation"):
        table = np.array(load(run / "metrics.json")[key]["confusion"])
        at = {
            one["data-metric"]: json.loads(one["value"])
            for one in page.all("data")
            if one.get("data-metric", "").startswith(f"/{key}/confusion/")
        }
        assert 0 not in at.values()
        assert sum(at.values()) == table.sum()


def test_a_photo_is_shown_in_one_gallery_and_linked_from_the_others(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    section = re.search(r'<section id="photos".*?</section>', text, re.DOTALL)
    assert section
    shown = re.findall(r'<a class="photo" href="(#photo-\d+)"><svg', section[0])
    linked = re.findall(r'<a class="photo" href="(#photo-\d+)">[^<]', section[0])
    assert len(shown) == len(set(shown)) > 5
    assert linked
    assert set(linked) <= set(shown)


def test_sure_means_sure(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", photos=120, skill=2.0, with_photos=False)
    page = Page(report(run).read_text(encoding="utf-8"))
    wrong = [row for row in Run.open(run).read_table("predictions.csv") if row["label"] != row["predicted"]]
    sure = [row for row in wrong if float(row["probability"]) >= 0.9]
    assert 0 < len(sure) < len(wrong)
    heads = [one["text"] for one in page.all("h3")]
    assert "Sure and wrong" in heads
    # without a picture, every photo of a gallery is named in its text
    gallery = re.search(
        r"Sure and wrong.*?Without a picture:(.*?)(?:Likely|Unlike|Least)",
        page.id("photos")["text"],
        re.DOTALL,
    )
    assert gallery
    named = re.findall(r"(?:sushi|sandwich)/\d+\.jpg", gallery[1])
    assert len(named) > 0
    assert set(named) <= {row["id"] for row in sure}


def test_classes_come_worst_first_with_both_measurements(page: Page, run: Path) -> None:
    scores = load(run / "metrics.json")["cross_validation"]["per_class"]
    worst_first = sorted(scores, key=lambda name: scores[name]["recall"]["value"])
    found = [
        one["data-metric"].split("/")[3]
        for one in page.all("data")
        if re.fullmatch(r"/cross_validation/per_class/\w+/recall/value", one.get("data-metric", ""))
    ]
    assert found == worst_first
    assert any(
        one.get("data-metric", "") == f"/test/per_class/{worst_first[0]}/recall/value"
        for one in page.all("data")
    )


def test_rows_that_say_the_same_are_folded(tmp_path: Path) -> None:
    even = write_run(tmp_path / "even", photos=400, skill=3, test=0, with_photos=False)
    text = report(even).read_text(encoding="utf-8")
    numbers = text[text.index('<section id="numbers"') :]
    assert numbers.index("Log loss") < numbers.index("<details") < numbers.index("Balanced accuracy")


def test_how_to_repeat_it_is_a_command_that_works_where_it_is_pasted(real: Path) -> None:
    import shlex

    page = Page((real / "report.html").read_text(encoding="utf-8"))
    command = next(one for one in page.all("pre") if one.get("aria-label") == "Command")["text"].strip()
    program, verb, photos, *options = shlex.split(command)
    assert (program, verb) == ("topgraft", "train")
    told = dict(zip(options[::2], options[1::2], strict=True))
    assert Path(photos).is_absolute()
    assert Path(photos).is_dir()
    assert Path(told["--config"]).is_absolute()
    assert Path(told["--config"]).read_bytes() == (real / "config.toml").read_bytes()
    assert not Path(told["-o"]).exists()


@pytest.mark.nightly
def test_the_command_that_repeats_it_gives_the_same_bytes(real: Path) -> None:
    import shlex

    from typer.testing import CliRunner

    from topgraft.cli import app

    page = Page((real / "report.html").read_text(encoding="utf-8"))
    command = next(one for one in page.all("pre") if one.get("aria-label") == "Command")["text"].strip()
    _, *words = shlex.split(command)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    again = Path(words[-1])
    assert (again / "metrics.json").read_bytes() == (real / "metrics.json").read_bytes()


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(1, 10) == [2, 4, 6, 8, 10]
    assert ticks(0, 0.00093) == [0, 0.0002, 0.0004, 0.0006, 0.0008]
    assert ticks(3, 3) == [3]


def test_plots_keep_their_ends_and_stay_inside() -> None:
    points = [(i / 999, (i / 999) ** 2) for i in range(1000)]
    few = thin(points)
    assert len(few) <= 160
    assert (few[0], few[-1]) == (points[0], points[-1])
    plot = Plot("t", (0, 1), (0, 1), "x", "y")
    plot.line(points)
    drawn = re.search(r'points="([^"]+)"', str(plot.__html__()))
    assert drawn
    places = np.array([pair.split(",") for pair in drawn[1].split()], float)
    assert places[:, 0].min() >= 0
    assert places[:, 0].max() <= plot.width
    assert places[:, 1].min() >= 0
    assert places[:, 1].max() <= plot.height


def test_runs_side_by_side(tmp_path: Path) -> None:
    """Numbers come from each run's own file, differences from the photos they share."""
    weak = write_run(tmp_path / "weak", photos=80, skill=0.3, photo_folder=tmp_path / "photos")
    strong = write_run(tmp_path / "strong", photos=80, skill=6, photo_folder=tmp_path / "photos")
    path = report([weak, strong])
    assert path == weak / "compare.html"
    page = Page(path.read_text(encoding="utf-8"))
    metrics = [load(weak / "metrics.json"), load(strong / "metrics.json")]
    numbers = [one for one in page.all("data") if "data-metric" in one]
    assert {one["data-run"] for one in numbers} == {"0", "1"}
    for one in numbers:
        exact = json.loads(one["value"])
        assert exact == resolve(metrics[int(one["data-run"])], one["data-metric"])
        assert is_rounded(one["text"], exact)
    gap = {one["data-gap"]: one for one in page.all("data") if "data-gap" in one}
    for split, key in (("test", "test"), ("cv", "cross_validation")):
        for measure, name in (("accuracy", "accuracy"), ("loss", "log_loss")):
            shown = gap[f"{split}/strong/{measure}/value"]
            first, second = (one[key][name]["value"] for one in metrics)
            assert json.loads(shown["value"]) == pytest.approx(second - first)
            assert is_rounded(shown["text"], json.loads(shown["value"]))
    assert any(one["text"] == "more accurate, lower log loss" for one in page.all("td"))
    first = next(one["text"] for one in page.all("p") if "photos right than" in one["text"])
    assert first.startswith("strong names more photos right than weak: +")
    assert page.all("p").index(next(one for one in page.all("p") if one["text"] == first)) == 1


def test_runs_side_by_side_show_what_they_disagree_on(tmp_path: Path) -> None:
    weak = write_run(tmp_path / "weak", photos=60, skill=0.3, photo_folder=tmp_path / "photos")
    strong = write_run(tmp_path / "strong", photos=60, skill=6, photo_folder=tmp_path / "photos")
    report(strong)
    text = report([weak, strong]).read_text(encoding="utf-8")
    tables = [
        {row["id"]: row for row in Run.open(run).read_table("predictions.csv")} for run in (weak, strong)
    ]
    apart = [name for name, row in tables[0].items() if row["predicted"] != tables[1][name]["predicted"]]
    alts = re.findall(r'aria-label="(\w+/\d+\.jpg): (\w+); weak says (\w+); strong says (\w+)"', text)
    assert 5 < len(alts) <= 24
    for name, label, ours, theirs in alts:
        assert name in apart
        assert (label, ours) == (tables[0][name]["label"], tables[0][name]["predicted"])
        assert theirs == tables[1][name]["predicted"]
    assert '<a href="../strong/report.html">strong</a>' in text
    assert "weak (none yet" in text


@pytest.mark.parametrize(
    ("confusion", "said"),
    [
        (
            [[13, 2], [2, 15]],
            "It takes sandwich for sushi (2 of 15) as often as sushi for sandwich (2 of 17);",
        ),
        ([[13, 2], [3, 14]], "Its most frequent mistake is to take sushi for sandwich (3 of 17);"),
        ([[15, 0], [0, 17]], "It made no mistake here"),
    ],
)
def test_the_most_frequent_mistake_is_named_unless_it_is_none(tmp_path: Path, confusion, said) -> None:
    run = write_run(tmp_path / "run", photos=40, with_photos=False)
    facts, believed = load(run / "metrics.json"), Run.open(run).metrics.believed.key
    facts[believed]["confusion"] = confusion
    for name, row in zip(("sandwich", "sushi"), confusion, strict=True):
        facts[believed]["per_class"][name]["support"] = sum(row)
    (run / "metrics.json").write_text(json.dumps(facts), encoding="utf-8")
    assert said in Page(report(run).read_text(encoding="utf-8")).id("result")["text"]


def test_a_run_cannot_be_told_apart_from_itself(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", photos=40, with_photos=False)
    text = report([run, run], out=tmp_path / "page.html").read_text(encoding="utf-8")
    assert "cannot be told apart from the first" in text
    assert not (run / "compare.html").exists()


def test_photos_that_two_runs_learned_by_other_labels_are_not_compared(tmp_path: Path) -> None:
    """After a review the corrected run was judged by the labels that were wrong."""
    one, other = (write_run(tmp_path / name, photos=40, with_photos=False) for name in ("one", "other"))
    table = (other / "predictions.csv").read_text(encoding="utf-8").splitlines()
    place = next(i for i, line in enumerate(table) if ",cv," in line)
    cells = table[place].split(",")
    cells[6] = {"sushi": "sandwich", "sandwich": "sushi"}[cells[6]]
    table[place] = ",".join(cells)
    (other / "predictions.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    (compared,) = re.findall(
        r'<data value="(\d+)" data-gap="cv/other/photos">', report([one, other]).read_text(encoding="utf-8")
    )
    assert int(compared) == sum(",cv," in line for line in table) - 1


def test_runs_of_other_classes_are_not_compared_photo_by_photo(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", photos=40, with_photos=False)
    other = write_run(tmp_path / "other", photos=40, classes=("a", "b"), with_photos=False)
    assert "share no photos and classes" in report([one, other]).read_text(encoding="utf-8")


def test_a_run_that_knows_a_class_more_is_compared_on_the_classes_that_both_know(tmp_path: Path) -> None:
    few = write_run(tmp_path / "few", photos=60, with_photos=False)
    more = write_run(tmp_path / "more", photos=90, classes=("ant", "sandwich", "sushi"), with_photos=False)
    ours, theirs = (Run.open(run).read_table("predictions.csv") for run in (few, more))
    of_both = [row for row in theirs if row["label"] != "ant"]
    for row, like in zip(of_both, ours, strict=True):  # the same photos on the same sides
        row |= {key: like[key] for key in ("id", "digest", "pixels", "split", "fold", "label")}
    with (more / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, theirs[0], lineterminator="\n")
        table.writeheader()
        table.writerows(theirs)
    page = Page(report([few, more]).read_text(encoding="utf-8"))
    gap = {one["data-gap"]: json.loads(one["value"]) for one in page.all("data") if "data-gap" in one}
    photos = [(a, b) for a, b in zip(ours, of_both, strict=True) if a["split"] == "cv"]
    assert gap["cv/more/photos"] == len(photos) == 48
    right = np.array([[row["label"] == row["predicted"] for row in both] for both in photos], float)
    assert gap["cv/more/accuracy/value"] == pytest.approx(np.diff(right.mean(axis=0))[0])
    probability = np.array([[float(row[f"p_{row['label']}"]) for row in both] for both in photos])
    lost = -np.log(np.maximum(probability, 5e-7)).mean(axis=0)
    assert gap["cv/more/loss/value"] == pytest.approx(np.diff(lost)[0])
    verdict = next(one["text"] for one in page.all("p") if "both answered for (" in one["text"])
    assert "those of classes that both know" in verdict
    assert verdict.endswith("more knows ant besides.")
    said = [one["text"] for one in page.all("figcaption")]
    assert any("more: ✗ ant" in one for one in said)
    assert not any(one.startswith("ant") for one in said)


@pytest.mark.parametrize(("height", "width"), [(512, 512), (300, 900), (900, 300), (20, 20)])
def test_what_is_shown_of_a_photo_is_what_the_fit_keeps(height: int, width: int) -> None:
    card = Card(name="c", input_size=(224, 224), crop_fraction=0.875, mean=(0,) * 3, std=(1,) * 3, features=1)
    rows, columns = kept(height, width, card)
    side = 0.875 * min(height, width)
    assert rows.stop - rows.start == pytest.approx(side, abs=2)
    assert columns.stop - columns.start == pytest.approx(side, abs=2)
    assert (rows.start + rows.stop) / 2 == pytest.approx(height / 2, abs=2)
    assert (columns.start + columns.stop) / 2 == pytest.approx(width / 2, abs=2)


def test_the_command_writes_one_report_each_or_one_for_all(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from topgraft.cli import app
    from topgraft.errors import UsageError

    runs = [str(write_run(tmp_path / name, photos=30, with_photos=False)) for name in ("a", "b")]
    each = CliRunner().invoke(app, ["report", *runs])
    assert each.stdout.split() == [f"{run}/report.html" for run in runs]
    together = CliRunner().invoke(app, ["report", *runs, "--compare", "-o", str(tmp_path / "both.html")])
    assert together.stdout.split() == [str(tmp_path / "both.html")]
    assert "<h1>a, b</h1>" in (tmp_path / "both.html").read_text(encoding="utf-8")
    wrong = CliRunner().invoke(app, ["report", *runs, "-o", str(tmp_path / "x.html")])
    assert isinstance(wrong.exception, UsageError)


def test_a_page_with_photos_is_not_replaced_by_one_without(tmp_path):
    run = write_run(tmp_path / "run", photos=12)
    page = report(run)
    before = page.read_bytes()
    assert b"data:image/webp" in before
    photos = tmp_path / "run-photos"
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"report\.html: shows photos, and none can be read now.*--photos"):
        report(run)
    assert page.read_bytes() == before
    assert b"data:image/webp" not in report(run, out=tmp_path / "poor.html").read_bytes()
    assert report(run, photos=tmp_path / "elsewhere").read_bytes().count(b"data:image/webp") > 0


def test_the_page_lets_nothing_in_but_its_own_script(tmp_path):
    text = report(write_run(tmp_path / "run", photos=12)).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert html.unescape(policy) == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
        f" script-src 'sha256-{own}'; base-uri 'none'; form-action 'none'"
    )


@pytest.mark.parametrize(("photos", "skill"), [(60, 1.5), (400, 1.5)])
def test_a_small_test_is_no_headline_and_a_sentence_says_which_number_to_believe(
    photos: int, skill: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run", photos=photos, skill=skill, with_photos=False)
    report(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    run = Run.open(folder)
    first, scores = run.metrics.believed, load(folder / "metrics.json")
    print_verdict(run)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith({"test": "held-out test", "cross_validation": "cross-validated"}[first.key])
    sentences = [line for line in said if line.startswith("Believe the ")]
    assert len(sentences) == bool(first.why) == (scores["test"]["n"] < 50)
    assert ("Believe the " in text) == bool(sentences)
    if sentences:
        ours, theirs = (scores[key]["accuracy"] for key in (first.key, first.other))
        assert ours["high"] - ours["low"] <= theirs["high"] - theirs["low"]
