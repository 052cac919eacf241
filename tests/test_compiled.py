"""Compiled graphs that are kept: the same bits, and never anything but what was written."""

import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper

from tiny import TINY
from topgraft.engines import _compiled
from topgraft.engines._openvino import Graph
from topgraft.errors import BackboneError
from topgraft.importers.load import load_backbone


@pytest.fixture(scope="module")
def onnx_graph():
    return load_backbone(TINY).graph.read_bytes()


@pytest.fixture
def kept(onnx_graph, tmp_path):
    """Compile a graph on one core, once, and return where it is kept."""
    Graph(onnx_graph, cache_dir=tmp_path).compiled()
    (place,) = (tmp_path / "compiled").iterdir()
    return place


def doubling(by):
    """Return a graph that multiplies one number."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [by])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weight]
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def answers(compiled):
    """Return what a compiled graph says, by all names of each output."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    found = compiled.create_infer_request().infer({"images": pixels})
    return {tuple(sorted(output.names)): value for output, value in found.items()}


def from_cache(graph, cache_dir, monkeypatch, **asked):
    """Return a graph that may not be compiled."""
    with monkeypatch.context() as patch:
        patch.setattr(Graph, "_model", property(lambda _: pytest.fail("it was compiled")))
        return Graph(graph, cache_dir=cache_dir).compiled(**asked)


@pytest.mark.parametrize("streams", [0, 1, 2])
def test_what_is_kept_answers_to_the_last_bit_by_the_same_names(onnx_graph, streams, tmp_path, monkeypatch):
    expected = answers(Graph(onnx_graph, cache_dir=tmp_path).compiled(streams))
    found = answers(from_cache(onnx_graph, tmp_path, monkeypatch, streams=streams))
    assert found.keys() == expected.keys()
    for names, value in expected.items():
        np.testing.assert_array_equal(found[names], value)


def test_what_is_kept_keeps_its_options(onnx_graph, kept, tmp_path, monkeypatch):
    found = from_cache(onnx_graph, tmp_path, monkeypatch)
    assert found.get_property("INFERENCE_NUM_THREADS") == 1
    assert found.get_property("NUM_STREAMS") == 1


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda _: b"",
        lambda data: b"0" * 32 + data[32:],
    ],
    ids=["half", "one bit", "nothing", "another name"],
)
def test_what_is_damaged_is_compiled_and_kept_anew(harm, onnx_graph, kept, tmp_path, monkeypatch):
    whole = kept.read_bytes()
    kept.write_bytes(harm(whole))
    with pytest.raises(pytest.fail.Exception, match="compiled"):
        from_cache(onnx_graph, tmp_path, monkeypatch)
    expected = answers(Graph(onnx_graph).compiled())
    found = answers(Graph(onnx_graph, cache_dir=tmp_path).compiled())
    for names, value in expected.items():
        np.testing.assert_array_equal(found[names], value)
    from_cache(onnx_graph, tmp_path, monkeypatch)


def test_another_processor_another_graph_and_another_question_are_kept_apart(
    onnx_graph, kept, tmp_path, monkeypatch
):
    def count():
        return len(list(kept.parent.iterdir()))

    Graph(onnx_graph, cache_dir=tmp_path).compiled(2)
    assert count() == 2
    Graph(onnx_graph, cache_dir=tmp_path, shape={"images": [1, 96, 96, 3]}).compiled()
    assert count() == 3
    monkeypatch.setattr("topgraft.engines._openvino.instructions", lambda: {"abacus"})
    Graph(onnx_graph, cache_dir=tmp_path).compiled()
    assert count() == 4
    Graph(onnx_graph + b"\x10\x08", cache_dir=tmp_path).compiled()  # the same network, other bytes
    assert count() == 5
    Graph(onnx_graph, start="map", cache_dir=tmp_path).compiled()
    assert count() == 6
    monkeypatch.setattr("topgraft.engines._openvino.READ", 0)
    Graph(onnx_graph, cache_dir=tmp_path).compiled()
    assert count() == 7


def test_a_file_that_changes_is_not_kept_under_the_new_ones_name(onnx_graph, tmp_path):
    """It is read once: what is named is what is compiled."""
    file, small = tmp_path / "graph.onnx", doubling(2)
    file.write_bytes(small)
    graph = Graph(file, cache_dir=tmp_path)
    file.write_bytes(doubling(3))
    twice = graph.compiled(2)
    assert twice(np.ones(1, np.float32))[0] == 2
    assert Graph(file, cache_dir=tmp_path).compiled(2)(np.ones(1, np.float32))[0] == 3
    with pytest.raises(BackboneError, match=r"gone.onnx: cannot be read"):
        Graph(tmp_path / "gone.onnx", cache_dir=tmp_path)


def test_what_openvino_cannot_write_down_is_not_kept_and_harms_nothing(tmp_path):
    class Stubborn:
        def export_model(self):
            raise RuntimeError("not implemented")

    _compiled.Compiled(tmp_path, {}).keep(Stubborn())
    assert not (tmp_path / "compiled").exists()


def test_a_disk_that_has_little_room_is_left_to_others(onnx_graph, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=200_000_000))
    assert answers(Graph(onnx_graph, cache_dir=tmp_path).compiled())
    assert not list((tmp_path / "compiled").iterdir())


def test_a_graph_that_is_larger_than_all_that_is_kept_drives_nothing_out(
    kept, onnx_graph, tmp_path, monkeypatch
):
    monkeypatch.setattr(_compiled, "MOST", kept.stat().st_size // 2)
    Graph(onnx_graph, cache_dir=tmp_path).compiled(2)
    assert list(kept.parent.iterdir()) == [kept]


def test_what_a_killed_process_was_writing_is_dropped_after_an_hour(kept, onnx_graph, tmp_path):
    old, new = kept.with_name("old.half"), kept.with_name("new.half")
    for place, age in ((old, 3700), (new, 10)):
        place.write_bytes(b"half")
        os.utime(place, (time.time() - age,) * 2)
    Graph(onnx_graph, cache_dir=tmp_path).compiled(2)
    assert not old.exists()
    assert new.exists()


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(onnx_graph, tmp_path):
    place = tmp_path / "cache"
    place.write_text("a file where the folder would be")
    assert answers(Graph(onnx_graph, cache_dir=place).compiled())
    assert place.read_text() == "a file where the folder would be"


def test_what_was_used_longest_ago_goes_first(kept, onnx_graph, tmp_path, monkeypatch):
    folder, size = kept.parent, kept.stat().st_size
    unused, used = folder / "unused.blob", folder / "used.blob"
    for age, place in ((300, unused), (200, kept), (100, used)):
        if place != kept:
            place.write_bytes(bytes(size))
        os.utime(place, (kept.stat().st_mtime - age,) * 2)
    monkeypatch.setattr(_compiled, "MOST", 3.5 * size)
    from_cache(onnx_graph, tmp_path, monkeypatch)  # now it is the last that was used
    Graph(onnx_graph, cache_dir=tmp_path).compiled(2)
    assert not unused.exists()
    assert used.exists()
    assert kept.exists()
