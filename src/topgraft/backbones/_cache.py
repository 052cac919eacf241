"""Folders of backbones: `model.onnx` and `card.json`, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from topgraft.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Iterator

GRAPH, CARD = "model.onnx", "card.json"


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `folder` when the block ends well.

    Several processes may do this at once: the first one wins, and the others keep its result.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:16]}-", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            os.rename(temporary, folder)  # noqa: PTH104 Path.rename would do; this says that it is atomic
        except OSError as error:
            if not complete(folder):
                raise BackboneError(
                    f"{folder}: cannot be written ({error.strerror}). "
                    "Choose another folder with TOPGRAFT_CACHE_DIR."
                ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def complete(folder: Path) -> bool:
    """Tell whether a folder holds a backbone."""
    return (folder / GRAPH).is_file() and (folder / CARD).is_file()
