"""Every kind of source gives the same dataset, and what is wrong with one is told in one sentence."""

import sys
import warnings

import h5py
import mdtraj
import numpy as np
import pytest

from ase_cg import Dataset, InputError, map_molecules, map_trajectory
from ase_cg.data.mapping_settings import read_molecules
from ase_cg.units import KCAL_PER_MOL
from tests.conftest import ALA2_ATOMS

N_FRAMES = 40


@pytest.fixture
def all_atom(example_data):
    """Positions in nm and forces in kJ/mol/nm of the example molecule."""
    with h5py.File(example_data / "ala2_all_atom.h5", "r") as file:
        return file["coordinates"][:N_FRAMES].astype(float), file["forces"][:N_FRAMES].astype(float)


@pytest.fixture
def mapping(example_data):
    return {
        "topology": example_data / "ala2.pdb",
        "resolution": ALA2_ATOMS,
        "temperature": 300.0,
        "force_map": "slice",
        "quiet": True,
    }


def _check(path, all_atom, *, forces=True, tolerance=2e-5):
    atoms = [4, 6, 8, 10, 14, 16]
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        assert molecule.coordinates() == pytest.approx(all_atom[0][:, atoms] * 10, abs=tolerance)
        assert molecule.has_forces == forces
        if forces:
            wanted = all_atom[1][:, atoms] * KCAL_PER_MOL / 41.84
            assert molecule.forces() == pytest.approx(wanted, abs=1e-5 * np.abs(wanted).max())


def test_npy_positions_and_forces(all_atom, mapping, tmp_path):
    np.save(tmp_path / "x.npy", all_atom[0])
    np.save(tmp_path / "f.npy", all_atom[1].astype(np.float32))
    options = mapping | {"length_unit": "nm", "force_unit": "kJ/mol/nm"}
    _check(map_trajectory(tmp_path / "x.npy", tmp_path / "d.h5", forces=[tmp_path / "f.npy"], **options), all_atom)
    _check(map_trajectory(tmp_path / "x.npy", tmp_path / "e.h5", **options), all_atom, forces=False)
    np.save(tmp_path / "f.npy", all_atom[1][:-1])
    with pytest.raises(InputError, match=r"forces of shape \(39, 22, 3\)"):
        map_trajectory(tmp_path / "x.npy", tmp_path / "f.h5", forces=[tmp_path / "f.npy"], **options)
    with pytest.raises(InputError, match="2 files of forces for 1 trajectories"):
        map_trajectory(tmp_path / "x.npy", tmp_path / "f.h5", forces=[tmp_path / "f.npy"] * 2, **options)
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects"):
        map_trajectory(tmp_path / "o.npy", tmp_path / "f.h5", **options)
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:-100])
    with pytest.raises(InputError, match="truncated"):
        map_trajectory(tmp_path / "x.npy", tmp_path / "f.h5", **options)


def test_gromacs_trr_with_forces(all_atom, mapping, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        xdr = pytest.importorskip("MDAnalysis.lib.formats.libmdaxdr")
    with xdr.TRRFile(str(tmp_path / "t.trr"), "w") as file:
        for step, (x, f) in enumerate(zip(*all_atom, strict=True)):
            file.write(x.astype("f4"), None, f.astype("f4"), np.eye(3, dtype="f4") * 5, step, step, 0.0, 22)
    _check(map_trajectory(tmp_path / "t.trr", tmp_path / "d.h5", **mapping), all_atom)
    _check(map_trajectory(tmp_path / "t.trr", tmp_path / "e.h5", no_forces=True, **mapping), all_atom, forces=False)
    with xdr.TRRFile(str(tmp_path / "u.trr"), "w") as file:
        for step, (x, f) in enumerate(zip(*all_atom, strict=True)):
            kept = f.astype("f4") if step % 4 == 0 else None
            file.write(x.astype("f4"), None, kept, np.eye(3, dtype="f4") * 5, step, step, 0.0, 22)
    with pytest.warns(UserWarning, match="30 of 40 frames lack positions or forces"):
        path = map_trajectory(tmp_path / "u.trr", tmp_path / "g.h5", **mapping)
    _check(path, (all_atom[0][::4], all_atom[1][::4]))
    monkeypatch.setitem(sys.modules, "MDAnalysis.lib.formats.libmdaxdr", None)
    with pytest.raises(InputError, match=r"pip install 'ase-cg\[gromacs\]'"):
        map_trajectory(tmp_path / "t.trr", tmp_path / "f.h5", **mapping)


def _dump(path, all_atom, *, columns="id type x y z fx fy fz", units="real", cell=None, rng=None):
    """Write a LAMMPS dump with the atoms of each frame in random order."""
    rng = rng or np.random.default_rng(0)
    box = np.diag([40.0, 50.0, 60.0]) if cell is None else cell
    names = columns.split()
    with path.open("w") as file:
        for step, (x, f) in enumerate(zip(all_atom[0] * 10, all_atom[1] / 41.84, strict=True)):
            file.write((f"ITEM: UNITS\n{units}\n" if units and step == 0 else "") + f"ITEM: TIMESTEP\n{step}\n")
            file.write(f"ITEM: NUMBER OF ATOMS\n{len(x)}\n")
            xy, xz, yz = box[1, 0], box[2, 0], box[2, 1]
            low = np.array([min(0, xy, xz, xy + xz), min(0, yz), 0.0])
            high = np.diag(box) + np.array([max(0, xy, xz, xy + xz), max(0, yz), 0.0])
            tilts = ["", "", ""] if cell is None else [f" {xy}", f" {xz}", f" {yz}"]
            file.write("ITEM: BOX BOUNDS" + ("" if cell is None else " xy xz yz") + " pp pp pp\n")
            file.writelines(f"{lo} {hi}{tilt}\n" for lo, hi, tilt in zip(low, high, tilts, strict=True))
            scaled = x @ np.linalg.inv(box)
            images = np.floor(scaled)
            values = {
                "id": np.arange(1, len(x) + 1),
                "type": np.ones(len(x)),
                "element": np.array(["C"] * len(x)),
                **dict(zip(("x", "y", "z"), (x - images @ box).T if "ix" in names else x.T, strict=True)),
                **dict(zip(("xs", "ys", "zs"), (scaled - images).T, strict=True)),
                **dict(zip(("xu", "yu", "zu"), x.T, strict=True)),
                **dict(zip(("ix", "iy", "iz"), images.astype(int).T, strict=True)),
                **dict(zip(("fx", "fy", "fz"), f.T, strict=True)),
            }
            file.write(f"ITEM: ATOMS {columns}\n")
            for atom in rng.permutation(len(x)):
                file.write(" ".join(str(values[name][atom]) for name in names) + "\n")
    return path


@pytest.mark.parametrize(
    "columns",
    [
        "id type x y z fx fy fz",
        "id type element xs ys zs ix iy iz fx fy fz",
        "id x y z ix iy iz fx fy fz",
        "xu yu zu fx fy fz id",
    ],
)
@pytest.mark.parametrize("triclinic", [False, True])
def test_lammps_dumps(columns, triclinic, all_atom, mapping, tmp_path):
    cell = np.array([[30.0, 0, 0], [8, 35, 0], [-5, 6, 40]]) if triclinic else None
    path = _dump(tmp_path / "t.lammpstrj", all_atom, columns=columns, cell=cell)
    _check(map_trajectory(path, tmp_path / "d.h5", **mapping), all_atom, tolerance=1e-4)


def test_wrong_lammps_dumps_are_one_sentence(all_atom, mapping, tmp_path):
    path = _dump(tmp_path / "t.dump", all_atom, units=None)
    with pytest.raises(InputError, match="does not say the unit of its positions"):
        map_trajectory(path, tmp_path / "d.h5", **mapping)
    options = mapping | {"length_unit": "Å", "force_unit": "kcal/mol/Å"}
    _check(map_trajectory(path, tmp_path / "d.h5", **options), all_atom, tolerance=1e-4)
    text = path.read_text()
    for broken, message in (
        (text[:-30], "truncated in frame 39"),
        (text.replace("ITEM: NUMBER OF ATOMS\n22", "ITEM: NUMBER OF ATOMS\n21", 1), "no LAMMPS dump or is damaged"),
        (text.replace(" fz\n", " fy2\n").replace("id type x", "id type q", 1), "no columns for positions"),
        ("hello\n" + text, "no LAMMPS dump"),
        (text.replace("ITEM: TIMESTEP", "ITEM: UNITS\nlj\nITEM: TIMESTEP", 1), "units 'lj'"),
    ):
        path.write_text(broken)
        with pytest.raises(InputError, match=message):
            map_trajectory(path, tmp_path / "e.h5", **options)
    first = _dump(tmp_path / "a.dump", all_atom, units=None).read_text()
    fewer = (all_atom[0][:, :21], all_atom[1][:, :21])
    path.write_text(first + _dump(tmp_path / "b.dump", fewer, units=None).read_text())
    with pytest.raises(InputError, match="frame 40 has 21 atoms, the frames before 22"):
        map_trajectory(path, tmp_path / "e.h5", **options)


@pytest.mark.parametrize("suffix", [".traj", ".extxyz"])
def test_ase_trajectories(suffix, all_atom, mapping, tmp_path, example_data):
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.constraints import FixAtoms
    from ase.io import write

    symbols = [atom.element.symbol for atom in mdtraj.load(str(example_data / "ala2.pdb")).topology.atoms]
    images = []
    for x, f in zip(*all_atom, strict=True):
        atoms = Atoms(symbols, positions=x * 10)
        atoms.calc = SinglePointCalculator(atoms, forces=f * KCAL_PER_MOL / 41.84)
        if suffix == ".traj":
            atoms.set_constraint(FixAtoms([4]))  # forces are those of the calculator all the same
        images.append(atoms)
    write(tmp_path / f"t{suffix}", images)
    _check(map_trajectory(tmp_path / f"t{suffix}", tmp_path / "d.h5", **mapping), all_atom, tolerance=1e-4)
    images[7] = images[7][:20]
    write(tmp_path / f"t{suffix}", images)
    with pytest.raises(InputError, match="frame 7 has 20 atoms, the frames before 22"):
        map_trajectory(tmp_path / f"t{suffix}", tmp_path / "e.h5", **mapping)
    symbols[4] = "N"
    write(tmp_path / f"t{suffix}", [Atoms(symbols, positions=x * 10) for x in all_atom[0]])
    with pytest.raises(InputError, match=r"atom 4 is N in .* but C in the topology"):
        map_trajectory(tmp_path / f"t{suffix}", tmp_path / "e.h5", **mapping)


def test_the_torchmd_layout_of_published_calpha_data(shared, tmp_path):
    folder = shared / "chignolin_ca_forces"
    options = {
        "topology": folder / "chignolin_ca_top.psf",
        "resolution": "calpha",
        "temperature": 350,
        "forces": [folder / "chignolin_ca_forces.npy"],
        "force_map": "slice",
        "length_unit": "Å",
        "force_unit": "kcal/mol/Å",
        "quiet": True,
    }
    coordinates = folder / "chignolin_ca_coords.npy"
    path = map_trajectory(coordinates, tmp_path / "d.h5", embeddings=folder / "chignolin_ca_embeddings.npy", **options)
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        assert molecule.topology.names == ("TYR", "TYR", "ASP", "PRO", "GLU", "THR", "GLY", "THR", "TRP", "TYR")
        assert molecule.topology.bonds == tuple((i, i + 1) for i in range(9))
        forces = molecule.forces().astype(float) / KCAL_PER_MOL
        assert np.sqrt((forces**2).mean()) == pytest.approx(29.15, abs=0.01)
    types = np.load(folder / "chignolin_ca_embeddings.npy")
    np.save(tmp_path / "wrong.npy", types[::-1])
    with pytest.raises(InputError, match=r"gives bead 9 \(TYR\) type|gives bead 1 \(TYR\) type"):
        map_trajectory(coordinates, tmp_path / "e.h5", embeddings=tmp_path / "wrong.npy", **options)
    # All-atom topology, bead positions: they are taken as the beads they are.
    pdb = map_trajectory(coordinates, tmp_path / "f.h5", **(options | {"topology": folder / "chignolin_cln025.pdb"}))
    with Dataset.open(pdb) as dataset, Dataset.open(path) as other:
        ours, theirs = dataset.only_molecule(), other.only_molecule()
        assert np.array_equal(ours.forces(slice(0, 100)), theirs.forces(slice(0, 100)))
        assert ours.force_map == "as published"


def test_the_layout_of_mlcg(shared, tmp_path):
    folder = shared / "chignolin_ca_forces"
    coordinates = np.load(folder / "chignolin_ca_coords.npy", mmap_mode="r")[:50]
    forces = np.load(folder / "chignolin_ca_forces.npy", mmap_mode="r")[:50]
    with h5py.File(tmp_path / "mlcg.h5", "w") as file:
        for name in ("cln_a", "cln_b"):
            group = file.create_group(f"CLN/{name}")
            group["cg_coords"] = coordinates
            group["cg_delta_forces"] = forces
            group.attrs["cg_embeds"] = [19, 19, 4, 15, 7, 17, 8, 17, 18, 19]
            group.attrs["N_frames"] = 50
    options = {
        "topology": folder / "chignolin_cln025.pdb",
        "resolution": "calpha",
        "temperature": 350,
        "length_unit": "Å",
        "force_unit": "kcal/mol/Å",
        "quiet": True,
    }
    path = map_trajectory(tmp_path / "mlcg.h5", tmp_path / "d.h5", group="CLN/cln_b", **options)
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        assert molecule.coordinates() == pytest.approx(coordinates)
        assert molecule.forces() == pytest.approx(forces * KCAL_PER_MOL, rel=1e-5)
    with pytest.raises(InputError, match="holds 2 molecules; say which with --group, such as 'CLN/cln_a'"):
        map_trajectory(tmp_path / "mlcg.h5", tmp_path / "e.h5", **options)
    with pytest.raises(InputError, match="did you mean 'CLN/cln_a'"):
        map_trajectory(tmp_path / "mlcg.h5", tmp_path / "e.h5", group="CLN/cla_a", **options)
    with h5py.File(tmp_path / "mlcg.h5", "r+") as file:
        file["CLN/cln_a"].attrs["cg_embeds"] = [19, 18, 4, 15, 7, 17, 8, 17, 18, 19]
    with pytest.raises(InputError, match=r"gives bead 1 \(TYR\) type 18, but another TYR type 19"):
        map_trajectory(tmp_path / "mlcg.h5", tmp_path / "e.h5", group="CLN/cln_a", **options)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="neither 'coordinates'"):
        map_trajectory(tmp_path / "other.h5", tmp_path / "e.h5", **options)


def test_molecules_broken_by_the_box_are_made_whole(all_atom, mapping, tmp_path, example_data):
    cell = np.array([[1.8, 0, 0], [0.3, 1.9, 0], [-0.2, 0.4, 2.0]])
    structure = mdtraj.load(str(example_data / "ala2.pdb"))
    x = all_atom[0] - all_atom[0].mean((1, 2), keepdims=True) + np.array([0.1, 1.85, 0.0])
    wrapped = x - np.floor(x @ np.linalg.inv(cell)) @ cell
    trajectory = mdtraj.Trajectory(wrapped, structure.topology)
    trajectory.unitcell_vectors = np.repeat(cell[None], len(x), 0)
    trajectory.save_dcd(str(tmp_path / "t.dcd"))
    whole = map_trajectory(tmp_path / "t.dcd", tmp_path / "d.h5", **mapping)
    broken = map_trajectory(tmp_path / "t.dcd", tmp_path / "e.h5", keep_broken=True, **mapping)
    atoms = [4, 6, 8, 10, 14, 16]

    def distances(path):
        with Dataset.open(path) as dataset:
            beads = dataset.only_molecule().coordinates().astype(float)
        return np.linalg.norm(beads[:, :, None] - beads[:, None], axis=-1)

    exact = np.linalg.norm(10 * (x[:, atoms, None] - x[:, None, atoms]), axis=-1)
    assert distances(whole) == pytest.approx(exact, abs=2e-4)
    assert np.abs(distances(broken) - exact).max() > 5


def test_several_molecules_and_weights_from_one_list(all_atom, tmp_path, example_data, shared):
    np.savez(tmp_path / "a.npz", positions=all_atom[0], forces=all_atom[1])
    weights = np.linspace(0.5, 2.0, N_FRAMES)
    np.savetxt(tmp_path / "w.txt", weights)
    pdb = shared / "chignolin_ca_forces" / "chignolin_cln025.pdb"
    (tmp_path / "list.yaml").write_text(
        f"""
molecules:
  - name: ala2
    trajectories: [a.npz]
    weights: [w.txt]
    topology: {example_data / "ala2.pdb"}
    resolution: heavy
    temperature: 300
    force_map: constraint_sum
    constraints: hbonds
    length_unit: nm
    force_unit: kJ/mol/nm
  - name: chignolin
    trajectories: [{pdb}]
    topology: {pdb}
    resolution: {{name: calpha, termini: true}}
    temperature: 350
"""
    )
    path = map_molecules(read_molecules(tmp_path / "list.yaml"), tmp_path / "d.h5", quiet=True)
    with Dataset.open(path) as dataset:
        assert list(dataset.molecules) == ["ala2", "chignolin"]
        ala2, chignolin = dataset.molecules.values()
        assert ala2.weights() == pytest.approx(weights)
        assert ala2.topology.n_beads == 10
        assert ala2.mapping["weights"][0]["file"] == "w.txt"
        atoms, positions_map, force_map = ala2.maps()
        assert atoms.tolist() == list(range(22))
        assert force_map @ positions_map.T == pytest.approx(np.eye(10))
        assert chignolin.weights() is None
        assert chignolin.topology.names[0] == "NTYR"
        assert chignolin.resolution == {"name": "calpha", "termini": True}
        assert not chignolin.has_forces
    before = path.read_bytes()
    with pytest.raises(InputError, match="has a molecule 'ala2' already"):
        map_molecules(read_molecules(tmp_path / "list.yaml"), path, add=True, quiet=True)
    assert path.read_bytes() == before
    more = [m.model_copy(update={"name": "again"}) for m in read_molecules(tmp_path / "list.yaml")[1:]]
    map_molecules(more, path, add=True, quiet=True)
    with Dataset.open(path) as dataset:
        assert list(dataset.molecules) == ["again", "ala2", "chignolin"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(39), "39 weights"),
        (np.ones(41), "holds 41 weights for the 40 frames"),
        (-np.ones(40), "weight of frame 0"),
        (np.full(40, np.nan), "weight of frame 0"),
        (np.zeros(40), "no weight above zero"),
        (np.ones((40, 2)), r"shape \(40, 2\)"),
    ],
)
def test_wrong_weights_are_one_sentence(weights, message, all_atom, mapping, tmp_path):
    np.savez(tmp_path / "a.npz", positions=all_atom[0])
    np.save(tmp_path / "w.npy", weights)
    with pytest.raises(InputError, match=message):
        map_trajectory(tmp_path / "a.npz", tmp_path / "d.h5", weights=[tmp_path / "w.npy"], length_unit="nm", **mapping)
    assert not (tmp_path / "d.h5").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("molecules: []", "molecules"),
        ("molecules:\n - {name: a, topology: t.pdb, temperature: 300}", "molecules.0.trajectories is missing"),
        (
            "molecules:\n - {name: a, topology: t.pdb, temperature: 300, trajectories: [x], lenght_unit: nm}",
            "molecules.0.lenght_unit is no key of a list of molecules; did you mean 'length_unit'",
        ),
        (
            "molecules:\n" + 2 * " - {name: a, topology: t.pdb, temperature: 300, trajectories: [x]}\n",
            "two molecules are called 'a'",
        ),
        ("molecules: [", "no valid YAML"),
    ],
)
def test_wrong_lists_of_molecules_are_one_sentence(text, message, tmp_path):
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_molecules(tmp_path / "list.yaml")


def test_solvent_is_left_out_of_the_force_map(all_atom, mapping, tmp_path, example_data):
    """Water around the molecule changes neither beads nor forces: its atoms have no share in them."""
    structure = mdtraj.load(str(example_data / "ala2.pdb"))
    topology = structure.topology.copy()
    chain = topology.add_chain()
    for _ in range(5):
        residue = topology.add_residue("HOH", chain)
        for name in ("O", "H1", "H2"):
            topology.add_atom(name, mdtraj.element.Element.getBySymbol(name[0]), residue)
    rng = np.random.default_rng(0)
    x = np.concatenate([all_atom[0], rng.random((N_FRAMES, 15, 3))], axis=1)
    f = np.concatenate([all_atom[1], 500 * rng.standard_normal((N_FRAMES, 15, 3))], axis=1)
    mdtraj.Trajectory(x[:1], topology).save(str(tmp_path / "wet.pdb"))
    np.savez(tmp_path / "wet.npz", positions=x, forces=f)
    np.savez(tmp_path / "dry.npz", positions=all_atom[0], forces=all_atom[1])
    options = mapping | {"force_map": "optimal", "constraints": "hbonds", "length_unit": "nm"}
    options |= {"force_unit": "kJ/mol/nm"}
    dry = map_trajectory(tmp_path / "dry.npz", tmp_path / "dry.h5", **options)
    wet = map_trajectory(tmp_path / "wet.npz", tmp_path / "wet.h5", **(options | {"topology": tmp_path / "wet.pdb"}))
    with Dataset.open(dry) as one, Dataset.open(wet) as two:
        assert two.only_molecule().forces() == pytest.approx(one.only_molecule().forces(), abs=1e-5)
        assert two.only_molecule().maps()[0].tolist() == list(range(22))


def test_the_optimal_map_is_the_default_and_reports_its_residuals(shared, tmp_path):
    folder = shared / "ala2_all_atom_forces"
    path = map_trajectory(
        folder / "ala2_all_atom.npz",
        tmp_path / "d.h5",
        topology=folder / "ala2_all_atom.pdb",
        resolution=("ACE:C", "ALA:N", "ALA:CA", "ALA:C", "NME:N"),
        temperature=300,
        length_unit="Å",
        force_unit="kcal/mol/Å",
        quiet=True,
    )
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        report = molecule.force_map_report
        assert molecule.force_map == "optimal"
        assert len(report["constraint_groups"]) == 6
        assert report["constraints"] == "detect"
        # The published 20.73 is fitted on the first half; here quarters are fitted and evaluated in turn.
        assert report["rms_held_out"] == pytest.approx(20.73, abs=0.4)
        assert report["rms_in_sample"] < report["rms_held_out"] < report["rms_constraint_sum"]
        assert report["rms_constraint_sum"] == pytest.approx(26.05, abs=0.05)
        assert report["validity"] < 1e-10
        stored = molecule.forces().astype(float) / KCAL_PER_MOL
        assert np.sqrt((stored**2).mean()) == pytest.approx(report["rms"], rel=1e-5)


def test_an_overfitted_map_is_told(all_atom, mapping, tmp_path):
    unrelated = np.random.default_rng(0).standard_normal((12, 22, 3))  # the sum is optimal for such forces
    np.savez(tmp_path / "a.npz", positions=all_atom[0][:12], forces=unrelated)
    options = mapping | {"force_map": "optimal", "length_unit": "nm", "force_unit": "kJ/mol/nm"}
    with (
        pytest.warns(UserWarning, match="12 frames are too few to find rigid bonds"),
        pytest.warns(UserWarning, match="overfitted to 12 frames"),
    ):
        map_trajectory(tmp_path / "a.npz", tmp_path / "d.h5", **options)


def test_an_input_is_never_overwritten(all_atom, mapping, tmp_path, example_data):
    np.savez(tmp_path / "a.npz", positions=all_atom[0])
    pdb = tmp_path / "a.pdb"
    pdb.write_bytes((example_data / "ala2.pdb").read_bytes())
    trajectory = mdtraj.Trajectory(all_atom[0], mdtraj.load(str(pdb)).topology)
    trajectory.save_hdf5(str(tmp_path / "a.h5"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    options = mapping | {"topology": pdb}
    for source, output in ((tmp_path / "a.h5", tmp_path / "a.h5"), (tmp_path / "a.h5", pdb)):
        with pytest.raises(InputError, match=r"is an input|must end in"):
            map_trajectory(source, output, overwrite=True, **options)
    with pytest.raises(InputError, match="is an input"):
        map_trajectory(
            tmp_path / "a.h5", tmp_path / "a.h5", overwrite=True, **(options | {"topology": tmp_path / "a.h5"})
        )
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_extended_xyz_under_the_name_of_plain_xyz_keeps_its_forces(all_atom, mapping, tmp_path, example_data):
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    symbols = [atom.element.symbol for atom in mdtraj.load(str(example_data / "ala2.pdb")).topology.atoms]
    images = [Atoms(symbols, positions=x * 10) for x in all_atom[0]]
    for atoms, f in zip(images, all_atom[1], strict=True):
        atoms.calc = SinglePointCalculator(atoms, forces=f * KCAL_PER_MOL / 41.84)
    write(tmp_path / "t.xyz", images)
    _check(map_trajectory(tmp_path / "t.xyz", tmp_path / "d.h5", **mapping), all_atom, tolerance=1e-4)
    mdtraj.Trajectory(all_atom[0], mdtraj.load(str(example_data / "ala2.pdb")).topology).save(str(tmp_path / "p.xyz"))
    plain = map_trajectory(tmp_path / "p.xyz", tmp_path / "e.h5", **mapping)
    _check(plain, all_atom, forces=False, tolerance=1e-2)


def test_weights_decide_the_optimal_map(all_atom, tmp_path, mapping):
    """Frames of no weight have no say: the map of weighted frames is that of the frames that count."""
    rng = np.random.default_rng(0)
    nonsense = 1e3 * rng.standard_normal((N_FRAMES, 22, 3))
    np.savez(tmp_path / "a.npz", positions=all_atom[0], forces=all_atom[1])
    both = {"positions": np.concatenate([all_atom[0]] * 2), "forces": np.concatenate([all_atom[1], nonsense])}
    np.savez(tmp_path / "b.npz", **both)
    np.save(tmp_path / "w.npy", np.repeat([1.0, 0.0], N_FRAMES))
    options = mapping | {"force_map": "optimal", "constraints": "none", "length_unit": "nm", "ridge": 1e-3}
    options |= {"force_unit": "kJ/mol/nm"}
    alone = map_trajectory(tmp_path / "a.npz", tmp_path / "a.h5", **options)
    weighted = map_trajectory(tmp_path / "b.npz", tmp_path / "b.h5", weights=[tmp_path / "w.npy"], **options)
    with Dataset.open(alone) as one, Dataset.open(weighted) as two:
        a, b = one.only_molecule(), two.only_molecule()
        assert b.maps()[2] == pytest.approx(a.maps()[2], abs=1e-3)
        assert b.force_map_report["rms"] == pytest.approx(a.force_map_report["rms"], rel=1e-3)
