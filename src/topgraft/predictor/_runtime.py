"""What runs a predictor's graph: OpenVINO, or onnxruntime where OpenVINO is not installed."""

from __future__ import annotations

import importlib.util
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topgraft.errors import BackboneError, UnknownNameError
from topgraft.telemetry import import_silently

Outputs = dict[str, NDArray[np.float32]]
"""What a graph gives, by name."""

RUNTIMES = ("openvino", "onnxruntime")


class Runtime(Protocol):
    """Returns the outputs of a graph for its inputs by name; may be called from several threads."""

    def __call__(self, **inputs: NDArray[Any]) -> Outputs: ...


def open_runtime(graph: bytes, name: str, threads: int) -> Runtime:
    """Return a graph opened in a runtime.

    Args:
        graph: a serialised ONNX model.
        name: `openvino`, `onnxruntime`, or `auto` for the first that is installed.
        threads: how many pictures run side by side, each on one core.

    Raises:
        UnknownNameError: for another name.
        BackboneError: where nothing can run it.
    """
    if name == "auto":
        name = next((runtime for runtime in RUNTIMES if importlib.util.find_spec(runtime)), RUNTIMES[0])
    if name not in RUNTIMES:
        raise UnknownNameError("engine", name, ("auto", *RUNTIMES))
    return (_openvino if name == "openvino" else _onnxruntime)(graph, threads)


def _openvino(graph: bytes, threads: int) -> Runtime:
    from topgraft.engines._openvino import compile_model

    compiled = compile_model(graph, streams=threads)
    requests: SimpleQueue[Any] = SimpleQueue()
    for _ in range(threads):
        requests.put(compiled.create_infer_request())

    def run(**inputs: NDArray[Any]) -> Outputs:
        request = requests.get()
        try:
            # copies both ways: OpenVINO's threads must never hold memory that Python frees
            found = request.infer(inputs, share_inputs=False, share_outputs=False)
            # an output has every name its value had anywhere in the graph
            return {name: np.asarray(value) for output, value in found.items() for name in output.names}
        except RuntimeError as error:
            raise BackboneError(
                f"predictor: OpenVINO failed: {str(error).strip().splitlines()[-1]}"
            ) from error
        finally:
            requests.put(request)

    return run


def _onnxruntime(graph: bytes, threads: int) -> Runtime:
    try:
        onnxruntime = import_silently("onnxruntime")
    except ModuleNotFoundError as error:
        raise BackboneError(
            "predictor: needs openvino or onnxruntime to run. pip install openvino."
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1 if threads > 1 else 0
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BackboneError(f"predictor: onnxruntime cannot read it: {str(error).splitlines()[0]}") from error
    names = [output.name for output in session.get_outputs()]

    def run(**inputs: NDArray[Any]) -> Outputs:
        return dict(zip(names, session.run(None, inputs), strict=True))

    return run
