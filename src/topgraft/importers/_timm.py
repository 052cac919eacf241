"""timm models: their card, their blocks, and their graph, written once and checked against PyTorch.

A backbone's folder also keeps the weights in timm's own local form (`timm/config.json` and
`timm/model.safetensors`, without the classifier), so that fine-tuning and the torch engine need nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from topgraft import files
from topgraft.backbones import _builtin
from topgraft.backbones._cache import CARD, GRAPH, TIMM
from topgraft.backbones._float16 import beyond_float16
from topgraft.backbones._pictures import pictures
from topgraft.backbones._torch import FromPixels, groups, system_errors, torch_model
from topgraft.backbones._torch_depths import channels, shapes, token
from topgraft.backbones.backbone import Backbone
from topgraft.backbones.card import Block, Card
from topgraft.backbones.depths import Depth
from topgraft.errors import BackboneError
from topgraft.types import Features

if TYPE_CHECKING:
    from collections.abc import Iterator


PICTURES, AGREEMENT = 8, 0.9999
WIDEST = 2048
"""Channels of all blocks together up to which each block is read."""


def write(
    folder: Path,
    model: torch.nn.Module,
    *,
    origin: str,
    size: int | None = None,
    tag: str | None = None,
    depths: tuple[Depth, ...] | None = None,
) -> Card:
    """Write a network's folder: graph, card, and weights in timm's form.

    Args:
        folder: an empty folder.
        model: a timm model without classifier.
        size: the side of the pictures in pixels where it is not the model's own.
        origin: where the weights came from.
        tag: of the name, where it is not the one of timm's weights.
        depths: the blocks whose statistics the graph gives, where they are known; None chooses them.

    Raises:
        BackboneError: where the graph cannot be made or disagrees with PyTorch.
    """
    from timm.models import save_for_hf

    model = model.eval()
    with quiet(), system_errors():
        save_for_hf(model, str(folder / TIMM), safe_serialization=True)
    weights = (folder / TIMM / "model.safetensors").read_bytes()
    card = _card(model, size, tag, origin=origin, weights_sha256=hashlib.sha256(weights).hexdigest())
    if depths is not None:
        card = card.model_copy(update={"depths": depths})
    return _finish(folder, model, card)


def renew(folder: Path, found: Backbone) -> Card:
    """Write the folder of a backbone that an older Topgraft made again, with the statistics of its blocks.

    Raises:
        BackboneError: as of `write`.
    """
    files.copy(found.graph.parent / TIMM, folder / TIMM)
    model = torch_model(found)
    depths = _depths(model, found.card.input_size)
    return _finish(folder, model, found.card.model_copy(update={"depths": depths}))


def _finish(folder: Path, model: torch.nn.Module, card: Card) -> Card:
    """Write graph and card, and check the graph."""
    network = FromPixels(model, card).eval()
    rows = _graph(folder, network, card)
    card = card.model_copy(update={"float32": beyond_float16(rows, card.columns)})
    (folder / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
    return card


def _card(model: torch.nn.Module, size: int | None, tag: str | None, **facts: Any) -> Card:
    from timm.data import resolve_data_config

    cfg = dict(model.pretrained_cfg)
    data = resolve_data_config({"img_size": size} if size else {}, pretrained_cfg=cfg)
    channels, height, width = data["input_size"]
    own = resolve_data_config({}, pretrained_cfg=cfg)["input_size"]
    if channels != 3:
        raise BackboneError(f"{cfg['architecture']}: it takes {channels} channels; pictures have 3.")
    with torch.inference_mode():
        maps = model.forward_features(torch.zeros(1, 3, height, width))
        features = model.forward_head(maps, pre_logits=True)
    if features.ndim != 2:
        raise BackboneError(
            f"{cfg['architecture']}: it gives {tuple(features.shape)} where (1, D) is expected."
        )
    tag = tag or cfg.get("tag")
    name = f"{cfg['architecture']}.{tag}" if tag else cfg["architecture"]
    return Card.model_validate(
        {
            "name": name if data["input_size"] == own else f"{name}@{height}",
            "input_size": (height, width),
            "interpolation": data["interpolation"],
            "crop_fraction": data["crop_pct"],
            "crop_mode": data["crop_mode"],
            "mean": data["mean"],
            "std": data["std"],
            "features": features.shape[1],
            "map_size": _map_size(model, maps),
            "blocks": _blocks(model),
            "depths": _depths(model, (height, width)),
            "licence": cfg.get("license") or "unknown",
            "source": "timm",
            **facts,
        }
    )


def _map_size(model: torch.nn.Module, maps: torch.Tensor) -> tuple[int, ...] | None:
    """Return (channels, height, width) where the network keeps a map until its pooling."""
    if not isinstance(maps, torch.Tensor) or maps.ndim != 4:
        return None
    order = (3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else (1, 2, 3)
    return tuple(maps.shape[axis] for axis in order)


def _blocks(model: torch.nn.Module) -> tuple[Block, ...]:
    counts = {name: value.numel() for name, value in model.named_parameters()}
    return tuple(
        Block(name=name, parameters=sum(counts[parameter] for parameter in inside))
        for name, inside in groups(model)
    )


def _depths(model: torch.nn.Module, size: tuple[int, int]) -> tuple[Depth, ...]:
    """Choose the blocks that are read."""
    found = shapes(model, [name for name, _ in groups(model)], size)
    return tuple(
        Depth(name=name, channels=channels(model, found[name]), token=token(model, found[name]))
        for name in chosen(found, {name: channels(model, shape) for name, shape in found.items()})
    )


def chosen(shapes: dict[str, tuple[int, ...]], widths: dict[str, int]) -> list[str]:
    """Choose the blocks whose statistics pay: all, or in a wide network the last of each stage.

    Measured with ridge on the development sets: stage ends gain as much as all blocks do, at half the width
    and less; averaging neighbouring channels down to a width loses most of the gain.

    Args:
        shapes: of the blocks' outputs, first to last; a stage is a run of equal ones.
        widths: channels of each.
    """
    names = list(shapes)
    if sum(widths.values()) <= WIDEST:
        return names
    ends = [name for name, after in pairwise([*names, ""]) if shapes[name] != shapes.get(after)]
    if len(ends) > 1:
        return ends
    return [names[round(len(names) * quarter / 4) - 1] for quarter in range(1, 5)]  # a ViT is all one stage


def _graph(folder: Path, network: FromPixels, card: Card) -> Features:
    """Write the graph; returns what it gives of pictures.

    One of the family that comes with pip, as after fine-tuning, is written as those are: PyTorch's exporter
    takes half a minute for it. A relative with other layers, which would not agree, is left to that.
    """
    own = _builtin_like(network, card)
    if own is not None:
        try:
            weights = {name: value.numpy() for name, value in network.model.state_dict().items()}
            (folder / GRAPH).write_bytes(_builtin.graph(own, weights).SerializeToString(deterministic=True))
            return _check(folder, network, card)
        except (BackboneError, ValueError, StopIteration):
            (folder / GRAPH).unlink(missing_ok=True)
    _export(folder / GRAPH, network, card)
    return _check(folder, network, card)


def _builtin_like(network: FromPixels, card: Card) -> _builtin.Lite | None:
    """Return which one of the family that comes with pip a network is, for pictures of the card's side."""
    name = network.model.pretrained_cfg.get("architecture")
    for lite in _builtin.BUILTINS.values():
        if lite.name.partition(".")[0] == name:
            own = _builtin.card(_builtin.sized(lite, card.input_size[0]))
            facts = ("input_size", "mean", "std", "features", "map_size", "blocks", "depths")
            if all(getattr(own, fact) == getattr(card, fact) for fact in facts):
                return _builtin.sized(lite, card.input_size[0])
    return None


def _export(path: Path, network: FromPixels, card: Card) -> None:
    example = torch.from_numpy(pictures(2, *card.input_size))
    try:
        with quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=["images"],
                output_names=network.outputs,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                verbose=False,
            )
        program.save(path, external_data=False)
    except OSError:
        raise  # a full disk is nothing another backbone would help against
    except Exception as error:
        raise BackboneError(
            f"{card.name}: cannot be written as an ONNX graph ({files.said(error)}). Try another backbone."
        ) from error


def _check(folder: Path, network: FromPixels, card: Card) -> Features:
    """Compare the graph with PyTorch on pictures; returns what the graph gives.

    Raises:
        BackboneError: where the cosine of any picture's two rows is below 0.9999, of the last layer, the
            means or the spreads.
    """
    from topgraft.engines import open_engine

    shown = pictures(PICTURES, *card.input_size, seed=1)
    names = ["features", *["blocks"] * bool(card.depths)]
    expected = []
    with torch.inference_mode():
        for picture in shown:
            found = dict(zip(network.outputs, network(torch.from_numpy(picture[None])), strict=True))
            expected.append(torch.cat([found[name] for name in names], 1).numpy())
    with open_engine(Backbone(card, folder / GRAPH), engine="openvino", depths=bool(card.depths)) as engine:
        rows = engine.embed(shown)
    groups = card.columns.groups().values()
    lowest = min(float(cosine(rows[:, at], np.concatenate(expected)[:, at]).min()) for at in groups)
    if not lowest >= AGREEMENT:
        raise BackboneError(
            f"{card.name}: graph and PyTorch must agree with a cosine of at least {AGREEMENT}, "
            f"got {lowest:.6f}. Nothing was kept; try another backbone."
        )
    return rows


def cosine(a: Any, b: Any) -> Any:
    """Return the cosines (N,) of rows (N, D) with rows (N, D), in -1..1."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's and timm's remarks to themselves."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "timm", "torch.export")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
