"""Harmonic bonds and angles, fitted from mean and variance."""

from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.data.graph import BeadGraph
from ase_cg.errors import InputError
from ase_cg.models.base import EnergyTerm

MIN_SAMPLES = 10  # below it a variance says nothing


class HarmonicTerm(EnergyTerm):
    """Σ k (q − q₀)² over bonded tuples, with k and q₀ for each sequence of bead types.

    Parameters
    ----------
    types : Tensor, shape (p, width)
        Bead types of each parameter row; a sequence and its reverse mean the same.
    stiffness : Tensor, shape (p,)
        k in eV per squared unit of q.
    equilibrium : Tensor, shape (p,)
        q₀.
    n_types : int
        Size of the vocabulary.
    """

    name: ClassVar[str]
    width: ClassVar[int]
    types: Tensor
    stiffness: Tensor
    equilibrium: Tensor
    keys: Tensor
    order: Tensor

    def __init__(self, types: Tensor, stiffness: Tensor, equilibrium: Tensor, n_types: int) -> None:
        super().__init__()
        self.n_types = n_types
        self.register_buffer("types", types)
        self.register_buffer("stiffness", stiffness)
        self.register_buffer("equilibrium", equilibrium)
        keys, order = torch.sort(self._keys(types.T))
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("order", order, persistent=False)
        self._last_rows: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    @abstractmethod
    def members(cls, graph: BeadGraph) -> Tensor:
        """Return the bonded tuples of a graph that the term acts on, shape (width, m)."""

    @classmethod
    @abstractmethod
    def internal_coordinate(cls, graph: BeadGraph) -> Tensor:
        """Return q of each tuple, shape (m,)."""

    @classmethod
    def fit(cls, values: dict[tuple[int, ...], NDArray[np.float64]], kT: float, n_types: int) -> Self:
        """Fit k = kT/(2 var q) and q₀ = mean q for each sequence of types.

        Parameters
        ----------
        values : dict
            Samples of q, shape (samples,), by sequence of bead types.
        kT : float
            In eV.
        n_types : int
            Size of the vocabulary.

        Raises
        ------
        InputError
            If a sequence has fewer than 10 samples or does not fluctuate.
        """
        for types, samples in values.items():
            if len(samples) < MIN_SAMPLES:
                raise InputError(f"{len(samples)} samples are too few to fit a prior for bead types {types}")
            if not samples.var() > 0:
                raise InputError(f"a prior for bead types {types} cannot be fitted: the data do not fluctuate")
        return cls(
            torch.tensor(list(values), dtype=torch.long).reshape(-1, cls.width),
            torch.tensor([kT / (2 * samples.var()) for samples in values.values()], dtype=torch.float32),
            torch.tensor([samples.mean() for samples in values.values()], dtype=torch.float32),
            n_types,
        )

    @classmethod
    def canonical(cls, types: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sequence or its reverse, whichever comes first."""
        return min(types, types[::-1])

    def bead_energies(self, graph: BeadGraph) -> Tensor:
        """Return the energy in eV, shape (n,), shared evenly among the beads of each tuple."""
        members = self.members(graph)
        rows = self._rows_of(members, graph.bead_type)
        deviation = self.internal_coordinate(graph) - self.equilibrium[rows]
        share = self.stiffness[rows] * deviation * deviation / self.width
        energies = share.new_zeros(len(graph.positions))
        return energies.index_add(0, members.reshape(-1), share.repeat(self.width))

    def parameters_by_type(self) -> list[dict[str, Any]]:
        """Return the parameters as plain values: types, stiffness (eV) and equilibrium."""
        return [
            {"types": types, "stiffness": stiffness, "equilibrium": equilibrium}
            for types, stiffness, equilibrium in zip(
                self.types.tolist(), self.stiffness.tolist(), self.equilibrium.tolist(), strict=True
            )
        ]

    def _rows_of(self, members: Tensor, bead_type: Tensor) -> Tensor:
        # A run evaluates one topology many times: its rows are looked up when its tensors are first seen.
        if self._last_rows is None or self._last_rows[0] is not members or self._last_rows[1] is not bead_type:
            self._last_rows = (members, bead_type, self._rows(bead_type[members]))
        return self._last_rows[2]

    def _keys(self, types: Tensor) -> Tensor:
        """Give each sequence (width, m) one number, the same for its reverse: shape (m,)."""
        forward = torch.zeros_like(types[0])
        backward = torch.zeros_like(types[0])
        for first, last in zip(types, types.flip(0), strict=True):
            forward = forward * self.n_types + first
            backward = backward * self.n_types + last
        return torch.minimum(forward, backward)

    def _rows(self, types: Tensor) -> Tensor:
        wanted = self._keys(types)
        if not len(wanted):
            return wanted
        if not len(self.keys):
            raise InputError(f"the {self.name} prior has no parameters, but the molecule has {len(wanted)} {self.name}")
        place = torch.searchsorted(self.keys, wanted).clamp_max(len(self.keys) - 1)
        missing = self.keys[place] != wanted
        if bool(missing.any()):
            example = types[:, missing][:, 0].tolist()
            raise InputError(f"the {self.name} prior has no parameters for bead types {example}")
        return self.order[place]


class HarmonicBonds(HarmonicTerm):
    """k (r − r₀)² over bonds: k in eV/Å², r in Å."""

    name = "bonds"
    width = 2

    @classmethod
    def members(cls, graph: BeadGraph) -> Tensor:
        """Return the bonds, shape (2, b)."""
        return graph.bonds

    @classmethod
    def internal_coordinate(cls, graph: BeadGraph) -> Tensor:
        """Return bond lengths in Å, shape (b,)."""
        lengths: Tensor = torch.linalg.vector_norm(graph.bonded_vectors(*graph.bonds), dim=-1)
        return lengths


class HarmonicAngles(HarmonicTerm):
    """k (θ − θ₀)² over bonded triples: k in eV/rad², θ in rad."""

    name = "angles"
    width = 3

    @classmethod
    def members(cls, graph: BeadGraph) -> Tensor:
        """Return the triples, shape (3, a), the vertex in the middle."""
        return graph.angles

    @classmethod
    def internal_coordinate(cls, graph: BeadGraph) -> Tensor:
        """Return angles in rad, shape (a,)."""
        i, j, k = graph.angles
        left, right = graph.bonded_vectors(j, i), graph.bonded_vectors(j, k)
        cross = torch.linalg.cross(left, right, dim=-1)
        # atan2 keeps its precision near 0 and π, where acos loses it; the floor keeps its gradient finite there.
        sine = torch.sqrt((cross * cross).sum(-1).clamp_min(1e-12))
        return torch.atan2(sine, (left * right).sum(-1))


PRIORS: dict[str, type[HarmonicTerm]] = {cls.name: cls for cls in (HarmonicBonds, HarmonicAngles)}
