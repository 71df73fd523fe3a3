"""Conditional coupling flow as a kernel k(y | z): positions and auxiliary velocities, updated in turn."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ase_cg.errors import InputError
from ase_cg.flows.base import ConditionalFlow, Scored
from ase_cg.flows.field import Normal, centered, drawn_by
from ase_cg.flows.harmonic_start import HarmonicStart, Place
from ase_cg.flows.kernel_attention import KernelTransformer, kernel_attention
from ase_cg.flows.stiff_modes import StiffModes

LENGTH_SCALES = (1.0, 2.0, 4.0, 8.0)  # Å
STRONGEST = 3.0  # largest logarithm of one layer's scale


class CouplingFlow(ConditionalFlow):
    """RealNVP over displacements u = x − z and auxiliary velocities w ~ N(0, 1), conditioned on z.

    A layer scales and shifts displacements by functions of velocities and z, then velocities by functions of the new
    displacements and z; both functions are transformers over the beads. Noise and displacements have all 3N
    components, and so has ln k(x, w | z); of its gradient the mean over beads is removed, which in the mean force is
    zero. Given w drawn with x, ∂ ln k(x, w | z)/∂x has the mean ∂ ln k(x | z)/∂x.
    Source: Klein et al., "Timewarp" (NeurIPS 2023).

    As published, displacements begin as N(0, σ_n²) and layers act along the axes of the laboratory; the mean of z is
    taken out before the networks see it, and they learn rotations from rotated data. A bond is then mended by six
    components of two beads that know nothing of its direction, which takes long to learn. With `modes` displacements
    begin as those of harmonic bonds and angles (:class:`HarmonicStart`), and layers act along axes of the beads,
    which turn with the molecule: what is left to learn is what is not harmonic.

    Parameters
    ----------
    n_types : int
    noise_std : float
        σ_n in Å; of transitions, the width that displacements begin with.
    n_layers, n_blocks, embedding : int
        Coupling layers; blocks and features of each transformer.
    length_scales : sequence of float
        Of attention, in Å.
    modes : StiffModes, or a mapping of its fields, optional
        Bonds and angles, by type; every bead must be a type of its own then.
    """

    length_scales: Tensor

    def __init__(
        self,
        n_types: int,
        *,
        noise_std: float,
        n_layers: int = 8,
        n_blocks: int = 3,
        embedding: int = 32,
        length_scales: Sequence[float] = LENGTH_SCALES,
        modes: StiffModes | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not (noise_std > 0 and math.isfinite(noise_std)):
            raise InputError(f"a flow needs noise_std above 0, not {noise_std}")
        if min(n_types, n_layers, n_blocks, embedding) < 1:
            raise InputError("a coupling flow needs at least one type, layer, block and feature")
        if not length_scales or not all(scale > 0 and math.isfinite(scale) for scale in length_scales):
            raise InputError("a coupling flow needs length scales above 0 Å")
        self.n_types, self.noise_std = n_types, noise_std
        self.n_layers, self.n_blocks, self.embedding_size = n_layers, n_blocks, embedding
        self.register_buffer("length_scales", torch.tensor([float(scale) for scale in length_scales]))
        self.beads = nn.Embedding(n_types, embedding)
        if isinstance(modes, dict):
            modes = StiffModes(**modes)
        if modes is not None:
            modes.check(n_types)
        self.start = None if modes is None else HarmonicStart(modes, noise_std, len(length_scales))
        seen = 6 if self.start is None else self.start.given_size + self.start.context_size
        self.networks = nn.ModuleList(
            KernelTransformer(
                embedding + seen, 6, embedding=embedding, n_blocks=n_blocks, length_scales=list(length_scales)
            )
            for _ in range(2 * n_layers)
        )

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make a flow of the same shape."""
        return {
            "n_types": self.n_types,
            "noise_std": self.noise_std,
            "n_layers": self.n_layers,
            "n_blocks": self.n_blocks,
            "embedding": self.embedding_size,
            "length_scales": [float(scale) for scale in self.length_scales],
            "modes": None if self.start is None else self.start.modes._asdict(),
        }

    def numbers_a_frame(self, n_beads: int) -> int:
        """Return the size of the largest arrays that scoring a frame makes: what all layers keep for the gradient."""
        heads = self.embedding_size * len(self.length_scales)
        return 2 * self.n_layers * self.n_blocks * n_beads * heads

    def add_noise(self, x: Tensor, normal: Normal) -> Tensor:
        """Return conditionings z = x + σ_n ε, with noise in all 3N components."""
        return centered(x) + self.noise_std * normal(x)

    def draw(self, z: Tensor, types: Tensor, normal: Normal | None = None) -> Tensor:
        """Draw one sample for each conditioning; see :meth:`ConditionalFlow.draw`."""
        with torch.no_grad():
            return centered(self._drawn(z, types, normal)[0])

    def sample(self, z: Tensor, types: Tensor, normal: Normal | None = None) -> Scored:
        """Draw one sample for each conditioning, with its likelihood and score; see :meth:`ConditionalFlow.sample`.

        Likelihoods are those of positions and velocities together.
        """
        with torch.no_grad():
            x, velocities = self._drawn(z, types, normal)
        return self._scored(x, velocities, z, types)

    def score(self, x: Tensor, z: Tensor, types: Tensor, normal: Normal | None = None) -> Scored:
        """Return likelihood and score of given positions, with all 3N components; see :class:`ConditionalFlow`.

        Velocities are drawn as in the training, from N(0, 1), independently of x: those of a flow that has learned the
        kernel do not depend on x either, and the mean over them is the score then.
        """
        return self._scored(x, (normal or drawn_by())(x), z, types)

    def pair(self, x: Tensor, earlier: Tensor, normal: Normal) -> tuple[Tensor, Tensor]:
        """Return positions and conditionings of a transition, which are moved by noise in the mean; see the class."""
        x, z = super().pair(x, earlier, normal)
        return x, z + self.noise_std / math.sqrt(x.shape[1]) * normal(z[:, :1])

    def _scored(self, x: Tensor, velocities: Tensor, z: Tensor, types: Tensor) -> Scored:
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            log_prob = self.joint_log_prob(at, velocities, z, types)
            (score,) = torch.autograd.grad(log_prob.sum(), at)
        return Scored(centered(x), log_prob.detach(), centered(score))

    def joint_log_prob(self, x: Tensor, velocities: Tensor, z: Tensor, types: Tensor) -> Tensor:
        """Return ln k(x, w | z), shape (B,), of positions in Å and velocities, both (B, N, 3)."""
        start, base, log_det = self._backward(x - z, velocities, z, types)
        return log_det - 0.5 * (start.square() + base.square() + 2 * math.log(2 * math.pi)).sum((1, 2))

    def _drawn(self, z: Tensor, types: Tensor, normal: Normal | None) -> tuple[Tensor, Tensor]:
        draw = normal or drawn_by()
        u, w = draw(z), draw(z)
        seen = self._seen(z, types)
        for number in range(self.n_layers):
            scale, shift = self._affine(2 * number, w, seen)
            u = u * scale.exp() + shift
            scale, shift = self._affine(2 * number + 1, u, seen)
            w = w * scale.exp() + shift
        return z + seen.out_of(u), w

    def _backward(self, u: Tensor, w: Tensor, z: Tensor, types: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what displacements and velocities came from, and the logarithm of the determinant of that map."""
        seen = self._seen(z, types)
        u, log_det = seen.into(u)
        for number in reversed(range(self.n_layers)):
            scale, shift = self._affine(2 * number + 1, u, seen)
            w, log_det = (w - shift) * (-scale).exp(), log_det - scale.sum((1, 2))
            scale, shift = self._affine(2 * number, w, seen)
            u, log_det = (u - shift) * (-scale).exp(), log_det - scale.sum((1, 2))
        return u, w, log_det

    def _seen(self, z: Tensor, types: Tensor) -> "Seen":
        at = centered(z)
        attention = kernel_attention(at, self.length_scales)
        place = None if self.start is None else self.start.at(at, types, attention)
        beads = self.beads(types).expand(len(z), -1, -1)
        context = torch.cat([beads, at if place is None else place.context], -1)
        return Seen(context, attention, self.noise_std, place)

    def _affine(self, number: int, given: Tensor, seen: "Seen") -> tuple[Tensor, Tensor]:
        """Return the logarithm of scales, and shifts, both (B, N, 3)."""
        features = torch.cat([seen.context, seen.given(given)], -1)
        found = cast(Tensor, self.networks[number](features, seen.attention))
        return STRONGEST * torch.tanh(found[..., :3] / STRONGEST), found[..., 3:]


class Seen(NamedTuple):
    """What the networks are shown of a conditioning, and the kernel that layers begin with.

    Attributes
    ----------
    context : Tensor, shape (B, N, C)
    attention : Tensor, shape (B, H, N, N)
    noise_std : float
        In Å.
    place : Place, optional
        The harmonic kernel; without it displacements begin as N(0, σ²), along axes of the laboratory.
    """

    context: Tensor
    attention: Tensor
    noise_std: float
    place: Place | None

    def into(self, displacements: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is N(0, 1) at first, from displacements in Å, and the logarithm of the determinant, (B,)."""
        if self.place is None:
            log_det = displacements[0].numel() * math.log(self.noise_std)
            return displacements / self.noise_std, torch.full_like(displacements[:, 0, 0], -log_det)
        return self.place.into(displacements), self.place.log_det

    def out_of(self, numbers: Tensor) -> Tensor:
        """Return displacements in Å."""
        return self.noise_std * numbers if self.place is None else self.place.out_of(numbers)

    def given(self, vectors: Tensor) -> Tensor:
        """Return what the networks see of the half that they do not change."""
        return vectors if self.place is None else self.place.seen(vectors)
