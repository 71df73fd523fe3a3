"""What a check of forces found, and how it is told."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Self, TypeVar

import numpy as np

SHOWN = 3  # deviations of a kind in a message
LISTED = 10  # in a record
SIGNIFICANT = 0.05  # p of all tests of a kind, below which one is told of

Verdict = Literal["undecided", "consistent", "doubtful", "inconsistent"]
VERDICTS: tuple[Verdict, ...] = ("undecided", "consistent", "doubtful", "inconsistent")


class PairTest(NamedTuple):
    """A ratio of two bonded beads i and j that is 1 without bias.

    Attributes
    ----------
    beads : tuple of int
        i and j; the force is that on i.
    value, error : float
        Mean, and its standard error.
    p : float
        Probability of such a value without bias, of this pair alone.
    """

    beads: tuple[int, int]
    value: float
    error: float
    p: float


class SteinSum(NamedTuple):
    """(F_i·g_i + kT ∇_i·g_i) / (kT Σ_j |∇_i·g_ij|) of bead i: 0 without bias.

    Attributes
    ----------
    bead : int
    reach : float
        r_c in Å (its mean where a cell limits it).
    value, error, p : float
        As in :class:`PairTest`.
    """

    bead: int
    reach: float
    value: float
    error: float
    p: float


class SteinRatio(NamedTuple):
    """−⟨F·g⟩ / (kT ⟨∇·g⟩) of all beads together: 1 without bias; `reach` is r_c in Å.

    Its denominator may be small, then it is far from 1 with a large error.
    """

    reach: float
    value: float
    error: float


Test = TypeVar("Test", PairTest, SteinSum)


@dataclass(frozen=True)
class ForceCheck:
    """What the check of forces found.

    Attributes
    ----------
    verdict : {"consistent", "doubtful", "inconsistent", "undecided"}
        ``"doubtful"`` from p < 0.001 on, ``"inconsistent"`` from p < 1e-6 on and with 400 frames or more, both only
        where deviations are large enough to matter (:data:`ase_cg.data.force_check.TOLERATED`); ``"undecided"`` where
        there are too few frames, or no two beads.
    p : float or None
        Probability of such deviations of forces without bias, all tests taken together.
    deviation : float
        From 1 or 0, of the kind of test with the lowest p: the root mean square of deviations beyond their errors, or
        the largest that is significant on its own.
    frames : int
        That were looked at.
    temperature : float
        In K.
    images : bool
        Whether Stein's check counted pairs across the boundaries of a periodic cell.
    virials : tuple of PairTest
        −⟨(x_i − x_j)·F_i⟩ / (3 kT) of bonded pairs, in both directions.
    stretches : tuple of PairTest
        −⟨F_i·g⟩ / (kT ⟨∇_i·g⟩) with g = (r − r̄) (x_i − x_j)/r: the temperature of the data by that of the bond.
    stein : tuple of SteinSum
    stein_ratios : tuple of SteinRatio
    """

    verdict: Verdict
    p: float | None
    deviation: float
    frames: int
    temperature: float
    images: bool
    virials: tuple[PairTest, ...] = ()
    stretches: tuple[PairTest, ...] = ()
    stein: tuple[SteinSum, ...] = ()
    stein_ratios: tuple[SteinRatio, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; of each kind of test the most striking ones."""
        found = asdict(self)
        for name in ("virials", "stretches", "stein"):
            found[name] = [test._asdict() for test in _striking(getattr(self, name))[:LISTED]]
        found["stein_ratios"] = [ratio._asdict() for ratio in self.stein_ratios]
        return found

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        """Return what :meth:`to_dict` has kept."""
        pairs = {
            name: tuple(
                PairTest(tuple(test["beads"]), test["value"], test["error"], test["p"]) for test in record[name]
            )
            for name in ("virials", "stretches")
        }
        stein = tuple(SteinSum(**test) for test in record["stein"])
        return cls(
            **record
            | pairs
            | {"stein": stein, "stein_ratios": tuple(SteinRatio(**ratio) for ratio in record["stein_ratios"])}
        )

    @property
    def suspicious(self) -> bool:
        """Whether somebody should be told."""
        return self.verdict in {"doubtful", "inconsistent"}

    @property
    def mean_stretch(self) -> float | None:
        """Mean of the ratios of stretched bonds."""
        return float(np.mean([test.value for test in self.stretches])) if self.stretches else None

    def message(self, molecule: str, names: Sequence[str]) -> str:
        """Say what is wrong with the forces of a molecule, whose beads have these names, and what to do."""
        certain = "do not belong" if self.verdict == "inconsistent" else "may not belong"
        return (
            f"forces of molecule {molecule!r} {certain} to the density of its positions at {self.temperature:g} K "
            f"(p = {self.p:.0e}): {self.sentence(names)}; use the force map 'optimal' with the constraint groups of "
            "the simulation, and check its temperature, its time step, the units, and that forces and positions are of "
            "the same frames"
        )

    def sentence(self, names: Sequence[str]) -> str:
        """Say what deviates most, for beads of these names; part of a sentence."""
        parts = []
        for words, tests in (
            ("⟨(x_i − x_j)·F_i⟩/(−3 kT) of bonded beads", self.virials),
            ("⟨F_i·stretch⟩/⟨−kT ∇·stretch⟩ of bonded beads", self.stretches),
        ):
            told = [test for test in _striking(tests) if test.p * len(tests) < SIGNIFICANT]
            if told:
                parts.append(f"{words} must be 1 and is {_listed([_pair(test, names) for test in told])}")
        told_beads = [test for test in _striking(self.stein) if test.p * len(self.stein) < SIGNIFICANT]
        if told_beads or not parts:
            shown = [
                f"{test.value:.2f} ± {test.error:.2f} for {names[test.bead]} (bead {test.bead}) within "
                f"{test.reach:.1f} Å"
                for test in told_beads or _striking(self.stein)[:1]
            ]
            parts.append(f"the share ⟨F_i·g_i + kT ∇_i·g_i⟩ (Stein) must be 0 and is {_listed(shown)}")
        return "; ".join(parts)


def _striking(tests: Sequence[Test]) -> list[Test]:
    return sorted(tests, key=lambda test: test.p)


def _pair(test: PairTest, names: Sequence[str]) -> str:
    i, j = test.beads
    return f"{test.value:.2f} ± {test.error:.2f} for {names[i]}–{names[j]} (beads {i} and {j})"


def _listed(shown: list[str]) -> str:
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more
