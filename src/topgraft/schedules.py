"""Learning-rate schedules: how large each step of a training is, as a share of the peak rate.

A schedule is written as a name with its numbers, `cosine`, `step:period=0.2,gamma=0.3`, and is a function of
the step alone: the same step gives the same rate whatever was asked before, on every machine. Warm-up rises
in a straight line to the peak before any of them begins.

Sources: cosine, Loshchilov and Hutter 2017, "SGDR" (arXiv:1608.03983), without restarts; the three cyclic
ones, Smith 2017, "Cyclical learning rates for training neural networks" (arXiv:1506.01186); warm-up, Goyal
and others 2017 (arXiv:1706.02677).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Self

from topgraft.errors import UnknownNameError, UsageError

NAMES = ("constant", "cosine", "step", "triangular", "triangular2", "exp_range")
"""Every schedule there is."""
DEFAULT_GAMMA = {"step": 0.1, "exp_range": 0.999}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A learning-rate schedule over a training of `steps` steps.

    Attributes:
        name: one of `NAMES`.
        warmup: share of the training spent rising to the peak, in [0, 1).
        floor: the lowest rate, as a share of the peak, in [0, 1]: where cosine ends, and the base of the
            cycles.
        period: share of what follows the warm-up, in (0, 1]: between two drops of `step`, and in a whole
            cycle (up and down) of the cyclic ones.
        gamma: `step` multiplies by it at every drop; `exp_range` scales its cycles by it at every step
            (Smith's gamma); in (0, 1]. None is 0.1 for `step` and 0.999 for `exp_range`.
    """

    name: str = "cosine"
    warmup: float = 0.0
    floor: float = 0.0
    period: float = 0.25
    gamma: float | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise UnknownNameError("schedule", self.name, NAMES)
        bounds = {
            "warmup": 0 <= self.warmup < 1,
            "floor": 0 <= self.floor <= 1,
            "period": 0 < self.period <= 1,
            "gamma": self.gamma is None or 0 < self.gamma <= 1,
        }
        expected = {"warmup": "[0, 1)", "floor": "[0, 1]", "period": "(0, 1]", "gamma": "(0, 1]"}
        for key, fits in bounds.items():
            if not fits:
                raise UsageError(
                    f"schedule {self.name}: {key} must lie in {expected[key]}, got {getattr(self, key)}."
                )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name` or `name:key=number,...`, the form `str` writes.

        Raises:
            UnknownNameError: for a name or key nobody knows.
            UsageError: for a value that is no number or out of its range.
        """
        name, _, rest = text.strip().partition(":")
        known = [field.name for field in fields(cls) if field.name != "name"]
        values: dict[str, float] = {}
        for item in filter(None, (part.strip() for part in rest.split(","))):
            key, _, value = item.partition("=")
            if key not in known:
                raise UnknownNameError(f"setting of the schedule {name}", key, known)
            try:
                values[key] = float(value)
            except ValueError:
                raise UsageError(f"schedule {text!r}: {key} must be a number, got {value!r}.") from None
        return cls(name=name, **values)

    def __str__(self) -> str:
        plain = type(self)(name=self.name)
        changed = [
            f"{field.name}={getattr(self, field.name):.6g}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(plain, field.name)
        ]
        return self.name + (":" + ",".join(changed) if changed else "")

    def factor(self, step: int, steps: int) -> float:
        """Return the rate of one step as a share of the peak.

        Args:
            step: 0 to steps - 1; later steps keep the rate of the last one.
            steps: how many steps the whole training has, at least 1.

        Returns:
            A number in (0, 1]; 0 only where the floor is 0 and a cycle or cosine touches it.
        """
        if steps < 1:
            raise UsageError(f"a schedule needs at least 1 step, got {steps}.")
        step = min(max(step, 0), steps - 1)
        warm = round(self.warmup * steps)
        if step < warm:
            return (step + 1) / (warm + 1)
        return self._after_warmup(step - warm, max(steps - warm, 1))

    def factors(self, steps: int) -> list[float]:
        """Return the share of the peak at every step of a training of `steps` steps."""
        return [self.factor(step, steps) for step in range(steps)]

    def _after_warmup(self, step: int, steps: int) -> float:
        if self.name == "constant":
            return 1.0
        if self.name == "cosine":
            return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * step / steps)) / 2
        gamma = DEFAULT_GAMMA[self.name] if self.gamma is None and self.name in DEFAULT_GAMMA else self.gamma
        if self.name == "step":
            drops = int(step / max(self.period * steps, 1) + 1e-9)
            return max(float(gamma or 1) ** drops, self.floor)
        return self.floor + (1 - self.floor) * self._cycle(step, max(self.period * steps / 2, 1), gamma)

    def _cycle(self, step: int, half: float, gamma: float | None) -> float:
        """Smith's triangle: 0 at the ends of a cycle, 1 in its middle, scaled by his three policies."""
        cycle = math.floor(1 + step / (2 * half) + 1e-9)
        height = max(0.0, 1 - abs(step / half - 2 * cycle + 1))
        if self.name == "triangular2":
            return float(height / 2 ** (cycle - 1))
        if self.name == "exp_range":
            return float(height * float(gamma or 1) ** step)
        return height
