"""The native structure, and how near frames are to it."""

import os
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.features import pair_distances, representative_beads
from ase_cg.analysis.same_beads import order_of_beads
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError

GDT_CUTOFFS = (1.0, 2.0, 4.0, 8.0)  # Å
CONTACT_CUTOFF = 8.0  # Å between Cα beads
CONTACT_SEPARATION = 4  # residues along the chain, at least
CONTACT_STEEPNESS = 5.0  # 1/Å
CONTACT_SLACK = 1.2  # of the native distance


@dataclass(frozen=True)
class NativeStructure:
    """The native structure of a molecule.

    Parameters
    ----------
    positions : ndarray, shape (N, 3)
        Of all beads, in Å.
    beads : tuple of int
        The beads that are compared: see :func:`ase_cg.analysis.features.representative_beads`.
    contacts : ndarray, shape (c, 2)
        Pairs of these beads that touch, as indices of beads.
    """

    positions: NDArray[np.float64]
    beads: tuple[int, ...]
    contacts: NDArray[np.int64]

    @classmethod
    def read(cls, path: str | os.PathLike[str], topology: BeadTopology, resolution: Any) -> Self:
        """Read a structure file at the resolution of the data, in whatever order it lists the atoms of a residue.

        Raises
        ------
        InputError
            If it cannot be read, or has other beads; the first that differs is named.
        """
        from ase_cg.beads.atoms import read_beads, read_topology

        try:
            mine, atoms = read_topology(path, resolution), read_beads(path, resolution)
        except InputError as error:
            raise InputError(f"the native structure {path} cannot be used: {error}") from error
        return cls.of(atoms.get_positions()[order_of_beads(mine, topology, str(path), "the data")], topology)

    @classmethod
    def of(cls, positions: NDArray[np.float64], topology: BeadTopology) -> Self:
        """Make it from positions (N, 3) in Å; contacts are beads nearer than 8 Å, at least four residues apart."""
        beads = representative_beads(topology)
        residue_of = {bead: number for number, group in enumerate(topology.residues) for bead in group}
        pairs = [
            (i, j)
            for place, i in enumerate(beads)
            for j in beads[place + 1 :]
            if topology.chains[i] != topology.chains[j] or residue_of[j] - residue_of[i] >= CONTACT_SEPARATION
        ]
        lengths = pair_distances(positions[None], pairs)[0] if pairs else np.empty(0)
        near = [pair for pair, length in zip(pairs, lengths, strict=True) if length < CONTACT_CUTOFF]
        return cls(positions.astype(float), tuple(beads), np.array(near, dtype=np.int64).reshape(-1, 2))

    def superposed(self, frames: NDArray[Any]) -> NDArray[np.float64]:
        """Return how far each compared bead of frames (F, N, 3) is from its native place: shape (F, n), in Å.

        Each frame is superposed by least root-mean-square deviation; mirror images are not.
        """
        beads = list(self.beads)
        native = self.positions[beads] - self.positions[beads].mean(0)
        x = frames[:, beads].astype(float)
        x -= x.mean(1, keepdims=True)
        left, _, right = np.linalg.svd(np.einsum("fni,nj->fij", x, native))
        left[..., -1] *= np.linalg.det(left @ right)[:, None]
        return np.asarray(np.linalg.norm(x @ (left @ right) - native, axis=-1))

    def rmsd(self, frames: NDArray[Any]) -> NDArray[np.float64]:
        """Return the root-mean-square deviation of frames (F, N, 3) from the native structure: shape (F,), in Å."""
        return rmsd_of(self.superposed(frames))

    def gdt_ts(self, frames: NDArray[Any]) -> NDArray[np.float64]:
        """Return the global distance test (total score) of frames (F, N, 3): shape (F,), 0 … 1.

        The mean fraction of beads within 1, 2, 4 and 8 Å of their native place. Frames are superposed once, by least
        root-mean-square deviation; the search over superpositions of Zemla (Nucleic Acids Res. 31, 3370 (2003)) finds
        a value that is never lower.
        """
        return gdt_ts_of(self.superposed(frames))

    def native_contacts(self, frames: NDArray[Any]) -> NDArray[np.float64]:
        """Return the fraction of native contacts of frames (F, N, 3): shape (F,), 0 … 1.

        Q = ⟨1/(1 + exp(β(r − λr₀)))⟩ over contacts, of Best, Hummer and Eaton (PNAS 110, 17874 (2013)) with β = 5 /Å
        and λ = 1.2, the value for beads.

        Raises
        ------
        InputError
            If the native structure has no contact.
        """
        if not len(self.contacts):
            raise InputError("the native structure has no contact between residues at least four apart")
        native = pair_distances(self.positions[None], self.contacts.tolist())[0]
        stretch = pair_distances(frames, self.contacts.tolist()) - CONTACT_SLACK * native
        return np.asarray((0.5 * (1 - np.tanh(0.5 * CONTACT_STEEPNESS * stretch))).mean(1))


def rmsd_of(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the root mean square of deviations (F, n): shape (F,)."""
    return np.asarray(np.sqrt((deviations**2).mean(1)))


def gdt_ts_of(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the global distance test of deviations (F, n) in Å: shape (F,)."""
    return np.asarray(np.mean([(deviations <= cutoff).mean(1) for cutoff in GDT_CUTOFFS], axis=0))
