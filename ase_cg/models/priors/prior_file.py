"""Priors as a YAML file that people can read and change."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ase_cg.beads.atoms import bead_types
from ase_cg.errors import InputError, hint
from ase_cg.files import existing_file, written_whole
from ase_cg.models.priors import PRIORS
from ase_cg.models.priors.base import GENERIC, BondedPrior, PriorTerm
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.models.priors.repulsion import Repulsion
from ase_cg.models.priors.short_repulsion import ShortRepulsion
from ase_cg.settings import read_yaml
from ase_cg.units import unit

FORMAT = "ase-cg priors"
ENERGY = "kcal/mol"
GENERIC_NAME = "*"
_LENGTHS, _ANGLES = ("Å",), ("degree",)
# What each parameter measures: powers of energy and of angle (lengths are in Å inside and outside).
_ENERGY_PARAMETERS = frozenset({"stiffness", "amplitudes", "constant", "coefficients", "strength"})
_ANGLE_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "angles": ("equilibrium",),
    "restricted_bending": ("equilibrium",),
    "dihedrals": ("phases",),
    "impropers": ("equilibrium",),
    "periodic_impropers": ("equilibrium",),
    "polynomial_angles": ("origin",),
}


def write_priors(
    priors: PriorSet, path: str | os.PathLike[str], vocabulary: Sequence[str], *, overwrite: bool = False
) -> None:
    """Write priors: energies in kcal/mol, lengths in Å, angles in degrees (stiffness and polynomials per radian).

    Raises
    ------
    InputError
        If the file exists and `overwrite` is false.
    """
    import yaml

    data: dict[str, Any] = {
        "format": FORMAT,
        "units": {"energy": ENERGY, "length": "Å", "angle": "degree"},
        "priors": {str(name): _described(term, vocabulary) for name, term in priors.terms.items()},
    }
    with written_whole(path, overwrite=overwrite) as partial:
        partial.write_text(
            yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
        )


def _described(term: Any, vocabulary: Sequence[str]) -> dict[str, Any]:
    rows = []
    for row in term.parameters_by_type():
        types = [vocabulary[t] for t in row.pop("types")] or [GENERIC_NAME]
        rows.append({"beads": types, **{name: _outside(term.name, name, value) for name, value in row.items()}})
    settings = term.settings
    if term.names_beads:
        del settings["vocabulary"]  # the reader's order of types may be another
    return {**settings, "parameters": rows}


def _factor(term: str, parameter: str) -> float:
    """Return by how much a number of the file is larger than ours."""
    if parameter in _ENERGY_PARAMETERS:
        return 1 / unit(ENERGY, "energy")
    return 180 / math.pi if parameter in _ANGLE_PARAMETERS.get(term, ()) else 1.0


def _outside(term: str, parameter: str, value: Any) -> Any:
    factor = _factor(term, parameter)
    return [v * factor for v in value] if isinstance(value, list) else value * factor


def read_priors(path: str | os.PathLike[str], vocabulary: Sequence[str]) -> PriorSet:
    """Read priors, in double precision.

    Parameters
    ----------
    path : path
        Of a file that :func:`write_priors` wrote, perhaps changed by hand.
    vocabulary : sequence of str
        Bead names in the order of the model's types.

    Raises
    ------
    InputError
        If the file is no such file, a prior, a parameter or a bead is not known, or a value is no number.
    """
    found = existing_file(path, "file of priors")
    data = read_yaml(found, "file of priors")
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("priors"), dict):
        raise InputError(f"{found} is no file of priors of ase-cg: it lacks 'format: {FORMAT}' or 'priors'")
    units = data.get("units", {})
    if units != {"energy": ENERGY, "length": "Å", "angle": "degree"}:
        raise InputError(f"{found} declares other units than {ENERGY}, Å and degree: {units}")
    terms = []
    for name, described in data["priors"].items():
        if name not in PRIORS:
            raise InputError(f"{found}: unknown prior {name!r}; {hint(name, PRIORS)}")
        try:
            terms.append(_term(PRIORS[name], described, vocabulary))
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise InputError(f"{found}: {error}") from error
            raise InputError(f"{found}: the parameters of prior {name!r} are damaged: {error!r}") from error
    return PriorSet(terms, vocabulary)


def _term(kind: type[PriorTerm], described: Mapping[str, Any], vocabulary: Sequence[str]) -> PriorTerm:
    settings = {key: value for key, value in described.items() if key != "parameters"}
    if kind.names_beads:
        settings["vocabulary"] = list(vocabulary)
    rows = described["parameters"]
    types = [_types(row["beads"], vocabulary) for row in rows]
    if issubclass(kind, Repulsion):
        names = kind.tables if issubclass(kind, ShortRepulsion) else ("sigma",)
        tensors: dict[str, Tensor] = {
            name: _matrix(types, [row[name] / _factor(kind.name, name) for row in rows], len(vocabulary))
            for name in names
        }
    elif issubclass(kind, BondedPrior):
        width = kind.width
        wrong = [row["beads"] for row, t in zip(rows, types, strict=True) if t and len(t) != width]
        if wrong:
            raise InputError(f"prior {kind.name!r} is of {width} beads, not of {wrong[0]}")
        table = [t or [GENERIC] * width for t in types]
        tensors = {"types": torch.tensor(table, dtype=torch.long).reshape(-1, width)}
        for name in kind.parameter_names:
            values = torch.tensor([row[name] for row in rows], dtype=torch.float64) / _factor(kind.name, name)
            tensors[name] = values
    if not all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point()):
        raise InputError(f"prior {kind.name!r} has parameters that are no numbers")
    return kind.from_tensors(tensors, settings, len(vocabulary))


def _types(beads: Sequence[str], vocabulary: Sequence[str]) -> list[int]:
    """Return the types of bead names; none for the generic row."""
    return [] if list(beads) == [GENERIC_NAME] else [int(t) for t in bead_types(list(beads), vocabulary)]


def _matrix(types: Sequence[Sequence[int]], values: Sequence[float], n_types: int) -> Tensor:
    """Return a symmetric table of pairs; all must be given, or a generic value."""
    generic = next((float(v) for t, v in zip(types, values, strict=True) if not t), math.nan)
    matrix = torch.full((n_types, n_types), generic, dtype=torch.float64)
    for pair, value in zip(types, values, strict=True):
        if pair:
            i, j = pair
            matrix[i, j] = matrix[j, i] = float(value)
    return matrix
