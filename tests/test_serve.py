"""The server answers what predict answers, refuses what is too much, and finishes what it took."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import httpx2
import hypothesis
import numpy as np
import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as Pillow
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import JSONResponse

import topgraft as tg
from tiny import TINY
from topgraft.config import Config
from topgraft.errors import DataError, UsageError
from topgraft.predictor import Predictor, load
from topgraft.recipe import follow
from topgraft.run import Run
from topgraft.serve import Limits, create_app, serve
from topgraft.serve.access import is_loopback, read_token
from topgraft.serve.desk import Desk
from topgraft.serve.gate import Gate
from topgraft.serve.limits import Refused
from topgraft.serve.numbers import Numbers
from topgraft.settings import Settings
from topgraft.testing.drawing import draw_jpeg, draw_photos

TOKEN = "a token that nobody guesses".replace(" ", "-")
SUSHI = draw_jpeg("sushi", 501)
SANDWICH = draw_jpeg("sandwich", 502)
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    photos = draw_photos(tmp_path_factory.mktemp("serve") / "photos", 12, seed=0)
    config = Config.load(
        data__photos=str(photos),
        backbone__name=TINY,
        policies__count=0,
        heads__names=("logistic",),
    )
    return follow(config, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def client(run):
    limits = Limits(bytes=2_000_000, files=3, pixels=1_000_000)
    with TestClient(create_app(run, limits=limits, settings=Settings.load(threads=2))) as opened:
        yield opened


def bomb(side: int = 15_000) -> bytes:
    """Write a PNG of 225 megapixels in 220 kB: all black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(side * (side + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def form(*photos: bytes, name: str = "photos"):
    return [(name, (f"{i}.jpg", photo)) for i, photo in enumerate(photos)]


def test_a_photo_as_the_body_is_answered_as_predict_answers(client, run, tmp_path):
    (tmp_path / "lunch.jpg").write_bytes(SUSHI)
    expected = load(run.path).predict(tmp_path / "lunch.jpg")[0].as_dict()
    for headers in (JPEG, {"Content-Type": "application/octet-stream"}, {}):
        found = client.post("/predict", content=SUSHI, headers=headers)
        assert found.status_code == 200
        assert [{"path": expected["path"], **answer} for answer in found.json()] == [expected]


def test_the_photos_of_a_form_are_answered_in_their_order(client):
    found = client.post("/predict", files=form(SUSHI, SANDWICH, SUSHI, name="any"))
    assert found.status_code == 200
    alone = [client.post("/predict", content=photo, headers=JPEG).json()[0] for photo in (SUSHI, SANDWICH)]
    assert alone[0] != alone[1]
    assert found.json() == [{"path": f"{i}.jpg", **alone[i % 2]} for i in range(3)]


def test_what_cannot_be_read_says_so_and_the_others_go_on(client):
    found = client.post("/predict", files=form(SUSHI, b"no picture", SUSHI[: len(SUSHI) // 2]))
    assert found.status_code == 200
    first, second, third = found.json()
    assert first["label"]
    assert second == {"path": "1.jpg", "error": "1.jpg: is not a picture in a known format"}
    assert third["error"].startswith("2.jpg: is damaged")
    none = client.post("/predict", content=b"no picture", headers=JPEG)
    assert (none.status_code, none.json()) == (
        422,
        [{"path": "", "error": "photo: is not a picture in a known format"}],
    )


def test_where_it_looked_comes_as_a_picture(client):
    found = client.post("/predict?looked=true", content=SUSHI, headers=JPEG).json()[0]["looked"]
    kind, _, data = found.partition(",")
    assert kind == "data:image/png;base64"
    import base64

    picture = Pillow.open(io.BytesIO(base64.b64decode(data)))
    shade = np.asarray(picture)[..., 3]
    assert picture.mode == "RGBA"
    assert max(picture.size) <= 96
    assert shade.min() < 60 < 120 < shade.max()


def test_a_bomb_is_judged_before_it_is_decoded(client):
    import resource

    data = bomb()
    assert len(data) < 2_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = client.post("/predict", content=data, headers={"Content-Type": "image/png"})
    assert found.status_code == 422
    assert "larger than 1,000,000 pixels" in found.json()[0]["error"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # of 225 MB, in kB


def pieces(size: int):
    for _ in range(size // 100_000):
        yield bytes(100_000)


@pytest.mark.parametrize(
    ("request_", "status", "text"),
    [
        ({"content": bytes(2_000_001), "headers": JPEG}, 413, "at most 2 MB"),
        ({"content": pieces(3_000_000), "headers": JPEG}, 413, "at most 2 MB"),
        ({"files": form(*[b"x"] * 4)}, 400, "Too many files"),
        ({"files": form(bytes(2_100_000))}, 413, "at most 2 MB"),
        ({"content": b"", "headers": JPEG}, 400, "there is none in it"),
        ({"data": {"a": "b"}, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, ""),
        ({"content": b"{}", "headers": {"Content-Type": "application/json"}}, 415, "got application/json"),
        ({"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data"}}, 400, "form"),
    ],
)
def test_too_much_and_nonsense_are_refused_in_words(client, request_, status, text):
    found = client.post("/predict", **request_)
    assert found.status_code == status
    assert text in found.json()["detail"]
    assert "\n" not in found.json()["detail"]
    assert client.post("/predict", content=SUSHI, headers=JPEG).status_code == 200


async def held_at(gate: Gate, *chunks: bytes, until: asyncio.Event | None = None) -> int:
    """Send a request in pieces through a gate, as a server does, and return the status of the answer."""
    left, said = list(chunks), []

    async def receive():
        if not left and until:
            await until.wait()
        return {
            "type": "http.request",
            "body": left.pop(0) if left else b"",
            "more_body": bool(left or until),
        }

    async def send(message):
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"transfer-encoding", b"chunked")]}
    await gate(scope, receive, send)
    return said[0]["status"]


def test_bodies_that_were_too_large_leave_the_bytes_held_as_they_were():
    """What was refused in the middle is neither held nor given back: else 503 comes later each time."""

    async def taking(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await JSONResponse({})(scope, receive, send)

    async def go():
        limits = Limits(bytes=1_000, held_bytes=1_500)
        gate = Gate(
            taking,
            limits=limits,
            numbers=Numbers(("a",)),
            token=None,
            loopback=False,
            public=frozenset(),
        )
        for _ in range(3):
            assert await held_at(gate, bytes(900), bytes(900)) == 413
        slow = asyncio.Event()
        first = asyncio.create_task(held_at(gate, bytes(900), until=slow))
        await asyncio.sleep(0)
        assert await held_at(gate, bytes(600)) == 200
        assert await held_at(gate, bytes(601)) == 503
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        assert await held_at(gate, bytes(1_000)) == 200

    asyncio.run(go())


def test_a_server_that_holds_as_much_as_it_can_says_when_to_come_again(run):
    limits = Limits(held_bytes=len(SUSHI))
    with TestClient(create_app(run, limits=limits, settings=Settings.load(threads=1))) as client:
        assert client.post("/predict", content=SUSHI, headers=JPEG).status_code == 200
        for too_much in ({"content": SUSHI + b"x", "headers": JPEG}, {"files": form(SUSHI)}):
            found = client.post("/predict", **too_much)
            assert (found.status_code, found.headers["Retry-After"]) == (503, "1")
            assert "holds as much as it can" in found.json()["detail"]
        assert client.post("/predict", content=SUSHI, headers=JPEG).status_code == 200


def desk_of(run, **limits) -> Desk:
    return Desk(run.path, Limits(**limits), Settings.load(threads=1), Numbers(("a", "b")))


def test_a_full_queue_says_when_to_come_again_and_forgets_nobody(run):
    desk = desk_of(run, waiting=2)

    async def three():
        first, second, third = await asyncio.gather(
            desk.answer([("a", SUSHI), ("b", SUSHI)]),
            desk.answer([("c", SUSHI)]),
            desk.answer([("d", SUSHI)]),
            return_exceptions=True,
        )
        return first, second, third, await desk.answer([("e", SUSHI)])

    first, second, third, later = asyncio.run(three())
    assert [answer["path"] for answer in first] == ["a", "b"]
    for refused in (second, third):
        assert isinstance(refused, Refused)
        assert (refused.status, refused.headers) == (503, {"Retry-After": "1"})
    assert later[0]["label"]
    assert desk.waiting == 0
    desk.close()


def test_a_photo_that_nobody_waits_behind_has_all_cores_and_the_same_answer(run, monkeypatch):
    desk = Desk(run.path, Limits(), Settings.load(threads=2), Numbers(("a", "b")))
    predictor, _ = desk.start()
    said: list[bool] = []

    def answer(picture, *, alone):
        said.append(alone)
        return Predictor.answer(predictor, picture, alone=alone)

    monkeypatch.setattr(predictor, "answer", answer)

    async def ask():
        together = await desk.answer([("", SUSHI)] * 3)
        return together, [(await desk.answer([("", SUSHI)]))[0] for _ in range(2)]

    together, apart = asyncio.run(ask())
    assert said[0] is False
    assert said[3:] == [True, True]
    assert apart == together[:2]
    desk.close()


def test_a_request_without_an_answer_in_time_is_given_up(run):
    desk = desk_of(run, seconds=0.001)
    desk.start()

    async def late():
        with pytest.raises(Refused, match="no answer within") as refused:
            await desk.answer([(str(i), SUSHI) for i in range(20)])
        while desk.waiting:
            await asyncio.sleep(0.01)
        return refused.value

    assert asyncio.run(asyncio.wait_for(late(), 60)).status == 503
    desk.close()


def test_a_token_is_asked_for_where_answers_are(run):
    with TestClient(create_app(run, token=TOKEN)) as client:
        for path in ("/", "/healthz", "/docs", "/openapi.json", "/page.css", "/page.mjs", "/ask.mjs"):
            assert client.get(path).status_code == 200, path
        for path in ("/card", "/metrics", "/anything"):
            assert client.get(path).status_code == 401, path
        for header in (
            None,
            "",
            "Bearer",
            "Bearer x",
            f"Basic {TOKEN}",
            TOKEN,
            f"Bearer {TOKEN}x",
            "Bearer é",
        ):
            headers = {**JPEG, **({"Authorization": header.encode()} if header is not None else {})}
            found = client.post("/predict", content=SUSHI, headers=headers)
            assert found.status_code == 401, header
            assert found.headers["WWW-Authenticate"] == "Bearer"
        with_it = {"Authorization": f"Bearer {TOKEN}"}
        assert client.post("/predict", content=SUSHI, headers={**JPEG, **with_it}).status_code == 200
        assert client.get("/card", headers=with_it).json()["classes"] == ["sandwich", "sushi"]
        assert TOKEN not in client.get("/openapi.json").text + client.get("/").text


def test_on_loopback_other_names_are_refused_and_no_other_site_may_read(run):
    with TestClient(create_app(run, loopback=True), base_url="http://127.0.0.1:8000") as client:
        for host in ("127.0.0.1:8000", "localhost", "localhost:1", "[::1]:8000", "127.0.0.9"):
            assert client.get("/card", headers={"Host": host}).status_code == 200, host
        for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "192.0.2.7", ""):
            assert client.get("/card", headers={"Host": host}).status_code == 400, host
        asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        for found in (client.options("/predict", headers=asked), client.get("/card", headers=asked)):
            assert not [name for name in found.headers if name.startswith("access-control")]


def test_prometheus_reads_the_numbers(run):
    with TestClient(create_app(run)) as client:
        client.post("/predict", files=form(SUSHI, b"no picture"))
        client.post("/predict", content=b"", headers=JPEG)
        client.get("/nowhere/123")
        text = client.get("/metrics").text
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["topgraft_requests_total", "/predict", "200"] == 1
    assert found["topgraft_requests_total", "/predict", "400"] == 1
    assert found["topgraft_requests_total", "404", "other"] == 1
    assert found["topgraft_photos_total", "unreadable"] == 1
    assert sum(value for (name, *_), value in found.items() if name == "topgraft_photos_total") == 2
    assert found["topgraft_photo_seconds_count",] == 1
    assert found["topgraft_waiting_photos",] == 0


def test_no_page_asks_anybody_else(client):
    for path in ("/", "/docs"):
        found = client.get(path)
        assert "default-src 'none'" in found.headers["Content-Security-Policy"]
        assert not re.search(r"(src|href)=[\"'](https?:)?//", found.text)
    assert not re.search(
        r"https?://(?!testserver|localhost)", client.get("/page.mjs").text + client.get("/ask.mjs").text
    )
    documented = re.findall(r"<code>(?:GET|POST) (/\w+)</code>", client.get("/docs").text)
    assert documented == ["/predict", "/card", "/healthz", "/metrics"]


def test_it_can_be_mounted_in_another_application(run):
    parent = FastAPI()
    parent.mount("/photos", create_app(run, token=TOKEN))
    with TestClient(parent) as client:  # nobody starts a mounted application
        headers = {**JPEG, "Authorization": f"Bearer {TOKEN}"}
        assert client.post("/photos/predict", content=SUSHI, headers=headers).json()[0]["label"]
        assert client.post("/photos/predict", content=SUSHI, headers=JPEG).status_code == 401
        assert client.get("/photos/").status_code == 200


def test_an_application_that_was_forked_answers(run):
    app = create_app(run)
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    else:
        code = 1
        with contextlib.suppress(BaseException), TestClient(app) as client:
            code = 0 if client.post("/predict", content=SUSHI, headers=JPEG).status_code == 200 else 2
        os._exit(code)


def test_an_exported_folder_is_served(run, tmp_path):
    folder = tg.export(run, tmp_path / "out", format="openvino").path
    with TestClient(create_app(folder)) as client:
        assert client.post("/predict", content=SUSHI, headers=JPEG).json()[0]["label"]


def test_mistakes_are_said_before_anything_is_loaded(run, tmp_path):
    with pytest.raises(UsageError, match=r"--host 0\.0\.0\.0: others can reach it"):
        serve(run.path, host="0.0.0.0")
    with pytest.raises(DataError, match="found no such folder"):
        serve(tmp_path / "nowhere", port=free_port())
    (tmp_path / "short").write_text("abc\n")
    with pytest.raises(UsageError, match="a token of 16"):
        serve(run.path, token_file=tmp_path / "short")
    with pytest.raises(UsageError, match="cannot read it"):
        read_token(tmp_path / "absent")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="in use"):
            serve(run.path, port=taken.getsockname()[1])
    (tmp_path / "good").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "good") == TOKEN
    assert [
        is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "example.org")
    ] == [
        *[True] * 3,
        *[False] * 3,
    ]


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_the_schema_holds_for_whatever_is_sent(run, mode):
    pictures = hypothesis.strategies.sampled_from([SUSHI, SANDWICH])  # what no schema can say
    schemathesis.openapi.format("binary", pictures)
    schemathesis.openapi.media_type("application/octet-stream", pictures)
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(run, limits=Limits(files=3)))
    asked = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        @hypothesis.settings(
            max_examples=30,
            suppress_health_check=list(hypothesis.HealthCheck),
            derandomize=True,
            database=None,
        )
        def holds(case):
            asked.append(case.path)
            case.call_and_validate()

        with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing about it can be wrong
            holds()
    assert "/predict" in asked


# From here on, a server in a process of its own.


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


class Server:
    """`topgraft serve` as a user starts it."""

    def __init__(self, run: Path, *words: str, code: str = "") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = (
            ["-c", code] if code else ["-m", "topgraft.cli", "serve", str(run), "--port", str(self.port)]
        )
        self.process = subprocess.Popen(
            [sys.executable, *command, *words],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PORT": str(self.port)},
        )
        while self.process.poll() is None:
            with contextlib.suppress(httpx2.HTTPError):
                if httpx2.get(f"{self.url}/healthz", timeout=240).status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(self.process.communicate()[1])

    def stop(self) -> str:
        self.process.terminate()
        return self.process.communicate(timeout=240)[1]


QUICK = """
import os, sys
from topgraft.serve import Limits, serve
serve(sys.argv[1], port=int(os.environ["PORT"]), limits=Limits(seconds=1.5, bytes=1_000_000))
"""


def test_slow_senders_are_shown_out_and_others_do_not_wait(run):
    server = Server(run.path, str(run.path), code=QUICK)
    try:
        slow, large = (socket.create_connection(("127.0.0.1", server.port)) for _ in range(2))
        slow.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: 9999\r\n\r\nab"
        )
        status = 0
        while status in (0, 408, 503):  # a busy machine may not do it in 1.5 s
            asked = httpx2.post(f"{server.url}/predict", content=SUSHI, headers=JPEG, timeout=240)
            status = asked.status_code
        assert status == 200
        slow.settimeout(240)
        answer = b""
        while piece := slow.recv(1000):  # until the server closes
            answer += piece
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"expected the whole request within 1.5 s" in answer
        large.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n")
        large.settimeout(240)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := large.recv(1000):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 413 ")
        slow.close()
        large.close()
        endless = socket.create_connection(("127.0.0.1", server.port))
        endless.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        with pytest.raises(ConnectionError):  # what stands before the body is not read without end
            endless.sendall((b"A: " + b"a" * 30_000 + b"\r\n") * 1000)
        endless.close()
    finally:
        assert "Traceback" not in server.stop()


def test_a_stop_finishes_what_was_taken(run):
    server = Server(run.path)
    found: list[httpx2.Response] = []
    photos = form(*[SUSHI] * 30)
    asking = threading.Thread(
        target=lambda: found.append(httpx2.post(f"{server.url}/predict", files=photos, timeout=240))
    )
    asking.start()
    waiting = 0
    while asking.is_alive() and not waiting:
        text = httpx2.get(f"{server.url}/metrics", timeout=240).text
        waiting = float(re.search(r"^topgraft_waiting_photos (\S+)", text, re.MULTILINE)[1])
    said = server.stop()
    asking.join()
    assert [answer.status_code for answer in found] == [200]
    assert len([answer for answer in found[0].json() if answer["label"]]) == 30
    assert "Traceback" not in said
    assert server.process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


WORKERS = """
import os, sys
from fastapi.testclient import TestClient
from topgraft.serve import create_app, serve
try:
    serve(sys.argv[1], port=int(os.environ["PORT"]), workers=2)
except BaseException:  # uvicorn sends the signal that ended it once more
    pass
finally:
    with TestClient(create_app(sys.argv[1])) as client:
        print("afterwards", client.get("/metrics").status_code, file=sys.stderr)
"""


def test_several_workers_answer_and_count_together(run):
    server = Server(run.path, str(run.path), code=WORKERS)
    try:
        for _ in range(12):  # a connection each, so that both get some
            with httpx2.Client() as client:
                assert (
                    client.post(f"{server.url}/predict", content=SUSHI, headers=JPEG, timeout=240).status_code
                    == 200
                )
        text = httpx2.get(f"{server.url}/metrics", timeout=240).text
        assert 'topgraft_requests_total{route="/predict",status="200"} 12.0' in text
    finally:
        said = server.stop()
    assert "Traceback" not in said
    assert "afterwards 200" in said  # the folder where they counted together is gone


def test_the_command_line_says_where_it_listens(run):
    server = Server(run.path)
    assert httpx2.get(f"{server.url}/card", timeout=240).json()["classes"] == ["sandwich", "sushi"]
    assert f"http://127.0.0.1:{server.port}/" in server.stop()


def test_the_card_is_the_runs(client, run):
    assert client.get("/card").json() == json.loads((run.model / "card.json").read_text())


@pytest.mark.nightly
def test_two_thousand_requests_of_every_kind_leave_the_server_and_its_memory_as_they_were(run):
    """Good, truncated, bombs, wrong types, no pictures, empty, too large, and slow senders beside them."""
    benchmark = Path(__file__).parent.parent / "benchmarks" / "serve.py"
    asked = ["--photos", run.config.data.photos, "--rounds", "1", "--count", "8", "--requests", "2000"]
    done = subprocess.run(
        [sys.executable, str(benchmark), "--run", str(run.path), *asked],
        capture_output=True,
        text=True,
        check=True,
    )
    facts = json.loads(done.stdout.splitlines()[-1])
    counts = facts["mixed"]["statuses"]
    assert sum(n for kind in counts.values() for n in kind.values()) == 2000
    assert set(counts["good"]) <= {"200", "503"}
    assert facts["met"]["no death, no 5xx but 503"], counts
    assert facts["mixed"]["growth MB"] < 100
