"""Labels of a flow: made before the training, and taken as they are."""

from typing import Self

from torch import Tensor

from ase_cg.errors import InputError
from ase_cg.labels.base import LabelSource, required_thermal_energy, second_moment
from ase_cg.labels.frame_noise import FrameNoise


class FlowForces(LabelSource):
    """y ~ k(· | z), f = kT ∇ ln k(y | z): positions and forces of a label set.

    Where the kernel gives the data back, ∫ k(y | z) p(z) dz ≈ p(y), the mean of f given y is the mean force of p
    itself; there is no noise in y. Source: Klein et al., "Operator forces for coarse-grained molecular dynamics"
    (2025), whose code leaves the gradient of the log-determinant out. :class:`ase_cg.flows.label_set.LabelSet` makes
    the label set.

    Parameters
    ----------
    mean_square : float
        Of a label component of the training split, in (eV/Å)².
    """

    name = "flow"
    needs_forces = False

    def __init__(self, mean_square: float) -> None:
        super().__init__()
        self._mean_square = mean_square

    @classmethod
    def fit(cls, forces: Tensor | None, *, kT: float, noise_std: float | None, weights: Tensor | None = None) -> Self:
        """Take the labels of the training split; see :meth:`LabelSource.fit`."""
        required_thermal_energy(cls.name, kT)
        if noise_std:
            raise InputError(
                "labels 'flow' leave no noise in the positions; give kernel.noise_std, which the flow undoes"
            )
        return cls(float(second_moment(_made(forces), weights).diagonal().mean()))

    def variance(self) -> float:
        """Return the mean square of a label component in (eV/Å)²."""
        return self._mean_square

    def forward(self, x: Tensor, forces: Tensor | None, noise: FrameNoise) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return the positions and labels of the label set."""
        return x, _made(forces)


class FlowAndForces(FlowForces):
    """Labels of a flow and recorded forces, each set of frames with the inverse of its variance as weight.

    See :func:`ase_cg.training.mixed_labels.with_recorded_forces`.
    """

    name = "flow_and_forces"
    needs_forces = True


def _made(forces: Tensor | None) -> Tensor:
    if forces is None:
        raise InputError("labels 'flow' are made by a flow before the training; `ase-cg train` does that")
    return forces
