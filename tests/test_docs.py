"""Every block of code on a page runs, or says why not; every option, extra and variable stands on one.

Python runs here, with fewer views; commands are held to the command line here, and run in the long tests. A
block under `<!-- not run: REASON -->` is only parsed.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import typer.main

import topgraft as tg
from tiny import TINY
from topgraft import errors
from topgraft.cli import app
from topgraft.config import Config
from topgraft.settings import Settings
from topgraft.testing.drawing import draw_jpeg, draw_photos

ROOT = Path(__file__).parents[1]
GENERATED = {"cli.md"}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
WRITTEN = {path: path.read_text(encoding="utf-8") for path in PAGES if path.name not in GENERATED}
FENCE = re.compile(
    r"(?:<!-- not run: (?P<why>.+?) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)
TREE = ("text", "")  # what is shown, and neither run nor parsed


class Block(NamedTuple):
    page: str
    number: int
    kind: str
    text: str
    why: str


def blocks(*kinds):
    found = []
    for path, text in WRITTEN.items():
        for number, match in enumerate(FENCE.finditer(text), 1):
            if match["kind"] in kinds:
                name = str(path.relative_to(ROOT))
                found.append(Block(name, number, match["kind"], match["text"], match["why"] or ""))
    return found


def named(block):
    return f"{block.page}-{block.number}"


def commands(text):
    """List the commands of a block, with lines that go on put together and comments taken off."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.startswith("$ ")]
    return [re.split(r"\s{2,}#", line.removeprefix("$ "))[0].strip() for line in lines]


def test_blocks_are_of_a_kind_that_is_checked():
    kinds = {match["kind"] for text in WRITTEN.values() for match in FENCE.finditer(text)}
    assert kinds <= {"python", "console", "toml", *TREE}, kinds


@pytest.mark.parametrize("block", blocks("console"), ids=named)
def test_commands_are_those_of_the_command_line(block):
    root = typer.main.get_command(app)
    for line in commands(block.text):
        for part in re.split(r"\s*(?:\||&&)\s*", line):
            words = shlex.split(part)
            if words[:1] == ["topgraft"] or words[:1] == [".venv/bin/topgraft"]:
                words = words[1 : words.index(">")] if ">" in words else words[1:]
                verb, name = root, "topgraft"
                while words and isinstance(verb, click.Group):
                    assert words[0] in verb.commands, f"{line}: no command {words[0]}"
                    verb, name, words = verb.commands[words[0]], f"{name} {words[0]}", words[1:]
                try:
                    verb.make_context(name, list(words))  # parses, and does nothing
                except click.exceptions.Exit:
                    pass
                except click.ClickException as error:
                    pytest.fail(f"{line}: {error.format_message()}")


@pytest.mark.parametrize("block", blocks("toml"), ids=named)
def test_toml_is_a_recipe_or_a_grid(block, tmp_path):
    (tmp_path / "block.toml").write_text(block.text)
    if "axes" in tomllib.loads(block.text):
        assert tg.draw(1, grid=str(tmp_path / "block.toml"))
    else:
        Config.load(tmp_path / "block.toml")


def test_the_recipe_that_is_shown_is_the_defaults(tmp_path):
    first = next(block for block in blocks("toml") if block.page == "docs/recipes.md")
    (tmp_path / "block.toml").write_text(first.text)
    assert Config.load(tmp_path / "block.toml") == Config()


def lay_out(folder, each):
    """Draw what the pages take for granted: photos of two classes, two single photos, and more."""
    draw_photos(folder / "photos", each, seed=1)
    for name, kind in (("lunch", "sushi"), ("dinner", "sandwich")):
        (folder / f"{name}.jpg").write_bytes(draw_jpeg(kind, 700))
    (folder / "more" / "soup").mkdir(parents=True)
    for k in range(12):
        (folder / "more" / "soup" / f"{k}.jpg").write_bytes(draw_jpeg("sushi", 800 + k))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos and a finished run, quickly made."""
    folder = tmp_path_factory.mktemp("pages")
    lay_out(folder, each=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tg.train("photos/", out="runs/first", backbone=TINY, policies=0, heads="ridge", folds=2)
    return folder


@pytest.mark.parametrize("block", [b for b in blocks("python") if not b.why], ids=named)
def test_python_runs(block, place, tmp_path, monkeypatch):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    text = block.text.replace("draw(16", "draw(1")
    exec(compile(text, named(block), "exec"), {"__name__": "page"})


CONSOLE = sorted({block.page for block in blocks("console") if not block.why} - {"docs/tutorial.md"})


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", CONSOLE)
def test_commands_of_a_page_run_one_after_the_other(page, tmp_path):
    lay_out(tmp_path, each=16)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = [["bash", "-c", "topgraft train photos/ -o runs/first"]]  # with every default, as a reader has it
    for block in blocks("console", "python"):
        if block.page == page and not block.why:
            python = [[sys.executable, "-c", block.text]]
            found += (
                python
                if block.kind == "python"
                else [["bash", "-c", line] for line in commands(block.text) if not line.startswith("make ")]
            )  # make is for a checkout, and continuous integration runs it there
    once = [line for place, line in enumerate(found) if line not in found[:place]]
    for line in once:
        done = subprocess.run(
            line,
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line[-1]}\n{done.stderr}"


def options():
    """List every option of every verb, but those that all have."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():
        for verb in getattr(command, "commands", {name: command}).values():
            for option in verb.params:
                for word in option.opts:
                    if word.startswith("--"):
                        found.setdefault(word, []).append(verb.name)
    return sorted(found.items())


@pytest.mark.parametrize(("option", "verbs"), options(), ids=str)
def test_every_option_is_on_a_page_that_somebody_wrote(option, verbs):
    told = any(re.search(rf"{option}(?![\w-])", text) for text in WRITTEN.values())
    assert told, f"no page but docs/cli.md says what `{option}` ({', '.join(verbs)}) is for: add it to one"


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


def test_the_doctor_looks_for_every_extra():
    from topgraft import _doctor

    assert {*_doctor.EXTRAS} == {*EXTRAS} - {"all"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_has_its_row(extra):
    assert re.search(rf"^\| `{extra}` \|", WRITTEN[ROOT / "docs" / "install.md"], re.MULTILINE)


@pytest.mark.parametrize("name", [name.upper() for name in Settings.__dataclass_fields__])
def test_every_setting_has_its_row(name):
    assert f"| `TOPGRAFT_{name}` |" in WRITTEN[ROOT / "docs" / "recipes.md"]


@pytest.mark.parametrize("name", tg.__all__)
def test_every_public_name_is_in_the_reference(name):
    assert f"::: topgraft.{name}\n" in WRITTEN[ROOT / "docs" / "python.md"]


@pytest.mark.parametrize(
    "kind", [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
)
def test_every_error_is_in_the_tree(kind):
    assert kind.__name__ in errors.__doc__


def test_every_key_and_column_is_on_the_page_of_files():
    from topgraft._predict import COLUMNS
    from topgraft.run.metrics import Metrics
    from topgraft.run.predictions import COLUMNS as KEPT

    page = WRITTEN[ROOT / "docs" / "files.md"]
    keys = [field.alias or name for name, field in Metrics.model_fields.items()]
    assert not [name for name in (*keys, *KEPT, *COLUMNS) if f"`{name}`" not in page]
