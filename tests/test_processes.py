"""Predictors, estimators and stores in several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import topgraft as tg
from tiny import TINY
from topgraft.testing.drawing import draw_photos

FORK = """
import faulthandler, os, sys
import numpy as np
import topgraft as tg
from topgraft.engines import open_engine
from topgraft.importers.load import load_backbone
picture = np.full((30, 40, 3), 90, np.uint8)
predictor, engine = tg.load(sys.argv[1]), open_engine(load_backbone())
fitted = np.zeros((2, *engine.card.input_size, 3), np.uint8)
before, row = predictor.predict([picture, picture]), engine.embed(fitted)
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
faulthandler.dump_traceback_later(240, exit=True)  # it would wait for ever
assert predictor.predict([picture, picture]) == before
assert (engine.embed(fitted) == row).all()
sys.exit(0)  # not os._exit: what the parent left behind is freed, or not
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    folder = Path(draw_photos(tmp_path_factory.mktemp("processes") / "photos", 8, seed=0))
    paths = sorted(folder.rglob("*.jpg"))
    return [str(path) for path in paths], [path.parent.name for path in paths]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_predicts_and_embeds_after_its_parent_did(
    photos: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    tg.TopgraftClassifier(backbone=TINY, policies=0, heads=["mean"], folds=2).fit(*photos).save(
        tmp_path / "model"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, tmp_path / "model"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_estimator_is_cross_validated_in_processes_that_share_a_store(
    photos: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    from sklearn.model_selection import cross_validate

    paths, labels = map(np.array, photos)
    model = tg.TopgraftClassifier(
        backbone=TINY, policies=0, heads=["mean"], folds=2, store=tmp_path / "features.zarr"
    )
    # Two folds at once write to one store, and the estimators come back after they have predicted.
    found = cross_validate(model, paths, labels, cv=2, n_jobs=2, return_estimator=True, error_score="raise")
    assert np.isfinite(found["test_score"]).all()
    again = [estimator.predict(paths[:2]) for estimator in found["estimator"]]
    assert all(set(answer) <= set(labels) for answer in again)
    store = tg.FeatureStore.open(tmp_path / "features.zarr")
    assert len(store) == len(paths) // 2  # of the fold that came last, with the rows of both
    assert store.info()["stale_rows"] == len(paths)  # half of the photos, features and block features
