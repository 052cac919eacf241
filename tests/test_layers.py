"""Heavy libraries are imported in the few files that are for them; import-linter does the rest."""

import ast
from functools import cache
from pathlib import Path

import grimp
import networkx as nx
import pytest

import topgraft

PACKAGE = Path(topgraft.__file__).parent
HOMES = {
    "torch": (
        "engines/_torch.py",
        "backbones/_torch",
        "importers/_timm",
        "heads/_torch",
        "heads/_network.py",
        "_finetune",
    ),
    "timm": ("engines/_torch.py", "backbones/_torch.py", "importers/", "_finetune"),
    "openvino": ("engines/_openvino.py",),
    "nncf": ("importers/quantize.py",),
    "onnxruntime": ("predictor/_runtime.py", "_export/runtimes.py"),
    "ray": ("_embed/distribute.py", "telemetry.py"),
    "typer": ("cli.py",),
    "fastapi": ("serve/",),
    "starlette": ("serve/",),
    "uvicorn": ("serve/",),
    "prometheus_client": ("serve/",),
    "zarr": ("store/", "testing/stores.py"),
    "mlflow": ("_track.py",),
    "pickle": ("backbones/_pth.py",),
    "matplotlib": (),
    "requests": (),
}


@cache
def imported(path):
    """Name every library a file imports, by statement or through `need` and its like."""
    return set(named(path))


def named(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name.split(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
            "need",
            "import_module",
            "import_silently",
        ):
            yield from (
                str(one.value).split(".")[0] for one in node.args[:1] if isinstance(one, ast.Constant)
            )


@pytest.mark.parametrize("library", HOMES)
def test_imported_at_home_only(library):
    users = {
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if library in imported(path)
    }
    assert {name for name in users if not name.startswith(HOMES[library] or "-")} == set()


@pytest.mark.parametrize("for_types_too", [False, True])
def test_no_import_circle(for_types_too):
    graph = grimp.build_graph("topgraft", exclude_type_checking_imports=not for_types_too, cache_dir=None)
    arrows = nx.DiGraph(
        (module, imported)
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
        if module != "topgraft"  # the package's own names are imported when they are first used
    )
    assert [sorted(circle) for circle in nx.strongly_connected_components(arrows) if len(circle) > 1] == []
