"""The arguments of Keras' ImageDataGenerator, said in a policy's own fields.

The names and units are those of Keras 3 (`keras/src/legacy/preprocessing/image.py`): angles in degrees,
shifts below 1 as fractions of the side, `zoom_range=z` for 1 - z to 1 + z. `width_shift_range` moves left and
right and `height_shift_range` up and down, as Keras documents it (Keras 3 itself exchanges the two).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topgraft.errors import UnknownNameError, UsageError

DIRECT = {
    "rotation_range": "rotation",
    "width_shift_range": "shift_x",
    "height_shift_range": "shift_y",
    "shear_range": "shear",
    "channel_shift_range": "channel_shift",
    "fill_mode": "fill",
    "cval": "cval",
    "horizontal_flip": "hflip",
    "vertical_flip": "vflip",
}
RANGED = {"zoom_range": "zoom", "brightness_range": "brightness"}
ELSEWHERE = {
    **dict.fromkeys(
        ("rescale", "preprocessing_function", "data_format", "dtype"),
        "the backbone's card says how pixels go in",
    ),
    **dict.fromkeys(
        (
            "featurewise_center",
            "featurewise_std_normalization",
            "samplewise_center",
            "samplewise_std_normalization",
            "zca_whitening",
        ),
        "the backbone's card says how pixels go in",
    ),
    "zca_epsilon": "only zca_whitening uses it",
    "validation_split": "`topgraft.split` splits, and splits first",
    "interpolation_order": "views are always bilinear",
}
"""Arguments that are no policy, and who sees to them."""
DEFAULTS = {"zca_epsilon": 1e-6, "interpolation_order": 1}


def policy_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return ImageDataGenerator's arguments as a policy's fields; Keras' defaults say nothing.

    Raises:
        UsageError: for arguments ImageDataGenerator does not have (UnknownNameError for a single one), for
            those that are no policy, with who sees to them, and for shifts in pixels.
    """
    unknown = [name for name in arguments if name not in DIRECT | RANGED | ELSEWHERE]
    if len(unknown) == 1:
        raise UnknownNameError("ImageDataGenerator argument", unknown[0], DIRECT | RANGED)
    if unknown:
        raise UsageError(
            f"from_keras: ImageDataGenerator has no arguments {', '.join(unknown)}. Leave them out."
        )
    foreign = [name for name in ELSEWHERE if name in arguments and _means(name, arguments[name])]
    if foreign:
        said = "; ".join(f"{name} ({ELSEWHERE[name]})" for name in foreign)
        raise UsageError(
            f"from_keras: not part of a policy: {said}. Leave {'it' if len(foreign) < 2 else 'them'} out."
        )
    fields: dict[str, Any] = {"fill": "nearest"}  # Keras' default; ours is reflect
    for name, value in arguments.items():
        if name in ("width_shift_range", "height_shift_range") and not _is_fraction(value):
            raise UsageError(
                f"from_keras: {name} must be a fraction of the side, 0 to below 1, got {value!r}."
                " Divide pixels by the side."
            )
        if name in DIRECT and value is not None:
            fields[DIRECT[name]] = value
        elif name in RANGED and value is not None:
            fields[RANGED[name]] = tuple(value) if isinstance(value, Sequence) else (1 - value, 1 + value)
    return fields


def _means(name: str, value: Any) -> bool:
    return value is not None and value is not False and value != 0 and value != DEFAULTS.get(name)


def _is_fraction(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < 1
