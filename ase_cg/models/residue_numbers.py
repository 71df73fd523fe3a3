"""Which row of a published network's embedding each residue has: numberings by name or table."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ase_cg.beads.residues import ALIASES, CAPS, PARENTS, RESIDUES, canonical_name
from ase_cg.errors import InputError, hint
from ase_cg.settings import read_yaml

_COMMON: Mapping[str, int] = {
    "ALA": 1,
    "GLY": 2,
    "PHE": 3,
    "TYR": 4,
    "ASP": 5,
    "GLU": 6,
    "TRP": 7,
    "PRO": 8,
    "ASN": 9,
    "GLN": 10,
    "HIS": 11,
    "SER": 12,
    "THR": 13,
    "VAL": 14,
    "MET": 15,
    "CYS": 16,
    "NLE": 17,
}
NUMBERINGS: Mapping[str, Mapping[str, int]] = {
    "multi-protein": {**_COMMON, "ARG": 19, "LYS": 20, "LEU": 21, "ILE": 22},
    "torchmd-exp": {**_COMMON, "ARG": 18, "LYS": 19, "LEU": 20, "ILE": 21},
}
"""Numbers of residues in published networks.

``multi-protein``: Majewski et al., "Machine learning coarse-grained potentials of protein thermodynamics" (2023), whose
code is torchmd-protein-thermodynamics. ``torchmd-exp``: the chignolin tutorial of torchmd-cg, and torchmd-exp.
"""
ABOUT: Mapping[str, str] = {
    "multi-protein": "torchmd-protein-thermodynamics, the 12 fast folders; ARG, LYS, LEU, ILE are 19, 20, 21, 22",
    "torchmd-exp": "torchmd-exp and the chignolin tutorial of torchmd-cg; ARG, LYS, LEU, ILE are 18, 19, 20, 21",
}
# Norleucine is no variant of methionine to a network: TorchMD even gives it the atom type of leucine.
_VARIANTS: Mapping[str, str] = {variant: parent for variant, parent in PARENTS.items() if variant != "NLE"}

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class ResidueNumbers:
    """Rows of an embedding by residue.

    Parameters
    ----------
    name : str
        Of the numbering, of the file of a table, or ``own table``.
    rows : mapping of str to int
        By the names ase-cg uses for residues.
    file : Path, optional
        Of the table.
    """

    name: str
    rows: Mapping[str, int]
    file: Path | None = None

    @property
    def is_published(self) -> bool:
        """Whether it is one of :data:`NUMBERINGS`, which are complete."""
        return self.name in NUMBERINGS

    def row(self, residue: str) -> int | None:
        """Return the row of a residue, or of the one it is a protonation state or a variant of (HID: HIS)."""
        return self.rows.get(residue, self.rows.get(_VARIANTS.get(residue, "")))


def residue_numbers(numbering: PathLike | Mapping[str, int]) -> ResidueNumbers:
    """Return a numbering by its name, or that of a table.

    Parameters
    ----------
    numbering : str, path, or mapping of str to int
        One of :data:`NUMBERINGS`; a JSON or YAML file of residue names and numbers; or such a table itself.

    Raises
    ------
    InputError
        If the name is not known, or the table is damaged, names something that is no residue, or gives two residues
        one number.
    """
    if isinstance(numbering, Mapping):
        return ResidueNumbers("own table", _checked(list(numbering.items()), "the table of residue numbers"))
    if str(numbering) in NUMBERINGS:
        return ResidueNumbers(str(numbering), NUMBERINGS[str(numbering)])
    path = Path(numbering)
    if path.suffix.lower() not in {".json", ".yaml", ".yml"}:
        raise InputError(
            f"unknown numbering {str(numbering)!r}; {hint(numbering, NUMBERINGS)}. {known_numberings()}; or a table of "
            "residues and numbers (.json, .yaml)"
        )
    return ResidueNumbers(path.name, _checked(_entries(path), f"{path}"), path)


def known_numberings() -> str:
    """Return the names of the published numberings and what they are, for messages."""
    return "Published are " + "; ".join(f"{name!r} ({about})" for name, about in ABOUT.items())


def _entries(path: Path) -> list[tuple[Any, Any]]:
    """Return the residues and numbers of a file, repeated ones too: JSON is YAML, and both would keep the last."""
    data = read_yaml(path, "table of residue numbers")
    if not isinstance(data, dict) or not data:
        raise InputError(f"{path} is no table of residues and their numbers, such as {{ALA: 1, GLY: 2}}")
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    named = [str(key.value) for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    repeated = [name for name in named if named.count(name) > 1]
    if repeated:
        raise InputError(f"{path} has residue {repeated[0]} more than once; keep the right one")
    return list(data.items())


def _checked(entries: list[tuple[Any, Any]], where: str) -> dict[str, int]:
    """Return a table by the names that ase-cg uses for residues, if it can be one."""
    rows: dict[str, int] = {}
    for given, number in entries:
        name = canonical_name(str(given))
        if name not in RESIDUES and name not in CAPS:
            raise InputError(
                f"{where} has {given!r}, which is no residue; {hint(str(given).upper(), (*RESIDUES, *ALIASES))}"
            )
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise InputError(f"{where} gives {given} the number {number!r}; rows of an embedding are 0, 1, 2, …")
        if rows.setdefault(name, number) != number:
            raise InputError(f"{where} gives {name} two numbers, {rows[name]} and {number}, by different names")
        same = [other for other, row in rows.items() if row == number and not _share_a_row(name, other)]
        if same:
            raise InputError(f"{where} gives {same[0]} and {name} the same number {number}; each residue has its own")
    if not rows:
        raise InputError(f"{where} is empty; it needs residues and their numbers, such as {{'ALA': 1, 'GLY': 2}}")
    return rows


def _share_a_row(first: str, second: str) -> bool:
    """Whether two residues may have one number: forms of one residue, and norleucine with what it resembles."""
    return PARENTS.get(first, first) == PARENTS.get(second, second) or {first, second} == {"NLE", "LEU"}
