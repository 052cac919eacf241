"""OpenVINO on the CPU: one single-threaded stream per core, small batches of one fixed size."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topgraft.engines._base import Engine
from topgraft.errors import BackboneError, UsageError
from topgraft.settings import Settings
from topgraft.types import Features, Images

if TYPE_CHECKING:
    from pathlib import Path

    from topgraft.backbone import Backbone

BATCH = 8  # pictures per call, everywhere the same: kernels are chosen by shape, and so are the last bits


def compile_model(
    graph: Path | str | bytes, *, shape: dict[str, list[int]] | None = None, streams: int = 1
) -> Any:
    """Compile an ONNX graph for the CPU in float32.

    Args:
        graph: a file, or a serialised model.
        shape: fixed input shapes by input name; other inputs keep theirs.
        streams: how many calls run side by side, each on one core; 0 means one call on all cores.

    Returns:
        An `openvino.CompiledModel`.

    Raises:
        BackboneError: where OpenVINO cannot read or run it.
    """
    import openvino as ov

    core = ov.Core()
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    if streams:
        options |= {"NUM_STREAMS": str(streams), "INFERENCE_NUM_THREADS": streams}
    else:
        options |= {"PERFORMANCE_HINT": "LATENCY"}
    try:
        model = core.read_model(graph if isinstance(graph, bytes) else str(graph))
        if shape:
            model.reshape(shape)
        return core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        place = "graph" if isinstance(graph, bytes) else graph
        raise BackboneError(
            f"{place}: OpenVINO cannot run it: {str(error).strip().splitlines()[-1]}"
        ) from error


class _Job:
    """A batch under way: where its rows go, and when they are all there."""

    def __init__(self, tag: Any, rows: int, width: int, pieces: int) -> None:
        self.tag = tag
        self.features = np.empty((rows, width), np.float32)
        self.left = pieces
        self.lock = threading.Lock()
        self.done = threading.Event()
        if not pieces:
            self.done.set()

    def store(self, start: int, rows: Features) -> None:
        self.features[start : start + len(rows)] = rows
        with self.lock:
            self.left -= 1
            if not self.left:
                self.done.set()


class OpenVINOEngine(Engine):
    """The default engine."""

    name: ClassVar[str] = "openvino"

    def __init__(
        self, backbone: Backbone, *, precision: str = "f32", settings: Settings | None = None
    ) -> None:
        import openvino as ov

        settings = settings or Settings.load()
        self.card = backbone.card
        self.precision = precision
        height, width = self.card.input_size
        compiled = compile_model(
            backbone.graph, shape={"images": [BATCH, height, width, 3]}, streams=settings.threads
        )
        self._queue: Any = ov.AsyncInferQueue(compiled, settings.threads + 1)
        self._queue.set_callback(_collect)
        self._ahead = 2 * (settings.threads + 1)

    def stream(self, batches: Iterable[tuple[Any, Images]]) -> Iterator[tuple[Any, Features]]:
        """Send batches in pieces of one size; the last piece is filled up with black."""
        if self._queue is None:
            raise UsageError("openvino engine: it is closed. Open another one.")
        jobs: deque[_Job] = deque()
        try:
            for tag, images in batches:
                self.check(images)
                jobs.append(self._send(tag, images))
                while jobs and (
                    jobs[0].done.is_set() or sum(len(job.features) for job in jobs) > self._ahead * BATCH
                ):
                    yield self._take(jobs.popleft())
            while jobs:
                yield self._take(jobs.popleft())
        finally:
            self._queue.wait_all()

    def _send(self, tag: Any, images: Images) -> _Job:
        job = _Job(tag, len(images), self.card.features, -(-len(images) // BATCH))
        for start in range(0, len(images), BATCH):
            piece = images[start : start + BATCH]
            count = len(piece)
            if count < BATCH:
                piece = np.concatenate([piece, np.zeros((BATCH - count, *piece.shape[1:]), np.uint8)])
            self._queue.start_async({"images": np.ascontiguousarray(piece)}, (job, start, count))
        return job

    def _take(self, job: _Job) -> tuple[Any, Features]:
        job.done.wait()
        return job.tag, job.features

    def close(self) -> None:
        """Free the graph."""
        self._queue = None


def _collect(request: Any, sent: tuple[_Job, int, int]) -> None:
    job, start, count = sent
    job.store(start, request.get_tensor("features").data[:count])
