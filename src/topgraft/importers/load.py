"""Loading a backbone by name: the built-in one, a folder, an ONNX file, or a timm model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from topgraft import files
from topgraft.backbones import _builtin
from topgraft.backbones._cache import (
    SUMS,
    TIMM,
    find,
    keep,
    remember,
    rename_into_place,
    sums,
    temporary,
)
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Card
from topgraft.config import AUTO, FAMILY, Config
from topgraft.errors import BackboneError, OfflineError, UsageError, need
from topgraft.fingerprint import digest
from topgraft.progress import watched
from topgraft.settings import Settings
from topgraft.types import Progress, auto, silent

DEFAULT = _builtin.LITE0.name
BUILTINS = {
    alias: lite for name, lite in _builtin.BUILTINS.items() for alias in (name, name.partition(".")[0])
}
BETWEEN = "+"
PLACES = ("local-dir:", "hf-hub:")
"""How a name begins that is an address, not a word."""
SMALLEST, LARGEST = 32, 4096
"""Sides of pictures, in pixels: the first map of most networks' last block is a 32nd of the side."""
WEIGHTS = (".safetensors", ".pth", ".bin", ".pt")


@watched
def load_backbone(
    name: str = DEFAULT,
    *,
    card: Path | str | None = None,
    weights: Path | str = "pretrained",
    seed: int = 0,
    size: int | None = None,
    settings: Settings | None = None,
    progress: Progress = auto,
) -> Backbone:
    """Return a backbone by name; one that has to be made is made once and kept in the cache.

    Args:
        name: the built-in `tf_efficientnet_lite0.in1k` or `tf_efficientnet_lite2.in1k` (lite1 with the extra
            `larger`); a folder that `fetch` wrote; an ONNX file; or, with the `timm` extra, any timm model:
            `architecture`, `architecture.tag`, `local-dir:PATH`, `hf-hub:OWNER/NAME`. `NAME@SIDE` asks for
            pictures of another side, as `size` does. `A+B` joins names and folders: a row is what one says
            and then what the other says.
        card: for an ONNX file, the JSON of what it cannot tell.
        weights: `pretrained`, `random`, or a `.safetensors` or `.pth` file; the last two for timm models.
        seed: of random weights.
        size: the side of the pictures in pixels where it shall not be the model's own.
        settings: where graphs are kept, and whether a socket may be opened.
        progress: told what is being done.

    Raises:
        UnknownNameError: for a name nobody knows.
        UsageError: for options that do not belong to this kind of backbone.
        BackboneError: for files that are not what they claim to be.
        OfflineError: where the weights would have to be fetched and cannot be.
        MissingExtraError: where a timm model is to be made without the `timm` extra.
    """
    settings = settings or Settings.load()
    name, size = _sized(name, size)
    if name in (AUTO, FAMILY):
        raise UsageError(
            f"backbone: {name} is for `topgraft train`, which tries some, each on its own side."
            " `topgraft backbones --try PHOTOS` names the best."
        )
    own = str(weights) == "pretrained"
    if len(parts := _parts(name)) > 1:
        if card is not None or not own:
            raise UsageError(
                f"{name}: joined backbones bring their own weights. Leave --card and --weights out."
            )
        return _joined(name, parts, size, settings, progress)
    graph = name.lower().endswith(".onnx")
    if card is not None and not graph:
        raise UsageError(f"{name}: only an ONNX file takes a card. Leave --card out.")
    if (size or not own) and (graph or Path(name).is_dir()):
        raise UsageError(f"{name}: a graph brings its own weights and size. Leave --weights and --size out.")
    if graph:
        return _from_file(Path(name), Path(card) if card else None, settings)
    if Path(name).is_dir():
        return _from_folder(Path(name), settings)
    if name in BUILTINS and own:
        lite = _builtin.sized(BUILTINS[name], size)
        if found := _builtin_backbone(lite, settings, progress):
            return found
    return _from_timm(name, str(weights), seed, size, settings=settings, progress=progress)


def load_named(config: Config, *, settings: Settings | None = None, progress: Progress = silent) -> Backbone:
    """Return the backbone that a recipe names, with its card, its weights and the seed of random ones.

    Raises:
        TopgraftError: as `load_backbone`.
    """
    choice = config.backbone
    return load_backbone(
        choice.name,
        card=choice.card,
        weights=choice.weights,
        seed=config.seed,
        settings=settings,
        progress=progress,
    )


@watched
def fetch(
    name: str,
    to: Path | str,
    *,
    settings: Settings | None = None,
    progress: Progress = auto,
    **options: Any,
) -> Path:
    """Write a backbone's folder that works on a machine without a network, as `--backbone FOLDER`.

    It holds the graph, the card, the licence, timm's weights where there are any, and the checksums of all.

    Args:
        name: as for `load_backbone`.
        to: a folder that does not exist yet or is empty.
        settings: as for `load_backbone`.
        progress: told what is being done.
        **options: as for `load_backbone`.

    Raises:
        UsageError: where something is there already.
    """
    to = Path(to)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"{to}: is there and no empty folder. Give one that does not exist yet.")
    backbone = load_backbone(name, settings=settings, progress=progress, **options)
    with temporary(to) as folder:
        files.copy(backbone.graph.parent, folder)
        (folder / "LICENCE").write_text(_licence(backbone.card), encoding="utf-8")
        (folder / SUMS).write_text(sums(folder), encoding="utf-8")
        rename_into_place(folder, to)
    return to


def find_backbone(card: Card, *, settings: Settings | None = None, progress: Progress = silent) -> Backbone:
    """Return the very backbone that a card describes: what made a store's features, or a run's.

    Nothing is fetched for it: for that, the word of a file is not enough.

    Raises:
        BackboneError: where it is not on this machine and cannot be made again from what is here.
    """
    settings = replace(settings or Settings.load(), offline=True)
    place = settings.cache_dir / "backbones" / card.folder()
    if here := Backbone.kept(place):
        return here
    names = {"builtin": card.name, "joined": card.name, "timm": card.origin.removeprefix("timm:")}
    named = names.get(card.source)
    if named and not named.startswith("local-dir:"):
        side = card.name.rpartition("@")[2]  # what a timm model comes from does not say it
        size = int(side) if side.isdecimal() else None
        with suppress(OfflineError):
            found = load_backbone(named, size=size, settings=settings, progress=progress)
            if found.card.fingerprint() == card.fingerprint() and card.depths in ((), found.card.depths):
                return found
    raise BackboneError(
        f"{card.name}: this very backbone ({card.origin}) is not on this machine. Load it once with "
        "`topgraft backbones NAME`, or give it as --backbone."
    )


def _sized(name: str, size: int | None) -> tuple[str, int | None]:
    """Take `NAME@SIDE` apart; a file, a folder or a hub's revision keeps its @.

    Raises:
        UsageError: for two sides, or one that no network can have.
    """
    own, _, side = name.rpartition("@")
    if own and side.isdecimal() and ":" not in name and not Path(name).exists():
        if size not in (None, int(side)):
            raise UsageError(f"{name}: two sizes, {side} and {size}. Leave one out.")
        name, size = own, int(side)
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise UsageError(f"{name}: expected pictures of {SMALLEST} to {LARGEST} pixels a side, got {size}.")
    return name, size


def _from_folder(folder: Path, settings: Settings) -> Backbone:
    """Open a fetched folder; the cache takes a copy, so that what it makes is understood without it."""
    card = Backbone.open(folder).card
    place = settings.cache_dir / "backbones" / card.folder()

    def write(copy: Path) -> Card:
        files.copy(folder, copy)
        return card

    return _renewed(
        Backbone.kept(place) or Backbone.open(keep(settings.cache_dir, write), ours=True), settings
    )


def _builtin_backbone(lite: _builtin.Lite, settings: Settings, progress: Progress) -> Backbone | None:
    """Return one whose weights pip brought; None where timm would have to bring them.

    Raises:
        MissingExtraError: where neither can.
    """
    card = _builtin.card(lite)
    place = settings.cache_dir / "backbones" / card.folder()
    if here := Backbone.kept(place):
        return here
    if lite.package != _builtin.LITE0.package and not _builtin.here(lite) and find_spec("timm"):
        return None
    progress(f"writing {card.name}", 0, 1)
    keep(settings.cache_dir, lambda folder: _builtin.write(folder, lite))
    progress(f"writing {card.name}", 1, 1)
    return Backbone.open(place, ours=True)


def _parts(name: str) -> list[str]:
    """Take `A+B` apart; a file, a folder or a place that timm knows keeps its +.

    Raises:
        UsageError: for a part that is no single backbone, or cannot be given by name.
    """
    if BETWEEN not in name or Path(name).exists() or name.startswith(PLACES):
        return [name]
    parts = name.split(BETWEEN)
    for part in parts:
        if part.partition("@")[0] in ("", AUTO, FAMILY):
            raise UsageError(
                f"{name}: expected one backbone on each side of {BETWEEN}, got {part!r}."
                " Try tf_efficientnet_lite0+tf_efficientnet_lite2."
            )
        if part.startswith(PLACES) or part.lower().endswith(".onnx"):
            raise UsageError(
                f"{name}: {part} is joined as a folder. Write it with `topgraft fetch {part} --to FOLDER`."
            )
    return parts


def _joined(
    name: str, names: Sequence[str], size: int | None, settings: Settings, progress: Progress
) -> Backbone:
    """Return several as one, all on pictures of the largest one's side, or of the side that is asked for.

    Raises:
        UsageError: for one that is there twice.
    """
    parts = [load_backbone(part, size=size, settings=settings, progress=progress) for part in names]
    side = max(part.card.input_size[0] for part in parts)
    parts = [
        part
        if part.card.input_size[0] == side or "@" in own or Path(own).exists()
        else load_backbone(own, size=side, settings=settings, progress=progress)
        for own, part in zip(names, parts, strict=True)
    ]
    if len({part.card.fingerprint() for part in parts}) < len(parts):
        raise UsageError(f"{name}: expected backbones that differ. Leave one out.")
    from topgraft.importers import _join

    request = {"joined": [part.card.folder() for part in parts]}
    return _kept(request, lambda folder: _join.write(folder, parts), settings)


def _from_file(graph: Path, card: Path | None, settings: Settings) -> Backbone:
    from topgraft.importers import _onnx

    facts = _onnx.read_facts(graph, card)
    request = {"graph": digest(_read(graph)), "name": graph.name, "facts": facts}
    return _kept(request, lambda folder: _onnx.write(folder, graph, facts), settings)


def _from_timm(
    name: str, weights: str, seed: int, size: int | None, *, settings: Settings, progress: Progress
) -> Backbone:
    random, pretrained = weights == "random", weights == "pretrained"

    def write(folder: Path) -> Card:
        need("timm", "timm", f"backbone {name}")
        from topgraft.importers import _timm, _timm_create

        model = _timm_create.create(
            name,
            weights=None if random or pretrained else Path(weights),
            seed=seed if random else None,
            size=size,
            offline=settings.offline,
        )
        progress(f"importing {name}", 1, 2)
        tag = f"random{seed}" if random else None if pretrained else Path(weights).stem
        return _timm.write(folder, model, size=size, tag=tag, origin=_origin(name))

    progress(f"importing {name}", 0, 2)
    made = _renewed(_kept(_request(name, weights, seed, size), write, settings), settings)
    progress(f"importing {name}", 2, 2)
    return made


def _renewed(found: Backbone, settings: Settings) -> Backbone:
    """Write an older Topgraft's graph again, so that it gives the statistics of blocks too.

    Its weights lie beside it, so no network is needed; without PyTorch it stays what it is.
    """
    card, folder = found.card, found.graph.parent
    known = card.depths or card.source != "timm" or card.precision != "f32"
    if known or not (folder / TIMM).is_dir() or find_spec("timm") is None or find_spec("torch") is None:
        return found

    def write(new: Path) -> Card:
        from topgraft.importers import _timm

        return _timm.renew(new, found)

    return _kept({"depths of": card.folder()}, write, settings)


def _kept(request: dict[str, Any], write: Callable[[Path], Card], settings: Settings) -> Backbone:
    """Return what a request asks for from the cache, or make it and keep it there."""
    place = find(settings.cache_dir, request)
    if place and (here := Backbone.kept(place)):
        return here
    place = keep(settings.cache_dir, write)
    remember(settings.cache_dir, request, place)
    return Backbone.open(place, ours=True)


def _request(name: str, weights: str, seed: int, size: int | None) -> dict[str, Any]:
    """Return what is asked of timm; files are named by their content, so that moving them changes nothing."""
    facts: dict[str, Any] = {"name": name, "weights": weights, "size": size}
    if weights == "random":
        facts["seed"] = seed
    elif weights != "pretrained":
        facts["weights"] = _content([Path(weights)])
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        facts["name"] = "local-dir:"
        held = sorted(folder.iterdir()) if folder.is_dir() else []
        facts["files"] = _content([file for file in held if file.suffix in (*WEIGHTS, ".json")])
    return facts


def _content(paths: list[Path]) -> list[str]:
    return [digest(_read(file)) for file in paths]


def _read(file: Path) -> bytes:
    try:
        return files.read_local(file)
    except OSError as error:
        raise BackboneError(f"{file}: cannot be read ({error.strerror}).") from error


def _origin(name: str) -> str:
    """Return where a timm model came from, without the paths of this machine."""
    if name.startswith("local-dir:"):
        return f"local-dir:{Path(name.removeprefix('local-dir:')).resolve().name}"
    return name if name.startswith("hf-hub:") else f"timm:{name}"


def _licence(card: Card) -> str:
    return (
        f"{card.name}\nlicence of the weights: {card.licence}\norigin: {card.origin}\n"
        f"sha256 of the weights: {card.weights_sha256}\n"
    )
