"""Checks of hyper-parameters that backbones share: each names the backbone, the parameter and what it must be."""

import math
from collections.abc import Sequence

from ase_cg.errors import InputError


def whole_number(backbone: str, name: str, value: object, least: int = 1) -> int:
    """Return a whole number of at least `least`.

    Raises
    ------
    InputError
        If it is no whole number, or smaller.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        kind = "a positive whole number" if least == 1 else f"a whole number of at least {least}"
        raise InputError(f"{backbone}: {name} must be {kind}, not {value!r}")
    return value


def positive_number(backbone: str, name: str, value: object, unit: str = "") -> float:
    """Return a finite positive number, of which `unit` is named in the error.

    Raises
    ------
    InputError
        If it is no number, not positive or not finite.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise InputError(f"{backbone}: {name} must be a positive number{unit and f' of {unit}'}, not {value!r}")
    return float(value)


def layer_widths(backbone: str, name: str, value: object) -> list[int]:
    """Return the widths of hidden layers.

    Raises
    ------
    InputError
        If it is no list of positive whole numbers.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f"{backbone}: {name} must be a list of widths, not {value!r}")
    return [whole_number(backbone, name, width) for width in value]
