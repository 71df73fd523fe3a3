"""Figures of an analysis on known ground: which surface, mirror images, periodic angles, masses, blocks, errors."""

import mdtraj
import numpy as np
import pytest

from ase_cg import InputError
from ase_cg.analysis import analyze
from ase_cg.analysis.descriptions import describe_figure
from ase_cg.analysis.ensembles import blocks_of
from ase_cg.analysis.macrostates import StateSpace, kinetics_of
from ase_cg.analysis.report import html_report
from ase_cg.analysis.sources import Piece
from ase_cg.analysis.write import figures_of
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset_writer import create_dataset
from tests.analysis.test_kinetics import two_states

N = 8
OPTIONS = {"bins": 10, "discard": 0.0, "lag": 2, "clusters": 10, "quiet": True}
SURFACE = "rmsd_radius_of_gyration"


def chain(n=N, masses=None):
    """Cα beads in a row."""
    bonds = tuple((i, i + 1) for i in range(n - 1))
    return BeadTopology(("ALA",) * n, ("ALA",) * n, tuple(range(1, n + 1)), (0,) * n, masses or (12.0,) * n, bonds)


def helix(turn, rise):
    t = np.radians(turn) * np.arange(N)
    return np.stack([2.3 * np.cos(t), 2.3 * np.sin(t), rise * np.arange(N)], 1)


def sample(seed, count=12, length=120):
    """Trajectories that jump between a helix and a strand: three frames of four are the helix."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        strand, draws = np.empty(length, dtype=bool), rng.random(length)
        state = rng.random() < 0.25
        for frame in range(length):
            strand[frame] = state
            state = state ^ (draws[frame] < (0.15 if state else 0.05))
        x = np.where(strand[:, None, None], helix(165, 3.0), helix(100, 1.5))
        found.append((x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32))
    return found


def write(path, trajectories, topology=None, weights=None):
    options = {"temperature": 300.0, "resolution": "calpha", "weighted": weights is not None}
    with create_dataset(path) as dataset, dataset.molecule("m", topology or chain(), **options) as molecule:
        for number, x in enumerate(trajectories):
            molecule.next_trajectory()
            molecule.append(x, weights=None if weights is None else weights[number])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ground")


@pytest.fixture(scope="module")
def paths(folder):
    """A reference, a sample of the same ensemble, its mirror image, and the native structure."""
    same = sample(1)
    native = folder / "native.pdb"
    mdtraj.Trajectory(helix(100, 1.5)[None] / 10, chain().to_mdtraj()).save(str(native))
    return {
        "reference": write(folder / "reference.h5", sample(0)),
        "same": write(folder / "same.h5", same),
        "mirror": write(folder / "mirror.h5", [x * np.float32([1, 1, -1]) for x in same]),
        "native": native,
    }


def test_the_surface_is_the_one_that_is_named_and_sees_mirror_images(paths):
    models = {name: paths[name] for name in ("same", "mirror")}
    found = analyze(models, paths["reference"], native=paths["native"], surface=SURFACE, **OPTIONS)
    data = found.to_dict()
    assert found.main == data["main_surface"] == SURFACE
    assert data["definitions"]["surface"] == f"{SURFACE}: RMSD from the native structure and radius of gyration"
    assert data["surfaces"][SURFACE]["labels"] == ["RMSD / Å", "radius of gyration / Å"]
    low, high = data["surfaces"][SURFACE]["ranges"][0]
    assert low < 0.3  # RMSD of the helix in Å
    assert high > 3  # and of the strand
    assert f"surface: {SURFACE}" in html_report(found, {})
    assert next(iter(figures_of(found))) == SURFACE
    assert "RMSD from the native structure and radius of gyration" in describe_figure(found, SURFACE)
    # The surface is that of these two figures of single frames, counted here by hand.
    series = found.ensembles["same"].series
    plane = found.planes[SURFACE]
    points = [np.concatenate(series[name]) for name in ("rmsd", "radius_of_gyration")]
    by_hand = np.histogram2d(*points, bins=[plane.x_edges, plane.y_edges])[0] / len(points[0])
    assert found.ensembles["same"].surfaces[SURFACE].probabilities()[:-1] == pytest.approx(by_hand.ravel(), abs=1e-12)
    rows = found.rows
    assert rows["same"]["jensen_shannon_nats"]["value"] < 0.02
    assert rows["mirror"]["jensen_shannon_nats"]["value"] > 0.3
    # Distances are those of the mirror image, so that slow coordinates of them see nothing; dihedrals do.
    one, other = (rows[name]["tica_jensen_shannon_nats"]["value"] for name in ("same", "mirror"))
    assert one == pytest.approx(other, abs=1e-3)
    assert rows["mirror"]["dihedral_wasserstein_rad"]["value"] > 10 * rows["same"]["dihedral_wasserstein_rad"]["value"]
    assert [note for note in found.notes if "mirror image" in note] == [
        note for note in found.notes if note.startswith("mirror looks like a mirror image: ")
    ]
    assert any(note.startswith("mirror looks like") for note in found.notes)


def test_a_surface_of_distances_says_that_it_cannot_see_mirror_images(paths):
    found = analyze(paths["same"], paths["reference"], **OPTIONS)
    assert found.main == found.to_dict()["main_surface"] == "tica"
    assert any("the surface of the table (tica) is one of distances" in note for note in found.notes)
    assert not any("looks like" in note for note in found.notes)
    assert analyze(paths["same"], paths["reference"], surface="pca", **OPTIONS | {"lag": 0}).main == "pca"


def test_the_command_chooses_the_surface(paths, folder):
    from typer.testing import CliRunner

    from ase_cg.cli.main import app

    common = ["analyze", str(paths["same"]), "-r", str(paths["reference"]), "-o", str(folder / "cli"), "--surface"]
    found = CliRunner().invoke(app, [*common, SURFACE])
    assert found.exit_code != 0
    assert f"the surface {SURFACE} needs a native structure (--native)" in str(found.exception) + found.output
    assert not (folder / "cli").exists()


def test_weights_that_contradict_the_markov_model_are_said(paths, folder):
    """Weights that make the rarer state, the strand, the more probable one are not those of this dynamics."""
    trajectories = sample(0)
    end_to_end = [np.linalg.norm(x[:, -1] - x[:, 0], axis=-1) for x in trajectories]
    weights = [np.where(length > 15, 12.0, 1.0) for length in end_to_end]
    wrong = write(folder / "wrong.h5", trajectories, weights=weights)
    found = analyze(paths["same"], wrong, **OPTIONS)
    said = [note for note in found.notes if note.startswith("reference: by the weights of its frames macrostate")]
    assert len(said) == 1
    assert "do not trust the kinetics" in said[0]
    kinetics = found.kinetics["reference"]
    assert kinetics.populations[0] == pytest.approx(0.75, abs=0.08)
    assert kinetics.counted[0] < 0.35
    right = write(folder / "right.h5", trajectories, weights=[np.full(len(x), 0.3) for x in trajectories])
    assert not any("by the weights" in note for note in analyze(paths["same"], right, **OPTIONS).notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"surface": "rg"},
            r"there is no surface 'rg'; choose one of ramachandran \(needs residues .*\); tica \(needs ",
        ),
        ({"surface": SURFACE}, rf"the surface {SURFACE} needs a native structure \(--native\)"),
        ({"surface": "tica", "lag": 0}, r"the surface tica needs a reference whose frames are a time series"),
        ({"surface": "ramachandran"}, r"ramachandran needs residues with the beads .*; here there are tica"),
    ],
)
def test_a_surface_that_is_not_there_is_refused_with_those_that_are(paths, options, message):
    with pytest.raises(InputError, match=message):
        analyze(paths["same"], paths["reference"], **OPTIONS | options)


def dihedral_chain(rng, centre, frames=60):
    """Four beads whose dihedral is narrow about a centre in degrees."""
    angle = np.radians(centre + 0.2 * rng.standard_normal(frames))
    x = np.zeros((frames, 4, 3))
    x[:, 0] = [-1.0, 3.0, 0.0]
    x[:, 2] = [3.8, 0.0, 0.0]
    x[:, 3] = np.stack([np.full(frames, 4.8), 3 * np.cos(angle), 3 * np.sin(angle)], 1)
    return x.astype(np.float32)


def test_dihedrals_at_179_and_minus_179_degrees_differ_by_two(tmp_path):
    rng = np.random.default_rng(0)
    one, other = (
        write(tmp_path / f"{centre}.h5", [dihedral_chain(rng, centre) for _ in range(10)], chain(4))
        for centre in (179, -179)
    )
    found = analyze(other, one, **OPTIONS | {"lag": 0})
    row = found.rows["model"]["dihedral_wasserstein_rad"]
    assert np.degrees(row["value"]) == pytest.approx(2.0, abs=0.2)
    assert np.degrees(row["interval"][1]) < 3


def test_the_radius_of_gyration_is_that_of_the_masses(tmp_path):
    """Beads of 1, 2, 3 and 6 amu at 0, 3, 6 and 9 Å: centre 6.5 Å, Σm(x − 6.5)² = 99/12 a unit of mass."""
    masses = (1.0, 2.0, 3.0, 6.0)
    x = np.zeros((40, 4, 3), dtype=np.float32)
    x[:, :, 0] = [0, 3, 6, 9]
    x += 1e-4 * np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    path = write(tmp_path / "m.h5", [x], chain(4, masses))
    found = analyze(path, path, **OPTIONS | {"lag": 0}).to_dict()
    expected = np.sqrt((1 * 6.5**2 + 2 * 3.5**2 + 3 * 0.5**2 + 6 * 2.5**2) / 12)
    assert found["averages"]["model"]["radius_of_gyration"] == pytest.approx(expected, abs=1e-3)
    assert found["averages"]["model"]["end_to_end"] == pytest.approx(9, abs=1e-3)


@pytest.mark.parametrize(("lengths", "blocks"), [((300, 300), 10), ((100,), 10), ((80, 50, 70), 12), ((40,) * 12, 12)])
def test_few_trajectories_are_cut_into_blocks_of_time(tmp_path, lengths, blocks):
    """Of two long trajectories ten blocks: each holds a tenth of the frames, of one trajectory, in order."""
    rng = np.random.default_rng(0)
    joined = [helix(100, 1.5) + 0.1 * rng.standard_normal((length, N, 3)) for length in lengths]
    path = write(tmp_path / "long.h5", [x.astype(np.float32) for x in joined])
    found = analyze(path, path, **OPTIONS | {"lag": 0})
    counts = found.model.distributions["bonds"].counts
    assert len(counts) == len(found.model.surfaces[found.main].counts) == blocks
    assert counts.sum() == sum(lengths) * (N - 1)
    if blocks == 10:
        frames = counts.sum((1, 2)) / (N - 1)
        assert frames == pytest.approx(np.full(10, sum(lengths) / 10))
    assert found.rows["model"]["bond_wasserstein_A"]["interval"] is not None


def test_many_trajectories_are_pooled_to_two_hundred_blocks():
    pieces = [Piece(number, 0, 5) for number in range(410)]
    blocks = blocks_of(pieces)
    assert [piece for piece, _ in blocks] == pieces
    counts = np.bincount([number for _, number in blocks])
    assert len(counts) == 200
    assert set(counts.tolist()) == {2, 3}
    assert [number for _, number in blocks] == sorted(number for _, number in blocks)


STAY = (0.97, 0.91)  # of two states of which the first has three frames of four
SPACE = StateSpace(np.array([[0.0], [1.0]]), np.array([0, 1]), 1)


@pytest.mark.parametrize("lengths", [[300] * 30, [300] * 12, [3000] * 3])
def test_errors_of_populations_are_the_spread_over_independent_simulations(lengths):
    """The standard error of one simulation is, on average, the spread over many; also where tenths are drawn."""
    rng = np.random.default_rng(5)
    options = {"frame_interval": None, "temperature": None}
    found = [kinetics_of(two_states(rng, lengths, STAY), SPACE, 2, **options) for _ in range(30)]
    for values, errors in (
        ([x.populations[0] for x in found], [x.population_errors[0] for x in found]),
        ([x.timescales[0] for x in found], [x.timescale_errors[0] for x in found]),
    ):
        assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values, ddof=1), rel=0.35)


def test_weights_say_how_the_frames_count_and_transitions_need_none():
    """Half of the trajectories begin in the rare state; their weights undo it, and a Markov model needs none."""
    rng = np.random.default_rng(2)
    states = [
        path[np.flatnonzero(path == start)[0] :][:20]
        for start in (0, 1)
        for path in two_states(rng, [400] * 300, STAY)
        if (path == start).any()
    ]
    counts = np.bincount(np.concatenate(states))
    weights = [np.array([0.75, 0.25])[s] / counts[s] for s in states]
    options = {"frame_interval": None, "temperature": None}
    plain = kinetics_of(states, SPACE, 1, **options)
    weighted = kinetics_of(states, SPACE, 1, weights=weights, **options)
    assert plain.counted[1] > 0.33
    assert weighted.counted == pytest.approx([0.75, 0.25], abs=1e-9)
    assert weighted.populations == pytest.approx([0.75, 0.25], abs=0.05)
    assert weighted.populations == pytest.approx(plain.populations)
    exact = -1 / np.log(0.97 + 0.91 - 1)
    assert weighted.timescales[0] == pytest.approx(exact, rel=0.15)
    # A frame of weight 0 ends a trajectory: what lies beyond it is another.
    for w in weights:
        w[10] = 0.0
    cut = kinetics_of(states, SPACE, 1, weights=weights, **options)
    pieces = [part for s in states for part in (s[:10], s[11:])]
    assert cut.populations == pytest.approx(kinetics_of(pieces, SPACE, 1, **options).populations, abs=1e-12)
    assert cut.timescales[0] == pytest.approx(kinetics_of(pieces, SPACE, 1, **options).timescales[0])
