"""The finished classifier: one ONNX file and one JSON card in a folder that can be moved anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from io import IOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from PIL import Image as Pillow

from topgraft import files, notebook
from topgraft.backbones.fit import fit
from topgraft.errors import BackboneError, DataError, TopgraftError, UsageError
from topgraft.files import is_file
from topgraft.fingerprint import digest
from topgraft.nodes import weight_elsewhere
from topgraft.photos.decode import from_pillow, read_picture
from topgraft.predictor._card import PredictorCard, UnknownCard
from topgraft.predictor._runtime import Outputs, Runtime, open_runtime
from topgraft.settings import Settings
from topgraft.types import Features, Image, Logits

if TYPE_CHECKING:
    from topgraft.backbones.backbone import Backbone
    from topgraft.heads import Head
    from topgraft.trust.unknown import Unknown

GRAPH, CARD = "model.onnx", "card.json"
XML, BIN = "model.xml", "model.bin"
"""OpenVINO's own form, in place of the graph."""
FITTED = "images"
"""The value in the graph behind the fit: a photo of the backbone's size."""
TOLERANCE = 1e-3
"""By which the sum of single-precision probabilities may differ from 1: 1,000 classes stay far below."""
COLUMNS = ("path", "answer", "label", "probability", "runner_up", "unknown", "unsure", "distance", "error")
"""Of a table, always all of them. Whoever reads `answer` alone is never told a class for a crab."""
AGAIN = "It is damaged, or not one of Topgraft's: train again."
Photo = str | Path | bytes | Pillow.Image | Image
"""What can be predicted."""
R = TypeVar("R", bound=Runtime | None)


@dataclass(frozen=True)
class Prediction:
    """What a predictor says of one photo.

    Attributes:
        label: the most probable class; empty where the photo could not be read.
        probability: of that class.
        unknown: True where the photo looks like none of the classes; the label is then the nearest of them.
        probabilities: every class by name.
        distance: how far the photo lies from the training photos; above the card's threshold it is unknown.
        unsure: True where the label is less probable than the card's `answer_above`.
        path: the photo's; empty for pixels.
        error: why the photo could not be read; empty where all went well.
    """

    label: str = ""
    probability: float = 0.0
    unknown: bool = False
    probabilities: Mapping[str, float] = field(default_factory=dict)
    distance: float = 0.0
    unsure: bool = False
    path: str = ""
    error: str = ""

    def __repr__(self) -> str:
        if self.error:
            return f"Prediction(path={self.path!r}, error={self.error!r})"
        unsure = ", unsure=True" if self.unsure else ""
        said = f"label={self.label!r}, probability={self.probability:.3g}, unknown={self.unknown}{unsure}"
        return f"Prediction({said})"

    @property
    def answer(self) -> str:
        """The label, but empty where the photo is unknown, the label unsure, or the photo unreadable."""
        return "" if self.unknown or self.unsure else self.label

    @property
    def runner_up(self) -> str:
        """The second most probable class; empty where there is none."""
        others = [name for name in self.probabilities if name != self.label]
        return max(others, key=lambda name: self.probabilities[name], default="")

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; a photo that could not be read has its path and error alone."""
        if self.error:
            return {"path": self.path, "error": self.error}
        answer = {
            "answer": self.answer,
            "label": self.label,
            "probability": round(self.probability, 6),
            "runner_up": self.runner_up,
            "unknown": self.unknown,
            "unsure": self.unsure,
            "distance": round(self.distance, 6),
            "probabilities": {name: round(value, 6) for name, value in self.probabilities.items()},
        }
        return {"path": self.path, **answer} if self.path else answer

    def row(self) -> dict[str, Any]:
        """Return a flat row of a table, with all of `COLUMNS`; what an unreadable photo lacks is empty."""
        facts: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"path": self.path, "error": self.error}
        return facts | {name: said for name, said in self.as_dict().items() if name in COLUMNS}


class Predictions(list[Prediction]):
    """Predictions, in the order of their photos; a table in a notebook."""

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, a photo a row, with the columns of `topgraft predict --csv`.

        Raises:
            MissingPandasError: where pandas is not installed.
        """
        return notebook.frame(prediction.row() for prediction in self)

    def _repr_html_(self) -> str:
        """Show them as a table, in a notebook."""
        columns = ("path", "answer", "label", "probability", "runner_up")
        shown = [
            (
                said.path,
                said.answer or _no_answer(said),
                said.label,
                f"{said.probability:.3f}",
                said.runner_up,
            )
            for said in self
        ]
        return notebook.table(f"{len(self):,} predictions", columns, shown)


def _no_answer(said: Prediction) -> str:
    return said.error or ("unknown" if said.unknown else "unsure")


class Predictor:
    """A classifier from photos to classes.

    Attributes:
        card: its classes, threshold, backbone and origin.
    """

    _cache_dir: Path | None = None  # a pickle from before has none

    def __init__(
        self,
        card: PredictorCard,
        graph: bytes,
        *,
        weights: bytes = b"",
        engine: str = "auto",
        settings: Settings | None = None,
    ) -> None:
        self.card = card
        self._graph = graph
        self._weights = weights
        self._engine = engine
        self._threads = (settings or Settings.load()).threads
        self._cache_dir = settings.cache_dir if settings else None
        self._opened: dict[str, Runtime | None] = {}
        self._under_way: list[Photo] = []  # counts them: appending and popping need no lock
        self._process = 0

    @classmethod
    def build(
        cls,
        backbone: Backbone,
        head: Head,
        *,
        classes: Sequence[str],
        temperature: float = 1.0,
        unknown: Unknown | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> Predictor:
        """Return a backbone and a fitted head as one; see `topgraft.predictor.build`.

        Args:
            backbone: gives the features the head was fitted on.
            head: a fitted head.
            classes: C names.
            temperature: divides the logits.
            unknown: the answer "none of these classes".
            metrics: numbers to carry along in the card.
        """
        from importlib import metadata  # reading takes neither

        from topgraft.predictor._build import build

        model = build(backbone, head, classes=classes, temperature=temperature, unknown=unknown)
        graph = model.SerializeToString(deterministic=True)
        card = PredictorCard(
            classes=tuple(classes),
            multilabel=head.multilabel,
            head=head.name,
            setting=head.setting,
            temperature=temperature,
            unknown=UnknownCard(method=unknown.method, threshold=unknown.threshold, accepted=unknown.accepted)
            if unknown
            else None,
            backbone=backbone.card,
            metrics=dict(metrics or {}),
            versions={name: metadata.version(name) for name in ("topgraft", "onnx")},
            graph=digest(graph),
        )
        return cls(card, graph)

    @classmethod
    def load(cls, folder: Path | str, *, engine: str = "auto", settings: Settings | None = None) -> Predictor:
        """Load a predictor from its folder.

        Args:
            folder: holds `card.json` and `model.onnx`, or `model.xml` and `model.bin` from an export.
            engine: `openvino`, `onnxruntime`, or `auto` for the first that is installed.
            settings: how many cores to use, and where compiled graphs are kept.

        Raises:
            DataError: where the folder holds no predictor.
            BackboneError: where a file is damaged.
        """
        folder = Path(folder)
        names = (XML, BIN) if is_file(folder / XML) else (GRAPH,)
        lost = [name for name in (*names, CARD) if not is_file(folder / name)]
        if lost:
            raise DataError(
                f"{folder}: expected a predictor, found no {' and no '.join(lost)}. Train one first."
            )
        card = PredictorCard.read(folder / CARD)
        try:
            graph, *weights = [files.read_local(folder / name) for name in names]
        except OSError as error:
            raise BackboneError(f"{folder}: cannot be read ({files.said(error)}).") from error
        if digest(b"".join((graph, *weights))) != card.graph:
            raise BackboneError(
                f"{folder / names[0]}: is not the graph its card was written for. Copy both again."
            )
        if weight := weight_elsewhere(graph):
            raise BackboneError(
                f"{folder / names[0]}: its weight {weight} lies in another file, which is not followed."
                f" {AGAIN}"
            )
        return cls(card, graph, weights=b"".join(weights), engine=engine, settings=settings)

    def save(self, folder: Path | str) -> Path:
        """Write the predictor to a folder; a crash leaves files old or new, never a mixed pair unnoticed.

        Raises:
            StoreError: where it cannot be written.
        """
        folder = Path(folder)
        with files.guarded(folder):
            folder.mkdir(parents=True, exist_ok=True)
            files.write(folder / (XML if self._weights else GRAPH), self._graph)
            if self._weights:
                files.write(folder / BIN, self._weights)
            files.write(folder / CARD, (self.card.model_dump_json(indent=1) + "\n").encode())
        return folder

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.card.classes

    def predict(self, photos: Iterable[Photo] | Photo) -> Predictions:
        """Return what is on photos.

        Photos are read and looked at side by side, one on each core; in OpenVINO one alone uses all
        cores. A photo that cannot be read gives a prediction with `error` set, and the others go on.

        Args:
            photos: paths, bytes of files, Pillow images, or pixels (h, w, 3) uint8 RGB of any size; or one of
                these.

        Returns:
            One prediction a photo, in the order they came: a list that notebooks show as a table.

        Raises:
            UsageError: for pixels of another shape or type, and for anything else, like an open file.
            BackboneError: where what the graph says are no probabilities.
        """
        alone = isinstance(photos, str | Path | bytes | Pillow.Image | IOBase)
        if alone or (isinstance(photos, np.ndarray) and photos.ndim == 3):
            photos = [cast("Photo", photos)]
        every = list(cast("Iterable[Photo]", photos))
        for place, photo in enumerate(every):
            _check_photo(photo, place)
        if len(every) < 2:
            return Predictions(self._predict(photo, alone=True) for photo in every)
        self._ready()  # once, before the threads ask for it
        with ThreadPoolExecutor(self._threads) as pool:
            return Predictions(pool.map(self._predict, every))

    def answer(self, picture: Pillow.Image | Image, path: str = "", *, alone: bool = False) -> Prediction:
        """Return what is on a picture that is decoded already.

        Args:
            picture: in mode RGB and upright, as `read_picture` gives it; or (h, w, 3) uint8 RGB.
            path: the photo's, for the record.
            alone: use all cores, since no other picture is under way.

        Raises:
            BackboneError: where the graph fails, or what it says are no probabilities.
        """
        return self._said(self._ask(picture, alone=alone), path)

    def answering_above(self, probability: float) -> Predictor:
        """Return the same predictor, unsure of any label less probable than this.

        Raises:
            UsageError: for what is no probability.
        """
        if not 0 <= probability <= 1:
            raise UsageError(f"answer_above must be from 0 to 1, got {probability}. Try 0.9.")
        other = copy(self)
        other.card = self.card.model_copy(update={"answer_above": probability})
        return other

    def look(self, image: Image) -> Outputs:
        """Return all outputs of the graph for one picture.

        Args:
            image: (h, w, 3) uint8 RGB of any size.

        Returns:
            `probabilities` (1, C), `features` (1, D), `distance` (1,), `map` where the backbone has one, and
            `blocks` (1, B) where the head reads them.

        Raises:
            UsageError: for pixels of another shape or type.
            BackboneError: where the graph fails, or says what is no answer.
        """
        found = self._ask(image)
        self._refuse_nonsense(found)
        return found

    def _ask(self, image: Image | Pillow.Image, *, alone: bool = False) -> Outputs:
        if isinstance(image, np.ndarray):
            _check_pixels(image, 0)
        run = self._ready(alone=alone)
        # Pillow fits a photo in an eighth of the time that the graph needs for the same pixels
        fits = run.takes == FITTED
        pixels = fit(image, self.card.backbone)[None] if fits else np.ascontiguousarray(image)
        return run(pixels, alone=alone)

    def logits(self, features: Features) -> Logits | None:
        """Return the head's logits alone.

        Args:
            features: (N, D), as `look` gives them; (N, D + B), its `blocks` behind them, where it gives any.

        Returns:
            (N, C), divided by the temperature; None for a head that reads the map in place of features, and
            for a graph in OpenVINO's own form.
        """
        head = self._head
        if head is None:
            return None
        found = head(np.ascontiguousarray(features, np.float32))
        return np.asarray(found["logits"], np.float64)

    def check(self) -> None:
        """Run one picture through the graph and compare what comes out with the card.

        Raises:
            BackboneError: where they disagree.
        """
        found = self.look(np.full((48, 64, 3), 127, np.uint8))
        shape = (1, self.card.backbone.features)
        got = found["features"].shape if "features" in found else None
        if got != shape or not np.isfinite(found["features"]).all():
            raise BackboneError(f"predictor: expected features {shape} of finite numbers, got {got}. {AGAIN}")

    def _ready(self, *, alone: bool = False) -> Runtime:
        runtime = self._in_this_process("whole", self._open)
        runtime.ready(alone=alone)
        return runtime

    def _open(self) -> Runtime:
        return open_runtime(
            self._graph,
            self._engine,
            self._threads,
            weights=self._weights,
            start=FITTED,
            cache_dir=self._cache_dir or Settings.load().cache_dir,
        )

    @property
    def _head(self) -> Runtime | None:
        from topgraft.predictor._build import head_part

        def opened() -> Runtime | None:
            part = None if self._weights else head_part(self._graph)
            return None if part is None else open_runtime(part, self._engine, 1)

        return self._in_this_process("head", opened)

    def _in_this_process(self, part: str, opened: Callable[[], R]) -> R:
        """Open a part once a process: a runtime's threads do not come along into a forked one."""
        if self._process != os.getpid():
            self._opened, self._process = {}, os.getpid()
        if part not in self._opened:
            self._opened[part] = opened()
        return cast("R", self._opened[part])

    def _refuse_nonsense(self, found: Outputs) -> None:
        """See that answers are answers; what a damaged graph says is none.

        Raises:
            BackboneError: for an output that is not there, or numbers that cannot be.
        """
        shapes = {"probabilities": (1, len(self.classes)), "distance": (1,)}
        for name, shape in shapes.items():
            got = found[name].shape if name in found else "none"
            if got != shape:
                raise BackboneError(f"predictor: expected {name} {shape}, got {got}. {AGAIN}")
            if not np.isfinite(found[name]).all():
                raise BackboneError(
                    f"predictor: expected finite {name}, got {found[name].ravel()[:5]}. {AGAIN}"
                )
        shares = found["probabilities"][0]
        total = float(shares.sum())
        if shares.min() < -TOLERANCE or shares.max() > 1 + TOLERANCE:
            raise BackboneError(f"predictor: expected probabilities from 0 to 1, got {shares[:5]}. {AGAIN}")
        if not self.card.multilabel and abs(total - 1) > TOLERANCE:
            raise BackboneError(f"predictor: expected probabilities whose sum is 1, got {total:.4f}. {AGAIN}")

    def __copy__(self) -> Predictor:
        """Share what runs."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Go to another process, as scikit-learn's do, without what runs, and the cache, in this one."""
        return self.__dict__ | {"_opened": {}, "_under_way": [], "_process": 0, "_cache_dir": None}

    def _predict(self, photo: Photo, *, alone: bool = False) -> Prediction:
        path = str(photo) if isinstance(photo, str | Path) else ""
        self._under_way.append(photo)
        try:
            alone = alone and len(self._under_way) == 1
            self._ready(alone=alone)  # a graph that nothing can run is no fault of the photo
            try:
                found = self._ask(_picture(photo), alone=alone)
            except TopgraftError as error:
                return Prediction(path=path, error=str(error))
        finally:
            self._under_way.pop()
        return self._said(found, path)

    def _said(self, found: Outputs, path: str) -> Prediction:
        self._refuse_nonsense(found)
        probabilities = {
            name: float(p) for name, p in zip(self.classes, found["probabilities"][0], strict=True)
        }
        label = max(probabilities, key=lambda name: probabilities[name])
        distance = float(found["distance"][0])
        unknown = self.card.unknown is not None and distance > self.card.unknown.threshold
        above = self.card.answer_above
        unsure = above is not None and probabilities[label] < above
        return Prediction(label, probabilities[label], unknown, probabilities, distance, unsure, path)


def load(folder: Path | str, *, engine: str = "auto", settings: Settings | None = None) -> Predictor:
    """Load the predictor of a run, or of a predictor's own folder.

    Args:
        folder: a run, or what is in its `model/`.
        engine: as for `Predictor.load`.
        settings: as for `Predictor.load`.

    Raises:
        DataError: where there is no predictor, saying what is there.
        BackboneError: where a file is damaged.
    """
    inside = Path(folder) / "model"
    if not any(is_file(place / name) for place in (inside, Path(folder)) for name in (GRAPH, XML, CARD)):
        from topgraft.run import what_is_there  # brings all that a run holds, which predicting can do without

        raise DataError(
            f"{folder}: expected a run or the folder of a predictor, found {what_is_there(Path(folder))}"
        )
    return Predictor.load(inside if inside.is_dir() else folder, engine=engine, settings=settings)


def _picture(photo: Photo) -> Pillow.Image | Image:
    if isinstance(photo, np.ndarray):
        return photo
    return from_pillow(photo) if isinstance(photo, Pillow.Image) else read_picture(photo)


def _check_photo(photo: Photo, place: int) -> None:
    if isinstance(photo, np.ndarray):
        _check_pixels(photo, place)
    elif not isinstance(photo, str | Path | bytes | Pillow.Image):
        hint = " Give its bytes: file.read()." if hasattr(photo, "read") else ""
        raise UsageError(
            f"photo {place}: expected a path, the bytes of a file, a Pillow image or pixels, got"
            f" {type(photo).__name__}.{hint or ' Give one of these.'}"
        )


def _check_pixels(photo: Image, place: int) -> None:
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or 0 in photo.shape:
        raise UsageError(
            f"photo {place}: expected pixels (h, w, 3) uint8 RGB, got {photo.shape} {photo.dtype}. "
            "Give a path to have a file decoded."
        )
