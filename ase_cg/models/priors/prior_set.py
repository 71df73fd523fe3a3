"""The priors of a model, by name, and their fit to data."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset import Dataset, Molecule
from ase_cg.data.graph import BeadGraph, topology_graph
from ase_cg.data.splits import spread_frames
from ase_cg.errors import InputError
from ase_cg.models.base import EnergyTerm
from ase_cg.models.priors.harmonic import PRIORS, HarmonicTerm
from ase_cg.units import thermal_energy

MAX_FRAMES = 50_000  # a mean and a variance are known well enough from so many
FRAMES_AT_ONCE = 1000


class PriorSet(EnergyTerm):
    """Sum of prior terms.

    Parameters
    ----------
    terms : sequence of HarmonicTerm
        Each with another name.
    """

    def __init__(self, terms: Sequence[HarmonicTerm]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict({term.name: term for term in terms})

    @classmethod
    def fit(
        cls,
        data: Dataset | Molecule,
        names: Sequence[str] = ("bonds", "angles"),
        *,
        vocabulary: Sequence[str],
        noise_std: float = 0.0,
        frames: NDArray[np.int64] | None = None,
        seed: int = 0,
    ) -> Self:
        """Fit priors to a molecule's frames, or to the frames with noise added.

        Parameters
        ----------
        data : Molecule, or Dataset of one molecule
        names : sequence of {"bonds", "angles"}
        vocabulary : sequence of str
            Bead names in the order of the model's types.
        noise_std : float
            Standard deviation in Å of Gaussian noise added to each coordinate before fitting.
        frames : ndarray of int, optional
            Sorted indices of the frames to fit to; at most 50 000 of them, evenly spread, are used.
        seed : int
            Of the noise.

        Raises
        ------
        InputError
            If a name is not known or there are too few samples.
        """
        molecule = data.only_molecule() if isinstance(data, Dataset) else data
        chosen = np.arange(molecule.n_frames) if frames is None else frames
        positions = molecule.coordinates(spread_frames(chosen, MAX_FRAMES)).astype(float)
        if noise_std:
            positions = positions + noise_std * np.random.default_rng(seed).standard_normal(positions.shape)
        return cls.fit_positions(
            positions, molecule.topology, names, vocabulary=vocabulary, kT=thermal_energy(molecule.temperature)
        )

    @classmethod
    def fit_positions(
        cls,
        positions: NDArray[np.float64],
        topology: BeadTopology,
        names: Sequence[str],
        *,
        vocabulary: Sequence[str],
        kT: float,
    ) -> Self:
        """Fit priors to positions in Å of shape (F, N, 3); `kT` in eV. See :meth:`fit`."""
        unknown = [name for name in names if name not in PRIORS]
        if unknown:
            raise InputError(f"unknown prior {unknown[0]!r}; known are {', '.join(PRIORS)}")
        terms = []
        for name in names:
            term = PRIORS[name]
            values = _samples_by_type(term, positions, topology, vocabulary)
            terms.append(term.fit(values, kT, len(vocabulary)))
        return cls(terms)

    def bead_energies(self, graph: BeadGraph) -> Tensor:
        """Return the sum over terms in eV, shape (n,)."""
        total = graph.positions.new_zeros(len(graph.positions))
        for term in self.terms.values():
            total = total + term.bead_energies(graph)  # type: ignore[operator] # ModuleDict forgets the type
        return total


def _samples_by_type(
    term: type[HarmonicTerm], positions: NDArray[np.float64], topology: BeadTopology, vocabulary: Sequence[str]
) -> dict[tuple[int, ...], NDArray[np.float64]]:
    """Collect the internal coordinate of all frames, by sequence of bead types."""
    one = topology_graph(topology, vocabulary)
    sequences = [term.canonical(tuple(types)) for types in one.bead_type[term.members(one)].T.tolist()]
    chunks = []
    for start in range(0, len(positions), FRAMES_AT_ONCE):
        frames = torch.from_numpy(positions[start : start + FRAMES_AT_ONCE])
        graph = topology_graph(topology, vocabulary, len(frames))._replace(positions=frames.reshape(-1, 3))
        # Copies stand one after the other, so the frame is the slow index.
        chunks.append(term.internal_coordinate(graph).reshape(len(frames), len(sequences)).numpy())
    collected: defaultdict[tuple[int, ...], list[NDArray[np.float64]]] = defaultdict(list)
    for sequence, q in zip(sequences, np.concatenate(chunks).T, strict=True):
        collected[sequence].append(q)
    return {sequence: np.concatenate(samples) for sequence, samples in sorted(collected.items())}
