"""Augmentation policies and their views: what may happen to a picture, and what does happen.

A policy is a value made of ranges. A view is a policy with an index and a seed; together with a picture's
content it decides every drawn number, whatever the worker, the order or the restart. `render` makes the view:
one affine warp, then light and colour.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import numpy as np

from topgraft.errors import UsageError
from topgraft.fingerprint import fingerprint
from topgraft.policies import geometry, photometry, terms
from topgraft.policies.geometry import Fill
from topgraft.policies.imagedatagenerator import policy_fields
from topgraft.policies.ops import Choice, Limit, Matrix, Number, Op, Pair, Values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topgraft.types import Image

Range = tuple[float, float]
Crop = Literal["none", "center", "random"]
UNCHANGED: Range = (1.0, 1.0)

Drawn = dict[str, tuple[float, ...]]
"""What does happen to one picture in one view: what the op of each term that is on has drawn (`Op.draw`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may happen to a picture: ranges, not draws.

    Two policies that can only do the same are equal: a fill is forgotten where nothing moves the picture.

    A field says what it may be and which op it belongs to; docs/policies.md has them all in a table. Ops
    print and are applied in the order of the fields.

    Raises:
        UsageError: for values out of range; all of them at once.
    """

    rotation: Annotated[float, Number(0, 360, "degrees"), geometry.ROTATE] = 0.0
    shift_x: Annotated[float, Number(0, 1, "of the width"), geometry.SHIFT] = 0.0
    shift_y: Annotated[float, Number(0, 1, "of the height"), geometry.SHIFT] = 0.0
    shear: Annotated[float, Number(0, 85, "degrees"), geometry.SHEAR] = 0.0
    zoom: Annotated[Range, Pair(0.01, 100, "times"), geometry.ZOOM] = UNCHANGED
    hflip: Annotated[bool, Choice((True, False)), geometry.HFLIP] = False
    vflip: Annotated[bool, Choice((True, False)), geometry.VFLIP] = False
    crop: Annotated[Crop, Choice(get_args(Crop)), geometry.CROP] = "none"
    crop_fraction: Annotated[float, Number(0.05, 1, "of the side"), geometry.CROP] = 1.0
    fill: Annotated[Fill, Choice(get_args(Fill)), geometry.FILL] = "reflect"
    cval: Annotated[int, Number(0, 255, "grey levels", whole=True), geometry.FILL] = 0
    channel_shift: Annotated[float, Number(0, 255, "grey levels"), photometry.CHANNEL_SHIFT] = 0.0
    brightness: Annotated[Range, Pair(0, 10, "times"), photometry.BRIGHTNESS] = UNCHANGED
    contrast: Annotated[Range, Pair(0, 10, "times"), photometry.CONTRAST] = UNCHANGED
    saturation: Annotated[Range, Pair(0, 10, "times"), photometry.SATURATION] = UNCHANGED
    blur: Annotated[float, Number(0, 0.25, "of the shorter side"), photometry.BLUR] = 0.0
    erase: Annotated[float, Number(0, 1, "of the side"), photometry.ERASE] = 0.0

    def __post_init__(self) -> None:
        problems = [
            f"{name} must {problem}, got {getattr(self, name)!r}"
            for name, limit in LIMITS.items()
            if (problem := limit.problem(getattr(self, name)))
        ]
        if problems:
            raise UsageError(f"policy: {'; '.join(problems)}.")
        for op, names in OPS.items():
            self._set(names, op.canonical(*(LIMITS[name].plain(getattr(self, name)) for name in names)))
        if not self.moves:
            self._set(OPS[geometry.FILL], OFF[geometry.FILL])

    def _set(self, names: Sequence[str], values: Values) -> None:
        for name, value in zip(names, values, strict=True):
            object.__setattr__(self, name, value)

    def values(self, op: Op) -> Values:
        """Return the values of an op's fields."""
        return tuple(getattr(self, name) for name in OPS[op])

    @property
    def moves(self) -> bool:
        """Whether points from beyond the border can come into sight."""
        return any(op.reveals and self.values(op) != OFF[op] for op in OPS)

    def __str__(self) -> str:
        """Return the one canonical policy string; `parse` reads it back, and it enters fingerprints."""
        return _written(self)

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read a policy string: terms in any order, joined by `|`; `identity` and `none` say nothing.

        One number z in zoom, brightness, contrast or saturation means 1 - z to 1 + z, as in Keras.

        Raises:
            UsageError: for what cannot be read or is out of range; an unknown term lists the close ones.
        """
        return cls(**terms.read(text, OPS))

    @classmethod
    def from_keras(cls, **arguments: Any) -> Policy:
        """Return the policy of ImageDataGenerator's arguments, by their names, in Keras 3's units.

        Raises:
            UsageError: for arguments it does not know or that are no policy (rescale, validation_split ...),
                naming them.
        """
        return cls(**policy_fields(arguments))


LIMITS: dict[str, Limit] = {}
"""What each field may be."""
OPS: dict[Op, tuple[str, ...]] = {}
"""Every op with the names of its fields, in the order in which ops print and are applied."""
OFF: dict[Op, Values] = {}
"""The values with which an op does nothing: the defaults."""

_hints = get_type_hints(Policy, include_extras=True)
for _field in fields(Policy):
    _limit, _op = getattr(_hints[_field.name], "__metadata__", (None, None))
    if not isinstance(_limit, Limit) or not isinstance(_op, Op):
        raise TypeError(f"Policy.{_field.name}: expected Annotated[type, limit, op].")
    LIMITS[_field.name] = _limit
    OPS[_op] = (*OPS.get(_op, ()), _field.name)
    OFF[_op] = (*OFF.get(_op, ()), _field.default)

SLOTS = 1 + max(slot for op in OPS for slot in op.slots)
"""How many uniform numbers a view has; each op takes its own (`Op.slots`)."""

IDENTITY = Policy()
"""The picture as it is."""


@dataclass(frozen=True, slots=True)
class View:
    """One augmented copy of every picture.

    Attributes:
        policy: what may happen.
        index: which copy it is; view 0 of a store is the picture as it is.
        seed: another seed, other draws.
    """

    policy: Policy
    index: int = 0
    seed: int = 0

    @property
    def key(self) -> str:
        """What decides the draws, besides the picture, in one canonical line; it enters fingerprints."""
        if self.policy == IDENTITY:
            return "identity"
        return f"{self.policy} @ view {self.index} seed {self.seed}"


def uniforms(facts: Any, n: int) -> NDArray[np.float64]:
    """Return n numbers, uniform in [0, 1), that follow from facts: equal facts, equal numbers. Shape (n,).

    Philox (Salmon et al. 2011) is counter-based, and its raw stream is one that numpy promises not to change
    between versions (NEP 19), unlike the distributions drawn from it.
    """
    raw = np.random.Philox(key=int(fingerprint(facts), 16)).random_raw(n)
    return np.asarray((raw >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def parameters(view: View, digest: str) -> Drawn:
    """Return the numbers drawn for one picture in one view.

    Args:
        view: the policy, index and seed.
        digest: the hash of the picture's content (`Sample.digest`).
    """
    facts = ["view", digest, str(view.policy), view.index, view.seed]
    u = uniforms(facts, SLOTS).tolist()
    return {
        op.term: op.draw([u[slot] for slot in op.slots], *values)
        for op, values in _on(view.policy)
        if op.draw
    }


def matrix(drawn: Drawn, height: int, width: int) -> Matrix:
    """Return rotation · shift · shear · zoom · flips · crop as one matrix on pixels. Shape (3, 3)."""
    moves = [op.move(height, width, *drawn[op.term]) for op in OPS if op.move and op.term in drawn]
    return geometry.about_centre(geometry.compose(*moves), height, width)


def render(image: Image, view: View, digest: str) -> Image:
    """Return one view of one picture.

    Args:
        image: (H, W, 3) uint8 RGB, already fitted to the backbone; not changed.
        view: the policy, index and seed.
        digest: the hash of the picture's content.

    Returns:
        (H, W, 3) uint8; the very same array for the identity policy.
    """
    (shown,) = render_all(image, (view,), digest)
    return shown


def render_all(image: Image, views: Sequence[View], digest: str) -> list[Image]:
    """Return several views of one picture, each as `render` does.

    All numbers are drawn before the first pixel is. Pixels are drawn without Python's lock; threads that went
    from one to the other for every view would pass the lock to and fro, which takes a third of the time.
    """
    height, width = image.shape[:2]
    drawn = [parameters(view, digest) for view in views]
    moved = [matrix(numbers, height, width) for numbers in drawn]
    return [
        image if view.policy == IDENTITY else _draw(image, view.policy, numbers, place)
        for view, numbers, place in zip(views, drawn, moved, strict=True)
    ]


def _draw(image: Image, policy: Policy, drawn: Drawn, moved: Matrix) -> Image:
    if not np.array_equal(moved, np.eye(3)):
        image = geometry.warp(image, moved, policy.fill, policy.cval)
    for op in OPS:
        if op.paint and op.term in drawn:
            image = op.paint(image, *drawn[op.term])
    return image


@functools.lru_cache(maxsize=1024)  # asked for every view of every photo, as is the string
def _on(policy: Policy) -> tuple[tuple[Op, Values], ...]:
    """Return the ops that are on, with the values of their fields; the fill is where it matters."""
    values = {op: policy.values(op) for op in OPS}
    return tuple(
        (op, values[op]) for op in OPS if (policy.moves if op is geometry.FILL else values[op] != OFF[op])
    )


@functools.lru_cache(maxsize=1024)
def _written(policy: Policy) -> str:
    return terms.write(_on(policy))
