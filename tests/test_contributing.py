"""What CONTRIBUTING.md promises to whoever adds something: places, tests and layers are as it says."""

import ast
import importlib
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import typer.main

import topgraft as tg
from topgraft.backbones.card import Card
from topgraft.cli import app
from topgraft.engines._open import ENGINES
from topgraft.heads import HEADS
from topgraft.testing.engines import EngineSuite

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
del DOCS["cli.md"]  # is generated, and names them all
TESTS = [*ROOT.glob("tests/test_*.py"), *ROOT.glob("src/topgraft/testing/*.py")]
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
    "contracts"
][0]["layers"]
STAGES = next(line for line in LAYERS if "_embed" in line).split(" | ")
VERBS = sorted(typer.main.get_command(app).commands)


def test_the_drawing_of_the_layers_is_the_contract():
    drawn = PAGE.partition("## The layers")[2].split("```")[1]
    assert drawn.strip().splitlines()[1:] == LAYERS  # behind the word "text"


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+|Test[A-Z]\w+)`", PAGE))))
def test_a_test_it_names_is_there(name):
    assert any(re.search(rf"(def|class) {name}\b", path.read_text(encoding="utf-8")) for path in TESTS)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z_/]+\.(?:py|md|toml))`", PAGE))))
def test_a_file_it_names_is_there(name):
    assert (ROOT / name).is_file() or (ROOT / "src" / "topgraft" / name).is_file()


@cache
def lines_of_suites():
    """Return the lines of all engine suites; read, not imported, for some need PyTorch."""
    nodes = [
        node
        for path in ROOT.glob("tests/test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
    ]
    return [
        line
        for node in nodes
        if isinstance(node, ast.ClassDef) and EngineSuite.__name__ in map(ast.unparse, node.bases)
        for line in node.body
    ]


def said_by_suites(attribute):
    """Collect a class attribute of all engine suites."""
    for line in lines_of_suites():
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == attribute:
            yield ast.literal_eval(line.value)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_has_a_suite(name):
    assert name in said_by_suites("name")


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_is_in_the_docs(name):
    assert f"\n- `{name}`: " in DOCS["backbones.md"]


@pytest.mark.parametrize("name", HEADS)
def test_every_head_has_its_row_in_the_docs(name):
    assert re.search(rf"^\|[^|]*`{name}`[^|]*\|", DOCS["heads.md"], re.MULTILINE)


@pytest.mark.parametrize("name", get_args(Card.model_fields["source"].annotation))
def test_every_source_has_a_suite(name):
    assert name in said_by_suites("source")


@pytest.mark.parametrize("name", VERBS)
def test_every_command_is_in_the_docs(name):
    assert any(re.search(rf"\btopgraft {name}\b", text) for text in DOCS.values())


SERVED = {"review"}  # a stage with a page: its function lives with the server


@pytest.mark.parametrize("verb", sorted({stage.removeprefix("_") for stage in STAGES} & set(VERBS) - SERVED))
def test_a_verb_that_is_a_stage_is_public(verb):
    assert verb in tg.__all__
    assert getattr(tg, verb) is getattr(importlib.import_module(f"topgraft._{verb}"), verb)
