"""Units: inside ase-cg everything is in Å, eV, amu, ASE time units and K; here is the way in and out.

A unit is named by a string such as ``"nm"``, ``"kcal/mol"``, ``"kJ/mol/nm"``, ``"fs"`` or ``"/ps"``; a quantity is a
number and a unit, ``"2 fs"``. Nothing is guessed: an unknown name is an error that lists the known ones.
"""

import math
import re
from typing import Literal

from ase import units as ase_units

from ase_cg.errors import InputError, hint

Dimension = Literal["length", "energy", "time", "rate", "force"]

_LENGTHS = {"Å": 1.0, "A": 1.0, "angstrom": 1.0, "nm": 10.0, "nanometer": 10.0, "nanometers": 10.0, "angstroms": 1.0}
_ENERGIES = {
    "eV": 1.0,
    "kJ/mol": ase_units.kJ / ase_units.mol,
    "kcal/mol": ase_units.kcal / ase_units.mol,
}
_TIMES = {"fs": ase_units.fs, "ps": 1e3 * ase_units.fs, "ns": 1e6 * ase_units.fs}
_FORCES = {f"{energy}/{length}": _ENERGIES[energy] / _LENGTHS[length] for energy in _ENERGIES for length in _LENGTHS}
_RATES = {f"/{name}": 1 / size for name, size in _TIMES.items()}
_KNOWN: dict[Dimension, dict[str, float]] = {
    "length": _LENGTHS,
    "energy": _ENERGIES,
    "time": _TIMES,
    "rate": _RATES,
    "force": _FORCES,
}

_EXAMPLES: dict[Dimension, str] = {
    "length": "0.5 Å",
    "energy": "2 kJ/mol",
    "time": "2 fs",
    "rate": "1 /ps",
    "force": "1 kcal/mol/Å",
}

FEMTOSECOND: float = ase_units.fs
KCAL_PER_MOL: float = ase_units.kcal / ase_units.mol


def unit(name: str, dimension: Dimension) -> float:
    """Return the size of a unit in ase-cg's internal units.

    Parameters
    ----------
    name : str
        Such as ``"nm"``, ``"kcal/mol"``, ``"ps"`` or ``"kJ/mol/nm"``.
    dimension : {"length", "energy", "time", "rate", "force"}
        What the unit measures.

    Returns
    -------
    float
        Multiply a number given in this unit by it to get Å, eV, ASE time units or eV/Å.

    Raises
    ------
    InputError
        If the unit is not known.
    """
    known = _KNOWN[dimension]
    if name in known:
        return known[name]
    raise InputError(f"unknown {dimension} unit {name!r}; {hint(name, known)}")


def quantity(text: str, dimension: Dimension) -> float:
    """Read a number with its unit, such as ``"2 fs"``, into internal units.

    Raises
    ------
    InputError
        If there is no number, no unit, or an unknown unit.
    """
    match = re.fullmatch(r"\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([^\s0-9.]\S*)\s*", text)
    try:
        number = float(match[1]) if match else None
    except ValueError:
        number = None
    if match is None or number is None:
        example = _EXAMPLES[dimension]
        raise InputError(f"{text!r} is not a {dimension} with its unit, such as {example!r}")
    return number * unit(match[2], dimension)


def whole_ratio(long: str, short: str, names: tuple[str, str]) -> int:
    """Return how many times one time with its unit goes into another.

    Parameters
    ----------
    long, short : str
        Such as ``"20 ps"`` and ``"0.1 ps"``.
    names : (str, str)
        What the two are called in the message.

    Raises
    ------
    InputError
        If either is not positive and finite, or the ratio is no whole number.
    """
    sizes = quantity(long, "time"), quantity(short, "time")
    for name, text, size in zip(names, (long, short), sizes, strict=True):
        if not (size > 0 and math.isfinite(size)):
            raise InputError(f"{name} must be a positive time, not {text!r}")
    ratio = sizes[0] / sizes[1]
    if not math.isfinite(ratio) or round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-6 * ratio:
        raise InputError(f"{names[0]} ({long}) is no whole multiple of {names[1]} ({short})")
    return round(ratio)


def thermal_energy(temperature: float) -> float:
    """Return kT in eV for a temperature in K.

    Raises
    ------
    InputError
        If the temperature is missing or not positive.
    """
    try:
        valid = temperature > 0 and math.isfinite(temperature)
    except TypeError:
        valid = False
    if not valid:
        raise InputError(f"the temperature must be a number, positive and in K, not {temperature}")
    return float(ase_units.kB * temperature)
