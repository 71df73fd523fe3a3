"""A MACE-style vector field: equivariant features of e3nn, products of neighbour sums, over all pairs of beads."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from ase_cg.errors import InputError
from ase_cg.flows.field import VectorField, centered
from ase_cg.models.backbones._e3nn import building, import_mace, make_copyable

SOFTENING = 1e-8  # Å², of distances, so that they have a derivative at 0
HALF = 4.0  # Å; distances are shown to networks as d/(d + HALF), so that there is no cutoff
HIGHEST = 2  # ℓ of spherical harmonics here


class MACEField(VectorField):
    """Equivariant messages of higher body order; the field is what layers read from their vectors.

    In each layer Aᵢ = Σⱼ R(dᵢⱼ, sᵢ, sⱼ) Y(rᵢⱼ) ⊗ hⱼ, and features change by a linear map of Aᵢ and Aᵢ ⊗ Aᵢ, gated by
    scalars. R is a network of the distance and of the types and time s of both beads; Y are solid harmonics of
    r/(d + 1 Å) up to ℓ = 2, which are smooth where beads meet. All pairs send messages, without cutoff. Source: Batatia
    et al., "MACE: higher order equivariant message passing neural networks" (NeurIPS 2022), here with products of two
    factors, and types in the radial functions. The exact divergence is the generic one: right, and slow.

    Parameters
    ----------
    n_types : int
    features : int
        Channels, each with a scalar, a vector and a tensor.
    n_layers : int
    n_basis : int
        Gaussians of the distance.

    Raises
    ------
    InputError
        If a number is below 1, or mace-torch is not installed, with which e3nn comes.
    """

    def __init__(self, n_types: int, *, features: int = 16, n_layers: int = 2, n_basis: int = 8) -> None:
        super().__init__()
        if min(n_types, features, n_layers) < 1 or n_basis < 2:
            raise InputError("a MACE field needs at least one type, feature and layer, and two radial functions")
        self.n_types, self.features, self.n_layers, self.n_basis = n_types, features, n_layers, n_basis
        packages = import_mace()
        self.embedding = nn.Linear(n_types + 1, features)
        with building(packages.e3nn):
            layers = [_Layer(packages.o3, features, n_basis, scalars=number == 0) for number in range(n_layers)]
        self.layers = nn.ModuleList(layers).to(self.embedding.weight.dtype)
        make_copyable(self)
        for layer in self.layers:
            cast("_Layer", layer).begin()

    def settings(self) -> dict[str, int]:
        """Return the arguments that make a field of the same shape."""
        names = ("n_types", "features", "n_layers", "n_basis")
        return {name: getattr(self, name) for name in names}

    def numbers_a_frame(self, n_beads: int) -> int:
        """Return the size of the largest array: messages by coordinates, and the harmonics of each."""
        return 3 * n_beads**3 * self.features * (HIGHEST + 1) ** 2

    def forward(self, time: Tensor, x: Tensor, types: Tensor) -> Tensor:
        """Return the field; see :meth:`VectorField.forward`."""
        weight, n_beads = self.embedding.weight, x.shape[1]
        of_types = weight[:, types].T + self.embedding.bias
        scalars = nn.functional.silu(of_types + time.to(x).reshape(-1, 1, 1) * weight[:, -1]).expand(len(x), -1, -1)
        receiver, sender = (~torch.eye(n_beads, dtype=torch.bool, device=x.device)).nonzero(as_tuple=True)
        pairs = x[:, receiver] - x[:, sender]
        distance = (pairs.square().sum(-1, keepdim=True) + SOFTENING).sqrt()
        edges = _Edges(receiver, sender, solid_harmonics(pairs / (distance + 1)), self._basis(distance))
        hidden, moved = scalars, torch.zeros_like(x)
        for layer in self.layers:
            hidden, shift = layer(hidden, scalars, edges)
            moved = moved + shift
        return centered(moved)

    def _basis(self, distance: Tensor) -> Tensor:
        """Return Gaussians of d/(d + HALF), and ln(1 + d/HALF), (B, P, K + 1)."""
        centers = torch.linspace(0, 1, self.n_basis, dtype=distance.dtype, device=distance.device)
        gaussians = torch.exp(-0.5 * ((distance / (distance + HALF) - centers) * (self.n_basis - 1)).square())
        return torch.cat([gaussians, (distance / HALF).log1p()], -1)


class _Edges:
    """Pairs of two beads in all frames: who receives and who sends, (P,), harmonics (B, P, 9), basis (B, P, K)."""

    def __init__(self, receiver: Tensor, sender: Tensor, harmonics: Tensor, basis: Tensor) -> None:
        self.receiver, self.sender, self.harmonics, self.basis = receiver, sender, harmonics, basis


class _Layer(nn.Module):
    """One round of messages, products, and what is read from them."""

    def __init__(self, o3: Any, features: int, n_basis: int, *, scalars: bool) -> None:
        super().__init__()
        self.features = features
        harmonics = o3.Irreps.spherical_harmonics(HIGHEST)
        full = o3.Irreps([(features, irrep) for _, irrep in harmonics])
        given = o3.Irreps([(features, "0e")]) if scalars else full
        paths = [
            (i, j, k, "uvu", True)
            for i, (_, one) in enumerate(given)
            for j, (_, two) in enumerate(harmonics)
            for k, (_, three) in enumerate(full)
            if three in one * two
        ]
        self.messages = o3.TensorProduct(given, harmonics, full, paths, shared_weights=False, internal_weights=False)
        self.radial_basis = nn.Linear(n_basis + 1, 2 * features)
        self.radial_sender = nn.Linear(features, 2 * features, bias=False)
        self.radial_receiver = nn.Linear(features, 2 * features, bias=False)
        self.radial = nn.Linear(2 * features, self.messages.weight_numel)
        squares = [
            (i, j, k, "uuu", True)
            for i, (_, one) in enumerate(full)
            for j, (_, two) in enumerate(full)
            for k, (_, three) in enumerate(full)
            if i <= j and three in one * two
        ]
        self.product = o3.TensorProduct(full, full, full, squares)
        self.mix, self.mix_product, self.keep = o3.Linear(full, full), o3.Linear(full, full), o3.Linear(given, full)
        self.gate = nn.Linear(2 * features, 3 * features)
        self.read = o3.Linear(full, "1x1o")

    def begin(self) -> None:
        """Let nothing be read at first, so that a flow begins as the identity."""
        nn.init.zeros_(self.read.weight)

    def forward(self, hidden: Tensor, scalars: Tensor, edges: _Edges) -> tuple[Tensor, Tensor]:
        """Return new features, (B, N, 9F), and how far beads move, (B, N, 3)."""
        entering = self.radial_basis(edges.basis) + self.radial_sender(scalars)[:, edges.sender]
        entering = entering + self.radial_receiver(scalars)[:, edges.receiver]
        weights = self.radial(nn.functional.silu(entering))
        messages = self.messages(hidden[:, edges.sender], edges.harmonics, weights)
        n_frames, n_beads = scalars.shape[:2]
        # Pairs lie receiver after receiver.
        sums = messages.reshape(n_frames, n_beads, n_beads - 1, -1).sum(2) / math.sqrt(n_beads - 1)
        sums = self.mix(sums)
        together = sums + self.mix_product(self.product(sums, sums))
        count = self.features
        gates = self.gate(torch.cat([together[..., :count], scalars], -1)).tanh().split(count, -1)
        parts = together.split([count, 3 * count, 5 * count], -1)
        gated = [
            (part.unflatten(-1, (count, -1)) * gate[..., None]).flatten(-2)
            for part, gate in zip(parts, gates, strict=True)
        ]
        hidden = self.keep(hidden) + torch.cat(gated, -1)
        return hidden, self.read(hidden)


def solid_harmonics(vectors: Tensor) -> Tensor:
    """Return harmonic polynomials of degree 0, 1 and 2, (…, 9), of vectors (…, 3), in the basis and norm of e3nn.

    Of unit vectors they are `e3nn.o3.spherical_harmonics` with normalization "component".
    """
    x, y, z = vectors.unbind(-1)
    second = [x * z, x * y, (2 * y * y - x * x - z * z) / math.sqrt(12), y * z, (z * z - x * x) / 2]
    first = [math.sqrt(3) * part for part in (x, y, z)]
    return torch.stack([torch.ones_like(x), *first, *(math.sqrt(15) * part for part in second)], -1)
