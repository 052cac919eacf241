"""Embedding on Ray: the same bytes, whoever computed them, and whoever died meanwhile."""

import threading
from pathlib import Path

import pytest

from embedding import POLICIES, a_backbone, embed_here
from photos import paint_folder
from topgraft._embed.distribute import cut
from topgraft._embed.partition import Partition
from topgraft.errors import DataError, UsageError
from topgraft.photos.dataset import Dataset
from topgraft.settings import Settings
from topgraft.store import FeatureStore
from topgraft.store.rows import BLOCK
from topgraft.store.table import Table, views_of
from topgraft.telemetry import import_silently
from topgraft.testing.stores import contents

pytest.importorskip("ray")
ray = import_silently("ray")


def test_partitions_are_whole_blocks_with_their_photos_and_no_others(tmp_path):
    data = Dataset.from_folder(paint_folder(tmp_path / "photos", apple=3 * BLOCK))
    backbone = a_backbone(tmp_path)
    table = Table.of(data, backbone.card, "fake", views_of(POLICIES, 0))
    work = FeatureStore.create(tmp_path / "s.zarr").begin(table)
    whole = Partition(
        str(tmp_path / "s.zarr"), table, tuple(work), data, backbone, "fake", "f32", 2, 32, Settings.load()
    )
    parts = list(cut(whole, 2, threads=1))
    assert [len(part.work) for part in parts] == [2, 1]
    assert sum((part.work for part in parts), ()) == whole.work
    assert [part.rows for part in parts] == [8 * BLOCK, 4 * BLOCK]
    for part in parts:
        assert {one.digest for one in part.data.samples} == {one for b in part.work for one in b.digests}


def test_a_local_cluster_gives_the_same_bytes_and_names_a_lost_photo(tmp_path):
    folder = paint_folder(tmp_path / "photos", apple=60, pear=60)
    backbone = a_backbone(tmp_path)
    whole = embed_here(str(folder), str(tmp_path / "whole.zarr"), backbone)
    begin()
    try:
        store = embed_here(str(folder), str(tmp_path / "ray.zarr"), backbone, workers="ray")
        assert contents(store.path) == contents(whole.path)
        data = Dataset.from_folder(folder)
        lost = Path(folder, data.samples[7].path)
        pixels = lost.read_bytes()
        lost.unlink()
        with pytest.raises(DataError, match=data.samples[7].id):
            embed_data(data, str(tmp_path / "lost.zarr"), backbone)
        lost.write_bytes(pixels)
        store = embed_here(str(folder), str(tmp_path / "lost.zarr"), backbone, workers="ray")
        assert contents(store.path) == contents(whole.path)
    finally:
        ray.shutdown()


def begin():
    """Start a cluster of this machine; Ray gives its first node 30 s, which a busy machine may not keep."""
    for patience in range(4, -1, -1):
        try:
            ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        except Exception as error:
            if "timed out during startup" not in str(error) or not patience:
                raise
        else:
            return


def embed_data(data, store, backbone):
    from topgraft import embed

    return embed(data, store, backbone=backbone, policies=POLICIES, engine="fake", workers="ray")


def test_no_cluster_at_the_address_is_one_line(tmp_path):
    folder = paint_folder(tmp_path / "photos", apple=2, pear=2)
    with pytest.raises(UsageError, match=r"no Ray cluster answers at 127\.0\.0\.1:1.*ray start --head"):
        embed_here(str(folder), str(tmp_path / "s.zarr"), a_backbone(tmp_path), workers="ray:127.0.0.1:1")


@pytest.mark.nightly  # 40 s, most of it until Ray believes it
def test_a_node_that_dies_half_way_costs_nothing_but_time(tmp_path):
    folder = paint_folder(tmp_path / "photos", apple=600, pear=600)
    backbone = a_backbone(tmp_path)
    whole = embed_here(str(folder), str(tmp_path / "whole.zarr"), backbone)
    cluster = import_silently("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    killed = threading.Event()

    def kill_half_way(_what: str, done: int, total: int) -> None:
        if done >= total / 3 and not killed.is_set():
            killed.set()
            assert len({node["NodeID"] for node in ray.nodes() if node["Alive"]}) == 2
            cluster.remove_node(second, allow_graceful=False)

    try:
        store = embed_here(
            str(folder),
            str(tmp_path / "ray.zarr"),
            backbone,
            workers=f"ray:{cluster.address}",
            progress=kill_half_way,
            settings=Settings.load(threads=1),
        )
        assert killed.is_set()
        assert contents(store.path) == contents(whole.path)
        assert store.fingerprint() == whole.fingerprint()
    finally:
        cluster.shutdown()
