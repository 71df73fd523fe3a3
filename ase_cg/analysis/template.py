"""All atoms from some of them: the rest are placed as they stand to their neighbours in a template structure."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.peptide_planes import place
from ase_cg.errors import InputError

Floats = NDArray[np.float64]
STRAIGHT = 0.05  # sine of an angle below which no dihedral is measured


@dataclass(frozen=True)
class Step:
    """One atom to place: at `distance` from c, `angle` to b and `dihedral` to a, of atoms placed before."""

    atom: int
    a: int
    b: int
    c: int
    distance: float
    angle: float
    dihedral: float


@dataclass(frozen=True)
class Template:
    """How to place the missing atoms of a molecule.

    Parameters
    ----------
    n_atoms : int
    known : tuple of int
        Atoms that are given.
    steps : tuple of Step
        In order.
    """

    n_atoms: int
    known: tuple[int, ...]
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, topology: Any, positions: Floats, known: tuple[int, ...]) -> Self:
        """Read bond lengths, angles and dihedrals of the missing atoms off a structure.

        Parameters
        ----------
        topology : mdtraj.Topology
            With its bonds.
        positions : ndarray, shape (n, 3)
            In Å.
        known : tuple of int
            Atoms that will be given; at least three.

        Raises
        ------
        InputError
            If an atom is bonded to nothing that leads to the known ones.
        """
        neighbors: dict[int, list[int]] = {atom.index: [] for atom in topology.atoms}
        for one, other in topology.bonds:
            neighbors[one.index].append(other.index)
            neighbors[other.index].append(one.index)
        placed, steps = set(known), []
        while len(placed) < topology.n_atoms:
            ready = [i for i in neighbors if i not in placed and placed & set(neighbors[i])]
            found = [step for i in ready if (step := _step(i, neighbors, placed, positions)) is not None]
            if not found:
                missing = next(atom for atom in topology.atoms if atom.index not in placed)
                raise InputError(f"atom {missing} cannot be placed: too few atoms near it are known")
            # Heavy atoms first, and of those the ones with most known neighbours: the frame is best known there.
            best = max(found, key=lambda step: _rank(step, topology, neighbors, placed))
            steps.append(best)
            placed.add(best.atom)
        return cls(topology.n_atoms, tuple(known), tuple(steps))

    def build(self, known: Floats) -> Floats:
        """Return all atoms (F, n, 3) from the known ones (F, k, 3), in Å."""
        x = np.empty((len(known), self.n_atoms, 3))
        x[:, list(self.known)] = known
        for step in self.steps:
            a, b, c = (x[:, i] for i in (step.a, step.b, step.c))
            x[:, step.atom] = place(a, b, c, step.distance, step.angle, step.dihedral)
        return x


def _rank(step: Step, topology: Any, neighbors: dict[int, list[int]], placed: set[int]) -> tuple[bool, int, int]:
    element = topology.atom(step.atom).element
    heavy = element is None or element.symbol != "H"
    return heavy, len(placed & set(neighbors[step.c])), -step.atom


def _step(atom: int, neighbors: dict[int, list[int]], placed: set[int], x: Floats) -> Step | None:
    """Return the step that places an atom, its frame in known atoms next to the one it is bonded to where possible."""
    for c in neighbors[atom]:
        if c not in placed:
            continue
        near = [i for i in neighbors[c] if i in placed]
        next_near = [j for i in near for j in neighbors[i] if j in placed and j not in {c, *near}]
        for b in near:
            for a in [*[i for i in near if i != b], *next_near]:
                if _sine(x[a], x[b], x[c]) > STRAIGHT:
                    return Step(atom, a, b, c, *_internal(x[a], x[b], x[c], x[atom]))
    return None


def _sine(a: Floats, b: Floats, c: Floats) -> float:
    one, other = a - b, c - b
    return float(np.linalg.norm(np.cross(one, other)) / (np.linalg.norm(one) * np.linalg.norm(other)))


def _internal(a: Floats, b: Floats, c: Floats, x: Floats) -> tuple[float, float, float]:
    """Return distance to c, angle to b, and dihedral to a of a point, as :func:`place` takes them."""
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    inward = np.cross(normal, axis)
    bond = x - c
    distance = float(np.linalg.norm(bond))
    along, side, up = bond @ axis, bond @ inward, bond @ normal
    return distance, float(np.arctan2(np.hypot(side, up), -along)), float(np.arctan2(up, side))
