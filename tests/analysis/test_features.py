"""Features, streamed: against MDTraj, against known values, in pieces as in one."""

import json

import mdtraj
import numpy as np
import pytest

from ase_cg import InputError, map_trajectory
from ase_cg.analysis import features, sources
from ase_cg.analysis.native import NativeStructure
from ase_cg.analysis.same_beads import check_same_beads
from ase_cg.analysis.slow_coordinates import per_piece
from ase_cg.analysis.sources import open_source
from ase_cg.beads.topology import BeadTopology
from ase_cg.dynamics.trajectory import write_trajectory


@pytest.fixture(scope="module")
def chignolin(shared, tmp_path_factory):
    """The three published trajectories as Cα beads."""
    folder = shared / "chignolin_all_atom"
    return map_trajectory(
        [folder / f"traj_{i}.dcd" for i in range(3)],
        tmp_path_factory.mktemp("chignolin") / "calpha.h5",
        topology=folder / "traj_0.pdb",
        resolution="calpha",
        temperature=300,
        quiet=True,
    )


@pytest.fixture(scope="module")
def experimental(shared):
    return shared / "fast_folders" / "experimental_structures" / "chignolin_cln025.pdb"


def helix(n=12):
    """A Cα trace like that of an α-helix."""
    t = np.radians(100) * np.arange(n)
    return np.stack([2.3 * np.cos(t), 2.3 * np.sin(t), 1.5 * np.arange(n)], 1)


def chain(n=12):
    bonds = tuple((i, i + 1) for i in range(n - 1))
    return BeadTopology(("ALA",) * n, ("ALA",) * n, tuple(range(1, n + 1)), (0,) * n, (12.0,) * n, bonds)


def test_fraction_near_the_experimental_structure_is_the_published_one(chignolin, experimental):
    source = open_source(chignolin, "reference")
    native = NativeStructure.read(experimental, source.topology, "calpha")
    near = [np.mean(x < 2.5) for x in per_piece(source, native.rmsd)]
    assert near == pytest.approx([0.63, 0.62, 0.75], abs=0.01)


def test_streaming_in_small_pieces_changes_nothing(chignolin, experimental, monkeypatch):
    source = open_source(chignolin, "reference").discarded(0.1)
    native = NativeStructure.read(experimental, source.topology, "calpha")
    assert [piece.length for piece in source.pieces] == [720, 450, 630]
    whole = per_piece(source, native.native_contacts)
    monkeypatch.setattr(sources, "chunk_frames", lambda _: 77)
    assert max(len(frames) for _, frames in source.chunks()) == 77
    for one, other in zip(whole, per_piece(source, native.native_contacts), strict=True):
        assert np.array_equal(one, other)


def test_features_are_mdtrajs(chignolin):
    source = open_source(chignolin, "reference")
    frames = next(iter(source.chunks()))[1][:100]
    trajectory = mdtraj.Trajectory(frames / 10, source.topology.to_mdtraj())
    native = NativeStructure.of(frames[0], source.topology)
    assert native.rmsd(frames) == pytest.approx(10 * mdtraj.rmsd(trajectory, trajectory[:1]), abs=1e-4)
    masses = np.array(source.topology.masses)
    assert features.radius_of_gyration(frames, masses) == pytest.approx(
        10 * mdtraj.compute_rg(trajectory, masses), abs=1e-4
    )
    triples, fours = source.topology.angles, source.topology.dihedrals
    assert features.bond_angles(frames, triples) == pytest.approx(mdtraj.compute_angles(trajectory, triples), abs=1e-3)
    assert features.dihedral_angles(frames, fours) == pytest.approx(
        mdtraj.compute_dihedrals(trajectory, fours), abs=1e-3
    )
    ends = features.end_to_end_distance(frames, (0, 9))
    assert ends == pytest.approx(10 * mdtraj.compute_distances(trajectory, [[0, 9]])[:, 0], abs=1e-4)
    contacts = features.contact_map(frames, 8.0)
    assert contacts[0, 9] == pytest.approx(np.mean(ends < 8))
    weights = np.zeros(100)
    weights[3] = 1.0
    assert features.contact_map(frames, 8.0, weights=weights)[0, 9] == float(ends[3] < 8)


def test_the_native_structure_is_at_its_own_place_and_its_mirror_image_is_not():
    native = NativeStructure.of(helix(), chain())
    turned = helix() @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]]) + 5
    both = np.stack([turned, turned * [1, 1, -1]])
    assert native.rmsd(both)[0] == pytest.approx(0, abs=1e-6)
    assert native.rmsd(both)[1] > 2
    assert native.gdt_ts(both)[0] == 1.0
    assert native.gdt_ts(both)[1] < 0.8
    stretched = 2 * helix()[None]
    assert native.native_contacts(both)[0] > 0.99
    assert native.native_contacts(stretched)[0] < 0.01


def test_gdt_ts_by_hand():
    """Ten beads of which one is moved away by 3 Å: within 1 and 2 Å are nine, within 4 and 8 Å ten."""
    native = NativeStructure.of(1000.0 * helix(10), chain(10))  # so large that superposition turns nothing
    moved = 1000.0 * helix(10)
    moved[4] += [3.0, 0, 0]
    moved -= [0.3, 0, 0]
    assert native.gdt_ts(moved[None])[0] == pytest.approx((0.9 + 0.9 + 1 + 1) / 4)


def test_other_beads_are_named(chignolin, tmp_path, shared):
    source = open_source(chignolin, "reference")
    other = shared / "fast_folders" / "experimental_structures" / "villin_2f4k.pdb"
    with pytest.raises(InputError, match=r"villin_2f4k\.pdb has 35 beads .*, the data has 10"):
        NativeStructure.read(other, source.topology, "calpha")
    with pytest.raises(InputError, match=r"one has B as bead 1 \(counted from 0\), other has C"):
        check_same_beads(["A", "B"], ["A", "C"], "one", "other")
    check_same_beads(["HID:CA"], ["HIE:CA"], "one", "other")
    with pytest.raises(InputError, match=r"native\.pdb does not exist"):
        NativeStructure.read(tmp_path / "native.pdb", source.topology, "calpha")


@pytest.mark.parametrize("resolution", ["backbone", "heavy"])
def test_a_native_structure_may_list_the_atoms_of_a_residue_in_another_order(
    chignolin, experimental, shared, tmp_path, resolution
):
    folder = shared / "chignolin_all_atom"
    path = map_trajectory(
        folder / "traj_1.dcd",
        tmp_path / "r.h5",
        topology=folder / "traj_1.pdb",
        resolution=resolution,
        temperature=300,
        quiet=True,
    )
    source, alphas = open_source(path, "r"), open_source(chignolin, "reference")
    native = NativeStructure.read(experimental, source.topology, resolution)
    atoms = mdtraj.load(str(experimental)).topology
    assert source.topology.names[2] == "TYR:CB"
    assert [a.name for a in atoms.residue(0).atoms][2] == "C"
    index = atoms.select("resid 0 and name CB")[0]
    assert native.positions[2] == pytest.approx(10 * mdtraj.load(str(experimental)).xyz[0, index], abs=1e-4)
    of_alphas = NativeStructure.read(experimental, alphas.topology, "calpha")
    assert per_piece(source, native.rmsd)[0] == pytest.approx(per_piece(alphas, of_alphas.rmsd)[1], abs=1e-4)


def _write(folder, lengths, **record):
    folder.mkdir()
    for replica, length in enumerate(lengths):
        frames = np.repeat(helix()[None], length, 0).astype(np.float32)
        write_trajectory(folder / f"replica_{replica:03d}.h5", frames, 0.5 * np.arange(length), chain())
    (folder / "simulation.json").write_text(json.dumps({"replicas": len(lengths)} | record))
    return folder


def test_replicas_of_different_lengths_are_read_and_failed_ones_left_out(tmp_path):
    failures = [{"replica": 1, "step": 400, "reason": "bead 3 exploded"}]
    source = open_source(_write(tmp_path / "s", [40, 7, 20], failures=failures), "model")
    assert [piece.length for piece in source.pieces] == [40, 20]
    assert source.left_out == ("replica 1 failed at step 400: bead 3 exploded",)
    assert source.frame_interval == 0.5
    assert [len(x) for x in per_piece(source, lambda x: x[:, 0, 0])] == [40, 20]


def test_the_replicas_at_the_temperature_of_the_model_are_read_where_there_are_several(tmp_path):
    entries = [
        {"file": f"replica_{i:03d}.h5", "start": "s", "molecule": "m", "temperature": t}
        for i, t in enumerate((300.0, 350.0, 300.0))
    ]
    stopped = [{"file": "replica_002.h5", "replica": 2, "step": 9, "reason": "bead 0 exploded"}]
    folder = _write(
        tmp_path / "s", [5, 6, 7], trajectories=entries, model_temperature=300.0, summary={"stopped": stopped}
    )
    source = open_source(folder, "model")
    assert [piece.length for piece in source.pieces] == [5]
    assert source.temperature == 300.0
    assert source.left_out == ("replica 2 failed at step 9: bead 0 exploded",)


def test_a_simulation_of_nothing_but_failures_says_so(tmp_path):
    failures = [{"replica": i, "step": 4, "reason": "exploded"} for i in range(2)]
    folder = _write(tmp_path / "s", [4, 4], failures=failures)
    with pytest.raises(InputError, match="holds no frames to analyze: replica 0 failed at step 4: exploded; replica 1"):
        open_source(folder, "model")
