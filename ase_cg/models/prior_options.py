"""What each prior of a recipe may be told; light, so that recipes are read quickly."""

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field

from ase_cg.errors import InputError, hint
from ase_cg.settings import Section, validated


class PriorOptions(Section):
    """Options of every prior: `scale` multiplies its energy."""

    model_config = ConfigDict(title="a prior")

    scale: float = Field(default=1.0, gt=0)


class BondedOptions(PriorOptions):
    """Options of bonded priors: if `directed`, bead types along a chain and in reverse have parameters of their own."""

    directed: bool = False


class DihedralOptions(BondedOptions):
    """Options of dihedrals: the `order` of the cosine series, and whether one of them is `generic` for all types."""

    order: int = Field(default=3, ge=1, le=12)
    generic: bool = False


class RepulsionOptions(PriorOptions):
    """Options of repulsion: (σ/r)ⁿ with n the `exponent`; pairs within `exclude` bonds feel none; `cutoff` in Å."""

    exponent: int = Field(default=6, ge=2, le=24)
    exclude: int = Field(default=2, ge=0, le=6)
    cutoff: float | None = Field(default=12.0, gt=0)


class ExcludedVolumeOptions(PriorOptions):
    """Options of the excluded volume between chains: as of repulsion; one σ for all beads."""

    exponent: int = Field(default=6, ge=2, le=24)
    cutoff: float | None = Field(default=12.0, gt=0)


class ImproperOptions(PriorOptions):
    """Options of impropers: `quadruples` of bead names; by default every bead with three bonded neighbours."""

    quadruples: list[tuple[str, str, str, str]] | None = Field(default=None, min_length=1)

    @property
    def directed(self) -> bool:
        """Quadruples are read in one direction."""
        return True


class PolynomialOptions(BondedOptions):
    """Options of polynomial angles: the `degree`, above one."""

    degree: int = Field(default=4, ge=2, le=12)


class CutoffRepulsionOptions(PriorOptions):
    """Options of the repulsion that ends at a `cutoff` in Å: as of repulsion."""

    exponent: int = Field(default=6, ge=2, le=24)
    exclude: int = Field(default=2, ge=0, le=6)
    cutoff: float = Field(default=12.0, gt=0)


class ExponentialRepulsionOptions(PriorOptions):
    """Options of exponential repulsion: α is the `steepness`; `exclude` and `cutoff` as of repulsion."""

    steepness: float = Field(default=14.0, gt=1, le=60)
    exclude: int = Field(default=2, ge=0, le=6)
    cutoff: float | None = Field(default=12.0, gt=0)


PRIOR_OPTIONS: Mapping[str, type[PriorOptions]] = {
    "bonds": BondedOptions,
    "angles": BondedOptions,
    "cosine_angles": BondedOptions,
    "restricted_bending": BondedOptions,
    "dihedrals": DihedralOptions,
    "repulsion": RepulsionOptions,
    "excluded_volume": ExcludedVolumeOptions,
    "impropers": ImproperOptions,
    "periodic_impropers": ImproperOptions,
    "polynomial_angles": PolynomialOptions,
    "polynomial_cosine_angles": PolynomialOptions,
    "cutoff_repulsion": CutoffRepulsionOptions,
    "exponential_repulsion": ExponentialRepulsionOptions,
}
PriorSpec = str | Mapping[str, Any]
"""How users write a prior: its name, or a mapping of ``name`` and its options."""


def read_prior(spec: PriorSpec) -> tuple[str, PriorOptions]:
    """Return the name and the options of a prior.

    Raises
    ------
    InputError
        If the name or an option is not known, naming the nearest right one.
    """
    if not isinstance(spec, str | Mapping):
        raise InputError(f"a prior is a name, or a name with options, not {spec!r}")
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = given.pop("name", None)
    if name not in PRIOR_OPTIONS:
        raise InputError(f"unknown prior {name!r}; {hint(name, PRIOR_OPTIONS)}")
    return str(name), validated(PRIOR_OPTIONS[str(name)], given, f"prior {name!r}")
