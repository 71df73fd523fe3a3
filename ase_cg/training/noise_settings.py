"""The key `noise_std` of a recipe: one level of noise, several, or a range."""

import math
from typing import Annotated, Any, Self

from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from ase_cg.errors import InputError
from ase_cg.settings import Section, validated


class NoiseRange(Section):
    """Noise of any size in a range, for one network that knows it; in Å."""

    lowest: float = Field(alias="from", gt=0)
    highest: float = Field(alias="to", gt=0)
    evaluate_at: float | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.lowest < self.highest:
            raise ValueError(f"'from' must be smaller than 'to', and they are {self.lowest:g} and {self.highest:g} Å")
        if not self.lowest <= self.level <= self.highest:
            raise ValueError(
                f"evaluate_at is {self.level:g} Å, and the network is trained from {self.lowest:g} to "
                f"{self.highest:g} Å"
            )
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest noise in Å."""
        return self.lowest, self.highest

    @property
    def level(self) -> float:
        """The noise in Å that the model is evaluated at."""
        return self.lowest if self.evaluate_at is None else self.evaluate_at


def one_or_several(value: Any, meaning: str) -> float | list[float] | None:
    """Return a positive number or a list of them, or raise ValueError that says what they mean."""
    if value is None:
        return None
    try:
        numbers = [float(number) for number in (value if isinstance(value, list) else [value])]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or not all(number > 0 and math.isfinite(number) for number in numbers):
        raise ValueError(f"it must be a positive {meaning}, or a list of them")
    return numbers if isinstance(value, list) else numbers[0]


def _noise_std(value: Any) -> float | list[float] | NoiseRange | None:
    if isinstance(value, NoiseRange):
        return value
    if isinstance(value, dict):
        try:
            return validated(NoiseRange, value, "as a range")
        except InputError as error:
            raise ValueError(str(error)) from error
    levels = one_or_several(value, "standard deviation in Å")
    if isinstance(levels, list) and len(set(levels)) < len(levels):
        raise ValueError("each noise_std is listed once")
    return levels


def _plain(value: Any) -> Any:
    if isinstance(value, NoiseRange):
        return {"from": value.lowest, "to": value.highest, "evaluate_at": value.level}
    return value


NoiseStd = Annotated[
    float | list[float] | NoiseRange | None, PlainValidator(_noise_std), PlainSerializer(_plain, return_type=Any)
]
