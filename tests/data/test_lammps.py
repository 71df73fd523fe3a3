"""LAMMPS dumps in all their columns, units and boxes."""

import mdtraj
import numpy as np
import pytest

from ase_cg import InputError, map_trajectory
from ase_cg.data.importers import Source
from ase_cg.units import KCAL_PER_MOL
from tests.data.conftest import check_mapped


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
    check_mapped(map_trajectory(path, tmp_path / "d.h5", **mapping), all_atom, tolerance=1e-4)


def test_wrong_lammps_dumps_are_one_sentence(all_atom, mapping, tmp_path):
    path = _dump(tmp_path / "t.dump", all_atom, units=None)
    with pytest.raises(InputError, match="does not say the unit of its positions"):
        map_trajectory(path, tmp_path / "d.h5", **mapping)
    options = mapping | {"length_unit": "Å", "force_unit": "kcal/mol/Å"}
    check_mapped(map_trajectory(path, tmp_path / "d.h5", **options), all_atom, tolerance=1e-4)
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


@pytest.mark.parametrize(
    ("tilts", "bounds", "middle"),
    [
        # LAMMPS's manual (Howto_triclinic): xlo_bound = xlo + min(0, xy, xz, xy + xz), ylo_bound = ylo + min(0, yz),
        # and so with hi and max; the box is x 1 to 11, y 0 to 8, z −2 to 4. The middle is origin + (a + b + c)/2.
        ((-2.0, -3.0, -1.0), ((-4.0, 11.0), (-1.0, 8.0), (-2.0, 4.0)), (3.5, 3.5, 1.0)),
        ((2.0, 3.0, 1.0), ((1.0, 16.0), (0.0, 9.0), (-2.0, 4.0)), (8.5, 4.5, 1.0)),
        ((-2.0, 3.0, -1.0), ((-1.0, 14.0), (-1.0, 8.0), (-2.0, 4.0)), (6.5, 3.5, 1.0)),
    ],
)
def test_boxes_with_tilts_of_any_sign(tilts, bounds, middle, tmp_path, example_data):
    lines = [f"{low} {high} {tilt}" for (low, high), tilt in zip(bounds, tilts, strict=True)]
    atoms = ["1 0 0 0", "2 0.5 0.5 0.5", "3 1 0 0"]
    head = ["ITEM: UNITS", "real", "ITEM: TIMESTEP", "0", "ITEM: NUMBER OF ATOMS", "3"]
    text = "\n".join([*head, "ITEM: BOX BOUNDS xy xz yz pp pp pp", *lines, "ITEM: ATOMS id xs ys zs", *atoms, ""])
    (tmp_path / "t.dump").write_text(text)
    topology = mdtraj.load(str(example_data / "ala2.pdb")).topology.subset([0, 1, 2])
    (frames,) = Source(tmp_path / "t.dump", topology).chunks()
    xy, xz, yz = tilts
    assert frames.cells[0] == pytest.approx(np.array([[10, 0, 0], [xy, 8, 0], [xz, yz, 6]]))
    assert frames.positions[0] == pytest.approx(np.array([[1, 0, -2], middle, [11, 0, -2]]))


@pytest.mark.parametrize(("style", "force"), [("real", KCAL_PER_MOL), ("metal", 1.0)])
def test_forces_are_in_the_units_of_the_style(style, force, tmp_path, example_data):
    """LAMMPS's manual (units): Å in both; real has kcal/mol/Å, metal eV/Å."""
    lines = ["ITEM: UNITS", style, "ITEM: TIMESTEP", "0", "ITEM: NUMBER OF ATOMS", "1", "ITEM: BOX BOUNDS pp pp pp"]
    lines += ["0 9", "0 9", "0 9", "ITEM: ATOMS id x y z fx fy fz", "1 1 2 3 4 5 6", ""]
    (tmp_path / "t.dump").write_text("\n".join(lines))
    topology = mdtraj.load(str(example_data / "ala2.pdb")).topology.subset([0])
    (frames,) = Source(tmp_path / "t.dump", topology).chunks()
    assert frames.positions[0, 0].tolist() == [1, 2, 3]
    assert frames.forces[0, 0] == pytest.approx(force * np.array([4, 5, 6]))
