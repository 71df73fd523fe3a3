"""Priors: small analytic energy terms fitted to the data, which keep a model where the data live."""

from ase_cg.models.priors.base import PriorTerm
from ase_cg.models.priors.dihedrals import Dihedrals
from ase_cg.models.priors.harmonic import CosineAngles, HarmonicAngles, HarmonicBonds
from ase_cg.models.priors.impropers import Impropers, PeriodicImpropers
from ase_cg.models.priors.polynomial import PolynomialAngles, PolynomialCosineAngles
from ase_cg.models.priors.repulsion import ExcludedVolume, Repulsion
from ase_cg.models.priors.restricted_bending import RestrictedBending
from ase_cg.models.priors.short_repulsion import CutoffRepulsion, ExponentialRepulsion

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
        Impropers,
        PeriodicImpropers,
        PolynomialAngles,
        PolynomialCosineAngles,
        CutoffRepulsion,
        ExponentialRepulsion,
    )
}
"""Priors by the word in recipes and files."""
