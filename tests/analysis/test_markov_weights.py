"""Weights of adaptive sampling: known equilibria are found again, and what cannot be weighted is refused by name."""

import json

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from ase_cg import Dataset, InputError, map_trajectory, markov_weights
from ase_cg.analysis.equilibrium import EquilibriumFit
from ase_cg.analysis.kinetics import fit_markov_model
from ase_cg.analysis.markov_weights import weigh
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
    populations, _, intervals = fit.averages(sets, fit.draws(20))
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


def test_a_draw_is_a_model_of_the_trajectories_drawn():
    """Transitions of a trajectory that was drawn twice count twice, and none leads from one trajectory to the next."""
    rng = np.random.default_rng(4)
    series = [x[: rng.integers(1, 9)] for x in _two_states(rng, 80, 8, (0.2, 0.3))]  # some shorter than the lag
    fit = EquilibriumFit.of([x[:, None].astype(float) for x in series], 2, 2)
    draws = fit.draws(5)
    values = np.concatenate(series)[:, None].astype(float)
    for times, stationary, average in zip(draws.times, draws.stationary, draws.averages(values), strict=True):
        drawn = [s for s, n in zip(fit.states, times, strict=True) for _ in range(n)]
        model = fit_markov_model(drawn, 2, 2)
        assert stationary == pytest.approx(model.stationary, abs=1e-8)
        chosen = [x for x, n in zip(series, times, strict=True) for _ in range(n)]
        weights = np.concatenate(model.frame_weights(drawn))
        assert average[0] == pytest.approx(np.average(np.concatenate(chosen), weights=weights), abs=1e-8)


def test_short_trajectories_are_refused_with_the_longest_lag(double_well):
    with pytest.raises(InputError, match=r"none of 400 trajectories is longer than the lag of 10 .* at most 9"):
        markov_weights(double_well, lag=10, quiet=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lag": 1.5}, "the lag is a whole number of frames from 1"),
        ({"lag": 0}, "the lag is a whole number of frames from 1"),
        ({"clusters": 2.5}, "clusters must be a whole number"),
        ({"resamples": 1}, "resamples must be a whole number of at least 2"),
        ({"clusters": 3, "macrostates": 4}, "4 macrostates need at least as many clusters"),
        ({"seed": 2**60}, "seed must be below"),
        ({"clusters": 401}, "4000 frames are too few for 401 clusters; choose at most 400"),
    ],
)
def test_wrong_settings_are_one_sentence(double_well, settings, message):
    with pytest.raises(InputError, match=message):
        markov_weights(double_well, quiet=True, **settings)


def test_frames_that_show_nothing_are_refused(tmp_path):
    still = _dataset(tmp_path / "still.h5", np.ones((50, 6)))
    with pytest.raises(InputError, match="the same in all frames"):
        markov_weights(still, clusters=4, quiet=True)
    single = _dataset(tmp_path / "single.h5", np.random.default_rng(0).standard_normal((50, 1)))
    with pytest.raises(InputError, match=r"none of 50 trajectories .* single frames show no transitions"):
        markov_weights(single, clusters=4, quiet=True)


def test_any_average_comes_with_its_error(double_well):
    """⟨x⟩ of the double well, and a population: within 4 standard errors of the known, unlike the raw frames."""
    found = markov_weights(double_well, clusters=12, resamples=30, quiet=True)
    with Dataset.open(double_well) as dataset:
        x = dataset.only_molecule().coordinates()[:, 1, 0] - 6.0
    grid = np.linspace(-4, 4, 8001)
    p = np.exp(-(2.5 * (grid**2 - 1) ** 2 - 0.4 * grid))
    truths = (grid * p).sum() / p.sum(), _share_on_the_right()
    for values, truth in zip((x, x > 0), truths, strict=True):
        (value,), (error,), ((low, high),) = found.average(values)
        assert abs(value - truth) < 4 * error
        assert abs(values.mean() - truth) > 4 * error
        assert low < value < high
        assert (high - low) / error == pytest.approx(2 * 1.96, rel=0.15)
    both = found.average(np.stack([x, x > 0], axis=1))
    assert both.errors[1] == pytest.approx(found.average(x > 0).errors[0])
    for wrong in (x[:-1], np.full(len(x), np.nan)):
        with pytest.raises(InputError, match="values"):
            found.average(wrong)


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
    weighted = found.write(double_well, tmp_path / "weighted.h5")
    with h5py.File(weighted) as source, h5py.File(other, "a") as target:
        source.copy("molecules/dimer/weights", target["molecules/dimer"])
        target["molecules/dimer"].attrs["weights_record"] = source["molecules/dimer"].attrs["weights_record"]
    with Dataset.open(other) as dataset, pytest.raises(InputError, match="made for the frames of another dataset"):
        dataset.only_molecule().weights()


@pytest.mark.parametrize("place", [(0, 1, 0), (1234, 1, 0), (3999, 0, 2)])
def test_weights_of_changed_frames_are_refused(double_well, tmp_path, place):
    """One coordinate that changed afterwards, at whatever place, makes them weights of other frames."""
    weighted = weigh(double_well, tmp_path / "w.h5", clusters=6, resamples=2, quiet=True)
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file["molecules/dimer/coordinates"][place] += 1e-3
    with Dataset.open(tmp_path / "w.h5") as dataset, pytest.raises(InputError, match="frames of another dataset"):
        dataset.only_molecule().weights()
    with pytest.raises(InputError, match="the weights belong to other frames"):
        weighted.write(tmp_path / "w.h5", overwrite=True)


@pytest.mark.parametrize("record", ["{x", "[1]"])
def test_a_damaged_record_is_one_sentence(double_well, tmp_path, record):
    weigh(double_well, tmp_path / "w.h5", clusters=6, resamples=2, quiet=True)
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file["molecules/dimer"].attrs["weights_record"] = record
    with Dataset.open(tmp_path / "w.h5") as dataset, pytest.raises(InputError, match="record of its weights is dam"):
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
