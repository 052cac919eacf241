"""Run the tutorial's commands and the README's Python, and write what they print: `make tutorial`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from topgraft.testing.drawing import draw_photos

ROOT = Path(__file__).parents[1]
TUTORIAL, README = ROOT / "docs" / "tutorial.md", ROOT / "README.md"
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(?P<code>.*?)```\n\n```text\n(?P<said>.*?)```", re.DOTALL)


def said(*words: str, folder: Path) -> str:
    """Return what a command prints; what goes to stderr (progress, how fast things are) is not in it.

    Raises:
        RuntimeError: where it fails, with what it said.
    """
    here = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "TOPGRAFT_OFFLINE": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words[-1]}\n{done.stderr}")
    return done.stdout.rstrip()


def tutorial(page: str, folder: Path) -> str:
    """Return the tutorial with the outputs of its commands, run one after the other in a folder."""

    def block(match: re.Match[str]) -> str:
        lines = []
        for command in (line for line in match[1].splitlines() if line.startswith("$ ")):
            lines += [command, *said("bash", "-c", command.removeprefix("$ "), folder=folder).splitlines()]
        return "```console\n" + "\n".join(lines) + "\n```"

    return CONSOLE.sub(block, page)


def readme(page: str, folder: Path) -> str:
    """Return the README with the output of its Python on the demo's photos."""
    draw_photos(folder / "photos", 60, seed=0)
    found = PYTHON.search(page)
    assert found is not None
    start, end = found.span("said")
    return f"{page[:start]}{said(sys.executable, '-c', found['code'], folder=folder)}\n{page[end:]}"


def main() -> None:
    """Write both pages anew."""
    for path, make in ((README, readme), (TUTORIAL, tutorial)):
        with tempfile.TemporaryDirectory() as folder:
            path.write_text(make(path.read_text(encoding="utf-8"), Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
