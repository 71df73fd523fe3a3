"""The bonded topology of a coarse-grained molecule."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from ase_cg.errors import InputError


@dataclass(frozen=True)
class BeadTopology:
    """Beads of one molecule (or several chains) and the bonds between them.

    Parameters
    ----------
    names : tuple of str
        Bead name of each of the N beads: ``ALA`` with one bead per residue, ``ALA:CA`` otherwise.
    residue_names : tuple of str
    residue_numbers : tuple of int
        As in the structure file.
    chains : tuple of int
    masses : tuple of float
        In amu.
    bonds : tuple of (int, int)
        Each bond once, lower index first.

    Raises
    ------
    InputError
        If the lengths differ, a mass is not positive, or a bond names a bead that is not there.
    """

    names: tuple[str, ...]
    residue_names: tuple[str, ...]
    residue_numbers: tuple[int, ...]
    chains: tuple[int, ...]
    masses: tuple[float, ...]
    bonds: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        n = len(self.names)
        for field in ("residue_names", "residue_numbers", "chains", "masses"):
            if len(getattr(self, field)) != n:
                raise InputError(f"a topology of {n} beads has {len(getattr(self, field))} {field}")
        if any(not mass > 0 for mass in self.masses):
            raise InputError("every bead needs a positive mass in amu")
        for i, j in self.bonds:
            if not 0 <= i < j < n:
                raise InputError(f"bond ({i}, {j}) does not join two of the {n} beads, lower index first")

    @property
    def n_beads(self) -> int:
        """Number of beads."""
        return len(self.names)

    @cached_property
    def neighbors(self) -> dict[int, list[int]]:
        """Bonded neighbours of each bead, sorted."""
        found: defaultdict[int, list[int]] = defaultdict(list)
        for i, j in self.bonds:
            found[i].append(j)
            found[j].append(i)
        return {bead: sorted(found[bead]) for bead in range(self.n_beads)}

    @cached_property
    def angles(self) -> tuple[tuple[int, int, int], ...]:
        """Each bonded triple i–j–k once, i < k."""
        return tuple(
            (i, j, k) for j in range(self.n_beads) for i in self.neighbors[j] for k in self.neighbors[j] if i < k
        )

    @cached_property
    def dihedrals(self) -> tuple[tuple[int, int, int, int], ...]:
        """Each bonded chain i–j–k–l once, j < k."""
        return tuple(
            (i, j, k, last)
            for j, k in sorted(self.bonds)
            for i in self.neighbors[j]
            for last in self.neighbors[k]
            if i != k and last not in (j, i)
        )

    def exclusions(self, n_bonds: int) -> tuple[tuple[int, int], ...]:
        """Return the pairs of beads that at most so many bonds separate, each once, lower index first."""
        pairs: set[tuple[int, int]] = set()
        for start in range(self.n_beads):
            seen, frontier = {start}, [start]
            for _ in range(n_bonds):
                frontier = [other for bead in frontier for other in self.neighbors[bead] if other not in seen]
                seen.update(frontier)
            pairs.update((start, other) for other in seen if other > start)
        return tuple(sorted(pairs))

    def find(self, residue: int, atom: str) -> int | None:
        """Return the bead that stands for a named atom of a residue (by its place in the chain order), or None."""
        for bead in self.residues[residue] if 0 <= residue < len(self.residues) else []:
            if self.names[bead].partition(":")[2] == atom:
                return bead
        return None

    @cached_property
    def residues(self) -> tuple[tuple[int, ...], ...]:
        """Beads of each residue, in order.

        A new one begins where chain, number or name changes, and where a bead's name comes again (insertion codes).
        """
        groups: list[list[int]] = []
        last = None
        for bead, key in enumerate(zip(self.chains, self.residue_numbers, self.residue_names, strict=True)):
            if key != last or self.names[bead] in {self.names[other] for other in groups[-1]}:
                groups.append([])
            groups[-1].append(bead)
            last = key
        return tuple(tuple(group) for group in groups)

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON keeps exactly."""
        return {
            "names": list(self.names),
            "residue_names": list(self.residue_names),
            "residue_numbers": list(self.residue_numbers),
            "chains": list(self.chains),
            "masses": list(self.masses),
            "bonds": [list(bond) for bond in self.bonds],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make a topology from what :meth:`to_dict` returned."""
        try:
            return cls(
                names=tuple(data["names"]),
                residue_names=tuple(data["residue_names"]),
                residue_numbers=tuple(data["residue_numbers"]),
                chains=tuple(data["chains"]),
                masses=tuple(data["masses"]),
                bonds=tuple((int(i), int(j)) for i, j in data["bonds"]),
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"not a bead topology: {error}") from error

    def to_mdtraj(self) -> Any:
        """Return an :class:`mdtraj.Topology`: a bead without an atom name appears as CA, elements as in the atom."""
        import mdtraj

        topology = mdtraj.Topology()
        atoms: list[Any] = []
        chain = residue = None
        for group in self.residues:
            first = group[0]
            if chain is None or self.chains[first] != self.chains[atoms[-1].index]:
                chain = topology.add_chain()
            residue = topology.add_residue(self.residue_names[first], chain, resSeq=self.residue_numbers[first])
            for bead in group:
                name = self.names[bead].partition(":")[2] or ("CA" if len(group) == 1 else self.names[bead])
                element = mdtraj.element.Element.getBySymbol(_element_symbol(name))
                atoms.append(topology.add_atom(name, element, residue))
        for i, j in self.bonds:
            topology.add_bond(atoms[i], atoms[j])
        return topology


def _element_symbol(atom_name: str) -> str:
    """Return the element of a protein atom from its PDB name; carbon where the name says nothing."""
    letter = atom_name.lstrip("0123456789")[:1].upper()
    return letter if letter in {"H", "C", "N", "O", "S", "P"} else "C"
