"""The coarse-grained model: named energy terms, summed and differentiated once."""

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ase_cg.beads.atoms import bead_types
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import BeadGraph, topology_graph
from ase_cg.errors import InputError, hint
from ase_cg.models.base import Backbone, energy_and_forces, sum_over_molecules
from ase_cg.models.priors.prior_set import PriorSet

if TYPE_CHECKING:
    from ase_cg.inference.compiled import CompiledModel

DTYPES = ("float32", "float64")
PriorChoice = Literal["simulation", "training"]


@dataclass(frozen=True)
class ModelCard:
    """What a model is and where it comes from; kept in its file.

    Parameters
    ----------
    temperature : float
        Of the data, in K.
    resolution : str, tuple of str, or dict
    topologies : tuple of BeadTopology
        Molecules it was trained on.
    labels : str
        Kind of label it was trained on.
    noise_std : float
        Of the labels, in Å.
    provenance : dict
        Data hash, recipe, package version, git commit, metrics: JSON-safe.
    """

    temperature: float
    resolution: str | tuple[str, ...] | dict[str, Any]
    topologies: tuple[BeadTopology, ...] = ()
    labels: str = "none"
    noise_std: float = 0.0
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON keeps exactly."""
        return asdict(self) | {"topologies": [topology.to_dict() for topology in self.topologies]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make a card from what :meth:`to_dict` returned."""
        resolution = data["resolution"]
        return cls(
            temperature=float(data["temperature"]),
            resolution=tuple(resolution) if isinstance(resolution, list) else resolution,
            topologies=tuple(BeadTopology.from_dict(topology) for topology in data["topologies"]),
            labels=data["labels"],
            noise_std=float(data["noise_std"]),
            provenance=data["provenance"],
        )


class CGModel(nn.Module):
    """Free energy of beads: priors plus, perhaps, a network.

    Parameters
    ----------
    vocabulary : sequence of str
        Bead names in the order of the types.
    priors : PriorSet
        Used for simulation.
    card : ModelCard
    backbone : Backbone, optional
    backbone_name : str, optional
        As registered, to build it again from the file.
    training_priors : PriorSet, optional
        Those the network was trained with, where they differ ("sharpened priors"): fitted to noised data,
        while `priors`, or some of them, are fitted to the clean data.
    frames : sequence of Tensor, each of shape (F, N, 3)
        Some frames of the data of each of the card's molecules, in Å: fast forms of the model are checked with them.
    """

    def __init__(
        self,
        vocabulary: tuple[str, ...],
        priors: PriorSet,
        card: ModelCard,
        *,
        backbone: Backbone | None = None,
        backbone_name: str | None = None,
        training_priors: PriorSet | None = None,
        frames: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        if not len(priors.terms) and backbone is None:
            raise InputError("a model needs at least one prior or a network")
        for terms in (priors, training_priors):
            if terms is not None:
                terms.check_vocabulary(vocabulary)
        if backbone is not None and backbone.n_types is not None and backbone.n_types < len(vocabulary):
            raise InputError(f"the network was made for {backbone.n_types} bead types, and there are {len(vocabulary)}")
        self.vocabulary = vocabulary
        self.card = card
        self.priors = priors
        self.backbone = backbone
        self.backbone_name = backbone_name
        self.training_priors = training_priors
        self.frames = tuple(frames)
        for number, (topology, found) in enumerate(zip(card.topologies, self.frames, strict=False)):
            if found.ndim != 3 or found.shape[1:] != (topology.n_beads, 3):
                raise InputError(f"frames {number} of shape {tuple(found.shape)} do not fit {topology.n_beads} beads")

    @property
    def cutoff(self) -> float:
        """Distance in Å beyond which beads that are not bonded do not interact."""
        return max(self.priors.cutoff, 0.0 if self.backbone is None else self.backbone.cutoff)

    def bead_energies_by_term(self, graph: BeadGraph) -> dict[str, Tensor]:
        """Return each bead's share of every term by name, each of shape (n,), in eV."""
        terms: dict[str, Tensor] = {
            name: term.bead_energies(graph)  # type: ignore[operator] # ModuleDict forgets the type
            for name, term in self.priors.terms.items()
        }
        return terms if self.backbone is None else terms | {"network": self.backbone.bead_energies(graph)}

    def bead_energies(self, graph: BeadGraph) -> Tensor:
        """Return the energy of each bead in eV, shape (n,)."""
        return torch.stack(list(self.bead_energies_by_term(graph).values())).sum(0)

    def forward(self, graph: BeadGraph) -> Tensor:
        """Return the energy of each molecule in eV, shape (n_molecules,)."""
        return sum_over_molecules(self.bead_energies(graph), graph)

    def energy_and_forces(self, graph: BeadGraph) -> tuple[Tensor, Tensor]:
        """Return energies in eV, shape (n_molecules,), and forces in eV/Å, shape (n, 3)."""
        return energy_and_forces(self, graph)

    def term_energies(self, graph: BeadGraph) -> dict[str, Tensor]:
        """Return the energy of each term by name, each of shape (n_molecules,), in eV."""
        return {name: sum_over_molecules(share, graph) for name, share in self.bead_energies_by_term(graph).items()}

    def graph(self, topology: BeadTopology, copies: int = 1) -> BeadGraph:
        """Make the graph of some copies of a molecule, on the model's device and with its dtype.

        Raises
        ------
        InputError
            If a bead is not in the vocabulary.
        """
        self.check_beads(topology.names)
        like = next(tensor for tensor in self.state_dict().values() if tensor.is_floating_point())
        return topology_graph(topology, self.vocabulary, copies).to(like.device, like.dtype)

    def check_beads(self, names: Sequence[str]) -> None:
        """Raise :class:`InputError` if the model does not know a bead; it says why, if the bead was left out."""
        left_out: dict[str, str] = self.card.provenance.get("beads_left_out", {})
        for name in names:
            if name in left_out and name not in self.vocabulary:
                raise InputError(f"the model knows no bead {name!r}: {left_out[name]}")
        bead_types(names, self.vocabulary)

    def only_topology(self) -> BeadTopology:
        """Return the molecule of a model trained on one.

        Raises
        ------
        InputError
            If there are none or several.
        """
        if len(self.card.topologies) != 1:
            raise InputError(f"the model was trained on {len(self.card.topologies)} molecules; say which is meant")
        return self.card.topologies[0]

    def with_terms(self, names: Sequence[str]) -> "CGModel":
        """Return the sum of some of the terms by name: priors, and ``network``.

        Raises
        ------
        InputError
            If a name is none of the model's terms.
        """
        known = [*self.priors.terms, *([] if self.backbone is None else ["network"])]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(f"the model has no term {unknown[0]!r}; {hint(unknown[0], known)}")
        chosen = PriorSet([term for name, term in self.priors.terms.items() if name in names])  # type: ignore[misc]
        network = self.backbone if "network" in names else None
        return CGModel(
            self.vocabulary,
            chosen,
            self.card,
            backbone=network,
            backbone_name=self.backbone_name,
            frames=self.frames,
        )

    def prior_only(self) -> "CGModel":
        """Return the model without its network."""
        return CGModel(self.vocabulary, self.priors, self.card, frames=self.frames)

    def with_priors(self, choice: PriorChoice) -> "CGModel":
        """Return the model with the priors of simulation (as it is) or those of training."""
        if choice == "simulation" or self.training_priors is None:
            return self
        return CGModel(
            self.vocabulary,
            self.training_priors,
            self.card,
            backbone=self.backbone,
            backbone_name=self.backbone_name,
            frames=self.frames,
        )

    def with_cutoff(self, cutoff: float) -> "CGModel":
        """Return the model with a cutoff for priors that have none, so that it serves in periodic cells.

        Their energy is switched off over the last fifth of the cutoff, with a continuous force: close to the cutoff and
        beyond it is no longer that of the model. Priors that have a cutoff keep it.

        Parameters
        ----------
        cutoff : float
            In Å.

        Raises
        ------
        InputError
            If the cutoff is not a positive number.
        """
        if not 0 < cutoff < math.inf:
            raise InputError(f"a cutoff is a positive number of Å, not {cutoff}")
        training = None if self.training_priors is None else self.training_priors.with_cutoff(cutoff)
        return CGModel(
            self.vocabulary,
            self.priors.with_cutoff(cutoff),
            self.card,
            backbone=self.backbone,
            backbone_name=self.backbone_name,
            training_priors=training,
            frames=self.frames,
        )

    def frames_of(self, topology: BeadTopology) -> NDArray[np.float64] | None:
        """Return the frames kept of a molecule, shape (F, N, 3) in Å, or None."""
        for known, frames in zip(self.card.topologies, self.frames, strict=False):
            if known.names == topology.names and len(frames):
                return frames.double().cpu().numpy()
        return None

    def compile(  # type: ignore[override] # nn.Module.compile is another thing, and not for users of a model
        self,
        topology: BeadTopology | None = None,
        *,
        replicas: int = 1,
        device: str = "cpu",
        dtype: str = "float32",
        frames: ArrayLike | None = None,
        gate: float = 1e-5,
        quiet: bool = False,
    ) -> "CompiledModel":
        """Make the model fast for replicas of one molecule.

        Radial functions become tables, the layout dense, and energies, forces and whole time steps one graph of native
        code, which is kept in the user's cache folder: the first time takes a minute or more.

        Parameters
        ----------
        topology : BeadTopology, optional
            Of N beads; by default the molecule the model was trained on.
        replicas : int
            R.
        device : str
        dtype : {"float32", "float64"}
            Of the evaluation.
        frames : array_like, shape (F, N, 3), optional
            Conformations in Å to measure the error on; by default those in the model's file.
        gate : float
            Greatest error of the forces on these frames, as a root mean square relative to that of the forces.
        quiet : bool

        Returns
        -------
        CompiledModel
            Its ``energy_and_forces(positions)`` maps (R, N, 3) in Å to energies (R,) in eV and forces in eV/Å.

        Raises
        ------
        InputError
            If something given is wrong, or the gate cannot be met.
        """
        from ase_cg.inference.compiled import compile_model

        return compile_model(
            self, topology, replicas=replicas, device=device, dtype=dtype, frames=frames, gate=gate, quiet=quiet
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model file; see :func:`ase_cg.models.io.save_model`."""
        from ase_cg.models.io import save_model

        save_model(self, path, overwrite=overwrite)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "CGModel":
        """Read a model file; see :func:`ase_cg.models.io.load_model`."""
        from ase_cg.models.io import load_model

        return load_model(path)


def prepared_copy(model: CGModel, device: torch.device, dtype: str) -> CGModel:
    """Return a copy for evaluation on a device in a dtype ("float32" or "float64"); the original is untouched.

    Raises
    ------
    InputError
        If the dtype is another.
    """
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; known are {', '.join(DTYPES)}")
    copied = copy.deepcopy(model).to(device, getattr(torch, dtype))
    return copied.eval().requires_grad_(requires_grad=False)
