"""TorchMD's coarse-grained prior force field: a YAML file of bonds, dihedrals and repulsion by atom type."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ase_cg.beads.residues import PARENTS
from ase_cg.errors import InputError
from ase_cg.models.priors.base import GENERIC, PriorTerm
from ase_cg.models.priors.dihedrals import Dihedrals
from ase_cg.models.priors.harmonic import HarmonicBonds
from ase_cg.models.priors.prior_set import PriorSet
from ase_cg.models.priors.repulsion import Repulsion
from ase_cg.settings import read_yaml
from ase_cg.units import KCAL_PER_MOL

# TorchMD names the CA of each residue after its letter; NLE counts as leucine there.
LETTERS: Mapping[str, str] = {
    "ALA": "A",
    "ARG": "R",
    "ASN": "N",
    "ASP": "D",
    "CYS": "C",
    "GLN": "Q",
    "GLU": "E",
    "GLY": "G",
    "HIS": "H",
    "ILE": "I",
    "LEU": "L",
    "LYS": "K",
    "MET": "M",
    "PHE": "F",
    "PRO": "P",
    "SER": "S",
    "THR": "T",
    "TRP": "W",
    "TYR": "Y",
    "VAL": "V",
    "NLE": "L",
}
EXPONENT = 6
EXCLUDE = 1  # bonds; TorchMD leaves out the pairs of its bond list from the repulsion, and no others


def torchmd_type(residue: str) -> str:
    """Return TorchMD's atom type of a residue's CA, such as ``CAA`` for ALA.

    Raises
    ------
    InputError
        If the residue has none.
    """
    letter = LETTERS.get(residue) or LETTERS.get(PARENTS.get(residue, ""))
    if letter is None:
        raise InputError(f"TorchMD's force field has no atom type for residue {residue}")
    return f"CA{letter}"


PathLike = str | os.PathLike[str]


def read_torchmd_force_field(*paths: PathLike) -> dict[str, Any]:
    """Read the sections of TorchMD's force field; each file gives those that the files before it lack.

    Raises
    ------
    InputError
        If a file is none of TorchMD's, or bonds or repulsion are in none.
    """
    sections: dict[str, Any] = {}
    for path in paths:
        data = read_yaml(path, "TorchMD force field")
        if not isinstance(data, dict) or not {"bonds", "lj", "dihedrals"} & set(data):
            raise InputError(f"{path} is no force field of TorchMD: it has none of the sections bonds, lj, dihedrals")
        sections = {key: value for key, value in data.items() if value} | sections
    for needed in ("bonds", "lj"):
        if not isinstance(sections.get(needed), dict):
            raise InputError(f"{', '.join(map(str, paths))}: TorchMD's force field has no section {needed!r}")
    return sections


def torchmd_priors(
    sections: Mapping[str, Any],
    vocabulary: Sequence[str],
    *,
    rounded: bool = False,
    repulsion_cutoff: float | None = None,
) -> PriorSet:
    """Make priors of TorchMD's force field, in double precision.

    ===========  =======================================================================
    bonds        k₀ (r − r_eq)², by the types of the two residues along the chain
    dihedrals    Σ_n k_n (1 + cos(nφ − γ_n)); where the file has any
    repulsion    4 ε_ij (σ_ij/r)⁶, ε_ij = √(ε_i ε_j), σ_ij = (σ_i + σ_j)/2; all but bonded pairs
    ===========  =======================================================================

    Parameters
    ----------
    sections : mapping
        Of :func:`read_torchmd_force_field`: ``bonds``, ``lj`` and, perhaps, ``dihedrals``; kcal/mol, Å, degrees.
    vocabulary : sequence of str
        Residue names.
    rounded : bool
        Whether parameters of bonds and dihedrals are rounded to single precision. TorchMD does so whatever the
        precision of its energies, which then agree to all digits instead of 10⁻⁵ kcal/mol.
    repulsion_cutoff : float or None
        Distance in Å at which the repulsion ends, smoothly over its last fifth; TorchMD's has none.

    Raises
    ------
    InputError
        If parameters for a residue of the vocabulary are lacking or damaged.
    """
    parameters = torch.float32 if rounded else torch.float64
    try:
        terms: list[PriorTerm] = [
            _bonds(sections["bonds"], vocabulary, parameters),
            _repulsion(sections["lj"], vocabulary, repulsion_cutoff),
        ]
        if sections.get("dihedrals"):
            terms.append(_dihedrals(sections["dihedrals"], vocabulary, parameters))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"TorchMD's force field is damaged: {error!r}") from error
    return PriorSet(terms, vocabulary)


def _atom_types(key: Any) -> tuple[str, ...]:
    """Return the atom types of a key such as ``(CAA, CAC)``."""
    if isinstance(key, tuple | list):
        return tuple(key)
    return tuple(part.strip().strip("'\"") for part in str(key).strip("() ").split(","))


def _bonds(section: Mapping[Any, Any], vocabulary: Sequence[str], dtype: torch.dtype) -> HarmonicBonds:
    """Make the bonds: (CAA, CAC) is an ALA that a CYS follows, and the reverse holds only where that is not given."""
    given = {_atom_types(key): (float(row["k0"]), float(row["req"])) for key, row in section.items()}
    rows = {}
    for i, first in enumerate(vocabulary):
        for j, second in enumerate(vocabulary):
            pair = (torchmd_type(first), torchmd_type(second))
            found = given.get(pair, given.get(pair[::-1]))
            if found is not None:
                rows[i, j] = found
    values = torch.tensor(list(rows.values()), dtype=dtype).double().reshape(-1, 2)
    types = torch.tensor(list(rows), dtype=torch.long).reshape(-1, 2)
    return HarmonicBonds(types, values[:, 0] * KCAL_PER_MOL, values[:, 1], len(vocabulary), directed=True)


def _repulsion(section: Mapping[str, Any], vocabulary: Sequence[str], cutoff: float | None) -> Repulsion:
    lacking = [name for name in vocabulary if torchmd_type(name) not in section]
    if lacking:
        raise InputError(f"TorchMD's force field has no repulsion for {lacking[0]} ({torchmd_type(lacking[0])})")
    rows = [section[torchmd_type(name)] for name in vocabulary]
    epsilon = torch.tensor([float(row["epsilon"]) for row in rows], dtype=torch.float64) * KCAL_PER_MOL
    size = torch.tensor([float(row["sigma"]) for row in rows], dtype=torch.float64)
    strength = 4 * torch.sqrt(epsilon[:, None] * epsilon[None]) * (0.5 * (size[:, None] + size[None])) ** EXPONENT
    return Repulsion(strength ** (1 / EXPONENT), EXPONENT, EXCLUDE, cutoff)


def _dihedrals(section: Mapping[Any, Any], vocabulary: Sequence[str], dtype: torch.dtype) -> Dihedrals:
    if any(set(_atom_types(key)) != {"X"} for key in section) or len(section) != 1:
        raise InputError("only a dihedral for all types, (X, X, X, X), is read from TorchMD's force field")
    terms = next(iter(section.values()))["terms"]
    order = max(int(term["per"]) for term in terms)
    amplitudes, phases = torch.zeros(1, order, dtype=torch.float64), torch.zeros(1, order, dtype=torch.float64)
    for term in terms:
        n = int(term["per"]) - 1
        strength, phase = torch.tensor([float(term["phi_k"]), math.radians(float(term["phase"]))], dtype=dtype)
        amplitudes[0, n], phases[0, n] = strength.double() * KCAL_PER_MOL, phase
    types = torch.full((1, 4), GENERIC)
    return Dihedrals(types, {"amplitudes": amplitudes, "phases": phases}, len(vocabulary))
