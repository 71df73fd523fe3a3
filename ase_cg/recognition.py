"""Which molecule of a model a set of beads is."""

import os

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_cg.beads.atoms import MAX_NUMBER, bead_numbers, bead_types, read_topology
from ase_cg.beads.resolution import ResolutionSpec
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError
from ase_cg.keys import BEAD_NAME, BEAD_TYPE


class Recognition:
    """Finds bead types and topology of Atoms.

    Parameters
    ----------
    vocabulary : tuple of str
    topologies : sequence of BeadTopology
        Molecules whose bonds are known.
    """

    def __init__(self, vocabulary: tuple[str, ...], topologies: list[BeadTopology]) -> None:
        self.vocabulary = vocabulary
        self.topologies = topologies

    def types(self, beads: Atoms) -> NDArray[np.int64]:
        """Return the type of each bead, shape (N,), from ``bead_type`` or the atomic numbers.

        Raises
        ------
        InputError
            If an atom is no bead of the model, its name disagrees with its type, or an array is not one of all atoms.
        """
        for key in (BEAD_TYPE, BEAD_NAME):
            shape = np.shape(beads.arrays.get(key.name, beads.numbers))
            if shape != (len(beads),):
                raise InputError(f"the array {key.name} of the {len(beads)} atoms is of shape {shape}")
        found: NDArray[np.int64] | None = beads.arrays.get(BEAD_TYPE.name)
        types = self._types_of_numbers(beads.numbers) if found is None else found
        if len(types) == 0 or types.min() < 0 or types.max() >= len(self.vocabulary):
            raise InputError(
                f"the {len(types)} atoms are no beads of this model, which knows {len(self.vocabulary)} types; "
                "make them with ase_cg.read_beads(path, model)"
            )
        names = beads.arrays.get(BEAD_NAME.name)
        if names is not None:
            known = np.array(self.vocabulary)[types]
            wrong = np.flatnonzero(known != names)
            if len(wrong):
                bead = int(wrong[0])
                raise InputError(
                    f"bead {bead} is called {str(names[bead])!r} but has the number of {str(known[bead])!r} in the "
                    "model's vocabulary; make the beads with ase_cg.read_beads(path, model)"
                )
        return types

    def topology(self, types: tuple[int, ...]) -> BeadTopology:
        """Return the molecule with these bead types.

        Raises
        ------
        InputError
            If none is known.
        """
        for topology in self.topologies:
            if tuple(bead_types(topology.names, self.vocabulary).tolist()) == types:
                return topology
        raise InputError(
            f"these {len(types)} beads are not a molecule this model was trained on, so their bonds are not known; "
            "give CGCalculator the topology, such as topology='molecule.pdb'"
        )

    def _types_of_numbers(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the types that atomic numbers stand for; where they begin again, the molecule tells."""
        if len(self.vocabulary) > MAX_NUMBER:
            for topology in self.topologies:
                types = bead_types(topology.names, self.vocabulary)
                if np.array_equal(bead_numbers(types), numbers):
                    return types
        return numbers - 1


def given_topology(
    topology: BeadTopology | str | os.PathLike[str] | None, resolution: ResolutionSpec
) -> BeadTopology | None:
    """Return the topology that a user named, if any; a structure file is read at a model's resolution."""
    if topology is None or isinstance(topology, BeadTopology):
        return topology
    return read_topology(topology, resolution)
