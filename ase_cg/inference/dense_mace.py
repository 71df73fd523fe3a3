"""MACE in a dense layout: the weights of mace-torch's network in sums written out, with tabulated filters."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ase_cg.inference.convolution import Convolution, Product
from ase_cg.inference.irreps import Block, blocks, coupling, harmonic_coefficients, mixing
from ase_cg.inference.pairs import Pairs
from ase_cg.inference.polynomial import Harmonics, SymmetricContraction
from ase_cg.inference.tabulate import MAX_NUMBERS, RadialTable, by_type
from ase_cg.models.backbones.mace import MACE


class DenseMACE(nn.Module):
    """:class:`ase_cg.models.backbones.mace.MACE` for one molecule.

    Features are held as (components, R, N, channels), the channels innermost.

    Parameters
    ----------
    network : MACE
        In double precision.
    bead_type : Tensor, shape (N,)
    intervals : int
        Of the tables.
    fold : bool
        Whether matrices may go into tables for each type.
    """

    def __init__(self, network: MACE, bead_type: Tensor, intervals: int, *, fold: bool = True) -> None:
        super().__init__()
        inner: Any = network.network  # of modules that know nothing of types
        angular = blocks(inner.spherical_harmonics.irreps_out)
        harmonics = cast("Callable[[Tensor], Tensor]", inner.spherical_harmonics)
        self.harmonics = Harmonics([harmonic_coefficients(harmonics, block) for block in angular])
        one_hot = torch.eye(network.n_types, dtype=torch.float64)
        embedded = cast("Tensor", inner.node_embedding(one_hot))
        self.interactions = nn.ModuleList()
        self.contractions = nn.ModuleList()
        layers = zip(inner.interactions, inner.products, strict=True)
        for number, (interaction, product) in enumerate(layers):
            known = embedded if number == 0 else None
            radial = _Radial(inner, interaction)
            self.interactions.append(DenseInteraction(interaction, radial, bead_type, intervals, known, fold=fold))
            self.contractions.append(DenseProduct(product, interaction, bead_type, known))
        self.readouts = nn.ModuleList(DenseReadout(readout) for readout in inner.readouts)
        self.scale, self.shift = (float(value) for value in (inner.scale_shift.scale, inner.scale_shift.shift))

    def forward(self, pairs: Pairs) -> Tensor:
        """Return the energy of each replica in eV, shape (R,)."""
        # MACE's direction of an edge is that from the neighbour to the bead.
        unit = -pairs.vectors / pairs.distance
        angular = self.harmonics(unit)
        x: Tensor | None = None
        energies = []
        for interaction, contraction, readout in zip(self.interactions, self.contractions, self.readouts, strict=True):
            message = interaction(pairs, angular, x)
            x = contraction(message, x)
            energies.append(readout(x[0]))
        total = torch.stack(energies).sum(0)
        return (self.scale * total + self.shift).sum(1)


class _Radial:
    """The radial part of an interaction: distances (k,) to weights (k, paths · channels)."""

    def __init__(self, network: Any, interaction: Any) -> None:
        self.embedding, self.weights = network.radial_embedding, interaction.conv_tp_weights

    def path(self, number: int, channels: int) -> Callable[[Tensor], Tensor]:
        """Return the function of one path."""

        def values(distance: Tensor) -> Tensor:
            features, cutoff = self.embedding(distance[:, None], None, None, None)
            weights = self.weights(features) if cutoff is None else self.weights(features) * cutoff
            return cast("Tensor", weights)[:, number * channels : (number + 1) * channels]

        return values


class DenseInteraction(nn.Module):
    """Messages: the sum over neighbours of filters, harmonics and features coupled along paths, then mixed.

    Parameters
    ----------
    module : mace.modules.blocks.RealAgnosticResidualInteractionBlock
    radial : _Radial
    bead_type : Tensor, shape (N,)
    intervals : int
    embedded : Tensor of shape (types, C), optional
        Features by type, where the layer sees nothing else.
    fold : bool
        Whether these, and the mixing, may go into tables for each type.
    """

    sent: Tensor | None

    def __init__(
        self,
        module: Any,
        radial: _Radial,
        bead_type: Tensor,
        intervals: int,
        embedded: Tensor | None,
        *,
        fold: bool,
    ) -> None:
        super().__init__()
        product = module.conv_tp
        given, angular, middle = (blocks(i) for i in (product.irreps_in1, product.irreps_in2, product.irreps_out))
        channels = given[0].channels
        starts = _starts(given), _starts(angular), _starts(middle)
        products = []
        for path, step in enumerate(product.instructions):
            parts = given[step.i_in1], angular[step.i_in2], middle[step.i_out]
            coefficients = coupling(product, path, parts)
            for place in coefficients.nonzero().tolist():
                first, second, out = (start[part] + m for start, part, m in zip(starts, step[:3], place, strict=True))
                harmonic = None if parts[1].degree == 0 else second
                a = float(coefficients[tuple(place)])
                products.append(Product(out, path, harmonic, first, a, odd=parts[1].degree % 2 == 1))
        paths = [radial.path(path, channels) for path in range(len(product.instructions))]
        cutoff = float(radial.embedding.cutoff_fn.r_max)
        table = RadialTable(paths, cutoff, intervals)
        up = [mixing(module.linear_up, block, block, product.irreps_in1.dim) for block in given]
        mixed = _mix_middle(module, middle)
        self.degrees = [block.degree for block in blocks(module.irreps_out)]
        self.middle = [(block.degree, start) for block, start in zip(middle, starts[2], strict=True)]
        offset = None
        self.register_buffer("sent", None)
        self.folded = False
        if embedded is not None:
            types, which = torch.unique(bead_type, return_inverse=True)
            sent = embedded @ up[0]
            self.folded = fold and len(types) * table.rows.numel() <= MAX_NUMBERS and len(middle) == len(self.degrees)
            if self.folded:
                weights = [torch.stack([sent[t][:, None] * mixed[degree] for degree in self.degrees]) for t in types]
                table, offset = by_type(table, weights, which)
                sent = torch.ones(1, channels, dtype=sent.dtype)
            else:
                sent = sent[bead_type]
            self.sent = sent[None, None]
        self.convolution = Convolution(table, products, offset)
        self.up = nn.ParameterList(up)
        self.mixed = nn.ParameterList(mixed[degree] for degree in self.degrees)

    def forward(self, pairs: Pairs, angular: Tensor, x: Tensor | None) -> Tensor:
        """Return messages (components, R, N, C), degree by degree."""
        if x is None:
            features = cast("Tensor", self.sent)
        else:
            sizes = [2 * degree + 1 for degree in range(len(self.up))]
            parts = torch.split(x, sizes)
            features = torch.cat([part @ weight for part, weight in zip(parts, self.up, strict=True)])
        received: Tensor = self.convolution(pairs.distance, angular, features)
        if self.folded:
            return received
        messages = []
        for degree, weight in zip(self.degrees, self.mixed, strict=True):
            slots = [received[start : start + 2 * degree + 1] for found, start in self.middle if found == degree]
            messages.append(torch.cat(slots, dim=-1) @ weight)
        return torch.cat(messages)


class DenseProduct(nn.Module):
    """A bead's messages contracted with themselves and mixed, plus its own features mixed by type.

    Parameters
    ----------
    module : mace.modules.blocks.EquivariantProductBasisBlock
    interaction : mace.modules.blocks.RealAgnosticResidualInteractionBlock
    bead_type : Tensor, shape (N,)
    embedded : Tensor of shape (types, C), optional
        Features by type, where the layer sees nothing else.
    """

    own: Tensor

    def __init__(self, module: Any, interaction: Any, bead_type: Tensor, embedded: Tensor | None) -> None:
        super().__init__()
        made = blocks(module.linear.irreps_out)
        contractions = module.symmetric_contractions.contractions
        self.contractions = nn.ModuleList(
            SymmetricContraction(part, bead_type, block.degree) for part, block in zip(contractions, made, strict=True)
        )
        width = module.linear.irreps_in.dim
        self.mixed = nn.ParameterList(mixing(module.linear, block, block, width) for block in made)
        given = blocks(interaction.node_feats_irreps)
        types = torch.eye(interaction.node_attrs_irreps.dim, dtype=torch.float64)
        self.kept = min(len(given), len(made))
        own = []
        for source, target in zip(given, made, strict=False):
            matrices = [_skip(interaction, one, source, target) for one in types]
            own.append(torch.stack(matrices))
        if embedded is not None:
            self.register_buffer("own", torch.einsum("tc,tcd->td", embedded, own[0])[bead_type][None])
            self.skips = nn.ParameterList()
        else:
            self.register_buffer("own", None)
            self.skips = nn.ParameterList(matrix[bead_type] for matrix in own)

    def forward(self, message: Tensor, x: Tensor | None) -> Tensor:
        """Return new features (components, R, N, C)."""
        made = [
            contraction(message) @ weight for contraction, weight in zip(self.contractions, self.mixed, strict=True)
        ]
        if x is None:
            made[0] = made[0] + self.own
        else:
            for degree, weight in enumerate(self.skips):
                part = x[degree**2 : (degree + 1) ** 2]
                made[degree] = made[degree] + torch.einsum("mrnc,ncd->mrnd", part, weight)
        return torch.cat(made)


class DenseReadout(nn.Module):
    """The energy of each bead from its scalars.

    Parameters
    ----------
    module : mace.modules.blocks.LinearReadoutBlock or mace.modules.blocks.NonLinearReadoutBlock
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        linears = [module.linear] if hasattr(module, "linear") else [module.linear_1, module.linear_2]
        weights = []
        for linear in linears:
            given, made = blocks(linear.irreps_in), blocks(linear.irreps_out)
            weights.append(mixing(linear, given[0], made[0], linear.irreps_in.dim))
        self.weights = nn.ParameterList(weights)
        self.activation = None if len(weights) == 1 else module.non_linearity.acts[0]

    def forward(self, scalars: Tensor) -> Tensor:
        """Map scalars (R, N, C) to energies (R, N)."""
        values = scalars @ self.weights[0]
        if self.activation is not None:
            values = self.activation(values) @ self.weights[1]
        return cast("Tensor", values).squeeze(-1)


def _starts(parts: list[Block]) -> list[int]:
    """Return the number of the first component of each part, counting components only."""
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + 2 * part.degree + 1)
    return starts[:-1]


def _mix_middle(module: Any, middle: list[Block]) -> dict[int, Tensor]:
    """Return by degree how the paths' results are mixed, shape (paths · channels, channels), divided as MACE does."""
    mixed: dict[int, Tensor] = {}
    for target in blocks(module.irreps_out):
        parts = [
            mixing(module.linear, block, target, module.linear.irreps_in.dim)
            for block in middle
            if block.degree == target.degree
        ]
        mixed[target.degree] = torch.cat(parts) / module.avg_num_neighbors
    return mixed


def _skip(interaction: Any, one: Tensor, source: Block, target: Block) -> Tensor:
    """Return how features of one bead type are mixed on the way around the interaction."""

    def linear(features: Tensor) -> Tensor:
        return cast("Tensor", interaction.skip_tp(features, one.expand(len(features), -1)))

    return mixing(linear, source, target, interaction.node_feats_irreps.dim)
