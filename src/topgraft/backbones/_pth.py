"""Read tensors from a legacy `.pth` file without PyTorch, and nothing but tensors.

The format is four pickles (magic number, protocol, sizes of C types, the object), a fifth with the storage
keys, and then each storage as an int64 count followed by its raw bytes (`_legacy_save` of
torch/serialization.py).
A pickle can run any code that its reader lets it name; this one may name five things, all of them inert.
"""

from __future__ import annotations

import io
import pickle  # the one exception to "no pickle": hash-checked, and read by the class below
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topgraft.errors import BackboneError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Storage:
    dtype: np.dtype[Any]
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Reader(pickle.Unpickler):
    """An unpickler that can build ordered dicts and descriptions of tensors."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: _Tensor(storage, offset, size, stride)
        if module == "torch" and name in DTYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weights file")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, _location, count, *_ = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        return _Storage(DTYPES[storage], str(key), int(count))


def read_pth(data: bytes, place: str = "weights") -> dict[str, NDArray[Any]]:
    """Read the state dict of a legacy `.pth` file.

    Args:
        data: the file's bytes.
        place: how errors call it.

    Raises:
        BackboneError: where it is anything but a flat dict of float32 and int64 tensors.
    """
    try:
        return _read(io.BytesIO(data))
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
    ) as error:
        raise BackboneError(
            f"{place}: expected a legacy .pth file of plain tensors, got {error}. "
            "Save the weights as .safetensors instead."
        ) from error


def _read(file: io.BytesIO) -> dict[str, NDArray[Any]]:
    if _Reader(file).load() != MAGIC or _Reader(file).load() != PROTOCOL:
        raise ValueError("another file format")
    if not _Reader(file).load().get("little_endian"):
        raise ValueError("big-endian numbers")
    tensors = _Reader(file).load()
    kinds = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    storages = {key: _storage(file, kinds[key]) for key in _Reader(file).load()}
    return {str(name): _view(tensor, storages) for name, tensor in tensors.items()}


def _storage(file: io.BytesIO, kind: _Storage) -> NDArray[Any]:
    count = int.from_bytes(file.read(8), "little")
    if count != kind.count:
        raise ValueError(f"{count} numbers where {kind.count} were announced")
    raw = file.read(count * kind.dtype.itemsize)
    return np.frombuffer(raw, kind.dtype, count)


def _view(tensor: _Tensor, storages: dict[str, NDArray[Any]]) -> NDArray[Any]:
    storage = storages[tensor.storage.key]
    size, stride = tensor.size, tensor.stride
    last = tensor.offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if 0 in size or min((*size, *stride, tensor.offset), default=0) < 0 or last >= len(storage):
        raise ValueError(f"a tensor {size} that reaches outside its {len(storage)} numbers")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], size, steps, writeable=False)
