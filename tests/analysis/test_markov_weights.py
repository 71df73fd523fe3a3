"""Weights of adaptive sampling: known equilibria are found again, and what cannot be weighted is refused by name."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ase_cg import Dataset, InputError, map_trajectory, markov_weights
from ase_cg.analysis.markov_weights import EquilibriumFit, weigh
from ase_cg.cli.main import app
from ase_cg.data.dataset_writer import create_dataset
from tests.conftest import two_bead_topology

REPETITIONS = 100


def _two_states(rng, starts: int, length: int, leave: tuple[float, float]):
    """Trajectories (starts, length) of a chain of two states, four fifths of which begin in state 1."""
    state = (rng.random(starts) < 0.8).astype(int)
    found = [state]
    for _ in range(length - 1):
        flip = rng.random(starts) < np.take(leave, found[-1])
        found.append(np.where(flip, 1 - found[-1], found[-1]))
    return np.stack(found, axis=1)


def _double_well(rng, starts: int, length: int):
    """Overdamped trajectories (starts, length) in 2.5 (x² − 1)² − 0.4 x (kT); seven tenths begin on the left."""
    x = np.where(rng.random(starts) < 0.7, -1.0, 1.0)
    step, between, found = 0.01, 40, []
    for _ in range(length):
        found.append(x)
        for _ in range(between):
            force = -10 * x * (x**2 - 1) + 0.4
            x = x + step * force + np.sqrt(2 * step) * rng.standard_normal(starts)
    return np.stack(found, axis=1)


def _share_on_the_right():
    x = np.linspace(-4, 4, 8001)
    p = np.exp(-(2.5 * (x**2 - 1) ** 2 - 0.4 * x))
    return p[x > 0].sum() / p.sum()


def _covered(series, chosen, truth: float, clusters: int):
    """Whether the 95 % interval of a population holds the truth, and the weighted and the raw population."""
    fit = EquilibriumFit.of([x[:, None].astype(float) for x in series], 1, clusters)
    sets = np.concatenate([chosen(x) for x in series]).astype(float)[:, None]
    populations, _, intervals = fit.populations(sets, 20)
    return intervals[0, 0] <= truth <= intervals[0, 1], populations[0], sets.mean()


def test_the_population_of_a_two_state_chain_is_covered():
    """Leaving rates 0.05 and 0.15: 25 % are in state 1, of which adaptive sampling has twice as many."""
    rng = np.random.default_rng(0)
    found = [
        _covered(_two_states(rng, 300, 6, (0.05, 0.15)), lambda x: x == 1, 0.25, clusters=2) for _ in range(REPETITIONS)
    ]
    covered, weighted, raw = np.array(found, dtype=float).T
    assert covered.mean() >= 0.9
    assert weighted.mean() == pytest.approx(0.25, abs=0.015)
    assert raw.mean() > 0.5


def test_the_population_of_a_double_well_is_covered():
    rng = np.random.default_rng(1)
    truth = _share_on_the_right()
    found = [_covered(_double_well(rng, 120, 10), lambda x: x > 0, truth, clusters=12) for _ in range(REPETITIONS)]
    covered, weighted, raw = np.array(found, dtype=float).T
    assert covered.mean() >= 0.9
    assert weighted.mean() == pytest.approx(truth, abs=0.02)
    assert raw.mean() < truth - 0.15


def _dataset(path, series, **options):
    """Two beads at a distance of 6 Å + x, one trajectory for each row of x."""
    with (
        create_dataset(path) as dataset,
        dataset.molecule("dimer", two_bead_topology(), temperature=300.0, resolution="calpha", **options) as molecule,
    ):
        for x in series:
            molecule.next_trajectory()
            positions = np.zeros((len(x), 2, 3))
            positions[:, 1, 0] = 6.0 + x
            molecule.append(positions)
    return path


@pytest.fixture(scope="module")
def double_well(tmp_path_factory):
    rng = np.random.default_rng(2)
    return _dataset(tmp_path_factory.mktemp("well") / "well.h5", _double_well(rng, 400, 10))


def _right(path):
    with Dataset.open(path) as dataset:
        return dataset.only_molecule().coordinates()[:, 1, 0] > 6.0


def test_a_dataset_gets_weights_of_equilibrium(double_well, tmp_path):
    """The frames become a sample of the known equilibrium; the dataset says how, and its hash changes with them."""
    output = tmp_path / "weighted.h5"
    found = weigh(double_well, output, lag=1, clusters=12, resamples=10, quiet=True)
    with Dataset.open(output) as dataset, Dataset.open(double_well) as plain:
        molecule = dataset.only_molecule()
        weights, record = molecule.weights(), molecule.weights_record
        assert not plain.only_molecule().has_weights
        assert dataset.hash() != plain.hash()
    assert weights.mean() == pytest.approx(1.0)
    right = _right(output)
    assert np.average(right, weights=weights) == pytest.approx(_share_on_the_right(), abs=0.06)
    assert right.mean() < _share_on_the_right() - 0.1
    assert (record["lag_frames"], record["clusters"]) == (1, 12)
    # Every cluster weighs its stationary probability, whatever the number of its frames.
    assert len(np.unique(weights.round(9))) <= 12
    assert found.effective_frames == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    # Populations hardly depend on lag and clusters here, and a table says so.
    assert set(found.by_lag) == {1, 2, 3, 4, 5}
    for value in found.by_lag.values():
        assert value == pytest.approx(found.populations, abs=0.1)


def test_transitions_are_counted_within_trajectories(tmp_path):
    """Trajectories that alternate between the ends of the file, but each stay where they are, connect nothing."""
    rng = np.random.default_rng(3)
    series = [side + 0.1 * rng.standard_normal(20) for side in (-1.0, 1.0) * 20]
    path = _dataset(tmp_path / "apart.h5", series)
    with pytest.raises(InputError, match=r"clusters are not both reached from the others and left again: \d.*% of the"):
        markov_weights(path, clusters=4, quiet=True)
    found = markov_weights(path, clusters=4, quiet=True, drop_disconnected=True, resamples=5)
    assert 0.2 < found.lost < 0.8
    assert any("weigh nothing" in note for note in found.notes)
    assert np.isclose(np.concatenate(found.weights).mean(), 1.0)


def test_short_trajectories_are_refused_with_the_longest_lag(double_well):
    with pytest.raises(InputError, match=r"none of 400 trajectories is longer than the lag of 10 .* at most 9"):
        markov_weights(double_well, lag=10, quiet=True)


def test_a_lag_in_time_needs_the_time_between_frames(double_well, tmp_path):
    with pytest.raises(InputError, match="does not know; give the lag in frames"):
        markov_weights(double_well, lag="10 ns", quiet=True)
    series = _double_well(np.random.default_rng(5), 60, 10)
    timed = _dataset(tmp_path / "timed.h5", series, mapping={"frame_interval": "5 ns"})
    assert markov_weights(timed, lag="10 ns", clusters=4, resamples=2, quiet=True).lag == 2
    with pytest.raises(InputError, match="no whole multiple"):
        markov_weights(timed, lag="12 ns", clusters=4, resamples=2, quiet=True)


def test_weights_of_another_dataset_are_refused(double_well, tmp_path):
    found = markov_weights(double_well, clusters=6, resamples=2, quiet=True)
    other = _dataset(tmp_path / "other.h5", _double_well(np.random.default_rng(6), 400, 10))
    with pytest.raises(InputError, match="the weights belong to other frames"):
        found.write(other)
    # Nor may they be carried over behind our back.
    import h5py

    weighted = found.write(double_well, tmp_path / "weighted.h5")
    with h5py.File(weighted) as source, h5py.File(other, "a") as target:
        source.copy("molecules/dimer/weights", target["molecules/dimer"])
        target["molecules/dimer"].attrs["weights_record"] = source["molecules/dimer"].attrs["weights_record"]
    with Dataset.open(other) as dataset, pytest.raises(InputError, match="made for the frames of another dataset"):
        dataset.only_molecule().weights()


def test_weights_are_not_replaced_silently(double_well, tmp_path):
    output = tmp_path / "weighted.h5"
    settings = {"clusters": 6, "resamples": 2, "quiet": True}
    weigh(double_well, output, **settings)
    with pytest.raises(InputError, match="has frame weights already"):
        weigh(output, **settings)
    with pytest.raises(InputError, match="exists already"):
        weigh(double_well, output, **settings)
    with Dataset.open(output) as dataset:
        before = dataset.only_molecule().weights()
    weigh(output, overwrite=True, **settings | {"clusters": 4})
    with Dataset.open(output) as dataset:
        assert not np.array_equal(before, dataset.only_molecule().weights())


def test_the_command_reports_convergence(double_well, tmp_path):
    output = tmp_path / "weighted.h5"
    arguments = ["weights", str(double_well), "--clusters", "6", "--resamples", "3", "--quiet", "--output"]
    done = CliRunner().invoke(app, [*arguments, str(output)])
    assert done.exit_code == 0, done.output
    assert "populations by lag (frames)" in done.output
    assert "in equilibrium (95 % interval" in done.output
    assert output.is_file()
    shown = CliRunner().invoke(app, [*arguments, str(tmp_path / "again.h5"), "--json"])
    populations = json.loads(shown.stdout)["populations"]
    assert sum(one["value"] for one in populations.values()) == pytest.approx(1.0)


def test_chignolin_folds_half_of_the_time(shared, tmp_path):
    """31 % of the published frames are folded, 51 ± 2 % of the equilibrium by a Markov model of 10 ns."""
    folder = shared / "chignolin_ca_forces"
    dataset = map_trajectory(
        folder / "chignolin_ca_coords.npy",
        tmp_path / "chignolin.h5",
        topology=folder / "chignolin_ca_top.psf",
        resolution="calpha",
        temperature=350,
        length_unit="Å",
        trajectory_starts=folder / "chignolin_trajectory_starts.npy",
        frame_interval="10 ns",
        quiet=True,
    )
    with Dataset.open(dataset) as opened:
        assert len(opened.only_molecule().trajectory_lengths) == 3738
    found = markov_weights(dataset, lag="10 ns", native=folder / "chignolin_cln025.pdb", resamples=10, quiet=True)
    assert found.raw[-1] == pytest.approx(0.31, abs=0.01)
    assert 0.47 <= found.populations[-1] <= 0.55
    assert 0.005 < found.errors[-1] < 0.04
