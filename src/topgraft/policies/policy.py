"""Augmentation policies and their views: what may happen to a picture, and what does happen.

A policy is a value made of ranges. A view is a policy with an index and a seed; together with a picture's
content it decides every drawn number, whatever the worker, the order or the restart. `render` makes the view:
one affine warp, then light and colour.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from topgraft.errors import UsageError
from topgraft.fingerprint import fingerprint
from topgraft.policies import geometry, photometry, terms
from topgraft.policies.geometry import Fill, Matrix
from topgraft.policies.imagedatagenerator import policy_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topgraft.types import Image

Range = tuple[float, float]
Crop = Literal["none", "center", "random"]
UNCHANGED: Range = (1.0, 1.0)
RANGES = ("zoom", "brightness", "contrast", "saturation")

CHOICES: dict[str, tuple[Any, ...]] = {
    "hflip": (True, False),
    "vflip": (True, False),
    "crop": get_args(Crop),
    "fill": get_args(Fill),
}
NUMBERS = (int, float, np.integer, np.floating)

# field: (least, most, unit); the ends are allowed
LIMITS: dict[str, tuple[float, float, str]] = {
    "rotation": (0, 360, "degrees"),
    "shift_x": (0, 1, "of the width"),
    "shift_y": (0, 1, "of the height"),
    "shear": (0, 85, "degrees"),
    "zoom": (0.01, 100, "times"),
    "crop_fraction": (0.05, 1, "of the side"),
    "cval": (0, 255, "grey levels"),
    "channel_shift": (0, 255, "grey levels"),
    "brightness": (0, 10, "times"),
    "contrast": (0, 10, "times"),
    "saturation": (0, 10, "times"),
    "blur": (0, 0.25, "of the shorter side"),
    "erase": (0, 1, "of the side"),
}


def _problems(name: str, value: Any) -> list[str]:
    least, most, unit = LIMITS[name]
    if name in RANGES and not (isinstance(value, tuple) and len(value) == 2):
        return [f"{name} must be a pair (low, high), got {value!r}"]
    values = tuple(value) if name in RANGES else (value,)
    if not all(isinstance(v, NUMBERS) and not isinstance(v, bool) and least <= v <= most for v in values):
        return [f"{name} must be {least} to {most} {unit}, got {value!r}"]
    if name == "cval" and value != round(value):
        return [f"cval must be a whole number, got {value!r}"]
    if values[0] > values[-1]:
        return [f"{name} must go from low to high, got {value!r}"]
    return []


def _plain(value: float) -> float:
    return float(value) + 0.0  # numpy's numbers print in their own way, and so does -0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may happen to a picture: ranges, not draws.

    Two policies that can only do the same are equal: a fill is forgotten where nothing moves the picture.

    Attributes:
        rotation: degrees, uniform in ±.
        shift_x, shift_y: fraction of the width and of the height, uniform in ±.
        shear: degrees, uniform in ±.
        zoom: (low, high); how much of the picture is shown, x and y drawn apart. Below 1 enlarges.
        hflip, vflip: mirrored left-right, upside-down, each with probability 0.5.
        crop: `center` or `random` keeps crop_fraction of each side and enlarges it to the whole.
        crop_fraction: in (0, 1].
        fill: what lies beyond the border: constant (the level cval), nearest, reflect, wrap.
        cval: 0 to 255.
        channel_shift: grey levels added to all channels, uniform in ±.
        brightness, contrast, saturation: (low, high) factors; 1 changes nothing.
        blur: the largest sigma of a Gaussian, fraction of the shorter side; uniform from 0.
        erase: the largest side of a rectangle painted over, fraction of each side; uniform from 0.

    Raises:
        UsageError: for values out of range; all of them at once.
    """

    rotation: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    shear: float = 0.0
    zoom: Range = UNCHANGED
    hflip: bool = False
    vflip: bool = False
    crop: Crop = "none"
    crop_fraction: float = 1.0
    fill: Fill = "reflect"
    cval: int = 0
    channel_shift: float = 0.0
    brightness: Range = UNCHANGED
    contrast: Range = UNCHANGED
    saturation: Range = UNCHANGED
    blur: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        problems = [problem for name in LIMITS for problem in _problems(name, getattr(self, name))]
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                problems.append(
                    f"{name} must be one of {', '.join(map(str, choices))}, got {getattr(self, name)!r}"
                )
        if problems:
            raise UsageError(f"policy: {'; '.join(problems)}.")
        for name in LIMITS:
            value = getattr(self, name)
            self._set(name, tuple(map(_plain, value)) if isinstance(value, tuple) else _plain(value))
        self._set("cval", round(self.cval))
        self._set("hflip", bool(self.hflip))
        self._set("vflip", bool(self.vflip))
        if self.crop == "none" or self.crop_fraction == 1:
            self._set("crop", "none")
            self._set("crop_fraction", 1.0)
        if not self.moves:
            self._set("fill", "reflect")
        if self.fill != "constant":
            self._set("cval", 0)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def moves(self) -> bool:
        """Whether points from beyond the border can come into sight."""
        return bool(self.rotation or self.shift_x or self.shift_y or self.shear or self.zoom != UNCHANGED)

    def __str__(self) -> str:
        """Print in the one canonical way; `Policy.parse` reads it back, and it enters fingerprints."""
        return _written(self)

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read a policy string: terms in any order, joined by `|`; `identity` and `none` say nothing.

        One number z in zoom, brightness, contrast or saturation means 1 - z to 1 + z, as in Keras.

        Raises:
            UsageError: for what cannot be read or is out of range; an unknown term lists the close ones.
        """
        return cls(**terms.read(text))

    @classmethod
    def from_keras(cls, **arguments: Any) -> Policy:
        """Take the arguments of Keras' ImageDataGenerator by their names, in Keras 3's units.

        Raises:
            UsageError: for arguments it does not know or that are no policy (rescale, validation_split ...),
                naming them.
        """
        return cls(**policy_fields(arguments))


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
        """Say in one canonical line what decides the draws, besides the picture; it enters fingerprints."""
        if self.policy == IDENTITY:
            return "identity"
        return f"{self.policy} @ view {self.index} seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What does happen to one picture in one view: a number for every range of the policy.

    Attributes:
        rotation, shear: degrees.
        shift: (x, y), fractions of the width and the height.
        zoom: (x, y) factors.
        flip: (left-right, upside-down).
        crop: (x, y), how far the kept part lies from the middle, fractions of the sides.
        channel_shift: grey levels.
        brightness, contrast, saturation: factors.
        blur: sigma, fraction of the shorter side.
        erase: (left, top, width, height), fractions of the sides.
    """

    rotation: float
    shift: tuple[float, float]
    shear: float
    zoom: tuple[float, float]
    flip: tuple[bool, bool]
    crop: tuple[float, float]
    channel_shift: float
    brightness: float
    contrast: float
    saturation: float
    blur: float
    erase: tuple[float, float, float, float]


def uniforms(facts: Any, n: int) -> NDArray[np.float64]:
    """Turn facts into n numbers, uniform in [0, 1): equal facts, equal numbers. Shape (n,).

    Philox (Salmon et al. 2011) is counter-based, and its raw stream is one that numpy promises not to change
    between versions (NEP 19), unlike the distributions drawn from it.
    """
    raw = np.random.Philox(key=int(fingerprint(facts), 16)).random_raw(n)
    return np.asarray((raw >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def parameters(view: View, digest: str) -> Drawn:
    """Draw the numbers of one picture in one view.

    Args:
        view: the policy, index and seed.
        digest: the hash of the picture's content (`Sample.digest`).
    """
    policy = view.policy
    u = uniforms(["view", digest, str(policy), view.index, view.seed], 20).tolist()
    free = (1 - policy.crop_fraction) if policy.crop == "random" else 0.0
    width, height = u[15] * policy.erase, u[16] * policy.erase
    return Drawn(
        rotation=_both(policy.rotation, u[0]),
        shift=(_both(policy.shift_x, u[1]), _both(policy.shift_y, u[2])),
        shear=_both(policy.shear, u[3]),
        zoom=(_within(*policy.zoom, u[4]), _within(*policy.zoom, u[5])),
        flip=(policy.hflip and u[6] < 0.5, policy.vflip and u[7] < 0.5),
        crop=(free * (u[8] - 0.5), free * (u[9] - 0.5)),
        channel_shift=_both(policy.channel_shift, u[10]),
        brightness=_within(*policy.brightness, u[11]),
        contrast=_within(*policy.contrast, u[12]),
        saturation=_within(*policy.saturation, u[13]),
        blur=u[14] * policy.blur,
        erase=(u[17] * (1 - width), u[18] * (1 - height), width, height),
    )


def matrix(drawn: Drawn, policy: Policy, height: int, width: int) -> Matrix:
    """Compose rotation · shift · shear · zoom · flip · crop into one matrix on pixels. Shape (3, 3)."""
    keep = policy.crop_fraction
    return geometry.about_centre(
        geometry.compose(
            geometry.rotation(drawn.rotation),
            geometry.shift(drawn.shift[0] * width, drawn.shift[1] * height),
            geometry.shear(drawn.shear),
            geometry.zoom(*drawn.zoom),
            geometry.zoom(-1.0 if drawn.flip[0] else 1.0, -1.0 if drawn.flip[1] else 1.0),
            geometry.shift(drawn.crop[0] * width, drawn.crop[1] * height),
            geometry.zoom(keep, keep),
        ),
        height,
        width,
    )


def render(image: Image, view: View, digest: str) -> Image:
    """Make one view of one picture.

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
    """Make several views of one picture, each as `render` does.

    All numbers are drawn before the first pixel is. Pixels are drawn without Python's lock; threads that went
    from one to the other for every view would pass the lock to and fro, which takes a third of the time.
    """
    height, width = image.shape[:2]
    drawn = [parameters(view, digest) for view in views]
    moved = [matrix(one, view.policy, height, width) for one, view in zip(drawn, views, strict=True)]
    return [
        image if view.policy == IDENTITY else _draw(image, view.policy, how, place)
        for view, how, place in zip(views, drawn, moved, strict=True)
    ]


def _draw(image: Image, policy: Policy, drawn: Drawn, moved: Matrix) -> Image:
    if not np.array_equal(moved, np.eye(3)):
        image = geometry.warp(image, moved, policy.fill, policy.cval)
    if drawn.channel_shift:
        image = photometry.shift_channels(image, drawn.channel_shift)
    if drawn.brightness != 1:
        image = photometry.brightness(image, drawn.brightness)
    if drawn.contrast != 1:
        image = photometry.contrast(image, drawn.contrast)
    if drawn.saturation != 1:
        image = photometry.saturation(image, drawn.saturation)
    if drawn.blur:
        image = photometry.blur(image, drawn.blur * min(image.shape[:2]))
    if drawn.erase[2] and drawn.erase[3]:
        image = photometry.erase(image, *drawn.erase)
    return image


@functools.lru_cache(maxsize=1024)  # asked for every view of every photo
def _written(policy: Policy) -> str:
    values = {field.name: getattr(policy, field.name) for field in fields(policy)}
    return terms.write(values | {"fill": policy.fill if policy.moves else None})


def _within(low: float, high: float, u: float) -> float:
    return low + (high - low) * u


def _both(most: float, u: float) -> float:
    return _within(-most, most, u)
