"""The feature store, where it lies on a disk and where it does not."""

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from topgraft.testing.stores import StoreSuite, store_machine

pytest.importorskip("fsspec")


class TestLocal(StoreSuite):
    def place(self, folder: Path) -> str:
        return str(folder / "features.zarr")


class TestMemory(StoreSuite):
    def place(self, folder: Path) -> str:
        return f"memory://{folder.parent.name}-{folder.name}/features.zarr"


scratch = tempfile.TemporaryDirectory(prefix="topgraft-test-")
counter = itertools.count()


def against_model(examples: int):
    """Return a test of a store against a model of it, with so many examples."""
    test = store_machine(lambda: f"{scratch.name}/{next(counter)}.zarr").TestCase
    test.settings = settings(
        max_examples=examples, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return test


TestAgainstModel = against_model(10)
TestAgainstModelAtLength = pytest.mark.nightly(against_model(100))
