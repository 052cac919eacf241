"""What a console and a notebook show of Topgraft's things, and how far it is while it works."""

from __future__ import annotations

import pickle
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import topgraft as tg
from run_folder import draw_photos, load, write_run
from topgraft import progress
from topgraft.errors import MissingPandasError
from topgraft.predictor import COLUMNS, Predictions
from topgraft.run.evaluation import Evaluation, Result, Shown
from topgraft.run.origin import Origin
from topgraft.selection.compare import compare
from topgraft.show import print_comparison
from topgraft.types import auto, silent


class Cells(HTMLParser):
    """Reads the cells of a table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.said.append(data)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tg.Dataset:
    folder = tmp_path_factory.mktemp("shown") / "photos"
    draw_photos(folder, [f"{name}/{i}.jpg" for name in ("<b>", "sushi") for i in range(5)], side=60)
    return tg.Dataset.from_folder(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tg.Run:
    return tg.Run.open(write_run(tmp_path_factory.mktemp("shown") / "run", photos=30, with_photos=False))


def test_a_dataset_is_short_and_shows_its_classes(data: tg.Dataset) -> None:
    assert repr(data) == f"Dataset({data.place!r}: 10 photos of 2 classes)"
    cells = Cells(data._repr_html_())
    assert "<b> 5, sushi 5" in cells.said
    assert "b" not in cells.tags
    table = data.to_frame()
    assert table["id"].tolist() == [sample.id for sample in data.samples]
    assert table["label"].value_counts().to_dict() == {"<b>": 5, "sushi": 5}


def test_a_split_is_short_and_a_frame_holds_every_photo_once(data: tg.Dataset) -> None:
    sides = tg.split(data, test=0.2, seed=0)
    assert repr(sides) == f"Split({len(sides.train)} train, {len(sides.test)} test)"
    assert repr(tg.Split(())) == "Split(empty)"
    table = sides.to_frame()
    assert sorted(table["id"]) == sorted(sample.id for sample in data.samples)
    assert set(table.loc[table["side"] == "test", "id"]) == set(sides.test)
    assert f"{len(sides.test)} photos" in Cells(sides._repr_html_()).said


def test_a_run_shows_the_numbers_that_count(run: tg.Run, tmp_path: Path) -> None:
    assert repr(run) == f"Run({str(run.path)!r})"
    accuracy = load(run.path / "metrics.json")["test"]["accuracy"]
    assert any(
        f"{accuracy['value']:.3f} [{accuracy['low']:.2f}" in said for said in Cells(run._repr_html_()).said
    )
    table = run.to_frame()
    assert len(table) == 30
    right = table[table["split"] == "test"].eval("label == predicted").mean()
    assert right == pytest.approx(accuracy["value"])
    assert table[["p_sandwich", "p_sushi"]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert "not finished" in tg.Run.create(tmp_path / "new")._repr_html_()


def test_predictions_are_a_list_a_table_and_a_frame() -> None:
    said = Predictions(
        [
            tg.Prediction("sushi", 0.98765, probabilities={"sushi": 0.98765, "<i>": 0.01235}, path="a.jpg"),
            tg.Prediction("sushi", 0.6, probabilities={"sushi": 0.6, "<i>": 0.4}, unsure=True, path="b.jpg"),
            tg.Prediction("sushi", 0.9, unknown=True, probabilities={"sushi": 0.9, "<i>": 0.1}, path="c.jpg"),
            tg.Prediction(path="d.jpg", error="d.jpg: is empty (0 bytes)"),
        ]
    )
    assert repr(said[0]) == "Prediction(label='sushi', probability=0.988, unknown=False)"
    assert repr(said[1]) == "Prediction(label='sushi', probability=0.6, unknown=False, unsure=True)"
    assert repr(said[3]) == "Prediction(path='d.jpg', error='d.jpg: is empty (0 bytes)')"
    assert pickle.loads(pickle.dumps(said)) == said
    cells = Cells(said._repr_html_())
    assert "i" not in cells.tags
    for word in ("unsure", "unknown", "d.jpg: is empty (0 bytes)", "<i>", "4 predictions"):
        assert word in cells.said
    table = said.to_frame()
    assert tuple(table.columns) == COLUMNS
    assert table["answer"].tolist() == ["sushi", "", "", ""]
    assert table["error"].tolist() == ["", "", "", "d.jpg: is empty (0 bytes)"]


def test_long_tables_say_how_much_they_leave_out() -> None:
    many = Predictions(
        [tg.Prediction("a", 1.0, probabilities={"a": 1.0}, path=f"{i}.jpg") for i in range(30)]
    )
    cells = Cells(many._repr_html_())
    assert "and 10 more" in cells.said
    assert len(many.to_frame()) == 30


def test_an_evaluation_is_short_and_flat(run: tg.Run) -> None:
    scores = load(run.path / "metrics.json")["test"]
    found = Evaluation(
        ("a", "b"),
        (Result("first", scores),),
        ensembles=(),
        strangers={},
        strange=0,
        flagged=0,
        refused=(),
        notes=("A <note>.",),
        trust={},
        harder=None,
        tta=None,
        shown=Shown((run,), {}, ("a", "b"), Origin(""), "", ()),
    )
    assert repr(found).startswith(f"Evaluation(accuracy {scores['accuracy']['value']:.3f} [")
    assert "A <note>." in Cells(found._repr_html_()).said
    (row,) = found.to_frame().to_dict("records")
    assert row["name"] == "first"
    assert row["accuracy"] == scores["accuracy"]["value"]
    assert row["log_loss_high"] == scores["log_loss"]["high"]


def test_a_frame_without_pandas_says_what_to_install(run: tg.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPandasError, match=r"^a data frame needs pandas: pip install pandas$"):
        run.to_frame()


def test_silent_where_nobody_watches_and_as_told_where_the_caller_says() -> None:
    with progress.shown(auto) as tell:
        assert tell is silent
    heard = []
    with progress.shown(lambda *said: heard.append(said)) as tell:
        tell("embed", 1, 2)
    assert heard == [("embed", 1, 2)]


def test_a_stage_is_handed_what_its_caller_gave(data: tg.Dataset) -> None:
    heard: list[tuple[str, int, int]] = []
    tg.Dataset.from_folder(data.root, progress=lambda *said: heard.append(said))
    assert heard[-1][1:] == (10, 10)


def test_bars_on_a_terminal_and_none_within_one_that_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(force_terminal=True, width=80, record=True, stderr=True)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    with progress.shown(auto) as tell:
        assert tell is not silent
        with progress.shown(auto) as within:
            assert within is silent
    with progress.bars(lambda: console, patience_s=0) as tell:
        tell("embed photos", 0, 3)
        tell("embed photos", 1, 3)
        tell("embed photos", 2, 3)
    assert "embed photos" in console.export_text()
    with progress.shown(auto) as tell:  # the first one let go of it
        assert tell is not silent


def test_a_cell_of_a_notebook_shows_a_line_and_takes_it_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setattr(progress, "OFTEN_S", 0)
    InteractiveShell.instance()
    try:
        with capture_output() as captured, progress.in_cell(patience_s=0) as tell:
            tell("embed <photos>", 1, 3)
            tell("embed <photos>", 2, 3)
    finally:
        InteractiveShell.clear_instance()
    shown = [output.data["text/html"] for output in captured.outputs]
    assert [Cells(html).said for html in shown] == [
        [" embed <photos>: 1 of 3"],
        [" embed <photos>: 2 of 3"],
        [],
    ]


def test_a_comparison_is_a_table_with_the_mean_of_heads_in_it(capsys) -> None:
    dice = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20)
    rows = dice.normal(size=(40, 12)).astype(np.float32) + labels[:, None]
    found = compare(rows[None], labels, np.arange(40), heads="linear", folds=4)
    print_comparison(found)
    head, *lines = capsys.readouterr().out.splitlines()
    table = [line for line in (head, *lines) if line.strip()]
    assert any("average" in line for line in table)
    assert any("strength=" in line and "ridge" in line for line in table)
    assert f"{len(found.rows)} head settings x 4 folds x 1 repeats. Chosen: {found.chosen}" in lines[-1]
