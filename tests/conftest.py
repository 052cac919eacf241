"""Fixtures that several test files use."""

import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

from topgraft import telemetry

telemetry.silence()  # before a test file imports a library that reports its use
settings.register_profile("untimed", deadline=None)  # a busy machine decides no test
settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # what a shell gives to jobs in the background
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # children that tests press Ctrl-C in hear it again

SHARED = Path(__file__).resolve().parents[2] / "shared"


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
