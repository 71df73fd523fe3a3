"""Comparisons of several models: known answers, weights, what is left out and said."""

import json

import numpy as np
import pytest

from ase_cg import InputError
from ase_cg.analysis import analyze, jensen_shannon, pareto_front
from ase_cg.analysis.table import markdown_table
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.dynamics.trajectory import write_trajectory

N = 6
CHAIN = BeadTopology(
    ("ALA",) * N, ("ALA",) * N, tuple(range(1, N + 1)), (0,) * N, (12.0,) * N, tuple((i, i + 1) for i in range(N - 1))
)
STAY = (0.98, 0.94)  # of the open and the closed state; three frames of four are open in equilibrium


def frames_of(states, rng, noise=0.1):
    """Chains that are open (0) or closed (1), shaken."""
    turn = np.where(states == 0, 0.35, 1.0)[:, None] * np.arange(N)
    steps = 3.8 * np.stack([np.cos(turn), np.sin(turn), np.full(turn.shape, 0.3)], -1)
    return (np.cumsum(steps, 1) + noise * rng.standard_normal((len(states), N, 3))).astype(np.float32)


def states_of(rng, length, start=None):
    """A trajectory of the two states."""
    draws, state = rng.random(length), int(rng.random() > 0.75) if start is None else start
    path = np.empty(length, dtype=np.int64)
    for frame in range(length):
        path[frame] = state
        state = state if draws[frame] < STAY[state] else 1 - state
    return path


def write_dataset(path, trajectories, weights=None, topology=CHAIN):
    options = {"temperature": 300.0, "resolution": "calpha", "weighted": weights is not None}
    with create_dataset(path) as dataset, dataset.molecule("m", topology, **options) as molecule:
        for number, x in enumerate(trajectories):
            molecule.next_trajectory()
            molecule.append(x, weights=None if weights is None else weights[number])
    return path


def write_simulation(folder, trajectories, topology=CHAIN, **record):
    folder.mkdir()
    for replica, x in enumerate(trajectories):
        write_trajectory(folder / f"replica_{replica:03d}.h5", x, 0.5 * np.arange(len(x)), topology)
    record = {"replicas": len(trajectories), "temperature": 300.0} | record
    (folder / "simulation.json").write_text(json.dumps(record))
    return folder


def sample(seed, count, length, noise=0.1):
    rng = np.random.default_rng(seed)
    return [frames_of(states_of(rng, length), rng, noise) for _ in range(count)]


OPTIONS = {"bins": 12, "discard": 0.0, "lag": 2, "clusters": 20, "quiet": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def reference(folder):
    return write_dataset(folder / "reference.h5", sample(0, 40, 300))


@pytest.fixture(scope="module")
def simulation(folder):
    return write_simulation(folder / "good", sample(1, 12, 400))


@pytest.fixture(scope="module")
def native(folder):
    """The closed state, as a PDB."""
    import mdtraj

    path = folder / "native.pdb"
    closed = frames_of(np.ones(1, dtype=int), np.random.default_rng(0), 0.0)
    mdtraj.Trajectory(closed / 10, CHAIN.to_mdtraj()).save(str(path))
    return path


def test_a_distribution_against_itself_is_zero(reference):
    found = analyze(reference, reference, **OPTIONS)
    for name, figure in found.rows["model"].items():
        assert figure["value"] == 0, name
    assert all(value == 0 for kind in found.features["model"].values() for value in kind["value"])


def test_a_second_sample_of_the_reference_is_at_the_floor(folder, reference):
    """At the same number of independent frames a perfect model is as far from the reference as its own halves."""
    found = [
        analyze(write_dataset(folder / f"again{number}.h5", sample(number, 40, 300)), reference, **OPTIONS).rows
        for number in range(10, 14)
    ]
    for name in ("pmf_error_kT", "jensen_shannon_nats", "radius_of_gyration_jensen_shannon_nats"):
        floor = found[0]["floor"][name]["value"]
        assert np.mean([rows["model"][name]["plug_in_at_floor"] for rows in found]) == pytest.approx(floor, rel=0.35)
        # All frames have half of the noise of halves.
        power = 0.5 if name == "pmf_error_kT" else 1
        plug_in = np.mean([rows["model"][name]["plug_in"] for rows in found])
        assert plug_in == pytest.approx(0.5**power * floor, rel=0.45)
        assert all(rows["model"][name]["interval"][0] == 0 for rows in found)
        assert np.mean([rows["model"][name]["value"] for rows in found]) < 0.5 * plug_in


def test_kinetics_of_model_and_reference_agree_with_what_made_them(reference, simulation, native):
    found = analyze(simulation, reference, native=native, **OPTIONS)
    exact = -1 / np.log(sum(STAY) - 1)
    for name in ("reference", "model"):
        kinetics = found.kinetics[name]
        assert abs(kinetics.timescales[0] - exact) < 4 * kinetics.timescale_errors[0]
        assert kinetics.timescale_errors[0] < 0.3 * exact
        assert abs(kinetics.populations[0] - 0.75) < 4 * kinetics.population_errors[0]
        assert kinetics.free_energy == pytest.approx(np.log(3), abs=4 * kinetics.free_energy_error)
        assert kinetics.implied.largest_deviation < 0.08
    assert found.space.native == 1  # the closed state is the rarer one
    data = found.to_dict()["kinetics"]["model"]
    assert data["frame_interval_ps"] == 0.5
    assert data["folding_free_energy_kcal_per_mol"] == pytest.approx(0.596 * data["folding_free_energy_kT"], rel=1e-3)
    rmsd = np.concatenate(found.reference.series["rmsd"])
    assert np.mean(rmsd < 1.0) == pytest.approx(0.25, abs=0.06)


def biased(folder, name, weights=False):
    """A reference that is closed in three frames of four instead of one, and the weights that undo it."""
    rng = np.random.default_rng(5)
    states = [(rng.random(200) < 0.75).astype(int) for _ in range(20)]
    w = [np.where(s == 0, 3.0, 1 / 3) for s in states] if weights else None
    return write_dataset(folder / name, [frames_of(s, rng) for s in states], w)


def test_frame_weights_of_the_reference_undo_its_bias(folder, simulation):
    plain = analyze(simulation, biased(folder, "biased.h5"), **OPTIONS)
    weighted = analyze(simulation, biased(folder, "weighted.h5", weights=True), **OPTIONS)
    figures = ("jensen_shannon_nats", "radius_of_gyration_wasserstein_A", "angle_wasserstein_rad")
    for figure in figures:
        assert weighted.rows["model"][figure]["value"] < 0.2 * plain.rows["model"][figure]["value"]
    assert weighted.reference.convergence.effective_samples < 0.8 * plain.reference.convergence.effective_samples
    assert any("as good as independent" in note for note in weighted.notes)


def test_markov_weights_undo_starts_that_are_out_of_equilibrium(folder, simulation):
    rng = np.random.default_rng(7)
    short = [frames_of(states_of(rng, 25, start=1), rng) for _ in range(500)]
    path = write_dataset(folder / "short.h5", short)
    plain, weighted = (analyze(simulation, path, **OPTIONS | {"reweight": how}) for how in ("none", "reference"))
    assert plain.reference.weights is None
    for figure in ("jensen_shannon_nats", "radius_of_gyration_wasserstein_A"):
        assert weighted.rows["model"][figure]["value"] < 0.3 * plain.rows["model"][figure]["value"]
    assert weighted.model.weights is None


def test_several_models_in_one_table_with_their_pareto_front(folder, reference, simulation):
    blurred = write_simulation(folder / "blurred", sample(2, 12, 400, noise=0.3))
    rng = np.random.default_rng(4)
    closed = [frames_of(np.ones(400, dtype=int), rng) for _ in range(12)]
    stuck = write_simulation(folder / "stuck", closed)
    found = analyze({"good": simulation, "blurred": blurred, "stuck": stuck}, reference, **OPTIONS)
    assert list(found.rows) == ["good", "blurred", "stuck", "floor"]
    assert found.pareto[0] == "good"
    assert "blurred" not in found.pareto
    assert list(analyze([simulation, blurred], reference, **OPTIONS).models) == ["good", "blurred"]
    with pytest.raises(InputError, match="two simulations are called 'good'"):
        analyze([simulation, simulation], reference, **OPTIONS)
    with pytest.raises(InputError, match="cannot be called 'floor'"):
        analyze({"floor": simulation}, reference, **OPTIONS)


def test_pareto_front_by_hand():
    points = {"a": (1.0, 5.0), "b": (2.0, 2.0), "c": (3.0, 3.0), "d": (4.0, 1.0), "e": (2.0, 2.0)}
    rows = {k: {"pmf_error_kT": {"value": x}, "bond_wasserstein_A": {"value": y}} for k, (x, y) in points.items()}
    rows["f"] = {"pmf_error_kT": {"value": None}, "bond_wasserstein_A": {"value": 0.0}}
    assert pareto_front(rows) == ["a", "b", "e", "d"]


# Bad input: the rest is analyzed, and it is said what was left out.


def said(found, *words):
    return any(all(word in note for word in words) for note in found.notes)


def test_an_exploded_replica_is_left_out(folder, reference):
    trajectories = sample(1, 12, 200)
    trajectories[3] = trajectories[3].copy()
    trajectories[3][150:] *= 50
    trajectories[5] = trajectories[5].copy()
    trajectories[5][20, 2] = np.nan
    failed = [{"replica": 7, "step": 90, "reason": "bead 2 exploded"}]
    path = write_simulation(folder / "exploded", trajectories, failures=failed)
    found = analyze(path, reference, **OPTIONS)
    assert found.model.frames == 9 * 200
    assert said(found, "model: trajectory 3 exploded", "at frame 150", "left out")
    assert said(found, "model: trajectory 5 holds positions that are no numbers from frame 20 on")
    assert said(found, "model: replica 7 failed at step 90: bead 2 exploded")
    whole = write_simulation(folder / "whole", [x for n, x in enumerate(trajectories) if n not in {3, 5, 7}])
    assert found.rows["model"] == analyze(whole, reference, **OPTIONS).rows["model"]
    torn = write_simulation(folder / "torn", [50 * x for x in trajectories[:2]])
    with pytest.raises(InputError, match="torn holds no sound trajectory: trajectory 0 exploded"):
        analyze(torn, reference, **OPTIONS)
    both = analyze({"torn": torn, "whole": whole}, reference, **OPTIONS)
    assert list(both.models) == ["whole"]
    assert said(both, "torn is left out")


def test_other_beads_are_named_and_of_several_models_only_that_one_is_left_out(folder, reference, simulation):
    other = BeadTopology(
        ("ALA",) * 5 + ("GLY",),
        ("ALA",) * 5 + ("GLY",),
        *(getattr(CHAIN, k) for k in ("residue_numbers", "chains", "masses", "bonds")),
    )
    path = write_simulation(folder / "other", sample(1, 3, 50), other)
    with pytest.raises(InputError, match=r"other has GLY:CA as bead 5 \(counted from 0\), the reference has ALA:CA"):
        analyze(path, reference, **OPTIONS)
    found = analyze({"other": path, "good": simulation}, reference, **OPTIONS)
    assert list(found.models) == ["good"]
    assert said(found, "other is left out", "GLY:CA")


def test_trajectories_shorter_than_the_lag_have_no_markov_model_and_the_rest_is_there(folder, reference, simulation):
    path = write_simulation(folder / "brief", sample(1, 30, 40))
    found = analyze(path, reference, **OPTIONS | {"model_lag": 60})
    assert said(found, "model has no Markov model", "shorter than the lag of 60 frames (the longest has 40)")
    assert found.rows["model"]["pmf_error_kT"]["plug_in"] > 0
    assert set(found.kinetics) == {"reference"}
    found = analyze(simulation, reference, **OPTIONS | {"lag": 300})
    assert said(found, "not analyzed as a time series", "shorter than the lag of 300 frames (the longest has 300)")
    assert found.main == "pca"
    assert found.kinetics == {}


def test_frames_that_are_no_time_series_are_found_out(folder, simulation):
    rng = np.random.default_rng(9)
    mixed = np.concatenate(sample(0, 10, 300))
    path = write_dataset(folder / "mixed.h5", [rng.permutation(mixed)])
    found = analyze(simulation, path, **OPTIONS)
    assert said(found, "not analyzed as a time series", "as good as independent")
    assert found.main == "pca"


def test_disconnected_states_are_said(folder, reference):
    rng = np.random.default_rng(2)
    stuck = [frames_of(np.full(200, number % 2), rng) for number in range(10)]
    found = analyze(write_simulation(folder / "apart", stuck), reference, **OPTIONS)
    assert said(found, "model: cluster", "not connected by transitions both ways", "macrostate")
    assert found.kinetics["model"].population_errors.max() <= 0.5
    assert said(found, "model is not converged", "halves of trajectories differ")


def test_the_floor_is_that_of_trajectories_not_of_single_frames(folder, reference):
    """Frames of a trajectory resemble each other: halves of shuffled frames are far too much alike."""
    found = analyze(reference, reference, **OPTIONS)
    floor = found.rows["floor"]["radius_of_gyration_jensen_shannon_nats"]["value"]
    values = np.concatenate(found.reference.series["radius_of_gyration"])
    rng, edges = np.random.default_rng(0), np.linspace(values.min(), values.max(), 51)
    shuffled = []
    for _ in range(30):
        halves = np.array_split(rng.permutation(values), 2)
        shuffled.append(jensen_shannon(*(np.histogram(x, edges)[0] / len(x) for x in halves)))
    assert floor > 1.3 * np.mean(shuffled)
    independent = [jensen_shannon(*(np.histogram(x, edges)[0] / len(x) for x in halves_of(seed))) for seed in range(6)]
    assert floor == pytest.approx(np.mean(independent), rel=0.5)
    assert "floor: halves of the reference (40 trajectories)" in markdown_table(found)


def halves_of(seed):
    """The radius of gyration of twenty trajectories and of twenty others."""
    mass = np.full(N, 1 / N)
    found = []
    for number in (0, 1):
        x = np.concatenate(sample(100 + 2 * seed + number, 20, 300))
        found.append(np.sqrt(((x - x.mean(1, keepdims=True)) ** 2).sum(-1) @ mass))
    return found


def test_too_few_trajectories_have_an_interval_only_where_blocks_of_time_are_longer_than_the_relaxation(
    folder, reference
):
    brief = analyze(write_simulation(folder / "short_one", sample(1, 1, 300)), reference, **OPTIONS)
    assert brief.rows["model"]["bond_wasserstein_A"]["interval"] is None
    assert said(brief, "model has no intervals of", "bond_wasserstein_A", "blocks of time are shorter than the relax")
    long = analyze(write_simulation(folder / "long_one", sample(1, 1, 6000)), reference, **OPTIONS)
    assert long.rows["model"]["bond_wasserstein_A"]["interval"] is not None
    assert "blocks of time" not in " ".join(long.notes)


def test_too_few_independent_frames_have_no_interval_and_it_is_said(folder, reference):
    found = analyze(write_simulation(folder / "scant", sample(1, 12, 15)), reference, **OPTIONS | {"bins": 100})
    cell = found.rows["model"]["jensen_shannon_nats"]
    assert cell["interval"] is None
    assert cell["plug_in"] > 0
    assert "too few independent frames for the bins" in cell["doubt"]
    assert said(found, "model has no intervals of", "jensen_shannon_nats", "filled bins need")
    assert "(no interval)" in markdown_table(found)
    assert found.to_dict()["rows"]["model"]["jensen_shannon_nats"]["doubt"] == cell["doubt"]
    assert found.rows["model"]["bond_wasserstein_A"]["interval"] is not None  # it does not depend on the grid


def test_the_error_of_common_bins_has_no_interval_and_says_why(reference, simulation):
    cell = analyze(simulation, reference, **OPTIONS).rows["model"]["pmf_error_common_kT"]
    assert cell["value"] is not None
    assert cell["interval"] is None
    assert "chosen from the same frames" in cell["doubt"]


def test_too_few_frames_for_the_grid_and_no_native_structure_are_said(reference, simulation):
    found = analyze(simulation, reference, **OPTIONS | {"bins": 200})
    assert said(found, "too few frames for the grid of 200 × 200", "--bins")
    assert said(found, "no native structure was given")
    assert "rmsd" not in found.reference.series
    assert found.kinetics["model"].free_energy is None


def test_empty_runs_and_wrong_settings_are_one_sentence(folder, reference, simulation, native):
    empty = write_simulation(folder / "empty", [np.empty((0, N, 3), dtype=np.float32)] * 2)
    with pytest.raises(InputError, match="holds no frames to analyze: trajectory 0 has no frames"):
        analyze(empty, reference, **OPTIONS)
    partly = write_simulation(folder / "partly", [*sample(1, 9, 100), np.empty((0, N, 3), dtype=np.float32)])
    assert said(analyze(partly, reference, **OPTIONS), "model: trajectory 9 has no frames")
    for change, message in (
        ({"lag": -1}, "lag must be at least 0"),
        ({"model_lag": 0}, "model_lag must be at least 1 frame"),
        ({"clusters": 1}, "^clusters must be at least 2"),
        ({"macrostates": 50}, "50 macrostates need at least as many clusters"),
        ({"structure": folder / "none.pdb"}, "a structure is used by --backmap"),
        ({"backmap": 2, "structure": folder / "none.pdb"}, r"none\.pdb does not exist"),
        ({"reweight": "al"}, "reweight is one of none, reference, all"),
        ({"native": folder / "none.pdb"}, r"none\.pdb does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            analyze(simulation, reference, **OPTIONS | change)
    with pytest.raises(InputError, match="holds no simulation"):
        analyze(simulation, reference, prior_simulation=folder / "nowhere", **OPTIONS)
    trained = write_simulation(folder / "trained", sample(1, 2, 30), prior_only=False)
    with pytest.raises(InputError, match="was simulated with the network"):
        analyze(simulation, reference, prior_simulation=trained, **OPTIONS)
    with pytest.raises(InputError, match=r"native\.pdb is neither a dataset \(\.h5\) nor a folder"):
        analyze(simulation, native, **OPTIONS)
    with pytest.raises(InputError, match="is a simulation; give a dataset"):
        analyze(simulation, simulation, **OPTIONS)
    with pytest.raises(InputError, match="no simulation was given"):
        analyze([], reference, **OPTIONS)
