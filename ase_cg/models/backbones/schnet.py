"""SchNet for beads: continuous-filter convolutions on distances."""

import torch
from torch import Tensor, nn

from ase_cg.data.graph import BeadGraph
from ase_cg.errors import InputError
from ase_cg.models.backbones.hyper import layer_widths, positive_number, whole_number
from ase_cg.models.backbones.layers import output_network, reset_linear_layers
from ase_cg.models.backbones.near import near_pairs
from ase_cg.models.backbones.radial import ExpNormalBasis, cosine_cutoff
from ase_cg.models.base import Backbone


class Interaction(nn.Module):
    """One continuous-filter convolution and the update of bead features, x + MLP(Σ_j (A x_j) ∘ W(d_ij)).

    Parameters
    ----------
    features : int
    n_filters : int
    n_basis : int
        Size of the radial basis.
    """

    def __init__(self, features: int, n_filters: int, n_basis: int) -> None:
        super().__init__()
        self.filters = nn.Sequential(nn.Linear(n_basis, n_filters), nn.Tanh(), nn.Linear(n_filters, n_filters))
        self.inward = nn.Linear(features, n_filters, bias=False)
        self.outward = nn.Sequential(nn.Linear(n_filters, features), nn.Tanh(), nn.Linear(features, features))

    def forward(self, x: Tensor, edges: Tensor, basis: Tensor, envelope: Tensor) -> Tensor:
        """Map features (n, features) to updated ones; `basis` is (e, K), `envelope` (e,)."""
        i, j = edges
        weights = self.filters(basis) * envelope[:, None]
        sent = self.inward(x)
        # Each pair is stored once; its filter serves both directions.
        received = torch.zeros_like(sent).index_add(0, i, sent[j] * weights).index_add(0, j, sent[i] * weights)
        updated: Tensor = x + self.outward(received)
        return updated


class SchNet(Backbone):
    """SchNet as the coarse-graining literature uses it (CGSchNet).

    Invariant to rotation, translation, permutation — and to reflection: it sees distances only, so chirality
    must be held by the priors. Defaults are the literature's hyper-parameters for dipeptides: tanh,
    exponential-normal basis of 20 functions, 0–15 Å, 128 features and filters, 2 interactions, a head of 128.
    For proteins of one bead per residue the literature takes ``cutoff: 12.0`` and ``n_interactions: 4``; take
    ``n_basis: 50`` with it, because short distances, where these have no beads, take most of the functions.
    Sources: Schütt et al., NeurIPS 2017; Husic et al., J. Chem. Phys. 153, 194101 (2020).

    Parameters
    ----------
    n_types : int
        Size of the vocabulary.
    cutoff : float
        In Å.
    n_basis : int
        Number of radial functions.
    features : int
        Features of a bead.
    n_filters : int
        Filters of a convolution.
    n_interactions : int
        Number of convolutions.
    head : sequence of int
        Widths of the hidden layers of the output network.
    trainable_basis : bool
        Train the radial functions' centres and widths.
    cutoff_lower : float
        In Å; nearer beads do not interact either. TorchMD's models have one, where the priors alone keep beads apart.

    Raises
    ------
    InputError
        If a hyper-parameter is of the wrong kind, or a size or the cutoff is not positive.
    """

    def __init__(
        self,
        n_types: int,
        *,
        cutoff: float = 15.0,
        n_basis: int = 20,
        features: int = 128,
        n_filters: int = 128,
        n_interactions: int = 2,
        head: tuple[int, ...] | list[int] = (128,),
        trainable_basis: bool = False,
        cutoff_lower: float = 0.0,
    ) -> None:
        sizes = {"n_basis": n_basis, "features": features, "n_filters": n_filters, "n_interactions": n_interactions}
        for name, value in sizes.items():
            whole_number("schnet", name, value)
        given = {
            "cutoff": positive_number("schnet", "cutoff", cutoff, "Å"),
            **sizes,
            "head": layer_widths("schnet", "head", head),
            "trainable_basis": bool(trainable_basis),
        }
        number = isinstance(cutoff_lower, int | float) and not isinstance(cutoff_lower, bool)
        if not number or not 0 <= cutoff_lower < cutoff:
            raise InputError(f"schnet: cutoff_lower must lie between 0 and the cutoff, not {cutoff_lower!r}")
        super().__init__(cutoff, given | ({"cutoff_lower": cutoff_lower} if cutoff_lower else {}))
        self.n_types = n_types
        self.cutoff_lower = float(cutoff_lower)
        self.basis = ExpNormalBasis(self.cutoff, n_basis, trainable=trainable_basis, lower=self.cutoff_lower)
        self.embedding = nn.Embedding(n_types, features)
        self.interactions = nn.ModuleList(Interaction(features, n_filters, n_basis) for _ in range(n_interactions))
        self.head = output_network(features, head, nn.Tanh)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights: Xavier for matrices, zero for biases."""
        reset_linear_layers(self)

    def bead_energies(self, graph: BeadGraph) -> Tensor:
        """Return the energy of each bead in eV, shape (n,)."""
        graph = near_pairs(graph, self.cutoff)
        vectors = graph.edge_vectors()
        # Two beads on one spot would give 0/0 in the gradient; a vanishing distance gives zero instead.
        distance = torch.sqrt((vectors * vectors).sum(-1).clamp_min(1e-12))
        basis, envelope = self.basis(distance), cosine_cutoff(distance, self.cutoff, self.cutoff_lower)
        x = self.embedding(graph.bead_type)
        for interaction in self.interactions:
            x = interaction(x, graph.edges, basis, envelope)
        energies: Tensor = self.head(x).squeeze(-1)
        return energies
