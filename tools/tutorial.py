"""Run the tutorial's commands and write what they print below them: `make tutorial`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def run(page: str, folder: Path) -> str:
    """Return the page with the outputs of its commands as they are when run in a folder, one after the other.

    What goes to stderr (progress, and how fast things are) is not in it.
    """
    here = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "TOPGRAFT_OFFLINE": "1"}

    def block(match: re.Match[str]) -> str:
        lines = []
        for command in (line for line in match[1].splitlines() if line.startswith("$ ")):
            done = subprocess.run(
                ["bash", "-c", command.removeprefix("$ ").partition("   #")[0]],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"{command}\n{done.stderr}")
            lines += [command, *done.stdout.rstrip().splitlines()]
        return "```console\n" + "\n".join(lines) + "\n```"

    return BLOCK.sub(block, page)


def main() -> None:
    """Write the page anew."""
    with tempfile.TemporaryDirectory() as folder:
        made = run(PAGE.read_text(encoding="utf-8"), Path(folder))
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
