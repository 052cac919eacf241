"""The facts of a backbone: all that must be known to feed it and to trust what comes out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from topgraft.backbones.depths import Depth, Depths
from topgraft.fingerprint import fingerprint

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Kind = Literal["features", "blocks"]
Side = Annotated[int, Field(gt=0, le=4096)]
"""Pixels. A picture of the largest size takes 200 MB in float32."""
Spread = Annotated[float, Field(gt=0)]
CropMode = Literal["center", "squash", "border"]


class Block(BaseModel):
    """One group of layers that fine-tuning can unfreeze.

    Attributes:
        name: timm's module path or group name, for example `blocks.6`.
        parameters: how many weights it holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    parameters: int


class Card(BaseModel):
    """The facts of a backbone.

    Attributes:
        name: `architecture.tag`, timm's form.
        input_size: (height, width) in pixels.
        interpolation: how the fit resizes; always antialiased.
        crop_fraction: the part of the resized picture the centre crop keeps (timm's crop_pct), in (0, 1].
        crop_mode: `center` keeps the ratio and crops, `squash` stretches, `border` pads.
        mean, std: per RGB channel, of pixels scaled to 0..1.
        features: D, the width of a feature row.
        map_size: (channels, height, width) of the map before pooling, None where there is none.
        output: what a row is: `features`, or `map`, the flattened map before pooling.
        blocks: what fine-tuning can unfreeze, first to last.
        depths: the blocks whose statistics the graph gives beside the features, first to last.
        float32: which rows are stored in float32, for float16 does not hold them well.
        licence, origin: under which terms, and where the weights came from.
        weights_sha256: hash of the weights file (or of the random seed's weights).
        source: who made the graph.
        precision: of the graph's arithmetic; `int8` after quantisation, which also changes `weights_sha256`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    input_size: tuple[Side, Side]
    interpolation: Interpolation = "bicubic"
    crop_fraction: float = Field(default=0.875, gt=0, le=1)
    crop_mode: CropMode = "center"
    mean: tuple[float, float, float]
    std: tuple[Spread, Spread, Spread]
    features: int = Field(gt=0)
    map_size: tuple[int, int, int] | None = None
    output: Literal["features", "map"] = "features"
    blocks: tuple[Block, ...] = ()
    depths: tuple[Depth, ...] = ()
    float32: tuple[Kind, ...] = ()
    licence: str = "unknown"
    origin: str = ""
    weights_sha256: str = ""
    source: Literal["builtin", "timm", "onnx", "fake", "joined"] = "onnx"
    precision: Literal["f32", "int8"] = "f32"

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of what comes of one picture: (D,), or (C, h, w) of a map."""
        return self.map_size if self.output == "map" and self.map_size else (self.features,)

    @property
    def columns(self) -> Depths:
        """Which columns of a row of every depth are which."""
        return Depths(self.features, self.depths)

    def preprocessing(self) -> str:
        """Return the fit and normalisation in one canonical line; it is part of every feature's address."""
        height, width = self.input_size
        numbers = ",".join(f"{value:.6g}" for value in (*self.mean, *self.std))
        return f"{self.crop_mode} {self.crop_fraction:.6g} {self.interpolation} {height}x{width} [{numbers}]"

    def fingerprint(self) -> str:
        """Return the hash of what decides the features: name, weights, preprocessing and width."""
        facts = [self.name, self.weights_sha256, self.preprocessing(), self.features, self.source]
        return fingerprint([*facts, self.output] if self.output == "map" else facts)

    def folder(self) -> str:
        """Name the cache's folder: two graphs may give the same features and other depths."""
        if not self.depths and not self.float32:
            return self.fingerprint()
        rows = [[depth.model_dump() for depth in self.depths], list(self.float32)]
        return f"{self.fingerprint()}-{fingerprint(rows)[:8]}"


def why_no_depths(card: Card) -> str:
    """Say in one line why a backbone gives no statistics of blocks, and what would help."""
    if card.output == "map":
        return f"{card.name}: maps hold every pixel of the last layer, and no other depth."
    ways = {
        "onnx": 'its card names no tensors to read. Name them there: {"depths": [...]}.',
        "joined": "one of its parts gives none.",
        "timm": "timm names no blocks of it, or an older Topgraft imported it: load it with the extra timm.",
    }
    return f"{card.name}: {ways.get(card.source, 'its graph gives no statistics of blocks.')}"
