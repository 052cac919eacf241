"""An export says what the run says, in its own runtime, or is not there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

import topgraft as tg
from tiny import TINY
from topgraft._export import forms, graphs, make
from topgraft._export.make import Exported
from topgraft._export.runtimes import FILES, NPM, VERSION
from topgraft.cli import app
from topgraft.config import Config
from topgraft.errors import BackboneError, DataError, UnknownNameError, UsageError
from topgraft.photos.dataset import Dataset
from topgraft.predictor import load
from topgraft.recipe import follow
from topgraft.run import Run
from topgraft.testing.drawing import draw_photos

ROOT = Path(__file__).parent.parent
RUNTIME = ROOT / "node_modules" / "onnxruntime-web" / "dist"
needs_web = pytest.mark.skipif(
    not RUNTIME.is_dir() or not shutil.which("node"),
    reason="needs onnxruntime-web: `make browser` installs it",
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("export") / "photos", 8, seed=0)


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory) -> Run:
    config = Config.load(
        data__photos=str(photos),
        backbone__name=TINY,  # by night the default is exported
        policies__count=0,
        heads__names=("logistic",),
    )
    return follow(config, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Callable[..., Exported]:
    """What export writes, made when it is first asked for, moved elsewhere, and left there as it is."""

    @cache
    def make(form: str, precision: str = "f32") -> Exported:
        folder = tmp_path_factory.mktemp("exported")
        runtime = RUNTIME.parent if form == "web" else None
        made = tg.export(run, folder / "out", format=form, precision=precision, runtime=runtime)
        assert [file.name for file in folder.iterdir()] == ["out"]
        return replace(made, path=Path(shutil.move(made.path, folder / "elsewhere")))

    return make


@pytest.mark.parametrize(
    ("form", "named"),
    [("onnx", "onnxruntime"), ("openvino", "OpenVINO"), pytest.param("web", VERSION, marks=needs_web)],
)
def test_an_export_agrees_and_is_taken_by_predict_and_evaluate(run, photos, exported, form, named):
    made = exported(form)
    assert named in made.agreement.runtime
    assert (made.agreement.photos, made.agreement.same) == (16, 16)
    assert made.agreement.apart < 1e-3
    assert made.agreement.accuracy == made.agreement.accuracy_run

    paths = sorted(str(path) for path in photos.rglob("*.jpg"))
    for ours, theirs in zip(load(run.path).predict(paths), load(made.path).predict(paths), strict=True):
        assert (ours.label, ours.unknown) == (theirs.label, theirs.unknown)
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-3)
    found = tg.evaluate(made.path, Dataset.from_folder(photos), split="all")
    assert "does not say which photos it was trained from" in found.notes[0]
    assert (
        found.members[0].scores["accuracy"]
        == tg.evaluate(run, Dataset.from_folder(photos), split="all").members[0].scores["accuracy"]
    )
    assert (made.path / "labels.txt").read_text().splitlines() == list(load(run.path).classes)


def test_no_photo_is_named_in_what_leaves_the_house(photos, exported):
    folder = exported("onnx").path
    names = [path.name for path in photos.rglob("*.jpg")]
    for file in folder.iterdir():
        text = file.read_bytes()
        assert not [name for name in names if name.encode() in text], file
        assert str(photos).encode() not in text, file


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_half_the_bits_take_half_the_space_and_lose_little(exported, form):
    whole, half = exported(form), exported(form, "f16")
    assert half.agreement.same == half.agreement.photos
    assert 0 < half.agreement.apart < 0.02
    sizes = [sum(file.stat().st_size for file in made.path.glob("model.*")) for made in (whole, half)]
    assert sizes[1] < 0.55 * sizes[0]


@pytest.mark.timm  # NNCF brings torch
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_eight_bits_compute_in_eight_bits_and_keep_the_fit(exported, form):
    pytest.importorskip("nncf")
    made = exported(form, "int8")
    assert made.agreement.same >= 0.95 * made.agreement.photos
    assert made.agreement.apart > 0
    if form == "onnx":
        graph = onnx.load(str(made.path / "model.onnx")).graph
        quantised = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
        assert len(quantised) > 20
        assert not [name for name in quantised if name.startswith(("fit.", "head."))]
    assert "accuracy on them" in str(made.agreement) or made.agreement.accuracy == made.agreement.accuracy_run


def broken(change):
    """Make what writes a graph write another one."""
    write = forms.write

    def other(folder, form, graph, card, named):
        model = onnx.load_from_string(graph)
        change(model.graph)
        write(folder, form, model.SerializeToString(), card, named)

    return other


def forget_a_layer(graph):
    weights = next(tensor for tensor in graph.initializer if len(tensor.dims) == 4 and tensor.dims[0] > 100)
    weights.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(weights), weights.name))


def swap_the_classes(graph):
    last = next(node for node in graph.node if "probabilities" in node.output)
    flipped = onnx.helper.make_node("Gather", ["there", "order"], ["probabilities"], axis=1)
    last.output[0] = "there"
    graph.node.append(flipped)
    graph.initializer.append(numpy_helper.from_array(np.array([1, 0]), "order"))


def forget_the_unknown(graph):
    last = next(node for node in graph.node if "distance" in node.output)
    last.input[0] = "no.distance"
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "no.distance"))


def answer_no_number(graph):
    last = next(node for node in graph.node if "probabilities" in node.output)
    last.output[0] = "there"
    graph.node.append(onnx.helper.make_node("Mul", ["there", "no.number"], ["probabilities"]))
    graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "no.number"))


CHANGES = [forget_a_layer, swap_the_classes, forget_the_unknown, answer_no_number]


@pytest.mark.parametrize(
    ("form", "change"),
    [
        *(("onnx", change) for change in CHANGES),
        *(("openvino", change) for change in CHANGES[:2]),
        *(pytest.param("openvino", change, marks=pytest.mark.nightly) for change in CHANGES[2:]),
        *(pytest.param("web", change, marks=[needs_web, pytest.mark.nightly]) for change in CHANGES[:2]),
        *(pytest.param("web", change, marks=needs_web) for change in CHANGES[2:]),
    ],
)
def test_a_broken_export_is_caught_and_gone(run, tmp_path, monkeypatch, form, change):
    monkeypatch.setattr(forms, "write", broken(change))
    with pytest.raises(BackboneError, match=r"sandwich/.*the run says .* the export .*Nothing was written"):
        tg.export(run, tmp_path / "out", format=form, runtime=RUNTIME if form == "web" else None)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_exported_is_replaced_only_when_asked(run, photos, exported, tmp_path):
    folder = shutil.copytree(exported("onnx").path, tmp_path / "out")
    with pytest.raises(UsageError, match="found something"):
        tg.export(run, folder)
    tg.export(run, folder, format="openvino", overwrite=True)
    assert (folder / "model.xml").is_file()
    assert not (folder / "model.onnx").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"is not an export"):
        tg.export(run, tmp_path / "mine", overwrite=True)
    with pytest.raises(UsageError, match=r"among the photos|photo folder"):
        tg.export(run, photos / "out")


MOUNTED = """
import subprocess
from pathlib import Path
from topgraft._export.make import _whole
from topgraft.errors import StoreError

def export(word):
    with _whole(Path("out")) as half:
        (half / "runtime").mkdir()
        (half / "runtime" / "new.txt").write_text(word)
        (half / "model.onnx").write_text(word)

def shown():
    return sorted(str(file.relative_to("out")) for file in Path("out").rglob("*") if file.is_file())

assert Path("out").is_mount() and not shown()
export("first")
(Path("out") / "labels.txt").write_text("an old file")
export("second")
assert shown() == ["model.onnx", "runtime/new.txt"], shown()
assert Path("out/model.onnx").read_text() == "second"

(Path("out") / "z").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "none", "out/z"], check=True)  # nothing moves this aside
try:
    export("third")
except StoreError as error:
    assert "busy" in str(error), error
else:
    raise AssertionError("nothing failed")
assert shown() == ["model.onnx", "runtime/new.txt"], shown()
assert Path("out/model.onnx").read_text() == "second"
assert sorted(entry.name for entry in Path("out").iterdir()) == ["model.onnx", "runtime", "z"]
"""


@pytest.mark.skipif(
    not shutil.which("unshare") or bool(subprocess.run(["unshare", "-rm", "true"], check=False).returncode),
    reason="needs user namespaces, to mount something",
)
def test_an_export_goes_to_a_mount_point_and_one_that_cannot_be_replaced_stays(tmp_path):
    (tmp_path / "out").mkdir()
    line = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none out && exec "$0" -c "$1"']
    done = subprocess.run(
        [*line, sys.executable, MOUNTED], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_a_killed_export_left_is_in_nobodys_way(run, tmp_path):
    out = tmp_path / "out"
    tg.export(run, out)
    place = out.stat().st_ino
    (out / make.HALF).mkdir()
    (out / make.OLD).mkdir()  # killed between the old files and the new ones
    for file in list(out.iterdir()):
        if file.is_file():
            file.rename(out / make.OLD / file.name)
    with pytest.raises(UsageError, match="give --overwrite"):
        tg.export(run, out)
    tg.export(run, out, overwrite=True)
    assert {"model.onnx", "metrics.json"} <= {file.name for file in out.iterdir()}
    assert not {make.HALF, make.OLD} & {file.name for file in out.iterdir()}
    assert out.stat().st_ino == place


def test_an_export_in_openvinos_form_is_no_run_to_export(exported, tmp_path):
    with pytest.raises(DataError, match=r"expected model\.onnx, .* Give the run that it was exported from"):
        tg.export(exported("openvino").path, tmp_path / "second")


def test_what_cannot_be_is_said_before_the_work(run, tmp_path):
    with pytest.raises(UnknownNameError, match=r"no format is named 'onx'\. Did you mean onnx"):
        tg.export(run, tmp_path / "out", format="onx")
    with pytest.raises(UnknownNameError, match="no precision is named 'f8'"):
        tg.export(run, tmp_path / "out", precision="f8")
    with pytest.raises(DataError, match="expected a run"):
        tg.export(tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match=r"expected ort\.wasm\.min\.mjs"):
        tg.export(run, tmp_path / "out", format="web", runtime=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_the_runtime_the_page_names_the_line(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = tg.export(run, tmp_path / "out", format="web")
    assert NPM in made.notes[0]
    assert made.agreement.runtime == "onnxruntime"
    assert NPM in (made.path / "README.md").read_text()
    assert not (made.path / "runtime").exists()


def test_the_runtime_is_the_one_that_the_tests_install():
    assert json.loads((ROOT / "package.json").read_text())["devDependencies"]["onnxruntime-web"] == VERSION


@needs_web
def test_the_runtime_comes_with_its_licence_and_everything_is_kept_for_offline(exported):
    folder = exported("web").path
    assert sorted(file.name for file in (folder / "runtime").iterdir()) == sorted([*FILES, "LICENCE"])
    assert "MIT License" in (folder / "runtime" / "LICENCE").read_text()
    kept = json.loads(re.search(r"FILES = (\[.*?\]);", (folder / "offline.js").read_text())[1])
    assert {"./", "index.html", "model.onnx", "card.json", f"runtime/{FILES[2]}"} <= set(kept)
    assert "{{" not in (folder / "index.html").read_text() + (folder / "offline.js").read_text()


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_the_snippets_of_the_readme_run_as_they_stand(run, photos, exported, tmp_path, form):
    folder = shutil.copytree(exported(form).path, tmp_path / "out")
    photo = next((photos / "sushi").iterdir())
    shutil.copy(photo, folder / "photo.jpg")
    expected = load(run.path).predict(photo)[0]
    snippets = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(snippets) == 2
    for code in snippets:
        assert len(code.splitlines()) <= 11
        line = [sys.executable, "-c", code]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=True)
        assert expected.label in done.stdout
        assert f"{expected.probability:.3f}"[:4] in done.stdout
        assert str(expected.unknown) in done.stdout
    assert "ORT_DISABLE_TELEMETRY" in snippets[1] or "openvino_telemetry" in snippets[1]


def test_halving_leaves_the_fit_alone(run):
    graph = (run.model / "model.onnx").read_bytes()
    whole, half = (onnx.load_from_string(data).graph for data in (graph, graphs.halve(graph)))
    fit = {
        tensor.name: tensor.SerializeToString()
        for tensor in whole.initializer
        if tensor.name.startswith("fit.")
    }
    assert fit
    assert fit == {
        tensor.name: tensor.SerializeToString()
        for tensor in half.initializer
        if tensor.name.startswith("fit.")
    }


def test_node_that_cannot_run_the_files_is_one_line(run, tmp_path, monkeypatch):
    if not RUNTIME.is_dir() or not shutil.which("node"):
        pytest.skip("needs onnxruntime-web")
    monkeypatch.setattr(forms, "PAGE", ("page.css", "page.mjs", "worker.mjs"))  # without model.mjs
    with pytest.raises(BackboneError, match=r"cannot run the export: .*Cannot find module") as caught:
        tg.export(run, tmp_path / "out", format="web", runtime=RUNTIME)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_prints_what_was_measured(run, tmp_path):
    line = ["export", str(run.path), "-o", str(tmp_path / "out"), "--format"]
    done = CliRunner().invoke(app, [*line, "onnx"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "16 of 16 photos have the run's label" in done.stdout
    done = CliRunner().invoke(app, [*line, "openvino", "--json", "--overwrite"], catch_exceptions=False)
    assert json.loads(done.stdout)["agreement"]["same"] == 16
    assert (tmp_path / "out" / "model.xml").is_file()


@pytest.mark.shared
@pytest.mark.nightly
@pytest.mark.parametrize(
    ("form", "precision"),
    [
        ("onnx", "f32"),
        ("openvino", "f32"),
        pytest.param("web", "f32", marks=needs_web),
        ("onnx", "f16"),
        ("openvino", "f16"),
        ("onnx", "int8"),
        ("openvino", "int8"),
    ],
)
def test_exports_agree_on_real_photos(shared, tmp_path_factory, tmp_path, form, precision):
    photos = shared / "data" / "sushi_sandwich"
    place = tmp_path_factory.getbasetemp() / "real-run"
    real = (
        Run.open(place)
        if place.exists()
        else follow(Config.load(data__photos=str(photos), policies__count=0), place)
    )
    made = tg.export(
        real, tmp_path / "out", format=form, precision=precision, runtime=RUNTIME if form == "web" else None
    )
    assert made.agreement.photos == 160
    assert made.agreement.same >= {"f32": 160, "f16": 159, "int8": 152}[precision]
    assert made.agreement.apart < {"f32": 1e-3, "f16": 0.02, "int8": 0.5}[precision]
