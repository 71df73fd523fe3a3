"""Priors: small analytic energy terms fitted to the data, which keep a model where the data live."""

from ase_cg.models.priors.base import PriorTerm
from ase_cg.models.priors.dihedrals import Dihedrals
from ase_cg.models.priors.harmonic import CosineAngles, HarmonicAngles, HarmonicBonds
from ase_cg.models.priors.repulsion import ExcludedVolume, Repulsion
from ase_cg.models.priors.restricted_bending import RestrictedBending

PRIORS: dict[str, type[PriorTerm]] = {
    term.name: term
    for term in (
        HarmonicBonds,
        HarmonicAngles,
        CosineAngles,
        RestrictedBending,
        Dihedrals,
        Repulsion,
        ExcludedVolume,
    )
}
"""Priors by the word in recipes and files."""
