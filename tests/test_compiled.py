"""Compiled graphs that are kept: the same bits, and never anything but what was written."""

import os

import numpy as np
import pytest

from tiny import TINY
from topgraft.engines import _compiled
from topgraft.engines._openvino import Graph
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
    assert found.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert found.get_property("INFERENCE_NUM_THREADS") == 1


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
    monkeypatch.setattr(_compiled, "MOST", 3 * size)
    from_cache(onnx_graph, tmp_path, monkeypatch)  # now it is the last that was used
    Graph(onnx_graph, cache_dir=tmp_path).compiled(2)
    assert not unused.exists()
    assert used.exists()
    assert kept.exists()
