"""PyTorch: on CUDA with autocast and channels-last, else on the CPU in float32."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topgraft.engines._base import Engine
from topgraft.errors import UsageError, need
from topgraft.settings import Settings
from topgraft.types import Features, Images

if TYPE_CHECKING:
    import torch

    from topgraft.backbones.backbone import Backbone

CPU_BATCH, CUDA_BATCH = 4, 64  # of one fixed size each: kernels are chosen by shape, and so are the last bits


def device(settings: Settings) -> torch.device:
    """Return the device PyTorch runs on.

    Raises:
        UsageError: where CUDA was asked for and is not there.
        MissingExtraError: without the `timm` extra.
    """
    torch = need("torch", "timm", "the torch engine")
    if settings.device == "cpu":
        return torch.device("cpu")
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda: PyTorch sees no CUDA device. Use --device cpu.")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class TorchEngine(Engine):
    """Runs timm's own model; its weights come from the backbone's folder.

    On the CPU PyTorch shares one picture's sums among its threads, so another number of threads (which is the
    process's, `torch.set_num_threads`) can change the last bits; the openvino engine has no such limit.
    """

    name: ClassVar[str] = "torch"

    def __init__(self, backbone: Backbone, *, depths: bool = False, settings: Settings | None = None) -> None:
        need("timm", "timm", "the torch engine")
        from topgraft.backbones._torch import FromPixels, torch_model

        self.device = device(settings or Settings.load())
        self.card, self.depths = backbone.card, depths
        cuda = self.device.type == "cuda"
        self.precision = "f16" if cuda else "f32"
        self._batch = CUDA_BATCH if cuda else CPU_BATCH
        self._model: Any = FromPixels(torch_model(backbone), backbone.card).eval().to(self.device)
        if cuda:
            import torch

            self._model = self._model.to(memory_format=torch.channels_last)

    @property
    def model(self) -> torch.nn.Module:
        """The network that runs, in evaluation mode."""
        return self._model

    def stream(self, batches: Iterable[tuple[Any, Images]]) -> Iterator[tuple[Any, Features]]:
        """Turn batches into features; on CUDA one batch is computed while the next is fetched."""
        if self._model is None:
            raise UsageError("torch engine: it is closed. Open another one.")
        started: deque[tuple[Any, list[Any]]] = deque()
        for tag, images in batches:
            self.check(images)
            started.append((tag, [self._start(piece) for piece in self._pieces(images)]))
            if len(started) > 1:
                yield self._finish(*started.popleft())
        while started:
            yield self._finish(*started.popleft())

    def _pieces(self, images: Images) -> Iterator[Images]:
        for start in range(0, len(images), self._batch):
            yield images[start : start + self._batch]

    def _start(self, piece: Images) -> tuple[int, torch.Tensor]:
        import torch

        count = len(piece)
        full = np.zeros((self._batch, *piece.shape[1:]), np.uint8)
        full[:count] = piece
        with (
            torch.inference_mode(),
            torch.autocast("cuda", torch.float16, enabled=self.device.type == "cuda"),
        ):
            given = self._model(torch.from_numpy(full).to(self.device, non_blocking=True))
            found = dict(zip(self._model.outputs, given, strict=True))
        rows = found[self.card.output].flatten(1).float()
        return count, torch.cat([rows, found["blocks"]], 1) if self.depths else rows

    def _finish(self, tag: Any, pieces: list[tuple[int, torch.Tensor]]) -> tuple[Any, Features]:
        rows = [features[:count].cpu().numpy() for count, features in pieces]
        return tag, np.concatenate(rows) if rows else np.empty((0, self.width), np.float32)

    def close(self) -> None:
        """Free the network."""
        self._model = None
