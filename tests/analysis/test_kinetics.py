"""Slow coordinates and Markov models: what deeptime gives when it is used directly, and exact values."""

import numpy as np
import pytest

from ase_cg import InputError, map_trajectory
from ase_cg.analysis import sources
from ase_cg.analysis.features import pair_distances
from ase_cg.analysis.kinetics import (
    assign,
    fit_clusters,
    fit_markov_model,
    implied_timescales,
    macrostate_populations,
    macrostates_of,
)
from ase_cg.analysis.macrostates import StateSpace, kinetics_of
from ase_cg.analysis.slow_coordinates import FeatureSet, fit_pca, fit_tica, project
from ase_cg.analysis.sources import open_source

LAG = 10


@pytest.fixture(scope="module")
def source(shared, tmp_path_factory):
    folder = shared / "chignolin_all_atom"
    path = map_trajectory(
        [folder / f"traj_{i}.dcd" for i in range(3)],
        tmp_path_factory.mktemp("chignolin") / "calpha.h5",
        topology=folder / "traj_0.pdb",
        resolution="calpha",
        temperature=300,
        quiet=True,
    )
    return open_source(path, "reference")


def test_tica_msm_and_pcca_are_those_of_a_direct_deeptime_script(source, monkeypatch):
    from deeptime.clustering import ClusterModel
    from deeptime.decomposition import TICA
    from deeptime.markov import TransitionCountEstimator
    from deeptime.markov.msm import MaximumLikelihoodMSM

    pairs = [(i, j) for i in range(10) for j in range(i + 1, 10)]
    data = [pair_distances(next(iter(source.chunks((piece,))))[1], pairs) for piece in source.pieces]
    tica = TICA(lagtime=LAG, dim=2).fit(data).fetch_model()
    monkeypatch.setattr(sources, "chunk_frames", lambda _: 170)  # streamed in pieces, over which pairs reach
    slow = fit_tica(source, FeatureSet.of(source.topology), LAG, 2)
    ours = project(source, slow)
    theirs = [tica.transform(x) for x in data]
    sign = np.sign((ours[0] * theirs[0]).sum(0))
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one - sign * other).max() < 1e-8
    assert slow.timescales == pytest.approx(tica.timescales()[:2], rel=1e-8)

    centers = fit_clusters(ours, 80)
    states = assign(ours, centers)
    discrete = [ClusterModel(centers).transform(x) for x in ours]
    for one, other in zip(states, discrete, strict=True):
        assert np.array_equal(one, other)
    model = fit_markov_model(states, LAG, len(centers))
    counts = TransitionCountEstimator(LAG, "sliding").fit_fetch(discrete).submodel_largest()
    msm = MaximumLikelihoodMSM().fit_fetch(counts)
    assert model.states.tolist() == counts.state_symbols.tolist()
    assert np.abs(model.msm.transition_matrix - msm.transition_matrix).max() < 1e-8
    assert np.abs(model.stationary[model.states] - msm.stationary_distribution).max() < 1e-8
    assert model.timescales() == pytest.approx(msm.timescales()[:3], rel=1e-8)
    pcca = msm.pcca(2)
    macrostates = macrostates_of(model, centers, 2)
    assert len(set(zip(macrostates[model.states], pcca.assignments, strict=True))) == 2
    expected = sorted((msm.stationary_distribution[pcca.assignments == i].sum() for i in range(2)), reverse=True)
    assert macrostate_populations(model, macrostates, 2) == pytest.approx(expected, abs=1e-8)


def two_states(rng, lengths, stay=(0.98, 0.94)):
    """Trajectories of a chain of two states with known equilibrium and timescale."""
    found = []
    for length in lengths:
        state, draws = int(rng.random() > 0.75), rng.random(length)
        path = np.empty(length, dtype=np.int64)
        for frame in range(length):
            path[frame] = state
            state = state if draws[frame] < stay[state] else 1 - state
        found.append(path)
    return found


def test_a_chain_of_two_states_has_its_exact_timescale_and_populations():
    states = two_states(np.random.default_rng(0), [3000] * 10)
    model = fit_markov_model(states, 2, 2)
    assert model.stationary == pytest.approx([0.75, 0.25], abs=0.02)
    assert model.timescales(1)[0] == pytest.approx(-1 / np.log(0.92), rel=0.1)
    macrostates = macrostates_of(model, np.array([[0.0], [1.0]]), 2)
    assert macrostates.tolist() == [0, 1]
    found = implied_timescales(states, model, macrostates)
    assert found.lags == (2, 4, 6, 8, 10)
    assert found.timescales[:, 0] == pytest.approx(np.full(5, -1 / np.log(0.92)), rel=0.12)
    assert found.largest_deviation < 0.02
    weights = model.frame_weights(states)
    assert sum(w.sum() for w in weights) == pytest.approx(1)
    assert sum(w[s == 0].sum() for w, s in zip(weights, states, strict=True)) == pytest.approx(model.stationary[0])


def test_errors_of_a_markov_model_are_the_spread_over_independent_simulations():
    """Also of a few long trajectories, which are cut."""
    space = StateSpace(np.array([[0.0], [1.0]]), np.array([0, 1]), 1)
    for lengths in ([200] * 20, [2000] * 2):
        found = []
        for seed in range(24):
            states = two_states(np.random.default_rng(seed), lengths)
            found.append(kinetics_of(states, space, 2, frame_interval=None, temperature=None))
        for values, errors in (
            ([k.populations[1] for k in found], [k.population_errors[1] for k in found]),
            ([k.timescales[0] for k in found], [k.timescale_errors[0] for k in found]),
            ([k.free_energy for k in found], [k.free_energy_error for k in found]),
        ):
            assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values, ddof=1), rel=0.4)


def test_biased_starts_are_undone_by_the_weights_of_the_markov_model():
    """Short trajectories that all start in the rare state count it too often; their transitions do not."""
    rng = np.random.default_rng(1)
    states = []
    for _ in range(400):
        path = two_states(rng, [60])[0]
        start = np.flatnonzero(path == 1)
        states.append(path[start[0] : start[0] + 20] if len(start) else path[:0])
    counted = np.bincount(np.concatenate(states)) / sum(map(len, states))
    model = fit_markov_model(states, 1, 2)
    assert counted[1] > 0.5
    assert model.stationary == pytest.approx([0.75, 0.25], abs=0.05)


def test_disconnected_states_are_named_and_have_no_weight():
    states = [*two_states(np.random.default_rng(0), [500] * 3), np.full(50, 2), np.full(30, 4)]
    model = fit_markov_model(states, 2, 5)
    assert model.disconnected == (2, 4)
    assert model.stationary[[2, 3, 4]].tolist() == [0, 0, 0]
    assert macrostates_of(model, np.arange(5.0)[:, None], 2)[[2, 4]].tolist() == [1, 1]  # those of the nearest
    assert model.frame_weights(states)[3].sum() == 0


def test_trajectories_shorter_than_the_lag_are_told(source):
    with pytest.raises(InputError, match=r"shorter than the lag of 800 frames \(the longest has 800\)"):
        fit_tica(source, FeatureSet.of(source.topology), 800)
    with pytest.raises(InputError, match=r"shorter than the lag of 5 frames \(the longest has 4\)"):
        fit_markov_model([np.zeros(4, dtype=np.int64)], 5, 1)
    with pytest.raises(InputError, match="the lag is a whole number of frames from 1, not 0"):
        fit_tica(source, FeatureSet.of(source.topology), 0)


def test_principal_components_have_unit_variance_and_are_independent(source):
    found = np.concatenate(project(source, fit_pca(source, FeatureSet.of(source.topology))))
    assert np.cov(found.T, bias=True) == pytest.approx(np.eye(2), abs=1e-9)
