"""Labels by name: what a model is fitted to."""

import difflib

from ase_cg.errors import InputError
from ase_cg.labels.atomistic import AtomisticForces
from ase_cg.labels.base import LabelSource
from ase_cg.labels.forces_and_noise import ForcesAndNoise
from ase_cg.labels.noise import Noise

LABELS: dict[str, type[LabelSource]] = {cls.name: cls for cls in (AtomisticForces, Noise, ForcesAndNoise)}


def label_source(name: str) -> type[LabelSource]:
    """Return the class of a label source.

    Raises
    ------
    InputError
        If the name is not known.
    """
    if name not in LABELS:
        nearest = difflib.get_close_matches(name, LABELS, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(LABELS)}"
        raise InputError(f"unknown labels {name!r}; {hint}")
    return LABELS[name]
