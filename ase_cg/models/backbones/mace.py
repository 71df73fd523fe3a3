"""MACE for beads: mace-torch's network of higher body order, with beads in place of atoms."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ase_cg.data.graph import BeadGraph
from ase_cg.errors import InputError, hint, reason
from ase_cg.models.backbones._e3nn import building, import_mace, make_copyable
from ase_cg.models.backbones.hyper import layer_widths, positive_number, whole_number
from ase_cg.models.backbones.near import near_pairs
from ase_cg.models.base import Backbone

GATES = {"silu": functional.silu, "tanh": torch.tanh, "abs": torch.abs, "none": None}
NEAREST = 1e-6  # Å; nearer beads are taken to be this far apart, along x


class MACE(Backbone):
    """MACE, an equivariant network whose messages couple several neighbours at once (needs ``ase-cg[mace]``).

    Wraps ``ScaleShiftMACE`` of mace-torch, with bead types in place of elements, reference energies of zero, and
    neither its pair repulsion nor its transforms of distance, which are tables of elements. Equivariant to rotation
    and reflection: chirality must be held by the priors. Source: Batatia et al., NeurIPS 2022 (arXiv:2206.07697).

    The defaults suit dipeptides and other molecules of up to some twenty beads. For proteins of one bead per residue
    take ``cutoff: 12.0``, ``hidden_irreps: 64x0e + 64x1o``, ``n_basis: 10`` and ``avg_num_neighbors: 20`` (the native
    structures of the fast folders have 14 to 24 within 12 Å, chignolin 9), and expect several times the cost of PaiNN.

    Parameters
    ----------
    n_types : int
        Size of the vocabulary.
    cutoff : float
        In Å.
    n_basis : int
        Number of Bessel functions of the distance.
    num_polynomial_cutoff : int
        Power p ≥ 2 of the polynomial cutoff; energies have two continuous derivatives at the cutoff.
    max_ell : int
        Highest degree of the spherical harmonics of a direction (l_max).
    correlation : int
        Neighbours that a message couples at once: body order of a layer minus one.
    hidden_irreps : str
        Features of a bead in the notation of e3nn, scalars first and all of one multiplicity.
    num_interactions : int
        Number of layers.
    radial_MLP : sequence of int
        Widths of the hidden layers that weigh the Bessel functions.
    MLP_irreps : int
        Width of the hidden layer of the output network.
    gate : str
        Its non-linearity: ``silu``, ``tanh``, ``abs`` or ``none``.
    avg_num_neighbors : float
        Messages are divided by it. The default is that of a dipeptide of six beads that all see each other; take the
        mean number of beads within the cutoff.
    scale : float
        In eV; the network's output is multiplied by it.

    Raises
    ------
    InputError
        If mace-torch is not installed, or a hyper-parameter is of the wrong kind.
    """

    n_types: int

    def __init__(
        self,
        n_types: int,
        *,
        cutoff: float = 10.0,
        n_basis: int = 8,
        num_polynomial_cutoff: int = 5,
        max_ell: int = 2,
        correlation: int = 2,
        hidden_irreps: str = "32x0e + 32x1o",
        num_interactions: int = 2,
        radial_MLP: tuple[int, ...] | list[int] = (32, 32),
        MLP_irreps: int = 16,
        gate: str = "silu",
        avg_num_neighbors: float = 5.0,
        scale: float = 1.0,
    ) -> None:
        given = {
            "cutoff": positive_number("mace", "cutoff", cutoff, "Å"),
            "n_basis": whole_number("mace", "n_basis", n_basis),
            "num_polynomial_cutoff": whole_number("mace", "num_polynomial_cutoff", num_polynomial_cutoff, 2),
            "max_ell": whole_number("mace", "max_ell", max_ell, 0),
            "correlation": whole_number("mace", "correlation", correlation),
            "hidden_irreps": hidden_irreps,
            "num_interactions": whole_number("mace", "num_interactions", num_interactions),
            "radial_MLP": layer_widths("mace", "radial_MLP", radial_MLP),
            "MLP_irreps": whole_number("mace", "MLP_irreps", MLP_irreps),
            "gate": gate,
            "avg_num_neighbors": positive_number("mace", "avg_num_neighbors", avg_num_neighbors),
            "scale": positive_number("mace", "scale", scale, "eV"),
        }
        if not isinstance(gate, str) or gate not in GATES:
            raise InputError(f"mace: gate {gate!r} is not known; {hint(gate, GATES)}")
        super().__init__(cutoff, given)
        self.n_types = n_types
        self.network = _scale_shift_mace(n_types, given)
        # What follows from the hyper-parameters is kept in double precision, and out of the model file.
        self._constants = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        self.register_state_dict_post_hook(_forget_constants)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_remember_constants)  # type: ignore[no-untyped-call]
        self.to(torch.get_default_dtype())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights, standard normal; those of a contraction divided by its number of paths, as MACE does."""
        for name, parameter in self.network.named_parameters():
            paths = parameter.shape[1] if "symmetric_contractions" in name else 1
            nn.init.normal_(parameter, std=1.0 / paths)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert; constants are taken from double precision each time."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in self.network.named_buffers():
            buffer.copy_(self._constants[name])
        return self

    def bead_energies(self, graph: BeadGraph) -> Tensor:
        """Return the energy of each bead in eV, shape (n,)."""
        graph = near_pairs(graph, self.cutoff)
        vectors = graph.edge_vectors()
        # Two beads on one spot have no direction, and 0/0 in the gradient; a constant vector has zero.
        tiny = ((vectors * vectors).sum(-1) < NEAREST**2)[:, None]
        apart = torch.zeros_like(vectors)
        apart[:, 0] = NEAREST
        vectors = torch.where(tiny, apart, vectors)
        like = graph.positions
        # Of a position MACE uses differences only. Given as shifts between beads at the origin they are ours: exact
        # wherever the molecule is, to the nearest image where it is periodic, and our positions are left alone.
        data = {
            "positions": torch.zeros_like(like),
            "shifts": torch.cat([vectors, -vectors]),
            "edge_index": torch.cat([graph.edges, graph.edges.flip(0)], dim=1),
            "node_attrs": torch.eye(self.n_types, dtype=like.dtype, device=like.device)[graph.bead_type],
            "cell": like.new_zeros(3, 3),
            "batch": torch.zeros_like(graph.bead_type),
            "ptr": torch.arange(2, device=like.device) * len(like),
        }
        energies: Tensor = self.network(data, compute_force=False)["node_energy"]
        return energies.to(like.dtype)


def _scale_shift_mace(n_types: int, given: Mapping[str, Any]) -> nn.Module:
    """Build mace-torch's network in float64; see :class:`MACE` for what is raised."""
    mace = import_mace()
    hidden = _checked_irreps(given["hidden_irreps"], mace.o3)
    block = mace.blocks.RealAgnosticResidualInteractionBlock
    with building(mace.e3nn):
        try:
            network: nn.Module = mace.models.ScaleShiftMACE(
                atomic_inter_scale=given["scale"],
                atomic_inter_shift=0.0,
                r_max=given["cutoff"],
                num_bessel=given["n_basis"],
                num_polynomial_cutoff=given["num_polynomial_cutoff"],
                max_ell=given["max_ell"],
                interaction_cls=block,
                interaction_cls_first=block,
                num_interactions=given["num_interactions"],
                num_elements=n_types,
                hidden_irreps=hidden,
                MLP_irreps=mace.o3.Irreps(f"{given['MLP_irreps']}x0e"),
                atomic_energies=torch.zeros(n_types).numpy(),
                avg_num_neighbors=given["avg_num_neighbors"],
                atomic_numbers=list(range(1, n_types + 1)),
                correlation=given["correlation"],
                gate=GATES[given["gate"]],
                # Otherwise the architecture would depend on whether cuequivariance is installed.
                use_reduced_cg=False,
                radial_MLP=given["radial_MLP"],
            )
        except (AssertionError, IndexError, NotImplementedError, RuntimeError, ValueError) as error:
            raise InputError(f"mace cannot be built with {dict(given)}: {reason(error)}") from error
    make_copyable(network)
    return network


def _checked_irreps(text: object, o3: Any) -> Any:
    if not isinstance(text, str):
        raise InputError(f'mace: hidden_irreps must be a text such as "32x0e + 32x1o", not {text!r}')
    try:
        irreps = o3.Irreps(text)
    except (AssertionError, ValueError) as error:
        raise InputError(f'mace: hidden_irreps must be like "32x0e + 32x1o", not {text!r}') from error
    kinds = [str(part.ir) for part in irreps]
    if not kinds or kinds[0] != "0e" or len({part.mul for part in irreps}) > 1 or len(set(kinds)) < len(kinds):
        raise InputError(
            "mace: hidden_irreps must begin with scalars and name each kind once with the same multiplicity, as "
            f'"32x0e + 32x1o" does, not {text!r}'
        )
    return irreps


def _forget_constants(module: "MACE", state: dict[str, Tensor], prefix: str, _metadata: object) -> None:
    for name, _ in module.network.named_buffers():
        state.pop(f"{prefix}network.{name}", None)


def _remember_constants(module: "MACE", state: dict[str, Tensor], prefix: str, *_others: object) -> None:
    state.update({f"{prefix}network.{name}": buffer for name, buffer in module.network.named_buffers()})
