"""The runtimes that run exported files: each opens the files as they lie in the folder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topgraft.errors import BackboneError, UsageError
from topgraft.files import said
from topgraft.telemetry import import_silently

if TYPE_CHECKING:
    from topgraft._export.agree import Answer, Ask
    from topgraft.types import Image

VERSION = "1.30.0"
"""Of onnxruntime-web, which the page was tested with."""
NPM = f"npm install onnxruntime-web@{VERSION}"
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


@dataclass(frozen=True)
class Named:
    """A runtime that exported files are checked in.

    Attributes:
        name: for people.
        open: gives what answers for the files of a folder.
        files: what has to lie beside them, for the browser; None where it is not at hand.
        notes: what should be known, in sentences.
    """

    name: str
    open: Callable[[Path], AbstractContextManager[Ask]]
    files: Path | None = None
    notes: tuple[str, ...] = ()


def open_named(form: str, runtime: str | Path | None) -> Named:
    """Find the runtime for a form.

    Args:
        form: `onnx`, `openvino` or `web`.
        runtime: for `web`, the folder of onnxruntime-web's files; None looks for node_modules.

    Raises:
        MissingExtraError: without onnxruntime.
        UsageError: for a folder without the runtime, or no Node.js.
    """
    if form == "openvino":
        return Named("OpenVINO", _openvino)
    if form == "web" and (found := _web(runtime)):
        if not shutil.which("node"):
            raise UsageError("--format web is checked in Node.js, which is not here. Install it (nodejs).")
        return Named(f"onnxruntime-web {_version(found)}", _node, found)
    import_silently("onnxruntime", "export", f"--format {form}")
    if form == "onnx":
        return Named("onnxruntime", _onnxruntime)
    note = (
        "onnxruntime-web was not at hand: the page does not run yet, and was checked in onnxruntime only."
        f" {NPM}, then export again."
    )
    return Named("onnxruntime", _onnxruntime, None, (note,))


@contextmanager
def _onnxruntime(folder: Path) -> Iterator[Ask]:
    onnxruntime = import_silently("onnxruntime")
    try:
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no base of their own
        raise BackboneError(f"onnxruntime cannot run the export: {said(error)}") from error

    def ask(image: Image) -> Answer:
        probabilities, distance = session.run(["probabilities", "distance"], {"image": image})
        return probabilities[0], float(distance[0])

    yield ask


@contextmanager
def _openvino(folder: Path) -> Iterator[Ask]:
    from topgraft.engines._openvino import compile_model

    request = compile_model(folder / "model.xml", streams=0).create_infer_request()

    def ask(image: Image) -> Answer:
        found = request.infer({"image": image}, share_inputs=False, share_outputs=False)
        named = {name: value for output, value in found.items() for name in output.names}
        return np.asarray(named["probabilities"][0]), float(named["distance"][0])

    yield ask


@contextmanager
def _node(folder: Path) -> Iterator[Ask]:
    with as_file(files("topgraft._page") / "check.mjs") as script:
        process = subprocess.Popen(  # noqa: S603  our own script
            ["node", str(script), str(folder)],  # noqa: S607  from the PATH, as anything a user runs
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

        def ask(image: Image) -> Answer:
            said: dict[str, Any] = json.loads(_exchange(process, image))
            return np.array(said["probabilities"], np.float32), float(said["distance"])

        try:
            yield ask
        finally:
            process.kill()
            process.communicate()


def _exchange(process: subprocess.Popen[bytes], image: Image) -> bytes:
    """Send one picture and read one line."""
    try:
        assert process.stdin is not None  # noqa: S101  they are pipes
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(
            np.array(image.shape[:2], "<u4").tobytes() + np.ascontiguousarray(image).tobytes()
        )
        process.stdin.flush()
        line = process.stdout.readline()
    except OSError:
        line = b""
    if not line and process.stderr:
        text = process.stderr.read().decode(errors="replace")
        errors = [line for line in text.splitlines() if "Error" in line] or ["it ended"]
        raise BackboneError(f"onnxruntime-web cannot run the export: {errors[0].strip()[:200]}.")
    return line


def _web(given: str | Path | None) -> Path | None:
    """Find the runtime's files: where they were said to be, or in node_modules as Node.js looks for them."""
    if given is not None:
        for folder in (Path(given), Path(given) / "dist"):
            if all((folder / name).is_file() for name in FILES):
                return folder
        raise UsageError(f"{given}: expected {', '.join(FILES)}, found not all of them. {NPM} brings them.")
    here = Path.cwd()
    for parent in (here, *here.parents):
        folder = parent / "node_modules" / "onnxruntime-web" / "dist"
        if all((folder / name).is_file() for name in FILES):
            return folder
    return None


def _version(folder: Path) -> str:
    head = (folder / FILES[0]).read_bytes()[:400].decode(errors="replace")
    found = re.search(r"ONNX Runtime Web v([\w.-]+)", head)
    return found[1] if found else "of unknown version"
