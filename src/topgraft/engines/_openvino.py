"""OpenVINO on the CPU: one single-threaded stream per core, small batches of one fixed size."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topgraft import files
from topgraft.engines._base import Engine
from topgraft.engines._compiled import Compiled
from topgraft.errors import BackboneError, UsageError
from topgraft.fingerprint import digest
from topgraft.settings import Settings, usable_cores
from topgraft.speed import instructions
from topgraft.telemetry import import_silently
from topgraft.types import Features, Images

if TYPE_CHECKING:
    from topgraft.backbones.backbone import Backbone

BATCH = 2  # pictures per call, everywhere the same: kernels are chosen by shape, and so are the last bits

READ = 1  # how `Graph` reads a graph: to be counted up where that changes what is compiled

_FIRST_LOOK = threading.Lock()

_MADE: weakref.WeakSet[Any] = weakref.WeakSet()
"""Compiled graphs and requests."""


def _leave_alone() -> None:
    """In a forked child, keep what the parent made for ever: its threads stayed behind.

    Freeing it would wait for them, or end the process (`terminate called after throwing`), when it exits.
    """
    for made in _MADE:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_alone)


def compile_model(
    graph: Path | str | bytes,
    *,
    weights: bytes = b"",
    start: str = "",
    shape: dict[str, list[int]] | None = None,
    streams: int = 1,
    cache_dir: Path | None = None,
) -> Any:
    """Return an ONNX graph compiled for the CPU in float32; see `Graph`.

    Returns:
        An `openvino.CompiledModel`.

    Raises:
        BackboneError: where OpenVINO cannot read or run it.
    """
    return Graph(graph, weights=weights, start=start, shape=shape, cache_dir=cache_dir).compiled(streams)


class Graph:
    """An ONNX graph, to be compiled once or more.

    Args:
        graph: a file, or a serialised model; OpenVINO's own form, too.
        weights: of a serialised model in OpenVINO's own form.
        start: a value inside the graph that becomes its input, where there is one of that name.
        shape: fixed input shapes by input name; other inputs keep theirs.
        cache_dir: where what is compiled is kept, of a graph in one file; None keeps nothing.

    Raises:
        BackboneError: where a file cannot be read.
    """

    def __init__(
        self,
        graph: Path | str | bytes,
        *,
        weights: bytes = b"",
        start: str = "",
        shape: dict[str, list[int]] | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        self._place = "graph" if isinstance(graph, bytes) else str(graph)
        self._graph, self._weights = graph, weights
        self._start, self._shape = start, shape or {}
        self._cache_dir = cache_dir
        if cache_dir and not isinstance(graph, bytes):
            try:  # what is kept is named by the very bytes that are compiled
                self._graph = files.read_local(Path(graph))
            except OSError as error:
                raise BackboneError(f"{graph}: cannot be read ({files.said(error)}).") from error

    def compiled(self, streams: int = 1, cores: int = 0) -> Any:
        """Return it compiled for the CPU in float32, an `openvino.CompiledModel`.

        Args:
            streams: how many calls run side by side; 0 means one call on all cores.
            cores: that the streams share; 0 means one each.

        Raises:
            BackboneError: where OpenVINO cannot read or run it.
        """
        openvino, options = _import(), _options(streams, cores)
        with self._understood():
            core = openvino.Core()
            kept = None
            if self._cache_dir:
                kept = Compiled(self._cache_dir, self._facts(core, options, openvino.get_version()))
            compiled = kept and kept.read(core, options)
            if compiled is None:
                compiled = core.compile_model(self._model, "CPU", options)
                if kept:
                    kept.keep(compiled)
        _MADE.add(compiled)
        return compiled

    @cached_property
    def _model(self) -> Any:
        """The graph as an `openvino.Model`, read once for all it is compiled for."""
        core = _import().Core()
        graph = self._graph if isinstance(self._graph, bytes) else str(self._graph)
        model = core.read_model(graph, self._weights) if self._weights else core.read_model(graph)
        if self._start:
            model = _begin_at(model, self._start)
        if self._shape:
            model.reshape(self._shape)
        return model

    def _facts(self, core: Any, options: dict[str, Any], build: str) -> dict[str, Any]:
        """Return everything that goes into what is compiled."""
        assert isinstance(self._graph, bytes)  # noqa: S101 - it was read
        return {
            "read": READ,
            "graph": digest(self._graph),
            "weights": digest(self._weights),
            "start": self._start,
            "shape": self._shape,
            "options": options,
            "openvino": build,
            "processor": [core.get_property("CPU", "FULL_DEVICE_NAME"), *sorted(instructions())],
            "cores": usable_cores(),
            "limit": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        }

    @contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            said = str(error).strip().splitlines()[-1]
            raise BackboneError(f"{self._place}: OpenVINO cannot run it: {said}") from error


def _options(streams: int, cores: int) -> dict[str, Any]:
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    if not streams:
        return options | {"PERFORMANCE_HINT": "LATENCY"}
    cores = cores or streams
    options |= {"NUM_STREAMS": str(streams), "INFERENCE_NUM_THREADS": cores}
    # Tied to cores, threads are tied to the first ones in every process: two workers would share a core.
    return options | {"ENABLE_CPU_PINNING": cores >= usable_cores()}


def make_request(compiled: Any) -> Any:
    """Return an `openvino.InferRequest` of a compiled graph."""
    request = compiled.create_infer_request()
    _MADE.add(request)
    return request


def _begin_at(model: Any, name: str) -> Any:
    """Cut off what lies before a value; without a value of that name the model stays whole."""
    openvino = import_silently("openvino")
    opset13 = import_silently("openvino.opset13")
    found = [out for op in model.get_ops() for out in op.outputs() if name in out.get_names()]
    if not found or not found[0].get_partial_shape().is_static:
        return model
    value = opset13.parameter(found[0].get_partial_shape(), found[0].get_element_type(), name=name)
    value.output(0).set_names({name})
    for reader in found[0].get_target_inputs():
        reader.replace_source_output(value.output(0))
    return openvino.Model(model.get_results(), [value], model.get_friendly_name())


def save_model(graph: bytes, to: Path) -> None:
    """Write an ONNX graph in OpenVINO's own form: `to` is the .xml, the .bin comes beside it.

    Raises:
        BackboneError: where OpenVINO cannot read it.
    """
    openvino = _import()
    try:
        openvino.save_model(openvino.Core().read_model(graph), str(to), compress_to_fp16=False)
    except RuntimeError as error:
        raise BackboneError(
            f"{to}: OpenVINO cannot write it: {str(error).strip().splitlines()[-1]}"
        ) from error


def _import() -> Any:
    openvino = _without_converter()
    # The first look at a tensor's data fills a table, letting go of Python's lock meanwhile: two threads that
    # have their first look together wait for each other for ever (2026.4). So it is had here, alone.
    with _FIRST_LOOK:
        _ = openvino.Tensor(np.zeros(1, np.uint8)).data
    return openvino


def _without_converter() -> Any:
    """Import openvino without what converts other frameworks' models.

    Nothing here needs that, and it takes as long to import as all else in openvino. Whoever calls it gets it.
    """
    converter = "openvino.tools.ovc"
    with _FIRST_LOOK:
        if "openvino" in sys.modules or converter in sys.modules:
            return import_silently("openvino")
        sys.modules[converter] = None  # type: ignore[assignment]
        try:
            openvino = import_silently("openvino")
        finally:
            del sys.modules[converter]
        openvino.convert_model = lambda *args, **options: import_silently(converter).convert_model(
            *args, **options
        )
        return openvino


class OpenVINOEngine(Engine):
    """The default engine."""

    name: ClassVar[str] = "openvino"

    def __init__(self, backbone: Backbone, *, depths: bool = False, settings: Settings | None = None) -> None:
        settings = settings or Settings.load()
        self.card, self.depths = backbone.card, depths
        self.precision = backbone.card.precision
        self._graph, self._threads, self._cache_dir = backbone.graph, settings.threads, settings.cache_dir
        self._most = 2 * settings.threads  # calls under way: one a stream that runs and one that waits
        self._open()

    def _open(self) -> None:
        shape = {"images": [BATCH, *self.card.input_size, 3]}
        self._compiled: Any = compile_model(
            self._graph, shape=shape, streams=self._threads, cache_dir=self._cache_dir
        )
        self._idle: list[Any] = []
        self._process = os.getpid()

    def stream(self, batches: Iterable[tuple[Any, Images]]) -> Iterator[tuple[Any, Features]]:
        """Send batches in pieces of one size; the last piece is filled up with black."""
        if self._compiled is None:
            raise UsageError("openvino engine: it is closed. Open another one.")
        if self._process != os.getpid():  # forked: see _leave_alone
            self._open()
        calls: deque[tuple[Any, Features]] = deque()
        begun: deque[tuple[Any, Features, int]] = deque()
        sent = 0
        try:
            for tag, images in batches:
                self.check(images)
                features = np.empty((len(images), self.width), np.float32)
                for start in range(0, len(images), BATCH):
                    if len(calls) == self._most:
                        self._finish(calls)
                    calls.append(
                        (self._start(images[start : start + BATCH]), features[start : start + BATCH])
                    )
                    sent += 1
                begun.append((tag, features, sent))
                while begun and begun[0][2] <= sent - len(calls):
                    yield begun.popleft()[:2]
            while begun:
                while begun[0][2] > sent - len(calls):
                    self._finish(calls)
                yield begun.popleft()[:2]
        finally:
            while calls:
                self._finish(calls)

    def _start(self, piece: Images) -> Any:
        request = self._idle.pop() if self._idle else make_request(self._compiled)
        pixels = request.get_tensor("images").data
        pixels[: len(piece)] = piece
        pixels[len(piece) :] = 0
        request.start_async()
        return request

    def _finish(self, calls: deque[tuple[Any, Features]]) -> None:
        """Wait for the oldest call. No callbacks: one that ends while its queue is freed waits for ever."""
        request, rows = calls.popleft()
        request.wait()
        last = self.card.features
        rows[:, :last] = request.get_tensor(self.card.output).data[: len(rows)].reshape(len(rows), last)
        if self.depths:
            rows[:, last:] = request.get_tensor("blocks").data[: len(rows)]
        self._idle.append(request)

    def close(self) -> None:
        """Free the graph."""
        self._idle.clear()
        self._compiled = None
