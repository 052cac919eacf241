"""Generated pages are what the code makes now: `make pages` writes them."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")


def tool(name):
    found = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages():
    return tool("pages")


def test_the_page_of_commands_is_what_help_says(pages):
    kept = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    made = pages.cli_page()
    # Verb by verb, so that the one that differs is named.
    differ = [part.split()[0] for part in made.split("\n## ") if part not in kept.split("\n## ")]
    assert kept == made, f"differs at {', '.join(differ)}: run `make pages`"


def test_help_does_not_depend_on_the_terminal(pages, monkeypatch):
    before = pages.cli_page()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "10")
    assert pages.cli_page() == before


def test_every_verb_has_its_help(pages):
    for verb, command in pages.commands().items():
        text = pages.help_of(command, f"topgraft {verb}")
        assert text.startswith(f"Usage: topgraft {verb} ")
        options = [name for option in command.params for name in option.opts if name.startswith("--")]
        assert all(name in text for name in options), verb


def test_the_table_of_choices_is_that_of_the_code(pages):
    kept = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert kept == pages.with_choices(kept), "run `make pages`"
    assert all("|  |" not in line[-6:] for line in pages.choices_table().splitlines()[2:]), (
        "a choice has no words"
    )


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("page", "name"), [("docs/tutorial.md", "tutorial"), ("README.md", "readme")])
def test_what_a_page_shows_is_what_it_prints(page, name, tmp_path):
    """But for the last digits, which are other ones on other processors."""
    kept = (ROOT / page).read_text(encoding="utf-8")
    made = getattr(tool("tutorial"), name)(kept, tmp_path)
    assert NUMBER.sub("#", made) == NUMBER.sub("#", kept), "run `make tutorial`"
    for new, old in zip(NUMBER.findall(made), NUMBER.findall(kept), strict=True):
        assert abs(float(new) - float(old)) <= 0.03, f"{new} where {old} stands: run `make tutorial`"
