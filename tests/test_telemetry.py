"""Nothing phones home: how libraries that report their use are imported, and what they do then."""

import ast
import os
import re
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from recording import Recorder, run_watched, through
from tiny import TINY
from topgraft import telemetry
from topgraft.config import Config
from topgraft.errors import MissingExtraError
from topgraft.recipe import follow
from topgraft.testing.drawing import draw_photos

CHECKOUT = Path(__file__).resolve().parents[1]
MEANT = (".cache/topgraft/", ".ray/auth_token")
"""What may be left at home: our own cache, and the key with which Ray's processes know each other."""

# Each library as it is used here, from a cold start: what quantises comes before any other import.
USES = {
    ("nncf", "onnxruntime"): """
        import numpy as np
        from topgraft.importers.load import load_backbone
        from topgraft.engines import open_engine
        from topgraft.importers.quantize import quantize
        shown = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
        exact = load_backbone("tf_efficientnet_lite0@96")
        with open_engine(quantize(exact, shown), precision="int8") as engine:
            assert engine.embed(shown).shape == (4, 1280)
    """,
    ("onnxruntime",): """
        import os
        from pathlib import Path
        from topgraft.predictor import load
        photo = next(Path(os.environ["PHOTOS"]).rglob("*.jpg"))
        assert not load(os.environ["RUN"], engine="onnxruntime").predict([photo])[0].error
    """,
    ("mlflow",): """
        import os
        from topgraft._track import track
        assert track(os.environ["RUN"])
    """,
    ("ray",): """
        import os
        from topgraft import Dataset, embed
        from topgraft.errors import UsageError
        data = Dataset.from_folder(os.environ["PHOTOS"])
        for patience in range(4, -1, -1):  # Ray gives its first node 30 s, which a busy machine may not keep
            try:
                store = embed(data, "there.zarr", workers="ray")
                break
            except UsageError as error:
                if "timed out during startup" not in str(error):
                    raise
                if not patience:
                    print("too busy")
                    raise SystemExit from error
        assert store.features(0).shape == (16, 1280)
    """,
}
LIVE_ON = """
import sys, time
assert {libraries!r} <= set(sys.modules)
time.sleep({seconds})
print("still here")
"""
pytestmark = pytest.mark.timeout(900)  # a busy machine decides no test
EACH = pytest.mark.parametrize("libraries", USES, ids=",".join)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Photos and a run, as environment variables."""
    folder = tmp_path_factory.mktemp("trained")
    photos = draw_photos(folder / "photos", 8, seed=0)
    config = Config.load(
        data__photos=str(photos),
        backbone__name=TINY,
        policies__count=0,
        heads__names=("mean",),
    )
    run = follow(config, folder / "run")
    return {"PHOTOS": str(photos), "RUN": str(run.path)}


def words(script, libraries, seconds, folder, **environment):
    """Run a script that imports libraries, let it live on, and give what it sent and what it left at home."""
    script = textwrap.dedent(script) + LIVE_ON.format(libraries=set(libraries), seconds=seconds)
    with Recorder() as recorder:
        ran = run_watched(script, folder, **environment, **through(recorder))
        recorder.shutdown()
    if ran.done.stdout.endswith("too busy\n"):
        pytest.skip("this machine is too busy for Ray to start in the 30 s that it gives itself")
    assert ran.done.stdout.endswith("still here\n"), ran.done.stderr
    return [*recorder.sent_out, *ran.asked], [file for file in ran.left if not file.startswith(MEANT)]


def installed(libraries):
    if missing := [name for name in libraries if not find_spec(name)]:
        pytest.skip(f"{' and '.join(missing)} not installed")


@EACH
def test_a_short_process_sends_nothing_and_leaves_nothing_to_send(libraries, trained, tmp_path):
    installed(libraries)
    assert words(USES[libraries], libraries, 0, tmp_path, **trained) == ([], [])


@pytest.mark.nightly
@EACH
def test_a_process_that_lives_on_for_half_a_minute_sends_nothing(libraries, trained, tmp_path):
    installed(libraries)
    assert words(USES[libraries], libraries, 30, tmp_path, **trained) == ([], [])


@pytest.mark.nightly
def test_onnxruntime_that_was_not_told_is_heard(tmp_path):
    """What the tests above look for can be found, and `disable_telemetry_events` is no help."""
    script = "import onnxruntime; onnxruntime.disable_telemetry_events()"
    sent, left = words(script, ["onnxruntime"], 30, tmp_path)
    assert any("microsoft" in request for request in sent)
    assert any("deviceid" in file for file in left)


def test_every_switch_is_set_whatever_the_environment_says(monkeypatch):
    for name in telemetry.SWITCHES:
        monkeypatch.setenv(name, "")
    assert telemetry.import_silently("openvino") is sys.modules["openvino"]
    assert {name: os.environ[name] for name in telemetry.SWITCHES} == telemetry.SWITCHES
    assert sys.modules["openvino_telemetry"] is None


def test_a_missing_library_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"--precision int8 needs .*topgraft\[int8\]"):
        telemetry.import_silently("nncf", "int8", "--precision int8")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError):
        telemetry.import_silently("onnxruntime")


def test_rays_dashboard_is_there_for_those_who_want_it(monkeypatch):
    pytest.importorskip("ray")
    services = telemetry.import_silently("ray._private.services", "ray", "a test")
    kept = services.start_api_server
    telemetry.import_silently("ray")
    assert services.start_api_server is kept, "wrapped once"
    assert kept(False, raise_on_failure=True) == ("", None)
    with pytest.raises(TypeError, match="missing"):  # Ray's own function, which wants to know more
        kept(True)


# Who may import them


def code_of(path):
    """Give the Python in a file; of a page or a notebook the Python in its blocks."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return [text]


def imported(code):
    """Name the modules that code imports, by statement or call, and the call."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "import") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, "import"
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value), getattr(node.func, "id", getattr(node.func, "attr", ""))


def loud(code, *harmless):
    """Name the reporting libraries that code imports by other means than `import_silently`."""
    calls = {"import", "need", "import_module", "__import__", "importorskip"}.difference(harmless)
    return {
        name for name, how in imported(code) if how in calls and name.split(".")[0] in telemetry.LIBRARIES
    }


@pytest.mark.parametrize("where", ["src", "benchmarks", "notebooks"])
def test_nothing_else_imports_them(where):
    files = [path for path in (CHECKOUT / where).rglob("*.py") if path.name != "telemetry.py"]
    found = {path: loud(path.read_text(encoding="utf-8")) for path in files}
    assert found
    assert {str(path): names for path, names in found.items() if names} == {}


def test_tests_import_them_after_they_were_silenced():
    """`conftest.py` sets the switches before a test file is read, so `importorskip` does no harm."""
    assert "telemetry.silence()" in (CHECKOUT / "tests/conftest.py").read_text(encoding="utf-8")
    found = {path.name: loud(path.read_text(), "importorskip") for path in (CHECKOUT / "tests").glob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


def test_what_the_docs_show_sets_the_switch_first():
    pages = [CHECKOUT / "README.md", *(CHECKOUT / "docs").rglob("*.md")]
    shown = [code for page in pages for code in code_of(page) if loud(code)]
    assert shown
    for code in shown:
        assert loud(code) == {"onnxruntime"}
        before = code.partition("import onnxruntime")[0]
        assert 'os.environ["ORT_DISABLE_TELEMETRY"] = "1"' in before


@pytest.mark.parametrize(
    "code",
    [
        "import nncf.quantization",
        "from ray import data",
        "importlib.import_module('openvino.tools')",
        "need('mlflow', 'track', 'it')",
        "def f():\n    import onnxruntime as ort",
    ],
)
def test_an_import_by_other_means_is_found(code):
    assert loud(code)
    assert not loud("from topgraft.telemetry import import_silently\nimport_silently('ray')\nimport rayon")
