"""PaiNN for beads: scalar and vector features that turn with the molecule."""

import torch
from torch import Tensor, nn

from ase_cg.data.graph import BeadGraph
from ase_cg.models.backbones.hyper import layer_widths, positive_number, whole_number
from ase_cg.models.backbones.layers import output_network, reset_linear_layers
from ase_cg.models.backbones.near import near_pairs
from ase_cg.models.backbones.radial import ExpNormalBasis, cosine_cutoff
from ase_cg.models.base import Backbone

SOFT_DIRECTION = 0.01  # Å; below it a direction fades to zero, so that its derivatives stay bounded
SOFT_NORM = 1e-6  # added under the root of a squared norm: a vanishing vector has a finite second derivative


class Message(nn.Module):
    """Sum over neighbours, s_i += Σ_j a_ij and v_i += Σ_j (b_ij v_j + c_ij u_ij), with (a, b, c)_ij = φ(s_j) ∘ W(d_ij).

    u_ij is the unit vector from i to j. Source: Schütt et al. (2021), Eqs. 7 and 8.

    Parameters
    ----------
    features : int
        F.
    first : bool
        There are no vectors yet: b is left out.
    """

    def __init__(self, features: int, *, first: bool) -> None:
        super().__init__()
        self.features = features
        self.parts = 2 if first else 3
        self.net = nn.Sequential(nn.Linear(features, features), nn.SiLU(), nn.Linear(features, self.parts * features))

    def forward(
        self, s: Tensor, v: Tensor | None, edges: Tensor, filters: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return new scalars (n, F) and vectors (n, 3, F).

        `edges` is (2, e), `filters` (e, parts · F) and `directions` (2, e, 3, 1): u for either end of a pair.
        """
        n, f = s.shape
        # Row 0 is what the second bead of a pair sends to the first, row 1 the reverse; they share the pair's filter.
        source, target = edges.flip(0).reshape(-1), edges.reshape(-1)
        parts = (self.net(s).index_select(0, source).view(2, -1, filters.shape[1]) * filters).split(f, dim=-1)
        sent = parts[1].unsqueeze(-2) * directions
        if v is not None:
            sent = sent + parts[2].unsqueeze(-2) * v.index_select(0, source).view_as(sent)
        vectors = v if v is not None else s.new_zeros(n, 3, f)
        return (
            s.index_add(0, target, parts[0].reshape(-1, f)),
            vectors.index_add(0, target, sent.reshape(-1, 3, f)),
        )


class Update(nn.Module):
    """Mix a bead's scalars and vectors, s += a + b ⟨Uv, Vv⟩ and v += c Uv, with (a, b, c) = φ(s, ‖Vv‖).

    Source: Schütt et al. (2021), Eqs. 9 and 10.

    Parameters
    ----------
    features : int
        F.
    last : bool
        The vectors are not needed any more: c is left out.
    """

    def __init__(self, features: int, *, last: bool) -> None:
        super().__init__()
        self.features, self.last = features, last
        outputs = (2 if last else 3) * features
        self.mix = nn.Linear(features, 2 * features, bias=False)
        self.net = nn.Sequential(nn.Linear(2 * features, features), nn.SiLU(), nn.Linear(features, outputs))

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return new scalars (n, F) and vectors (n, 3, F)."""
        left, right = self.mix(v).split(self.features, dim=-1)
        norm = torch.sqrt((right * right).sum(1) + SOFT_NORM)
        parts = self.net(torch.cat([s, norm], dim=-1)).split(self.features, dim=-1)
        s = s + parts[0] + parts[1] * (left * right).sum(1)
        return s, v if self.last else v + parts[2].unsqueeze(1) * left


class PaiNN(Backbone):
    """PaiNN, the polarizable atom interaction neural network, equivariant to rotation and reflection.

    Beads carry vectors besides scalars, so that angles and dihedrals between neighbours are seen in every layer,
    at little more than the cost of SchNet. Mirror images have the same energy: chirality must be held by the priors.
    Source: Schütt, Unke and Gastegger, ICML 2021 (arXiv:2102.03150), with the exponential-normal basis and the
    cosine cutoff of the other backbones.

    The defaults suit dipeptides and other molecules of up to some twenty beads, where the cutoff takes in every
    pair. For proteins of one bead per residue take ``cutoff: 12.0`` (two shells of neighbours), ``n_basis: 50`` (short
    distances, where these have no beads, take most of the functions), ``features: 64`` to ``128`` and
    ``n_interactions: 2`` to ``3``.

    Parameters
    ----------
    n_types : int
        Size of the vocabulary.
    cutoff : float
        In Å.
    n_basis : int
        Number of radial functions.
    features : int
        Scalar features of a bead, and as many vectors.
    n_interactions : int
        Number of layers, each a message and an update.
    head : sequence of int
        Widths of the hidden layers of the output network.
    trainable_basis : bool
        Train the radial functions' centres and widths.

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
        features: int = 64,
        n_interactions: int = 2,
        head: tuple[int, ...] | list[int] = (64,),
        trainable_basis: bool = False,
    ) -> None:
        sizes = {"n_basis": n_basis, "features": features, "n_interactions": n_interactions}
        for name, value in sizes.items():
            whole_number("painn", name, value)
        given = {
            "cutoff": positive_number("painn", "cutoff", cutoff, "Å"),
            **sizes,
            "head": layer_widths("painn", "head", head),
            "trainable_basis": bool(trainable_basis),
        }
        super().__init__(cutoff, given)
        self.n_types = n_types
        self.basis = ExpNormalBasis(self.cutoff, n_basis, trainable=trainable_basis)
        self.embedding = nn.Embedding(n_types, features)
        layers = range(n_interactions)
        self.messages = nn.ModuleList(Message(features, first=layer == 0) for layer in layers)
        self.updates = nn.ModuleList(Update(features, last=layer == n_interactions - 1) for layer in layers)
        self.widths = [features * (2 if layer == 0 else 3) for layer in layers]
        # One product makes the filters of all layers.
        self.filters = nn.Linear(n_basis, sum(self.widths))
        self.head = output_network(features, head, nn.SiLU)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights: standard normal for the embedding, Xavier for matrices, zero for biases."""
        self.embedding.reset_parameters()
        reset_linear_layers(self)

    def bead_energies(self, graph: BeadGraph) -> Tensor:
        """Return the energy of each bead in eV, shape (n,)."""
        graph = near_pairs(graph, self.cutoff)
        vectors = graph.edge_vectors()
        squared = (vectors * vectors).sum(-1)
        # Two beads on one spot would give 0/0 in the gradient; a vanishing distance gives zero instead.
        distance = torch.sqrt(squared.clamp_min(1e-12))
        unit = (vectors / torch.sqrt(squared + SOFT_DIRECTION**2)[:, None])[..., None]
        directions = torch.stack([unit, -unit])
        filters = self.filters(self.basis(distance)) * cosine_cutoff(distance, self.cutoff)[:, None]
        s, v = self.embedding(graph.bead_type), None
        for message, update, own in zip(self.messages, self.updates, filters.split(self.widths, dim=-1), strict=True):
            s, v = message(s, v, graph.edges, own, directions)
            s, v = update(s, v)
        energies: Tensor = self.head(s).squeeze(-1)
        return energies
