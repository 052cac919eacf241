"""The README's Python runs, and its recipe is one."""

import re
from pathlib import Path

import pytest

from topgraft.config import Config
from topgraft.testing.drawing import draw_photos

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language):
    found = re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code, tmp_path, monkeypatch, capsys):
    draw_photos(tmp_path / "photos", 12, seed=1)
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("draw(16", "draw(2"), str(README), "exec"), {})
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("text", blocks("toml"))
def test_recipes_are_the_defaults_they_show(text, tmp_path):
    (tmp_path / "recipe.toml").write_text(text)
    assert Config.load(tmp_path / "recipe.toml") == Config()


def test_every_command_named_is_there():
    import typer.main

    from topgraft.cli import app

    known = set(typer.main.get_command(app).commands)
    named = set(re.findall(r"^\$ topgraft (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= known, named - known
