"""Frame weights count in every number of an analysis: as copies of trajectories, as deleted frames, as no weights."""

import h5py
import numpy as np
import pytest

from ase_cg import InputError
from ase_cg.analysis import analyze
from ase_cg.analysis.backmap_energy import backmap_test
from ase_cg.analysis.bead_frames import spread_frames
from ase_cg.analysis.ensembles import Ensemble
from ase_cg.analysis.figure_data import figure_data
from ase_cg.analysis.peptide_planes import rebuild_backbone
from ase_cg.analysis.slow_coordinates import FeatureSet, fit_pca, fit_tica
from ase_cg.analysis.sources import Piece, open_source
from ase_cg.analysis.surfaces import Plane
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset_writer import create_dataset

RESIDUES = 5
ATOMS = ("N", "CA", "C", "O", "CB")  # in the order of the made positions
TRAJECTORIES, FRAMES = 12, 60
OPTIONS = {"bins": 10, "discard": 0.0, "lag": 2, "clusters": 12, "quiet": True}


def peptide():
    """The topology of five alanines with N, CA, C, O and CB."""
    count = len(ATOMS)
    inside = ((0, 1), (1, 2), (2, 3), (1, 4))
    bonds = [(count * r + i, count * r + j) for r in range(RESIDUES) for i, j in inside]
    bonds += [(count * r + 2, count * (r + 1)) for r in range(RESIDUES - 1)]
    numbers = tuple(r + 1 for r in range(RESIDUES) for _ in ATOMS)
    n = count * RESIDUES
    masses = tuple({"N": 14.0, "O": 16.0}.get(atom, 12.0) for atom in ATOMS) * RESIDUES
    names = tuple(f"ALA:{atom}" for _ in range(RESIDUES) for atom in ATOMS)
    return BeadTopology(names, ("ALA",) * n, numbers, (0,) * n, masses, tuple(sorted(bonds)))


TOPOLOGY = peptide()


def conformation(turn, rise):
    """Five alanines whose CA lie on a helix of a turn (degrees) and rise (Å) a residue: shape (N, 3)."""
    angles, radius = np.radians(turn) * np.arange(RESIDUES), 2.3
    alphas = np.stack([radius * np.cos(angles), radius * np.sin(angles), rise * np.arange(RESIDUES)], 1)
    backbone = rebuild_backbone(alphas[None], ("ALA",) * RESIDUES)[0]
    n, ca, c = backbone[:, 0], backbone[:, 1], backbone[:, 2]
    b, d = ca - n, c - ca
    beta = -0.5827 * np.cross(b, d) + 0.5680 * b - 0.5407 * d + ca
    return np.concatenate([backbone, beta[:, None]], axis=1).reshape(-1, 3)


HELIX, STRAND = conformation(100, 1.5), conformation(170, 3.0)


def trajectory(rng, length=FRAMES, inverted=0.0, folded=0.5):
    """Frames (F, N, 3) that jump between helix and strand; in some frames one residue has become D."""
    state = (np.cumsum(rng.random(length) < 0.1) + (rng.random() > folded)) % 2
    x = np.where(state[:, None, None] == 0, HELIX, STRAND)
    d_residue = rng.random(length) < inverted
    place, centre = len(ATOMS) * 2 + 4, len(ATOMS) * 2 + 1
    normal = np.cross(x[:, centre - 1] - x[:, centre], x[:, centre + 1] - x[:, centre])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    height = ((x[:, place] - x[:, centre]) * normal).sum(1, keepdims=True)
    x[:, place] -= np.where(d_residue[:, None], 2 * height * normal, 0.0)
    return (x + 0.05 * rng.standard_normal(x.shape)).astype(np.float32)


def sample(seed, count=TRAJECTORIES, **options):
    rng = np.random.default_rng(seed)
    return [trajectory(rng, inverted=0.08 * number, **options) for number in range(count)]


def write(path, trajectories, weights=None, topology=TOPOLOGY, resolution="backbone"):
    options = {"temperature": 300.0, "resolution": resolution, "weighted": weights is not None}
    with create_dataset(path) as dataset, dataset.molecule("m", topology, **options) as molecule:
        for number, x in enumerate(trajectories):
            molecule.next_trajectory()
            molecule.append(x, weights=None if weights is None else np.asarray(weights[number], dtype=float))
    return path


def plain_values(record, where=()):
    """Give every number, text and None of a record with its place."""
    inner = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else None
    if inner is None:
        yield where, record
        return
    for key, value in inner:
        yield from plain_values(value, (*where, key))


def differences(one, other, left_out):
    """Return the places at which two records differ, but those that a function of the place leaves out."""
    first, second = ({k: v for k, v in plain_values(x) if not left_out(k)} for x in (one, other))
    missing = first.keys() ^ second.keys()
    return sorted(missing | {k for k in first.keys() & second.keys() if not same(first[k], second[k])}, key=str)


def same(one, other):
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=1e-6, atol=1e-7, equal_nan=True))
    return one == other


def whole_record(found):
    """Everything that an analysis gives as numbers: the record, and what is drawn."""
    return found.to_dict() | {"figures": figure_data(found), "single_features": found.features}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weighted")


@pytest.fixture(scope="module")
def native(folder):
    import mdtraj

    path = folder / "native.pdb"
    mdtraj.Trajectory(HELIX[None] / 10, TOPOLOGY.to_mdtraj()).save(str(path))
    return path


@pytest.fixture(scope="module")
def simulation(folder):
    """A simulation that is a dataset, with weights."""
    rng = np.random.default_rng(8)
    return write(folder / "simulation.h5", sample(1), [rng.random(FRAMES) + 0.1 for _ in range(TRAJECTORIES)])


COPIES = [1, 3, 1, 2, 1, 1, 4, 1, 1, 2, 1, 5]

# Copies are no new frames: they differ in these, and only in these.
OF_SAMPLING = {
    "frames": "copies are counted",  # of the whole record: other keys of this name lie deeper
    "convergence": "copies are no independent frames",
    "sources": "names of files",
    "notes": "numbers of frames and bins in words",
    "value": "corrected for the number of independent frames, which copies are not",
    "plug_in_at_floor": "with that number",
    "interval": "of that number",
    "doubt": "about that number",
    "kinetics": "transitions count once, whatever the weights, and clusters are fitted to other frames; tested apart",
    "over_time": "the first trajectories, as they are",
}


def of_sampling(place):
    """Whether a place of the record is about the sampling and not about the distribution."""
    # What is distinguished in a PMF error depends on that number too: the surfaces themselves are compared.
    pmf_error = place[0] == "rows" and "pmf_error" in str(place[2])
    floor = "floor" in place  # halves of the trajectories, of which there are more with copies
    return pmf_error or floor or bool({place[0], *place[1:2], *place[3:]} & set(OF_SAMPLING))


def test_weights_are_copies_in_every_number(folder, native, simulation):
    """Trajectories of weight n, and n copies of each: of the reference, and of the simulation."""
    trajectories = sample(0)
    copied = [x for x, n in zip(trajectories, COPIES, strict=True) for _ in range(n)]
    weights = [np.full(len(x), float(n)) for x, n in zip(trajectories, COPIES, strict=True)]
    plain = write(folder / "plain.h5", trajectories)
    one = write(folder / "weights.h5", trajectories, weights)
    other = write(folder / "copies.h5", copied)
    options = OPTIONS | {"native": native}
    records = {
        name: (whole_record(analyze(simulation, path, **options)), whole_record(analyze(path, simulation, **options)))
        for name, path in (("plain", plain), ("weights", one), ("copies", other))
    }
    for role in (0, 1):
        found = differences(records["weights"][role], records["copies"][role], of_sampling)
        assert not found, found[:5]
        # The weights matter in every figure, average and surface, so that nothing above agrees for lack of an effect.
        changed = {place[:3] for place in differences(records["weights"][role], records["plain"][role], of_sampling)}
        named = {place[0] for place in changed}
        assert named >= {
            "rows",
            "single_features",
            "inverted_residues",
            "averages",
            "radius_of_gyration_relaxation",
            "figures",
        }
        figures = [name for name, x in records["weights"][role]["rows"]["model"].items() if x["value"] is not None]
        assert {("rows", "model", name) for name in figures if "pmf_error" not in name} <= changed
        who = "reference" if role == 0 else "model"
        assert {("averages", who, name) for name in records["plain"][role]["averages"][who]} <= changed
    assert records["weights"][0]["main_surface"] == "tica"
    features = FeatureSet.of(TOPOLOGY)
    components = [fit_pca(open_source(path, "r"), features).matrix for path in (plain, one, other)]
    assert components[1] == pytest.approx(components[2], rel=1e-9)
    assert np.abs(components[0] / components[1] - 1).max() > 0.01


def test_frames_of_weight_zero_are_as_if_they_were_not_there(folder, native, simulation):
    """Whole trajectories, beginnings and ends: every number is the same, those of time and of intervals as well."""
    rng = np.random.default_rng(3)
    trajectories = sample(0)
    weights = [rng.random(FRAMES) + 0.2 for _ in trajectories]
    wild = trajectories[4] + 3 * rng.standard_normal(trajectories[4].shape).astype(np.float32)
    with_zeros = [*trajectories[:4], wild, *trajectories[4:]]
    zeros = [w.copy() for w in [*weights[:4], np.zeros(FRAMES), *weights[4:]]]
    zeros[1][:13] = 0.0
    zeros[7][-9:] = 0.0
    with_zeros[1] = np.concatenate([wild[:13], with_zeros[1][13:]])
    kept = [(x[w > 0], w[w > 0]) for x, w in zip(with_zeros, zeros, strict=True) if w.any()]
    one = write(folder / "zeros.h5", with_zeros, zeros)
    other = write(folder / "deleted.h5", *zip(*kept, strict=True))
    options = OPTIONS | {"native": native}
    for roles in ((lambda path: (simulation, path)), (lambda path: (path, simulation))):
        records = [whole_record(analyze(*roles(path), **options)) for path in (one, other)]
        found = list(
            differences(*records, lambda place: "sources" in place or "notes" in place or "over_time" in place)
        )
        assert not found, found[:5]
        said = set(records[0]["notes"]) - set(records[1]["notes"])
        assert len(said) == 1
        assert "trajectory 4 has no frame with a weight above 0" in said.pop()


def test_frames_of_weight_zero_between_others_count_nowhere(folder, native, simulation):
    rng = np.random.default_rng(4)
    trajectories, weights = sample(0), [rng.random(FRAMES) + 0.2 for _ in range(TRAJECTORIES)]
    for x, w in zip(trajectories, weights, strict=True):
        gone = 1 + rng.permutation(FRAMES - 2)[:20]
        w[gone] = 0.0
        x[gone] = 1.1 * x[gone] + 1.5 * rng.standard_normal((20, *x.shape[1:]))  # outside all ranges
    one = write(folder / "holes.h5", trajectories, weights)
    kept = [(x[w > 0], w[w > 0]) for x, w in zip(trajectories, weights, strict=True)]
    other = write(folder / "filled.h5", *zip(*kept, strict=True))
    records = [
        whole_record(analyze(simulation, path, **OPTIONS | {"native": native, "lag": 0})) for path in (one, other)
    ]
    # Without these frames the others are nearer in time, which is felt by what is about time alone.
    about_time = {"sources", "convergence", "radius_of_gyration_relaxation", "over_time", "notes"}
    found = differences(*records, lambda place: bool(set(place) & about_time))
    assert not found, found[:5]
    assert records[0]["frames"]["reference"] == TRAJECTORIES * (FRAMES - 20)


def test_equal_weights_are_no_weights(folder, native, simulation):
    trajectories = sample(0)
    one = write(folder / "equal.h5", trajectories, [np.full(FRAMES, 2.5)] * TRAJECTORIES)
    other = write(folder / "none.h5", trajectories)
    records = [whole_record(analyze(simulation, path, **OPTIONS | {"native": native})) for path in (one, other)]
    found = differences(*records, lambda place: "sources" in place)
    assert not found, found[:5]


def test_a_dataset_of_nothing_but_zeros_is_refused(folder, simulation):
    path = write(folder / "nothing.h5", sample(0, 2), [np.ones(FRAMES)] * 2)
    with h5py.File(path, "r+") as file:
        file["molecules/m/weights"][:] = 0
    with pytest.raises(InputError, match=r"nothing\.h5 has no frame with a weight above 0"):
        analyze(simulation, path, **OPTIONS)


def test_what_is_left_are_the_frames_from_the_first_to_the_last_with_a_weight(folder):
    weights = [np.ones(9), np.zeros(9), np.array([0, 0, 1, 0, 2, 0, 0, 0, 0.0]), np.array([3.0] + 8 * [0.0])]
    path = write(folder / "pieces_left.h5", [x[:9] for x in sample(0, 4)], weights)
    source = open_source(path, "r").weighing()
    assert source.pieces == (Piece(0, 0, 9), Piece(2, 2, 5), Piece(3, 0, 1))
    assert [w.tolist() for w in source.weights()] == [[1.0] * 9, [1.0, 0.0, 2.0], [3.0]]


def test_no_weight_lies_outside_a_grid_that_holds_all_points():
    """Not even the rounding error of the sum: a PMF error would count it as a bin that was visited."""
    rng = np.random.default_rng(0)
    points = rng.random((1000, 2))
    plane = Plane.around("pca", ("x", "y"), points, 10)
    for _ in range(20):
        weights = rng.random(1000) / 3
        assert plane.count(points, weights)[-1] == 0.0
    assert plane.count(points + 10.0, weights)[-1] == pytest.approx(weights.sum())
    assert plane.count(np.concatenate([points, [[-9.0, 0.5]]]))[-1] == 1.0


def test_lagged_pairs_lie_within_trajectories_and_not_across_frames_without_weight(folder):
    """TICA with zeros in the middle is that of the trajectory cut there."""
    rng = np.random.default_rng(6)
    trajectories, weights = sample(2, 3), [rng.random(FRAMES) + 0.1 for _ in range(3)]
    weights[1][30] = 0.0
    one = open_source(write(folder / "cut.h5", trajectories, weights), "r")
    pieces = [trajectories[0], trajectories[1][:30], trajectories[1][31:], trajectories[2]]
    own = [weights[0], weights[1][:30], weights[1][31:], weights[2]]
    other = open_source(write(folder / "pieces.h5", pieces, own), "r")
    features = FeatureSet.of(TOPOLOGY)
    a, b = (fit_tica(source, features, 4, weights=source.weights()) for source in (one, other))
    assert a.timescales == pytest.approx(b.timescales, rel=1e-9)
    assert a.mean == pytest.approx(b.mean, rel=1e-12)


def test_pairs_count_by_the_weight_of_their_first_frame(folder):
    """The mean is ½ Σ w(t) (x(t) + x(t + lag)) / Σ w(t), and the coordinates solve C(lag) v = λ C(0) v, by hand."""
    rng = np.random.default_rng(7)
    trajectories, weights = sample(3, 3), [rng.random(FRAMES) ** 3 for _ in range(3)]
    source = open_source(write(folder / "hand.h5", trajectories, weights), "r")
    features, lag = FeatureSet.of(TOPOLOGY), 3
    slow = fit_tica(source, features, lag, weights=weights)
    x, y = (
        np.concatenate([features(frames)[part] for frames in trajectories]) for part in (slice(-lag), slice(lag, None))
    )
    w = np.concatenate([own[:-lag] for own in weights])
    w /= w.sum()
    mean = 0.5 * w @ (x + y)
    assert slow.mean == pytest.approx(mean, rel=1e-6)
    x, y = (x - mean) @ slow.matrix, (y - mean) @ slow.matrix
    within, lagged = 0.5 * ((x.T * w) @ x + (y.T * w) @ y), 0.5 * ((x.T * w) @ y + (y.T * w) @ x)
    eigenvalues = np.exp(-lag / slow.timescales)
    assert within == pytest.approx(np.diag(np.diag(within)), abs=1e-5 * within.max())
    assert np.abs(np.diag(lagged) / np.diag(within))[:2] == pytest.approx(eigenvalues[:2], rel=1e-4)


class Recorder:
    """Stands for the minimizer: keeps the frames it is given."""

    def __init__(self):
        self.seen = []

    def minimized(self, frames):
        self.seen.append(frames)
        return frames, np.zeros(len(frames))


def test_atoms_are_rebuilt_from_frames_drawn_by_weight(folder):
    """Frames of weight 0 are never drawn, and others as often as they weigh."""
    marked = np.arange(200.0)[:, None, None] * np.ones((1, len(TOPOLOGY.names), 3))
    weights = np.zeros(200)
    weights[[20, 50, 51, 190]] = [1.0, 2.0, 4.0, 1.0]
    source = open_source(write(folder / "marked.h5", [marked[:90], marked[90:]], [weights[:90], weights[90:]]), "r")
    ensemble = Ensemble(source, {}, [], source.weights(), {}, {}, None, None, None)
    recorder = Recorder()
    backmap_test({"reference": ensemble}, 40, recorder)
    assert set(recorder.seen[0][:, 0, 0].tolist()) <= {20.0, 50.0, 51.0, 190.0}
    drawn = spread_frames(source, 4, source.weights())[:, 0, 0]
    assert drawn.tolist() == [50.0, 50.0, 51.0, 51.0] or drawn.tolist().count(51.0) == 2
    even = np.where(np.arange(200) % 2, 1.0, 0.0)
    path = write(folder / "even.h5", [marked], [even])
    source = open_source(path, "r")
    ensemble = Ensemble(source, {}, [], source.weights(), {}, {}, None, None, None)
    backmap_test({"reference": ensemble}, 50, recorder)
    drawn = recorder.seen[1][:, 0, 0]
    assert len(set(drawn.tolist())) == 50
    assert (drawn % 2 == 1).all()
    assert drawn.mean() == pytest.approx(100, abs=3)
