"""Labels by name: what a model is fitted to."""

from ase_cg.errors import InputError, hint
from ase_cg.labels.atomistic import AtomisticForces
from ase_cg.labels.base import LabelSource
from ase_cg.labels.flow import FlowAndForces, FlowForces
from ase_cg.labels.forces_and_noise import ForcesAndNoise
from ase_cg.labels.noise import Noise

LABELS: dict[str, type[LabelSource]] = {
    cls.name: cls for cls in (AtomisticForces, Noise, ForcesAndNoise, FlowForces, FlowAndForces)
}


def label_source(name: str) -> type[LabelSource]:
    """Return the class of a label source.

    Raises
    ------
    InputError
        If the name is not known.
    """
    if name not in LABELS:
        raise InputError(f"unknown labels {name!r}; {hint(name, LABELS)}")
    return LABELS[name]
