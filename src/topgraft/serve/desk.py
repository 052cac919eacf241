"""The one queue that the photos of all requests wait in, and the threads that answer them.

One thread a core takes photo after photo: decode, fit, model. Larger batches for the model would be slower:
OpenVINO on one core needs 17 ms for one photo of EfficientNet-Lite0, and 19 to 22 ms a photo in batches of
2 to 16 (benchmarks/serve.py prints it anew). So requests share the cores photo by photo, in the order they
came, and nobody waits for a batch to fill. A photo that nobody waits behind gets all cores for the model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from topgraft.errors import TopgraftError
from topgraft.photos.decode import read_picture
from topgraft.predictor import Prediction, Predictor, load
from topgraft.serve.limits import Limits, Refused
from topgraft.serve.looked import looked_at
from topgraft.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from topgraft.serve.numbers import Numbers

Given = tuple[str, bytes]
"""A photo's name and its file's bytes."""


class Desk:
    """Answers photos.

    Threads and model are made on the first call of `start`, in the process that answers: a process that was
    forked before is as good as a new one.
    """

    def __init__(self, run: Path, limits: Limits, settings: Settings, numbers: Numbers) -> None:
        self._run, self._limits, self._settings, self._numbers = run, limits, settings, numbers
        self._predictor: Predictor | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._starting = Lock()
        self.waiting = 0

    def start(self) -> tuple[Predictor, ThreadPoolExecutor]:
        """Load the model, if it is not loaded yet."""
        with self._starting:
            if self._predictor is None or self._pool is None:
                self._predictor = load(self._run, settings=self._settings)
                self._predictor.check()  # which also opens the engine
                self._predictor.predict(np.zeros((8, 8, 3), np.uint8))  # and this, for a photo alone
                self._pool = ThreadPoolExecutor(self._settings.threads, thread_name_prefix="desk")
            return self._predictor, self._pool

    def close(self) -> None:
        """Finish what was taken, and free the model."""
        with self._starting:
            if self._pool:
                self._pool.shutdown(wait=True)
            self._pool = self._predictor = None

    async def answer(self, photos: Sequence[Given], *, looked: bool = False) -> list[dict[str, Any]]:
        """Answer photos, in the order they came: `predict`'s JSON.

        Raises:
            Refused: with 503 where too many photos wait already, or no answer came in time.
        """
        if self.waiting and self.waiting + len(photos) > self._limits.waiting:
            raise Refused(503, "too many photos are waiting", Retry_After="1")
        self._wait(len(photos))
        loop = asyncio.get_running_loop()
        try:
            predictor, pool = await asyncio.to_thread(self.start) if self._pool is None else self.start()
        except BaseException:
            self._wait(-len(photos))
            raise
        until = time.monotonic() + self._limits.seconds
        jobs = [loop.run_in_executor(pool, self._one, predictor, *photo, looked, until) for photo in photos]
        for job in jobs:
            job.add_done_callback(lambda _: self._wait(-1))
        _, late = await asyncio.wait(jobs, timeout=self._limits.seconds)
        for job in late:
            job.cancel()
        if late or not all(job.result() for job in jobs):
            raise Refused(503, f"no answer within {self._limits.seconds:g} s", Retry_After="5")
        return [job.result() for job in jobs]

    def _wait(self, more: int) -> None:
        self.waiting += more
        self._numbers.waiting.set(self.waiting)

    def _one(
        self, predictor: Predictor, name: str, data: bytes, looked: bool, until: float
    ) -> dict[str, Any]:
        """Answer one photo, in a thread."""
        if time.monotonic() > until:
            return {}  # nobody waits for it any more
        begun = time.perf_counter()
        try:
            picture = read_picture(data, name or "photo", most=self._limits.pixels)
            prediction = predictor.answer(picture, alone=self.waiting == 1)
        except TopgraftError as error:
            self._numbers.answer("unreadable")
            return Prediction(path=name, error=str(error)).as_dict()
        self._numbers.seconds.observe(time.perf_counter() - begun)
        self._numbers.answer(_counted_as(prediction))
        facts = {"path": name, **prediction.as_dict()} if name else prediction.as_dict()
        if looked:
            facts["looked"] = looked_at(predictor, np.asarray(picture), prediction.label)
        return facts


def _counted_as(prediction: Prediction) -> str:
    return prediction.answer or ("unknown" if prediction.unknown else "unsure")
