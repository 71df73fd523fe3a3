"""Residue names that ase-cg knows."""

from collections.abc import Mapping
from typing import Any

from ase_cg.errors import InputError

# The vocabulary of one-bead-per-residue models. Its order decides the atomic numbers of beads in trajectory
# files, so it only ever grows at the end.
RESIDUES = (
    *("ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE"),
    *("LEU", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL"),
    *("NLE", "HID", "HIE", "HIP", "CYX", "ASH", "GLH", "LYN", "MSE", "CYM"),
)
CAPS = ("ACE", "NME", "NH2")
WATER_AND_IONS = frozenset(
    [
        *("HOH", "WAT", "SOL", "TIP3", "TIP3P", "TIP4", "TIP", "T3P", "T4P", "SPC", "H2O", "DOD"),
        *("NA", "CL", "K", "NA+", "CL-", "K+", "Na+", "Cl-", "SOD", "CLA", "POT", "BR", "IOD", "LI", "RB", "CS"),
        *("MG", "MG2", "CA", "CA2", "CAL", "ZN", "ZN2", "LIT", "RUB", "CES"),
    ]
)
ALIASES: Mapping[str, str] = {
    # CHARMM
    "HSD": "HID",
    "HSE": "HIE",
    "HSP": "HIP",
    # GROMACS
    "HISD": "HID",
    "HISE": "HIE",
    "HISH": "HIP",
    "HISA": "HID",
    "HISB": "HIE",
    "CYS2": "CYX",
    "CYSH": "CYS",
    "LYSH": "LYS",
    "ASPH": "ASH",
    "GLUH": "GLH",
    # Others' names of the caps
    "NMA": "NME",
    "NHE": "NH2",
}
"""Other programs' names of the same residues."""

PARENTS: Mapping[str, str] = {
    "HID": "HIS",
    "HIE": "HIS",
    "HIP": "HIS",
    "CYX": "CYS",
    "CYM": "CYS",
    "ASH": "ASP",
    "GLH": "GLU",
    "LYN": "LYS",
    "NLE": "MET",
    "MSE": "MET",
}
"""The residue whose bonds between like-named atoms each non-standard one shares."""


def canonical_name(name: str, declared: Mapping[str, str] | None = None) -> str:
    """Return the name that ase-cg uses for a residue; '' where it was declared to be left out.

    Parameters
    ----------
    name : str
        As in the structure file.
    declared : mapping of str to str, optional
        What residues count as that ase-cg does not know by itself.
    """
    if declared and name in declared:
        return declared[name]
    if len(name) == 4 and name[0] in "NC" and name[1:] in RESIDUES:
        return name[1:]  # AMBER's names at the ends of chains
    return ALIASES.get(name, name)


def left_out(residue: Any, declared: Mapping[str, str] | None = None) -> bool:
    """Whether a residue is water, an ion, or declared to be left out."""
    name = canonical_name(residue.name, declared)
    return name == "" or name in WATER_AND_IONS


def known_name(residue: Any, resolution: str, declared: Mapping[str, str] | None = None) -> str:
    """Return the name of a residue that is an amino acid or a cap.

    Raises
    ------
    InputError
        If it is neither and was not declared; the message says how to.
    """
    name = canonical_name(residue.name, declared)
    if name in RESIDUES or name in CAPS or (declared and residue.name in declared):
        return name
    raise InputError(
        f"residue {residue.name} {residue.resSeq} of chain {residue.chain.index} is not known at resolution "
        f"{resolution!r}; say what it counts as, such as --residue {residue.name}=SER (residues={{'{residue.name}': "
        f"'SER'}}), keep it under its own name with {residue.name}={residue.name}, or leave it out with "
        f"{residue.name}="
    )
