"""Continuous normalizing flow as a kernel k(y | z): samples, their likelihood, and its gradient."""

import math

import torch
from torch import Tensor

from ase_cg.errors import InputError
from ase_cg.flows.base import ConditionalFlow, Scored
from ase_cg.flows.field import Normal, VectorField, centered, drawn_by, normal_probes
from ase_cg.flows.solvers import Clock, State, adaptive, gauss_nodes, require_torchdiffeq, rk4

SOLVERS = ("rk4", "dopri5", "dopri8")
PATH_STD = 0.01  # Å
# With these the published flow of chignolin gives scores within 1e-3 of their norm.
STEPS = 1  # of RK4 between neighbouring nodes
NODES = 5  # where the divergence is evaluated


class ContinuousFlow(ConditionalFlow):
    """x = F(z₀), z₀ = z + σ_p η: the end of dx/dt = v(t, x), begun at the conditioning z with noise added.

    With X_t = F_t(z₀) and its density p_t, along a path d ln p_t/dt = −div v, and the score s = ∇ ln p_t follows
    ds/dt = −Jᵀ s − ∇ div v, from s = −(z₀ − z)/σ_p² at t = 0. Both need no way back. Jᵀ s costs one reverse pass of the
    field, so that it is taken in every stage of RK4. The divergence and its gradient cost far more, and are smooth
    along the path: they are evaluated at the nodes of Gauss–Legendre quadrature only, where s is moved by −w ∇ div v,
    which the further path carries on exactly as the integral would be. Steps and nodes follow :class:`Clock`.

    Parameters
    ----------
    field : VectorField
    noise_std : float
        σ_n in Å, of the noise that the flow takes away: z = x + σ_n ε; 0 with a field that sees z.
    prior_std : float
        σ_p in Å.
    path_std : float
        s in Å, the width of the path that the field was trained on.
    steps : int
        Of RK4 between neighbouring nodes.
    nodes : int
        Of the quadrature.
    solver : str
        ``rk4``, or an adaptive method of torchdiffeq: ``dopri5``, ``dopri8``.
    tolerance : float
        Of an adaptive method, relative and absolute.
    n_probes : int, optional
        Random directions to estimate the divergence with (Hutchinson); by default it is exact.

    Raises
    ------
    InputError
        If a number is out of its range, or the solver is not known or not installed.
    """

    def __init__(
        self,
        field: VectorField,
        *,
        noise_std: float,
        prior_std: float,
        path_std: float = PATH_STD,
        steps: int = STEPS,
        nodes: int = NODES,
        solver: str = "rk4",
        tolerance: float = 1e-6,
        n_probes: int | None = None,
    ) -> None:
        super().__init__()
        if not (noise_std >= 0 and math.isfinite(noise_std)):
            raise InputError(f"a flow needs noise_std of at least 0, not {noise_std}")
        for name, value in (("prior_std", prior_std), ("path_std", path_std), ("tolerance", tolerance)):
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"a flow needs {name} above 0, not {value}")
        for name, count in (("steps", steps), ("nodes", nodes), ("n_probes", 1 if n_probes is None else n_probes)):
            if count < 1:
                raise InputError(f"a flow needs {name} of at least 1, not {count}")
        if solver not in SOLVERS:
            raise InputError(f"unknown solver {solver!r}; known are {', '.join(SOLVERS)}")
        if solver != "rk4":
            require_torchdiffeq()
        self.field, self.noise_std, self.prior_std, self.path_std = field, noise_std, prior_std, path_std
        self.steps, self.nodes, self.solver, self.tolerance, self.n_probes = steps, nodes, solver, tolerance, n_probes
        self.clock = Clock(path_std / math.hypot(noise_std, prior_std))

    def settings(self) -> dict[str, int | float | str | None]:
        """Return the arguments, besides the field, that make the same flow."""
        names = ("noise_std", "prior_std", "path_std", "steps", "nodes", "solver", "tolerance", "n_probes")
        return {name: getattr(self, name) for name in names}

    def numbers_a_frame(self, n_beads: int) -> int:
        """Return the size of the largest array that scoring a frame makes."""
        return self.field.numbers_a_frame(n_beads)

    def begin(self, z: Tensor, normal: Normal | None = None) -> Tensor:
        """Draw the start of the flow, z + σ_p η with mean-free noise, from conditionings (B, N, 3) in Å."""
        noise = (normal or drawn_by())(z)
        return centered(z) + self.prior_std * centered(noise)

    def push(self, start: Tensor, types: Tensor, z: Tensor | None = None) -> Tensor:
        """Return the end F(z₀) of paths from their start; all (B, N, 3). Conditional fields need z."""
        return self._path(self._field(z), start, types, (0.0, 1.0))

    def pull(self, end: Tensor, types: Tensor, z: Tensor | None = None) -> Tensor:
        """Return the start F⁻¹(x) of paths from their end; all (B, N, 3). Conditional fields need z."""
        return self._path(self._field(z), end, types, (1.0, 0.0))

    def draw(self, z: Tensor, types: Tensor, normal: Normal | None = None) -> Tensor:
        """Draw one sample for each conditioning; see :meth:`ConditionalFlow.draw`."""
        return self.push(self.begin(z, normal), types, z)

    def sample(self, z: Tensor, types: Tensor, normal: Normal | None = None) -> Scored:
        """Draw one sample for each conditioning, with its likelihood and score; see :meth:`ConditionalFlow.sample`."""
        return self.push_with_score(self.begin(z, normal), z, types, normal)

    def log_prob(self, x: Tensor, z: Tensor, types: Tensor, normal: Normal | None = None) -> Scored:
        """Return positions (mean-free) with their likelihood and score, given conditionings; all (B, N, 3) in Å."""
        return self.score(x, z, types, normal)._replace(x=centered(x))

    def score(self, x: Tensor, z: Tensor, types: Tensor, normal: Normal | None = None) -> Scored:
        """Return likelihood and score where the way back from x and forth again ends; see :class:`ConditionalFlow`."""
        return self.push_with_score(self.pull(centered(x), types, z), z, types, normal)

    def push_with_score(self, start: Tensor, z: Tensor, types: Tensor, normal: Normal | None = None) -> Scored:
        """Follow paths from their start, given the conditionings, with likelihood and score; see the class."""
        away = start.detach() - centered(z)
        dimension = 3 * (start.shape[1] - 1)
        spread = self.prior_std**2
        log_prob = -0.5 * (away.square().sum((1, 2)) / spread + dimension * math.log(2 * math.pi * spread))
        state = (start.detach(), log_prob, -away / spread)
        follow = self._by_quadrature if self.solver == "rk4" else self._by_tolerance
        return Scored(*follow(self._field(z), state, types, normal))

    def _field(self, z: Tensor | None) -> VectorField:
        return self.field if z is None else self.field.given(z)

    def _path(self, field: VectorField, at: Tensor, types: Tensor, ends: tuple[float, float]) -> Tensor:
        def slope(time: Tensor, state: State) -> State:
            return (field(time, state[0], types),)

        with torch.no_grad():
            if self.solver != "rk4":
                return adaptive(slope, (at,), *ends, tolerance=self.tolerance, method=self.solver)[0]
            return rk4(slope, (at,), self.clock.times(*ends, self.steps * (self.nodes + 1)))[0]

    def _by_quadrature(self, field: VectorField, state: State, types: Tensor, normal: Normal | None) -> State:
        def slope(time: Tensor, state: State) -> State:
            with torch.enable_grad():
                x = state[0].detach().requires_grad_()
                v = field(time, x, types)
                (back,) = torch.autograd.grad(v, x, state[1])
            return v.detach(), -back

        x, log_prob, score = state
        nodes, weights = gauss_nodes(self.nodes)
        last = 0.0
        for node, weight in zip(nodes, weights, strict=True):
            x, score = rk4(slope, (x, score), self.clock.times(last, node, self.steps))
            time = torch.tensor(self.clock.time(node), dtype=x.dtype, device=x.device)
            divergence, gradient = self._divergence(field, time, x, types, self._probes(x, normal))[1:]
            share = weight * self.clock.speed(node)
            log_prob, score = log_prob - share * divergence, score - share * gradient
            last = node
        x, score = rk4(slope, (x, score), self.clock.times(last, 1.0, self.steps))
        return x, log_prob, score

    def _by_tolerance(self, field: VectorField, state: State, types: Tensor, normal: Normal | None) -> State:
        probes = self._probes(state[0], normal)

        def slope(time: Tensor, state: State) -> State:
            v, divergence, back = self._divergence(field, time, state[0], types, probes, state[2])
            return v, -divergence, -back

        return adaptive(slope, state, 0.0, 1.0, tolerance=self.tolerance, method=self.solver)

    def _probes(self, x: Tensor, normal: Normal | None) -> Tensor | None:
        return None if self.n_probes is None else normal_probes(self.n_probes, x, normal or drawn_by())

    @staticmethod
    def _divergence(
        field: VectorField,
        time: Tensor,
        at: Tensor,
        types: Tensor,
        probes: Tensor | None,
        score: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return v, div v, and ∇ div v; with a score, Jᵀ s is added to the last."""
        with torch.enable_grad():
            x = at.detach().requires_grad_()
            if probes is None:
                v, divergence = field.with_divergence(time, x, types)
            else:
                v, divergence = field.with_estimated_divergence(time, x, types, probes)
            whole = divergence.sum() + 0 * x.sum()  # the divergence of a linear field does not depend on x
            if score is not None:
                whole = whole + (v * score.detach()).sum()
            (gradient,) = torch.autograd.grad(whole, x)
        return v.detach(), divergence.detach(), gradient
