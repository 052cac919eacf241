"""Embedding: the right rows, only the missing ones, the same bytes however it was done."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from commands import topgraft
from embedding import CARD, POLICIES, a_backbone, embed_here
from photos import paint, paint_folder
from topgraft import embed
from topgraft.backbones.fit import fit
from topgraft.engines import open_engine
from topgraft.errors import DataError, StoreError, UsageError
from topgraft.importers.load import load_backbone
from topgraft.photos.dataset import Dataset
from topgraft.policies.policy import render
from topgraft.store import FeatureStore
from topgraft.store.rows import BLOCK
from topgraft.testing.stores import change_schema, contents

N = 2 * BLOCK + 12


class Counting(Dataset):
    """Counts the photos that are read."""

    def read(self, i: int) -> bytes:
        seen.append(self.samples[i].id)
        return super().read(i)


seen: list[str] = []


def counting(folder: Path) -> Counting:
    data = Dataset.from_folder(folder)
    seen.clear()
    return Counting(**{name: getattr(data, name) for name in data.__dataclass_fields__})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = paint_folder(tmp_path_factory.mktemp("photos"), apple=N // 2, pear=N // 2)
    shutil.copy(folder / "apple" / "003.jpg", folder / "pear" / "same.jpg")
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory):
    return a_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def whole(photos, backbone, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The store of an uninterrupted run."""
    return embed_here(str(photos), str(tmp_path_factory.mktemp("whole") / "features.zarr"), backbone)


def test_every_row_is_the_engines_features_of_that_view_of_that_photo(photos, backbone, whole):
    data = Dataset.from_folder(photos)
    assert whole.ids == data.ids
    assert whole.classes == ("apple", "pear")
    np.testing.assert_array_equal(whole.labels, data.labels)
    np.testing.assert_array_equal(whole.groups, data.groups)
    with open_engine(backbone, engine="fake") as engine:
        for view, of in enumerate(whole.views):
            images = [render(fit(data.image(i), CARD), of, one.digest) for i, one in enumerate(data.samples)]
            expected = engine.embed(np.stack(images)).astype(np.float16)
            np.testing.assert_array_equal(whole.features(view), expected)


def test_the_default_engine_gives_the_same_rows_alone_and_in_company(photos, tmp_path):
    small = Dataset.from_folder(photos).subset([f"apple/{i:03}.jpg" for i in range(5)])
    backbone = load_backbone()
    store = embed(small, tmp_path / "s.zarr", policies=POLICIES[:1], batch=3)
    with open_engine(backbone) as engine:
        for i, one in enumerate(small.samples):
            views = [render(fit(small.image(i), backbone.card), view, one.digest) for view in store.views]
            expected = engine.embed(np.stack(views)).astype(np.float16)
            for view in (0, 1):
                np.testing.assert_array_equal(store.features(view)[i], expected[view])


@pytest.mark.parametrize(
    "options", [{"workers": 1}, {"workers": 4}, {"batch": 1}, {"batch": 7}, {"batch": 200}]
)
def test_bytes_do_not_depend_on_workers_or_batch(photos, backbone, whole, tmp_path, options):
    store = embed_here(str(photos), str(tmp_path / "s.zarr"), backbone, **options)
    assert contents(store.path) == contents(whole.path)
    assert store.fingerprint() == whole.fingerprint()


def test_bytes_do_not_depend_on_the_order_of_files(photos, backbone, whole, tmp_path):
    data = Dataset.from_folder(photos)
    order = np.random.default_rng(0).permutation(len(data))
    shuffled = replace(data, samples=tuple(data.samples[i] for i in order))
    store = embed(shuffled, tmp_path / "s.zarr", backbone=backbone, policies=POLICIES, engine="fake")
    assert contents(store.path) == contents(whole.path)


def test_a_second_run_reads_no_photo_and_writes_nothing(photos, backbone, whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "s.zarr")
    before = {one: one.stat().st_mtime_ns for one in (tmp_path / "s.zarr").rglob("*")}
    embed(counting(photos), tmp_path / "s.zarr", backbone=backbone, policies=POLICIES, engine="fake")
    assert seen == []
    assert before == {one: one.stat().st_mtime_ns for one in (tmp_path / "s.zarr").rglob("*")}


def test_ten_new_photos_are_ten_photos_read_and_a_moved_folder_none(photos, backbone, whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "s.zarr")
    moved = Path(shutil.copytree(photos, tmp_path / "moved"))
    new = [paint(moved / "pear" / f"new{i}.jpg", 10_000 + i) for i in range(10)]
    options = {"backbone": backbone, "policies": POLICIES, "engine": "fake"}
    store = embed(counting(moved), tmp_path / "s.zarr", **options)
    assert sorted(seen) == sorted(one.relative_to(moved).as_posix() for one in new)
    assert len(store) == len(whole) + 10
    rows = [i for i, name in enumerate(store.ids) if "new" not in name]
    for view in range(4):
        np.testing.assert_array_equal(store.features(view)[rows], whole.features(view))
    for one in new:
        one.unlink()
    store = embed(counting(moved), tmp_path / "s.zarr", **options)
    assert seen == []
    assert store.fingerprint() == whole.fingerprint()
    assert store.info()["stale_rows"] == 2 * 40  # features and block features
    assert store.prune() > 0


def test_a_photo_is_decoded_once_for_all_views(photos, backbone, tmp_path):
    data = counting(photos)
    embed(data, tmp_path / "s.zarr", backbone=backbone, policies=POLICIES, engine="fake")
    assert len(seen) == len(set(seen)) == N  # the copy is not read


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "cannot be opened"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "changed"),
    ],
)
def test_a_photo_lost_meanwhile_is_named_and_nothing_done_is_lost(
    photos, backbone, whole, tmp_path, spoil, words
):
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    data = Dataset.from_folder(folder)
    last = max(data.samples, key=lambda one: one.digest)  # of the last block
    good = (folder / last.path).read_bytes()
    spoil(folder / last.path)
    options = {"backbone": backbone, "policies": POLICIES, "engine": "fake"}
    with pytest.raises(DataError, match=f"{last.id}.*{words}"):
        embed(data, tmp_path / "s.zarr", **options)
    assert FeatureStore.open(tmp_path / "s.zarr").missing() == 4 * (N - 2 * BLOCK)
    (folder / last.path).write_bytes(good)
    store = embed(Dataset.from_folder(folder), tmp_path / "s.zarr", **options)
    assert store.fingerprint() == whole.fingerprint()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_while_the_default_engine_runs_ends_quietly(photos, tmp_path):
    def press(what: str, done: int, _total: int) -> None:
        if what == "embedding" and done:  # not while an empty cache gets its backbone
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(Dataset.from_folder(photos), tmp_path / "s.zarr", progress=press)
    assert FeatureStore.open(tmp_path / "s.zarr").missing() > 0


def test_ctrl_c_leaves_a_store_that_goes_on(photos, backbone, whole, tmp_path):
    def press(_what: str, done: int, _total: int) -> None:
        if done > 3 * 4 * BLOCK // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_here(str(photos), str(tmp_path / "s.zarr"), backbone, progress=press)
    missing = FeatureStore.open(tmp_path / "s.zarr").missing()
    assert 0 < missing < 4 * N
    store = embed_here(str(photos), str(tmp_path / "s.zarr"), backbone)
    assert contents(store.path) == contents(whole.path)


def test_a_fake_row_is_never_taken_for_a_real_one(photos, whole):
    assert whole.precision == "fake"


def test_photos_and_store_behind_urls(photos, backbone, whole, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(photos), f"/{tmp_path.name}/photos", recursive=True)
    store = embed_here(f"memory://{tmp_path.name}/photos", f"memory://{tmp_path.name}/s.zarr", backbone)
    assert store.fingerprint() == whole.fingerprint()
    there = contents(store.path)
    for key, data in contents(whole.path).items():
        assert there[key] == data or key == "table/zarr.json"  # it says where the photos lay


def test_opencv_has_its_threads_back(photos, backbone, tmp_path):
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        embed_here(str(photos), str(tmp_path / "s.zarr"), backbone, policies=())
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "workers must be a number from 1"),
        ({"workers": "dask"}, "`ray` or `ray:ADDRESS`, got 'dask'"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(photos, backbone, tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        embed_here(str(photos), str(tmp_path / "s.zarr"), backbone, **options)
    assert not (tmp_path / "s.zarr").exists()


def test_no_photo_is_an_error(photos, backbone, tmp_path):
    with pytest.raises(DataError, match="no photo to embed"):
        embed(Dataset.from_folder(photos).subset([]), tmp_path / "s.zarr", backbone=backbone)


def test_a_second_writer_is_kept_out(photos, backbone, tmp_path):
    def meanwhile(_what: str, _done: int, _total: int) -> None:
        with pytest.raises(StoreError, match="another process is writing"):
            embed_here(str(photos), str(tmp_path / "s.zarr"), backbone)

    embed_here(str(photos), str(tmp_path / "s.zarr"), backbone, policies=(), progress=meanwhile)


def test_a_folder_of_other_files_and_a_file_in_the_way_are_refused(photos, backbone, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(StoreError, match="found other files"):
        embed_here(str(photos), str(tmp_path / "notes"), backbone)
    assert [one.name for one in (tmp_path / "notes").iterdir()] == ["a.txt"]
    with pytest.raises(StoreError, match="a file lies where a folder is needed"):
        embed_here(str(photos), str(tmp_path / "notes" / "a.txt"), backbone)


def test_a_full_disk_is_one_line_and_the_store_stays_usable(photos, backbone, small_disk, tmp_path):
    path = str(small_disk / "s.zarr")
    few = Dataset.from_folder(photos).subset([f"apple/{i:03}.jpg" for i in range(9)])
    old = embed(few, path, backbone=backbone, engine="fake").fingerprint()
    (small_disk / "ballast").write_bytes(bytes(30_000))
    with pytest.raises(StoreError, match=r"s\.zarr: the disk is full\. Free some space") as caught:
        embed_here(str(photos), path, backbone)
    assert "\n" not in str(caught.value)
    assert FeatureStore.open(path).fingerprint() == old
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    store = embed_here(str(photos), path, backbone)
    assert store.missing() == 0
    whole = embed_here(str(photos), str(tmp_path / "s.zarr"), backbone)
    assert store.fingerprint() == whole.fingerprint()


def test_a_read_only_folder_is_one_line_and_still_read(photos, backbone, small_disk):
    path = str(small_disk / "s.zarr")
    few = Dataset.from_folder(photos).subset([f"apple/{i:03}.jpg" for i in range(9)])
    old = embed(few, path, backbone=backbone, engine="fake").fingerprint()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreError, match=r"the folder is read-only\. Give another place"):
        embed_here(str(photos), path, backbone)
    assert FeatureStore.open(path).fingerprint() == old
    with pytest.raises(StoreError, match=r"the folder is read-only"):
        embed_here(str(photos), str(small_disk / "new.zarr"), backbone)


def test_no_store_is_made_among_the_photos(photos, backbone, tmp_path):
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    lines = [f"{folder}/apple/{i:03}.jpg,apple" for i in range(3)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *lines]))
    for data, place in (
        (Dataset.from_folder(folder), folder / "s.zarr"),
        (Dataset.from_folder(f"file://{folder}"), folder / "s.zarr"),
        (Dataset.from_folder(folder), f"local://{folder}/s.zarr"),
        (Dataset.from_folder(folder).subset(["apple/000.jpg"]), folder / "pear" / "s.zarr"),
        (Dataset.from_csv(tmp_path / "t.csv"), folder / "apple" / "s.zarr"),
    ):
        with pytest.raises(UsageError, match="where nothing is ever written"):
            embed(data, place, backbone=backbone, engine="fake")
        assert not (folder / "s.zarr").exists()
    embed(Dataset.from_csv(tmp_path / "t.csv"), tmp_path / "s.zarr", backbone=backbone, engine="fake")


@pytest.mark.parametrize("where", ["full", "unusable"])
def test_no_room_for_mapped_views_is_one_line(whole, small_disk, monkeypatch, where):
    monkeypatch.setattr("topgraft.store.store.IN_MEMORY", 1000)
    cache = small_disk if where == "full" else Path("/proc/none")
    if where == "full":
        (small_disk / "ballast").write_bytes(bytes(94 << 10))
    monkeypatch.setenv("TOPGRAFT_CACHE_DIR", str(cache))
    with pytest.raises(StoreError, match=rf"{cache}: no room for .*TOPGRAFT_CACHE_DIR") as caught:
        FeatureStore.open(whole.path).features()
    assert "\n" not in str(caught.value)


def test_large_views_are_mapped_and_gone_from_the_disk(whole, monkeypatch, tmp_path):
    monkeypatch.setattr("topgraft.store.store.IN_MEMORY", 1000)
    monkeypatch.setenv("TOPGRAFT_CACHE_DIR", str(tmp_path))
    store = FeatureStore.open(whole.path)
    for view in range(4):
        assert isinstance(store.features(view), np.memmap)
        np.testing.assert_array_equal(store.features(view), whole.features(view))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="read-only"):
        store.features()[0] = 0


def test_the_commands_embed_info_and_prune(tmp_path):
    folder = paint_folder(tmp_path / "photos", apple=4, pear=4)
    (folder / "pear" / "torn.jpg").write_bytes(b"torn")
    store = str(tmp_path / "s.zarr")
    made = topgraft("embed", str(folder), "-o", store, "--policies", "2", "--json")
    assert made.returncode == 0, made.stderr
    assert "left out pear/torn.jpg" in made.stderr
    facts = json.loads(made.stdout)
    assert (facts["photos"], len(facts["views"]), facts["missing_rows"]) == (8, 3, 0)
    view = FeatureStore.open(store).table.addresses[2]
    (block,) = Path(store, "rows", view).rglob("c.0.0")
    block.write_bytes(block.read_bytes()[:100])
    assert "rows (photos x views): run the same" in topgraft("info", store).stdout
    (folder / "apple" / "000.jpg").unlink()
    assert topgraft("embed", str(folder), "-o", store, "--policies", "1").returncode == 0
    said = topgraft("info", store).stdout
    assert "photos     7" in said
    # Of the removed photo's two views features and block features, and all block features of the third view;
    # the damaged block does not count.
    assert "unused     12 rows" in said
    assert topgraft("store", "prune", store).stdout.endswith("MB freed\n")
    assert "unused" not in topgraft("info", store).stdout
    inside = topgraft("embed", str(folder), "-o", str(folder / "s.zarr"))
    assert inside.returncode == 2
    assert "nothing is ever written" in inside.stderr
    nothing = topgraft("info", str(tmp_path / "none.zarr"))
    assert (nothing.returncode, nothing.stderr.count("\n")) == (1, 1)


def test_damaged_files_are_named_and_can_be_made_again(photos, backbone, whole, tmp_path):
    path = Path(shutil.copytree(whole.path, tmp_path / "s.zarr"))
    block = max(path.rglob("c.1.0"))
    block.write_bytes(bytes(block.stat().st_size))
    with pytest.raises(StoreError, match=r"rows/.* is damaged.*Delete") as caught:
        FeatureStore.open(path).fingerprint()
    assert "\n" not in str(caught.value)
    shutil.rmtree(block.parent)
    (path / "table" / "zarr.json").write_text('{"attributes": {}, "zarr_format": 3, "node_type": "group"}')
    with pytest.raises(StoreError, match=r"table/zarr\.json is damaged.*Delete table/"):
        FeatureStore.open(path)
    shutil.rmtree(path / "table")
    assert contents(embed_here(str(photos), str(path), backbone).path) == contents(whole.path)


def test_a_newer_schema_is_refused_by_the_command(whole, tmp_path):
    path = shutil.copytree(whole.path, tmp_path / "s.zarr")
    change_schema(path, 2)
    said = topgraft("info", path)
    assert said.returncode == 1
    assert "written with schema 2, this Topgraft reads up to schema 1. Update Topgraft" in said.stderr
