"""The notebooks are what `notebooks/walk.py` makes, small, executed, and run from top to bottom."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat and nbclient, of the dev group")

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = ["mobilenet", "resnet50", "inception_v3"]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    found = importlib.util.spec_from_file_location("notebooks_make", FOLDER / "make.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_the_walk_makes_with_all_its_outputs(maker: ModuleType, name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < 500_000
    kept, made = nbformat.read(path, as_version=4), maker.make(name)
    nbformat.validate(kept)
    assert [cell.source for cell in kept.cells] == [cell.source for cell in made.cells]
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum("image/jpeg" in one.get("data", {}) for cell in code for one in cell.outputs) == 2
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/tmp/|/home/|/root/|Traceback", text)


@pytest.mark.parametrize("name", ["resnet50", "inception_v3"])
def test_random_weights_are_called_random(name: str) -> None:
    kept = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert any("**These weights are random.**" in cell.source for cell in kept.cells)


@pytest.mark.timm
@pytest.mark.nightly  # and in CI, by `make notebooks`
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_top_to_bottom(maker: ModuleType, name: str) -> None:
    done = maker.execute(maker.make(name, each=8))
    last = [cell for cell in done.cells if cell.cell_type == "code"][-1]
    assert last.outputs[0].text == "report.html is smaller than 1.5 MB: True\n"
