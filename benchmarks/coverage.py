"""How often the 95 % intervals of ase-cg hold the true value, on correlated data whose densities are known.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py --repetitions 200

Frames are AR(1) processes in two dimensions with Gaussian densities, on 30 × 30 bins; a model and a reference, as many
trajectories of as many frames each, with correlation times of 1, 10 and 50 frames. The model differs from the reference
in nothing, by a shift of 0.1, 0.3 or 1 standard deviations, or is 1.2 times as wide; or the reference is sampled 0.5
standard deviations off and weighted back. The true value of a figure is that between the true densities on the same
bins, of the PMF error with the smallest probability of the sample. Markov models are those of two states.

What is done is kept in ``benchmarks/results/coverage.json``: the same command goes on, and prints the table.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from judgement import ratio_and_error
from scipy.signal import lfilter
from scipy.stats import norm, t

from ase_cg.analysis.ensembles import Grid
from ase_cg.analysis.intervals import (
    Measurement,
    divergence_measurement,
    doubt_of,
    surface_measurements,
    wasserstein_measurement,
)
from ase_cg.analysis.jackknife import estimate
from ase_cg.analysis.macrostates import StateSpace, kinetics_of

RESULTS = Path(__file__).parent / "results" / "coverage.json"
SURFACE = np.linspace(-4.4, 4.4, 31)
LINE = np.linspace(-4.4, 4.4, 501)
SERIES = np.linspace(-4.4, 4.4, 51)
SIZES = ((16, 500), (32, 300), (128, 100))
TIMES = (1, 10, 50)  # frames
STAY = (0.98, 0.94)  # of the two states
Held = dict[str, tuple[bool, bool]]  # of each figure whether there is an interval, and whether it holds the true value


@dataclass(frozen=True)
class Difference:
    """How a model differs from the reference, a standard normal distribution in two dimensions.

    Parameters
    ----------
    shift, width : float
        Mean of the model along x, and standard deviation along both.
    bias : float
        Mean at which the reference is sampled along x; weights undo it.
    """

    shift: float = 0.0
    width: float = 1.0
    bias: float = 0.0


DIFFERENCES = {
    "none": Difference(),
    "shift 0.1": Difference(shift=0.1),
    "shift 0.3": Difference(shift=0.3),
    "shift 1": Difference(shift=1.0),
    "width 1.2": Difference(width=1.2),
    "weighted reference": Difference(shift=0.3, bias=0.5),
}


def frames(rng: np.random.Generator, size: tuple[int, int], time: float) -> np.ndarray:
    """Return trajectories of an AR(1) process with standard normal density: shape (*size, 2)."""
    stay = np.exp(-1 / time)
    noise = rng.standard_normal((*size, 2))
    noise[:, 1:] *= np.sqrt(1 - stay**2)
    return np.asarray(lfilter([1], [1, -stay], noise, axis=1))


def places(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the bins of values, those outside counted to the last."""
    return np.clip(((x - edges[0]) / (edges[1] - edges[0])).astype(int), 0, len(edges) - 2)


def surface_blocks(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the histogram of each trajectory (T, F, 2) on the plane, and what is outside: shape (T, 901)."""
    n = len(SURFACE) - 1
    bins = places(x, SURFACE)
    inside = (np.abs(x) < SURFACE[-1]).all(-1)
    return blocks(np.where(inside, bins[..., 0] * n + bins[..., 1], n * n), weights, n * n + 1)


def blocks(bins: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Return the histogram of the bins (T, F) of each trajectory: shape (T, count)."""
    flat = (bins + count * np.arange(len(bins))[:, None]).ravel()
    return np.bincount(flat, weights=weights.ravel(), minlength=len(bins) * count).reshape(len(bins), count)


def line_probabilities(edges: np.ndarray, mean: float, width: float) -> np.ndarray:
    """Return the true probabilities of bins, those outside counted to the ends."""
    cumulative = norm.cdf(edges, mean, width)
    cumulative[[0, -1]] = 0, 1
    return np.diff(cumulative)


def surface_probabilities(mean: float, width: float) -> np.ndarray:
    """Return the true probabilities of the bins of the plane, and of what is outside."""
    sides = [np.diff(norm.cdf(SURFACE, centre, width)) for centre in (mean, 0.0)]
    inside = np.outer(*sides).ravel()
    return np.append(inside, 1 - inside.sum())


def held_by(measured: Measurement, p: np.ndarray, q: np.ndarray) -> Held:
    """Return of each figure whether it has an interval, and whether that holds the value of the true p and q."""
    found = estimate(measured.figure, measured.one, measured.other, second_order=measured.second_order)
    low, high = (measured.named(end) for end in found.interval())
    given = doubt_of(measured) is None
    truth = measured.named(measured.figure(p, q))
    return {
        name: (given, bool(low[name] <= value <= high[name])) for name, value in truth.items() if np.ndim(value) == 0
    }


def distances(rng: np.random.Generator, size: tuple[int, int], time: float, kind: Difference) -> Held:
    """Draw a model and a reference once, and return what their intervals hold."""
    model = kind.width * frames(rng, size, time) + np.array([kind.shift, 0.0])
    reference = frames(rng, size, time) + np.array([kind.bias, 0.0])
    ones, weights = np.ones(size), np.exp(kind.bias**2 / 2 - kind.bias * reference[..., 0])
    found: Held = {}
    p, q = surface_probabilities(kind.shift, kind.width), surface_probabilities(0.0, 1.0)
    for measured in surface_measurements(surface_blocks(model, ones), surface_blocks(reference, weights)):
        found |= held_by(measured, p, q)
    sides = ((model, ones), (reference, weights))
    one, other = (blocks(places(x[..., 0], SERIES), w, len(SERIES) - 1) for x, w in sides)
    truths = [line_probabilities(SERIES, *shape) for shape in ((kind.shift, kind.width), (0.0, 1.0))]
    found |= held_by(divergence_measurement(one, other, "series_jensen_shannon_nats"), *truths)
    one, other = (np.stack([blocks(places(x[..., k], LINE), w, len(LINE) - 1) for k in (0, 1)], 1) for x, w in sides)
    features = [
        np.stack([line_probabilities(LINE, mean, width) for mean in (shift, 0.0)])
        for shift, width in ((kind.shift, kind.width), (0.0, 1.0))
    ]
    found |= held_by(wasserstein_measurement(one, other, "bonds", Grid(LINE, "Å")), *features)
    return found | {"share": (True, share_held(reference, weights))}


def share_held(x: np.ndarray, weights: np.ndarray) -> bool:
    """Return whether the interval of the share of frames beyond 1 holds the true one."""
    found = ratio_and_error((weights * (x[..., 0] > 1)).sum(1), weights.sum(1))
    half = t.ppf(0.975, len(x) - 1) * found["standard_error"]
    return bool(abs(found["value"] - norm.sf(1)) <= half)


def kinetics(rng: np.random.Generator, size: tuple[int, int]) -> Held:
    """Draw trajectories of two states once, and return what the intervals of their Markov model hold."""
    states = [two_states(rng, size[1]) for _ in range(size[0])]
    space = StateSpace(np.array([[0.0], [1.0]]), np.array([0, 1]), 1)
    found = kinetics_of(states, space, 2, frame_interval=None, temperature=None)
    truth = {
        "macrostate population": (found.populations[1], found.population_errors[1], 0.25),
        "slowest timescale": (found.timescales[0], found.timescale_errors[0], -1 / np.log(sum(STAY) - 1)),
        "folding free energy": (found.free_energy, found.free_energy_error, np.log(3)),
    }
    return {
        name: (bool(np.isfinite(error)), bool(abs(value - exact) <= 1.96 * error))
        for name, (value, error, exact) in truth.items()
    }


def two_states(rng: np.random.Generator, length: int) -> np.ndarray:
    """Return a trajectory of two states, in the first of which it is three frames of four."""
    draws, state = rng.random(length), int(rng.random() > 0.75)
    path = np.empty(length, dtype=np.int64)
    for frame in range(length):
        path[frame] = state
        state = state if draws[frame] < STAY[state] else 1 - state
    return path


def cases() -> Iterator[tuple[str, Callable[[np.random.Generator], Held]]]:
    """Return all cases by name."""
    for size in SIZES:
        shown = f"{size[0]} x {size[1]}"
        for time in TIMES:
            for name, kind in DIFFERENCES.items():
                yield f"{shown}/{time}/{name}", lambda rng, s=size, u=time, k=kind: distances(rng, s, u, k)
        yield f"{shown}/two states/none", lambda rng, s=size: kinetics(rng, s)


def counted(draw: Callable[[np.random.Generator], Held], repetitions: int, seed: int = 0) -> dict[str, list[int]]:
    """Return of each figure how many intervals were given, and how many of them held the true value."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[int]] = {}
    for _ in range(repetitions):
        for name, (given, held) in draw(rng).items():
            counts = found.setdefault(name, [0, 0])
            counts[0] += given
            counts[1] += given and held
    return found


def table(done: dict[str, dict[str, list[int]]], repetitions: int) -> str:
    """Return the table: of each figure the share that held over all differences, and in brackets the worst of them."""
    sizes = [f"{a} × {b}" for a, b in SIZES]
    rows: dict[tuple[str, str], dict[str, list[list[int]]]] = {}
    for case, figures in done.items():
        size, time, _ = case.split("/")
        for figure, counts in figures.items():
            rows.setdefault((figure, time), {}).setdefault(size.replace("x", "×"), []).append(counts)
    lines = [
        "| figure | correlation time / frames | " + " | ".join(sizes) + " |",
        "| --- | --- |" + " --- |" * len(sizes),
    ]
    for (figure, time), found in sorted(rows.items(), key=lambda row: (row[0][0], len(row[0][1]), row[0][1])):
        lines.append(f"| {figure} | {time} | " + " | ".join(cell(found.get(s, []), repetitions) for s in sizes) + " |")
    return "\n".join(lines)


def cell(counts: list[list[int]], repetitions: int) -> str:
    """Return one cell: percent that held, the worst difference, and how many had an interval where not all had."""
    given = sum(count for count, _ in counts)
    if not given:
        return "no interval"
    shares = [100 * held / count for count, held in counts if count >= repetitions / 10]
    text = f"{100 * sum(held for _, held in counts) / given:.0f}" + (f" ({min(shares):.0f})" if len(shares) > 1 else "")
    possible = repetitions * len(counts)
    return text if given == possible else f"{text}, given in {100 * given / possible:.0f} %"


def main() -> None:
    """Do what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", default="", help="cases whose name begins so, such as '16 x 500'")
    arguments = parser.parse_args()
    for name, draw in cases():
        kept = json.loads(arguments.results.read_text()) if arguments.results.is_file() else {}
        if kept.get("repetitions", arguments.repetitions) != arguments.repetitions:
            parser.error(f"{arguments.results} has {kept['repetitions']} repetitions; give another file by --results")
        done = kept.get("cases", {})
        if name not in done and name.startswith(arguments.only):
            done[name] = counted(draw, arguments.repetitions)
            arguments.results.parent.mkdir(parents=True, exist_ok=True)
            part = arguments.results.with_suffix(".part")
            part.write_text(json.dumps({"repetitions": arguments.repetitions, "cases": done}, indent=1) + "\n")
            part.rename(arguments.results)
    print(table(done, arguments.repetitions))


if __name__ == "__main__":
    main()
