"""What a predictor knows about itself besides its graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from topgraft import files
from topgraft.backbones.card import Card
from topgraft.errors import BackboneError
from topgraft.text import first_mistake

Setting = dict[str, float | int | str]


class UnknownCard(BaseModel):
    """When a photo shows none of the classes.

    Attributes:
        method: how strangeness is measured.
        threshold: a `distance` above it means unknown.
        accepted: the share of out-of-fold training photos below it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    method: str
    threshold: float
    accepted: float


class PredictorCard(BaseModel):
    """The card beside a predictor's graph.

    Attributes:
        version: of this form.
        classes: names in the order of the probabilities.
        multilabel: True where a photo may carry several labels: then probabilities do not sum to 1. In the
            file it is called `several`.
        head: name of the head.
        setting: what the head was made with.
        temperature: what the logits are divided by, inside the graph.
        unknown: None where the answer "unknown" is never given.
        answer_above: a label less probable than this is no answer but unsure; None answers always.
        backbone: the backbone's card.
        metrics: numbers worth carrying along, as the run has them.
        versions: of the libraries it was made with.
        graph: digest of `model.onnx`.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_by_name=True, serialize_by_alias=True
    )
    version: Literal[1] = 1
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    multilabel: bool = Field(default=False, validation_alias="several", serialization_alias="several")
    head: str
    setting: Setting
    temperature: float = Field(gt=0)
    unknown: UnknownCard | None
    answer_above: float | None = Field(default=None, ge=0, le=1)
    backbone: Card
    metrics: dict[str, Any] = {}
    versions: dict[str, str] = {}
    graph: str

    @classmethod
    def read(cls, path: Path) -> PredictorCard:
        """Read a card.

        Raises:
            BackboneError: where it is not one, naming the first place that is wrong.
        """
        try:
            return cls.model_validate_json(files.read_local(path))
        except OSError as error:
            raise BackboneError(f"{path}: cannot be read ({error.strerror}).") from error
        except pydantic.ValidationError as error:
            raise BackboneError(
                f"{path}: {first_mistake(error)}. Train again, or export it again."
            ) from error
