"""kill -9 at random moments loses an unfinished block at most, and shows nowhere in the end."""

import random
import shutil
import time
from pathlib import Path

import pytest

from embedding import POLICIES, a_backbone, die_at_change, embed_and_be_killed, embed_here
from photos import paint_folder
from topgraft.store import FeatureStore
from topgraft.testing.stores import contents

EVERY = pytest.mark.parametrize("every", [23, pytest.param(1, marks=pytest.mark.nightly)])


@pytest.mark.parametrize(
    ("kills", "each"),  # photos a class: two blocks, or four
    [(5, 40), pytest.param(200, 100, marks=[pytest.mark.nightly, pytest.mark.timeout(1200)])],
)
def test_killed_at_random_moments_it_ends_in_the_same_bytes(kills: int, each: int, tmp_path: Path):
    photos = str(paint_folder(tmp_path / "photos", apple=each, pear=each))
    backbone = a_backbone(tmp_path / "backbone")
    begun = time.perf_counter()
    whole = contents(embed_here(photos, str(tmp_path / "whole.zarr"), backbone).path)
    takes = time.perf_counter() - begun
    chance = random.Random(kills)
    done = stores = 0
    while done < kills:
        store = str(tmp_path / f"{stores}.zarr")
        stores += 1
        for _ in range(chance.randint(1, 4)):  # how often the same store is hit
            done += not embed_and_be_killed(photos, store, backbone, chance.uniform(0, takes))
        if Path(store, "table").exists() or Path(store, "pending").exists():
            opened = FeatureStore.open(store)
            assert opened.views == FeatureStore.open(tmp_path / "whole.zarr").views
            assert 0 <= opened.missing() <= 2 * each * (1 + len(POLICIES))
        embed_here(photos, store, backbone)
        assert contents(store) == whole


@EVERY
def test_killed_before_a_change_of_a_file_it_ends_in_the_same_bytes(every: int, tmp_path: Path):
    photos = str(paint_folder(tmp_path / "photos", apple=35, pear=35))  # two blocks
    backbone = a_backbone(tmp_path / "backbone")
    whole = contents(embed_here(photos, str(tmp_path / "whole.zarr"), backbone, policies=POLICIES[:1]).path)
    for event in range(0, 1000, every):
        store = str(tmp_path / f"{event}.zarr")
        if die_at_change(event, "embed", photos, store, backbone):
            break
        embed_here(photos, store, backbone, policies=POLICIES[:1])
        assert contents(store) == whole, f"killed at change {event}"
    assert event > len(whole)


@EVERY
def test_killed_while_another_backbone_comes_in_the_rows_of_the_first_stay(every: int, tmp_path: Path):
    photos = str(paint_folder(tmp_path / "photos", apple=35, pear=35))
    backbone, other = a_backbone(tmp_path / "backbone"), a_backbone(tmp_path / "other", "other.test")
    first = embed_here(photos, str(tmp_path / "first.zarr"), other, policies=POLICIES[:1])
    shutil.copytree(first.path, tmp_path / "whole.zarr")
    whole = contents(embed_here(photos, str(tmp_path / "whole.zarr"), backbone, policies=POLICIES[:1]).path)
    for event in range(0, 1000, every):
        store = str(shutil.copytree(first.path, tmp_path / f"{event}.zarr"))
        ended = die_at_change(event, "embed", photos, store, backbone)
        if FeatureStore.open(store).card == other.card:
            assert FeatureStore.open(store).fingerprint() == first.fingerprint(), f"killed at change {event}"
        embed_here(photos, store, backbone, policies=POLICIES[:1])
        assert contents(store) == whole, f"killed at change {event}"
        if ended:
            break
    assert event > 20


@EVERY
def test_prune_killed_before_a_change_loses_nothing(every: int, tmp_path: Path):
    photos = str(paint_folder(tmp_path / "photos", apple=70))
    backbone = a_backbone(tmp_path / "backbone")
    grown = tmp_path / "grown.zarr"
    embed_here(photos, str(grown), backbone)
    for one in sorted(Path(photos, "apple").iterdir())[::3]:
        one.unlink()
    paint_folder(Path(photos), pear=5)
    last = embed_here(photos, str(grown), backbone, policies=POLICIES[:1]).fingerprint()
    fresh = contents(embed_here(photos, str(tmp_path / "fresh.zarr"), backbone, policies=POLICIES[:1]).path)
    for event in range(0, 1000, every):
        store = str(shutil.copytree(grown, tmp_path / f"{event}.zarr"))
        ended = die_at_change(event, "prune", photos, store, backbone)
        assert FeatureStore.open(store).fingerprint() == last, f"killed at change {event}"
        FeatureStore.open(store).prune()
        assert contents(store) == fresh, f"killed at change {event}"
        if ended:
            break
    assert event > 20
