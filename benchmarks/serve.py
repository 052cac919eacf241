"""Serving: one client and eight against the bare engine, then 2,000 requests of every kind.

    python benchmarks/serve.py --run RUN --photos PHOTOS [--rounds 10] [--count 80] [--requests 2000]

RUN is a finished run, PHOTOS a folder of JPEG files. Everything happens on this machine, over loopback, with
one server process. In every round each contender answers the same photos, in an order that turns from round
to round, so that each round gives one ratio of each pair under the same load:

    engine    the model in OpenVINO on fitted pixels that lie in memory: one photo after the other on all
              cores (p50), and one photo a core (pace)
    predict   `Predictor.predict` on the files' bytes: decode, fit, model; what a loop without a server does
    serve     HTTP requests, a photo each: one client (p50), eight clients (pace)

The clients take a core's share, too. The last line is one JSON with figures, goals and whether they are met.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from socket import create_connection, socket
from typing import Any

import numpy as np

from topgraft.backbones.fit import fit
from topgraft.engines._openvino import compile_model
from topgraft.photos.decode import read_picture
from topgraft.predictor import Predictor, load
from topgraft.settings import usable_cores

GOALS = {"p50 serve/engine": 1.6, "pace serve/engine": 0.85, "memory growth MB": 100.0}
BATCHES = (1, 2, 4, 8, 16)
CLIENTS = 8


def free_port() -> int:
    with socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


@contextmanager
def server(run: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start `topgraft serve` and wait until it answers."""
    port = free_port()
    command = [sys.executable, "-m", "topgraft.cli", "serve", str(run), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                if ask(HTTPConnection("127.0.0.1", port, timeout=60), "GET", "/healthz", b"")[0] == 200:
                    break
            except OSError:
                time.sleep(0.1)
        else:
            raise SystemExit("the server did not start")
        yield process, port
    finally:
        process.terminate()
        process.wait()


def ask(
    connection: HTTPConnection, method: str, path: str, body: bytes, kind: str = "image/jpeg"
) -> tuple[int, bytes]:
    connection.request(method, path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    return answer.status, answer.read()


def again(connection: HTTPConnection, photo: bytes) -> None:
    """Ask for one photo; a connection that was idle for too long is opened anew."""
    try:
        status, _ = ask(connection, "POST", "/predict", photo)
    except (ConnectionError, HTTPException):
        connection.close()
        status, _ = ask(connection, "POST", "/predict", photo)
    if status != 200:
        raise SystemExit(f"the server answered {status}")


def one_by_one(call: Callable[[Any], Any], things: list[Any]) -> float:
    """Return the median seconds of a call."""
    seconds = []
    for thing in things:
        begun = time.perf_counter()
        call(thing)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def together(calls: list[Callable[[Any], Any]], things: list[Any]) -> float:
    """Return things a second, with so many callers that each take the next one."""
    left = iter(list(things))
    lock = threading.Lock()

    def work(call: Callable[[Any], Any]) -> None:
        while True:
            with lock:
                thing = next(left, None)
            if thing is None:
                return
            call(thing)

    begun = time.perf_counter()
    with ThreadPoolExecutor(len(calls)) as pool:
        for done in [pool.submit(work, call) for call in calls]:
            done.result()
    return len(things) / (time.perf_counter() - begun)


class Engine:
    """The model alone, on fitted pixels: `one` on all cores, `calls` on a core each."""

    def __init__(self, graph: bytes, cores: int) -> None:
        whole = compile_model(graph, start="images", streams=0)
        self._one = whole.create_infer_request()
        self._side = compile_model(graph, start="images", streams=cores)
        self._many = [self._side.create_infer_request() for _ in range(cores)]

    def one(self, pixels: np.ndarray) -> None:
        """Answer one photo."""
        self._one.infer({"images": pixels[None]})

    def calls(self) -> list[Callable[[np.ndarray], None]]:
        """Return a caller for each core."""
        return [
            lambda pixels, request=request: request.infer({"images": pixels[None]}) for request in self._many
        ]


def batches(graph: bytes, fitted: np.ndarray, cores: int) -> dict[int, float]:
    """Return the backbone's pace by batch size, one stream a core."""
    import onnx
    from onnx.utils import Extractor

    model = onnx.load_from_string(graph)
    shape = ["N", *fitted.shape[1:]]
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, shape))
    backbone = Extractor(model).extract_model(["images"], ["features"]).SerializeToString()
    paces = {}
    for size in BATCHES:
        compiled = compile_model(backbone, shape={"images": [size, *fitted.shape[1:]]}, streams=cores)
        requests = [compiled.create_infer_request() for _ in range(cores)]
        pieces = [fitted[start : start + size] for start in range(0, len(fitted) - size + 1, size)]
        calls = [lambda piece, request=request: request.infer({"images": piece}) for request in requests]
        together(calls, pieces[:cores])
        paces[size] = size * together(calls, pieces)
    return paces


def memory_mb(process: int) -> float:
    text = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def spent(process: int, way: Callable[[], Any]) -> float:
    """Return the processor seconds that a process needs for something; other processes do not count."""

    def so_far() -> float:
        ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    before = so_far()
    way()
    return so_far() - before


def bomb() -> bytes:
    """Write a PNG's header of 900 megapixels, and nothing behind it."""
    import struct
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def every_kind(port: int, process: int, files: list[bytes], requests: int) -> dict[str, Any]:
    """Send requests of every kind, and watch statuses and memory."""
    large = bytes(33_000_000)
    form = (
        b"--x\r\nContent-Disposition: form-data; name=a; filename=a.jpg\r\n\r\n" + files[0] + b"\r\n--x--\r\n"
    )
    kinds: list[tuple[str, Callable[[int], tuple[bytes, str]]]] = [
        ("good", lambda i: (files[i % len(files)], "image/jpeg")),
        ("good", lambda _: (form, "multipart/form-data; boundary=x")),
        ("truncated", lambda i: (files[i % len(files)][: 2000 + i], "image/jpeg")),
        ("good", lambda i: (files[(7 * i) % len(files)], "application/octet-stream")),
        ("bomb", lambda _: (bomb(), "image/png")),
        ("wrong type", lambda _: (b'{"a": 1}', "application/json")),
        ("no picture", lambda i: (bytes([i % 256]) * 5000, "image/jpeg")),
        ("empty", lambda _: (b"", "image/jpeg")),
        ("too large", lambda _: (large, "image/jpeg")),
    ]
    statuses: dict[str, dict[int, int]] = {}
    lock = threading.Lock()
    slow = [create_connection(("127.0.0.1", port)) for _ in range(20)]
    for connection in slow:  # they never send the rest
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\nab")

    def send(i: int) -> None:
        name, make = kinds[i % len(kinds)]
        if name == "too large" and i % 10:
            name, make = kinds[0]
        body, kind = make(i)
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            status = ask(connection, "POST", "/predict", body, kind)[0]
        except (ConnectionError, HTTPException):
            status = 0 if name != "too large" else 413  # it hangs up on what it does not read
        finally:
            connection.close()
        with lock:
            counts = statuses.setdefault(name, {})
            counts[status] = counts.get(status, 0) + 1

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, range(requests // 10)))  # until every thread and buffer is there
        before = peak = memory_mb(process)
        for start in range(requests // 10, requests, 50):
            list(pool.map(send, range(start, min(start + 50, requests))))
            peak = max(peak, memory_mb(process))
    for connection in slow:
        connection.close()
    wrong = sum(
        n
        for counts in statuses.values()
        for status, n in counts.items()
        if status == 0 or (status >= 500 and status != 503)
    )
    return {
        "statuses": statuses,
        "before MB": before,
        "peak MB": peak,
        "growth MB": peak - before,
        "wrong": wrong,
    }


def parts(predictor: Predictor, files: list[bytes]) -> dict[str, float]:
    """Return the processor milliseconds a photo of what `predict` does, each by itself in one thread."""
    pictures = [read_picture(data) for data in files]
    card, answer = predictor.card.backbone, predictor.answer
    steps: dict[str, Callable[[], Any]] = {
        "decode": lambda: [read_picture(data) for data in files],
        "fit": lambda: [fit(picture, card) for picture in pictures],
        "fit, model and answer": lambda: [answer(picture) for picture in pictures],
    }
    found = {}
    for name, step in steps.items():
        step()
        before = time.process_time()
        step()
        found[name] = 1e3 * (time.process_time() - before) / len(files)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--count", type=int, default=80, help="photos a round")
    parser.add_argument("--requests", type=int, default=2000)
    given = parser.parse_args()
    paths = sorted(given.photos.rglob("*.jpg"))[: given.count]
    files = [path.read_bytes() for path in paths]
    predictor, cores = load(given.run), usable_cores()
    fitted = np.stack([fit(read_picture(data), predictor.card.backbone) for data in files])
    graph = (given.run / "model" / "model.onnx").read_bytes()
    engine = Engine(graph, cores)
    by_batch = batches(graph, fitted, cores)
    print(
        "backbone alone, images/s by batch:",
        {size: round(pace, 1) for size, pace in by_batch.items()},
        flush=True,
    )
    figures: dict[str, list[float]] = {}
    with server(given.run) as (process, port):
        clients = [HTTPConnection("127.0.0.1", port, timeout=120) for _ in range(CLIENTS)]
        calls = [lambda data, c=c: again(c, data) for c in clients]
        alone = predictor.predict
        ways = [
            ("p50 engine", lambda: one_by_one(engine.one, list(fitted))),
            ("p50 predict", lambda: one_by_one(alone, files)),
            ("p50 serve", lambda: one_by_one(calls[0], files)),
            ("pace engine", lambda: together(engine.calls(), list(fitted))),
            ("pace predict", lambda: together([alone] * cores, files)),
            ("pace serve", lambda: together(calls, files)),
        ]
        for _, way in ways:
            way()
        processor = {
            "engine": 1e3 * spent(os.getpid(), ways[3][1]) / len(files),
            "predict": 1e3 * spent(os.getpid(), ways[4][1]) / len(files),
            "serve": 1e3 * spent(process.pid, ways[5][1]) / len(files),
            "parts": parts(predictor, files),
        }
        print("processor ms a photo:", processor, flush=True)
        for turn in range(given.rounds):
            for name, way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
                figures.setdefault(name, []).append(way())
            print({name: round(values[-1], 4) for name, values in figures.items()}, flush=True)
        kinds = every_kind(port, process.pid, files, given.requests)
        alive = process.poll() is None
    medians = {name: statistics.median(values) for name, values in figures.items()}
    ratios = {
        f"{what} serve/{other}": statistics.median(
            a / b for a, b in zip(figures[f"{what} serve"], figures[f"{what} {other}"], strict=True)
        )
        for what in ("p50", "pace")
        for other in ("engine", "predict")
    }
    found = {**ratios, "memory growth MB": kinds["growth MB"]}
    met = {
        "p50 serve/engine": found["p50 serve/engine"] <= GOALS["p50 serve/engine"],
        "pace serve/engine": found["pace serve/engine"] >= GOALS["pace serve/engine"],
        "memory growth MB": found["memory growth MB"] <= GOALS["memory growth MB"],
        "no death, no 5xx but 503": alive and not kinds["wrong"],
    }
    facts = {
        "machine": platform.processor() or platform.machine(),
        "cores": cores,
        "load": os.getloadavg()[1],
        "medians": medians,
        "ratios": ratios,
        "by batch": by_batch,
        "processor ms a photo": processor,
        "mixed": kinds,
        "goals": GOALS,
        "met": met,
        "ok": all(met.values()),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
