"""What runs a predictor's graph: OpenVINO, or onnxruntime where OpenVINO is not installed."""

from __future__ import annotations

import importlib.util
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topgraft import files
from topgraft.errors import BackboneError, UnknownNameError
from topgraft.telemetry import import_silently

Outputs = dict[str, NDArray[np.float32]]
"""What a graph gives, by name."""

RUNTIMES = ("openvino", "onnxruntime")


class Runtime(Protocol):
    """Returns the outputs of a graph for one input; may be called from several threads.

    Attributes:
        takes: the input's name.
    """

    takes: str

    def __call__(self, value: NDArray[Any]) -> Outputs: ...


def open_runtime(graph: bytes, name: str, threads: int, *, weights: bytes = b"", start: str = "") -> Runtime:
    """Return a graph opened in a runtime.

    Args:
        graph: a serialised ONNX model, or an OpenVINO model's XML.
        name: `openvino`, `onnxruntime`, or `auto` for the first that is installed.
        threads: how many pictures run side by side, each on one core.
        weights: of an OpenVINO model.
        start: a value inside the graph that may be given in place of the input: what lies before it is then
            left out. `takes` says whether it is so; onnxruntime always takes the input.

    Raises:
        UnknownNameError: for another name.
        BackboneError: where nothing can run it.
    """
    if name == "auto":
        name = next((runtime for runtime in RUNTIMES if importlib.util.find_spec(runtime)), RUNTIMES[0])
    if name not in RUNTIMES:
        raise UnknownNameError("engine", name, ("auto", *RUNTIMES))
    if name == "openvino":
        return _OpenVINO(graph, threads, weights, start)
    if weights:
        raise BackboneError("predictor: an OpenVINO model runs in OpenVINO alone. Take engine `openvino`.")
    return _OnnxRuntime(graph, threads)


class _OpenVINO:
    def __init__(self, graph: bytes, threads: int, weights: bytes, start: str) -> None:
        from topgraft.engines._openvino import compile_model, make_request

        compiled = compile_model(graph, weights=weights, start=start, streams=threads)
        self.takes = start if start in compiled.input(0).names else compiled.input(0).any_name
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(threads):
            self._requests.put(make_request(compiled))

    def __call__(self, value: NDArray[Any]) -> Outputs:
        request = self._requests.get()
        try:
            # copies both ways: OpenVINO's threads must never hold memory that Python frees
            found = request.infer({self.takes: value}, share_inputs=False, share_outputs=False)
            # an output has every name its value had anywhere in the graph
            return {name: np.asarray(value) for output, value in found.items() for name in output.names}
        except RuntimeError as error:
            raise BackboneError(
                f"predictor: OpenVINO failed: {str(error).strip().splitlines()[-1]}"
            ) from error
        finally:
            self._requests.put(request)


class _OnnxRuntime:
    def __init__(self, graph: bytes, threads: int) -> None:
        try:
            onnxruntime = import_silently("onnxruntime")
        except ModuleNotFoundError as error:
            raise BackboneError(
                "predictor: needs openvino or onnxruntime to run. pip install openvino."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1 if threads > 1 else 0
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackboneError(
                f"predictor: onnxruntime cannot read it: {str(error).splitlines()[0]}"
            ) from error
        self.takes = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, value: NDArray[Any]) -> Outputs:
        try:
            found = self._session.run(None, {self.takes: value})
        except Exception as error:  # its errors share no base class of their own
            raise BackboneError(f"predictor: onnxruntime failed: {files.said(error)}") from error
        return dict(zip(self._names, found, strict=True))
