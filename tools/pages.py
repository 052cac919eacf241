"""Write the pages that are generated: `make pages`. Tests hold them to the code."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import typer.main

from topgraft.cli import app
from topgraft.config import OPTIONS, Config

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 100  # of the help texts, whatever the terminal
OPENING = """\
# Every command and option

What `topgraft VERB --help` prints, in a window of {width} columns. `make pages` writes this page, and a test
compares it with the command line as it is. What the commands are for stands in the
[tutorial](tutorial.md) and the [cookbook](cookbook/index.md).
"""

BEGIN, END = "<!-- begin: made by `make pages` -->", "<!-- end: made by `make pages` -->"
OTHERS = {"val": "Share held out for validation; cross-validation does its work."}
"""Choices that no command has an option for."""


def commands() -> dict[str, click.Command]:
    """Return every verb with its command, as `topgraft --help` orders them; those of a group by two words."""
    found: dict[str, click.Command] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{name} {below}": verb for below, verb in inner.items()} if inner else {name: command}
    return found


def help_of(command: click.Command, name: str) -> str:
    """Return what `--help` prints, whatever the terminal it is asked in."""
    context = click.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


def cli_page() -> str:
    """Return the page with the help of every verb."""
    parts = [
        OPENING.format(width=WIDTH),
        f"```text\n{help_of(typer.main.get_command(app), 'topgraft')}\n```\n",
    ]
    for verb, command in commands().items():
        parts.append(f"## {verb}\n\n```text\n{help_of(command, f'topgraft {verb}')}\n```\n")
    return "\n".join(parts)


def choices_table() -> str:
    """Return the table of a recipe's choices: key, option, default, and what the option's help says."""
    said = {}
    for verb in ("train", "embed"):
        command = commands()[verb]
        help_of(command, verb)  # fills in what the registries know
        for option in command.params:
            said.setdefault(option.name, (option.help or "").partition(" [default")[0])
    lines = ["| key | option | default | |", "| --- | --- | --- | --- |"]
    for name, place in OPTIONS.items():
        default = Config().option(name)
        shown = ",".join(default) if isinstance(default, tuple) else default
        flag = f"`--{name.replace('_', '-')}`" if name in said and name != "photos" else ""
        told = "" if default in (None, "", False) else f"`{shown}`"
        key = place.replace("__", ".")
        lines.append(f"| `{key}` | {flag} | {told} | {said.get(name) or OTHERS.get(name, '')} |")
    return "\n".join(lines) + "\n"


def with_choices(page: str) -> str:
    """Return the page of recipes with the table between its marks made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{choices_table()}{END}{after}"


def main() -> None:
    """Write every generated page, and say which changed."""
    recipes = DOCS / "recipes.md"
    made = {DOCS / "cli.md": cli_page(), recipes: with_choices(recipes.read_text(encoding="utf-8"))}
    for path, text in made.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(DOCS.parent), file=sys.stderr)


if __name__ == "__main__":
    main()
