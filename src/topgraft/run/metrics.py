"""metrics.json as typed values: numbers only, no times and no paths, so that equal runs are equal bytes."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic import ModelWrapValidatorHandler as Handler

from topgraft.metrics import Estimate, Headline, headline
from topgraft.run.forms import (
    Bin,
    ClassScores,
    Count,
    CoverageForm,
    LabelIssue,
    MorePhotosForm,
    Share,
    WorthForm,
    of_form,
)

SCHEMA = 1


class Part(BaseModel):
    """A part of the file. What it holds beyond the fields is kept, and all is written in the order it came.

    Numbers are never rounded or converted here: the bytes that are written are those of the facts.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    _order: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="wrap")
    @classmethod
    def _remember_order(cls, facts: Any, handler: Handler[Self]) -> Self:
        part = handler(facts)
        if isinstance(facts, dict):
            part._order = tuple(facts)  # noqa: SLF001  its own
        return part

    @model_serializer(mode="wrap")
    def _in_order(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written = handler(self)
        return {name: written[name] for name in self._order}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return self.model_dump(by_alias=True)


class Sides(BaseModel):
    """How many photos of a class lie on each side."""

    train: Count
    test: Count


class Counts(Part):
    """How many photos there are.

    Attributes:
        photos: with features.
        refused: unreadable files that were left out.
        duplicates: photos that look like another.
        views: of each photo, itself included.
        train, test: photos on each side.
        per_class: the same by class; a photo with several labels counts for each.
    """

    photos: Count
    refused: Count
    duplicates: Count
    views: Count
    train: Count
    test: Count
    per_class: Annotated[dict[str, Any], of_form(dict[str, Sides])]


class BackboneFacts(Part):
    """What made the features; where it is kept is found by its fingerprint, which so must be one."""

    name: str
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    features: Count
    precision: str


class HeadFacts(Part):
    """The chosen head, its setting as it is printed, and what its logits are divided by.

    depths says what share of its logits' variance comes from the last layer and from each inner block.
    """

    name: str
    setting: str
    temperature: float
    depths: Annotated[list[dict[str, Any]], of_form(list[Share])] = []


class Scores(Part):
    """How good the answers on `n` photos are. None where photos of one class alone say nothing.

    With several labels per photo there are the first five numbers alone.
    """

    n: Count
    accuracy: Estimate
    log_loss: Estimate
    balanced_accuracy: Estimate | None = None
    macro_f1: Estimate | None = None
    mcc: Estimate | None = None
    roc_auc: Estimate | None = None
    average_precision: Estimate | None = None
    top_k: dict[str, Estimate] = Field(default_factory=dict)
    per_class: Annotated[dict[str, dict[str, Any]], of_form(dict[str, ClassScores])] = Field(
        default_factory=dict
    )
    confusion: list[list[Count]] | None = None


class CrossValidation(Scores):
    """The same, out of fold."""

    folds: Count
    repeats: Count


class Ranked(Part):
    """One row of the leaderboard; `difference` is its log loss minus that of the best."""

    head: str
    setting: str
    accuracy: Estimate
    log_loss: Estimate
    difference: Estimate
    chosen: bool
    balanced_accuracy: Estimate | None = None
    macro_f1: Estimate | None = None


class UnknownFacts(Part):
    """By which distance a photo counts as unknown, above which threshold, and the share below it."""

    method: str
    threshold: float
    accepted: float


class TrustFacts(Part):
    """How far the probabilities can be believed, and labels that look wrong.

    `coverage` is None where photos carry several labels, and in runs from before it was measured.
    """

    temperature: float
    ece: Estimate
    unknown: UnknownFacts
    reliability: Annotated[list[dict[str, Any]], of_form(list[Bin])]
    label_issues: Annotated[list[dict[str, Any]], of_form(list[LabelIssue])]
    coverage: Annotated[dict[str, Any] | None, of_form(CoverageForm | None)] = None


class Metrics(Part):
    """The numbers of a run.

    Attributes:
        schema_version: of the file.
        classes: names.
        counts: of photos.
        backbone: what made the features.
        policies: as they are written; view k + 1 is of the k-th.
        views: what augmented views brought, step by step; None where their number was fixed.
        seed: of everything.
        head: the chosen one.
        cross_validation: its scores on the training side, out of fold.
        test: its scores on photos it never saw; None where nothing was held out.
        leaderboard: the settings of every head that were worth a row, the best first.
        trust: calibration, the unknown answer, label issues.
        worth: what the policies add; None where it was not measured.
        notes: what should be known, in sentences.
        finetune: what training the last blocks gained; None for a frozen backbone.
        curve: what more photos would bring; None where that was not measured.
    """

    schema_version: int = Field(alias="schema")
    classes: Annotated[list[str], Field(min_length=1)]
    counts: Counts
    backbone: BackboneFacts
    policies: list[str]
    seed: Count
    head: HeadFacts
    cross_validation: CrossValidation
    test: Scores | None
    leaderboard: list[Ranked]
    trust: TrustFacts
    worth: Annotated[dict[str, Any] | None, of_form(WorthForm | None)]
    notes: list[str]
    finetune: dict[str, Any] | None = None
    curve: Annotated[dict[str, Any] | None, of_form(MorePhotosForm | None)] = None
    views: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _of_its_classes(self) -> Self:
        C, known = len(self.classes), set(self.classes)
        if len(known) < C:
            raise ValueError("classes: expected each name once")
        for where, scores in (("cross_validation", self.cross_validation), ("test", self.test)):
            if scores is None:
                continue
            if scores.confusion is not None and [len(row) for row in scores.confusion] != [C] * C:
                raise ValueError(f"{where}.confusion: expected {C} rows of {C} counts, one a class")
            if scores.per_class and scores.per_class.keys() != known:
                raise ValueError(f"{where}.per_class: expected the classes {', '.join(self.classes[:5])}")
        return self

    @property
    def multilabel(self) -> bool:
        """Whether photos may carry several labels: then accuracy is that of yes and no for each class."""
        return self.cross_validation.confusion is None

    @property
    def headline(self) -> Scores:
        """The scores to believe, of the test or of the cross-validation."""
        return self.test if self.test and self.believed.key == "test" else self.cross_validation

    @property
    def believed(self) -> Headline:
        """Which of the two to believe."""
        test = self.test
        return headline(
            self.cross_validation.accuracy, test.accuracy if test else None, test.n if test else 0
        )

    @property
    def why_believed(self) -> str:
        """Say which of the two to believe and why; "" where there is nothing to explain."""
        if self.test is None or not self.believed.why:
            return ""
        named = {
            "test": f"the held-out test ({self.test.accuracy} of {self.test.n} photos)",
            "cross_validation": f"the cross-validation ({self.cross_validation.accuracy} of"
            f" {self.cross_validation.n} photos)",
        }
        return self.believed.why.format(named[self.believed.key], named[self.believed.other])
