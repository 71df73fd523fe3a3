"""What a prior is: an analytic energy term whose parameters depend on bead types."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import BeadGraph, topology_graph
from ase_cg.errors import InputError
from ase_cg.models.base import EnergyTerm
from ase_cg.models.prior_options import BondedOptions

MIN_SAMPLES = 50  # below it the parameters of a type are not fitted on their own
FRAMES_AT_ONCE = 1000
POOLED_SAMPLES = 1_000_000  # that generic parameters are fitted to
RIGID = 1e-4  # Å or rad: what fluctuates less is rounding of positions that rigid bonds hold
GENERIC = -1  # in place of bead types: parameters for types that have none of their own

Types = tuple[int, ...]
Samples = dict[Types, NDArray[np.float64]]


class PriorTerm(EnergyTerm):
    """A prior.

    Attributes
    ----------
    name : str
        The word in recipes and files; each model has one term of a name.
    cutoff : float
        Distance in Å beyond which beads that are not bonded do not interact; infinite where there is none.
    n_types : int
        Size of the vocabulary it was made for.
    """

    name: ClassVar[str]
    cutoff: float = 0.0
    n_types: int
    names_beads: ClassVar[bool] = False  # whether its settings hold the vocabulary

    @classmethod
    @abstractmethod
    def samples(
        cls, positions: NDArray[np.float64], topology: BeadTopology, vocabulary: Sequence[str], options: Any
    ) -> Samples:
        """Return what the term is fitted to, by bead types, of positions in Å, shape (F, N, 3)."""

    @classmethod
    @abstractmethod
    def fit(cls, values: Samples, kT: float, vocabulary: Sequence[str], options: Any) -> Self:
        """Make the term from samples; `kT` in eV.

        Raises
        ------
        InputError
            If there are too few samples, or they do not fluctuate.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """Constants that the model file keeps beside the tensors, JSON-safe."""
        return {}

    @classmethod
    @abstractmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], n_types: int) -> Self:
        """Make the term from what the model file kept."""

    @abstractmethod
    def parameters_by_type(self) -> list[dict[str, Any]]:
        """Return the parameters as plain values in eV, Å and rad: each with ``types``, those of the generic ones []."""


class BondedPrior(PriorTerm):
    """A sum over bonded tuples of beads, with parameters for each sequence of bead types.

    A sequence and its reverse mean the same, unless the prior is directed: then sequences are read in the order of the
    beads in the molecule. Sequences without parameters of their own take the generic ones, where there are any.

    Parameters
    ----------
    types : Tensor, shape (p, width)
        Bead types of each row of parameters; a row of −1 is generic.
    parameters : dict of str to Tensor
        Each of shape (p,) or (p, …).
    n_types : int
        Size of the vocabulary.
    directed : bool
        Whether a sequence and its reverse differ.
    """

    width: ClassVar[int]
    parameter_names: ClassVar[tuple[str, ...]]
    scaled: ClassVar[tuple[str, ...]] = ("stiffness",)  # parameters that the energy is proportional to
    types: Tensor
    keys: Tensor
    order: Tensor

    def __init__(
        self, types: Tensor, parameters: Mapping[str, Tensor], n_types: int, *, directed: bool = False
    ) -> None:
        super().__init__()
        self.n_types = n_types
        self.directed = directed
        self.register_buffer("types", types)
        for name in self.parameter_names:
            self.register_buffer(name, parameters[name])
        own = torch.nonzero((types >= 0).all(1)).squeeze(1)
        generic = torch.nonzero((types < 0).all(1)).squeeze(1).tolist()
        self._generic = int(generic[0]) if generic else None
        keys, order = torch.sort(self._keys(types[own].T))
        self.register_buffer("keys", keys, persistent=False)
        self.register_buffer("order", own[order], persistent=False)
        self._last_rows: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    @abstractmethod
    def members(cls, graph: BeadGraph) -> Tensor:
        """Return the bonded tuples of a graph that the term acts on, shape (width, m)."""

    @classmethod
    @abstractmethod
    def internal_coordinate(cls, graph: BeadGraph) -> Tensor:
        """Return what the parameters are fitted to for each tuple, shape (m,)."""

    @abstractmethod
    def tuple_energies(self, graph: BeadGraph, rows: Tensor) -> Tensor:
        """Return the energy of each tuple in eV, shape (m,); `rows` (m,) are those of its parameters."""

    @classmethod
    @abstractmethod
    def fit_one(cls, samples: NDArray[np.float64], kT: float, options: Any) -> dict[str, Any]:
        """Return the parameters for samples of one sequence of types, shape (samples,)."""

    @classmethod
    def fitted_view(cls, graph: BeadGraph, vocabulary: Sequence[str], options: Any) -> BeadGraph:
        """Return a graph with the tuples that a term of these options acts on."""
        del vocabulary, options
        return graph

    def view(self, graph: BeadGraph) -> BeadGraph:
        """Return a graph with the tuples that the term acts on, of which :meth:`members` is told."""
        return graph

    @classmethod
    def fluctuation(cls, samples: NDArray[np.float64]) -> float:
        """Return the standard deviation of samples, by which rigid coordinates are told."""
        return float(samples.std())

    @classmethod
    def settings_of(cls, vocabulary: Sequence[str], options: Any) -> dict[str, Any]:
        """Return the settings of a term that is fitted with these options."""
        del vocabulary
        return {"directed": options.directed}

    @property
    def settings(self) -> dict[str, Any]:
        """Whether the prior is directed."""
        return {"directed": True} if self.directed else {}

    @classmethod
    def samples(
        cls, positions: NDArray[np.float64], topology: BeadTopology, vocabulary: Sequence[str], options: Any
    ) -> Samples:
        """Return the internal coordinate of all frames, by sequence of bead types."""
        one = cls.fitted_view(topology_graph(topology, vocabulary), vocabulary, options)
        sequences = [tuple(types) for types in one.bead_type[cls.members(one)].T.tolist()]
        if not options.directed:
            sequences = [min(types, types[::-1]) for types in sequences]
        chunks = []
        for start in range(0, len(positions), FRAMES_AT_ONCE):
            frames = torch.from_numpy(positions[start : start + FRAMES_AT_ONCE])
            copies = topology_graph(topology, vocabulary, len(frames))._replace(positions=frames.reshape(-1, 3))
            graph = cls.fitted_view(copies, vocabulary, options)
            # Copies stand one after the other, so the frame is the slow index.
            chunks.append(cls.internal_coordinate(graph).reshape(len(frames), len(sequences)).numpy())
        collected: dict[Types, list[NDArray[np.float64]]] = {}
        for sequence, q in zip(sequences, np.concatenate(chunks).T, strict=True):
            collected.setdefault(sequence, []).append(q)
        return {sequence: np.concatenate(found) for sequence, found in sorted(collected.items())}

    @classmethod
    def fit(cls, values: Samples, kT: float, vocabulary: Sequence[str], options: BondedOptions) -> Self:
        """Fit each sequence of types that has samples enough, and generic parameters to all samples together.

        Sequences with fewer than 50 samples take the generic parameters; a warning counts them.
        """
        enough = {types: samples for types, samples in values.items() if len(samples) >= MIN_SAMPLES}
        own = {} if getattr(options, "generic", False) else enough
        rare = {types: len(samples) for types, samples in values.items() if types not in enough}
        rows = {types: cls._fit_named(types, samples, kT, vocabulary, options) for types, samples in own.items()}
        if values:
            pooled = np.concatenate(list(values.values()))
            pooled = pooled[:: max(1, len(pooled) // POOLED_SAMPLES)]
            rows[(GENERIC,) * cls.width] = cls._fit_named((), pooled, kT, vocabulary, options)
        if rare:
            warn_of_rare(cls.name, rare, vocabulary)
        return cls._of_rows(rows, vocabulary, options)

    @classmethod
    def _fit_named(
        cls, types: Types, samples: NDArray[np.float64], kT: float, vocabulary: Sequence[str], options: BondedOptions
    ) -> dict[str, Any]:
        which = "–".join(vocabulary[t] for t in types) or "all types together"
        if len(samples) < MIN_SAMPLES:
            raise InputError(
                f"{len(samples)} samples are too few to fit the prior {cls.name!r} for {which}, which takes "
                f"{MIN_SAMPLES}; give more frames (training.fraction, where it takes a part of them), or leave it out"
            )
        if not cls.fluctuation(samples) > RIGID:
            raise InputError(f"the prior {cls.name!r} for {which} cannot be fitted: the data do not fluctuate")
        return cls.fit_one(samples, kT, options)

    @classmethod
    def _of_rows(
        cls, rows: Mapping[Types, Mapping[str, Any]], vocabulary: Sequence[str], options: BondedOptions
    ) -> Self:
        def stacked(name: str) -> Tensor:
            factor = options.scale if name in cls.scaled else 1.0
            return torch.tensor(np.array([row[name] for row in rows.values()]) * factor, dtype=torch.float32)

        types = torch.tensor(list(rows), dtype=torch.long).reshape(-1, cls.width)
        tensors = {"types": types, **{name: stacked(name) for name in cls.parameter_names}}
        return cls.from_tensors(tensors, cls.settings_of(vocabulary, options), len(vocabulary))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], n_types: int) -> Self:
        """Make the term from its types and parameters."""
        parameters = {name: tensors[name] for name in cls.parameter_names}
        return cls(tensors["types"], parameters, n_types, **settings)

    def bead_energies(self, graph: BeadGraph) -> Tensor:
        """Return the energy in eV, shape (n,), shared evenly among the beads of each tuple."""
        graph = self.view(graph)
        members = self.members(graph)
        if not members.shape[1]:
            return 0 * graph.positions.sum(-1)  # a function of the positions, so that it can be differentiated
        share = self.tuple_energies(graph, self.rows_of(members, graph.bead_type)) / self.width
        energies = share.new_zeros(len(graph.positions))
        return energies.index_add(0, members.reshape(-1), share.repeat(self.width))

    def parameters_by_type(self) -> list[dict[str, Any]]:
        """Return the parameters as plain values."""
        columns = {name: getattr(self, name).tolist() for name in self.parameter_names}
        return [
            {"types": [] if GENERIC in types else types} | {name: column[row] for name, column in columns.items()}
            for row, types in enumerate(self.types.tolist())
        ]

    def of_members(self, graph: BeadGraph) -> dict[str, Tensor]:
        """Return the parameters of each bonded tuple of a graph, each of shape (m, …)."""
        rows = self.rows_of(self.members(self.view(graph)), graph.bead_type)
        return {name: getattr(self, name)[rows] for name in self.parameter_names}

    def rows_of(self, members: Tensor, bead_type: Tensor) -> Tensor:
        """Return the rows of the parameters of bonded tuples (width, m), shape (m,)."""
        # A run evaluates one topology many times: its rows are looked up when its tensors are first seen.
        if self._last_rows is None or self._last_rows[0] is not members or self._last_rows[1] is not bead_type:
            self._last_rows = (members, bead_type, self._rows(bead_type[members]))
        return self._last_rows[2]

    def _keys(self, types: Tensor) -> Tensor:
        """Give each sequence (width, m) one number, the same for its reverse unless directed: shape (m,)."""
        forward = torch.zeros_like(types[0])
        backward = torch.zeros_like(types[0])
        for first, last in zip(types, types.flip(0), strict=True):
            forward = forward * self.n_types + first
            backward = backward * self.n_types + last
        return forward if self.directed else torch.minimum(forward, backward)

    def _rows(self, types: Tensor) -> Tensor:
        wanted = self._keys(types)
        if not len(wanted):
            return wanted
        if not len(self.keys):
            place, missing = torch.zeros_like(wanted), torch.ones_like(wanted, dtype=torch.bool)
            rows = place
        else:
            place = torch.searchsorted(self.keys, wanted).clamp_max(len(self.keys) - 1)
            missing, rows = self.keys[place] != wanted, self.order[place]
        if bool(missing.any()):
            if self._generic is None:
                example = types[:, missing][:, 0].tolist()
                raise InputError(f"the {self.name} prior has no parameters for bead types {example}")
            rows = torch.where(missing, self._generic, rows)
        return rows


def warn_of_rare(name: str, counts: Mapping[Types, int], vocabulary: Sequence[str]) -> None:
    """Warn that some sequences of types have too few samples and take the generic parameters."""
    shown = [f"{'–'.join(vocabulary[t] for t in types)} ({count})" for types, count in list(counts.items())[:5]]
    more = f" and {len(counts) - len(shown)} more" if len(counts) > len(shown) else ""
    warnings.warn(
        f"the prior {name!r} takes generic parameters for {len(counts)} kinds with fewer than {MIN_SAMPLES} samples: "
        f"{', '.join(shown)}{more}",
        UserWarning,
        stacklevel=2,
    )
