"""What a run's JSON files must hold, beyond being JSON: an edited file is one line, not a surprise later.

Forms are only looked through: what is read stays as it was written, bytes and all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field, RootModel, TypeAdapter, model_validator

from topgraft.metrics import Estimate

Count = Annotated[int, Field(ge=0, lt=2**63)]
Probability = Annotated[float, Field(ge=0, le=1)]


def of_form(form: Any) -> AfterValidator:
    """Return a validator that holds plain data against a form and leaves it as it is."""
    judge: TypeAdapter[Any] = TypeAdapter(form)

    def look_through(facts: Any) -> Any:
        judge.validate_python(facts)
        return facts

    return AfterValidator(look_through)


def finite(text: str) -> Any:
    """Return the JSON of a text whose numbers are numbers: Python's reader takes NaN and 1e999, too.

    Raises:
        ValueError: naming the first that is none.
        RecursionError: for what is nested too deeply.
    """
    return json.loads(text, parse_float=_number, parse_constant=_number)


def _number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no number")
    return value


# Parts of metrics.json


class ClassScores(BaseModel):
    """Scores of one class."""

    support: Count
    precision: Estimate
    recall: Estimate
    f1: Estimate


class Share(BaseModel):
    """The share of a depth in what moves the answers; the last layer has no name."""

    block: str
    share: float


class Bin(BaseModel):
    """One bin of a reliability diagram; without photos there is nothing to say."""

    count: Count
    confidence: Probability | None
    accuracy: Probability | None

    @model_validator(mode="after")
    def _said_of_photos(self) -> Self:
        if self.count and (self.confidence is None or self.accuracy is None):
            raise ValueError("expected confidence and accuracy where there are photos")
        return self


class LabelIssue(BaseModel):
    """A photo whose label looks wrong."""

    id: str
    label: str
    suggested: str
    probability: Probability


class Answered(BaseModel):
    """What answering above a threshold comes to."""

    above: Probability
    answered: Estimate
    right: Estimate | None


class Point(BaseModel):
    """A point of the curve of answers above thresholds."""

    answered: Probability
    right: Probability


class CoverageForm(BaseModel):
    """The table of answers above thresholds, and the curve; chosen is the run's own threshold."""

    table: list[Answered]
    chosen: Answered | None = None
    curve: Annotated[list[Point], Field(min_length=1)]


class Gap(BaseModel):
    """Two scores, or the difference of two."""

    log_loss: Estimate
    accuracy: Estimate


class Level(BaseModel):
    """What a part of the policies adds."""

    level: str
    to_view_0: Gap
    to_the_rest: Gap


class WorthForm(BaseModel):
    """What the policies add."""

    view_0: Gap
    all: Gap
    difference: Gap
    levels: list[Level]


class Size(BaseModel):
    """How many photos were or would be learned from, and how often it is right then."""

    photos: Annotated[float, Field(gt=0)]
    accuracy: Estimate


class Gains(BaseModel):
    """What more photos would bring."""

    twice: Estimate
    four_times: Estimate


class ClassGain(BaseModel):
    """What more photos of a class would bring."""

    name: str = Field(alias="class")
    photos: Count
    found: float
    gain: Estimate


class MorePhotosForm(BaseModel):
    """Accuracy over the number of photos."""

    sizes: list[Size]
    fitted: Annotated[list[Size], Field(min_length=1)]
    gain: Gains
    more: Count
    classes: list[ClassGain]


# Files beside it


class Refused(BaseModel):
    """A file that could not be read."""

    id: str
    reason: str


class OddSize(BaseModel):
    """A very small or very long photo."""

    id: str
    width: Count
    height: Count


class HealthForm(BaseModel):
    """health.json."""

    classes: dict[str, Count]
    refused: list[Refused]
    duplicates: list[list[str]]
    cross_class_duplicates: list[list[str]]
    leaks: list[list[str] | str]
    odd_sizes: list[OddSize]
    warnings: list[str]


class Curve(BaseModel):
    """One learning curve."""

    name: str
    x: list[float]
    y: list[float]
    kind: str = "loss"

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.x) != len(self.y):
            raise ValueError(f"expected a y for every x, got {len(self.x)} and {len(self.y)}")
        return self


class CurvesForm(BaseModel):
    """curves.json."""

    series: list[Curve]


class TimingsForm(RootModel[dict[str, Annotated[float, Field(ge=0)] | str]]):
    """timings.json: seconds a stage, and the machine."""


class VersionsForm(RootModel[dict[str, str | int | float]]):
    """versions.json."""


FORMS: dict[str, Callable[[Any], Any]] = {
    "health.json": HealthForm.model_validate,
    "curves.json": CurvesForm.model_validate,
    "timings.json": TimingsForm.model_validate,
    "versions.json": VersionsForm.model_validate,
}
"""Who looks through which file; metrics.json has types of its own."""
