"""Fixtures that several test files use."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from topgraft import telemetry

if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    # A core each, and whoever asks for more waits asleep: OpenMP's threads spin while they wait, and take the
    # core from the other process.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

telemetry.silence()  # before a test file imports a library that reports its use
settings.register_profile("untimed", deadline=None)  # a busy machine decides no test
settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so in a shell's background jobs, and
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the children tests press Ctrl-C in

LONGEST = [
    "test_main_job",
    "test_backbone_timm",
    "test_export",
    "test_browser",
    "test_finetune",
    "test_predictor",
    "test_finetune_train",
    "test_compare",
    "test_serve_browser",
    "test_telemetry",
    "test_crash",
    "test_evaluate",
    "test_offline",
    "test_serve",
    "test_embed",
    "test_try_backbones",
]
"""Files that take half a minute and more: they come first, so that none is left to one core at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Let xdist deal files out in the order below; its own goes by how many tests a file has."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and weights beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder of real photos and weights at {SHARED}")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep tests away from the user's cache, and one cache for all of them so that imports happen once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPGRAFT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def _run(*words: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="session")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, as a user has it: the wheel with what the core needs, in a new environment."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    _run(sys.executable, "-m", "venv", venv)
    pip = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run(*pip, "-c", ROOT / "locks" / "core.txt", next(dist.glob("*.whl")))
    return venv / "bin" / "topgraft"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 96 KB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)
