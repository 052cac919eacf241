"""Embedding on many machines: the same partitions, computed by Ray's workers.

A worker is given blocks, the backbone's graph and the photos' names; it builds its own reader, engine and
writer and puts whole blocks into the store, which every worker must reach under the same path or URL, and so
the photos. Nothing but names comes back. A block that is there is done, so a partition whose worker died is
given out again and its finished blocks are passed over.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from topgraft._embed.partition import Partition, Tell, compute
from topgraft.errors import StoreError, UsageError
from topgraft.files import absolute, said
from topgraft.settings import Settings
from topgraft.store.place import Place
from topgraft.store.rows import Rows
from topgraft.telemetry import import_silently
from topgraft.types import Progress, silent

SHARES = 8
"""Partitions a worker gets on the average: what a lost one costs against opening the engine anew."""

KNOCK_S = 10.0
"""How long a cluster may take to answer."""

ATTEMPTS = 5
"""How often one partition may lose its worker before something else must be wrong."""


def distribute(whole: Partition, address: str = "", progress: Progress = silent) -> None:
    """Do a partition's work on a Ray cluster.

    Args:
        whole: all the work; its store is planned.
        address: of the cluster; empty for the one this process is connected to, that `RAY_ADDRESS` names, or
            else one of this machine's own cores.
        progress: told of rows done.

    Raises:
        MissingExtraError: without the extra `ray`.
        UsageError: where no cluster answers at the address.
        DataError, StoreError: as `partition.compute` raises them; what was finished is kept.
        StoreError: where one partition loses its worker again and again.
    """
    ray = import_silently("ray", "ray", "workers='ray'")
    with _cluster(ray, address, whole.settings.threads):
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        threads = max(1, min([whole.settings.threads, *(n for n in cores if n)]))
        workers = max(1, sum(n // threads for n in cores))
        graph = ray.put(whole.backbone.graph.read_bytes())
        task = ray.remote(num_cpus=threads, max_retries=0)(_work)
        parts = deque(cut(whole, SHARES * workers, threads))
        _schedule(
            ray,
            lambda part: task.remote(part, graph),
            parts,
            workers + 1,  # one more than can run, so that none waits for the next
            lambda done: progress("embedding", done, whole.rows),
        )


def cut(whole: Partition, parts: int, threads: int) -> Iterator[Partition]:
    """Cut a partition into at most so many, each with the photos it needs and no others."""
    data = replace(whole.data, looks={}, refused=(), ignored=(), root=absolute(whole.data.root))
    table = replace(whole.table, samples=(), groups=(), plain=())
    size = max(1, -(-len(whole.work) // parts))
    settings = replace(whole.settings, threads=threads)
    for start in range(0, len(whole.work), size):
        work = whole.work[start : start + size]
        digests = {digest for block in work for digest in block.digests}
        yield replace(
            whole,
            store=absolute(whole.store),
            table=table,
            work=work,
            data=replace(data, samples=tuple(sample for sample in data.samples if sample.digest in digests)),
            readers=threads,
            settings=settings,
        )


def _schedule(
    ray: Any, submit: Callable[[Partition], Any], waiting: deque[Partition], most: int, tell: Tell
) -> None:
    """Keep every worker busy until all is done; after a failure let those under way come to their end."""
    running: dict[Any, Partition] = {}
    lost: dict[tuple[str, int], int] = {}
    failure: Exception | None = None
    done = 0
    while running or (waiting and failure is None):
        while waiting and len(running) < most and failure is None:
            part = waiting.popleft()
            running[submit(part)] = part
        finished = ray.wait(list(running))[0][0]
        part = running.pop(finished)
        try:
            ray.get(finished)
        except ray.exceptions.RayTaskError as error:
            failure = failure or error.cause
        except ray.exceptions.RayError as error:
            key = (part.work[0].plan, part.work[0].index)
            lost[key] = lost.get(key, 0) + 1
            if lost[key] < ATTEMPTS:
                waiting.append(part)
            else:
                failure = failure or StoreError(
                    f"{part.store}: a partition lost its worker {ATTEMPTS} times ({said(error)})."
                    " Is there enough memory for the engine?"
                )
        else:
            done += part.rows
            tell(done)
    if failure is not None:
        raise failure


def _work(part: Partition, graph: bytes) -> None:
    """Run in a worker: compute the blocks that are not there yet."""
    rows = Rows(Place(part.store))
    there = {plan: _present(rows, part, plan) for plan in {block.plan for block in part.work}}
    left = tuple(block for block in part.work if block.index not in there[block.plan])
    if not left:
        return
    with tempfile.TemporaryDirectory(prefix="topgraft-") as folder:
        model = Path(folder, "model.onnx")
        model.write_bytes(graph)
        own = Settings.load(threads=part.settings.threads, device=part.settings.device)
        compute(replace(part, work=left, backbone=replace(part.backbone, graph=model), settings=own))


def _present(rows: Rows, part: Partition, plan: str) -> set[int]:
    """Return the blocks of a plan that are there under every address this partition writes of it."""
    addresses = {kind.address for block in part.work if block.plan == plan for kind in block.parts}
    return set.intersection(*(rows.present(address, plan) for address in addresses))


@contextmanager
def _cluster(ray: Any, address: str, threads: int) -> Iterator[None]:
    """Connect, unless this process already is, and leave again.

    Raises:
        UsageError: where nothing answers.
    """
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = address or os.environ.get("RAY_ADDRESS", "")
    try:
        if address:
            _knock(address)
            ray.init(address, **quiet)
        else:
            ray.init("local", num_cpus=threads, include_dashboard=False, **quiet)
    except Exception as error:  # a node that does not start in time is a bare one
        raise UsageError(
            f"workers: no Ray cluster answers at {address or 'this machine'} ({said(error)})."
            " Start one with `ray start --head`."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Try `host:port` once: Ray itself waits for minutes where nobody answers.

    Raises:
        OSError: where nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), KNOCK_S).close()
