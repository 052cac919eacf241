"""Photos read in threads, in order, a bounded number ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import cv2

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Job], Result], jobs: Iterable[Job], threads: int, ahead: int
) -> Iterator[Result]:
    """Yield what `work` makes of every job, in their order.

    Decoding, fit and warp are C code that lets other threads run meanwhile. What `work` raises is raised here
    in its turn, and no further job is begun.

    Args:
        work: reads one photo, say.
        jobs: what to do.
        threads: how many are done at once.
        ahead: how many may be done or under way before the first is asked for: what bounds the memory.
    """
    jobs = iter(jobs)
    with ThreadPoolExecutor(threads, thread_name_prefix="topgraft-reader") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            waiting.extend(pool.submit(work, job) for job in islice(jobs, ahead))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, job) for job in islice(jobs, 1))
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Let OpenCV use one thread a call while photos are worked on side by side: its own would be in the way.

    The number is the process's, so it is put back.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
