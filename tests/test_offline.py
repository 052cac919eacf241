"""Nothing phones home, and what was fetched works with every socket closed."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recording import Recorder, through
from topgraft.backbones import _builtin

pytestmark = pytest.mark.timeout(900)  # a busy machine decides no test

CLOSED = """
import sys
opened, closed = [], True
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        if event == "socket.connect" and isinstance(arguments[1], (str, bytes)):
            return  # between processes of this machine
        opened.append((event, str(arguments[1:])))
        if closed:
            raise OSError("every socket is closed here")
sys.addaudithook(watch)
"""


@pytest.fixture
def recorder():
    with Recorder() as server:
        yield server
        server.shutdown()


def run(script, tmp_path, **environment):
    """Run a script in a process of its own: no pytest in it, for NNCF sends nothing where it sees pytest."""
    given = {key: value for key, value in os.environ.items() if key not in ("CI", "NNCF_CI", "DO_NOT_TRACK")}
    given |= {"HOME": str(tmp_path), "TOPGRAFT_CACHE_DIR": os.environ["TOPGRAFT_CACHE_DIR"], **environment}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=given,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )


def test_the_recorder_sees_what_a_library_sends(recorder, tmp_path):
    script = """
    import urllib.request
    for url in ("http://example.invalid/", "https://example.invalid/"):
        try:
            urllib.request.urlopen(url, timeout=5)
        except OSError:
            pass
    """
    run(script, tmp_path, **through(recorder))
    assert [line.split()[0] for line in recorder.seen] == ["GET", "CONNECT"]


def test_with_every_socket_closed_the_default_works(tmp_path):
    script = CLOSED + textwrap.dedent("""
    import numpy as np
    from topgraft.importers.load import load_backbone
    from topgraft.engines import open_engine
    with open_engine(load_backbone()) as engine:
        print(engine.embed(np.zeros((2, 224, 224, 3), np.uint8)).shape, opened)
    """)
    done = run(script, tmp_path)
    assert done.stdout == "(2, 1280) []\n", done.stderr


@pytest.mark.timm
def test_offline_opens_no_socket_even_for_a_name_of_the_hub_and_a_silent_hub_is_one_line(tmp_path):
    """Both in one process, for most of its time is the import of timm."""
    pytest.importorskip("timm")
    script = CLOSED + textwrap.dedent("""
    import os
    from topgraft.importers.load import load_backbone
    from topgraft.errors import OfflineError
    def ask(name):
        try:
            load_backbone(name)
        except OfflineError as error:
            print(error)
    for name in ("resnet50.a1_in1k", "hf-hub:timm/resnet50.a1_in1k", "vgg16.tv_in1k"):
        ask(name)
    print(opened)
    del os.environ["TOPGRAFT_OFFLINE"]
    closed = False  # the hub's address is one where nobody listens
    ask("hf-hub:me/tiny")
    print(opened)
    """)
    environment = {"TOPGRAFT_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = run(script, tmp_path, TOPGRAFT_CACHE_DIR=str(tmp_path), **environment)
    *told, opened, silent, tried = done.stdout.splitlines()
    assert len(told) == 3, done.stderr
    assert all("Three ways on" in line for line in [*told, silent])
    assert opened == "[]"
    assert silent.startswith("hf-hub:me/tiny")
    assert "127.0.0.1" in tried


# A stand-in for the hub, on loopback


class _Hub(BaseHTTPRequestHandler):
    """Serves files at /OWNER/NAME/resolve/REVISION/FILE, as the hub does."""

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, *, with_body):
        self.server.seen.append((self.command, self.path, self.headers.get("User-Agent", "")))
        parts = self.path.split("?")[0].strip("/").split("/")
        if self.path == "/":
            self.send_response(200)
            self.end_headers()
            return
        file = self.server.folder / parts[-1]
        if "/".join(parts[:2]) != "me/tiny" or not file.is_file():
            self.send_response(404)
            self.send_header(
                "X-Error-Code", "EntryNotFound" if parts[:2] == ["me", "tiny"] else "RepoNotFound"
            )
            self.end_headers()
            return
        body = file.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{len(body):040x}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    pytest.importorskip("timm")
    import timm
    from timm.models import save_for_hf

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.folder = tmp_path_factory.mktemp("hub")
    server.seen = []
    save_for_hf(timm.create_model("test_efficientnet"), str(server.folder), safe_serialization=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.timm
def test_fetch_from_a_hub_that_names_what_it_lacks_and_go_on_without_it(hub, tmp_path):
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    folder = tmp_path / "fetched"
    fetch = f"""
    import sys
    from topgraft.cli import main
    for name in ("nothing", "tiny"):
        sys.argv = ["topgraft", "fetch", f"hf-hub:me/{{name}}", "--to", {str(folder)!r}, "--size", "64"]
        try:
            main()
        except SystemExit as end:
            print(end.code)
    """
    done = run(fetch, tmp_path, HF_ENDPOINT=endpoint, HF_HUB_DISABLE_XET="1")
    assert done.stdout == f"1\n{folder}\n0\n", done.stderr
    assert "topgraft: hf-hub:me/nothing: the hub knows no such model" in done.stderr
    assert sorted(one.name for one in folder.iterdir()) == [
        "LICENCE",
        "SHA256SUMS",
        "card.json",
        "model.onnx",
        "timm",
    ]
    assert json.loads((folder / "card.json").read_text())["origin"] == "hf-hub:me/tiny"
    assert {path for _, path, _ in hub.seen} >= {
        "/me/tiny/resolve/main/config.json",
        "/me/tiny/resolve/main/model.safetensors",
    }
    assert all("telemetry" not in path for _, path, _ in hub.seen)

    elsewhere = CLOSED + textwrap.dedent(f"""
    import numpy as np
    from topgraft.importers.load import load_backbone
    from topgraft.engines import open_engine
    sys.modules["timm"] = sys.modules["torch"] = None
    with open_engine(load_backbone({str(folder)!r})) as engine:
        print(engine.embed(np.zeros((2, 64, 64, 3), np.uint8)).shape, opened)
    """)
    done = run(elsewhere, tmp_path, TOPGRAFT_CACHE_DIR=str(tmp_path / "another cache"))
    assert done.stdout == "(2, 256) []\n", done.stderr


def test_the_default_is_a_file_that_pip_brought():
    assert _builtin.weights_file().is_relative_to(Path(sys.prefix))
