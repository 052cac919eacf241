"""What comes from outside is looked at before it is used: what is no file, weights elsewhere, formulas."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from topgraft.backbones.card import Card
from topgraft.config import Config
from topgraft.errors import TopgraftError
from topgraft.importers.load import load_backbone
from topgraft.photos.dataset import Dataset
from topgraft.policies.grid import Grid
from topgraft.predictor import PredictorCard
from topgraft.run import Run
from topgraft.settings import Settings
from topgraft.text import bare_cell, safe_cell

READERS: dict[str, tuple[str, Any]] = {
    "recipe": ("r.toml", Config.load),
    "grid": ("g.toml", Grid.load),
    "graph": ("g.onnx", lambda path: load_backbone(str(path), card=_card(path))),
    "card": ("c.json", lambda path: load_backbone("any.onnx", card=path)),
    "weights": ("w.safetensors", lambda path: load_backbone("resnet18", weights=str(path))),
    "predictor card": ("card.json", PredictorCard.read),
    "run numbers": ("metrics.json", lambda path: Run(path.parent).metrics),
    "run config": ("config.toml", lambda path: Run(path.parent).config),
    "run table": ("predictions.csv", lambda path: Run(path.parent).read_table(path.name)),
    "photos": ("p.csv", Dataset.from_csv),
}


FACTS = {"input_size": [8, 8], "interpolation": "bilinear", "mean": [0, 0, 0], "std": [1, 1, 1]}


def _card(path: Path) -> Path:
    card = path.with_name("facts.json")
    card.write_text(json.dumps(FACTS))
    return card


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
def test_what_never_ends_is_no_file(reader: str, kind: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    path = tmp_path / name
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(kind)
    with pytest.raises(TopgraftError, match=r"it is no file") as caught:
        read(path)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("fact", "value"),
    [("std", [0, 1, 1]), ("std", [-1, 1, 1]), ("input_size", [10**9, 8]), ("input_size", [0, 8])],
)
def test_a_card_of_impossible_facts_is_one_line(fact: str, value: list[int], tmp_path: Path) -> None:
    (tmp_path / "g.onnx").write_bytes(_graph())
    (tmp_path / "c.json").write_text(json.dumps(FACTS | {fact: value}))
    with pytest.raises(TopgraftError, match=f"{fact}.*: Input should be"):
        load_backbone(
            str(tmp_path / "g.onnx"),
            card=tmp_path / "c.json",
            settings=Settings.load(cache_dir=tmp_path / "cache"),
        )


def _graph() -> bytes:
    weight = numpy_helper.from_array(np.ones((4, 3, 8, 8), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Flatten", ["y"], ["features"])]
    shown = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    rows = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "g", [shown], [rows], [weight])
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def test_weights_in_another_file_are_not_followed(tmp_path: Path) -> None:
    model = onnx.load_from_string(_graph())
    onnx.save(model, tmp_path / "g.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (tmp_path / "w.bin").is_file()
    with pytest.raises(TopgraftError, match=r"its weight w lies in another file"):
        load_backbone(str(tmp_path / "g.onnx"), card=_card(tmp_path / "g.onnx"))


def test_nor_are_they_in_a_folder_of_a_backbone(tmp_path: Path) -> None:
    folder = tmp_path / "backbone"
    folder.mkdir()
    (folder / "card.json").write_text(
        Card.model_validate(FACTS | {"name": "x", "features": 4}).model_dump_json()
    )
    model = onnx.load_from_string(_graph())
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(TopgraftError, match=r"model\.onnx: its weight w lies in another file, which is not"):
        load_backbone(str(folder), settings=Settings.load(cache_dir=tmp_path / "cache"))


@pytest.mark.parametrize("name", ["../secret", "/dev/zero", "a/../../secret"])
def test_checksums_of_files_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "backbone").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "backbone" / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(TopgraftError, match=r"SHA256SUMS: names a file elsewhere"):
        load_backbone(str(tmp_path / "backbone"), settings=Settings.load(cache_dir=tmp_path / "cache"))


@pytest.mark.parametrize(
    "cell", ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "'=x", "''-1", "-1", "1e-3", "plain"]
)
def test_no_cell_is_a_formula_and_all_come_back(cell: str, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "r")
    run.write_table("t.csv", ["name"], [[cell]])
    assert run.read_table("t.csv") == [{"name": cell}]
    shown = safe_cell(cell)
    assert shown == cell if cell in ("-1", "1e-3", "plain") else shown[0] == "'"


@given(st.text())
def test_every_cell_comes_back(text: str) -> None:
    assert bare_cell(safe_cell(text)) == text
