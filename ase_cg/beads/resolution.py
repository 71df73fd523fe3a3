"""What becomes a bead: named resolutions, explicit atoms, groups of atoms, or a partition of the bond graph."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, model_validator

from ase_cg.errors import InputError, hint
from ase_cg.settings import Section, read_yaml, validated

ResolutionSpec = str | Sequence[str] | Mapping[str, Any] | os.PathLike[str]
"""How users write a resolution; see :meth:`Resolution.of`."""

NamedResolution = Literal["calpha", "calpha_cbeta", "backbone", "heavy", "residue_com"]
RESOLUTIONS: tuple[str, ...] = get_args(NamedResolution)


class BeadSelection(Section):
    """One kind of bead as a group of atoms.

    Attributes
    ----------
    name : str
        Of the bead; ``{residue}`` in it stands for the name of the residue.
    selection : str
        Of MDTraj, such as ``"sidechain and not element H"``.
    weights : {"mass", "equal"}
        The bead lies at the centre of mass of its atoms, or at their mean.
    per : {"residue"} or None
        One bead for each residue that has atoms of the selection, instead of one in all.
    """

    name: str = Field(min_length=1)
    selection: str = Field(min_length=1)
    weights: Literal["mass", "equal"] = "mass"
    per: Literal["residue"] | None = None


class Resolution(Section):
    """What becomes a bead; exactly one of `name`, `atoms`, `beads` and `graph` is given.

    Attributes
    ----------
    name : str or None
        ``calpha``: the CA of each residue, the bead named like the residue. ``calpha_cbeta``: CA and CB.
        ``backbone``: N, CA, CB, C and O. ``heavy``: every atom but hydrogens. ``residue_com``: the centre of mass of
        each residue. Beads that are atoms are named ``RES:ATOM``.
    atoms : tuple of str
        The atoms that become beads, as ``RES:ATOM`` or ``RES<number>:ATOM``.
    beads : tuple of BeadSelection
    bonds : tuple of (int, int), or None
        Between beads of `beads`, by their numbers along the chain; by default those that the atoms' bonds imply.
    graph : int or None
        Each molecule becomes so many beads of like mass, by a balanced partition of its bond graph.
    termini : bool
        Name the beads of the first and last residue of a chain apart, as ``NALA`` and ``CALA``; those next to a cap
        are not terminal.
    residues : dict of str to str
        What residues count as that are not known; '' leaves one out.
    """

    model_config = ConfigDict(title="a resolution")

    name: NamedResolution | None = None
    atoms: tuple[str, ...] = ()
    beads: tuple[BeadSelection, ...] = ()
    bonds: tuple[tuple[int, int], ...] | None = None
    graph: int | None = Field(default=None, ge=1)
    termini: bool = False
    residues: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [key for key in ("name", "atoms", "beads", "graph") if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of 'name', 'atoms', 'beads' and 'graph', not {len(given)}")
        if self.bonds is not None and not self.beads:
            raise ValueError("'bonds' go with 'beads'; elsewhere they follow from the atoms' bonds")
        if self.termini and self.name is None:
            raise ValueError("'termini' goes with a named resolution")
        return self

    @classmethod
    def of(cls, spec: "ResolutionSpec | Resolution") -> "Resolution":
        """Read a resolution.

        Parameters
        ----------
        spec : str, path, sequence of str, or mapping
            A name (``"calpha"``), ``"graph:20"``, a YAML file, a list of atoms, or a mapping of the attributes.

        Raises
        ------
        InputError
            If it is none of these, naming the nearest.
        """
        if isinstance(spec, Resolution):
            return spec
        if isinstance(spec, os.PathLike) or (isinstance(spec, str) and Path(spec).suffix in {".yaml", ".yml"}):
            return validated(cls, read_yaml(spec, "resolution"), f"resolution {os.fspath(spec)}")
        if isinstance(spec, str):
            return cls._named(spec)
        if isinstance(spec, Mapping):
            return validated(cls, dict(spec), "resolution")
        if isinstance(spec, Sequence):
            wrong = [atom for atom in spec if not isinstance(atom, str)]
            if wrong:
                raise InputError(f"{wrong[0]!r} does not name an atom; write RES:ATOM, such as ALA:CA")
            return validated(cls, {"atoms": tuple(spec)}, "resolution")
        raise InputError(f"a resolution is a name, a list of atoms, a mapping or a YAML file, not {spec!r}")

    @classmethod
    def _named(cls, text: str) -> "Resolution":
        kind, colon, number = text.partition(":")
        if kind == "graph" and colon:
            if not number.isdigit() or int(number) < 1:
                raise InputError(f"{text!r} says no number of beads; write graph:20 for 20 beads a molecule")
            return cls(graph=int(number))
        if text not in RESOLUTIONS:
            known = [*RESOLUTIONS, "graph:<beads>", "a list of atoms such as ALA:N,ALA:CA,ALA:C", "a YAML file"]
            raise InputError(f"unknown resolution {text!r}; {hint(text, known)}")
        return validated(cls, {"name": text}, "resolution")

    @property
    def spec(self) -> str | tuple[str, ...] | dict[str, Any]:
        """The shortest form that :meth:`of` reads; JSON keeps it."""
        given: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True)
        if set(given) == {"name"}:
            return str(self.name)
        if set(given) == {"atoms"}:
            return self.atoms
        if set(given) == {"graph"}:
            return f"graph:{self.graph}"
        return given

    def __str__(self) -> str:
        return self.name or ("graph" if self.graph else "groups" if self.beads else "atoms")
