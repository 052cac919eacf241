"""Every promise in docs/reliability.md names tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
FILES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py")}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\btest_\w+\.py", PAGE))))
def test_its_files_are_there(name):
    assert name in FILES


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\btest_\w+\b(?!\.py)", PAGE))))
def test_its_tests_are_there(name):
    assert any(f"def {name}(" in text for text in FILES.values())


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("reliability.md", "Run models only from people you trust"),
        ("predictor.md", "Load predictors only from people you trust"),
        ("backbones.md", "take graphs only from people you trust"),
    ],
)
def test_that_a_graph_is_a_program_is_said_where_graphs_are_loaded(page, said):
    assert said in " ".join((ROOT / "docs" / page).read_text(encoding="utf-8").split())
