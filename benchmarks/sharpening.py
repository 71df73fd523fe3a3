"""How well sharpened priors undo the noise, apart from any network: what a perfect one would give.

    OMP_NUM_THREADS=1 python benchmarks/sharpening.py --folder runs/sharpening

A perfect network, trained on noised frames, has their density. Sharpening multiplies it by
exp(−(U_clean − U_noised)/kT) of the priors, so noised frames with these weights are what it would simulate. That is
made here from the published beads of ../shared/data and from the reference of the demo for several σ: with harmonic
priors (as in the library) of some kinds of modes, and with the ratio of the histograms of every mode in their place
(Boltzmann inversion). Weights leave fewer effective frames, (ΣW)²/ΣW² with W the weights of a frame summed over its
noise, and with them a divergence that is none of the method's: that of the same weights shuffled among the frames
stands beside it. Resumable; prints its table and keeps it.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.units import kB
from systems import DIPEPTIDE, PHI, PSI, ROOT, SYSTEMS, System

from ase_cg import BeadTopology, CGModel, Dataset, PriorSet
from ase_cg.analysis import bond_angles, bond_lengths, dihedral_angles, jensen_shannon, pmf_error
from ase_cg.analysis.metrics import wasserstein_distances
from ase_cg.beads.atoms import standard_vocabulary
from ase_cg.models.model import ModelCard

NOISE = (0.02, 0.05, 0.1, 0.2)  # Å
BLOCKS = 20
BINS = 30  # of φ and ψ, or of RMSD and radius of gyration
FINE = 0.25  # width of a mode's bins, in its standard deviations
DEMO = replace(DIPEPTIDE, name="demo", mapped=ROOT / "examples" / "data" / "ala2_reference.h5")
SOURCES = {**SYSTEMS, "demo": DEMO}
DRAWS = {"dipeptide": 100, "chignolin": 60, "demo": 20}  # of the noise of every frame
MODES = {"dipeptide": ("bonds", "angles"), "demo": ("bonds", "angles"), "chignolin": ("bonds", "angles", "dihedrals")}
MEASURES = {"bonds": bond_lengths, "angles": bond_angles, "dihedrals": dihedral_angles}
RANGES = {"angles": (0.0, np.pi), "dihedrals": (-np.pi, np.pi)}

Values = dict[str, np.ndarray]


def main() -> None:
    """Do what is missing, then show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/sharpening"))
    parser.add_argument("--systems", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--noise-std", type=float, nargs="+", default=NOISE)
    parser.add_argument("--draws", type=int, help="of the noise of every frame")
    arguments = parser.parse_args()
    texts = []
    for name in arguments.systems:
        rows: dict[str, Any] = {}
        draws = arguments.draws or DRAWS[name]
        for noise_std in arguments.noise_std:
            path = arguments.folder / f"{name}_{noise_std:g}_{draws}.json"
            if not path.is_file():
                found = weighted(SOURCES[name], arguments.folder / name, noise_std, draws)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(found, indent=1, ensure_ascii=False))
            rows |= {f"{noise_std:g} | {choice}": row for choice, row in json.loads(path.read_text()).items()}
        texts.append(table(name, rows))
        (arguments.folder / "table.md").write_text("\n\n".join(texts) + "\n")
    print("\n\n".join(texts))


class Priors(NamedTuple):
    """Energies of the priors that were fitted to clean and to noised frames."""

    clean: CGModel
    noised: CGModel
    topology: BeadTopology

    @classmethod
    def fit(cls, path: Path, names: Iterable[str], noise_std: float) -> "Priors":
        """Fit both to a dataset."""
        with Dataset.open(path) as dataset:
            molecule = dataset.only_molecule()
            vocabulary = standard_vocabulary(molecule.topology.names)
            card = ModelCard(molecule.temperature, molecule.resolution, (molecule.topology,))
            models = [
                CGModel(vocabulary, PriorSet.fit(dataset, list(names), vocabulary=vocabulary, noise_std=noise), card)
                for noise in (0.0, noise_std)
            ]
            return cls(models[0].double(), models[1].double(), molecule.topology)

    def log_weights(self, frames: np.ndarray) -> Values:
        """Return −(U_clean − U_noised)/kT of each term at frames (F, N, 3)."""
        graph = self.clean.graph(self.topology, len(frames))._replace(positions=torch.tensor(frames).reshape(-1, 3))
        with torch.no_grad():
            clean, noised = (model.term_energies(graph) for model in (self.clean, self.noised))
        kT = kB * self.clean.card.temperature
        return {name: ((noised[name] - clean[name]) / kT).numpy() for name in clean}


class Histograms:
    """The ratio of the clean and the noised distribution of every mode."""

    def __init__(self, clean: Values, noised: Values) -> None:
        self._ratios: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for kind, values in clean.items():
            self._ratios[kind] = [self._ratio(x, y) for x, y in zip(values.T, noised[kind].T, strict=True)]

    @staticmethod
    def _ratio(clean: np.ndarray, noised: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        edges = np.arange(noised.min(), noised.max() + FINE * clean.std(), FINE * clean.std())
        p, q = (np.histogram(x, edges, density=True)[0] for x in (clean, noised))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(q > 0, p / q, 0.0)
        return (edges[1:] + edges[:-1]) / 2, ratio

    def log_weights(self, values: Values) -> Values:
        """Return the logarithm of the ratio of each kind of mode."""
        with np.errstate(divide="ignore"):
            return {
                kind: np.sum([np.log(np.interp(x, *r)) for x, r in zip(values[kind].T, ratios, strict=True)], axis=0)
                for kind, ratios in self._ratios.items()
            }


def modes(frames: np.ndarray, topology: BeadTopology, kinds: Iterable[str]) -> Values:
    """Return bonds, angles and dihedrals of frames, each of shape (F, modes)."""
    return {kind: MEASURES[kind](frames, getattr(topology, kind)) for kind in kinds}


class Tally:
    """Weighted distributions of one choice of priors."""

    def __init__(self, grids: dict[str, list[np.ndarray]], plane: list[np.ndarray], n_frames: int) -> None:
        self._grids, self._plane = grids, plane
        self.modes = {kind: [np.zeros(len(e) - 1) for e in edges] for kind, edges in grids.items()}
        self.surface, self.shuffled = (np.zeros([len(e) - 1 for e in plane]) for _ in range(2))
        self.weights, self.counted = np.zeros(n_frames), np.zeros(n_frames)
        self._order = np.random.default_rng(1).permutation(n_frames)

    def add(self, weights: np.ndarray, values: Values, points: np.ndarray, counted: np.ndarray) -> None:
        """Count all frames with one draw of their noise."""
        for kind, edges in self._grids.items():
            for number, grid in enumerate(edges):
                clipped = np.clip(values[kind][:, number], grid[0], grid[-1])
                self.modes[kind][number] += np.histogram(clipped, grid, weights=weights)[0]
        clipped = [np.clip(x, e[0], e[-1]) for x, e in zip(points.T, self._plane, strict=True)]
        self.surface += np.histogram2d(*clipped, bins=self._plane, weights=weights)[0]
        self.shuffled += np.histogram2d(*clipped, bins=self._plane, weights=weights[self._order])[0]
        self.weights += weights
        self.counted += weights * counted

    def figures(self, reference: "Tally") -> dict[str, float]:
        """Return the distances to the clean frames."""
        p, shuffled, q = ((x / x.sum()).ravel() for x in (self.surface, self.shuffled, reference.surface))
        found = {"pmf_error_kT": pmf_error(p, q), "jensen_shannon_nats": jensen_shannon(p, q)}
        found["shuffled_jensen_shannon_nats"] = jensen_shannon(shuffled, q)
        for kind, edges in self._grids.items():
            pairs = zip(self.modes[kind], reference.modes[kind], edges, strict=True)
            periodic = kind == "dihedrals"
            found[kind] = float(
                np.mean(
                    [
                        wasserstein_distances(x / x.sum(), y / y.sum(), grid[1] - grid[0], periodic=periodic)
                        for x, y, grid in pairs
                    ]
                )
            )
        share, left_out = self._share()
        change = left_out - reference._share()[1]  # noqa: SLF001 - of the same class
        effective = self.weights.sum() ** 2 / (self.weights**2).sum()
        error = float(np.sqrt((BLOCKS - 1) * change.var()))
        return found | {"share": share, "error_of_share_change": error, "effective_frames": effective}

    def _share(self) -> tuple[float, np.ndarray]:
        """Return the share of the frames that count, and that without each of some blocks of time (jackknife)."""
        blocks = [np.array_split(values, BLOCKS) for values in (self.counted, self.weights)]
        sums = np.array([[block.sum() for block in values] for values in blocks])
        total = sums.sum(1)
        left = total[:, None] - sums
        return float(total[0] / total[1]), left[0] / left[1]


def weighted(system: System, folder: Path, noise_std: float, draws: int) -> dict[str, dict[str, float]]:
    """Return the figures of noised frames with the weights of each choice of priors."""
    path, kinds = system.dataset(folder), MODES[system.name]
    priors = Priors.fit(path, [spec for spec in system.priors if isinstance(spec, str)], noise_std)
    with Dataset.open(path) as dataset:
        x = dataset.only_molecule().coordinates(slice(None)).astype(float)
    rng = np.random.default_rng(0)

    def noisy() -> np.ndarray:
        return x + noise_std * rng.standard_normal(x.shape)

    clean, some = modes(x, priors.topology, kinds), [modes(noisy(), priors.topology, kinds) for _ in range(10)]
    noised = {kind: np.concatenate([values[kind] for values in some]) for kind in kinds}
    histograms = Histograms(clean, noised)
    grids = {kind: [np.linspace(*RANGES.get(kind, (x.min(), x.max())), 1001) for x in noised[kind].T] for kind in kinds}
    plane = _edges(_points(system, x, path))
    tallies = {name: Tally(grids, plane, len(x)) for name in ("clean", *choices(kinds))}
    tallies["clean"].add(np.ones(len(x)), clean, _points(system, x, path), system.counted(x, path))
    for _ in range(draws):
        y = noisy()
        values, points, counted = modes(y, priors.topology, kinds), _points(system, y, path), system.counted(y, path)
        logs = {"harmonic": priors.log_weights(y), "histogram": histograms.log_weights(values)}
        for name, (source, sharpened) in choices(kinds).items():
            log = sum((logs[source][kind] for kind in sharpened), np.zeros(len(y)))
            tallies[name].add(np.exp(log), values, points, counted)
    reference = tallies["clean"]
    return {name: tally.figures(reference) for name, tally in tallies.items()}


def choices(kinds: tuple[str, ...]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return which modes are sharpened, and how, by name."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {"noised, not sharpened": ("harmonic", ())}
    for source in ("harmonic", "histogram"):
        found |= {f"{source}: {', '.join(kinds[:n])}": (source, kinds[:n]) for n in range(1, len(kinds) + 1)}
    return found


def _points(system: System, frames: np.ndarray, dataset: Path) -> np.ndarray:
    """Return the two coordinates of the surface: φ and ψ, or RMSD and radius of gyration."""
    if system.native is None:
        return dihedral_angles(frames, [PHI, PSI])
    return system.native_coordinates(frames, dataset)


def _edges(points: np.ndarray) -> list[np.ndarray]:
    return [np.linspace(x.min(), x.max(), BINS + 1) for x in points.T]


def table(system: str, rows: dict[str, dict[str, float]]) -> str:
    """Return the table of a molecule as Markdown."""
    kinds = MODES[system]
    units = {"bonds": "bonds / Å", "angles": "angles / rad", "dihedrals": "dihedrals / rad"}
    head = [
        "σ / Å",
        "sharpened",
        "PMF error / kT",
        "Jensen–Shannon / nats",
        "shuffled",
        *(units[kind] for kind in kinds),
    ]
    head += [SOURCES[system].share, "effective frames"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for name, row in rows.items():
        modes_shown = " | ".join(f"{row[kind]:.4f}" for kind in kinds)
        lines.append(
            f"| {name} | {row['pmf_error_kT']:.2f} | {row['jensen_shannon_nats']:.4f} | "
            f"{row['shuffled_jensen_shannon_nats']:.4f} | {modes_shown} | "
            f"{100 * row['share']:.2f} ± {100 * row['error_of_share_change']:.2f} % | {row['effective_frames']:.0f} |"
        )
    return f"{system}:\n\n" + "\n".join(lines)


if __name__ == "__main__":
    main()
