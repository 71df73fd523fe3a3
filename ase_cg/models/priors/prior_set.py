"""The priors of a model, by name, and their fit to data."""

import copy
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset import Dataset, Molecule
from ase_cg.data.graph import BeadGraph
from ase_cg.data.splits import drawn_by_weight, spread_frames
from ase_cg.errors import InputError, hint
from ase_cg.models.base import EnergyTerm
from ase_cg.models.prior_options import PriorSpec, read_prior
from ase_cg.models.priors import PRIORS
from ase_cg.models.priors.base import PriorTerm, Samples
from ase_cg.units import thermal_energy

MAX_FRAMES = 50_000  # a mean and a variance are known well enough from so many


class PriorSet(EnergyTerm):
    """Sum of prior terms.

    Parameters
    ----------
    terms : sequence of PriorTerm
        Each with another name.
    vocabulary : sequence of str, optional
        Bead names in the order of the types that the terms were made for, so that other beads are refused.
    """

    def __init__(self, terms: Sequence[PriorTerm], vocabulary: Sequence[str] | None = None) -> None:
        super().__init__()
        self.terms = nn.ModuleDict({term.name: term for term in terms})
        self.vocabulary = None if vocabulary is None else tuple(vocabulary)

    @property
    def cutoff(self) -> float:
        """Distance in Å beyond which beads that are not bonded do not interact."""
        return max((term.cutoff for term in self._listed), default=0.0)

    def check_vocabulary(self, vocabulary: Sequence[str]) -> None:
        """Raise :class:`InputError` if a term was made for other bead types, or another number of them."""
        for term in self._listed:
            if term.n_types != len(vocabulary):
                raise InputError(
                    f"the prior {term.name!r} was made for {term.n_types} bead types, and the vocabulary has "
                    f"{len(vocabulary)} ({', '.join(vocabulary)}): fit it to the same beads"
                )
        for own, other in zip(self.vocabulary or (), vocabulary, strict=False):
            if own != other:
                raise InputError(
                    f"the priors were made for the bead {own!r} where the vocabulary has {other!r}: fit them to "
                    "the same beads in the same order"
                )

    @property
    def _listed(self) -> list[PriorTerm]:
        return list(self.terms.values())  # type: ignore[arg-type] # ModuleDict forgets the type

    @classmethod
    def fit(
        cls,
        data: Dataset | Molecule | Sequence[Molecule],
        priors: Sequence[PriorSpec] = ("bonds", "angles"),
        *,
        vocabulary: Sequence[str],
        noise_std: float = 0.0,
        frames: NDArray[np.int64] | Mapping[str, NDArray[np.int64]] | None = None,
        seed: int = 0,
    ) -> Self:
        """Fit priors to the frames of molecules, or to the frames with noise added.

        Parameters
        ----------
        data : Dataset, Molecule, or sequence of Molecule
            All at one temperature; samples of the same bead types are put together.
        priors : sequence of str or mapping
            Names of :data:`ase_cg.models.priors.PRIORS`, or mappings of ``name`` and options.
        vocabulary : sequence of str
            Bead names in the order of the model's types.
        noise_std : float
            Standard deviation in Å of Gaussian noise added to each coordinate before fitting.
        frames : ndarray of int, or mapping of molecule names to them, optional
            Sorted indices of the frames to fit to; at most 50 000 of them in all, evenly spread, are used. Frames with
            weights are drawn by weight.
        seed : int
            Of the noise.

        Raises
        ------
        InputError
            If a name is not known, there are too few samples, or temperatures differ.
        """
        molecules = _molecules(data)
        temperatures = {molecule.temperature for molecule in molecules}
        if len(temperatures) != 1:
            raise InputError(
                f"priors are free energies at one temperature, and the molecules have {sorted(temperatures)} K"
            )
        rng = np.random.default_rng(seed)
        parts = []
        for molecule in molecules:
            chosen = frames.get(molecule.name) if isinstance(frames, Mapping) else frames
            used = np.arange(molecule.n_frames) if chosen is None else chosen
            weights = molecule.weights()
            if weights is not None:
                used = used[drawn_by_weight(weights[used])]
            positions = molecule.coordinates(spread_frames(used, MAX_FRAMES // len(molecules))).astype(float)
            if noise_std:
                positions = positions + noise_std * rng.standard_normal(positions.shape)
            parts.append((positions, molecule.topology))
        return cls._fit_parts(parts, priors, vocabulary=vocabulary, kT=thermal_energy(temperatures.pop()))

    @classmethod
    def fit_positions(
        cls,
        positions: NDArray[np.float64],
        topology: BeadTopology,
        priors: Sequence[PriorSpec],
        *,
        vocabulary: Sequence[str],
        kT: float,
    ) -> Self:
        """Fit priors to positions in Å of shape (F, N, 3); `kT` in eV. See :meth:`fit`."""
        return cls._fit_parts([(positions, topology)], priors, vocabulary=vocabulary, kT=kT)

    @classmethod
    def _fit_parts(
        cls,
        parts: Sequence[tuple[NDArray[np.float64], BeadTopology]],
        priors: Sequence[PriorSpec],
        *,
        vocabulary: Sequence[str],
        kT: float,
    ) -> Self:
        wanted = [read_prior(spec) for spec in priors]
        terms = []
        for name, options in wanted:
            collected: defaultdict[tuple[int, ...], list[NDArray[np.float64]]] = defaultdict(list)
            for positions, topology in parts:
                found: Samples = PRIORS[name].samples(positions, topology, vocabulary, options)
                for types, samples in found.items():
                    collected[types].append(samples)
            values = {types: np.concatenate(samples) for types, samples in sorted(collected.items())}
            terms.append(PRIORS[name].fit(values, kT, vocabulary, options))
        return cls(terms, vocabulary)

    def replaced(self, other: "PriorSet", names: Sequence[str]) -> "PriorSet":
        """Return a copy in which the terms of some names are those of another set.

        Raises
        ------
        InputError
            If one of the sets has no such term.
        """
        unknown = [name for name in names if name not in self.terms or name not in other.terms]
        if unknown:
            raise InputError(f"there is no prior {unknown[0]!r} to replace; {hint(unknown[0], list(self.terms))}")
        chosen = [copy.deepcopy((other if term.name in names else self).terms[term.name]) for term in self._listed]
        return PriorSet(chosen, self.vocabulary)  # type: ignore[arg-type] # ModuleDict forgets the type

    def with_cutoff(self, cutoff: float) -> "PriorSet":
        """Return a copy in which terms without a cutoff end at one, given in Å."""
        terms = copy.deepcopy(self._listed)
        for term in terms:
            if math.isinf(term.cutoff):
                term.cutoff = float(cutoff)
        return PriorSet(terms, self.vocabulary)

    def bead_energies(self, graph: BeadGraph) -> Tensor:
        """Return the sum over terms in eV, shape (n,)."""
        total = graph.positions.new_zeros(len(graph.positions))
        for term in self._listed:
            total = total + term.bead_energies(graph)
        return total

    def to_yaml(self, path: str | os.PathLike[str], vocabulary: Sequence[str], *, overwrite: bool = False) -> None:
        """Write the parameters for people to read; see :func:`ase_cg.models.priors.prior_file.write_priors`."""
        from ase_cg.models.priors.prior_file import write_priors

        write_priors(self, path, vocabulary, overwrite=overwrite)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], vocabulary: Sequence[str]) -> "PriorSet":
        """Read what :meth:`to_yaml` wrote; see :func:`ase_cg.models.priors.prior_file.read_priors`."""
        from ase_cg.models.priors.prior_file import read_priors

        return read_priors(path, vocabulary)


def _molecules(data: Dataset | Molecule | Sequence[Molecule]) -> list[Molecule]:
    if isinstance(data, Dataset):
        return list(data.molecules.values())
    return [data] if isinstance(data, Molecule) else list(data)


def describe_priors(priors: PriorSet) -> dict[str, Any]:
    """Return the parameters of each term as plain values."""
    return {term.name: term.parameters_by_type() for term in priors._listed}  # noqa: SLF001 - of the same file
