"""What runs a predictor's graph: OpenVINO, or onnxruntime where OpenVINO is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topgraft import files
from topgraft.errors import BackboneError, UnknownNameError
from topgraft.telemetry import import_silently

if TYPE_CHECKING:
    from topgraft.engines._openvino import Graph

Outputs = dict[str, NDArray[np.float32]]
"""What a graph gives, by name."""

RUNTIMES = ("openvino", "onnxruntime")


class Runtime(Protocol):
    """Returns the outputs of a graph for one input; may be called from several threads.

    Attributes:
        takes: the input's name, known when it is ready.
    """

    takes: str

    def ready(self, *, alone: bool = False) -> None:
        """Make ready for inputs side by side, or for one `alone`, so that no call has to wait for it."""

    def __call__(self, value: NDArray[Any], *, alone: bool = False) -> Outputs:
        """Answer one input: on one core, or `alone` on all of them."""


def open_runtime(
    graph: bytes,
    name: str,
    threads: int,
    *,
    weights: bytes = b"",
    start: str = "",
    cache_dir: Path | None = None,
) -> Runtime:
    """Return a graph opened in a runtime.

    Args:
        graph: a serialised ONNX model, or an OpenVINO model's XML.
        name: `openvino`, `onnxruntime`, or `auto` for the first that is installed.
        threads: how many pictures run side by side, each on one core; and how many cores one alone may use.
        weights: of an OpenVINO model.
        start: a value inside the graph that may be given in place of the input: what lies before it is then
            left out. `takes` says whether it is so; onnxruntime always takes the input.
        cache_dir: where OpenVINO's compiled graphs are kept; None keeps none.

    Raises:
        UnknownNameError: for another name.
        BackboneError: where nothing can run it.
    """
    if name == "auto":
        name = next((runtime for runtime in RUNTIMES if importlib.util.find_spec(runtime)), RUNTIMES[0])
    if name not in RUNTIMES:
        raise UnknownNameError("engine", name, ("auto", *RUNTIMES))
    if name == "openvino":
        from topgraft.engines._openvino import Graph

        return _OpenVINO(Graph(graph, weights=weights, start=start, cache_dir=cache_dir), threads, start)
    if weights:
        raise BackboneError("predictor: an OpenVINO model runs in OpenVINO alone. Take engine `openvino`.")
    return _OnnxRuntime(graph)


class _OpenVINO:
    def __init__(self, graph: Graph, threads: int, start: str) -> None:
        self._graph, self._threads, self._start = graph, threads, start
        self._made: dict[bool, SimpleQueue[Any]] = {}
        self._making = Lock()

    def ready(self, *, alone: bool = False) -> None:
        self._requests(alone)

    def _requests(self, alone: bool) -> SimpleQueue[Any]:
        """Return what waits for inputs; compiled when it is first asked for."""
        from topgraft.engines._openvino import make_request

        alone = alone and self._threads > 1
        with self._making:
            if alone not in self._made:
                streams = 1 if alone else self._threads
                compiled = self._graph.compiled(streams, cores=self._threads)
                taken = compiled.input(0)
                self.takes = self._start if self._start in taken.names else taken.any_name
                requests: SimpleQueue[Any] = SimpleQueue()
                for _ in range(streams):
                    requests.put(make_request(compiled))
                self._made[alone] = requests
            return self._made[alone]

    def __call__(self, value: NDArray[Any], *, alone: bool = False) -> Outputs:
        requests = self._requests(alone)
        request = requests.get()
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
            requests.put(request)


class _OnnxRuntime:
    def __init__(self, graph: bytes) -> None:
        try:
            onnxruntime = import_silently("onnxruntime")
        except ModuleNotFoundError as error:
            raise BackboneError(
                "predictor: needs openvino or onnxruntime to run. pip install openvino."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackboneError(f"predictor: onnxruntime cannot read it: {files.said(error)}") from error
        self.takes = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]

    def ready(self, *, alone: bool = False) -> None:
        pass  # the one session is

    def __call__(self, value: NDArray[Any], *, alone: bool = False) -> Outputs:  # noqa: ARG002
        try:
            found = self._session.run(None, {self.takes: value})
        except Exception as error:  # its errors share no base class of their own
            raise BackboneError(f"predictor: onnxruntime failed: {files.said(error)}") from error
        return dict(zip(self._names, found, strict=True))
